"""From a sound file to the image that a network takes, and from an image back to samples.

sound file -> samples -> magnitude -> spectrogram -> image, by load_audio, STFT or CQT, compress and to_image;
image -> spectrogram -> magnitude -> samples, by from_image, expand and the transform's reconstruct.

Conventions
  samples      float32 numpy array [shape=(n,), or (2, n) in stereo], full scale is -1 to 1
  magnitude    float32 numpy array [shape=(n_bins, n_frames)], non-negative, not decibels
  spectrogram  log1p or a power of the magnitude, scaled to [0, 1] or not [shape=(n_bins, n_frames)]
  image        torch tensor [shape=(1, channels, height, width)], a spectrogram as audiocnn.py takes it
  units        times in seconds, frequencies in Hz; n_fft, hop_length and lengths in samples

Sources
  Huzaifah, Wyse 2019, arXiv:1901.10240, for log1p magnitudes scaled from [0, 7] to [0, 1]
"""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch

from audiocnn import ORIENTATIONS
from support import fast, phase, stereo
from support.filterbank import FilterBank
from support.values import check_choice, check_positive_int

LOUDEST = np.expm1(7.0)  # no full-scale sound reaches this magnitude at n_fft 1024; log1p of it is 7
KNEE = 1e-2  # magnitude below which a power becomes a straight line; -82 dB of a full-scale sine at n_fft 512
CQT_GAIN = 16.0  # brings noise to its level in an STFT with n_fft 1024, so that log1p compresses both alike


# 1. Samples --------------------------------------------------------------------------------------


