"""Other networks and losses than the default's, one by one: python benchmarks/experiments.py tuning | reporting.

An experiment is a function from the settings and their parts to what replaces parts in pipeline.run: networks, terms,
or both. No experiment changes the library. Tuning: all experiments, on four textures of those that settings are chosen
on. Reporting: the default and the experiments in REPORTED, on the recordings that quality.py reports on.

Sources
  Nguyen, Ho 2023, Energy-based sliced Wasserstein distance, arXiv:2304.13586, for channels weighted by distance
  Nguyen and others 2024, Sliced Wasserstein with random-path projecting directions, arXiv:2401.15889
  Zhou and others 2023, Neural texture synthesis with guided correspondence (CVPR)
  McDermott, Simoncelli 2011, for filters behind a modulus
  Feather, McDermott 2018, Auditory texture synthesis from task-optimized convolutional neural networks
"""

import argparse
import functools
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

import metrics
import quality
import variants
from report import write_section

# isort: split
import audiocnn
from support import frontend, pipeline
from support.bands import band_networks

LAGS = (2, 4, 8, 16, 32, 64)


# 1. Networks -------------------------------------------------------------------------------------


def bands_of(settings, parts, draw, **changes):
    """Return the band networks of a draw: those of the default, but for the arguments that are given."""
    usual = dict(widths=settings.widths, filters=settings.filters, pattern_share=settings.pattern_share)
    usual |= dict(seed=settings.seed + 10**6 * draw)
    return band_networks(parts.analysis.transform.frequencies, **usual | changes)


def beside(make, settings, parts):
    """Return the change to the default's networks with those beside them that make(draw) returns by name."""

    def networks(draw):
        both = bands_of(settings, parts, draw)
        both.update(make(draw))
        return both

    return dict(networks=networks)


def lags(settings, parts, *, filters=80):
    """Filters on pairs of frames that lie 2, 4, 8 ... 64 hops apart, beside the default's."""

    def pairs(draw):
        apart = {lag: bands_of(settings, parts, draw, widths=[2], filters=filters, dilation=lag) for lag in LAGS}
        return {f"lag_{lag}": network["width_2"] for lag, network in apart.items()}

    return beside(pairs, settings, parts)


class Modulus(torch.nn.Module):
    """Absolute values."""

    def forward(self, features):
        return features.abs()


