"""The constant-Q transform as a linear map with gradients, and nearly its inverse.

Conventions
  samples       torch tensor [shape=(..., length)]
  coefficients  complex torch tensor [shape=(..., n_bins, n_frames)]
"""

import numpy as np
import scipy  # loads scipy.fft where it is used
import torch
from torch import nn


class FilterBank(nn.Module):
    """librosa's constant-Q transform of sounds of one length, within about -28 dB (a test holds it to -26).

    Each filter is a Hann window, so its spectrum covers a few DFT bins of the whole sound: these bins are cut out,
    weighted, folded to the frame rate and transformed back.

    Parameters
    ----------
    frequencies, lengths : np.ndarray [shape=(n_bins,), cycles per sample and samples]
        Centre and length of every filter.
    hop_length, length : int [samples]
    n_frames : int
    """

    def __init__(self, frequencies: np.ndarray, lengths: np.ndarray, hop_length: int, length: int, n_frames: int):
        super().__init__()
        self.length, self.n_frames, self.hop_length = length, n_frames, hop_length
        self.n_bins = len(lengths)
        self.period = scipy.fft.next_fast_len(n_frames + 1 + int(lengths[0]) // hop_length)  # in frames, with room
        self.n_fft = self.period * hop_length
        sources, targets, gains = [], [], []
        for k, (center, window) in enumerate(zip(frequencies, lengths, strict=True)):
            low = max(1, int(np.ceil((center - 3 / window) * self.n_fft)))  # 3: the main lobe ends at 2
            source = np.arange(low, min(self.n_fft // 2, int((center + 3 / window) * self.n_fft)) + 1)
            offset = window * (source / self.n_fft - center)
            hann = np.sinc(offset) + 0.5 * np.sinc(offset - 1) + 0.5 * np.sinc(offset + 1)
            sources.append(source)
            targets.append(k * self.period + source % self.period)
            gains.append((np.sqrt(window) * hann).astype(np.float32))
        for name, parts in (("sources", sources), ("targets", targets), ("gains", gains)):
            self.register_buffer(name, torch.from_numpy(np.concatenate(parts)))
        power = torch.zeros(self.n_fft // 2 + 1).index_add_(0, self.sources, self.gains**2)
        self.register_buffer("power", power + 1e-3 * power.max())

    def transform(self, samples: torch.Tensor) -> torch.Tensor:
        """Turn samples into coefficients."""
        spectrum = torch.fft.rfft(samples, self.n_fft)
        folded = spectrum.new_zeros(*samples.shape[:-1], self.n_bins * self.period)
        folded = folded.index_add(-1, self.targets, spectrum[..., self.sources] * self.gains)
        return torch.fft.ifft(folded.unflatten(-1, (self.n_bins, self.period)))[..., : self.n_frames] / self.hop_length

    def inverse(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Turn coefficients [shape=(n_bins, n_frames)] into samples [shape=(length,)], nearly."""
        bands = torch.fft.fft(coefficients, self.period).flatten()
        spectrum = torch.zeros(self.n_fft // 2 + 1, dtype=bands.dtype)
        spectrum = spectrum.index_add(0, self.sources, bands[self.targets] * self.gains)
        return torch.fft.irfft(spectrum / self.power * self.hop_length, self.n_fft)[: self.length].contiguous()
