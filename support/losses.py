"""Losses beyond Gatys: a content of free level; rhythm and diversity, after Antognini et al. 2019 (arXiv:1806.08002).

Also an example of how to write a loss of one's own: subclass audiocnn.Loss, and use the class in the list of terms.
"""

import torch

from audiocnn import ContentLoss, Loss, blended, rows_of


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

    def distance(self, features):
        """Take the features of the whole image, or of a segment of its frames."""
        levels = self.levels[self.first_frame :][: features.shape[3]]
        gain = ((levels + self.floor) / (_levels(features) + self.floor)).sqrt().clamp(1, self.LARGEST_GAIN)
        return super().distance(gain * features)


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
    """How much of the features is a copy of the style's own, shifted by any time.

    The correlation with the style is taken at every shift: an optimiser that must not copy at one shift copies at
    the next (Antognini 2019). The loss is close to the highest of these correlations.
    """

    kind, compares = "diversity", "style"

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        self.rows = [_centred(style.detach()) for style in styles]

    def distance(self, features):
        """Take features of any number of positions."""
        rows = _centred(features)
        return sum(self._similarity(rows, style) for style in self.rows)

    @staticmethod
    def _similarity(rows, style):
        period = rows.shape[1] + style.shape[1]
        product = torch.fft.rfft(rows, period) * torch.fft.rfft(style, period).conj()
        correlation = torch.fft.irfft(product.sum(dim=0), period) / (rows.norm() * style.norm()).clamp_min(1e-12)
        return correlation.norm(p=8)


def _centred(features):  # rows, each without its mean
    rows = rows_of(features)
    return rows - rows.mean(dim=1, keepdim=True)
