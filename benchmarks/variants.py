"""The effect of settings on the sound: python benchmarks/variants.py TABLE, see below.

Recipes: the default with one setting changed. Networks: other random networks, and other scales of the distance of the
style. Both on four textures of those that settings are chosen on. Diversity: weights of this loss, on all ten textures
for tuning. Rhythm, long partials and voices have tables of their own, see rhythm.py.
"""

import argparse
import functools
import time

import numpy as np
import torch

import metrics
import quality
from report import write_section

# isort: split
import audiocnn
from support.bands import band_networks
from support.desk.settings import Settings

RATE = quality.RATE
TUNED = ("frogs", "speech", "choir", "piano")
WIDTHS = Settings().widths
RECIPES = {
    "the default": {},
    "80 filters": dict(filters=80),
    "120 filters": dict(filters=120),
    "320 filters": dict(filters=320),
    "320 filters, new ones every 20 steps": dict(filters=320, redraw=20),
    "80 filters, new ones every 3 steps": dict(filters=80, redraw=3),
    "new filters every 10 steps": dict(redraw=10),
    "new filters every 20 steps": dict(redraw=20),
    "the same filters to the end": dict(redraw=0),
    "50 + 50 steps": dict(num_steps=50, refine_steps=50),
    "half the steps": dict(num_steps=30, refine_steps=30),
    "twice the steps": dict(num_steps=120, refine_steps=120),
    "200 iterations of the reconstruction": dict(phase_iterations=200),
    "no preconditioner": dict(precondition=False),
    "no refinement": dict(refine_steps=0),
    "no steps on the spectrogram": dict(num_steps=0, refine_steps=120),
    "start from uniform noise": dict(start="rand"),
    "Gram matrices": dict(statistic="gram", style_weight=1e3),
    "log1p": dict(power="log1p"),
    "power 0.5": dict(power=0.5),
    "n_fft 256": dict(N_FFT=256, K_HOP=64),
    "n_fft 1024": dict(N_FFT=1024, K_HOP=256),
    "constant-Q": dict(transform="cqt"),
}
DIVERSITY = {
    "the default": {},
    "no diversity loss": dict(diversity_weight=0),
    "diversity_weight 10": dict(diversity_weight=10),
    "diversity_weight 1000": dict(diversity_weight=1000),
    "no diversity loss, widths up to 12": dict(diversity_weight=0, widths=(1, 2, 4, 8, 12)),
}


def make_textures(texture, variants):
    """Return the figures of a texture for each variant: distance ratio, listener, copy score, core time [s].

    Without rhythm, which has a table of its own.
    """
    style, other = metrics.takes(texture, RATE)
    rows = []
    for changes in variants:
        began = time.process_time()
        made = quality.default(style, length=int(quality.SECONDS * RATE), rhythm_weight=0.0, **changes)
        took = time.process_time() - began
        figures = quality.score_texture(made, style, other)
        rows.append([*(figures[name] for name in ("distance ratio", "listener", "copy score")), took])
        print(texture, changes, rows[-1], flush=True)
    return rows


def dilated_networks(settings, seed):
    """Return band networks whose filters skip every second frame."""
    bands = dict(widths=settings.widths, filters=settings.filters, pattern_share=settings.pattern_share)
    frequencies = settings.make_transform().frequencies
    return band_networks(frequencies, dilation=2, seed=seed, **bands).to(settings.device)


def own_networks(settings, seed, *, lowest=1.0, highest=8.0, gain=1.0, joint=False, glide=0.0):
    """Return networks like band_networks, whose patterns have other kinds.

    Parameters
    ----------
    lowest, highest : float [ERB]
        Range of the widths of the patterns.
    gain : float
        Of the patterns, relative to the bands.
    joint : bool
        True: every frame of a filter has a random pattern of its own.
    glide : float [ERB per frame]
        Patterns move up or down by up to this much from frame to frame: filters see glides apart by direction.
    """
    frequencies = settings.make_transform().frequencies
    n_patterns = round(settings.pattern_share * settings.filters)
    common = dict(widths=settings.widths, seed=seed)
    bands = band_networks(frequencies, filters=settings.filters - n_patterns, **common)
    networks, generator = torch.nn.ModuleDict(), torch.Generator().manual_seed(seed + 1)
    for width in settings.widths:
        frames = patterns(frequencies, n_patterns, width, generator, lowest, highest, joint, glide)
        patterned = torch.nn.functional.normalize(frames.flatten(1)).view_as(frames)[:, :, None] * gain
        smooth, taps = bands[f"width_{width}"][0].weight, bands[f"width_{width}"][1].weight
        conv = torch.nn.Conv2d(len(frequencies), settings.filters, (1, width), bias=False)
        conv.weight.data = torch.cat([smooth * taps, patterned])
        same = torch.nn.Conv2d(settings.filters, settings.filters, 1, groups=settings.filters, bias=False)
        same.weight.data.fill_(1.0)
        networks[f"width_{width}"] = torch.nn.Sequential(conv, same)
    return networks.requires_grad_(False).eval().to(settings.device)


