"""Stereo: the four planes that the losses compare, and a stereo sound made from a mono one.

Conventions
  samples  float32 numpy array, mono [shape=(n,)] or stereo [shape=(2, n)]
  planes   left, right, half their sum (middle) and half their difference (side) [shape=(4, n)]
"""

from typing import TypeVar

import numpy as np
import scipy  # loads scipy.signal where it is used: that takes a second
import torch

Samples = TypeVar("Samples", np.ndarray, torch.Tensor)


def planes(samples: Samples) -> Samples:
    """Left, right, half their sum and half their difference [shape=(4, n)] of samples [shape=(2, n)].

    In stereo the losses compare these four, so that a result is as wide as its style in every band.
    Takes numpy arrays, and torch tensors with gradients.

    >>> planes(np.array([[1.0], [0.5]])).ravel().tolist()
    [1.0, 0.5, 0.75, 0.25]
    """
    left, right = samples
    stack = torch.stack if isinstance(samples, torch.Tensor) else np.stack
    return stack([left, right, (left + right) / 2, (left - right) / 2])


def widen(samples: np.ndarray, *, like: np.ndarray, seed: int = 0) -> np.ndarray:
    """Make stereo [shape=(2, n)] of mono samples [shape=(n,)], placed and as wide as another stereo sound.

    Its side signal is what can be predicted from the middle, and for the rest the middle again, blurred
    over 30 ms: in every band, both levels and the coherence are those of like [shape=(2, m)].
    """
    _, _, middle, side = planes(like)
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
