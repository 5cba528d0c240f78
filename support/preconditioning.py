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

import torch

from support.transforms import compress


def preconditioner(samples, *, n_fft, hop_length, use01scale, power):
    """Return the linear map, from a tensor like samples to a change of samples, with gradients.

    Parameters
    ----------
    samples : torch.Tensor
        The sound whose spectrogram decides where the compression is steep, for the whole optimisation.
    n_fft, hop_length : int > 0 [samples]
    use01scale, power : see transforms.compress
    """
    window = torch.hann_window(n_fft, device=samples.device)
    frames = dict(n_fft=n_fft, hop_length=hop_length, window=window)

    def stft(signal):  # (..., n_bins, n_frames); the zeros let whole windows cover the end
        signal = torch.nn.functional.pad(signal, (0, n_fft))
        return torch.stft(signal, **frames, pad_mode="constant", return_complex=True)

    magnitude = stft(samples).abs().requires_grad_()
    spectrogram = compress(magnitude, use01scale=use01scale, power=power)
    weights = 1 / torch.autograd.grad(spectrogram.sum(), magnitude)[0]
    weights = weights / weights.mean()
    return lambda signal: torch.istft(weights * stft(signal), **frames, length=samples.shape[-1])