def load_audio(path, *, sample_rate, offset=0.0, duration=None, mono=True):
    """Read and resample a sound file: samples [shape=(n,)], or [shape=(2, n)] where mono is False.

    Parameters
    ----------
    path : str or Path
        Any format that libsndfile reads (wav, flac, ogg, mp3 ...), any rate, any number of channels.
    sample_rate : int > 0 [Hz]
    offset, duration : float >= 0 [s]
        The excerpt to read; a duration of None reads to the end.
    mono : bool
        Mix down to one channel, or take the first two (or the only one twice).

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, not audio, or empty, silent or non-finite sound.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of a sound file, relative to {Path.cwd()}")
    if offset < 0 or (duration is not None and duration <= 0):
        raise ValueError(f"{offset=} must be at least 0 and {duration=} positive or None")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            file.seek(min(round(offset * rate), file.frames))
            frames = -1 if duration is None else round(duration * rate)
            samples = file.read(frames, dtype="float32", always_2d=True).T
            if "(should be" in file.extra_info:  # libsndfile's words on a wav or aiff header
                warnings.warn(f"{path} is cut off: its header promises more samples than there are", stacklevel=2)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is not a sound file that libsndfile can read ({error}); convert it to wav") from error
    if not mono and len(samples) == 1:
        warnings.warn(f"{path} has one channel: stereo makes both channels the same; set stereo=False", stacklevel=2)
    samples = samples.mean(axis=0) if mono else samples[[0, min(1, len(samples) - 1)]]
    check_samples(samples, f"{path} ({offset=}, {duration=})")
    return librosa.resample(samples, orig_sr=rate, target_sr=sample_rate)


def check_samples(samples, name):
    """Raise ValueError if samples are none, silent or not finite."""
    if samples.size == 0:
        raise ValueError(f"{name}: no samples; give a longer sound, or a smaller offset")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds NaN or infinite samples; repair or re-export the file")
    if not samples.any():
        raise ValueError(f"{name} is silent; choose another file or excerpt")


def fit_full_scale(samples):
    """Scale samples down if they would clip (peak above 0.99), and return them unchanged otherwise."""
    return samples * min(1.0, 0.99 / max(np.abs(samples).max(), 1e-10))


# 2. Magnitudes -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class STFT:
    """Short-time Fourier transform with a Hann window; reconstruction by PGHI and fast Griffin-Lim.

    Parameters
    ----------
    sample_rate : int > 0 [Hz]
    n_fft : int > 0 [samples]
        Length of the window; gives n_fft // 2 + 1 bins.
    hop_length : int > 0 [samples]
        At most half of n_fft, otherwise the frames can't be inverted; at most a quarter to find a phase.
    """

    sample_rate: int
    n_fft: int
    hop_length: int

    def __post_init__(self):
        check_positive_int(**vars(self))
        # scipy.signal.check_NOLA says the same, and takes a second to load.
        window = np.sin(np.pi * np.arange(self.n_fft) / self.n_fft) ** 2
        if np.bincount(np.arange(self.n_fft) % self.hop_length, window**2, self.hop_length).min() < 1e-10:
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
    def frequencies(self):
        """Centre of each bin [shape=(n_bins,), Hz]."""
        return librosa.fft_frequencies(sr=self.sample_rate, n_fft=self.n_fft)

    @property
    def reach(self):
        """How far a frame sees to each side [samples]."""
        return self.n_fft // 2

    def magnitude(self, samples):
        """Analyse samples [shape=(n,)]: magnitude [shape=(n_bins, 1 + n // hop_length)]."""
        _check_length(samples, self.n_fft, self.sample_rate, f"n_fft={self.n_fft}")
        return np.abs(librosa.stft(samples, n_fft=self.n_fft, hop_length=self.hop_length))

    def magnitude_function(self, length, *, device="cpu", then=lambda magnitude: magnitude):
        """Return `magnitude` of samples [shape=(..., length)], then another function, as one torch function."""
        frames, pad = dict(n_fft=self.n_fft, hop_length=self.hop_length), (self.n_fft // 2, self.n_fft // 2)
        window = torch.hann_window(self.n_fft, device=device)

        def part(samples):
            return then(fast.FrameSpectra.apply(samples, window, self.hop_length).abs())

        return lambda samples: fast.by_blocks(part, torch.nn.functional.pad(samples, pad), **frames)

    def reconstruct(self, magnitude, *, n_iter=200, length=None, seed=0):
        """Find samples [shape=(length,)] with a magnitude [shape=(n_bins, n_frames)], by n_iter Griffin-Lim steps."""
        check_positive_int(n_iter=n_iter)
        magnitude = _check_magnitude(magnitude, len(self.frequencies))
        lengths = np.full(len(magnitude), self.n_fft)
        estimate = phase.pghi(magnitude, self.frequencies / self.sample_rate, lengths, self.hop_length, seed=seed)
        estimate += np.pi * np.arange(len(magnitude))[:, None]  # from the frame's centre to its beginning
        settings = dict(n_fft=self.n_fft, hop_length=self.hop_length, length=length, n_iter=n_iter)
        return phase.griffinlim(magnitude, estimate, **settings)


@dataclass(frozen=True, kw_only=True)
class CQT:
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

    def __post_init__(self):
        check_positive_int(**{name: value for name, value in vars(self).items() if name != "fmin"})
        if not self.fmin > 0:
            raise ValueError(f"fmin={self.fmin} must be a positive frequency in Hz, for example 41.2")
        lengths, cutoff = self._filters
        if cutoff >= self.sample_rate / 2:
            raise ValueError(
                f"fmin={self.fmin} and n_octaves={self.n_octaves} reach {cutoff:.0f} Hz, above the Nyquist "
                f"frequency of {self.sample_rate / 2:.0f} Hz; lower fmin or n_octaves, or raise the sample rate"
            )
        if self.hop_length > lengths[-1]:
            warnings.warn(
                f"hop_length={self.hop_length} leaves gaps between the shortest filters ({lengths[-1]:.0f} samples): "
                "high frequencies are reconstructed poorly",
                stacklevel=3,
            )

    @property
    def frequencies(self):
        """Centre of each bin [shape=(n_bins,), Hz]."""
        return librosa.cqt_frequencies(
            self.bins_per_octave * self.n_octaves, fmin=self.fmin, bins_per_octave=self.bins_per_octave
        )

    @property
    def _filters(self):
        # Length of every filter in samples, and the frequency where the highest one ends.
        return librosa.filters.wavelet_lengths(freqs=self.frequencies, sr=self.sample_rate, window="hann")

    @property
    def reach(self):
        """How far a frame of the lowest bin sees to each side [samples]."""
        return int(np.ceil(self._filters[0][0] / 2))

    @property
    def _grid(self):
        return dict(
            sr=self.sample_rate, hop_length=self.hop_length, fmin=self.fmin, bins_per_octave=self.bins_per_octave
        )

    def magnitude(self, samples):
        """Analyse samples [shape=(n,)]: magnitude [shape=(n_bins, 1 + n // hop_length)]."""
        longest = int(np.ceil(self._filters[0][0]))
        _check_length(samples, longest, self.sample_rate, "the lowest filter; raise fmin, or lower bins_per_octave,")
        with warnings.catch_warnings():  # of octaves that are shorter than librosa's window; zeros fill the window
            warnings.filterwarnings("ignore", message="n_fft=.* is too large for input signal")
            transformed = librosa.cqt(samples, n_bins=len(self.frequencies), **self._grid)
        return CQT_GAIN * np.abs(transformed)

    def magnitude_function(self, length, *, device="cpu", then=lambda magnitude: magnitude):
        """Return `magnitude` of samples [shape=(..., length)], then another function, as one torch function."""
        bank = self.filter_bank(length, 1 + length // self.hop_length).to(device)
        return lambda samples: then(CQT_GAIN * bank.transform(samples).abs())

    def filter_bank(self, length, n_frames):
        """Return the same transform as a linear map of samples [shape=(length,)], without CQT_GAIN."""
        return FilterBank(self.frequencies / self.sample_rate, self._filters[0], self.hop_length, length, n_frames)

    def reconstruct(self, magnitude, *, n_iter=80, length=None, seed=0):
        """Find samples [shape=(length,)] with a magnitude [shape=(n_bins, n_frames)], by n_iter L-BFGS steps."""
        check_positive_int(n_iter=n_iter)
        magnitude = _check_magnitude(magnitude, len(self.frequencies)) / CQT_GAIN
        length = length or self.hop_length * (magnitude.shape[1] - 1)
        frequencies = self.frequencies / self.sample_rate
        estimate = phase.pghi(magnitude, frequencies, self._filters[0], self.hop_length, seed=seed)
        bank = self.filter_bank(length, magnitude.shape[1])
        # Low bins are many and long for the little sound that they hold: weights by frequency level this out.
        weights = (frequencies / frequencies[-1]).astype(np.float32)
        return phase.match_magnitude(bank, magnitude, estimate, weights, n_iter=n_iter)


def _check_length(samples, shortest, sample_rate, reason):
    check_samples(samples, "samples")
    if samples.ndim != 1:
        raise ValueError(f"samples have shape {samples.shape}; give the one channel of a mono sound, (n,)")
    if len(samples) < shortest:
        raise ValueError(
            f"the sound has {len(samples)} samples ({len(samples) / sample_rate:.2f} s), too short for {reason}: "
            f"give at least {shortest} samples ({shortest / sample_rate:.2f} s)"
        )


def _check_magnitude(magnitude, n_bins):
    if magnitude.ndim != 2 or len(magnitude) != n_bins:
        raise ValueError(
            f"magnitude has shape {magnitude.shape}; this transform has {n_bins} bins: ({n_bins}, n_frames)"
        )
    if not np.isfinite(magnitude).all():
        raise ValueError("magnitude holds NaN or infinite values; go back to the last step with finite losses")
    return np.asarray(magnitude, dtype=np.float32)


# 3. Spectrograms and images ----------------------------------------------------------------------


def compress(magnitude, *, use01scale, power="log1p"):
    """Magnitude to spectrogram: log1p, or magnitude**power; scaled so that the loudest becomes 1 if use01scale.

    log1p from [0, 7] to [0, 1] is Huzaifah & Wyse's. A power near 0.3, as in the ear, compresses from a much lower
    magnitude on, so that quiet sounds count. Takes numpy arrays, and torch tensors with gradients, without a warning.
    """
    check_power(power)
    spectrogram = _bend(magnitude, power)
    top = float(_bend(LOUDEST, power))
    if isinstance(spectrogram, np.ndarray) and spectrogram.max() > top:
        warnings.warn(
            f"the compressed magnitude reaches {spectrogram.max():.2f}, above {top:.3g}: the scaled spectrogram leaves "
            "[0, 1]; use a quieter sound or a smaller n_fft",
            stacklevel=2,
        )
    return spectrogram / top if use01scale else spectrogram


def check_power(power):
    """Raise ValueError unless magnitudes can be compressed by this power."""
    number = isinstance(power, int | float) and not isinstance(power, bool)
    if power != "log1p" and not (number and 0 < power <= 1):
        raise ValueError(f'power={power!r} must be above 0 and at most 1, for example 0.3; or "log1p"')


def expand(spectrogram, *, use01scale, power="log1p"):
    """Spectrogram to magnitude: the inverse of compress; values below 0 become 0."""
    spectrogram = np.maximum(spectrogram * float(_bend(LOUDEST, power)) if use01scale else spectrogram, 0)
    return np.expm1(spectrogram) if power == "log1p" else (spectrogram + KNEE**power) ** (1 / power) - KNEE


def _bend(magnitude, power):
    if power == "log1p":
        return torch.log1p(magnitude) if isinstance(magnitude, torch.Tensor) else np.log1p(magnitude)
    return (magnitude + KNEE) ** power - KNEE**power


def to_image(spectrogram, which_channel):
    """Spectrogram [shape=(n_bins, n_frames) or (planes, n_bins, n_frames)] to the image that a network takes."""
    check_choice("whichChannel", which_channel, ORIENTATIONS)
    planes = torch.as_tensor(spectrogram, dtype=torch.float32)
    planes = planes if planes.ndim == 3 else planes[None]
    if which_channel == "2D":
        return planes[:, None]  # (planes, 1, n_bins, n_frames)
    rows = planes.mT if which_channel == "time" else planes
    return rows[:, :, None]  # (planes, n_bins, 1, n_frames) or (planes, n_frames, 1, n_bins)


def from_image(image, which_channel):
    """Turn an image back to a spectrogram [shape=(n_bins, n_frames)]: the inverse of to_image for one plane."""
    check_choice("whichChannel", which_channel, ORIENTATIONS)
    rows = image[0, 0] if which_channel == "2D" else image[0, :, 0]
    return (rows.T if which_channel == "time" else rows).detach().cpu().numpy()


def image_function(transform, length, *, which_channel, use01scale, power, device="cpu"):
    """Return the whole way from samples to image as a torch function with gradients.

    The function takes samples [shape=(length,)], or [shape=(2, length)] for an image of four planes, see
    stereo.planes.
    """
    bend = functools.partial(compress, use01scale=use01scale, power=power)
    spectrogram = transform.magnitude_function(length, device=device, then=bend)
    return lambda samples: to_image(
        spectrogram(stereo.planes(samples) if samples.ndim == 2 else samples), which_channel
    )
