"""Pitch: a loss that hears which notes a content plays, whatever instrument plays them.

The bands of the networks are wider than a semitone, and a short window has bins that are wider still: with them alone,
a transfer keeps the rhythm of a melody and loses the melody. The descent on samples can look through a longer window.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from audiocnn import Loss

LOWEST, HIGHEST = 36, 96  # notes of MIDI, 65 to 2093 Hz: fundamentals, and partials that tell one note from another
WINDOW = 0.186  # s; 5 Hz wide, tells semitones from about 100 Hz on, and holds a note of a fast melody
NEIGHBOURS = 5  # semitones whose mean is subtracted: what is broader than a partial is timbre, or noise


class Notes(NamedTuple):
    """What PitchLoss keeps of a content: which notes sound in each frame, and how much each frame counts."""

    features: torch.Tensor  # (frames, semitones)
    weights: torch.Tensor  # (frames,); their sum is 1 where all frames hold a note
    floor: torch.Tensor


@dataclass
class PitchLoss(Loss):
    """One minus the correlation of the notes with the content's, in each frame; a loss at the layer "samples".

    The power in semitones, compressed to the power 0.25, less the mean of the neighbouring semitones: a spectrum's
    envelope goes, its partials stay. Frames count by the content's magnitude, and as far as the content holds its
    notes from one window to the next. A content without pitch has no weight: 0.00 for rain, applause and a brook, 0.4
    for speech, 0.7 to 1 for melodies; but 1 also for drums with a resonance.

    Parameters
    ----------
    sample_rate : int > 0 [Hz]
    curve : list of pairs (second, value), or None
        Factors of the frames' weights over time; None: 1.
    """

    sample_rate: int
    curve: object = None
    kind, compares = "pitch", "content"

    def target(self, content, *, blend):
        """Describe the content, samples [shape=(channels, 1, 1, n)]."""
        features, magnitude = self._notes(content)
        norm = features.norm(dim=1, keepdim=True)
        features = features / norm.clamp_min(1e-12)
        weights = held(features) * magnitude / magnitude.sum().clamp_min(1e-12)
        if self.curve is not None:
            seconds = np.arange(len(weights)) * self._n_fft / 4 / self.sample_rate
            weights = weights * torch.from_numpy(np.interp(seconds, *zip(*self.curve, strict=True))).to(weights)
        return Notes(features, weights, 0.01 * norm.mean())

    def distance(self, features, target):
        """Take samples of the content's length."""
        notes, _ = self._notes(features)
        norm = (notes.square().sum(dim=1) + target.floor.square() + 1e-12).sqrt()  # has a gradient in silence too
        return (target.weights * (1 - (notes * target.features).sum(dim=1) / norm)).sum()

    @property
    def _n_fft(self):
        return 2 * (semitones(self.sample_rate).shape[1] - 1)

    def _notes(self, samples):  # (frames, semitones), and each frame's magnitude
        mono = samples.flatten(0, 2).mean(dim=0)
        bands = semitones(self.sample_rate).to(mono)
        n_fft = self._n_fft
        window = torch.hann_window(n_fft, device=mono.device, dtype=mono.dtype)
        spectrum = torch.stft(mono, n_fft, n_fft // 4, window=window, pad_mode="constant", return_complex=True).T
        highest = int(bands.any(dim=0).nonzero().max()) + 1  # the bins above fill most of the memory
        spectrum = spectrum[:, :highest]
        power = (spectrum.real.square() + spectrum.imag.square()) @ bands[:, :highest].T
        levels = (power + 1e-6) ** 0.25  # 120 dB below a sine of full scale
        around = nn.functional.avg_pool1d(levels, NEIGHBOURS, 1, NEIGHBOURS // 2, count_include_pad=False)
        return levels - around, power.sum(dim=1).sqrt()


@functools.cache
def semitones(sample_rate: int) -> torch.Tensor:
    """Return triangles around the notes from LOWEST to HIGHEST [shape=(semitones, bins of a window)]."""
    n_fft = 2 ** round(np.log2(WINDOW * sample_rate))
    frequencies = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    notes = 440 * 2 ** ((np.arange(LOWEST, HIGHEST + 1) - 69) / 12)
    notes = notes[notes < sample_rate / 2][:, None]
    widths = np.maximum(notes * (2 ** (1 / 12) - 1), frequencies[1])  # no triangle falls between two bins
    return torch.from_numpy(np.maximum(0, 1 - np.abs(frequencies - notes) / widths)).float()


def held(notes: torch.Tensor) -> torch.Tensor:
    """Return how far each frame's notes are those of half a window before or later, from 0 to 1 [shape=(frames,)].

    notes : torch.Tensor [shape=(frames, semitones)], each frame with the norm 1
        Correlations of noise are below 0.6, those of notes mostly above 0.8.
    """
    alike = (notes[2:] * notes[:-2]).sum(dim=1)
    alike = torch.maximum(nn.functional.pad(alike, (0, 2)), nn.functional.pad(alike, (2, 0)))[: len(notes)]
    return ((alike - 0.6) / 0.2).clamp(0, 1)
