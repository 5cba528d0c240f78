"""A sound of any length, section by section: each begins with the end of the section before, and keeps it.

Only one section is in memory. The end that is kept is a part of what the losses see, so that the sound goes on, and
every section is compared with the whole style, so that its statistics can't drift.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import librosa
import numpy as np

from support.sound.analysis import Analysis
from support.sound.files import SILENT, fit_full_scale
from support.sound.masks import FADE, Where, boxes

LONG = 60.0  # s; a longer result is made section by section
SECTION = 12.0  # s, the longest section; 15 s need 1.22 GB in the notebook, and 2 minutes at once would need 1.7 GB
KEPT = 0.5  # s; the default's longest filter sees 0.19 s


class Section(NamedTuple):
    """A part of a long sound.

    first, length : place of its first sample, and how many samples the section has
    before : the samples that the section begins with and keeps [shape=(n,), or (2, n) in stereo]
    """

    first: int
    length: int
    before: np.ndarray

    def where(self, analysis: Analysis) -> Where:
        """Return the mask of what is new; analysis: of the result."""
        transform = analysis.transform
        # A frame sees half a window beyond its middle: where one sees the silence behind `before`, all is new.
        begins = (self.before.shape[-1] - transform.n_fft_of_refinement / 2) / transform.sample_rate
        if begins < FADE:
            raise ValueError(f"a section keeps {KEPT} s, too short for n_fft={transform.n_fft_of_refinement}; lower it")
        kept = librosa.util.fix_length(audible(self.before), size=self.length)
        return Where(analysis=analysis, kept=kept, change=boxes(seconds=[(begins, np.inf)]))


def ends_of(length: int, sample_rate: int) -> list[int]:
    """Return the places where the sections of a sound end [samples]: all have about the same length.

    >>> ends_of(70, sample_rate=1)
    [12, 24, 35, 47, 59, 70]
    """
    number = int(np.ceil(length / (SECTION * sample_rate)))
    return [int(end) for end in np.ceil(np.linspace(0, length, number + 1)[1:])]


def audible(samples: np.ndarray) -> np.ndarray:
    """Return samples; where all are silent, noise of -140 dB, which an analysis takes and 16 bits round to silence."""
    if np.abs(samples).max() >= SILENT:
        return samples
    return (1e-7 * np.random.default_rng(0).standard_normal(samples.shape)).astype(np.float32)


def begun(samples: np.ndarray) -> np.ndarray:
    """Return the samples of the first section as a file keeps them: bent where they would clip, and in 16 bits."""
    return _in_16_bits(fit_full_scale(samples, kept=np.zeros_like(samples)))


def go_on(
    make: Callable[[Section], np.ndarray], before: np.ndarray, done: int, *, length: int, sample_rate: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (place, samples) of every further section of a long sound: its samples from a place on.

    Parameters
    ----------
    make : function
        From a section to its samples.
    before, done : the last samples that are there, KEPT seconds or more, and how many are there in all
    length : of the whole sound [samples]
    """
    kept = round(KEPT * sample_rate)
    for end in ends_of(length, sample_rate):
        if end >= done + kept:
            section = Section(done - kept, end - done + kept, before[..., -kept:])
            there = librosa.util.fix_length(section.before, size=section.length)
            before, done = _in_16_bits(fit_full_scale(make(section), kept=there)), end
            yield section.first, before


def _in_16_bits(samples):  # so that a file gives the same samples again
    return np.rint(samples * 2**15).clip(-(2**15), 2**15 - 1).astype(np.float32) / 2**15
