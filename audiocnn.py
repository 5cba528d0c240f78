"""Neural style transfer and texture synthesis on audio: the mechanism behind the notebooks.

The pipeline, in the order of this file:
  1. sound -> magnitudes (STFT or constant-Q) -> compressed -> [0, 1] -> network tensor, and back
     by estimating the phase from the magnitudes and improving it;
  2. a 3-block CNN, random networks of bands side by side, or any chain of PyTorch layers;
  3. losses of style (Gram matrices or distributions), content, rhythm and diversity, by layer names;
  4. a start, which L-BFGS changes until the losses are small: the image first, then the samples;
  5. pictures, files that are written whole or not at all, and many runs.

Conventions
  samples    float32 numpy array [shape=(n,), or (2, n) in stereo], full scale is -1 to 1
  magnitude  float32 numpy array [shape=(n_bins, n_frames)], non-negative, not decibels
  features   log1p or a power of the magnitude, scaled to [0, 1] or not [shape=(n_bins, n_frames)]
  image      torch tensor [shape=(1, channels, height, width)], the features as a network sees them:
             "freq" (1, n_bins, 1, n_frames), "time" (1, n_frames, 1, n_bins),
             "2D" (1, 1, n_bins, n_frames); in stereo with 4 planes instead of 1, see stereo_planes
  units      times in seconds, frequencies in Hz; n_fft, hop_length and lengths in samples

Sources
  Gatys, Ecker, Bethge 2015, A Neural Algorithm of Artistic Style, arXiv:1508.06576
  Ulyanov, Lebedev 2016, Audio texture synthesis and style transfer (blog post)
  Huzaifah, Wyse 2019, Applying visual domain style transfer and texture synthesis techniques
    to audio, arXiv:1901.10240
  Antognini, Hoffman, Weiss 2019, Audio texture synthesis with random neural networks, arXiv:1806.08002
  Heitz, Vanhoey, Chambon, Belcour 2021, A sliced Wasserstein loss for neural texture synthesis
  Griffin, Lim 1984, Signal estimation from modified short-time Fourier transform
  Perraudin, Balazs, Søndergaard 2013, A fast Griffin-Lim algorithm
  Průša, Balazs, Søndergaard 2017, A noniterative method for reconstruction of phase from STFT magnitude
"""

import copy
import functools
import gc
import hashlib
import heapq
import html
import itertools
import json
import os
import pickle
import platform
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import IPython.display
import librosa
import librosa.display
import matplotlib.pyplot as plt
import nbclient
import nbformat
import numba
import numpy as np
import scipy.fft
import scipy.signal
import soundfile
import torch
import torch.fx
from torch import nn

ORIENTATIONS = ("freq", "time", "2D")
STARTS = ("samples", "rand", "randn", "content", "noise")
LOUDEST = np.expm1(7.0)  # no full-scale sound reaches this magnitude at n_fft 1024; log1p of it is 7
KNEE = 1e-2  # magnitude below which a power becomes a straight line; -82 dB of a full-scale sine at n_fft 512
N_QUANTILES = 512
CQT_GAIN = 16.0  # brings noise to its level in an STFT with n_fft 1024, so that log1p bends both alike


# 1. Spectrograms ---------------------------------------------------------------------------------


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
                warnings.warn(f"{path} is cut off: its header promises more; what is there is used", stacklevel=2)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is not a sound file that libsndfile can read ({error}); convert it to wav") from error
    samples = samples.mean(axis=0) if mono else samples[[0, min(1, len(samples) - 1)]]
    _check_samples(samples, f"{path} ({offset=}, {duration=})")
    return librosa.resample(samples, orig_sr=rate, target_sr=sample_rate)


def _check_samples(samples, name):
    if samples.size == 0:
        raise ValueError(f"{name}: no samples; give a longer sound, or a smaller offset")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds NaN or infinite samples; repair or re-export the file")
    if not samples.any():
        raise ValueError(f"{name} is silent; choose another file or excerpt")


