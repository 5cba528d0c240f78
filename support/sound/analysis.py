"""From samples to the image that a network takes, and from an image back to sound.

samples -> magnitude -> spectrogram -> image, by the transform, compress and to_image;
image -> spectrogram -> magnitude -> samples, by from_image, expand and the transform's reconstruct.

Conventions
  samples      float32 numpy array [shape=(n,), or (2, n) in stereo]; torch tensor where gradients are needed
  magnitude    float32 numpy array [shape=(n_bins, n_frames)], non-negative, not decibels
  spectrogram  log1p or a power of the magnitude, scaled to [0, 1] or not [shape=(n_bins, n_frames)]
  image        torch tensor [shape=(planes, channels, height, width)], a spectrogram as a network takes it:
               "freq" (1, n_bins, 1, n_frames), "time" (1, n_frames, 1, n_bins), "2D" (1, 1, n_bins, n_frames);
               in stereo with 4 planes instead of 1, see stereo.py
  loop         a sound whose end meets its beginning; the last frame of its spectrogram is the first one again

Sources
  Huzaifah, Wyse 2019, arXiv:1901.10240, for log1p magnitudes scaled from [0, 7] to [0, 1]
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from support.checks import LAYOUTS, check_choice
from support.sound import loops, stereo
from support.sound.preconditioning import multiplier, stft_preconditioner
from support.sound.transforms import Transform

LOUDEST = np.expm1(7.0)  # no full-scale sound reaches this magnitude at n_fft 1024; log1p of it is 7
LEAST_POWER = 0.01  # below, float32 no longer tells compressed magnitudes apart
KNEE = 1e-2  # magnitude below which a power becomes a straight line; -82 dB of a full-scale sine at n_fft 512
Values = TypeVar("Values", np.ndarray, torch.Tensor)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A transform, a compression of its magnitudes, and the layout of the image.

    Parameters
    ----------
    transform : Transform
        See transforms.py.
    power : float from 0.01 to 1, or "log1p"
        A power near 0.3, as in the ear, compresses from a much lower magnitude on than log1p: quiet sounds count.
    scaled : bool
        Whether the loudest possible magnitude becomes 1; otherwise log1p reaches 7.
    layout : "freq", "time" or "2D"
    loop : bool
        Whether sounds are circles. Recordings are not; a result may be one: dataclasses.replace(analysis, loop=True).
    """

    transform: Transform
    power: float | str = 0.3
    scaled: bool = True
    layout: str = "freq"
    loop: bool = False

    def __post_init__(self) -> None:
        check_power(self.power)
        check_choice("layout", self.layout, LAYOUTS)
        if self.loop and self.layout == "time":
            raise ValueError("loop=True can't close frames that are channels; set layout to 'freq', or loop to False")

    # From samples to the image

    def spectrogram(self, samples: np.ndarray) -> np.ndarray:
        """Return the spectrogram of samples; of a stereo sound, that of the mean of both channels."""
        samples = samples.mean(axis=0) if samples.ndim == 2 else samples
        if not self.loop:
            return self.compress(self.transform.magnitude(samples))
        frames, around = self._around(self.transform.reach)
        samples = loops.unrolled(torch.from_numpy(np.ascontiguousarray(samples)), around).numpy()
        return self.compress(self.transform.magnitude(samples)[:, frames:-frames])

    def to_image(self, spectrogram: np.ndarray | torch.Tensor, device: str | torch.device = "cpu") -> torch.Tensor:
        """Turn a spectrogram [shape=(n_bins, n_frames) or (planes, n_bins, n_frames)] into an image."""
        planes = torch.as_tensor(spectrogram, dtype=torch.float32)
        planes = planes if planes.ndim == 3 else planes[None]
        if self.layout == "2D":
            return planes[:, None].to(device)  # (planes, 1, n_bins, n_frames)
        rows = planes.mT if self.layout == "time" else planes
        return rows[:, :, None].to(device)  # (planes, n_bins, 1, n_frames) or (planes, n_frames, 1, n_bins)

    def view(self, length: int, device: str | torch.device = "cpu") -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the torch function from samples [shape=(length,) or (2, length)] to their image, with gradients."""
        if self.length_of(length) != length:
            raise ValueError(f"{length=} of a loop must be a whole number of hops; take {self.length_of(length)}")
        frames, around = self._around(self.transform.reach) if self.loop else (0, 0)
        spectrogram = self.transform.magnitude_function(length + 2 * around, device=device, then=self.compress)

        def image(samples):
            samples = loops.unrolled(samples, around) if self.loop else samples
            image = self.to_image(spectrogram(stereo.planes(samples) if samples.ndim == 2 else samples), device)
            return image[..., frames:-frames] if self.loop else image

        return image

    def image(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the image of a tensor of samples [shape=(n,) or (2, n)], with gradients; see view for many."""
        return self.view(samples.shape[-1], samples.device)(samples)

    def length_of(self, length: int) -> int:
        """Return the length that a result of about this length has [samples]: a loop has a whole number of hops."""
        return loops.circle_length(length, self.transform.hop_length) if self.loop else length

    def frames(self, seconds: float | None) -> int | None:
        """Return how many frames a duration has; None for None, and where frames are channels."""
        if seconds is None or self.layout == "time":
            return None
        return max(1, round(seconds * self.transform.sample_rate / self.transform.hop_length))

    def _around(self, reach):  # how many frames around a circle see its samples, and how many samples these are
        frames = -(-reach // self.transform.hop_length)
        return frames, frames * self.transform.hop_length

    # From an image back to samples

    def from_image(self, image: torch.Tensor) -> np.ndarray:
        """Turn an image back into a spectrogram [shape=(n_bins, n_frames)]: the inverse of to_image for one plane."""
        if len(image) != 1:
            raise ValueError(f"the image has {len(image)} planes; give one plane at a time, such as image[:1]")
        rows = image[0, 0] if self.layout == "2D" else image[0, :, 0]
        return (rows.T if self.layout == "time" else rows).detach().cpu().numpy()

    def sound(
        self, image: torch.Tensor, *, length: int, n_iter: int, loudest: float = np.inf, seed: int = 0
    ) -> np.ndarray:
        """Find samples [shape=(length,)] with the magnitudes of an image.

        loudest : float
            The largest value that is kept of the spectrogram, such as that of the recordings: a few bins that are
            louder would make all others soft.
        """
        return self.reconstruct(self.from_image(image).clip(0, loudest), length=length, n_iter=n_iter, seed=seed)

    def reconstruct(self, spectrogram: np.ndarray, *, length: int, n_iter: int, seed: int = 0) -> np.ndarray:
        """Find samples [shape=(length,)] with a spectrogram; those of a loop have no seam."""
        magnitude, part = (
            self.expand(spectrogram),
            functools.partial(self.transform.reconstruct, n_iter=n_iter, seed=seed),
        )
        if self.loop:
            return loops.reconstruct_circle(magnitude, part, hop_length=self.transform.hop_length)
        return part(magnitude, length=length)

    def preconditioner(
        self, samples: torch.Tensor, *, mask: Callable | None = None
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the map that makes the descent on samples short, see preconditioning.py, and mask there."""
        make = functools.partial(stft_preconditioner, compress=self.compress, mask=mask, **self._frames_of_samples)
        if not self.loop:
            return make(samples)
        around, length = self._around(self.transform.n_fft_of_refinement)[1], samples.shape[-1]
        change = make(loops.unrolled(samples, around))  # without the other end, speech got clicks at the seam
        return lambda signal: change(loops.unrolled(signal, around))[..., around : around + length]

    def masked(self, samples: torch.Tensor, mask: Callable) -> torch.Tensor:
        """Return the part of samples that a mask lets through, see preconditioning.py."""
        length, (n_fft, hop_length) = samples.shape[-1], self._frames_of_samples.values()
        weights = mask(n_fft // 2 + 1, 1 + (length + n_fft // 2) // hop_length)
        return multiplier(weights, length=length, n_fft=n_fft, hop_length=hop_length)(samples)

    @property
    def _frames_of_samples(self):
        return dict(n_fft=self.transform.n_fft_of_refinement, hop_length=self.transform.hop_length)

    # Compression

    def compress(self, magnitude: Values) -> Values:
        """Magnitude to spectrogram; takes numpy arrays, and torch tensors with gradients, without a warning.

        >>> from support.sound.transforms import STFT
        >>> analysis = Analysis(transform=STFT(sample_rate=22050, n_fft=512, hop_length=128), power="log1p")
        >>> analysis.compress(np.expm1([0.0, 3.5, 7.0])).round(3).tolist()
        [0.0, 0.5, 1.0]
        >>> analysis.expand(analysis.compress(np.array([0.0, 1.0, 100.0]))).round(3).tolist()
        [0.0, 1.0, 100.0]
        """
        spectrogram, top = self._bend(magnitude), float(self._bend(LOUDEST))
        if isinstance(spectrogram, np.ndarray) and spectrogram.max() > top:
            warnings.warn(
                f"the compressed magnitude reaches {spectrogram.max():.2f}, above {top:.3g}: the scaled spectrogram "
                "leaves [0, 1]; use a quieter sound or a smaller n_fft",
                stacklevel=2,
            )
        return spectrogram / top if self.scaled else spectrogram

    def expand(self, spectrogram: Values) -> Values:
        """Spectrogram to magnitude: the inverse of compress, of an array or a tensor; values below 0 become 0."""
        spectrogram = spectrogram * float(self._bend(LOUDEST)) if self.scaled else spectrogram
        library = torch if isinstance(spectrogram, torch.Tensor) else np
        spectrogram = spectrogram.clip(0)
        if self.power == "log1p":
            return library.expm1(spectrogram)
        return (spectrogram + KNEE**self.power) ** (1 / self.power) - KNEE

    def _bend(self, magnitude):
        if self.power == "log1p":
            return torch.log1p(magnitude) if isinstance(magnitude, torch.Tensor) else np.log1p(magnitude)
        return (magnitude + KNEE) ** self.power - KNEE**self.power


def check_power(power: object) -> None:
    """Raise ValueError unless magnitudes can be compressed by this power."""
    number = isinstance(power, int | float) and not isinstance(power, bool)
    if power != "log1p" and not (number and LEAST_POWER <= power <= 1):
        raise ValueError(f'power={power!r} must be from {LEAST_POWER} to 1, for example 0.3; or "log1p"')
