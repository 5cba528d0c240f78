"""How good the sound is: python benchmarks/quality.py textures | transfers.

Textures: for every texture of samples/, 5 s made from one take of at most 5 s, by the Gatys recipe and
by the default recipe, beside another take of the recording and noise with the same spectrum.
Transfers: how much of the content is kept and how close the style is, over the weight of content or style.
"""

import argparse
import time

import librosa
import numpy as np

import metrics
from report import ROOT, write_section
from support import pipeline, show, transforms
from support.settings import Settings

RATE, SECONDS = 22050, 5.0
PAIRS = (
    ("speech", "tabla"),
    ("piano", "water_stream"),
    ("orchestra_1936", "fire"),
    ("rooster", "frogs"),
    ("speech", "water_stream"),
    ("orchestra_1936", "tabla"),
)
STYLE_WEIGHTS = (1e2, 1e4, 1e6, 1e8)
CONTENT_WEIGHTS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
LEVELS = (0.8, 0.7, 0.6, 0.5, 0.4)  # content kept at which the curves are compared


# 1. The two recipes ------------------------------------------------------------------------------


def prepare(style, content=None, *, length=None, sample_rate=RATE, **changes):
    """Return the settings and the recordings of a transfer, or of a texture.

    Parameters
    ----------
    style, content : np.ndarray [shape=(n,), or (2, n) in stereo]
    length : int or None [samples]
        Of a texture; None: as long as the style.
    sample_rate : int [Hz]
    changes : values of other settings
    """
    if content is None:
        recordings, source = {"style 1": style}, dict(result_duration=length and length / sample_rate)
    else:
        recordings, source = {"style 1": style, "content": content}, dict(CONTENT_FILENAME="content")
    return Settings(sample_rate=sample_rate, stereo=style.ndim == 2, **source, **changes), recordings


def default(style, content=None, *, length=None, transform="stft", sample_rate=RATE, **changes):
    """Return the samples that a notebook makes with its defaults and some changes, see prepare."""
    changes |= dict(length=length, transform=transform, sample_rate=sample_rate)
    return pipeline.synthesise(*prepare(style, content, **changes))


def baseline(style, content=None, *, length=None, style_weight=1e9, filters=4096, steps=200):
    """Return the samples that the Gatys recipe makes with random filters and librosa's Griffin-Lim."""
    network = dict(l1channels=filters, l2channels=256, l3channels=128, kernelsize=11, n_classes=50)
    changes = dict(recipe="gatys", style_weight=style_weight, num_steps=steps, param_pkl=None, model_path=None)
    settings, recordings = prepare(style, content, length=length, **changes, **network)
    spectrogram, _, _ = pipeline.optimise_spectrogram(settings, recordings)
    magnitude = transforms.expand(spectrogram, **settings.compression)
    frames = dict(n_fft=settings.N_FFT, hop_length=settings.K_HOP, length=length)
    return librosa.griffinlim(magnitude, n_iter=100, random_state=0, **frames)


# 2. Textures -------------------------------------------------------------------------------------


def compare_textures():
    """Return the rows of the table, and the sounds by texture and method."""
    rows = [
        "| texture | method | distance ratio | copy score | spectrum [dB] | time [s] |",
        "|---|---|---|---|---|---|",
    ]
    scores, sounds = {}, {}
    for texture in metrics.TEXTURES:
        style, other = metrics.takes(texture, RATE)
        made = {"another take": (other, None), "matched noise": (metrics.matched_noise(style), None)}
        for method, function in (("Gatys recipe", baseline), ("default", default)):
            began = time.perf_counter()
            made[method] = function(style, length=int(SECONDS * RATE)), time.perf_counter() - began
        sounds[texture] = {"style": style} | {method: samples for method, (samples, _) in made.items()}
        for method, (samples, seconds) in made.items():
            values = (
                metrics.statistics_distance(samples, style, other, RATE),
                metrics.copy_score(samples, style, RATE),
                metrics.log_spectral_distance(samples, style, RATE),
            )
            scores.setdefault(method, []).append((*values, seconds or 0))
            cells = texture, method, *values, _time(seconds)
            rows.append("| {} | {} | {:.2f} | {:.2f} | {:.1f} | {} |".format(*cells))
            print(rows[-1], flush=True)
    for method, values in scores.items():
        *means, seconds = np.mean(values, axis=0)
        cells = method, *means, _time(seconds)
        rows.append("| **mean** | {} | **{:.2f}** | **{:.2f}** | **{:.1f}** | {} |".format(*cells))
    return rows, sounds


