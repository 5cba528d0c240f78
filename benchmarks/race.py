"""Quality over seconds: what python benchmarks/speed.py --default measures.

Each method makes the same textures and transfers several times, with more and more work. Only the computing from
samples to samples counts, in all threads of one process; measuring the quality does not count.

Sources
  Antognini, Hoffman, Weiss 2019, arXiv:1806.08002: six separate random networks, 512 filters each, Gram matrices
"""

import functools
import time
from unittest import mock

import librosa
import matplotlib.pyplot as plt
import numpy as np
import torch

import metrics
import quality
from report import ROOT, SEEDED, best_times

# isort: split
import audiocnn
from support import pipeline, transforms
from support.settings import Settings

RATE = quality.RATE
TEXTURES = ("water_stream", "birds", "babble", "singing")
TRANSFERS = (("piano", "water_stream"), ("rooster", "frogs"))
DRAFTS = {"80 filters, 5 + 5 steps": dict(filters=80, num_steps=5, refine_steps=5)}
DRAFTS |= {"80 filters, 10 + 10 steps": dict(filters=80, num_steps=10, refine_steps=10)}
DRAFTS |= {"160 filters, 20 + 20 steps": dict(filters=160, num_steps=20, refine_steps=20, redraw=10)}
DRAFTS |= {"320 filters, 30 + 30 steps": dict(num_steps=30, refine_steps=30, redraw=15)}
DRAFTS |= {"the default (320 filters, 60 + 60 steps)": {}}
# The default before new filters, the preconditioner, balanced channels, the diversity loss and the free level of the
# content; all are switched off.
BEFORE = dict(widths=(1, 2, 4, 8, 16, 32), filters=640, pattern_share=0.67, redraw=0)
BEFORE |= dict(statistic="distribution", content_level="same", diversity_weight=0)
EARLIER = {"300 + 150 steps": BEFORE | dict(num_steps=300, refine_steps=150)}
CHECKPOINTS = (10, 25, 50, 100, 200)
COLUMNS = ("distance ratio", "listener", "copy score")
TRANSFER_COLUMNS = ("distance to the style", "like the style", "rhythm kept", "pitch kept", "copy score")


# 1. Methods: functions that yield (title, seconds, samples) ---------------------------------------


def default(style, content=None, *, points=DRAFTS, precondition=True):
    """Make the sound by the default, with other settings for each point."""
    replaced = {"precondition_of": pipeline.precondition_of if precondition else lambda *_: torch.clone}
    length = {} if content is not None else dict(length=int(quality.SECONDS * RATE))
    for title, changes in points.items():
        with mock.patch.multiple("support.pipeline", **replaced):
            began = time.perf_counter()
            samples = quality.default(style, content, **length, **changes)
            yield title, time.perf_counter() - began, samples


def gatys(style, content=None):
    """Make the sound by the Gatys recipe of quality.baseline, and stop at each checkpoint."""
    filters = dict(l1channels=1024 if content is not None else 4096, l2channels=256, l3channels=128, n_classes=2)
    weights = dict(style_weight=1e4) if content is not None else {}
    length = {} if content is not None else dict(length=int(quality.SECONDS * RATE))
    changes = dict(recipe="gatys", param_pkl=None, model_path=None)
    yield from checkpoints(*quality.prepare(style, content, **length, **changes, **filters, **weights))


