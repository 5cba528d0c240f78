"""How good the sound is: python benchmarks/quality.py textures | transfers | nearest.

Textures: for every texture of samples/, 5 s made from one take of at most 5 s, by the common recipe and
by the notebooks' default, beside another take of the recording and noise with the right spectrum.
Transfers: content kept against style taken, over the weight of the content or of the style.
Nearest: the common recipe with some steps towards the nearest features first.
"""

import argparse
import json
import time

import librosa
import numpy as np
import torch

import metrics
from phase import ROOT, audiocnn
from report import write_section

RATE, SECONDS = 22050, 5.0
NOTEBOOKS = {"stft": "neural_style_audio_pretrained.ipynb", "cqt": "neural_style_audio_cqt.ipynb"}
PAIRS = (
    ("speech", "tabla"),
    ("piano", "water_stream"),
    ("orchestra_1936", "fire"),
    ("rooster", "frogs"),
    ("speech", "water_stream"),
    ("orchestra_1936", "tabla"),
)
CONTENT_WEIGHTS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
LEVELS = (0.8, 0.7, 0.6, 0.5, 0.4)  # content kept at which the curves are compared


def notebook_settings(transform="stft"):
    """Return the settings of a notebook, the default for textures and for transfers."""
    cells = json.loads((ROOT / NOTEBOOKS[transform]).read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    parameters = next(source for source in sources if source.startswith("STYLE_FILENAME"))
    recipe = next(source for source in sources if source.startswith("is_transfer"))
    found = {}
    for kind, content in (("texture", None), ("transfer", "a file")):
        found[kind] = {}
        exec(parameters, found[kind])
        found[kind]["CONTENT_FILENAME"] = content
        exec(recipe, found[kind])
    return found


def make_transform(name, settings, sample_rate):
    """Return the transform of a notebook's settings."""
    common = dict(sample_rate=sample_rate, hop_length=settings["K_HOP"], n_iter=settings["phase_iterations"])
    if name == "stft":
        return audiocnn.STFT(**common, n_fft=settings["N_FFT"])
    grid = dict(fmin=settings["lowest_frequency"], n_octaves=settings["n_octaves"])
    return audiocnn.CQT(**common, **grid, bins_per_octave=settings["bins_per_octave"])


def default(style, content=None, *, length=None, transform="stft", sample_rate=RATE, **changes):
    """Return the samples that the notebook would make, [shape=(2, length)] if the style's shape is (2, n)."""
    settings = notebook_settings(transform)["texture" if content is None else "transfer"] | changes
    transform = make_transform(transform, settings, sample_rate)
    stereo = style.ndim == 2
    sounds = {name: y for name, y in (("style", style), ("content", content)) if y is not None}
    middles = {name: y.mean(axis=0) if stereo else y for name, y in sounds.items()}
    length = len(middles["content"]) if length is None else length
    power = None if settings["power"] == "log1p" else settings["power"]

    def image(magnitude):
        return audiocnn.to_image(audiocnn.compress(magnitude, use01scale=True, power=power), "freq")

    def looking(length):
        analyse = transform.analyser(length)
        return lambda samples: image(analyse(audiocnn.stereo_planes(samples) if stereo else samples))

    bands = dict(widths=settings["widths"], filters=settings["filters"])
    networks = audiocnn.band_networks(
        transform.frequencies, **bands, dilation=settings["dilation"], seed=settings["seed"]
    )

    def with_losses(images):
        kinds = ("style", "content", "rhythm", "diversity")
        layers = [settings[name] for name in ("style_layers_default", "content_layers_default")]
        layers += [settings["rhythm_layers"], settings["diversity_layers"]]
        layers = {f"{kind}_layers": names for kind, names in zip(kinds, layers, strict=True)}
        layers |= {} if "content" in images else {"content_layers": []}
        return audiocnn.insert_losses(networks, **images, **layers, statistic=settings["statistic"])

    images = {name: image(transform.magnitude(y)) for name, y in middles.items()}
    model = with_losses(images)
    noise = image(transform.magnitude(audiocnn.matched_noise(middles["style"], length=length)))
    found = audiocnn.start_image(settings["start"], like=noise, noise=noise, content=images.get("content"))
    weights = {name: settings[name] for name in settings if name.endswith("_weight") or name == "history_size"}
    segment = settings["segment_duration"]
    weights["segment"] = segment and round(segment * sample_rate / settings["K_HOP"])
    for _ in audiocnn.optimise(found, model, **weights, num_steps=settings["num_steps"]):
        pass
    found = audiocnn.from_image(found, "freq").clip(0, max(float(values.max()) for values in images.values()))
    samples = transform.samples(audiocnn.expand(found, use01scale=True, power=power), length=length)
    if stereo:
        samples = audiocnn.widen(samples, like=sounds.get("content", style))
        model = with_losses({name: looking(y.shape[1])(torch.from_numpy(y)) for name, y in sounds.items()})
    samples = torch.from_numpy(samples)
    for _ in audiocnn.optimise(samples, model, **weights, num_steps=settings["refine_steps"], view=looking(length)):
        pass
    return samples.numpy()


def common(style, content=None, *, length=None, style_weight=1e9, filters=4096, steps=200, nearest=0):
    """Return what the common recipe makes: one random layer, Gram matrices of log1p features, Griffin-Lim."""
    transform = audiocnn.STFT(sample_rate=RATE, n_fft=1024, hop_length=256)
    style, content = (
        None if y is None else audiocnn.to_image(audiocnn.compress(transform.magnitude(y), use01scale=True), "freq")
        for y in (style, content)
    )
    length = 256 * (content.shape[3] - 1) if length is None else length
    parameters = dict(l1channels=filters, l2channels=256, l3channels=128, kernelsize=11, n_classes=50)
    parameters |= dict(orientation="freq", in_channels=513, in_height=1, in_width=style.shape[3])
    model = audiocnn.insert_losses(
        audiocnn.build_network(parameters),
        style=style,
        style_layers=["relu_1"],
        content=content,
        content_layers=[] if content is None else ["relu_3"],
    )
    like = style.new_empty(1, 513, 1, 1 + length // 256)
    image = audiocnn.start_image("rand" if content is None else "content", like=like, content=content)
    weights = dict(style_weight=style_weight, content_weight=1.0, reg_weight=1e-3)
    for _ in audiocnn.optimise(image, model, **weights, num_steps=steps, nearest_steps=nearest):
        pass
    magnitude = audiocnn.expand(audiocnn.from_image(image, "freq"), use01scale=True)
    return librosa.griffinlim(magnitude, n_iter=100, hop_length=256, n_fft=1024, length=length)


def compare_textures():
    """Return the rows of the table, and a dict of the sounds."""
    names = {"common recipe": common, "default": default}
    rows = ["| texture | what | distance ratio | copy score | spectrum [dB] | time [s] |", "|---|---|---|---|---|---|"]
    scores, sounds = {}, {}
    for texture in metrics.TEXTURES:
        style, other = metrics.takes(texture, RATE)
        made = {"another take": (other, None), "matched noise": (metrics.matched_noise(style), None)}
        for name, function in names.items():
            began = time.perf_counter()
            made[name] = function(style, length=int(SECONDS * RATE)), time.perf_counter() - began
        sounds[texture] = {"style": style} | {name: samples for name, (samples, _) in made.items()}
        for name, (samples, seconds) in made.items():
            values = (
                metrics.statistics_distance(samples, style, other, RATE),
                metrics.copy_score(samples, style, RATE),
                metrics.log_spectral_distance(samples, style, RATE),
            )
            scores.setdefault(name, []).append((*values, seconds or 0))
            rows.append("| {} | {} | {:.2f} | {:.2f} | {:.1f} | {} |".format(texture, name, *values, _time(seconds)))
            print(rows[-1], flush=True)
    for name, values in scores.items():
        means = np.mean(values, axis=0)
        cells = [f"**{value:{form}}**" for value, form in zip(means[:3], (".2f", ".2f", ".1f"), strict=True)]
        rows.append(f"| **mean** | {name} | {' | '.join(cells)} | {_time(means[3])} |")
    return rows, sounds


def _time(seconds):
    return f"{seconds:.0f}" if seconds else ""


def excerpt(name):
    """Return 5 s of a sample from 0.25 s on, or what there is."""
    return audiocnn.load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE, offset=0.25, duration=SECONDS)


def distance_at(curve, level):
    """Return the style distance where a curve of (kept, distance) passes a level of content kept, or nan."""
    kept, distances = np.array(sorted(curve)).T
    return float(np.interp(level, kept, distances, left=np.nan, right=np.nan))


def compare_transfers():
    """Return the rows of the tables."""
    quick = dict(filters=128, num_steps=150, refine_steps=60)
    recipes = {
        "common": (common, "style_weight", (1e2, 1e4, 1e6, 1e8), dict(filters=1024)),
        "default": (default, "content_weight", CONTENT_WEIGHTS, quick),
    }
    rows = ["| content, style | recipe | weight | distance to the style | rhythm kept | pitch kept |"]
    rows.append("|---|---|---|---|---|---|")
    gains = {level: [] for level in LEVELS}
    points = []  # (pairs, weights and the content itself, 2): content kept, distance to the style
    for pair in PAIRS:
        content, style = (excerpt(name) for name in pair)
        curves = {}
        for name, (function, weight, values, settings) in recipes.items():
            for value in values:
                samples = function(style, content, **{weight: value}, **settings)
                kept = metrics.content_kept(samples, content, RATE)
                distance = metrics.difference(samples, style, RATE)
                curves.setdefault(name, []).append((np.mean(kept), distance))
                rows.append(
                    "| {}, {} | {} | {:g} | {:.2f} | {:.2f} | {:.2f} |".format(*pair, name, value, distance, *kept)
                )
                print(rows[-1], flush=True)
        for level in LEVELS:
            gains[level].append(1 - distance_at(curves["default"], level) / distance_at(curves["common"], level))
        points.append([*curves["default"], (1.0, metrics.difference(content, style, RATE))])
    rows += ["", "| content kept (mean of both) | style distance below the common recipe's | pairs |", "|---|---|---|"]
    for level, values in gains.items():
        values = np.array(values)[np.isfinite(values)]
        rows.append(f"| {level} | {np.mean(values):.0%} | {len(values)} |" if len(values) else f"| {level} | | 0 |")
        print(rows[-1])
    means = np.mean(points, axis=0)
    kept, distances = ((means - means[0]) / (means[-1] - means[0])).T  # from the style alone to the content itself
    rows += [
        "",
        "| content_weight | content kept | distance to the style | below a straight line |",
        "|---|---|---|---|",
    ]
    for weight, mean, below in zip((*CONTENT_WEIGHTS, "the content"), means, kept - distances, strict=True):
        rows.append("| {} | {:.2f} | {:.2f} | {:.2f} |".format(weight, *mean, below))
        print(rows[-1])
    return rows


def compare_nearest():
    """Return the rows of the table, means over three textures."""
    rows = [
        "| filters | steps | of them nearest_steps | distance ratio | copy score | time [s] |",
        "|---|---|---|---|---|---|",
    ]
    for filters, steps, nearest in ((1024, 200, 0), (1024, 200, 100), (4096, 200, 0), (4096, 60, 30), (4096, 200, 100)):
        values = []
        for texture in ("water_stream", "rain", "fire"):
            style, other = metrics.takes(texture, RATE)
            began = time.perf_counter()
            made = common(style, length=int(SECONDS * RATE), filters=filters, steps=steps, nearest=nearest)
            took = time.perf_counter() - began
            ratio = metrics.statistics_distance(made, style, other, RATE)
            values.append((ratio, metrics.copy_score(made, style, RATE), took))
        numbers = "{:.2f} | {:.2f} | {:.0f}".format(*np.mean(values, axis=0))
        rows.append(f"| {filters} | {steps} | {nearest} | {numbers} |")
        print(rows[-1], flush=True)
    return rows


def draw(sounds):
    """Save the spectrograms of three textures: style, common recipe, default."""
    transform = audiocnn.STFT(sample_rate=RATE, n_fft=512, hop_length=128)
    for texture in ("water_stream", "fire", "frogs"):
        values = {
            f"{texture}: {name}": audiocnn.compress(
                transform.magnitude(sounds[texture][name]), use01scale=True, power=0.3
            )
            for name in ("style", "common recipe", "default")
        }
        audiocnn.plot_spectrograms(values, transform).savefig(ROOT / f"benchmarks/texture_{texture}.png", dpi=60)


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("textures", "transfers", "nearest"))
    what = parser.parse_args().what
    if what == "textures":
        rows, sounds = compare_textures()
        draw(sounds)
    else:
        rows = compare_transfers() if what == "transfers" else compare_nearest()
    write_section(what, rows)


if __name__ == "__main__":
    main()
