"""The effect of settings on the sound: python benchmarks/variants.py TABLE, see below.

Recipes: the default with one setting changed. Networks: other random networks, and other scales of the distance of the
style. Both on four textures of those that settings are chosen on. Transfers: other losses and starts, without the loss
of pitch, on six pairs that quality.py does not report on. Diversity: weights of this loss, on all ten textures for
tuning. Features: other lengths and stereo, each on recordings that need it. Rhythm, long partials and voices have
tables of their own, see rhythm.py.
"""

import argparse
import functools
import itertools
import time

import numpy as np
import scipy.signal
import torch

import metrics
import quality
from report import ROOT, write_section

# isort: split
import audiocnn
from support.bands import band_networks
from support.desk.settings import Settings
from support.losses import FreeContentLoss
from support.sound import stereo
from support.sound.files import load_audio

RATE = quality.RATE
TUNED = ("frogs", "speech", "choir", "piano")
TEXTURES = ("water_stream", "fire")
WIDTHS = Settings().widths
LENGTHS = ((3, 5.0), (30, 5.0), (30, None))  # seconds, segment_duration
RECIPES = {
    "the default": {},
    "80 filters": dict(filters=80),
    "160 filters": dict(filters=160),
    "640 filters": dict(filters=640),
    "half the steps": dict(num_steps=30, refine_steps=30, redraw=10),
    "twice the steps": dict(num_steps=120, refine_steps=120),
    "new filters every 10 steps": dict(redraw=10),
    "the same filters to the end": dict(redraw=0),
    "the same 640 filters to the end": dict(redraw=0, filters=640),
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


class Louder(FreeContentLoss):
    """Frames that are louder than the content's are compared at the content's level too."""

    def distance(self, features, target):
        levels = features.square().sum(dim=(0, 1, 2))
        gain = ((target.levels + target.floor) / (levels + target.floor)).sqrt()
        gain = gain.clamp(1 / self.largest_gain, self.largest_gain)
        return (target.counts * (gain * features - target.features).square()).mean()


TRANSFERS = {
    "the default": {},
    "content of the same level": dict(content_level="same"),
    "frames quieter by up to 3 times": dict(losses={"content": FreeContentLoss(largest_gain=3)}),
    "frames quieter by up to 10 times": dict(losses={"content": FreeContentLoss(largest_gain=10)}),
    "frames quieter or louder by up to 3 times": dict(losses={"content": Louder(largest_gain=3)}),
    "every channel divided by the geometric mean of its own and the mean variance": balanced(0.5),
}
PAIRS = (
    ("piano", "frogs"),
    ("choir", "drum_loop"),
    ("birdsong", "fire"),
    ("guitar", "steam_engine"),
    ("laughter", "vinyl_crackle"),
    ("guitar", "tabla"),
)
WEIGHTS, LEVELS = (60.0, 200.0), (0.8, 0.75, 0.7)


def make_transfers(content, style):
    """Return the curve of a pair for each variant: points (content kept, style distance, likeness to the style)."""
    sounds = [quality.excerpt(name) for name in (content, style)]
    curves = []
    for changes in TRANSFERS.values():
        points = []
        for weight in WEIGHTS:
            made = quality.default(sounds[1], sounds[0], content_weight=weight, pitch_weight=0.0, **changes)
            figures = quality.score_transfer(made, *sounds)
            kept = (figures["rhythm kept"] + figures["pitch kept"]) / 2
            points.append((kept, figures["distance to the style"], figures["like the style"]))
        curves.append(points)
        print(content, style, changes, points, flush=True)
    return curves


def compare_transfers(curves):
    """Return rows: style distance and likeness against the default's, where both keep as much of the content."""
    titles = [f"{name} at {level}" for level in LEVELS for name in ("style distance", "likeness", "pairs")]
    rows = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for number, name in enumerate(TRANSFERS):
        cells = []
        for level in LEVELS:
            here, base = (np.array([quality.at_level(curve[n], level) for curve in curves]) for n in (number, 0))
            both = np.isfinite(here[:, 0]) & np.isfinite(base[:, 0])
            if both.any():
                farther, more_alike = (here / base)[both, 0] - 1, (here - base)[both, 1]
                cells += [f"{farther.mean():+.0%} (at most {farther.max():+.0%})", f"{more_alike.mean():+.2f}"]
            else:
                cells += ["-", "-"]
            cells.append(str(both.sum()))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def compare_lengths():
    """Return rows: textures longer and shorter than their style, in parts of 3 s."""
    rows = ["| texture | length | segment_duration | distance ratio of each 3 s | mean |", "|---|---|---|---|---|"]
    for texture in TEXTURES:
        style, other = metrics.takes(texture, RATE)
        for seconds, segment in LENGTHS:
            made = quality.default(style, length=seconds * RATE, segment_duration=segment)
            ratios = [metrics.statistics_distance(part, style, other, RATE) for part in np.split(made, seconds // 3)]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            rows.append(f"| {texture} | {seconds} s | {segment} | {each} | {np.mean(ratios):.2f} |")
            print(rows[-1], flush=True)
    return rows


def stereo_of(name):
    """Return stereo of a recording: its thirds play together, on the left, in the middle and on the right."""
    samples = load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE)[RATE // 4 : -RATE // 4]
    left, middle, right = np.split(samples[: len(samples) // 3 * 3], 3)
    late = [np.pad(part, (9, 0))[: len(part)] for part in (left, right)]  # 0.4 ms, to the other ear
    return np.stack([left + 0.7 * middle + 0.4 * late[1], 0.4 * late[0] + 0.7 * middle + 0.8 * right]) * 0.7


def compare_stereo():
    """Return rows: the distances of the four planes, and the coherence of left and right."""
    rows = ["| stereo texture | left | right | middle | side | coherence, style's |", "|---|---|---|---|---|---|"]
    for name in ("fire", "applause", "water_stream"):
        style = stereo_of(name).astype(np.float32)
        mono = quality.default(style.mean(axis=0))
        for kind, made in (
            ("", quality.default(style)),
            (", widened only", stereo.widen(mono, like=style)),
        ):
            planes = zip(stereo.planes(made), stereo.planes(style), strict=True)
            values = [metrics.difference(*pair, RATE) for pair in planes]
            values += [scipy.signal.coherence(*both, fs=RATE, nperseg=512)[1].mean() ** 0.5 for both in (made, style)]
            rows.append("| {}{} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f}, {:.2f} |".format(name, kind, *values))
            print(rows[-1], flush=True)
    return rows


def main():
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("recipes", "networks", "diversity", "transfers", "features"))
    table = parser.parse_args().table
    metrics.listener_network()  # a missing package stops the script here
    if table == "features":
        compared = [compare() for compare in (compare_lengths, compare_stereo)]
        write_section("features", itertools.chain(*([*rows, ""] for rows in compared)))
    elif table == "transfers":
        curves = quality.in_parallel(make_transfers, *zip(*PAIRS, strict=True))
        write_section("variants", compare_transfers(curves))
    elif table == "diversity":
        write_section(table, compare_textures(DIVERSITY, metrics.TUNING))
    else:
        write_section(table, compare_textures(RECIPES if table == "recipes" else NETWORKS))


if __name__ == "__main__":
    main()