def antognini(style, content=None, *, filters=512, widths=(2, 4, 8, 16, 64, 128)):
    """Make a texture by six separate random networks with Gram matrices; there are no transfers."""
    if content is not None:
        return
    changes = dict(use_style_net=True, recipe="gatys", param_pkl=None, model_path=None, N_FFT=512, K_HOP=128)
    settings, recordings = quality.prepare(style, length=int(quality.SECONDS * RATE), **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        chains = [
            torch.nn.Sequential(torch.nn.Conv2d(257, filters, (1, width), padding="same"), torch.nn.ReLU())
            for width in widths
        ]
    network = torch.nn.ModuleDict({f"width_{width}": chain for width, chain in zip(widths, chains, strict=True)})
    yield from checkpoints(settings, recordings, network=network, steps=CHECKPOINTS[:3])


def checkpoints(settings, recordings, *, network=None, steps=CHECKPOINTS):
    """Optimise a spectrogram; at each checkpoint, find the phase by librosa's Griffin-Lim."""
    began = time.perf_counter()
    spectrograms, images = pipeline.make_images(settings, recordings)
    network = pipeline.make_network(settings, images, seed=0) if network is None else network
    length = pipeline.result_length(settings, recordings)
    samples = pipeline.start_samples(settings, recordings["style 1"], length=length, seed=0)
    image = pipeline.start_image(settings, samples, images, seed=0)
    model = pipeline.insert_losses(settings, images, network, pipeline.make_terms(settings))
    objective = functools.partial(audiocnn.evaluate, model=model, segment=settings.segment)
    loudest, spent = max(values.max() for values in spectrograms.values()), 0.0
    for step, _ in enumerate(audiocnn.optimise(image, objective, num_steps=steps[-1]), start=1):
        if step not in steps:
            continue
        magnitude = transforms.expand(transforms.from_image(image, "freq").clip(0, loudest), **settings.compression)
        frames = dict(n_fft=settings.N_FFT, hop_length=settings.K_HOP, length=length)
        stopped = time.perf_counter()
        made = librosa.griffinlim(magnitude, n_iter=100, **SEEDED, **frames)
        yield f"{step} steps", time.perf_counter() - began - spent, made
        spent += time.perf_counter() - stopped  # the phase of this checkpoint and its measurement count only once


METHODS = {
    "default": default,
    "earlier default": functools.partial(default, points=EARLIER, precondition=False),
    "Gatys recipe": gatys,
    "Antognini 2019": antognini,
}


# 2. Tables and the picture -----------------------------------------------------------------------


def race():
    """Return the rows of all tables; save the picture."""
    warm_up = default(metrics.takes("rain", RATE)[0], points={"": dict(num_steps=1, refine_steps=1, filters=8)})
    list(warm_up)  # compiles what the first run would compile
    textures = {method: [] for method in METHODS}
    for name in TEXTURES:
        style, other = metrics.takes(name, RATE)
        score = functools.partial(quality.score_texture, style=style, other=other)
        for method, points in _points(style, None, score, COLUMNS).items():
            textures[method].append(points)
    transfers = {method: [] for method in METHODS}
    for pair in TRANSFERS:
        content, style = (quality.excerpt(name) for name in pair)
        score = functools.partial(quality.score_transfer, content=content, style=style)
        for method, points in _points(style, content, score, TRANSFER_COLUMNS).items():
            transfers[method].append(points)
    textures, transfers = (
        {method: _mean(each) for method, each in kind.items() if each[0]} for kind in (textures, transfers)
    )
    draw(textures, transfers)
    return [*_rows(textures, COLUMNS), "", *reach(textures), "", *_rows(transfers, TRANSFER_COLUMNS)]


def _points(style, content, score, columns):
    found = {}
    for method, function in METHODS.items():
        found[method] = {}
        for title, seconds, samples in function(style, content):
            figures = score(samples)
            found[method][title] = [seconds, *(figures[column] for column in columns)]
            print(method, title, found[method][title], flush=True)
    return found


def _mean(tables):  # over the sounds: {title: [seconds, figures]}
    return {title: np.mean([table[title] for table in tables], axis=0) for title in tables[0]}


def _rows(methods, columns):
    rows = [f"| method | work | seconds | {' | '.join(columns)} |", "|---" * (len(columns) + 3) + "|"]
    for method, points in methods.items():
        for title, (seconds, *figures) in points.items():
            cells = " | ".join(f"{value:.2f}" for value in figures)
            rows.append(f"| {method} | {title} | {seconds:.1f} | {cells} |")
    return rows


def reach(textures):
    """Return rows: the seconds in which each method reaches the distance ratio, or the listener, of another."""
    best = {
        "the Gatys recipe at its best": (
            min(point[1] for point in textures["Gatys recipe"].values()),
            max(point[2] for point in textures["Gatys recipe"].values()),
        ),
        "the earlier default": tuple(list(textures["earlier default"].values())[-1][1:3]),
        "the default": tuple(textures["default"]["the default (320 filters, 60 + 60 steps)"][1:3]),
    }
    rows = [f"| seconds to reach | {' | '.join(textures)} |", "|---" * (len(textures) + 1) + "|"]
    for name, (distance, likeness) in best.items():
        for what, reached in (
            (f"distance ratio {distance:.2f}", lambda point, limit=distance: point[1] <= limit + 0.005),
            (f"listener {likeness:.2f}", lambda point, limit=likeness: point[2] >= limit - 0.005),
        ):
            firsts = [[point[0] for point in points.values() if reached(point)] for points in textures.values()]
            cells = [f"{min(times):.1f}" if times else "-" for times in firsts]
            rows.append(f"| {name}: {what} | {' | '.join(cells)} |")
    return rows


def draw(textures, transfers):
    """Save the curves: distance ratio and listener of textures, style distance of transfers, over seconds."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    panels = ((textures, 1, "textures: distance ratio"), (textures, 2, "textures: listener"))
    for ax, (methods, column, title) in zip(axes, (*panels, (transfers, 1, "transfers: style distance")), strict=True):
        for color, method in enumerate(METHODS):
            points = np.array(list(methods.get(method, {}).values()))
            if len(points):
                ax.plot(points[:, 0], points[:, column], f"C{color}o-", label=method)
        ax.set(xscale="log", xlabel="seconds of computing", title=title)
    axes[0].legend()
    figure.savefig(ROOT / "benchmarks/quality_over_seconds.png", dpi=70)
    plt.close(figure)


def limit(gflops):
    """Return rows: what an evaluation of the default must cost, and what it costs, for 5 s of sound.

    The limit has the products of conv_1 forward and back at the speed of the machine's matrix product, and NumPy's
    sort of as many numbers; in the refinement also the Fourier transforms of the frames, forward and back.
    """
    settings = Settings(device="cpu")
    style = np.resize(metrics.takes("fire", RATE)[0], int(quality.SECONDS * RATE))
    spectrograms, images = pipeline.make_images(settings, {"style 1": style})
    network = pipeline.make_network(settings, images, seed=0)
    model = pipeline.insert_losses(settings, images, network, pipeline.make_terms(settings))
    n_bins, n_frames = spectrograms["style 1"].shape
    rows_of_all = settings.filters * len(settings.widths)
    products = 4 * rows_of_all * (n_bins + np.mean(settings.widths)) * n_frames / gflops / 1e9
    values, frames = np.random.default_rng(0).random((rows_of_all, n_frames)), torch.rand(n_frames, settings.N_FFT)
    (sorting,) = best_times([lambda: values.copy().sort(axis=1)])
    (fourier,) = best_times([lambda: torch.fft.irfft(torch.fft.rfft(frames))])
    samples = torch.from_numpy(audiocnn.matched_noise(style, length=len(style)))
    view = pipeline.view_of(settings, len(style))
    change = pipeline.precondition_of(settings, samples)

    def refinement():
        moved = samples + change(torch.zeros_like(samples))
        return change(audiocnn.evaluate(moved, model, segment=settings.segment, view=view)[1])

    def with_pytorchs_sort(evaluate):
        with mock.patch("support.fast.sorted_rows", lambda rows: rows.sort(dim=1)):
            return evaluate()

    noisy = images["style 1"] + 0.1 * torch.rand_like(images["style 1"])
    steps = [functools.partial(audiocnn.evaluate, noisy, model, segment=settings.segment), refinement]
    plain = best_times([functools.partial(with_pytorchs_sort, evaluate) for evaluate in steps])
    titles = ("products", "sorting", "Fourier", "limit", "here", "with PyTorch's sort")
    rows = [f"| evaluation | {' | '.join(f'{title} [s]' for title in titles)} | here / limit |", "|---" * 8 + "|"]
    # The preconditioner transforms forward and back, and so does its gradient; the view and its gradient once more.
    costs = ((products, sorting, 0.0), (products, sorting, 3 * fourier))
    for name, parts, *times in zip(("spectrogram", "samples"), costs, best_times(steps), plain, strict=True):
        cells, here = " | ".join(f"{part:.4f}" for part in (*parts, sum(parts), *times)), times[0]
        rows.append(f"| {name} | {cells} | {here / sum(parts):.1f} |")
    return rows
