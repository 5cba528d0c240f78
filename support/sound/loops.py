"""Textures without a seam: the end meets the beginning, so that a player can repeat the sound.

The transform sees the sound as a circle: behind the last frame come the first frames again.

Conventions
  frames  places of the transform, hop_length samples apart; a circle of n frames has n * hop_length samples, and its
          spectrogram has n + 1 frames: the last one is the first one again
"""

from collections.abc import Callable

import numpy as np
import torch

FADE = 16  # frames over which the two sounds of a seam are mixed


def circle_length(length: int, hop_length: int) -> int:
    """Return the length nearest to a length that is a whole number of hops [samples].

    >>> circle_length(1000, 128), circle_length(1, 128)
    (1024, 128)
    """
    return max(1, round(length / hop_length)) * hop_length


def unrolled(samples: torch.Tensor, around: int) -> torch.Tensor:
    """Return samples of a circle [shape=(..., n)], with so many of the other end at each end.

    A frame at an end then sees the other end there, in place of the sound's reflection.

    >>> unrolled(torch.tensor([1, 2, 3]), 2).tolist()
    [2, 3, 1, 2, 3, 1, 2]
    """
    length = samples.shape[-1]
    return samples[..., torch.arange(-around, length + around, device=samples.device) % length]


def reconstruct_circle(magnitude: np.ndarray, reconstruct_part: Callable, *, hop_length: int) -> np.ndarray:
    """Find the samples of a circle with a magnitude [shape=(n_bins, n_frames + 1)].

    The phase of the first frames is found twice, at the beginning and behind the end. The sound from behind the end
    fades out over the beginning, so that no sample jumps.

    Parameters
    ----------
    reconstruct_part : function
        From a magnitude and a length to samples [shape=(length,)].
    """
    n_frames = magnitude.shape[1] - 1
    more = min(FADE, n_frames)
    again = np.arange(n_frames + more + 1) % n_frames
    samples = reconstruct_part(magnitude[:, again], length=(n_frames + more) * hop_length)
    circle, behind = samples[: n_frames * hop_length].copy(), samples[n_frames * hop_length :]
    circle[: len(behind)] = _fade(behind, circle[: len(behind)])
    return circle


def _fade(one, two):
    # The gains keep the power, however alike the two sounds are: with gains for unrelated sounds, results of the Gatys
    # recipe became 2 dB louder.
    rise = np.arange(len(one), dtype=np.float32) / len(one)
    alike = max(-0.5, one @ two / np.sqrt((one @ one) * (two @ two) + 1e-12))
    gains = np.sqrt(1 - rise), np.sqrt(rise)
    return (gains[0] * one + gains[1] * two) / np.sqrt(1 + 2 * alike * gains[0] * gains[1])
