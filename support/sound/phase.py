"""Phase from magnitudes: an estimate from the slopes of the magnitude (PGHI), then iterations.

Conventions
  magnitude           float32 numpy array [shape=(n_bins, n_frames)]
  phase               float32 numpy array [shape=(n_bins, n_frames), radians]
  frequencies         centre of each bin [shape=(n_bins,), cycles per sample]
  lengths             length of each bin's Hann window [shape=(n_bins,), samples]
  hop_length, n_fft   [samples]

Sources
  Griffin, Lim 1984, Signal estimation from modified short-time Fourier transform
  Perraudin, Balazs, Søndergaard 2013, A fast Griffin-Lim algorithm
  Průša, Balazs, Søndergaard 2017, A noniterative method for reconstruction of phase from STFT magnitude
"""

import functools
import heapq
from collections.abc import Callable

import librosa
import numpy as np
import torch

from support.sound.frames import overlap_add

GAUSSIANS = dict(hann=0.25645, hamming=0.29794, blackman=0.17954)  # squared width of the Gaussian next to a window


def window_of(window: str | tuple, n_fft: int) -> torch.Tensor:
    """Return a periodic window as a torch tensor [shape=(n_fft,)], see scipy.signal.get_window.

    >>> window_of("hann", 4).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    if window == "hann":
        return torch.hann_window(n_fft)
    return torch.from_numpy(librosa.filters.get_window(window, n_fft).astype(np.float32))


def pghi(
    magnitude: np.ndarray,
    frequencies: np.ndarray,
    lengths: np.ndarray,
    hop_length: int,
    *,
    window: str | tuple = "hann",
    seed: int = 0,
) -> np.ndarray:
    """Estimate the phase at the frames' centres by phase gradient heap integration (Průša 2017).

    The phase of a transform with a Gaussian window follows from the slopes of its log magnitude; a Hann window is
    close to a Gaussian, and windows without a number in GAUSSIANS are taken as Hann's. Bins may have windows of
    different lengths. Random where the magnitude is below -120 dB.
    """
    width = GAUSSIANS.get(window, GAUSSIANS["hann"]) * lengths[:, None] ** 2.0
    level = magnitude / np.sqrt(lengths)[:, None]  # the constant-Q scaling between bins is not a slope of the sound
    floor = 1e-6 * level.max() + 1e-30
    log_magnitude = np.log(np.maximum(level, floor)).astype(np.float64)
    along_time = 2 * np.pi * frequencies[:, None] + np.gradient(log_magnitude, frequencies, axis=0) / width
    along_bins = -width * np.gradient(log_magnitude, axis=1) / hop_length * np.gradient(frequencies)[:, None]
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, magnitude.shape)
    return _compiled()(log_magnitude, hop_length * along_time, along_bins, np.log(floor), phase).astype(np.float32)


@functools.cache
def _compiled():
    import numba  # takes 0.3 s, and the first cells need no phase

    try:
        return numba.njit(cache=True)(_integrate)
    except RuntimeError:  # neither the project nor the home can be written: every process compiles, in 4 s
        return numba.njit(_integrate)


def _integrate(log_magnitude, along_time, along_bins, floor, phase):
    # From the loudest point to its neighbours, then always from the loudest point that was reached.
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


def griffinlim(
    magnitude: np.ndarray,
    phase: np.ndarray,
    *,
    n_fft: int,
    hop_length: int,
    window: str | tuple = "hann",
    length: int | None = None,
    n_iter: int = 200,
) -> np.ndarray:
    """Find samples [shape=(length,)] by fast Griffin-Lim with momentum 0.99, from a phase (Perraudin 2013).

    librosa.griffinlim can't start from an estimated phase: given a complex S with init=None, it multiplies by the
    complex S in every iteration (librosa 0.11), and ends at -2 dB where it should stay at the true phase. torch.stft
    and torch.istft go through all frames in each step of an iteration; this goes through stretches of 1024 frames
    that stay in the cache.

    Plain equivalent: librosa.griffinlim with momentum 0.99, if it took a phase. Gain, measured
    by hand against torch.stft and torch.istft: 1.5 times at 5 s, 4 times at 5 minutes. Test: test_stft_round_trip.
    """
    covered = librosa.filters.window_sumsquare(
        window=window, n_frames=magnitude.shape[1], n_fft=n_fft, hop_length=hop_length
    )
    window, length = window_of(window, n_fft), length or hop_length * (magnitude.shape[1] - 1)
    magnitude, phase = (torch.from_numpy(values.T.copy()) for values in (magnitude, phase))  # (n_frames, n_bins)
    stretches = [slice(first, min(first + 1024, len(magnitude))) for first in range(0, len(magnitude), 1024)]
    inside, n_hops = slice(n_fft // 2, n_fft // 2 + length), -(-n_fft // hop_length)
    sums = torch.zeros(len(magnitude) + n_hops - 1, hop_length)
    gain = torch.zeros(sums.numel())
    gain[inside] = 1 / torch.from_numpy(covered)[inside].clamp_min(1e-11)

    def inverse():  # of the spectrum: (n,), with n_fft // 2 samples at either end
        sums.zero_()
        for stretch in stretches:
            frames = torch.fft.irfft(spectrum[stretch], n_fft).mul_(window)
            overlap_add(frames, hop_length, onto=sums[stretch.start : stretch.stop + n_hops - 1])
        return sums.view(-1).mul_(gain)

    spectrum = torch.polar(magnitude, phase)
    before = spectrum.clone()
    for _ in range(n_iter):
        samples = inverse().unfold(0, n_fft, hop_length)
        for stretch in stretches:
            rebuilt = torch.fft.rfft(samples[stretch] * window)
            spectrum[stretch] = torch.lerp(before[stretch], rebuilt, 1.99).sgn_().mul_(magnitude[stretch])
            before[stretch] = rebuilt
    return librosa.util.fix_length(inverse()[inside].numpy(), size=length)


def match_magnitude(
    magnitude_of: Callable[[torch.Tensor], torch.Tensor],
    magnitude: np.ndarray,
    start: np.ndarray,
    weights: np.ndarray,
    *,
    n_iter: int,
) -> np.ndarray:
    """Find samples [shape=(length,)] whose magnitude is the given one, by L-BFGS on the samples.

    Squared differences are weighted by weights [shape=(n_bins,)].

    Parameters
    ----------
    magnitude_of : function
        From samples to their magnitude, in torch.
    start : np.ndarray [shape=(length,)]
    """
    magnitude, weights = torch.from_numpy(magnitude), torch.from_numpy(weights)[:, None]
    samples = torch.from_numpy(start).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [samples],
        max_iter=n_iter,
        max_eval=25 + 2 * n_iter,
        history_size=10,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def distance():
        samples.grad = None
        loss = (weights * (magnitude_of(samples) - magnitude).square()).sum()
        loss.backward()
        return loss

    optimizer.step(distance)
    return samples.detach().numpy()
