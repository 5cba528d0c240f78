"""Transforms: from samples to magnitudes, and back by an estimated phase.

Conventions
  samples    float32 numpy array [shape=(n,)]; torch tensor [shape=(..., n)] where gradients are needed
  magnitude  float32 numpy array [shape=(n_bins, n_frames)], non-negative, not decibels
  units      frequencies in Hz; n_fft, hop_length and lengths in samples

A transform of your own is a subclass of Transform: it has a sample_rate, a hop_length, the frequencies of its bins and
a magnitude_function.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import librosa
import numpy as np
import torch

from support.checks import check_number, check_positive_int
from support.sound import phase
from support.sound.files import check_samples
from support.sound.filterbank import FilterBank
from support.sound.frames import FrameSpectra, by_blocks

SHORTEST, LONGEST = 16, 2**20  # samples of a window; 48 s at 22050 Hz
CQT_GAIN = 16.0  # brings noise to its level in an STFT with n_fft 1024, so that log1p compresses both alike
Function = Callable[[torch.Tensor], torch.Tensor]


def _unchanged(magnitude):
    return magnitude


class Transform:
    """What every transform has; the methods here are slow but general, and subclasses have faster ones.

    Attributes
    ----------
    sample_rate : int > 0 [Hz]
    hop_length : int > 0 [samples]
    frequencies : np.ndarray [shape=(n_bins,), Hz]
        Centre of each bin.
    """

    sample_rate: int
    hop_length: int
    frequencies: np.ndarray

    @property
    def reach(self) -> int:
        """How far a frame sees to each side [samples]."""
        return self.n_fft_of_refinement // 2

    @property
    def n_fft_of_refinement(self) -> int:
        """Window of the STFT that preconditions the refinement: n_fft, or four hops where there is none [samples]."""
        return getattr(self, "n_fft", 4 * self.hop_length)

    def magnitude_function(
        self, length: int, *, device: str | torch.device = "cpu", then: Function = _unchanged
    ) -> Function:
        """Return the torch function from samples [shape=(..., length)] to then(magnitude) [(..., n_bins, n_frames)]."""
        raise NotImplementedError(f"{type(self).__name__} has no magnitude_function; write one")

    def magnitude(self, samples: np.ndarray) -> np.ndarray:
        """Analyse samples [shape=(n,)]: magnitude [shape=(n_bins, n_frames)]."""
        check_samples(samples, "samples")
        with torch.no_grad():
            return self.magnitude_function(len(samples))(torch.from_numpy(np.ascontiguousarray(samples))).numpy()

    def reconstruct(
        self, magnitude: np.ndarray, *, n_iter: int = 80, length: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """Find samples [shape=(length,)] with a magnitude [shape=(n_bins, n_frames)], by n_iter steps of L-BFGS."""
        check_positive_int(n_iter=n_iter)
        magnitude = _check_magnitude(magnitude, len(self.frequencies), length, self.hop_length)
        length = length or self.hop_length * (magnitude.shape[1] - 1)
        magnitude_of, start, weights = self._descent(magnitude, length, seed)
        return phase.match_magnitude(magnitude_of, magnitude, start, weights, n_iter=n_iter)

    def _descent(self, magnitude, length, seed):  # of a reconstruction: its function, where it begins, weights of bins
        noise = 1e-2 * np.random.default_rng(seed).standard_normal(length).astype(np.float32)
        return self.magnitude_function(length), noise, np.ones(len(magnitude), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class STFT(Transform):
    """Short-time Fourier transform; reconstruction by PGHI and fast Griffin-Lim.

    Parameters
    ----------
    sample_rate : int > 0 [Hz]
    n_fft : int > 0 [samples]
        Length of the window; gives n_fft // 2 + 1 bins.
    hop_length : int > 0 [samples]
        At most half of n_fft, otherwise the frames can't be inverted; at most a quarter to find a phase.
    window : str or tuple
        As scipy.signal.get_window takes it: "hann", "hamming", ("kaiser", 8.0).

    >>> STFT(sample_rate=16000, n_fft=512, hop_length=128).frequencies[:3].tolist()
    [0.0, 31.25, 62.5]
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    window: str | tuple = "hann"

    def __post_init__(self) -> None:
        check_positive_int(sample_rate=self.sample_rate, n_fft=self.n_fft, hop_length=self.hop_length)
        check_number("n_fft", int(self.n_fft), SHORTEST, most=LONGEST, whole=True)
        try:
            if not isinstance(self.window, str | tuple):
                raise TypeError("it must be a name, or a tuple of a name and numbers")
            window = phase.window_of(self.window, self.n_fft).numpy()
        except (ValueError, TypeError) as error:
            raise ValueError(f"window={self.window!r}: {error}; give a name such as 'hann' or 'hamming'") from error
        # scipy.signal.check_NOLA says the same, and takes a second to load.
        covered = np.bincount(np.arange(self.n_fft) % min(self.hop_length, self.n_fft), window**2)
        if self.hop_length > self.n_fft or covered.min() < 1e-10:
            raise ValueError(
                f"n_fft={self.n_fft} with hop_length={self.hop_length} can't be inverted: "
                f"the hop must be at most {self.n_fft // 2}; {self.n_fft // 4} is usual"
            )
        if 4 * self.hop_length > self.n_fft:
            warnings.warn(
                f"hop_length={self.hop_length} is more than a quarter of n_fft={self.n_fft}: "
                "magnitudes overlap too little to find a good phase",
                stacklevel=3,
            )

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of each bin [shape=(n_bins,), Hz]."""
        return librosa.fft_frequencies(sr=self.sample_rate, n_fft=self.n_fft)

    def magnitude(self, samples: np.ndarray) -> np.ndarray:
        """Analyse samples [shape=(n,)]: magnitude [shape=(n_bins, 1 + n // hop_length)]."""
        _check_length(samples, self.n_fft, self.sample_rate, f"n_fft={self.n_fft}")
        return np.abs(librosa.stft(samples, n_fft=self.n_fft, hop_length=self.hop_length, window=self.window))

    def magnitude_function(
        self, length: int, *, device: str | torch.device = "cpu", then: Function = _unchanged
    ) -> Function:
        """Return `magnitude` of samples [shape=(..., length)], then another function, as one torch function."""
        window = phase.window_of(self.window, self.n_fft).to(device)
        pad = (self.n_fft // 2, self.n_fft // 2)

        def part(samples):
            return then(FrameSpectra.apply(samples, window, self.hop_length).abs())

        def whole(samples):
            samples = torch.nn.functional.pad(samples, pad)
            return by_blocks(part, samples, n_fft=self.n_fft, hop_length=self.hop_length)

        return whole

    def reconstruct(
        self, magnitude: np.ndarray, *, n_iter: int = 200, length: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """Find samples [shape=(length,)] with a magnitude [shape=(n_bins, n_frames)], by n_iter Griffin-Lim steps."""
        check_positive_int(n_iter=n_iter)
        magnitude = _check_magnitude(magnitude, len(self.frequencies), length, self.hop_length)
        lengths = np.full(len(magnitude), self.n_fft)
        frequencies = self.frequencies / self.sample_rate
        estimate = phase.pghi(magnitude, frequencies, lengths, self.hop_length, window=self.window, seed=seed)
        estimate += np.pi * np.arange(len(magnitude))[:, None]  # from the frame's centre to its beginning
        return phase.griffinlim(
            magnitude,
            estimate,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            window=self.window,
            length=length,
            n_iter=n_iter,
        )


@dataclass(frozen=True, kw_only=True)
class CQT(Transform):
    """librosa's constant-Q transform; reconstruction by PGHI and L-BFGS on the samples.

    Parameters
    ----------
    sample_rate : int > 0 [Hz]
    hop_length : int > 0 [samples]
    bins_per_octave : int > 0
        Resolution in frequency; the lowest filters grow with it and blur time.
    fmin : float > 0 [Hz]
        Lowest frequency.
    n_octaves : int > 0
        The highest filter has to end below the Nyquist frequency.
    """

    sample_rate: int
    hop_length: int
    bins_per_octave: int
    fmin: float
    n_octaves: int

    def __post_init__(self) -> None:
        check_positive_int(**{name: value for name, value in vars(self).items() if name != "fmin"})
        check_number("lowest_frequency", self.fmin, 0, beyond=True, most=self.sample_rate / 2)
        check_number("n_octaves", int(self.n_octaves), 1, most=20, whole=True)
        n_bins = self.bins_per_octave * self.n_octaves
        if not 2 <= n_bins <= 2**14:
            given = f"bins_per_octave={self.bins_per_octave} and n_octaves={self.n_octaves}"
            raise ValueError(f"{given} make {n_bins} in all; 2 to {2**14} bins are possible, such as 48 times 8")
        lengths, cutoff = self._filters
        if cutoff >= self.sample_rate / 2:
            raise ValueError(self._too_high(cutoff))
        if lengths[0] > LONGEST:
            raise ValueError(
                f"lowest_frequency={self.fmin} with bins_per_octave={self.bins_per_octave} needs filters of "
                f"{lengths[0]:.3g} samples, more than {LONGEST}; set lowest_frequency to at least "
                f"{1.01 * self.fmin * lengths[0] / LONGEST:.3g}, or fewer bins_per_octave"
            )
        if self.hop_length > lengths[-1]:
            warnings.warn(
                f"hop_length={self.hop_length} leaves gaps between the shortest filters ({lengths[-1]:.0f} samples): "
                "high frequencies are reconstructed poorly",
                stacklevel=3,
            )

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of each bin [shape=(n_bins,), Hz]."""
        return librosa.cqt_frequencies(
            self.bins_per_octave * self.n_octaves, fmin=self.fmin, bins_per_octave=self.bins_per_octave
        )

    def _too_high(self, cutoff):
        share = self.sample_rate / 2 / cutoff  # of an octave less, the filters end at half of the frequency
        fitting = self.n_octaves - 1 + int(np.ceil(np.log2(share)))
        values = [f"n_octaves={fitting}"] if fitting * self.bins_per_octave > 1 else []
        values += [f"lowest_frequency={0.99 * share * self.fmin:.3g}", f"sample_rate={int(2.01 * cutoff) + 1}"]
        return (
            f"lowest_frequency={self.fmin} and n_octaves={self.n_octaves} reach {cutoff:.0f} Hz, above the Nyquist "
            f"frequency of {self.sample_rate / 2:.0f} Hz; set {' or '.join(values)}"
        )

    @property
    def _filters(self):
        # Length of every filter in samples, and the frequency where the highest one ends.
        return librosa.filters.wavelet_lengths(freqs=self.frequencies, sr=self.sample_rate, window="hann")

    @property
    def reach(self) -> int:
        """How far a frame of the lowest bin sees to each side [samples]."""
        return int(np.ceil(self._filters[0][0] / 2))

    def magnitude(self, samples: np.ndarray) -> np.ndarray:
        """Analyse samples [shape=(n,)]: magnitude [shape=(n_bins, 1 + n // hop_length)]."""
        longest = int(np.ceil(self._filters[0][0]))
        reason = "the lowest filter (raise lowest_frequency, or lower bins_per_octave)"
        _check_length(samples, longest, self.sample_rate, reason)
        with warnings.catch_warnings():  # of octaves that are shorter than librosa's window; zeros fill the window
            warnings.filterwarnings("ignore", message="n_fft=.* is too large for input signal")
            transformed = librosa.cqt(
                samples,
                sr=self.sample_rate,
                hop_length=self.hop_length,
                fmin=self.fmin,
                n_bins=len(self.frequencies),
                bins_per_octave=self.bins_per_octave,
            )
        return CQT_GAIN * np.abs(transformed)

    def magnitude_function(
        self, length: int, *, device: str | torch.device = "cpu", then: Function = _unchanged
    ) -> Function:
        """Return `magnitude` of samples [shape=(..., length)], then another function, as one torch function."""
        bank = self.filter_bank(length, 1 + length // self.hop_length).to(device)
        return lambda samples: then(CQT_GAIN * bank.transform(samples).abs())

    def filter_bank(self, length: int, n_frames: int) -> FilterBank:
        """Return the same transform as a linear map of samples [shape=(length,)], without CQT_GAIN."""
        return FilterBank(self.frequencies / self.sample_rate, self._filters[0], self.hop_length, length, n_frames)

    def _descent(self, magnitude, length, seed):
        magnitude, frequencies = magnitude / CQT_GAIN, self.frequencies / self.sample_rate
        estimate = phase.pghi(magnitude, frequencies, self._filters[0], self.hop_length, seed=seed)
        bank = self.filter_bank(length, magnitude.shape[1])
        start = bank.inverse(torch.polar(torch.from_numpy(magnitude), torch.from_numpy(estimate))).numpy()
        # Low bins are many and long for the little sound that they hold: weights by frequency level this out.
        weights = (frequencies / frequencies[-1] / CQT_GAIN**2).astype(np.float32)
        return lambda samples: CQT_GAIN * bank.transform(samples).abs(), start, weights


@dataclass(frozen=True, kw_only=True)
class Mel(Transform):
    """Sums of an STFT's magnitudes over librosa's mel bands; reconstruction by non-negative least squares.

    Parameters
    ----------
    sample_rate : int > 0 [Hz]
    n_fft, hop_length : int > 0 [samples]
        Of the STFT.
    n_mels : int > 0
        Bands, evenly on the mel scale; more bands than the STFT has bins leave some bands empty.

    >>> mel = Mel(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
    >>> mel.magnitude(np.ones(1024, dtype=np.float32)).shape
    (40, 9)
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int

    def __post_init__(self) -> None:
        check_positive_int(n_mels=self.n_mels)
        if (self.matrix.max(axis=1) == 0).any():
            raise ValueError(
                f"n_mels={self.n_mels} leaves bands without a bin at n_fft={self.n_fft}; fewer bands, or a longer n_fft"
            )

    @functools.cached_property
    def stft(self) -> STFT:
        """The STFT below."""
        return STFT(sample_rate=self.sample_rate, n_fft=self.n_fft, hop_length=self.hop_length)

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """Weight of each bin in each band [shape=(n_mels, n_fft // 2 + 1)]; each band's largest weight is 1."""
        stft = self.stft  # raises ValueError for a grid that can't be inverted
        with warnings.catch_warnings(action="ignore"):  # librosa's warning of empty bands
            return librosa.filters.mel(sr=stft.sample_rate, n_fft=stft.n_fft, n_mels=self.n_mels, norm=np.inf)

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of each band [shape=(n_mels,), Hz]."""
        return librosa.mel_frequencies(self.n_mels + 2, fmin=0.0, fmax=self.sample_rate / 2)[1:-1]

    def magnitude(self, samples: np.ndarray) -> np.ndarray:
        """Analyse samples [shape=(n,)]: magnitude [shape=(n_mels, 1 + n // hop_length)]."""
        return self.matrix @ self.stft.magnitude(samples)

    def magnitude_function(
        self, length: int, *, device: str | torch.device = "cpu", then: Function = _unchanged
    ) -> Function:
        """Return `magnitude` of samples [shape=(..., length)], then another function, as one torch function."""
        matrix = torch.from_numpy(self.matrix).to(device)
        return self.stft.magnitude_function(length, device=device, then=lambda bins: then(matrix @ bins))

    def reconstruct(
        self, magnitude: np.ndarray, *, n_iter: int = 200, length: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """Find samples [shape=(length,)] with a magnitude [shape=(n_mels, n_frames)]: first bins, then their phase."""
        magnitude = _check_magnitude(magnitude, self.n_mels, length, self.hop_length)
        bins = librosa.util.nnls(self.matrix, magnitude)
        return self.stft.reconstruct(bins.astype(np.float32), n_iter=n_iter, length=length, seed=seed)


def _check_length(samples, shortest, sample_rate, reason):
    check_samples(samples, "samples")
    if samples.ndim != 1:
        raise ValueError(f"samples have shape {samples.shape}; give the one channel of a mono sound, (n,)")
    if len(samples) < shortest:
        raise ValueError(
            f"the sound has {len(samples)} samples ({len(samples) / sample_rate:.3f} s), too short for {reason}: "
            f"give at least {shortest} samples ({shortest / sample_rate + 5e-4:.3f} s)"
        )


def _check_magnitude(magnitude, n_bins, length, hop_length):
    if magnitude.ndim != 2 or len(magnitude) != n_bins:
        raise ValueError(
            f"magnitude has shape {magnitude.shape}; this transform has {n_bins} bins: ({n_bins}, n_frames)"
        )
    if not np.isfinite(magnitude).all():
        raise ValueError("magnitude holds NaN or infinite values; go back to the last step with finite losses")
    n_frames = magnitude.shape[1]
    if length is not None and not 0 < length <= n_frames * hop_length:
        raise ValueError(
            f"{length=} samples do not have {n_frames} frames: give from 1 to {n_frames * hop_length}, or None for all"
        )
    return np.asarray(magnitude, dtype=np.float32)
