"""Losses beyond Gatys: a content of free level, and diversity, after Antognini et al. 2019 (arXiv:1806.08002).

Also an example of how to write a loss of one's own: subclass audiocnn.Loss, and use the class, or an instance with
parameters of its own, in the list of terms.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from audiocnn import N_QUANTILES, ContentLoss, Loss


class Levels(NamedTuple):
    """What FreeContentLoss keeps of a content: features, each frame's level and weight, and the level of silence."""

    features: torch.Tensor
    levels: torch.Tensor  # (frames,)
    counts: torch.Tensor  # (frames,)
    floor: torch.Tensor


@dataclass
class FreeContentLoss(ContentLoss):
    """ContentLoss where frames of the result may be quieter than the content's.

    Such a frame is compared at the content's level, for which its features are multiplied by up to largest_gain. The
    content falls silent with the style, and keeps its pitches; otherwise, a dense content fills every silence of the
    style. A frame that is louder than the content's is compared as it is: a pause of the content stays a pause.

    Parameters
    ----------
    largest_gain : float of at least 1
        2.1 of magnitudes to the power 0.3 are 21 dB. With 3 (32 dB), speech in the style of tabla lost a third of its
        frames, whatever the weight of the content; with 2.1, 4, 1 and 0 % at the weights 10, 30 and 100.
    """

    largest_gain: float = 2.1

    def target(self, content, *, blend):
        """Describe the content.

        A long filter sees the first and the last frame once, and the others as often as the filter is long: loud
        events of the style would gather there, where they cost little, and end the result with a click. Therefore
        these two count as much as the others.
        """
        levels = _levels(content)
        counts = torch.ones_like(levels)
        counts[[0, -1]] = 1.0 + self.overlap
        floor = 1e-4 * levels.mean() + 1e-12  # keeps the gain finite in silence
        return Levels(content, levels, counts, floor)

    def cut(self, target, part):
        """Return the same frames of the content."""
        return Levels(target.features[..., part], target.levels[part], target.counts[part], target.floor)

    def distance(self, features, target):
        """Take features and target of one shape."""
        gain = ((target.levels + target.floor) / (_levels(features) + target.floor)).sqrt().clamp(1, self.largest_gain)
        return (target.counts * (gain * features - target.features).square()).mean()


def _levels(features):  # (frames,)
    return features.square().sum(dim=(0, 1, 2))


CONTENT_LOSSES = {"same": ContentLoss(), "free": FreeContentLoss()}  # by the content's level in the result


class Passages(NamedTuple):
    """What DiversityLoss keeps of a style: its passages, how many means each has, and how alike they are."""

    places: torch.Tensor
    length: int
    limit: torch.Tensor


@dataclass
class DiversityLoss(Loss):
    """How much more alike passages of the result and the style are than passages of the style are to each other.

    Each passage counts by its highest correlation with the style, at any shift: an optimiser that must not copy at one
    shift copies at the next (Antognini 2019). The limit lets a result repeat as much as its style repeats itself:
    calls of birds are alike in every take. Below the limit, the loss is 0.

    Parameters
    ----------
    length, hop : int > 0 [positions]
        Of a passage (at the default's hop 0.49 s), and of the means that are compared.
    most : int > 0
        Passages; up to 30 s of sound, four begin in each length, and of 5 minutes one begins in each 0.6 s.
    """

    length: int = 84
    hop: int = 4
    most: int = 256
    kind, compares, segments = "diversity", "style", True

    def target(self, *styles, blend):
        """Describe the styles."""
        rows = [self._means(style)[:, : N_QUANTILES // self.hop] for style in styles]
        length = max(1, min(self.length // self.hop, *(each.shape[1] // 4 for each in rows)))
        passages = [_passages(each, length, 1) for each in rows]
        limit = sum(share * _own(each, length) for share, each in zip(blend, passages, strict=True))
        return Passages(torch.cat(passages), length, limit)

    def distance(self, features, target):
        """Take features of any number of positions."""
        rows = self._means(features)
        if rows.shape[1] < target.length:
            return 0 * rows.sum()  # too short to copy a passage
        passages = _passages(rows, target.length, max(1, target.length // 4, rows.shape[1] // self.most))
        with torch.no_grad():
            best = (passages @ target.places.T).argmax(dim=1)
        return ((passages * target.places[best]).sum(dim=1).mean() - target.limit).relu().square()

    def _means(self, features):  # (planes * channels * height, means)
        return nn.functional.avg_pool1d(features.flatten(0, 2)[None], self.hop, ceil_mode=True)[0]


def _passages(rows, length, step):  # (passages, rows * length), each centred in every row, of norm 1
    passages = rows.unfold(1, length, step).transpose(0, 1)
    return nn.functional.normalize((passages - passages.mean(dim=2, keepdim=True)).flatten(1))


def _own(passages, length):  # the mean over passages of the highest correlation with one that does not overlap
    start = torch.arange(len(passages), device=passages.device)
    near = (start[:, None] - start).abs() < length
    return (passages @ passages.T).masked_fill(near, 0).amax(dim=1).mean()
