"""Weights and shares that change over time: rain becomes fire, a content fades out.

A loss with a curve compares windows of the result, each with the weight of its time, or with the blend of the styles
at its time. The windows overlap by half, so that no step is heard.

Conventions
  curve   list of pairs (second, value), linear in between; a number is the same at all times
  window  WINDOW seconds of the result; the first and the last one have half of this length
"""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from audiocnn import Loss, Term, made_term
from support.checks import check_number
from support.pitch import PitchLoss

BLENDS = 16  # steps of a share from 0 to 1
WINDOW = 1.0  # s; shorter windows hold too few events of a texture, longer ones blur the curve


def is_curve(value: object) -> bool:
    """Whether a setting's value is a list of pairs (second, value).

    >>> is_curve([(0, 30), (10, 0)]), is_curve([(0, [1, 0]), (10, [0, 1])]), is_curve(30), is_curve([1, 2])
    (True, True, False, False)
    """
    pairs = value if isinstance(value, list | tuple) and len(value) else [None]
    return all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs)


def check_curve(name: str, value: object, check: Callable[[str, object], None]) -> None:
    """Raise ValueError unless a list of pairs begins at second 0, is in order, and has values that a check takes."""
    for second, each in value:
        check_number(f"{name}: a second", second, 0, most=10**6)
        check(name, each)
    seconds = [second for second, _ in value]
    if seconds[0] != 0 or sorted(set(seconds)) != seconds:
        raise ValueError(f"{name}={value!r} must hold pairs (second, value) from second 0 on, in the order of time")


def check_end(name: str, value: object, seconds: float) -> None:
    """Raise ValueError where a curve ends before the result, which ends at a number of seconds."""
    if is_curve(value) and value[-1][0] < seconds - 5e-3:
        raise ValueError(
            f"{name}={value!r} ends at {value[-1][0]} s, but the result at {seconds:.2f} s; add a pair for this second"
        )


def at(curve: object, seconds: float | np.ndarray) -> np.ndarray:
    """Return the values of a curve, or of a number, at times [s]; lists of shares become parts of 1.

    >>> at([(0, 30), (10, 0)], np.array([0, 2.5])).tolist(), at([(0, [1, 0]), (4, [1, 3])], 2).tolist()
    ([30.0, 22.5], [0.625, 0.375])
    """
    if not is_curve(curve):
        return np.full_like(np.asarray(seconds, dtype=float), curve)[()]
    times, values = zip(*curve, strict=True)
    if np.ndim(values[0]) == 0:
        return np.interp(seconds, times, values)
    shares = [np.array(each, dtype=float) / sum(each) for each in values]
    return np.stack([np.interp(seconds, times, each) for each in zip(*shares, strict=True)])


def largest(value: object) -> float:
    """Return the largest value of a curve of numbers, or a number itself; 0 for None."""
    return max(each for _, each in value) if is_curve(value) else value or 0


class Targets(NamedTuple):
    """What OverTime keeps of the sounds: the target of each blend, and the position where a segment begins."""

    by_blend: dict
    first: int


@dataclass
class OverTime(Loss):
    """A loss whose weight, or whose blend of several styles, is a curve.

    Parameters
    ----------
    loss : Loss
        One that can compare segments.
    hop_seconds : float
        From one frame of the image to the next.
    weight : curve or number
    blend : curve of lists of shares, one for each style, or None
        None: the blend of the objective. Shares are rounded to BLENDS, because each blend has a target.
    """

    loss: Loss
    hop_seconds: float
    weight: object = 1.0
    blend: object = None
    segments = True

    def __post_init__(self):
        if not self.loss.segments:
            raise ValueError(f"the {self.loss.kind} loss compares the whole sound; its weight must be a number")
        self.kind, self.compares = self.loss.kind, self.loss.compares

    def target(self, *sounds, blend):
        """Describe the sounds, once for every blend."""
        self.loss = copy.copy(self.loss)
        self.loss.overlap, self.loss.loop, self.loss.stride = self.overlap, self.loop, self.stride
        if self.blend is None:
            return Targets({None: self.loss.target(*sounds, blend=blend)}, 0)
        blends = {self._blend_at(second) for second in np.linspace(0, self.blend[-1][0], 100 * BLENDS)}
        return Targets({each: self.loss.target(*sounds, blend=list(each)) for each in sorted(blends)}, 0)

    def cut(self, target, part):
        """Return the targets for a segment, and where the segment begins."""
        return Targets({blend: self.loss.cut(each, part) for blend, each in target.by_blend.items()}, part.start)

    def distance(self, features, target):
        """Take features of any number of positions."""
        n_positions, total = features.shape[3], 0
        half = max(1, round(WINDOW / 2 / self.hop_seconds / self.stride))
        edges = [0, *range(half, n_positions - half // 2, half), n_positions]
        windows = [slice(edges[max(k - 1, 0)], edges[min(k + 1, len(edges) - 1)]) for k in range(len(edges))]
        counted = sum(each.stop - each.start for each in windows)
        for window, middle in zip(windows, edges, strict=True):
            second = ((target.first + middle) * self.stride + self.overlap / 2) * self.hop_seconds
            each = target.by_blend[self._blend_at(second)]
            distance = self.loss.distance(features[..., window], self.loss.cut(each, window))
            total = total + float(at(self.weight, second)) * (window.stop - window.start) / counted * distance
        return total

    def _blend_at(self, second):
        if self.blend is None:
            return None
        shares = np.rint(BLENDS * at(self.blend, second))
        return tuple((shares / shares.sum()).tolist())


def terms_of(sums: list, *, hop_seconds: float, blend: object = None) -> list[Term]:
    """Return the terms of lines (loss, weight, dict from layer to factor), whose losses follow the curves among these.

    hop_seconds : float
        From one frame of the image to the next.
    blend : curve of lists of shares, one for each style; anything else changes nothing
    """
    terms = []
    for loss, weight, layers in sums:
        for layer, factor in layers.items():
            curve = [(second, factor * value) for second, value in weight] if is_curve(weight) else None
            term = made_term(loss, layer, 1.0 if curve else weight * factor)
            blended = blend if is_curve(blend) and term.compares == "style" and term.loss.segments else None
            if curve and isinstance(term.loss, PitchLoss):
                term = term._replace(loss=dataclasses.replace(term.loss, curve=curve))
            elif curve or blended:
                term = term._replace(loss=OverTime(term.loss, hop_seconds, curve or 1.0, blended))
            terms.append(term)
    return terms