def _time(seconds):
    return f"{seconds:.0f}" if seconds else ""


def draw(sounds):
    """Save the spectrograms of three textures: style, Gatys recipe, default."""
    transform = transforms.STFT(sample_rate=RATE, n_fft=512, hop_length=128)
    for texture in ("water_stream", "fire", "frogs"):
        spectrograms = {
            f"{texture}: {method}": transforms.compress(
                transform.magnitude(sounds[texture][method]), use01scale=True, power=0.3
            )
            for method in ("style", "Gatys recipe", "default")
        }
        show.plot_spectrograms(spectrograms, transform).savefig(ROOT / f"benchmarks/texture_{texture}.png", dpi=60)


# 3. Transfers ------------------------------------------------------------------------------------


def excerpt(name):
    """Return 5 s of a sample from 0.25 s on, or less where it is shorter."""
    return transforms.load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE, offset=0.25, duration=SECONDS)


def compare_transfers():
    """Return the rows of the tables."""
    quick = dict(filters=128, num_steps=150, refine_steps=60)
    recipes = {
        "gatys": (baseline, "style_weight", STYLE_WEIGHTS, dict(filters=1024)),
        "default": (default, "content_weight", CONTENT_WEIGHTS, quick),
    }
    rows = ["| content, style | recipe | weight | distance to the style | rhythm kept | pitch kept |"]
    rows.append("|---|---|---|---|---|---|")
    curves = []  # for each pair and recipe, the points (content kept, distance to the style)
    for pair in PAIRS:
        content, style = (excerpt(name) for name in pair)
        points = {"content": [(1.0, metrics.difference(content, style, RATE))]}
        for recipe, (function, name, weights, settings) in recipes.items():
            for weight in weights:
                samples = function(style, content, **{name: weight}, **settings)
                kept = metrics.content_kept(samples, content, RATE)
                distance = metrics.difference(samples, style, RATE)
                points.setdefault(recipe, []).append((np.mean(kept), distance))
                cells = *pair, recipe, weight, distance, *kept
                rows.append("| {}, {} | {} | {:g} | {:.2f} | {:.2f} | {:.2f} |".format(*cells))
                print(rows[-1], flush=True)
        curves.append(points)
    return [*rows, "", *compare_at_levels(curves), "", *compare_weights(curves)]


def compare_at_levels(curves):
    """Return the rows of the table that compares the recipes where both keep as much of the content."""
    rows = ["| content kept (mean of both) | style distance below the Gatys recipe's | pairs |", "|---|---|---|"]
    for level in LEVELS:
        gains = [1 - distance_at(points["default"], level) / distance_at(points["gatys"], level) for points in curves]
        gains = [gain for gain in gains if np.isfinite(gain)]
        rows.append(f"| {level} | {f'{np.mean(gains):.0%}' if gains else ''} | {len(gains)} |")
    return rows


def distance_at(curve, level):
    """Return the style distance where a curve of (kept, distance) passes a level of content kept, or nan."""
    kept, distances = np.array(sorted(curve)).T
    return float(np.interp(level, kept, distances, left=np.nan, right=np.nan))


def compare_weights(curves):
    """Return the rows of the table of mean results over content_weight, from the style alone to the content itself."""
    means = np.mean([points["default"] + points["content"] for points in curves], axis=0)
    kept, distances = ((means - means[0]) / (means[-1] - means[0])).T
    rows = ["| content_weight | content kept | distance to the style | below a straight line |", "|---|---|---|---|"]
    for weight, mean, below in zip((*CONTENT_WEIGHTS, "the content"), means, kept - distances, strict=True):
        rows.append("| {} | {:.2f} | {:.2f} | {:.2f} |".format(weight, *mean, below))
    return rows


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sounds", choices=("textures", "transfers"))
    kind = parser.parse_args().sounds
    if kind == "textures":
        rows, sounds = compare_textures()
        draw(sounds)
    else:
        rows = compare_transfers()
    write_section(kind, rows)


if __name__ == "__main__":
    main()
