"""The image that the optimisation starts from."""

import numpy as np
import scipy  # loads scipy.signal where it is used: that takes a second
import torch
from torch import nn

from support.checks import check_choice

STARTS = ("samples", "rand", "randn", "content", "noise")


def matched_noise(samples, *, length, seed=0, strength=0.0, period=1, first=0):
    """Noise [shape=(length,)] with the level, the average spectrum and the beat of samples [shape=(n,)].

    The best start for a texture: its spectrogram belongs to a sound, so that a phase can be found again in the end.
    The spectrogram of independent random values belongs to none.

    Parameters
    ----------
    strength : float from 0 to 1
        0: stationary noise. 1: noise with the level of the samples, which are repeated after a whole number of periods
        and begin at a random place.
    period : int > 0 [samples]
    first : int >= 0 [samples]
        Place in a longer sound, whose beat goes on.
    """
    n_fft = min(2048, len(samples))
    frequencies, power = scipy.signal.welch(samples, nperseg=n_fft)
    noise = np.fft.rfft(np.random.default_rng([seed, 2, first] if first else seed).standard_normal(length))
    noise = np.fft.irfft(noise * np.interp(np.fft.rfftfreq(length), frequencies, np.sqrt(power)), length)
    if strength:
        noise *= _beat(samples, first, length, seed, period) ** strength
    return (noise * np.sqrt(np.mean(np.square(samples)) / np.mean(np.square(noise)))).astype(np.float32)


def _beat(samples, first, length, seed, period):
    power = scipy.ndimage.uniform_filter1d(np.square(samples, dtype=np.float64), 256)  # 12 ms at 22,050 Hz
    repeated = max(1, len(samples) // period) * period
    places = (np.random.default_rng([seed, 1]).integers(repeated) + first + np.arange(length)) % repeated
    return np.sqrt(power[places % len(samples)] + 1e-10)


def start_image(start, *, like, seed=0, lower=0.0, upper=1.0, mu=0.5, sigma=0.25, content=None, noise=None):
    """Make the image that the optimisation starts from.

    Parameters
    ----------
    start : str
        "samples": truncated normal (mu, sigma) between lower and upper; "rand": uniform 0 to 0.1;
        "randn": normal around 0; "content", "noise": a copy of these images.
    like : torch.Tensor
        An image with the shape and the device to use; for a shape, the same seed gives the same image.
    content, noise : torch.Tensor
        Images of the content, and of matched_noise.
    """
    check_choice("start", start, STARTS)
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