def filtered_again(first, width, *, neighbours=8, seed=0):
    """Return the modulus of what a band network gives, filtered again; conv_2 is the last layer.

    first : a network of band_networks; its two layers become one convolution
    width, neighbours : frames and filters that a filter sees; neighbours lie at nearly the same frequency
    """
    sums, taps = (layer.weight for layer in first)
    filters = len(sums) // neighbours * neighbours
    conv_1 = torch.nn.Conv2d(sums.shape[1], filters, (1, taps.shape[3]), bias=False)
    conv_2 = torch.nn.Conv2d(filters, filters, (1, width), groups=filters // neighbours, bias=False)
    conv_1.weight.data = (sums * taps)[:filters]
    again = torch.randn(conv_2.weight.shape, generator=torch.Generator().manual_seed(seed))
    conv_2.weight.data = torch.nn.functional.normalize(again.flatten(1)).view_as(again)
    return torch.nn.Sequential(conv_1, Modulus(), conv_2).requires_grad_(False).eval()


def second_order(settings, parts, *, filters=160, widths=((2, 8), (4, 32))):
    """The modulus of patterns of 2 and 4 frames, filtered again over 8 and 32 frames, beside the default's."""

    def again(draw):
        first = dict(widths=[short for short, _ in widths], filters=filters, pattern_share=1.0)
        bands, seed = bands_of(settings, parts, draw, **first), settings.seed + 10**6 * draw
        return {f"again_{long}": filtered_again(bands[f"width_{short}"], long, seed=seed) for short, long in widths}

    return beside(again, settings, parts)


def coarse_to_fine(settings, parts, *, hops=(4, 2)):
    """The first draws see means of so many frames, and all later ones frames."""

    def networks(draw):
        bands = bands_of(settings, parts, draw)
        return coarser(bands, hops[draw]) if draw < len(hops) else bands

    return dict(networks=networks)


def coarser(bands, hops):
    """Return band networks that see means of so many frames."""
    means = torch.nn.AvgPool2d((1, hops))
    return torch.nn.ModuleDict({name: torch.nn.Sequential(means, *network) for name, network in bands.items()})


def coarse_beside(settings, parts, *, hops=4, filters=80):
    """Filters of 4 to 32 means of 4 frames beside the default's, to the end."""

    def coarse(draw):
        bands = coarser(bands_of(settings, parts, draw, widths=[4, 8, 16, 32], filters=filters), hops)
        return {f"coarse_{name}": network for name, network in bands.items()}

    return beside(coarse, settings, parts)


def trained(settings, parts, *, pool=3):
    """The first two blocks of musicnn's VGG, trained on tags of music, in place of half of the patterns.

    A third of the frames, every 17 ms, are about as many as in the training. The six networks of the default weigh 6
    together; half of the patterns are 40 % of the filters, so each block has a weight of 1.2.
    """
    transform, patterns = parts.analysis.transform, round(settings.pattern_share * settings.filters / 2)
    filters = settings.filters - patterns
    vgg = list(frontend.musicnn_vgg(parts.analysis.expand, sample_rate=transform.sample_rate, n_fft=transform.n_fft))
    vgg = torch.nn.Sequential(*vgg[:3], torch.nn.AvgPool2d((1, pool)), *vgg[3:])  # behind the mel bands
    style = audiocnn.STYLE_LOSSES[settings.statistic]

    def networks(draw):
        both = bands_of(settings, parts, draw, filters=filters, pattern_share=patterns / filters)
        both.update({"trained": vgg})
        return both

    terms = [term for term in parts.terms if term.loss.kind != "style"]
    terms += [(style, f"width_{width}.conv_2", filters / settings.filters) for width in settings.widths]
    return dict(networks=networks, terms=[*terms, (style, "trained.pool_2", 1.2), (style, "trained.pool_3", 1.2)])


class Seen(audiocnn.Loss):
    """Keeps the image that an objective saw last, and adds nothing to the losses."""

    kind = "seen"

    def __init__(self):
        self.images = []

    def distance(self, features, target):
        self.images[:] = [features.detach()]
        return 0 * features.sum()


def chosen_directions(settings, parts, *, share=0.5):
    """A share of the filters are differences between places of the result and of the style, in bands of frequency."""
    seen, style = Seen(), parts.images["style 1"]
    erb = torch.from_numpy(9.265 * np.log1p(parts.analysis.transform.frequencies / 228.8)).float()

    def networks(draw):
        bands = bands_of(settings, parts, draw)
        generator = torch.Generator().manual_seed(settings.seed + 10**6 * draw)
        for network in bands.values() if seen.images else ():
            places = torch.linspace(0, settings.filters - 1, round(share * settings.filters)).round().long()
            width = network[1].weight.shape[3]
            sums, taps = differences(seen.images[0], style, width, len(places), erb, generator)
            network[0].weight.data[places, :, 0, 0] = sums
            network[1].weight.data[places, 0, 0] = taps
        return bands

    return dict(networks=networks, terms=[*parts.terms, (seen, "input", 1.0)])


def differences(result, style, width, count, erb, generator):
    """Return filters of norm 1: sums [shape=(count, n_bins)] and taps [shape=(count, width)].

    Each is the nearest product of a sum and of taps to the difference between `width` frames of the result and of the
    style at random places, inside of a neighbourhood of 1 to 8 ERB; the neighbourhoods' centres lie evenly.
    """
    parts = []
    for image in (result, style):
        places = image[0, :, 0].unfold(1, width, 1)  # (n_bins, places, width)
        parts.append(places[:, torch.randint(places.shape[1], (count,), generator=generator)].transpose(0, 1))
    spread = 8 ** torch.rand(count, 1, generator=generator) / 2
    centres = torch.linspace(erb[0], erb[-1], count)[:, None]
    difference = (parts[0] - parts[1]) * torch.exp(-0.5 * ((erb - centres) / spread) ** 2)[:, :, None]
    taps = torch.linalg.eigh(difference.mT @ difference).eigenvectors[:, :, -1]  # (count, width)
    sums = (difference @ taps[:, :, None])[:, :, 0]
    return torch.nn.functional.normalize(sums), taps


# 2. Losses ---------------------------------------------------------------------------------------


@dataclass
class WeightedDistribution(audiocnn.DistributionLoss):
    """DistributionLoss whose channels are weighted by a softmax of their distances at the beginning of a draw.

    temperature : float > 0
        By which the distances, divided by their mean, are divided before the softmax; a large one: equal weights.
    """

    temperature: float = 1.0

    def target(self, *styles, blend):
        return [super().target(*styles, blend=blend)]  # the weighted one follows

    def distance(self, features, target):
        if len(target) == 1:
            target.append(self.weighted(features.detach(), target[0]))
        return super().distance(features, target[-1])

    def weighted(self, features, quantiles):
        """Return the quantiles with other scales of the channels; the mean of the weights is 1."""
        rows = audiocnn.rows_of(features)
        super().distance(features, quantiles)  # makes the quantiles for as many positions
        errors = (rows.sort(dim=1).values - quantiles.by_number[rows.shape[1]]) * quantiles.scale
        errors = errors.square().mean(dim=1)
        weights = len(rows) * torch.softmax(errors / errors.mean() / self.temperature, dim=0)
        return quantiles._replace(scale=quantiles.scale * weights.sqrt()[:, None])


def weighted_channels(settings, parts, *, temperature=1.0):
    """Channels weighted by their present distance."""
    loss = WeightedDistribution(audiocnn.STYLE_LOSSES[settings.statistic].balance, temperature)
    return dict(terms=quality.terms_of(parts, {"style": loss}))


class Places(NamedTuple):
    """What Correspondence keeps of a style: its passages, their variance, and the places of the result's passages."""

    passages: torch.Tensor
    variance: torch.Tensor
    chosen: list


@dataclass
class Correspondence(audiocnn.Loss):
    """The distance of each passage from one of the style, where the choice costs more for places that others chose.

    The places are chosen at the beginning of a draw.
    """

    hop: int = 4  # frames of a mean
    length: int = 4  # means of a passage
    penalty: float = 0.1  # of each earlier choice of a place; 1 is the mean distance of the nearest places
    after: int = 0  # draws for which the loss is 0
    draws: list = field(default_factory=list)  # the same list in all copies
    kind, compares = "correspondence", "style"

    def target(self, *styles, blend):
        self.draws.append(len(self.draws))
        passages = self.passages(styles[0])
        return Places(passages, passages.var(dim=0).mean(), [])

    def distance(self, features, target):
        if len(self.draws) <= self.after:
            return 0 * features.sum()
        passages = self.passages(features)
        if not target.chosen:
            target.chosen.append(spread_matches(torch.cdist(passages.detach(), target.passages) ** 2, self.penalty))
        return (passages - target.passages[target.chosen[0]]).square().mean() / target.variance

    def passages(self, features):
        """Return overlapping passages as rows."""
        means = torch.nn.functional.avg_pool1d(features.flatten(0, 2)[None], self.hop)[0]
        return means.unfold(1, self.length, 1).transpose(0, 1).flatten(1)


def spread_matches(distances, penalty):
    """Return a column for each row: the nearest one, where each earlier choice of a column adds the penalty.

    Rows choose in a random order. The penalty is relative to the mean of the rows' least distances.
    """
    costs = distances / distances.amin(dim=1).mean()
    chosen = torch.empty(len(costs), dtype=torch.long)
    for row in np.random.default_rng(0).permutation(len(costs)):
        chosen[row] = costs[row].argmin()
        costs[:, chosen[row]] += penalty
    return chosen


def correspondence(settings, parts, *, weight):
    """Passages like single passages of the style, in the refinement of the samples."""
    loss = Correspondence(after=-(-settings.num_steps // settings.redraw))
    return dict(terms=[*parts.terms, (loss, "input", weight)])


# 3. The tables -----------------------------------------------------------------------------------

EXPERIMENTS = {
    "the default": lambda settings, parts: {},
    "chosen directions, half of the filters": chosen_directions,
    "channels weighted by a softmax of their distance": weighted_channels,
    "the same, temperature 3": functools.partial(weighted_channels, temperature=3.0),
    "pairs of frames, 2 to 64 hops apart": lags,
    "second order": second_order,
    "trained blocks in place of half of the patterns": trained,
    "coarse to fine: means of 4, of 2, then frames": coarse_to_fine,
    "the same: means of 2, then frames": functools.partial(coarse_to_fine, hops=(2,)),
    "means of 4 frames beside the frames": coarse_beside,
    "correspondence in the refinement, weight 0.01": functools.partial(correspondence, weight=0.01),
    "correspondence in the refinement, weight 0.1": functools.partial(correspondence, weight=0.1),
}
AGAIN = (  # with a second seed
    "the default",
    "coarse to fine: means of 4, of 2, then frames",
    "the same: means of 2, then frames",
    "correspondence in the refinement, weight 0.1",
)
REPORTED = AGAIN[:2]
COLUMNS = ("distance ratio", "listener", "copy score", "core time [s]")


def make_texture(style, experiment, *, seed, seconds=quality.SECONDS, **changes):
    """Return the samples of a texture without rhythm."""
    length = int(seconds * quality.RATE)
    settings, recordings = quality.prepare(style, length=length, rhythm_weight=0.0, seed=seed, **changes)
    return pipeline.synthesise(settings, recordings, **experiment(settings, pipeline.parts(settings, recordings)))


def make_textures(texture, cases):
    """Return the figures of a texture for each experiment and seed, see COLUMNS."""
    style, other = metrics.takes(texture, quality.RATE)
    rows = []
    for name, seed in cases:
        began = time.process_time()
        made = make_texture(style, EXPERIMENTS[name], seed=seed)
        took = time.process_time() - began
        figures = quality.score_texture(made, style, other)
        rows.append([*(figures[column] for column in COLUMNS[:3]), took])
        print(texture, name, seed, rows[-1], flush=True)
    return rows


def compare(cases, textures):
    """Return the rows of a table: means over the textures."""
    rows = [f"| | seed | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    values = quality.in_parallel(make_textures, textures, [cases] * len(textures))
    for case, figures in zip(cases, np.mean(values, axis=0), strict=True):
        rows.append("| {} | {} | {:.3f} | {:.3f} | {:.3f} | {:.0f} |".format(*case, *figures))
    return rows


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("tuning", "reporting"))
    half = parser.parse_args().half
    metrics.listener_network()  # a missing package stops the script here
    if half == "tuning":
        cases = [(name, seed) for name in EXPERIMENTS for seed in ((0, 1) if name in AGAIN else (0,))]
        write_section("experiments", compare(cases, variants.TUNED))
    else:
        write_section("experiments, reporting", compare([(name, 0) for name in REPORTED], metrics.REPORTING))


if __name__ == "__main__":
    main()
