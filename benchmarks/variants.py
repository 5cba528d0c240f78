"""The effect of settings on the sound: python benchmarks/variants.py recipes | networks | features.

Recipes: the default recipe with one setting changed, on two textures. Networks: other random networks, on four
textures of those that settings are chosen on. Features: rhythm, diversity, other lengths and stereo, each on
recordings that need it. All with fewer filters and steps than the default recipe, so that only rows of one table
can be compared.
"""

import argparse
import time

import librosa
import numpy as np
import scipy.signal
import torch

import metrics
import quality
from report import ROOT, write_section

# isort: split
import audiocnn
from support import pipeline, stereo, transforms
from support.settings import Settings

RATE = quality.RATE
SMALL = dict(filters=128, num_steps=150, refine_steps=100)
TEXTURES = ("water_stream", "fire")
WIDTHS = Settings().widths
LENGTHS = ((3, 5.0), (30, 5.0), (30, None))  # seconds, segment_duration
RECIPES = {
    "the default, smaller (64 filters)": {},
    "128 filters": dict(filters=128),
    "256 filters": dict(filters=256),
    "400 steps on the samples": dict(refine_steps=400),
    "600 steps on the spectrogram": dict(num_steps=600),
    "no refinement": dict(refine_steps=0),
    "hardly any steps on the spectrogram": dict(num_steps=5, refine_steps=245),
    "start from uniform noise": dict(start="rand"),
    "Gram matrices": dict(statistic="gram"),
    "log1p": dict(power="log1p"),
    "power 0.5": dict(power=0.5),
    "n_fft 256": dict(N_FFT=256, K_HOP=64),
    "n_fft 1024": dict(N_FFT=1024, K_HOP=256),
    "widths up to 16": dict(widths=WIDTHS[:5]),
    "widths up to 128": dict(widths=(*WIDTHS, 64, 128)),
    "width 11 alone": dict(widths=(11,)),
    "dilation 4": dict(dilation=4),
    "constant-Q": dict(transform="cqt"),
}


def compare_recipes():
    """Return the rows of the table."""
    rows = ["| recipe | distance ratio | copy score | time [s] |", "|---|---|---|---|"]
    for name, changes in RECIPES.items():
        values = []
        for texture in TEXTURES:
            style, other = metrics.takes(texture, RATE)
            began = time.perf_counter()
            made = quality.default(style, length=int(quality.SECONDS * RATE), **(SMALL | {"filters": 64} | changes))
            took = time.perf_counter() - began
            ratio = metrics.statistics_distance(made, style, other, RATE)
            values.append((ratio, metrics.copy_score(made, style, RATE), took))
        rows.append("| {} | {:.2f} | {:.2f} | {:.0f} |".format(name, *np.mean(values, axis=0)))
        print(rows[-1], flush=True)
    return rows


# The same number of filters in each row: bands of `share` of them, and random filters of other kinds.
LISTENED = ("frogs", "speech", "piano")
NETWORKS = {
    "bands alone": dict(pattern_share=0.0),
    "patterns, a third of the filters": dict(pattern_share=0.33),
    "patterns, two thirds": dict(pattern_share=0.67),
    "patterns alone": dict(pattern_share=1.0),
    "two thirds, widths up to 128": dict(widths=(*WIDTHS, 64, 128), filters=144),
    "joint patterns of bins and frames in place of patterns": dict(joint=True),
}


