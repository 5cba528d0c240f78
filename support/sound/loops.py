"""Textures without a seam: the end meets the beginning, so that a player can repeat the sound.

The transform sees the sound as a circle: behind the last frame come the first frames again.

Conventions
  frames  places of the transform, hop_length samples apart; a circle of n frames has n * hop_length samples, and its
          spectrogram has n + 1 frames: the last one is the first one again
"""

from collections.abc import Callable

import numpy as np
import torch

from support.sound.transforms import Transform

FADE = 16  # frames over which the two sounds of a seam are mixed


def circle_length(length: int, hop_length: int) -> int:
    """Return the length nearest to a length that is a whole number of hops [samples].

    >>> circle_length(1000, 128), circle_length(1, 128)
    (1024, 128)
    """
    return max(1, round(length / hop_length)) * hop_length


def magnitude_of_circle(samples: np.ndarray, transform: Transform) -> np.ndarray:
    """Return the magnitude [shape=(n_bins, n_frames + 1)] of a circle of samples [shape=(n_frames * hop_length,)].

    A frame at an end sees the other end there, in place of the sound's reflection.
    """
    return cropped(transform.magnitude, transform)(samples[places(len(samples), transform).numpy()])


def places(length: int, transform: Transform, device: str | torch.device = "cpu") -> torch.Tensor:
    """Return which samples of a circle of a length the transform sees, in their order: those of both ends twice."""
    around = _around(transform) * transform.hop_length
    return torch.arange(-around, length + around, device=device) % length


def cropped(image: Callable, transform: Transform) -> Callable:
    """Return a function from samples at `places` to their image without the frames around the circle."""
    around = _around(transform)
    return lambda samples: image(samples)[..., around:-around]


def _around(transform):  # frames around a circle that see its samples
    return -(-transform.reach // transform.hop_length)


def preconditioner_of_circle(
    samples: torch.Tensor, make: Callable[[torch.Tensor], Callable], *, around: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the map that make returns for samples, of the circle; without this, speech got clicks at the seam.

    around : int [samples]
        How much of the other end is seen behind each end.
    """
    length = samples.shape[-1]
    places = torch.arange(-around, length + around, device=samples.device) % length
    change = make(samples[..., places])
    return lambda signal: change(signal[..., places])[..., around : around + length]


def reconstruct_circle(
    magnitude: np.ndarray, reconstruct_part: Callable[[np.ndarray, int], np.ndarray], *, hop_length: int
) -> np.ndarray:
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
    samples = reconstruct_part(magnitude[:, np.arange(n_frames + more + 1) % n_frames], (n_frames + more) * hop_length)
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
