"""Where a result may change, and what counts of a style and of a content: masks over time and frequency.

A mask is any function of times [shape=(n_frames,)] and frequencies [shape=(n_bins, 1)] whose values lie from 0 to 1;
`boxes` makes one of intervals, and `of_array` one of an array. What does not change is the kept sound: the content,
or in a texture the style itself, whose gaps are filled, or which goes on.

Conventions
  times        s, of the middles of frames
  frequencies  Hz
  intervals    pairs (from, to) in s or Hz
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import librosa
import numpy as np
import torch

from support.checks import check_choice, check_mapping
from support.sound.analysis import Analysis

FADE = 0.02  # s, of a mask beyond its intervals in time
SLOPE = 0.1  # the same in frequency, as a share of the edge: 2000 Hz fade out down to 1800 Hz
Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


def boxes(seconds: list | None = None, hertz: list | None = None, *, fade: float = FADE) -> Mask:
    """Return the mask that is 1 in intervals of time and of frequency, and falls to 0 beyond them.

    seconds, hertz : list of pairs (from, to), or None for everything
    fade : float [s]
        Over which the mask falls before and after an interval of time, as half a period of a cosine.

    >>> mask = boxes(seconds=[(1, 2)], hertz=[(500, 1000)])
    >>> mask(np.array([0.5, 1.5]), np.array([[100.0], [700.0]])).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """

    def mask(times, frequencies):
        in_time = _inside(times, seconds, lambda edge: np.full_like(edge, fade))
        return in_time * _inside(frequencies, hertz, lambda edge: SLOPE * edge)

    return mask


def _inside(values, intervals, slope):
    inside = np.ones_like(values, dtype=float) if intervals is None else np.zeros_like(values, dtype=float)
    for first, last in intervals or ():
        edges = np.array([first, last], dtype=float)
        before, behind = np.maximum(slope(edges), 1e-9)
        beyond = np.maximum((first - values) / before, (values - last) / behind).clip(0, 1)
        inside = np.maximum(inside, 0.5 + 0.5 * np.cos(np.pi * beyond))
    return inside


def check_boxes(name: str, value: object) -> None:
    """Raise ValueError unless a value holds intervals for masks, by the names of Where's masks, as where_of takes them.

    >>> check_boxes("where", {"change": {"minutes": [(1, 2)]}})
    Traceback (most recent call last):
    ValueError: where['change']: a unit='minutes' is unknown; choose one of seconds, hertz
    """
    check_mapping(name, value)
    for mask, given in value.items():
        check_choice(f"{name}: a mask", mask, ("change", "style", "content"))
        check_mapping(f"{name}[{mask!r}]", given)
        for unit, intervals in given.items():
            check_choice(f"{name}[{mask!r}]: a unit", unit, ("seconds", "hertz"))
            for pair in intervals if isinstance(intervals, list | tuple) and intervals else [intervals]:
                two = isinstance(pair, list | tuple) and len(pair) == 2
                numbers = two and all(isinstance(each, int | float) and not isinstance(each, bool) for each in pair)
                if not numbers or not 0 <= pair[0] < pair[1] < np.inf:  # NaN fails too
                    raise ValueError(
                        f"{name}[{mask!r}][{unit!r}]: {pair!r} must be a pair from and to, two finite numbers of at "
                        "least 0 in their order, as in [[0.5, 2]]"
                    )


def check_inside(given: Mapping, *, result: float, style: float, highest: float) -> None:
    """Raise ValueError where an interval of where_of begins beyond a sound, or beyond the highest frequency.

    result, style : float [s]
        How long the result is, and the shortest style.
    """
    for name, each in given.items():
        sound, seconds = ("style", style) if name == "style" else ("result", result)
        for unit, end in {"hertz": highest, "seconds": seconds}.items():
            for first, last in each.get(unit, ()):
                if first >= end:
                    raise ValueError(
                        f"where[{name!r}][{unit!r}]: from {first} to {last} is beyond the {sound}, which ends at "
                        f"{end:.5g} {'Hz' if unit == 'hertz' else 's'}; choose an interval inside of the {sound}"
                    )


def check_gap(given: Mapping, style: float) -> None:
    """Raise ValueError where more of a style [s] may change than is left for the statistics, in a texture."""
    gap = end = 0.0
    for first, last in sorted(given.get("change", {}).get("seconds", ())):
        gap += max(0.0, min(last, style) - max(first, end))
        end = max(end, last)
    if gap > style - gap + FADE:
        raise ValueError(
            f"where['change']['seconds']: of {style:.2f} s of the style, {gap:.2f} s may change, more than the other "
            f"{style - gap:.2f} s, which the statistics are taken from; choose shorter intervals, or give a longer "
            "recording"
        )


def silence(given: Mapping, kept: float, result: float) -> tuple[float, float] | None:
    """Return from when to when [s] what is kept of a result is silent, because the kept sound has ended; None: never.

    >>> silence({"change": {"seconds": [(4.9, 8)]}}, kept=5, result=10)
    (8, 10)
    """
    if "change" not in given:
        return None
    # The bands that stay are silent, also where others change.
    for first, last in sorted(given["change"].get("seconds", ()) if "hertz" not in given["change"] else ()):
        if first > kept + FADE:
            return kept, min(first, result)
        kept = max(kept, last)
    return (kept, result) if result > kept + FADE else None


def of_array(weights: np.ndarray, analysis: Analysis) -> Mask:
    """Return the mask of an array like a spectrogram of an analysis [shape=(n_bins, n_frames)], 0 beyond its end."""
    weights = np.asarray(weights, dtype=float)
    bins = analysis.transform.frequencies
    if weights.ndim != 2 or len(weights) != len(bins) or not (weights.min() >= 0 and weights.max() <= 1):
        raise ValueError(
            f"a mask has the shape (n_bins, n_frames) of a spectrogram, here ({len(bins)}, ...), and values from 0 to "
            f"1, not the shape {weights.shape} and values from {weights.min()} to {weights.max()}"
        )

    def mask(times, frequencies):
        frames = np.rint(times * analysis.transform.sample_rate / analysis.transform.hop_length).astype(int)
        nearest = np.abs(frequencies[:, 0, None] - bins).argmin(axis=1)
        return np.pad(weights, ((0, 0), (0, 1)))[nearest][:, frames.clip(0, weights.shape[1])]

    return mask


def opposite(mask: Mask) -> Mask:
    """Return the mask of everything else, for what must stay.

    >>> opposite(boxes(seconds=[(1, 2)]))(np.array([0.5, 1.5]), np.array([[100.0]])).tolist()
    [[1.0, 0.0]]
    """
    return lambda times, frequencies: 1 - mask(times, frequencies)


@dataclass(frozen=True, kw_only=True)
class Where:
    """The masks of a run, for the objective, the start and the optimisation; None counts everywhere.

    Parameters
    ----------
    analysis : Analysis
        Of the result.
    kept : np.ndarray [shape=(n,), or (2, n) in stereo]
        The sound that stays where the result may not change, as long as the result.
    change : Mask or None
        Where the result may differ from the kept sound. Other frames are not compared with the style, and other bins
        are silent for the losses that compare with the style.
    style, content : Mask or None
        Where the statistics of the style are taken, and where the content counts.
    own : bool
        Whether the kept sound is the style: the statistics are then taken where it does not change.
    """

    analysis: Analysis
    kept: np.ndarray
    change: Mask | None = None
    style: Mask | None = None
    content: Mask | None = None
    own: bool = False

    def __post_init__(self) -> None:
        if self.analysis.layout == "time" or self.analysis.loop:
            raise ValueError("masks need layout 'freq' or '2D', and no loop; set whichChannel or loop, or no mask")

    @property
    def n_frames(self) -> int:
        """Frames of the result."""
        return 1 + self.kept.shape[-1] // self.analysis.transform.hop_length

    def values(self, name: str, n_frames: int | None = None, frequencies: np.ndarray | None = None) -> np.ndarray:
        """Return a mask by its name, over the frames of the result and the bins of the transform, or over others."""
        transform, mask, n_frames = self.analysis.transform, getattr(self, name), n_frames or self.n_frames
        frequencies = np.asarray(transform.frequencies if frequencies is None else frequencies, dtype=float)
        shape = (len(frequencies), n_frames)
        times = np.arange(n_frames) * transform.hop_length / transform.sample_rate
        values = np.ones(shape) if mask is None else np.array(np.broadcast_to(mask(times, frequencies[:, None]), shape))
        if not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
            raise ValueError(f"the mask {name!r} has values from {values.min()} to {values.max()}; 0 to 1 is allowed")
        return values

    # For the objective

    @functools.cached_property
    def _changed(self):  # frames of the result; every evaluation asks for them
        return self.values("change").max(axis=0) > 0

    def ranges(self, overlap: int) -> list[tuple[int, int]]:
        """Return the runs of features that see a frame that may change, as pairs (first, last + 1).

        overlap : int
            Frames that a feature sees beyond one, see audiocnn.Loss.
        """
        if not self._changed.any():
            raise ValueError("the mask 'change' is 0 in the whole result; give seconds and Hz inside of the sound")
        return _runs(np.convolve(self._changed, np.ones(overlap + 1), mode="valid") > 0)

    def seen(self, kind: str | None, image: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Return what the losses that compare with "style" or "content" see of an image that begins at a frame."""
        if kind is None:
            return image
        mask = self._masks[kind].to(image.device)
        return image * (mask if mask.shape[3] == 1 else mask[..., first : first + image.shape[3]])

    @functools.cached_property
    def _masks(self):  # images: where the result may change, its bins where the style counts, and of the content
        styles = 1 if self.style is None else self.values("style").max(axis=1, keepdims=True)
        values = {name: self.values(name) for name in ("change", "content")}
        values["style"] = values["change"].max(axis=1, keepdims=True) * styles
        return {name: self.analysis.to_image(each) for name, each in values.items()}

    def pieces(self, kind: str | None, image: torch.Tensor, overlap: int) -> list[torch.Tensor]:
        """Return the parts of a recording's image that a target is made of; overlap: see audiocnn.Loss."""
        image, n_frames = self.seen(kind, image), image.shape[3]
        if kind != "style":
            return [image]
        counts = self.values("style", n_frames).max(axis=0) > 0.5
        if self.own and (rest := counts & (self.values("change", n_frames).max(axis=0) == 0)).any():
            counts = rest
        pieces = [image[..., first:last] for first, last in _runs(counts) if last - first > overlap + 8]
        if not pieces:
            seconds = (overlap + 9) * self.analysis.transform.hop_length / self.analysis.transform.sample_rate
            raise ValueError(
                f"the masks leave no {seconds:.2f} s of the style in one piece, which the longest filter needs; let "
                "more of the style count, or leave out the longest widths"
            )
        return pieces

    def counted(self, content: np.ndarray) -> np.ndarray:
        """Return the samples of a content, silent where it does not count in time."""
        places = np.arange(content.shape[-1]) / self.analysis.transform.hop_length
        gains = np.interp(places, np.arange(self.n_frames), self.values("content").max(axis=0))
        return (content * gains).astype(np.float32)

    # For the image and the samples

    def mixed_image(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image where it may change, and that of the kept sound elsewhere."""
        kept = self.analysis.to_image(self.analysis.spectrogram(self.kept), image.device)
        return kept + self._masks["change"].to(image.device) * (image - kept)

    def in_image(self, image: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the symmetric linear map whose changes keep what an image must keep, see audiocnn.optimise."""
        mask = self._masks["change"].to(image.device)
        return lambda change: mask * change

    def mixed(self, samples: np.ndarray) -> np.ndarray:
        """Return samples where they may change, and the kept ones elsewhere, bit for bit."""
        return self.kept + self.analysis.masked(torch.from_numpy(samples - self.kept), self._of_frames).numpy()

    def in_samples(self, samples: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the map of in_image for samples, with the preconditioner of the analysis."""
        return self.analysis.preconditioner(samples, mask=self._of_frames)

    def _of_frames(self, n_bins, n_frames):  # the mask over the bins and frames that a preconditioner has
        values = self.values("change", n_frames, np.linspace(0, self.analysis.transform.sample_rate / 2, n_bins))
        return torch.tensor(values, dtype=torch.float32)


def through(mask: Mask, samples: np.ndarray, analysis: Analysis) -> np.ndarray:
    """Return the part of samples that a mask lets through."""
    return Where(analysis=analysis, kept=np.zeros_like(samples), change=mask).mixed(samples)


def where_of(given: Mapping, analysis: Analysis, recordings: dict, *, length: int) -> Where | None:
    """Return the masks of intervals, such as {"change": {"seconds": [(2, 4)]}}; None where nothing is given."""
    masks = {name: boxes(**each) for name, each in given.items()}
    kept, own = kept_of(recordings, length), "content" not in recordings
    return Where(analysis=analysis, kept=kept, own=own, **masks) if masks else None


def kept_of(recordings: dict, length: int) -> np.ndarray:
    """Return the content, or in a texture the style, with a length in samples; zeros go on where it ends."""
    return librosa.util.fix_length(recordings.get("content", recordings["style 1"]), size=length)


def _runs(flags):  # pairs (first, last + 1) of the runs of True
    edges = np.flatnonzero(np.diff(np.pad(flags.astype(int), 1)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
