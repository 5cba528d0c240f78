"""Networks of random filters that see a texture in bands of frequency: the networks of the default recipe.

Sources
  Antognini, Hoffman, Weiss 2019, Audio texture synthesis with random neural networks, arXiv:1806.08002
  Glasberg, Moore 1990, Derivation of auditory filter shapes from notched-noise data
"""

import numpy as np
import torch
from torch import nn

from support.checks import check_number, check_positive_int


def band_networks(frequencies, *, widths, filters, pattern_share=0.0, dilation=1, seed=0):
    """Random networks side by side that see a texture in bands, at several time scales.

    Each has two layers: conv_1 adds up neighbouring bins, to smooth bands or by random patterns; conv_2 filters every
    sum over time by a random filter of its own. Separate widths follow Antognini 2019. Random sums of hundreds of
    bins are Gaussian for any sound and tell nothing; sums over a few ERB tell harmonics, which smooth bands blur.

    Parameters
    ----------
    frequencies : np.ndarray [shape=(n_bins,), Hz]
        Of the transform; the images have the orientation "freq".
    widths : list of int > 0 [frames]
        Lengths of the filters over time, one network each; a width that stands twice gives two networks.
    filters, dilation : int > 0
        Filters of each network, and frames between their taps over time.
    pattern_share : float from 0 to 1
        Share of the filters that see a random pattern; the others see a smooth band.

    Returns
    -------
    networks : nn.ModuleDict of nn.Sequential, called width_1, width_2 ..., and width_1_2 for the second of width 1
    """
    check_positive_int(filters=filters, dilation=dilation, **{f"width {width}": width for width in widths})
    check_number("pattern_share", pattern_share, 0, most=1)
    generator = torch.Generator().manual_seed(seed)
    erb = torch.from_numpy(9.265 * np.log1p(np.asarray(frequencies) / 228.8)).float()  # Glasberg & Moore 1990
    n_patterns, networks = round(pattern_share * filters), nn.ModuleDict()
    for number, width in enumerate(widths):
        parts = [_smooth_bands, filters - n_patterns], [_patterns, n_patterns]
        sums = torch.cat([make(erb, count, generator) for make, count in parts if count])  # (filters, n_bins)
        taps = nn.functional.normalize(torch.randn(filters, width, generator=generator))
        conv_1 = nn.Conv2d(len(erb), filters, 1, bias=False)
        conv_2 = nn.Conv2d(filters, filters, (1, width), dilation=(1, dilation), groups=filters, bias=False)
        conv_1.weight.data, conv_2.weight.data = sums[:, :, None, None], taps[:, None, None]
        earlier = list(widths[:number]).count(width)
        networks[f"width_{width}" + (f"_{earlier + 1}" if earlier else "")] = nn.Sequential(conv_1, conv_2)
    return networks.requires_grad_(False).eval()


def _smooth_bands(erb, count, generator):  # (count, n_bins), from 1 to 2 erb[-1] ERB wide
    return nn.functional.normalize(_neighbourhoods(erb, (2 * erb[-1]) ** torch.rand(count, 1, generator=generator) / 2))


def _patterns(erb, count, generator):  # (count, n_bins), from 1 to 8 ERB wide
    spread = 8 ** torch.rand(count, 1, generator=generator) / 2
    return nn.functional.normalize(torch.randn(count, len(erb), generator=generator) * _neighbourhoods(erb, spread))


def _neighbourhoods(erb, spread):  # Gaussians around centres that lie evenly on the ERB scale
    # The outermost centres lie half an ERB outside: otherwise the outermost bins would hardly count.
    centres = torch.linspace(erb[0] - 0.5, erb[-1] + 0.5, len(spread))[:, None]
    weights = torch.exp(-0.5 * ((erb - centres) / spread) ** 2)
    return torch.where(weights < 1e-3, 0, weights)