def joint_networks(settings):
    """Return networks whose patterns are not products of bins and frames: every frame has random bins of its own."""
    frequencies = settings.make_transform().frequencies
    smooth = audiocnn.band_networks(frequencies, widths=settings.widths, filters=settings.filters // 3)
    networks = torch.nn.ModuleDict(smooth)
    for width in settings.widths:
        filters = settings.filters - settings.filters // 3
        drawn = [
            audiocnn.band_networks(frequencies, widths=[1], filters=filters, pattern_share=1.0, seed=seed + 1)
            for seed in range(width)
        ]
        frames = [each["width_1"][0].weight for each in drawn]  # (filters, n_bins, 1, 1)
        conv_1 = torch.nn.Conv2d(len(frequencies), filters, (1, width), bias=False).requires_grad_(False)
        conv_1.weight.data = torch.cat(frames, dim=3) / width**0.5
        networks[f"joint_{width}"] = torch.nn.Sequential(conv_1, torch.nn.Conv2d(filters, filters, 1, groups=filters))
        networks[f"joint_{width}"][1].weight.data.fill_(1.0)
    return networks.requires_grad_(False)


def compare_networks():
    """Return the rows of the table."""
    rows = ["| networks | distance ratio | listener | copy score |", "|---|---|---|---|"]
    for name, changes in NETWORKS.items():
        values = []
        for texture in LISTENED:
            style, other = metrics.takes(texture, RATE)
            changes = SMALL | {"filters": 192} | changes
            settings, recordings = quality.prepare(
                style, length=3 * RATE, **{name: value for name, value in changes.items() if name != "joint"}
            )
            network = joint_networks(settings) if changes.get("joint") else None
            made = pipeline.synthesise(settings, recordings, network=network)
            figures = quality.score_texture(made, style, other)
            values.append([figures[name] for name in ("distance ratio", "listener", "copy score")])
        rows.append("| {} | {:.2f} | {:.2f} | {:.2f} |".format(name, *np.mean(values, axis=0)))
        print(rows[-1], flush=True)
    return rows


def rhythm(samples):
    """Return the autocorrelation of the onset envelope, for lags of 0.1 to 2 s."""
    onsets = librosa.onset.onset_strength(y=samples, sr=RATE, hop_length=256)
    return librosa.autocorrelate(onsets - onsets.mean(), max_size=172)[9:]


def compare_rhythm():
    """Return rows: how much of the style's rhythm the result has, over rhythm_weight."""
    rows = ["| rhythm_weight | drum_loop | tabla |", "|---|---|---|"]
    styles = {
        name: transforms.load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE, duration=5.0)
        for name in ("drum_loop", "tabla")
    }
    for weight in (0.0, 0.1, 1.0, 10.0):
        correlations = []
        for style in styles.values():
            changes = dict(rhythm_weight=weight, rhythm_layers=["conv_1"] if weight else [])
            made = quality.default(style, length=len(style), **SMALL, **changes)
            correlations.append(np.corrcoef(rhythm(made), rhythm(style))[0, 1])
        rows.append("| {:g} | {:.2f} | {:.2f} |".format(weight, *correlations))
        print(rows[-1], flush=True)
    return rows


def compare_diversity():
    """Return rows: copying and distance, over diversity_weight, for two recordings with repetitions."""
    rows = ["| diversity_weight | frogs: distance ratio | copy score | birds: distance ratio | copy score |"]
    rows.append("|---|---|---|---|---|")
    for weight in (0.0, 0.1, 1.0, 10.0):
        values = []
        for texture in ("frogs", "birds"):
            style, other = metrics.takes(texture, RATE)
            changes = dict(diversity_weight=weight, diversity_layers=["conv_1"] if weight else [])
            made = quality.default(style, length=int(quality.SECONDS * RATE), **SMALL, **changes)
            values += [metrics.statistics_distance(made, style, other, RATE), metrics.copy_score(made, style, RATE)]
        rows.append("| {:g} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |".format(weight, *values))
        print(rows[-1], flush=True)
    return rows


def compare_lengths():
    """Return rows: textures longer and shorter than their style, in parts of 3 s."""
    rows = ["| texture | length | segment_duration | distance ratio of each 3 s | mean |", "|---|---|---|---|---|"]
    for texture in TEXTURES:
        style, other = metrics.takes(texture, RATE)
        for seconds, segment in LENGTHS:
            made = quality.default(style, length=seconds * RATE, segment_duration=segment, **SMALL)
            ratios = [metrics.statistics_distance(part, style, other, RATE) for part in np.split(made, seconds // 3)]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            rows.append(f"| {texture} | {seconds} s | {segment} | {each} | {np.mean(ratios):.2f} |")
            print(rows[-1], flush=True)
    return rows


def stereo_of(name):
    """Return stereo of a recording: its thirds play together, on the left, in the middle and on the right."""
    samples = transforms.load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE)[RATE // 4 : -RATE // 4]
    left, middle, right = np.split(samples[: len(samples) // 3 * 3], 3)
    late = [np.pad(part, (9, 0))[: len(part)] for part in (left, right)]  # 0.4 ms, to the other ear
    return np.stack([left + 0.7 * middle + 0.4 * late[1], 0.4 * late[0] + 0.7 * middle + 0.8 * right]) * 0.7


def compare_stereo():
    """Return rows: the distances of the four planes, and the coherence of left and right."""
    rows = ["| stereo texture | left | right | middle | side | coherence, style's |", "|---|---|---|---|---|---|"]
    for name in ("fire", "applause", "water_stream"):
        style = stereo_of(name).astype(np.float32)
        mono = quality.default(style.mean(axis=0), **SMALL)
        for kind, made in (
            ("", quality.default(style, **SMALL)),
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
    parser.add_argument("table", choices=("recipes", "networks", "features"))
    table = parser.parse_args().table
    if table != "features":
        rows = compare_recipes() if table == "recipes" else compare_networks()
    else:
        rows = []
        for compare in (compare_rhythm, compare_diversity, compare_lengths, compare_stereo):
            rows += [*compare(), ""]
    write_section(table, rows)


if __name__ == "__main__":
    main()
