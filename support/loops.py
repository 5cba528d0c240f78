"""Textures without a seam: the end meets the beginning, so that a player can repeat the sound.

The transform and the losses see the sound as a circle: behind the last frame come the first frames again.

Conventions
  frames  places of the transform, hop_length samples apart; a circle of n frames has n * hop_length samples
  more    frames behind the last one that are seen again, as many as the longest filter needs
"""

import copy

import numpy as np
import torch
from torch import nn

FADE = 16  # frames over which the two sounds of a seam are mixed


def circle_length(length, hop_length):
    """Return the length nearest to a length that is a whole number of hops [samples]."""
    return max(1, round(length / hop_length)) * hop_length


def magnitude(samples, transform):
    """Return the magnitude [shape=(n_bins, n_frames + 1)] of a circle of samples [shape=(n_frames * hop_length,)].

    A frame at an end sees the other end there, in place of the sound's reflection.
    """
    around, n_frames = -(-transform.reach // transform.hop_length), len(samples) // transform.hop_length
    wrapped = np.pad(samples, around * transform.hop_length, mode="wrap")
    return transform.magnitude(wrapped)[:, around : around + n_frames + 1]


def closed_network(network):
    """Return a copy of a network whose padded convolutions see the other end of an image in place of zeros.

    Square filters see the lowest bins beside the highest ones as well.
    """
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.padding not in ("valid", (0, 0)):
            layer.padding_mode = "circular"
    return network


def image_view(image, more):
    """Return the function from an image to the image of the circle.

    image : torch.Tensor [shape=(1, channels, height, n_frames + 1)]
        The last frame lies where the first one lies on the circle, and is left out.
    """
    n_frames = image.shape[3] - 1
    places = torch.arange(n_frames + more, device=image.device) % n_frames
    return lambda changed: changed[..., places]


def samples_view(samples, more, *, hop_length, reach, view_of):
    """Return the function from samples [shape=(..., n_frames * hop_length)] to the image of the circle.

    Parameters
    ----------
    reach : int [samples]
        How far a frame of the transform sees to each side.
    view_of : function
        From a length to the function from samples of this length to their image.
    """
    length = samples.shape[-1]
    n_frames, around = length // hop_length, -(-reach // hop_length)
    first, last = -around * hop_length, (n_frames + more + around) * hop_length
    places = torch.arange(first, last, device=samples.device) % length
    view = view_of(len(places))
    return lambda changed: view(changed[..., places])[..., around : around + n_frames + more]


def preconditioner(samples, make, *, around):
    """Return the map that make returns for samples, of the circle; without this, speech got clicks at the seam.

    around : int [samples]
        How much of the other end is seen behind each end.
    """
    length = samples.shape[-1]
    places = torch.arange(-around, length + around, device=samples.device) % length
    change = make(samples[..., places])
    return lambda signal: change(signal[..., places])[..., around : around + length]


def reconstruct(magnitude, reconstruct_part, *, hop_length):
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
