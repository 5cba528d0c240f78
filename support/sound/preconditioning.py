"""A preconditioner for samples: the losses become about equally steep at all places of their spectrogram.

The losses compare compressed magnitudes. Where a sound is quiet, a power of 0.3 is up to hundreds of times as steep
as where the sound is loud, and L-BFGS crawls: all its steps are as small as the steepest places allow. Therefore
L-BFGS moves another signal, and the change of the samples is this signal with every place of its STFT multiplied by
one over the slope of the compression. The sound that the losses prefer stays the same; the way there is shorter.

Conventions
  samples  torch tensor [shape=(n,), or (2, n) in stereo]

Sources
  Nocedal, Wright 2006, Numerical Optimization, section 7.2, for L-BFGS and the scaling of variables
"""

from collections.abc import Callable

import torch

from support.sound.frames import BLOCK, FrameSpectra, overlap_add


def stft_preconditioner(
    samples: torch.Tensor,
    *,
    compress: Callable[[torch.Tensor], torch.Tensor],
    n_fft: int,
    hop_length: int,
    mask: Callable[[int, int], torch.Tensor] | None = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the symmetric linear map, from a tensor like samples to a change of samples.

    Parameters
    ----------
    samples : torch.Tensor
        The sound whose spectrogram decides where the compression is steep, for the whole optimisation.
    compress : function
        From magnitudes to what the losses see, see Analysis.compress.
    n_fft, hop_length : int > 0 [samples]
    mask : function or None
        From numbers of bins and frames to factors of the weights: 0 where nothing may change, see masks.py.
    """
    window = torch.hann_window(n_fft, device=samples.device)
    magnitude = FrameSpectra.apply(_padded(samples, n_fft), window, hop_length).abs().requires_grad_()
    weights = 1 / torch.autograd.grad(compress(magnitude).sum(), magnitude)[0]
    weights = weights / weights.mean()
    if mask is not None:
        weights = weights * mask(*weights.shape[-2:]).to(weights.device)
    return multiplier(weights, length=samples.shape[-1], n_fft=n_fft, hop_length=hop_length)


def multiplier(
    weights: torch.Tensor, *, length: int, n_fft: int, hop_length: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the symmetric linear map of signals that multiplies every place of their STFT by a weight.

    weights : torch.Tensor [shape=(..., n_fft // 2 + 1, 1 + (length + n_fft // 2) // hop_length)]
        Where all are 1, the map changes nothing; where all frames that see a sample have 0, the sample becomes 0.
    """
    window, n_frames = torch.hann_window(n_fft, device=weights.device), weights.shape[-1]
    # One root on each side keeps the map symmetric.
    root = overlap_add(window.square().expand(n_frames, n_fft), hop_length)[n_fft // 2 :][:length].rsqrt()

    def change(signal):
        signal = _padded(root * signal, n_fft)
        changed = torch.zeros_like(signal)
        for first in range(0, n_frames, BLOCK):  # 5 minutes at once would take 5 times as long
            last = min(first + BLOCK, n_frames)
            part = slice(first * hop_length, (last - 1) * hop_length + n_fft)
            spectra = FrameSpectra.apply(signal[..., part], window, hop_length)
            frames = torch.fft.irfft((weights[..., first:last] * spectra).mT, n_fft) * window
            changed[..., part] += overlap_add(frames, hop_length)
        return root * changed[..., n_fft // 2 :][..., :length]

    return torch.no_grad()(change)


def _padded(signal, n_fft):  # the zeros let whole windows cover the end
    return torch.nn.functional.pad(signal, (n_fft // 2, n_fft))