def patterns(frequencies, count, width, generator, lowest, highest, joint, glide):
    """Return random patterns of bins and frames [shape=(count, n_bins, width)], see own_networks."""
    erb = torch.from_numpy(9.265 * np.log1p(frequencies / 228.8)).float()
    spread = lowest * (highest / lowest) ** torch.rand(count, 1, 1, generator=generator) / 2
    centre = torch.linspace(erb[0] - 0.5, erb[-1] + 0.5, count)[:, None, None]
    speed = glide * (2 * torch.rand(count, 1, 1, generator=generator) - 1)
    moved = erb[:, None] - centre - speed * (torch.arange(width) - (width - 1) / 2)  # (count, n_bins, width)
    noise = torch.randn(count, len(erb), width if joint or glide else 1, generator=generator)
    taps = 1 if joint else torch.randn(count, 1, width, generator=generator)
    return noise * taps * torch.exp(-0.5 * (moved / spread) ** 2)


def own(**values):
    """Return the change to own_networks with these values."""
    return dict(networks=functools.partial(own_networks, **values))


def balanced(balance):
    """Return the change to distributions whose channels are divided by their own variance to a power."""
    return dict(losses={"style": audiocnn.DistributionLoss(balance=balance)})


NETWORKS = {
    "the default": {},
    "bands alone": dict(pattern_share=0.0),
    "patterns, half of the filters": dict(pattern_share=0.5),
    "patterns alone": dict(pattern_share=1.0),
    "widths up to 8": dict(widths=WIDTHS[:4]),
    "widths up to 12": dict(widths=(*WIDTHS[:4], 12)),
    "widths up to 16": dict(widths=WIDTHS[:5]),
    "widths up to 64": dict(widths=(*WIDTHS, 64)),
    "widths up to 64, 137 filters": dict(widths=(*WIDTHS, 64), filters=137),
    "widths 1, 3, 10, 32": dict(widths=(1, 3, 10, 32)),
    "dilation 2": dict(networks=dilated_networks),
    "patterns of 0.5 to 4 ERB": own(lowest=0.5, highest=4),
    "patterns of 2 to 16 ERB": own(lowest=2, highest=16),
    "patterns twice as strong": own(gain=2),
    "patterns half as strong": own(gain=0.5),
    "joint patterns of bins and frames": own(joint=True),
    "gliding patterns": own(glide=4.0),
    "every channel divided by the mean variance": dict(statistic="distribution"),
    "by the geometric mean of its own and the mean variance": balanced(0.5),
    "by its own variance, to the power 0.8, and the mean variance": balanced(0.8),
    "by its own variance": balanced(1.0),
}


def compare_textures(variants, textures=TUNED):
    """Return the rows of a table, for a dict from name to changed settings: means over the textures."""
    rows = ["| | distance ratio | listener | copy score | core time [s] |", "|---|---|---|---|---|"]
    values = quality.in_parallel(make_textures, textures, [list(variants.values())] * len(textures))
    for name, figures in zip(variants, np.mean(values, axis=0), strict=True):
        rows.append("| {} | {:.2f} | {:.2f} | {:.2f} | {:.0f} |".format(name, *figures))
    return rows


def main():
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("recipes", "networks", "diversity"))
    table = parser.parse_args().table
    metrics.listener_network()  # a missing package stops the script here
    if table == "diversity":
        write_section(table, compare_textures(DIVERSITY, metrics.TUNING))
    else:
        write_section(table, compare_textures(RECIPES if table == "recipes" else NETWORKS))


if __name__ == "__main__":
    main()
