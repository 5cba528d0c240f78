"""Losses beyond Gatys: a content of free level; rhythm and diversity, after Antognini et al. 2019 (arXiv:1806.08002).

Also an example of how to write a loss of one's own: subclass audiocnn.Loss, and use the class in the list of terms.
"""

import torch
from torch import nn

from audiocnn import N_QUANTILES, ContentLoss, Loss, blended, rows_of


class FreeContentLoss(ContentLoss):
    """ContentLoss where frames of the result may be quieter than the content's.

    Such a frame is compared at the content's level, for which its features are multiplied by up to LARGEST_GAIN. The
    content falls silent with the style, and keeps its pitches; otherwise, a dense content fills every silence of the
    style. A frame that is louder than the content's is compared as it is: a pause of the content stays a pause.
    """

    LARGEST_GAIN = 3.0  # of magnitudes to the power 0.3: 32 dB

    def __init__(self, content):
        super().__init__(content)
        self.levels = _levels(self.target)
        self.floor = 1e-4 * self.levels.mean() + 1e-12  # keeps the gain finite in silence
        self.counts = torch.ones_like(self.levels)

    def count_edges(self, n_frames):
        """Let the first and the last of a content's n_frames count as much as the others.

        A long filter sees these two once, and the others as often as the filter is long: loud events of the style
        would gather there, where they cost little, and end the result with a click.
        """
        self.counts[[0, -1]] = 1.0 + n_frames - len(self.counts)

    def distance(self, features):
        """Take the features of the whole image, or of a segment of its frames."""
        part = slice(self.first_frame, self.first_frame + features.shape[3])
        gain = ((self.levels[part] + self.floor) / (_levels(features) + self.floor)).sqrt().clamp(1, self.LARGEST_GAIN)
        return (self.counts[part] * (gain * features - self.target[..., part]).square()).mean()


def _levels(features):  # (frames,)
    return features.square().sum(dim=(0, 1, 2))


CONTENT_LOSSES = {"same": ContentLoss, "free": FreeContentLoss}  # by the content's level in the result


class RhythmLoss(Loss):
    """Difference between the autocorrelations over time, relative to the style's (Antognini 2019).

    Mean over channels and lags up to half the style's length.
    """

    kind, compares = "rhythm", "style"

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        self.n_lags = min(style.shape[-1] for style in styles) // 2
        self.target = blended(self._autocorrelation, styles, blend)

    def distance(self, features):
        """Take features of any number of positions."""
        correlation = self._autocorrelation(features)
        target = self.target[:, : correlation.shape[1]]
        return (correlation - target).square().mean() / target.square().mean()

    def _autocorrelation(self, features):  # (channels, lags)
        rows = _centred(features)
        n_lags, length = min(self.n_lags, rows.shape[1] // 2), rows.shape[1]
        power = torch.fft.rfft(rows, 2 * length).abs().square()
        return torch.fft.irfft(power)[:, :n_lags] / (length - torch.arange(n_lags, device=rows.device))


class DiversityLoss(Loss):
    """How much more alike passages of the result and the style are than passages of the style are to each other.

    Each passage counts by its highest correlation with the style, at any shift: an optimiser that must not copy at one
    shift copies at the next (Antognini 2019). The limit lets a result repeat as much as its style repeats itself:
    calls of birds are alike in every take. Below the limit, the loss is 0.
    """

    kind, compares = "diversity", "style"
    LENGTH, HOP = 84, 4  # positions of a passage (at the default's hop 0.49 s), and of the means that are compared
    MOST = 256  # passages; up to 30 s of sound, four begin in each length, and of 5 minutes one begins in each 0.6 s

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        rows = [self._means(style.detach())[:, : N_QUANTILES // self.HOP] for style in styles]
        self.length = max(1, min(self.LENGTH // self.HOP, *(each.shape[1] // 4 for each in rows)))
        passages = [self._passages(each, 1) for each in rows]
        self.places = torch.cat(passages)
        self.limit = sum(share * self._own(each) for share, each in zip(blend, passages, strict=True))

    def distance(self, features):
        """Take features of any number of positions."""
        rows = self._means(features)
        if rows.shape[1] < self.length:
            return 0 * rows.sum()  # too short to copy a passage
        passages = self._passages(rows, max(1, self.length // 4, rows.shape[1] // self.MOST))
        with torch.no_grad():
            best = (passages @ self.places.T).argmax(dim=1)
        return ((passages * self.places[best]).sum(dim=1).mean() - self.limit).relu().square()

    def _means(self, features):  # (planes * channels * height, means)
        return nn.functional.avg_pool1d(features.flatten(0, 2)[None], self.HOP, ceil_mode=True)[0]

    def _passages(self, rows, step):  # (passages, rows * length), each centred in every row, of norm 1
        passages = rows.unfold(1, self.length, step).transpose(0, 1)
        return nn.functional.normalize((passages - passages.mean(dim=2, keepdim=True)).flatten(1))

    def _own(self, passages):  # the mean over passages of the highest correlation with one that does not overlap
        start = torch.arange(len(passages), device=passages.device)
        near = (start[:, None] - start).abs() < self.length
        return (passages @ passages.T).masked_fill(near, 0).amax(dim=1).mean()


def _centred(features):  # rows, each without its mean
    rows = rows_of(features)
    return rows - rows.mean(dim=1, keepdim=True)