@dataclass(frozen=True, kw_only=True)
class STFT:
    """Short-time Fourier transform: samples to magnitudes, and back by PGHI and fast Griffin-Lim.

    Parameters
    ----------
    sample_rate : int > 0 [Hz]
    n_fft : int > 0 [samples]
        Length of the Hann window; gives n_fft // 2 + 1 bins.
    hop_length : int > 0 [samples]
        At most half of n_fft, or the frames can't be inverted; at most a quarter to find a phase.
    n_iter : int > 0
        Griffin-Lim iterations (momentum 0.99, Perraudin 2013).
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    n_iter: int = 200

    def __post_init__(self):
        _require_positive_int(**vars(self))
        overlap = self.n_fft - self.hop_length
        if overlap <= 0 or not scipy.signal.check_NOLA("hann", self.n_fft, overlap):
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
    def axes(self):
        """Keyword arguments for librosa.display.specshow."""
        return dict(sr=self.sample_rate, n_fft=self.n_fft, hop_length=self.hop_length, x_axis="time", y_axis="linear")

    def magnitude(self, samples):
        """Analyse: samples [shape=(n,)] to magnitude [shape=(n_bins, 1 + n // hop_length)]."""
        _check_length(samples, self.n_fft, self.sample_rate, f"n_fft={self.n_fft}")
        return np.abs(librosa.stft(samples, n_fft=self.n_fft, hop_length=self.hop_length))

    def analyser(self, length, *, device="cpu"):
        """Return the analysis of samples [shape=(..., length)] as a torch function with gradients."""
        settings = dict(window=torch.hann_window(self.n_fft, device=device), pad_mode="constant", return_complex=True)
        return lambda samples: torch.stft(samples, self.n_fft, self.hop_length, **settings).abs()

    def samples(self, magnitude, *, length=None, seed=0):
        """Resynthesise: magnitude [shape=(n_bins, n_frames)] to samples [shape=(length,)]."""
        magnitude = _check_magnitude(magnitude, len(self.frequencies))
        lengths = np.full(len(magnitude), self.n_fft)
        phase = _estimate_phase(magnitude, self.frequencies / self.sample_rate, lengths, self.hop_length, seed)
        phase += np.pi * np.arange(len(magnitude))[:, None]  # librosa's phase is that of a frame's beginning
        return _griffinlim(magnitude, phase, self.n_fft, self.hop_length, length, self.n_iter)


@dataclass(frozen=True, kw_only=True)
class CQT:
    """Constant-Q transform by librosa: samples to magnitudes, and back by PGHI and L-BFGS on the samples.

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
    n_iter : int > 0
        L-BFGS iterations.
    """

    sample_rate: int
    hop_length: int
    bins_per_octave: int
    fmin: float
    n_octaves: int
    n_iter: int = 80

    def __post_init__(self):
        _require_positive_int(**{name: value for name, value in vars(self).items() if name != "fmin"})
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
                "high frequencies come back poorly",
                stacklevel=3,
            )

    @property
    def frequencies(self):
        """Centre of each bin [shape=(n_bins,), Hz]."""
        return librosa.cqt_frequencies(
            self.bins_per_octave * self.n_octaves, fmin=self.fmin, bins_per_octave=self.bins_per_octave
        )

    @property
    def axes(self):
        """Keyword arguments for librosa.display.specshow."""
        return self._grid | dict(x_axis="time", y_axis="cqt_hz")

    @property
    def _filters(self):
        # Length of every filter in samples, and the frequency where the highest one ends.
        return librosa.filters.wavelet_lengths(freqs=self.frequencies, sr=self.sample_rate, window="hann")

    @property
    def _grid(self):
        return dict(
            sr=self.sample_rate, hop_length=self.hop_length, fmin=self.fmin, bins_per_octave=self.bins_per_octave
        )

    def magnitude(self, samples):
        """Analyse: samples [shape=(n,)] to magnitude [shape=(n_bins, 1 + n // hop_length)]."""
        longest = int(np.ceil(self._filters[0][0]))
        _check_length(samples, longest, self.sample_rate, "the lowest filter; raise fmin, or lower bins_per_octave,")
        return CQT_GAIN * np.abs(librosa.cqt(samples, n_bins=len(self.frequencies), **self._grid))

    def analyser(self, length, *, device="cpu"):
        """Return the analysis of samples [shape=(..., length)] as a torch function with gradients, see _FilterBank."""
        bank = self._bank(length, 1 + length // self.hop_length).to(device)
        return lambda samples: CQT_GAIN * bank.transform(samples).abs()

    def _bank(self, length, n_frames):
        return _FilterBank(self.frequencies / self.sample_rate, self._filters[0], self.hop_length, length, n_frames)

    def samples(self, magnitude, *, length=None, seed=0):
        """Resynthesise: magnitude [shape=(n_bins, n_frames)] to samples [shape=(length,)]."""
        magnitude = _check_magnitude(magnitude, len(self.frequencies)) / CQT_GAIN
        length = length or self.hop_length * (magnitude.shape[1] - 1)
        frequencies, lengths = self.frequencies / self.sample_rate, self._filters[0]
        phase = _estimate_phase(magnitude, frequencies, lengths, self.hop_length, seed)
        bank = self._bank(length, magnitude.shape[1])
        target = torch.from_numpy(magnitude)
        # Low bins are many and long for the little sound they hold: weights that bring all nearer to one footing.
        weights = torch.from_numpy((frequencies / frequencies[-1]).astype(np.float32))[:, None]
        found = bank.inverse(torch.polar(target, torch.from_numpy(phase))).requires_grad_()

        def distance():
            found.grad = None
            loss = (weights * (bank.transform(found).abs() - target).square()).sum()
            loss.backward()
            return loss

        _lbfgs(found, max_iter=self.n_iter, history_size=10).step(distance)
        return found.detach().numpy()


@numba.njit(cache=True)
def _integrate(log_magnitude, along_time, along_bins, floor, phase):
    # From the loudest point to its neighbours, always on from the loudest one reached so far.
    todo = log_magnitude > floor
    n_bins, n_frames = log_magnitude.shape
    for point in np.argsort(-log_magnitude.ravel()):
        heap = [(0.0, point // n_frames, point % n_frames)]
        if not todo[heap[0][1], heap[0][2]]:
            continue
        todo[heap[0][1], heap[0][2]] = False
        while heap:
            _, k, n = heapq.heappop(heap)
            for dk, dn in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                i, j = k + dk, n + dn
                if 0 <= i < n_bins and 0 <= j < n_frames and todo[i, j]:
                    slope = dn * (along_time[k, n] + along_time[i, j]) + dk * (along_bins[k, n] + along_bins[i, j])
                    phase[i, j] = phase[k, n] + slope / 2
                    todo[i, j] = False
                    heapq.heappush(heap, (-log_magnitude[i, j], i, j))
    return phase


def _estimate_phase(magnitude, frequencies, lengths, hop_length, seed):
    """Phase gradient heap integration (Průša 2017), for Hann windows with a length of their own in each bin.

    The phase of a Gaussian-windowed transform follows from the slopes of its log magnitude; a Hann
    window is close to a Gaussian. Frequencies in cycles per sample, lengths in samples [shape=(n_bins,)];
    the phase [shape=(n_bins, n_frames), float32] is that of the frames' centres.
    """
    width = 0.25645 * lengths[:, None] ** 2.0
    level = magnitude / np.sqrt(lengths)[:, None]  # or the constant-Q scaling would pass for a slope
    floor = 1e-6 * level.max() + 1e-30
    log_magnitude = np.log(np.maximum(level, floor)).astype(np.float64)
    along_time = 2 * np.pi * frequencies[:, None] + np.gradient(log_magnitude, frequencies, axis=0) / width
    along_bins = -width * np.gradient(log_magnitude, axis=1) / hop_length * np.gradient(frequencies)[:, None]
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, magnitude.shape)  # where it is as good as silent
    return _integrate(log_magnitude, hop_length * along_time, along_bins, np.log(floor), phase).astype(np.float32)


def _griffinlim(magnitude, phase, n_fft, hop_length, length, n_iter):
    # Perraudin 2013, momentum 0.99. librosa's takes no phase to start from; torch.stft and istft go through all of
    # a long sound at every step of an iteration, where this goes through stretches that stay in the cache.
    window = torch.hann_window(n_fft)
    magnitude, phase = (torch.from_numpy(values.T.copy()) for values in (magnitude, phase))  # (n_frames, n_bins)
    n_frames, overlap = len(magnitude), -(-n_fft // hop_length)
    length = length or hop_length * (n_frames - 1)
    inside = slice(n_fft // 2, n_fft // 2 + length)
    blocks = torch.zeros(n_frames + overlap - 1, hop_length)
    samples = blocks.view(-1)
    covered = librosa.filters.window_sumsquare(window="hann", n_frames=n_frames, n_fft=n_fft, hop_length=hop_length)
    gain = torch.zeros_like(samples)
    gain[inside] = 1 / torch.from_numpy(covered)[inside].clamp_min(1e-11)
    stretches = [slice(first, min(first + 1024, n_frames)) for first in range(0, n_frames, 1024)]

    def resynthesise():
        blocks.zero_()
        for stretch in stretches:
            frames = torch.fft.irfft(spectrum[stretch], n_fft).mul_(window)
            for k in range(overlap):
                part = frames[:, k * hop_length : (k + 1) * hop_length]
                blocks[stretch.start + k : stretch.stop + k, : part.shape[1]] += part
        return samples.mul_(gain)

    spectrum = torch.polar(magnitude, phase)
    before = spectrum.clone()
    for _ in range(n_iter):
        frames = resynthesise().unfold(0, n_fft, hop_length)
        for stretch in stretches:
            rebuilt = torch.fft.rfft(frames[stretch] * window)
            spectrum[stretch] = torch.lerp(before[stretch], rebuilt, 1.99).sgn_().mul_(magnitude[stretch])
            before[stretch] = rebuilt
    return librosa.util.fix_length(resynthesise()[inside].numpy(), size=length)


class _FilterBank(nn.Module):
    """The constant-Q transform as one linear map with gradients, and nearly its inverse.

    librosa's transform within about -28 dB (a test holds it to -26). Each
    filter is a Hann window, so it covers a few DFT bins of the whole sound: these are cut out,
    weighted, folded to the frame rate and transformed back.
    """

    def __init__(self, frequencies, lengths, hop_length, length, n_frames):
        super().__init__()
        self.length, self.n_frames, self.hop_length = length, n_frames, hop_length
        self.n_bins = len(lengths)
        self.period = scipy.fft.next_fast_len(n_frames + 1 + int(lengths[0]) // hop_length)  # in frames, with room
        self.n_fft = self.period * hop_length
        sources, targets, gains = [], [], []
        for k, (center, window) in enumerate(zip(frequencies, lengths, strict=True)):
            low = max(1, int(np.ceil((center - 3 / window) * self.n_fft)))  # 3: the main lobe ends at 2
            source = np.arange(low, min(self.n_fft // 2, int((center + 3 / window) * self.n_fft)) + 1)
            offset = window * (source / self.n_fft - center)
            hann = np.sinc(offset) + 0.5 * np.sinc(offset - 1) + 0.5 * np.sinc(offset + 1)
            sources.append(source)
            targets.append(k * self.period + source % self.period)
            gains.append((np.sqrt(window) * hann).astype(np.float32))
        for name, parts in (("sources", sources), ("targets", targets), ("gains", gains)):
            self.register_buffer(name, torch.from_numpy(np.concatenate(parts)))
        power = torch.zeros(self.n_fft // 2 + 1).index_add_(0, self.sources, self.gains**2)
        self.register_buffer("power", power + 1e-3 * power.max())

    def transform(self, samples):  # (..., length) to complex (..., n_bins, n_frames)
        spectrum = torch.fft.rfft(samples, self.n_fft)
        folded = spectrum.new_zeros(*samples.shape[:-1], self.n_bins * self.period)
        folded = folded.index_add(-1, self.targets, spectrum[..., self.sources] * self.gains)
        return torch.fft.ifft(folded.unflatten(-1, (self.n_bins, self.period)))[..., : self.n_frames] / self.hop_length

    def inverse(self, coefficients):  # complex (n_bins, n_frames) to (length,)
        bands = torch.fft.fft(coefficients, self.period).flatten()
        spectrum = torch.zeros(self.n_fft // 2 + 1, dtype=bands.dtype)
        spectrum = spectrum.index_add(0, self.sources, bands[self.targets] * self.gains)
        return torch.fft.irfft(spectrum / self.power * self.hop_length, self.n_fft)[: self.length].contiguous()


def _require_positive_int(**values):
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}={value!r} must be a positive whole number")


def _require_choice(setting, value, allowed):
    if value not in allowed:
        raise ValueError(f"{setting}={value!r} is unknown; choose one of {', '.join(allowed)}")


def _check_length(samples, shortest, sample_rate, reason):
    _check_samples(samples, "samples")
    if samples.ndim != 1:
        raise ValueError(f"samples have shape {samples.shape}; give the one channel of a mono sound, (n,)")
    if len(samples) < shortest:
        raise ValueError(
            f"the sound has {len(samples)} samples ({len(samples) / sample_rate:.2f} s), too short for {reason}: "
            f"it needs at least {shortest} samples ({shortest / sample_rate:.2f} s)"
        )


def _check_magnitude(magnitude, n_bins):
    if magnitude.ndim != 2 or len(magnitude) != n_bins:
        raise ValueError(
            f"magnitude has shape {magnitude.shape}; this transform has {n_bins} bins: ({n_bins}, n_frames)"
        )
    if not np.isfinite(magnitude).all():
        raise ValueError("magnitude holds NaN or infinite values; go back to the last step with finite losses")
    return np.asarray(magnitude, dtype=np.float32)


def compress(magnitude, *, use01scale, power=None):
    """Magnitude to features: log1p, or magnitude**power; the loudest becomes 1 if use01scale.

    log1p from [0, 7] to [0, 1] is Huzaifah & Wyse's; a power near 0.3, as in the ear, has its
    knee much lower, so that quiet sounds count. Takes numpy arrays, and torch tensors with gradients.
    """
    if power is not None and not (isinstance(power, int | float) and 0 < power <= 1):
        raise ValueError(f"power={power!r} must be above 0 and at most 1, for example 0.3; or None for log1p")
    features = _bend(magnitude, power)
    top = float(_bend(LOUDEST, power))
    if features.max() > top:
        warnings.warn(
            f"the compressed magnitude reaches {features.max():.2f}, above {top:.3g}: scaled features leave [0, 1]; "
            "use a quieter sound or a smaller n_fft",
            stacklevel=2,
        )
    return features / top if use01scale else features


def expand(features, *, use01scale, power=None):
    """Features to magnitude: the inverse of compress; what lies below 0 becomes 0."""
    features = np.maximum(features * float(_bend(LOUDEST, power)) if use01scale else features, 0)
    return np.expm1(features) if power is None else (features + KNEE**power) ** (1 / power) - KNEE


def _bend(magnitude, power):
    if power is None:
        return torch.log1p(magnitude) if isinstance(magnitude, torch.Tensor) else np.log1p(magnitude)
    return (magnitude + KNEE) ** power - KNEE**power


def to_image(features, which_channel):
    """Features [shape=(n_bins, n_frames) or (planes, n_bins, n_frames)] to a network's image, see the top."""
    _require_choice("whichChannel", which_channel, ORIENTATIONS)
    planes = torch.as_tensor(features, dtype=torch.float32)
    planes = planes if planes.ndim == 3 else planes[None]
    if which_channel == "2D":
        return planes[:, None]  # (planes, 1, n_bins, n_frames)
    rows = planes.mT if which_channel == "time" else planes
    return rows[:, :, None]  # (planes, n_bins, 1, n_frames) or (planes, n_frames, 1, n_bins)


def from_image(image, which_channel):
    """Turn a network's image back to features [shape=(n_bins, n_frames)]: the inverse of to_image."""
    _require_choice("whichChannel", which_channel, ORIENTATIONS)
    rows = image[0, 0] if which_channel == "2D" else image[0, :, 0]
    return (rows.T if which_channel == "time" else rows).detach().cpu().numpy()


# 2. The network ----------------------------------------------------------------------------------


class CNN(nn.Module):
    """Three blocks of convolution, batch norm, ReLU and max-pool, then a linear classifier.

    Parameters
    ----------
    parameters : dict
        l1channels, l2channels, l3channels : filters of each block
        orientation : "freq", "time" (1-D filters over the width, pooling halves it) or
            "2D" (square filters, pooling halves both sides)
        in_channels, in_height, in_width : shape of the images that the classifier was made for;
            the blocks before it take any width
        kernelsize : length of a filter, in positions
        n_classes : outputs of the classifier
    """

    def __init__(self, parameters):
        super().__init__()
        _check_parameters(parameters)
        flat = parameters["orientation"] != "2D"
        kernel = parameters["kernelsize"]
        kernel, pool = ((1, kernel), (1, 2)) if flat else ((kernel, kernel), (2, 2))
        channels = [parameters[name] for name in ("in_channels", "l1channels", "l2channels", "l3channels")]
        blocks = [
            nn.Sequential(
                nn.Conv2d(before, after, kernel, padding="same"),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(pool),
            )
            for before, after in itertools.pairwise(channels)
        ]
        self.layer1, self.layer2, self.layer3 = blocks
        height, width = parameters["in_height"] // pool[0] ** 3, parameters["in_width"] // 8
        self.fc = nn.Linear(channels[-1] * height * width, parameters["n_classes"])

    def forward(self, image):
        """Image [shape=(batch, in_channels, in_height, in_width)] to scores [shape=(batch, n_classes)]."""
        features = self.layer3(self.layer2(self.layer1(image)))
        return self.fc(features.flatten(1))


_NUMBERS = ("l1channels", "l2channels", "l3channels", "in_channels", "in_height", "in_width", "kernelsize", "n_classes")


def _check_parameters(parameters):
    missing = [name for name in (*_NUMBERS, "orientation") if name not in parameters]
    if missing:
        raise ValueError(f"the network's parameters lack {', '.join(missing)}; they hold {', '.join(parameters)}")
    _require_positive_int(**{name: parameters[name] for name in _NUMBERS})
    _require_choice("orientation", parameters["orientation"], ORIENTATIONS)
    pooled = ("in_width",) if parameters["orientation"] != "2D" else ("in_height", "in_width")
    for name in pooled:
        if parameters[name] < 8:
            raise ValueError(f"{name}={parameters[name]} must be at least 8: three max-pools halve it each")


def band_networks(frequencies, *, widths, filters, dilation=1, seed=0):
    """Random networks side by side that see a texture as the ear does: in bands, at several time scales.

    Each has two layers: conv_1 adds up neighbouring bins to bands, from one to many ERB wide (sums
    of hundreds of bins with random signs would be Gaussian for any sound, and see nothing); conv_2
    filters every band over time by a random filter of its own. Separate widths follow Antognini 2019.

    Parameters
    ----------
    frequencies : np.ndarray [shape=(n_bins,), Hz]
        Of the transform; the images have the orientation "freq".
    widths : list of int > 0
        Lengths of the filters over time, in frames; dilation frames lie between their taps. A width may be
        repeated, for more random filters of it.
    filters : int > 0
        Bands of each network.

    Returns
    -------
    networks : nn.ModuleDict of nn.Sequential, called width_1, width_2 ..., and width_1_2 where repeated
    """
    _require_positive_int(filters=filters, dilation=dilation, **{f"width {width}": width for width in widths})
    generator = torch.Generator().manual_seed(seed)
    erb = torch.from_numpy(9.265 * np.log1p(np.asarray(frequencies) / 228.8)).float()  # Glasberg & Moore 1990
    networks = nn.ModuleDict()
    for number, width in enumerate(widths):
        # Beyond both ends, or the outermost bins would hardly count, and fill with what fits nowhere else.
        centres = torch.linspace(erb[0] - 0.5, erb[-1] + 0.5, filters)[:, None]
        spread = (2 * erb[-1]) ** torch.rand(filters, 1, generator=generator) / 2  # from 1 to 2 erb[-1] ERB wide
        bands = torch.exp(-0.5 * ((erb - centres) / spread) ** 2)
        bands = nn.functional.normalize(torch.where(bands < 1e-3, 0, bands))  # (filters, n_bins)
        taps = nn.functional.normalize(torch.randn(filters, width, generator=generator))
        conv_1 = nn.Conv2d(len(erb), filters, 1, bias=False)
        conv_2 = nn.Conv2d(filters, filters, (1, width), dilation=(1, dilation), groups=filters, bias=False)
        conv_1.weight.data, conv_2.weight.data = bands[:, :, None, None], taps[:, None, None]
        earlier = widths[:number].count(width)
        networks[f"width_{width}" + (f"_{earlier + 1}" if earlier else "")] = nn.Sequential(conv_1, conv_2)
    return networks.requires_grad_(False).eval()


class _PlainUnpickler(pickle.Unpickler):
    # Numbers, strings, lists and dicts need no class, so refusing every class keeps code from running.
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_parameters(path):
    """Read a network's parameters from a pickle file, named with or without .pkl; never runs code from it.

    Returns
    -------
    parameters : dict
        As CNN takes them. Only plain dicts, numbers and strings are let in.
    """
    path = Path(path)
    path = path if path.is_file() else path.with_name(path.name + ".pkl")
    if not path.is_file():
        raise FileNotFoundError(f"no parameter file {path}; give one of params/, or None to type the parameters")
    try:
        with open(path, "rb") as file:
            parameters = _PlainUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"{path} is not a parameter file: {error}; only a pickled dict of numbers and strings is allowed"
        ) from error
    if not isinstance(parameters, dict) or not all(isinstance(v, int | float | str) for v in parameters.values()):
        raise ValueError(f"{path} is not a parameter file: only a flat dict of numbers and strings is allowed")
    _check_parameters(parameters)
    return parameters


def build_network(parameters, *, model_path=None, seed=0):
    """Make a CNN with loaded or random weights, frozen and in eval mode.

    Parameters
    ----------
    parameters : dict
        As CNN takes them.
    model_path : str, Path or None
        A .pth file with a state dict; None draws PyTorch's default random weights.
    seed : int
        Of the random weights; PyTorch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CNN(parameters)
    if model_path is not None:
        if not Path(model_path).is_file():
            raise FileNotFoundError(f"no weights file {model_path}; give one of models/, or None for random weights")
        try:
            network.load_state_dict(torch.load(model_path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch.load raises nearly anything on a damaged or foreign file
            raise ValueError(
                f"{model_path} holds no weights (a saved state_dict) that fit the parameters; "
                f"use the pair of one name. {error}"
            ) from error
    return network.requires_grad_(False).eval()


def best_device():
    """Name the fastest device that is present: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_fit(parameters, which_channel, image):
    """Raise ValueError unless a network with these parameters takes this image in this orientation."""
    if parameters["orientation"] != which_channel:
        raise ValueError(
            f"the network's orientation is {parameters['orientation']!r} but whichChannel={which_channel!r}; "
            "change one of them"
        )
    sides = dict(zip(("in_channels", "in_height", "in_width"), image.shape[1:], strict=True))
    if which_channel != "time":
        del sides["in_width"]  # time frames: the blocks before the classifier take any number
    for name, size in sides.items():
        if parameters[name] != size:
            side = "time frames" if (which_channel, name) == ("time", "in_channels") else "frequency bins or layout"
            raise ValueError(
                f"the network was made for {name}={parameters[name]} but the spectrogram gives {size} ({side}); "
                "change the transform or the duration, or take another network "
                "(param_pkl and model_path None: a random one that fits)"
            )


# 3. Layers and losses ----------------------------------------------------------------------------


def named_layers(network):
    """List the layers of a network in the order of its forward pass.

    A layer is called by its kind and its number within that kind: conv_1, batchnorm_1, relu_1,
    pool_1, conv_2 ... A layer used twice counts twice. The list ends at the first step that is no
    layer (a flatten, a sum of branches), since what lies behind can't be rebuilt as a chain.

    Returns
    -------
    layers : dict from str to nn.Module
    """
    try:
        nodes = torch.fx.symbolic_trace(network).graph.nodes
    except Exception as error:  # fx raises nearly anything on control flow that depends on data
        raise ValueError(f"{type(network).__name__} is not a chain of layers: {error}; use an nn.Sequential") from error
    layers, counts = {}, {}
    for previous, node in itertools.pairwise(nodes):
        if node.op != "call_module" or node.args != (previous,):
            break
        layer = network.get_submodule(node.target)
        kind = _kind(layer)
        counts[kind] = counts.get(kind, 0) + 1
        layers[f"{kind}_{counts[kind]}"] = layer
    return layers


def _kind(layer):
    name = re.sub(r"[123]d$", "", type(layer).__name__.lower())
    return next((kind for kind in ("conv", "batchnorm", "pool") if kind in name), name)


def _apply(name, layer, image):
    try:
        return layer(image)
    except RuntimeError as error:
        raise ValueError(
            f"layer {name}, {layer}, can't take features of shape {tuple(image.shape)}: {error}; "
            "change the network, or use a longer sound"
        ) from error


def _chains(network):
    # Networks side by side by their prefix; a single one has none.
    if isinstance(network, nn.ModuleDict):
        return {f"{name} ": chain for name, chain in network.items()}
    return {"": network}


@torch.no_grad()
def layer_shapes(network, image):
    """Feature shape after each layer: dict from layer name to (1, channels, height, width); nothing is computed."""
    shapes = {}
    for prefix, chain in _chains(network).items():
        features = image.to("meta")
        for name, layer in named_layers(chain).items():
            features = _apply(name, copy.deepcopy(layer).to("meta"), features)
            shapes[prefix + name] = tuple(features.shape)
    return shapes


def receptive_fields(network):
    """Positions of the image's width that one position after each layer covers: dict from layer name to int."""
    fields = {}
    for prefix, chain in _chains(network).items():
        field, step = 1, 1
        for name, layer in named_layers(chain).items():
            sides = ("kernel_size", "stride", "dilation")  # numbers, or one for height and one for width
            kernel, stride, dilation = (int(np.ravel(getattr(layer, side, 1))[-1]) for side in sides)
            field, step = field + (kernel - 1) * dilation * step, step * stride
            fields[prefix + name] = field
    return fields


def gram_matrix(features):
    """Gram matrix of the channels [shape=(channels, channels)], divided by the number of positions.

    Gatys divides by channels too, inside the loss; here StyleLoss takes the mean over the entries.
    """
    rows = _rows(features)
    return (rows @ rows.T) / rows.shape[1]


class _GramDistance(torch.autograd.Function):
    """Sum of squared differences between the Gram matrices F F' and S S', through the smaller side.

    With many channels they are never formed: |F F' - S S'|^2 = |F' F|^2 - 2 |F' S|^2 + |S' S|^2, where
    every product is as small as the number of positions. Near the optimum the terms cancel: they are
    summed in float64, and the products too are taken in float64 once float32 would lose 1e-3 of the sum.
    """

    @staticmethod
    def forward(ctx, features, style, gram, style_term):  # (channels, n) not yet scaled, (channels, m), S S', |S' S|^2
        n_positions = features.shape[1]
        if features.device.type == "mps" or 2 * (n_positions + style.shape[1]) >= len(features):  # no float64 on MPS
            left, right = (features @ features.T) / n_positions - gram, features
            distance, ctx.scale = left.square().sum(), 4 / n_positions
        else:
            for dtype in (features.dtype, torch.float64):
                left = torch.cat([features / n_positions**0.5, style], dim=1).to(dtype)
                right = left.T @ left[:, :n_positions]
                own, cross = right[:n_positions], right[n_positions:].neg_()
                distance = own.double().square().sum() - 2 * cross.double().square().sum() + style_term
                if distance > 1e-5 * style_term:
                    break
            ctx.scale = 4 / n_positions**0.5
        ctx.save_for_backward(left, right)  # their product is the gradient: (F F' - S S') F or F (F' F) - S (S' F)
        return distance

    @staticmethod
    def backward(ctx, grad):  # a product of the two, taken here since features as many as in 2D fill the memory
        left, right = ctx.saved_tensors
        left = ctx.scale * grad * left
        product = (right.T @ left.T).T if right.stride(0) == 1 else left @ right  # laid out as the features are
        return product, None, None, None


class _NearestDistance(torch.autograd.Function):
    """Squared distance of the features F from the nearest ones that have the style's Gram matrix S S'.

    Those are S Q, where the rotation Q is the polar factor of S' F (Schönemann 1966); between
    Gram matrices it is the Bures distance. It grows with the square of F, not with its fourth power, so that
    L-BFGS descends it in far fewer steps (benchmarks, speed).
    """

    @staticmethod
    def forward(ctx, features, style):  # (channels, n), (channels, m)
        left, _, right = torch.linalg.svd((style.T @ features).nan_to_num(0, 0, 0), full_matrices=False)
        nearest = style @ (left @ right)
        ctx.save_for_backward(features - nearest)
        distance = (features - nearest).square().sum()
        if style.shape[1] > features.shape[1]:  # too few positions to hold all of the style
            distance = distance + style.square().sum() - nearest.square().sum()
        return distance

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0], None


class _Loss(nn.Module):
    # A transparent layer: it returns the features as they are, and leaves its distance from the target in `loss`.
    loss = None
    first = 0  # frame of the whole image where the features begin

    def forward(self, features):  # (1, channels, height, width), or (planes, channels, height, width) in stereo
        self.loss = self._distance(features)
        return features


def _blended(describe, styles, blend):
    return sum(share * describe(style.detach()) for share, style in zip(blend, styles, strict=True))


class StyleLoss(_Loss):
    """Mean squared difference between the Gram matrices of the features and of the style.

    Gatys divides by 4 channels^2 positions^2; we divide by channels^2, with Gram matrices per position,
    so that the lengths of the two sounds may differ. Several styles are blended: the target is the mean
    of their Gram matrices, weighted by blend. While `approaching`, the loss is the distance from the nearest
    features with the style's Gram matrix instead, scaled to be an upper bound of the other near zero.
    """

    approaching = False

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        self.gram = _blended(gram_matrix, styles, blend)
        rows = [_rows(style.detach()) for style in styles]
        rows = [(share / each.shape[1]) ** 0.5 * each for share, each in zip(blend, rows, strict=True)]
        self.rows = torch.cat(rows, dim=1)
        rows = self.rows.cpu().double()  # on the CPU, since MPS has no float64; rows rows' is gram
        self.style_term = (rows.T @ rows if rows.shape[1] < len(rows) else rows @ rows.T).square().sum().item()

    def _distance(self, features):
        rows = _rows(features)
        if self.approaching:
            distance = 4 * self.style_term**0.5 * _NearestDistance.apply(rows / rows.shape[1] ** 0.5, self._root)
        else:
            distance = _GramDistance.apply(rows, self.rows, self.gram, self.style_term)
        return distance / len(rows) ** 2

    @functools.cached_property
    def _root(self):  # (channels, at most channels), with the same Gram matrix as rows
        return torch.linalg.qr(self.rows.T).R.T


def _rows(features):
    return features.flatten(2).flatten(0, 1)  # (planes * channels, positions)


class DistributionLoss(_Loss):
    """How far each channel's values are distributed from the style's: a sliced Wasserstein distance.

    Mean squared difference of sorted values, divided by the style's variance. A Gram matrix sees means
    and covariances, this sees the whole distribution of every channel: how often it is silent, how loud
    the rare events are (Heitz 2021). Several styles are blended by the mean of their quantiles, the
    Wasserstein barycentre.
    """

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        n_quantiles = _quantiles(styles[0]).shape[1]
        self.target = _blended(lambda style: _resized(_quantiles(style), n_quantiles), styles, blend)
        self.variance = self.target.var(dim=1).mean()

    def _distance(self, features):
        found = _quantiles(features)
        return nn.functional.mse_loss(found, _resized(self.target, found.shape[1])) / self.variance


def _quantiles(features):  # (channels, up to N_QUANTILES): means of the sorted values, each sharing one with the next
    values = _Sort.apply(_rows(features).contiguous())  # or sorting goes across memory
    run = -(-values.shape[1] // N_QUANTILES)
    return nn.functional.avg_pool1d(values, run + (run > 1), stride=run, ceil_mode=True)


def _resized(quantiles, n_quantiles):
    return nn.functional.interpolate(quantiles[None], size=n_quantiles, mode="linear")[0]


class _Sort(torch.autograd.Function):
    # Sorts every row. On the CPU by NumPy, whose vector instructions for float64 are faster than PyTorch's sort
    # (benchmarks, sorting): the indices travel in the last 29 bits, which are zero in what comes from float32.

    @staticmethod
    def forward(ctx, rows):
        fast = rows.device.type == "cpu" and rows.dtype == torch.float32
        if fast:
            keys = rows.double()
            order = keys.view(torch.int64)
            order |= torch.arange(rows.shape[1])
            keys.numpy().sort(axis=1)
            fast = not keys[:, -1].isnan().any()  # infinite values become NaN, which keep no index
        values, order = (keys.float(), order.bitwise_and_(2**29 - 1)) if fast else rows.sort(dim=1)
        ctx.save_for_backward(order)
        return values

    @staticmethod
    def backward(ctx, grad):
        (order,) = ctx.saved_tensors
        return torch.empty_like(order, dtype=grad.dtype).scatter_(1, order, grad)


class RhythmLoss(_Loss):
    """Difference between the autocorrelations over time, relative to the style's (Antognini 2019).

    Mean over channels and lags up to half the style's length.
    """

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        self.n_lags = min(style.shape[-1] for style in styles) // 2
        self.target = _blended(self._autocorrelation, styles, blend)

    def _distance(self, features):
        found = self._autocorrelation(features)
        target = self.target[:, : found.shape[1]]
        return (found - target).square().mean() / target.square().mean()

    def _autocorrelation(self, features):  # (channels, lags)
        rows = _centred(features)
        n_lags, length = min(self.n_lags, rows.shape[1] // 2), rows.shape[1]
        power = torch.fft.rfft(rows, 2 * length).abs().square()
        return torch.fft.irfft(power)[:, :n_lags] / (length - torch.arange(n_lags, device=rows.device))


class DiversityLoss(_Loss):
    """How much of the features is the style's own, shifted by whatever time.

    The correlation with the style is taken at every shift, since an optimiser that is held off from
    one copies at the next (Antognini 2019); the loss is nearly the highest of them.
    """

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        self.rows = [_centred(style.detach()) for style in styles]

    def _distance(self, features):
        rows = _centred(features)
        return sum(self._similarity(rows, style) for style in self.rows)

    @staticmethod
    def _similarity(rows, style):
        period = rows.shape[1] + style.shape[1]
        product = torch.fft.rfft(rows, period) * torch.fft.rfft(style, period).conj()
        correlation = torch.fft.irfft(product.sum(dim=0), period) / (rows.norm() * style.norm()).clamp_min(1e-12)
        return correlation.norm(p=8)


def _centred(features):  # (planes * channels, positions), each channel without its mean
    rows = _rows(features)
    return rows - rows.mean(dim=1, keepdim=True)


class ContentLoss(_Loss):
    """Mean squared difference between the features and the content's."""

    def __init__(self, content_features):
        super().__init__()
        self.target = content_features.detach()

    def _distance(self, features):
        return (features - self.target[..., self.first :][..., : features.shape[3]]).square().mean()


STATISTICS = {"gram": StyleLoss, "distribution": DistributionLoss}


def insert_losses(
    network,
    *,
    style,
    style_layers,
    content=None,
    content_layers=(),
    rhythm_layers=(),
    diversity_layers=(),
    statistic="gram",
    blend=None,
):
    """Rebuild a network as far as its last tapped layer, with a loss after every tapped one.

    Parameters
    ----------
    network : nn.Module
        A CNN, any chain of layers, or an nn.ModuleDict of chains side by side; it is not changed.
        The losses in what is returned are called "style relu_1", "content relu_3" ...
    style, content : torch.Tensor [shape=(1, channels, height, width)]
        The images whose features the losses compare with; content may be None, style a list of
        images. They may differ in length, unless the channels are time frames.
    style_layers, content_layers, rhythm_layers, diversity_layers : list of str, or dict to weights
        Names as named_layers gives them.
    statistic : "gram" or "distribution"
        What the style losses compare: StyleLoss or DistributionLoss.
    blend : list of float > 0
        Shares of the styles; None: equal.
    """
    _require_choice("statistic", statistic, STATISTICS)
    styles = [style] if isinstance(style, torch.Tensor) else list(style)
    blend = _shares(blend, len(styles))
    taps = {"style": style_layers, "content": content_layers, "rhythm": rhythm_layers, "diversity": diversity_layers}
    kinds = {"style": STATISTICS[statistic], "rhythm": RhythmLoss, "diversity": DiversityLoss}
    if isinstance(network, nn.ModuleDict):
        return nn.ModuleDict(
            {name: _tap(chain, taps, kinds, styles, blend, content) for name, chain in network.items()}
        )
    return _tap(network, taps, kinds, styles, blend, content).to(memory_format=torch.channels_last)


def _shares(blend, n_styles):
    blend = [1.0] * n_styles if blend is None else list(blend)
    if len(blend) != n_styles or min(blend) <= 0:
        raise ValueError(f"blend={blend} must hold one positive share for each of the {n_styles} styles")
    return [share / sum(blend) for share in blend]


def _tap(network, taps, kinds, styles, blend, content):
    layers = named_layers(network)
    taps = {
        kind: dict.fromkeys(names, 1.0) if isinstance(names, list | tuple) else names for kind, names in taps.items()
    }
    _check_layers(layers, taps, content)
    model, n_frames = nn.Sequential(), styles[0].shape[3]
    last = max(list(layers).index(name) for names in taps.values() for name in names)
    for name, layer in list(layers.items())[: last + 1]:
        layer = _faster(copy.deepcopy(layer).requires_grad_(False).eval(), styles[0])
        if getattr(layer, "inplace", False):
            layer.inplace = False  # an in-place ReLU would overwrite the features a loss has tapped
        model.add_module(name, layer)
        with torch.no_grad():
            styles = [_apply(name, layer, style) for style in styles]
            content = None if content is None else _apply(name, layer, content)
        for kind, names in taps.items():
            if name in names:
                loss = ContentLoss(content) if kind == "content" else kinds[kind](*styles, blend=blend)
                loss.weight = names[name]
                model.add_module(f"{kind} {name}", loss)
    # Frames that a segment needs beyond its features; None where layers pad or stride: they would see its ends.
    overlap = receptive_fields(network)[name] - 1
    model.overlap = overlap if n_frames - styles[0].shape[3] == overlap else None
    return model


def _check_layers(layers, taps, content):
    for kind, names in taps.items():
        if isinstance(names, str):
            raise ValueError(f"{kind} layers: {names!r} must be a list of layer names, such as [{names!r}]")
        for name in names:
            if name not in layers:
                raise ValueError(f"{kind} layers: there is no layer {name!r}; choose among {', '.join(layers)}")
    if content is None and taps["content"]:
        raise ValueError(f"content layers {list(taps['content'])} need a content; give one, or an empty list")
    if not any(taps.values()):
        raise ValueError(f"no style layers and no content layers; choose at least one of {', '.join(layers)}")


class _FastConv(nn.Module):
    """A convolution along flat images, by overlap-save with short FFTs that are real matrix products.

    Blocks and filters are transformed and multiplied bin by bin, each complex product by three real
    ones. The result is the same (a test holds it to 1e-5), in half the time and less.
    """

    def __init__(self, conv):
        super().__init__()
        taps = conv.kernel_size[1]
        self.size, self.before = 2 * (3 * taps // 2), (taps - 1) // 2
        dft = np.fft.rfft(np.eye(self.size), axis=0)
        real, imaginary = (np.fft.irfft(unit * np.eye(len(dft)), self.size, axis=0) for unit in (1, 1j))
        analysis = self._three(dft)  # (products, size)
        synthesis = np.hstack([real - imaginary, -real - imaginary, imaginary])[: self.size - taps + 1]
        used = analysis.any(axis=1) & synthesis.any(axis=0)  # the outermost bins are real and need one product
        self.register_buffer("analysis", torch.from_numpy(analysis[used]).float())
        self.register_buffer("synthesis", torch.from_numpy(synthesis[:, used]).float())  # (step, products)
        filters = torch.from_numpy(self._three(dft[:, :taps].conj())[used]).float()
        self.register_buffer("filters", torch.einsum("pt,oit->poi", filters, conv.weight[:, :, 0]).contiguous())
        self.register_buffer("bias", torch.zeros(1) if conv.bias is None else conv.bias.detach()[:, None])

    @staticmethod
    def _three(spectra):
        return np.concatenate([spectra.real, spectra.imag, spectra.real + spectra.imag])

    def forward(self, image):  # (1, channels, 1, width)
        width, step = image.shape[3], len(self.synthesis)
        n_blocks = -(-width // step)
        rows = nn.functional.pad(
            image[0, :, 0], (self.before, n_blocks * step - width + self.size - step - self.before)
        )
        blocks = rows.unfold(1, self.size, step) @ self.analysis.T  # (channels, n_blocks, products)
        products = self.filters @ blocks.permute(2, 0, 1)  # (products, filters, n_blocks)
        rows = (self.synthesis @ products.flatten(1)).view(step, -1, n_blocks)
        return (rows.permute(1, 2, 0).flatten(1)[:, :width] + self.bias)[None, :, None]


class _StackedConv(nn.Module):
    # A convolution of a single plane, as one along the width of planes shifted up and down, stacked as channels:
    # PyTorch's way back to a single channel is slow.
    def __init__(self, conv):
        super().__init__()
        self.register_buffer("weight", conv.weight.detach().transpose(1, 2))  # (filters, height, 1, width)
        self.register_buffer("bias", conv.bias)

    def forward(self, image):  # (planes, 1, n_bins, n_frames)
        height = self.weight.shape[1]
        image = nn.functional.pad(image[:, 0], (0, 0, (height - 1) // 2, height // 2))
        stack = image.unfold(1, height, 1).permute(0, 3, 1, 2)  # (planes, height, n_bins, n_frames)
        return nn.functional.conv2d(stack, self.weight, self.bias, padding="same")


def _faster(layer, image):
    if type(layer) is not nn.Conv2d or image.device.type != "cpu":
        return layer
    if (layer.padding, layer.dilation, layer.groups, layer.padding_mode) != ("same", (1, 1), 1, "zeros"):
        return layer
    if layer.in_channels == 1 and layer.kernel_size[0] > 1:
        return _StackedConv(layer)
    flat = layer.kernel_size[0] == image.shape[2] == image.shape[0] == 1 and layer.kernel_size[1] > 3
    # The transformed filters take over four times the memory of the filters.
    return _FastConv(layer) if flat and layer.weight.numel() < 1e8 else layer


# 4. The start ------------------------------------------------------------------------------------


def matched_noise(samples, *, length, seed=0):
    """Stationary noise [shape=(length,)] with the level and the average spectrum of samples [shape=(n,)].

    The best start for a texture: its spectrogram is one that a sound has, which independent random
    values are not, so that the phase can be found again in the end.
    """
    n_fft = min(2048, len(samples))
    frequencies, power = scipy.signal.welch(samples, nperseg=n_fft)
    noise = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    noise = np.fft.irfft(noise * np.interp(np.fft.rfftfreq(length), frequencies, np.sqrt(power)), length)
    return (noise * np.sqrt(np.mean(np.square(samples)) / np.mean(np.square(noise)))).astype(np.float32)


def stereo_planes(samples):
    """Left, right, half their sum and half their difference [shape=(4, n)] of samples [shape=(2, n)].

    In stereo the losses compare these four, so that a result is as wide as its style in every band.
    Takes numpy arrays, and torch tensors with gradients.
    """
    left, right = samples
    stack = torch.stack if isinstance(samples, torch.Tensor) else np.stack
    return stack([left, right, (left + right) / 2, (left - right) / 2])


def widen(samples, *, like, seed=0):
    """Make stereo [shape=(2, n)] of mono samples [shape=(n,)], placed and as wide as another stereo sound.

    Its side signal is what can be predicted from the middle, and for the rest the middle again, blurred
    over 30 ms: in every band, both levels and the coherence are those of like [shape=(2, m)].
    """
    _, _, middle, side = stereo_planes(like)
    n_fft = min(1024, like.shape[1])
    frequencies, power = scipy.signal.welch(middle, nperseg=n_fft)
    cross, side_power = scipy.signal.csd(middle, side, nperseg=n_fft)[1], scipy.signal.welch(side, nperseg=n_fft)[1]
    power = power + 1e-9 * power.max() + 1e-30
    predicted = cross / power
    rest = np.sqrt(np.maximum(side_power / power - np.abs(predicted) ** 2, 0))
    period = scipy.fft.next_fast_len(len(samples) + 4096)
    blur = np.random.default_rng(seed).standard_normal(661) * np.hanning(661)
    bins = np.fft.rfftfreq(period)
    blur = np.fft.rfft(blur / np.linalg.norm(blur), period) * np.interp(bins, frequencies, rest)
    gains = np.interp(bins, frequencies, predicted) + blur
    side = np.fft.irfft(np.fft.rfft(samples, period) * gains, period)[: len(samples)]
    return np.stack([samples + side, samples - side]).astype(np.float32)


def start_image(start, *, like, seed=0, lower=0.0, upper=1.0, mu=0.5, sigma=0.25, content=None, noise=None):
    """Make the image that the optimisation starts from.

    Parameters
    ----------
    start : str
        "samples": truncated normal (mu, sigma) between lower and upper; "rand": uniform 0 to 0.1;
        "randn": normal around 0; "content", "noise": a copy of these.
    like : torch.Tensor
        An image with the shape and the device to use.
    seed : int
        The same seed gives the same image.
    content, noise : torch.Tensor
        Images of the content, and of matched_noise.
    """
    _require_choice("start", start, STARTS)
    if start in ("content", "noise"):
        image = content if start == "content" else noise
        if image is None or image.shape != like.shape:
            raise ValueError(
                f"the start {start!r} needs a {start} image of the result's shape, {tuple(like.shape)}, "
                f"not {None if image is None else tuple(image.shape)}; give one, or choose samples, rand or randn"
            )
        return image.detach().clone()
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device starts alike
    values = torch.empty(like.shape)
    if start == "samples":
        if not (lower < upper and sigma > 0):
            raise ValueError(f"{lower=} must be below {upper=}, and {sigma=} positive")
        nn.init.trunc_normal_(values, mu, sigma, lower, upper, generator=generator)
    elif start == "rand":
        values.uniform_(0, 0.1, generator=generator)
    else:
        values.normal_(0, 1, generator=generator)
    return values.to(like.device)


# 5. Optimisation ---------------------------------------------------------------------------------


def optimise(
    image,
    model,
    *,
    style_weight,
    content_weight=0.0,
    reg_weight=0.0,
    rhythm_weight=0.0,
    diversity_weight=0.0,
    num_steps,
    nearest_steps=0,
    history_size=50,
    segment=None,
    view=None,
):
    """Change the image by L-BFGS with a strong-Wolfe line search; yield each step's losses.

    Parameters
    ----------
    image : torch.Tensor [shape=(1, channels, height, width)]
        Changed in place, only by whole steps: after an interrupt it holds the last finished one, and
        calling optimise again goes on from there.
    model : nn.Module
        As insert_losses makes it. What is yielded are its weighted losses by name, and "total".
    style_weight, content_weight, rhythm_weight, diversity_weight, reg_weight : float >= 0
        Of every loss of that kind, and of the soft bound to [0, 1].
    num_steps, nearest_steps, history_size : int
        Steps (of one or more evaluations); how many of them, at first, go for the nearest features with the
        style's Gram matrix (for the statistic "gram", which is then reached sooner); and steps remembered.
    segment : int or None [frames]
        Images longer than about 1.5 segments are compared segment by segment, each with all of the style: the
        losses are means over them. Only without padding and strides, as in band_networks.
    view : function, None: the image itself
        Makes the image of whatever else is to be changed in its place, such as samples.
    """
    if segment is not None:
        _require_positive_int(segment=segment)
    gc.collect()  # earlier runs' pictures: Matplotlib's figures refer to themselves, and Python waits long
    weights = {"style": style_weight, "content": content_weight}
    weights |= {"rhythm": rhythm_weight, "diversity": diversity_weight, "bound": reg_weight}
    for step in range(1, num_steps + 1):
        if step in (1, nearest_steps + 1):
            for layer in (layer for layer in model.modules() if isinstance(layer, StyleLoss)):
                layer.approaching = step <= nearest_steps
            objective = _Objective(image, model, weights, segment, view or (lambda image: image))
            optimizer = _lbfgs(objective.image, max_iter=1, history_size=history_size)
        try:
            optimizer.step(objective)
            losses = objective.losses()
        except FloatingPointError as error:
            raise FloatingPointError(f"step {step}: {error}; the image keeps step {step - 1}") from None
        image.copy_(objective.image.detach())
        yield losses


def _lbfgs(tensor, *, max_iter, history_size):
    return torch.optim.LBFGS(
        [tensor],
        max_iter=max_iter,
        max_eval=25 + 2 * max_iter,  # bounds the line search too; the default, 1.25 max_iter, would allow it nothing
        history_size=history_size,
        tolerance_grad=0,  # the absolute defaults stop small losses early
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )


class _Objective:
    # The closure of L-BFGS. Every step begins with an evaluation where the last one ended, so the
    # latest evaluation is kept.

    def __init__(self, image, model, weights, segment, view):
        self.image = image.detach().clone().requires_grad_()
        self.parts = list(_chains(model).values())
        self.weights, self.segment, self.view = weights, segment, view
        self.seen = None

    def __call__(self):
        if self.seen is None or not torch.equal(self.seen, self.image):
            self.seen, self.terms = None, {}
            image = self.view(self.image)
            values, gradient = image.detach(), torch.zeros_like(image)
            for part in self.parts:
                segments = self._segments(part, image.shape[3])
                for segment in segments:  # one after the other, so that only one's features are in memory
                    piece = values[..., segment].contiguous().requires_grad_()  # torch.stft's lie across memory
                    terms = self._weighted(part, piece, segment.start, len(segments))
                    if terms:
                        self._add(terms)
                        gradient[..., segment] += torch.autograd.grad(sum(terms.values()), piece)[0]
            if self.weights["bound"]:
                outside = values - values.clamp(0, 1)
                self._add({"bound": self.weights["bound"] * outside.square().sum()})
                gradient.add_(outside, alpha=2 * self.weights["bound"])
            if not self.terms:
                raise ValueError("every weight is 0, so there is nothing to optimise; give one loss a positive weight")
            self.total = sum(self.terms.values())
            self.image.grad = torch.autograd.grad(image, self.image, gradient)[0].contiguous()
            self.seen = self.image.detach().clone()
        return self.total

    def losses(self):
        self()
        return {name: float(term) for name, term in (*self.terms.items(), ("total", self.total))}

    def _segments(self, part, n_frames):
        overlap = part.overlap or 0
        whole = part.overlap is None or self.segment is None
        n_segments = 1 if whole else max(1, round((n_frames - overlap) / self.segment))
        edges = np.linspace(0, n_frames - overlap, n_segments + 1).astype(int)
        return [slice(first, last + overlap) for first, last in itertools.pairwise(edges)]

    def _weighted(self, part, piece, first, n_segments):
        losses = {name: layer for name, layer in part.named_children() if isinstance(layer, _Loss)}
        for layer in losses.values():
            layer.first = first
        part(piece)
        terms = {}
        for name, layer in losses.items():
            weight = self.weights[name.split()[0]] * layer.weight / n_segments
            terms |= {name: weight * layer.loss} if weight else {}
            layer.loss = layer.loss.detach()  # or the features would stay in memory
        return terms

    def _add(self, terms):
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise FloatingPointError(f"the loss {name!r} is {term.item()}; lower its weight or change the start")
            # Networks side by side, and segments, share their names.
            self.terms[name] = self.terms.get(name, 0) + term.detach()


# 6. Looking and listening ------------------------------------------------------------------------


def plot_spectrograms(features, transform):
    """Draw spectrograms side by side on one scale.

    Parameters
    ----------
    features : dict from title to np.ndarray [shape=(n_bins, n_frames)]
    transform : STFT or CQT

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    figure, axes = _figure(5 * len(features), 4, columns=len(features))
    top = max(values.max() for values in features.values())
    for ax, (title, values) in zip(axes, features.items(), strict=True):
        mesh = librosa.display.specshow(values, ax=ax, vmin=0, vmax=top, cmap="magma", **transform.axes)
        ax.set(title=title, xlabel="Time [s]", ylabel="Frequency [Hz]")
    figure.colorbar(mesh, ax=axes, label="compressed magnitude, as the network sees it")
    return figure


def _figure(width, height, *, columns=1):
    figure, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False, layout="constrained")
    plt.close(figure)  # or a notebook would show it twice
    return figure, axes[0]


def plot_histograms(features):
    """Draw how often each value occurs, one curve for each title in the dict; returns the figure."""
    figure, (ax,) = _figure(7, 3)
    for title, values in features.items():
        ax.hist(values.ravel(), bins=100, density=True, histtype="step", label=title)
    ax.set(xlabel="value", ylabel="density", yscale="log", title="What the network sees")
    ax.legend()
    return figure


def plot_losses(histories):
    """Draw the weighted losses over the steps, for a list of runs, each a list of dicts; returns the figure."""
    figure, (ax,) = _figure(7, 3)
    _draw_losses(ax, histories)
    return figure


def _draw_losses(ax, histories):
    for run, history in enumerate(histories):
        for color, name in enumerate(history[0] if history else ()):
            values = [losses[name] for losses in history]
            ax.plot(
                range(1, len(values) + 1), values, f"C{color}", alpha=1 / (1 + run), label=name if run == 0 else None
            )
    ax.set(xlabel="step", ylabel="weighted loss", yscale="log", title="Losses")
    if ax.lines:
        ax.legend()


def plot_progress(features, transform, history):
    """Draw features [shape=(n_bins, n_frames)] as they are now beside the losses so far; returns the figure."""
    figure, axes = _figure(10, 3, columns=2)
    librosa.display.specshow(features, ax=axes[0], vmin=0, cmap="magma", **transform.axes)
    axes[0].set(title=f"After {len(history)} steps", xlabel="Time [s]", ylabel="Frequency [Hz]")
    _draw_losses(axes[1], [history])
    return figure


def plot_receptive_fields(network, *, hop_seconds):
    """Draw how many milliseconds one position of each layer covers, where frames are hop_seconds apart; returns it."""
    fields = {name: 1000 * hop_seconds * field for name, field in receptive_fields(network).items()}
    figure, (ax,) = _figure(7, 1 + 0.22 * len(fields))
    bars = ax.barh(list(fields), list(fields.values()))
    ax.bar_label(bars, fmt="%.0f ms", padding=3)
    ax.set(xlabel="receptive field [ms]", xscale="log", title="What one position covers")
    ax.margins(x=0.15)
    ax.invert_yaxis()
    return figure


def level(samples):
    """Peak and root mean square of samples, in dB below full scale."""
    peak, rms = np.abs(samples).max(), np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    decibels = 20 * np.log10(np.maximum([peak, rms], 1e-10))
    return {"peak_dbfs": round(float(decibels[0]), 2), "rms_dbfs": round(float(decibels[1]), 2)}


def fit_full_scale(samples):
    """Turn samples down where they would clip (peak above 0.99), and leave them alone otherwise."""
    return samples * min(1.0, 0.99 / max(np.abs(samples).max(), 1e-10))


def new_stem(folder, outname):
    """First free path folder/outname-001, -002, ... without suffix, so that no run overwrites another."""
    number = 1
    while list(Path(folder).glob(f"{outname}-{number:03d}*")):
        number += 1
    return Path(folder) / f"{outname}-{number:03d}"


def save_run(stem, samples, *, sample_rate, settings, losses, figures):
    """Write what a run made, every file whole or not at all, and return the list of paths.

    Parameters
    ----------
    stem : Path
        Folder and name without suffix, as new_stem gives it.
    samples : np.ndarray [shape=(n,) or (2, n)]
        Within -1 to 1; written as 16-bit stem.wav.
    settings : dict
        Everything needed to repeat the run; stem.json also gets versions, level and losses.
    figures : dict from name to Figure
        Written as stem-name.png.
    """
    _check_samples(samples, "the result")
    packages = {"python": platform.python_version(), "torch": torch.__version__, "librosa": librosa.__version__}
    report = {"settings": settings, "versions": packages, "level": level(samples), "losses": losses}
    text = json.dumps(report, indent=1, default=str)
    writers = {".wav": lambda path: soundfile.write(path, samples.T, sample_rate, subtype="PCM_16")}
    for name, figure in figures.items():
        writers[f"-{name}.png"] = lambda path, figure=figure: figure.savefig(path, dpi=100)
    writers[".json"] = lambda path: Path(path).write_text(text + "\n")  # last: where it is, the run is complete
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + ending) for ending in writers]
    for path, write in zip(paths, writers.values(), strict=True):
        _write_whole(path, write)
    return paths


def _write_whole(path, write):
    # Under another name in the same folder first: a crash or a full disk leaves no half-written file.
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


# 7. Many runs ------------------------------------------------------------------------------------


def run_notebook(path, *, outname, threads=None, **settings):
    """Execute a notebook in a kernel of its own with other settings, unless it has been done before.

    Parameters
    ----------
    path : str or Path
        A notebook whose settings cell is tagged "parameters"; it runs in its own folder.
    outname : str
        Name of the result; the settings' hash is added, so that the same call finds its result again.
    threads : int
        Processor threads of the run; None: all.
    settings : numbers, strings, None, and lists and dicts of them
        Override the notebook's.

    Returns
    -------
    report : dict
        "outname" and "settings", and "failed", the error's last line, where the run did not end well.
    """
    digest = hashlib.sha256(json.dumps([str(path), settings], sort_keys=True).encode()).hexdigest()[:10]
    report = {"outname": f"{outname}-{digest}", "settings": settings}
    folder = Path(path).resolve().parent
    if (folder / "outputs" / f"{report['outname']}-001.json").is_file():
        return report
    notebook = nbformat.read(path, as_version=4)
    place = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    if not place:
        raise ValueError(f"{path} has no cell tagged 'parameters'; tag its settings cell")
    given = settings | {"outname": report["outname"]}
    source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    notebook.cells.insert(place[0] + 1, nbformat.v4.new_code_cell(source))
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(folder)}})
    try:
        client.execute(env=environment)
    except (nbclient.exceptions.CellExecutionError, nbclient.exceptions.DeadKernelError) as error:
        report["failed"] = str(error).strip().splitlines()[-1]
    return report


def list_runs(folder="outputs", *, last=20):
    """Show the last runs saved in a folder as a table: what differs between them, last losses, level, sound.

    Returns
    -------
    table : IPython.display.HTML
    """
    paths = sorted(Path(folder).glob("*.json"), key=lambda path: path.stat().st_mtime)[-last:]
    reports = {path: json.loads(path.read_text()) for path in paths}
    settings = [report["settings"] for report in reports.values()]
    names = dict.fromkeys(name for each in settings for name in each if name not in ("outname", "used"))
    names = [name for name in names if len({json.dumps(each.get(name)) for each in settings}) > 1]
    rows = [("run", *names, "losses", "level [dBFS]", "sound")]
    for path, report in reports.items():
        losses = ", ".join(f"{name} {value:.3g}" for name, value in (report["losses"] or [{}])[-1].items())
        values = (report["settings"].get(name) for name in names)
        player = IPython.display.Audio(filename=path.with_suffix(".wav"))
        rows.append((path.stem, *values, losses, report["level"]["rms_dbfs"], player))
    return _table(rows)


def players(sounds, *, sample_rate):
    """Show sounds, a dict from title to samples, side by side at their own levels: an IPython.display.HTML."""
    settings = dict(rate=sample_rate, normalize=False)
    return _table([sounds, [IPython.display.Audio(fit_full_scale(y), **settings) for y in sounds.values()]])


def _table(rows):
    cells = [
        [cell._repr_html_() if isinstance(cell, IPython.display.Audio) else html.escape(str(cell)) for cell in row]
        for row in rows
    ]
    rows = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells)
    return IPython.display.HTML(f"<table>{''.join(rows)}</table>")
