"""Quality over seconds: what python benchmarks/speed.py --default measures.

python benchmarks/race.py draws the picture of the table in benchmarks/README.md again, without measuring.

Each method makes the same textures and transfers several times, with more and more work. Only the computing from
samples to samples counts, in seconds of one core; measuring the quality does not count.

Sources
  Antognini, Hoffman, Weiss 2019, arXiv:1806.08002: six separate random networks, 512 filters each, Gram matrices
"""

import functools
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

import metrics
import quality
from report import README, ROOT, best_times

# isort: split
import audiocnn
import mosaic
from support.start import matched_noise

RATE = quality.RATE
TEXTURES = ("water_stream", "birds", "babble", "singing")
TRANSFERS = (("piano", "water_stream"), ("rooster", "frogs"))
SHARES = {"1/8": 8, "1/4": 15, "1/2": 30, "the default:": 60, "twice": 120}  # of the default's steps
STEPS = {
    f"{share} {steps} + {steps} steps": dict(num_steps=steps, refine_steps=steps) for share, steps in SHARES.items()
}
CHECKPOINTS = (10, 25, 50, 100, 200)
COLUMNS = ("distance ratio", "listener", "copy score")
TRANSFER_COLUMNS = ("distance to the style", "like the style", "rhythm kept", "pitch kept", "copy score")


# 1. Methods: functions that yield (title, seconds, samples) ---------------------------------------


def default(style, content=None, *, points=STEPS):
    """Make the sound by the default, with other settings for each point."""
    for title, changes in points.items():
        began = time.process_time()
        samples = quality.default(style, content, **_length(content), **changes)
        yield title, time.process_time() - began, samples


def gatys(style, content=None):
    """Make the sound by the Gatys recipe of quality.baseline, and stop at each checkpoint."""
    changes = dict(filters=1024, style_weight=1e4) if content is not None else {}
    yield from checkpoints(*quality.gatys(style, content, num_steps=CHECKPOINTS[-1], **_length(content), **changes))


def antognini(style, content=None, *, filters=512, widths=(2, 4, 8, 16, 64, 128)):
    """Make a texture by six separate random networks with Gram matrices; there are no transfers."""
    if content is not None:
        return
    changes = dict(recipe="gatys", N_FFT=512, K_HOP=128, num_steps=CHECKPOINTS[2])
    settings, recordings = quality.prepare(style, **_length(content), **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        chains = [
            torch.nn.Sequential(torch.nn.Conv2d(257, filters, (1, width), padding="same"), torch.nn.ReLU())
            for width in widths
        ]
    network = torch.nn.ModuleDict({f"width_{width}": chain for width, chain in zip(widths, chains, strict=True)})
    yield from checkpoints(settings, recordings, networks=network.to(settings.device))


def mosaicing(style, content=None):
    """Make the sound of the best matching pieces of the style; of a texture, of those that match noise."""
    began = time.process_time()
    content = matched_noise(style, length=int(quality.SECONDS * RATE)) if content is None else content
    made = mosaic.mosaic(content, style, sample_rate=RATE)
    yield "50 iterations", time.process_time() - began, made


def _length(content):  # of a texture; a transfer is as long as its content
    return {} if content is not None else dict(length=int(quality.SECONDS * RATE))


def checkpoints(settings, recordings, *, networks=None):
    """Optimise a spectrogram; at each checkpoint, find the phase by librosa's Griffin-Lim."""
    began, spent = time.process_time(), 0.0
    descent = quality.Descent(settings, recordings, networks=networks)
    for step, _ in enumerate(descent.steps, start=1):
        if step in CHECKPOINTS:
            stopped = time.process_time()
            made = descent.by_librosa()
            yield f"{step} steps", time.process_time() - began - spent, made
            spent += time.process_time() - stopped  # the phase of this checkpoint and its measurement count only once


METHODS = {
    "default": default,
    "Gatys recipe": gatys,
    "Antognini 2019": antognini,
    "mosaicing": mosaicing,
}


# 2. Tables and the picture -----------------------------------------------------------------------


def race():
    """Return the rows of all tables."""
    textures, marks = zip(*quality.in_parallel(of_texture, TEXTURES), strict=True)
    transfers = quality.in_parallel(of_transfer, TRANSFERS)
    textures, marks, transfers = (_means(each) for each in (textures, marks, transfers))
    return [*_rows(textures | marks, COLUMNS), "", *reach(textures), "", *_rows(transfers, TRANSFER_COLUMNS)]


def of_texture(name):
    """Return the points of all methods for one texture, and those that mark the ends of the scale, of 0 s."""
    warm_up()
    style, other = metrics.takes(name, RATE)
    score = functools.partial(quality.score_texture, style=style, other=other)
    found, marks = _points(style, None, score, COLUMNS), {}
    for method, sound in (("another take", other), ("noise of its spectrum", metrics.matched_noise(style))):
        figures = score(sound)
        marks[method] = {"": [0.0, *(figures[column] for column in COLUMNS)]}
    return found, marks


def of_transfer(pair):
    """Return the points of all methods for one transfer."""
    warm_up()
    content, style = (quality.excerpt(name) for name in pair)
    score = functools.partial(quality.score_transfer, content=content, style=style)
    return _points(style, content, score, TRANSFER_COLUMNS)


def warm_up():
    """Compile what the first run would compile."""
    list(default(metrics.takes("rain", RATE)[0], points={"": dict(num_steps=1, refine_steps=1, filters=8)}))


def _points(style, content, score, columns):
    found = {}
    for method, function in METHODS.items():
        found[method] = {}
        for title, seconds, samples in function(style, content):
            figures = score(samples)
            found[method][title] = [seconds, *(figures[column] for column in columns)]
            print(method, title, found[method][title], flush=True)
    return found


def _means(sounds):  # over the sounds: {method: {title: [seconds, figures]}}
    methods = {method: [sound[method] for sound in sounds] for method in sounds[0] if sounds[0][method]}
    return {
        method: {title: np.mean([each[title] for each in points], axis=0) for title in points[0]}
        for method, points in methods.items()
    }


def _rows(methods, columns):
    rows = [f"| method | work | core seconds | {' | '.join(columns)} |", "|---" * (len(columns) + 3) + "|"]
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
        "the default": next(tuple(each[1:3]) for title, each in textures["default"].items() if "the default" in title),
    }
    rows = [f"| core seconds to reach | {' | '.join(textures)} |", "|---" * (len(textures) + 1) + "|"]
    for name, (distance, likeness) in best.items():
        for what, reached in (
            (f"distance ratio {distance:.2f}", lambda point, limit=distance: point[1] <= limit + 0.005),
            (f"listener {likeness:.2f}", lambda point, limit=likeness: point[2] >= limit - 0.005),
        ):
            firsts = [[point[0] for point in points.values() if reached(point)] for points in textures.values()]
            cells = [f"{min(times):.1f}" if times else "-" for times in firsts]
            rows.append(f"| {name}: {what} | {' | '.join(cells)} |")
    return rows


def draw():
    """Save README.md's picture: the listener and copying of textures, the style distance of transfers, over seconds.

    The columns of a table are the method, the work, the seconds and the figures; a method of 0 s marks a level.
    """
    section = README.read_text().partition("<!-- default: begin -->")[2].partition("<!-- default: end -->")[0]
    textures, transfers = {}, {}
    for line in section.splitlines():
        method, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        methods = {2 + len(COLUMNS): textures, 2 + len(TRANSFER_COLUMNS): transfers}.get(len(cells))
        if methods is not None and cells[1].replace(".", "").isdigit():
            methods.setdefault(method, []).append([float(cell) for cell in cells[1:]])
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    panels = (
        (textures, 2, "textures: likeness to the style"),
        (textures, 3, "textures: copying"),
    )
    for ax, (methods, column, title) in zip(
        axes, (*panels, (transfers, 1, "transfers: distance to the style")), strict=True
    ):
        for color, method in enumerate(textures):
            points = np.array(methods.get(method, np.zeros((0, 2))))
            if len(points) and points[0, 0]:
                ax.plot(points[:, 0], points[:, column], f"C{color}o-", label=method)
            elif len(points):
                ax.axhline(
                    points[0, column], color="0.6", linestyle="--" if "noise" in method else "-", label=method, zorder=0
                )
        ax.set(xscale="log", xlabel="seconds of one core, for 5 s of sound", title=title)
        ax.xaxis.set_major_formatter("{x:g}")
    axes[0].legend()
    figure.savefig(ROOT / "benchmarks/quality_over_seconds.png", dpi=80)
    plt.close(figure)


class PlainDistribution(audiocnn.DistributionLoss):
    """The same distance by PyTorch's sort, for an image as long as the style."""

    def distance(self, features, target):
        rows = audiocnn.rows_of(features)
        difference = target.scale * (rows.sort(dim=1).values - target.by_number[rows.shape[1]])
        return difference.square().sum() / rows.numel()


def limit(gflops):
    """Return rows: what an evaluation of the default must cost, and what it costs, for 5 s of sound.

    The limit has the products of conv_1 forward and back at the speed of the machine's matrix product, and NumPy's
    sort of as many numbers; in the refinement also the Fourier transforms of the frames, forward and back.
    """
    style = np.resize(metrics.takes("fire", RATE)[0], int(quality.SECONDS * RATE))
    settings, recordings = quality.prepare(style, device="cpu")
    plain = PlainDistribution(balance=audiocnn.STYLE_LOSSES[settings.statistic].balance)
    here, with_pytorchs_sort = (quality.Descent(settings, recordings, losses=each) for each in (None, {"style": plain}))
    image = here.images["style 1"]
    n_bins, n_frames = image.shape[1], image.shape[3]
    rows_of_all = settings.filters * len(settings.widths)
    products = 4 * rows_of_all * (n_bins + np.mean(settings.widths)) * n_frames / gflops / 1e9
    values, frames = np.random.default_rng(0).random((rows_of_all, n_frames)), torch.rand(n_frames, settings.N_FFT)
    (sorting,) = best_times([lambda: values.copy().sort(axis=1)])
    (fourier,) = best_times([lambda: torch.fft.irfft(torch.fft.rfft(frames))])
    noise = matched_noise(style, length=len(style))
    noisy, samples = image + 0.1 * torch.rand_like(image), torch.from_numpy(noise)
    view, change = here.analysis.view(len(style)), here.analysis.preconditioner(samples)

    def refinement(objective):
        moved = samples + change(torch.zeros_like(samples))
        return change(objective.evaluate(moved, through=view)[1])

    times = best_times(
        [
            evaluate
            for objective in (here.objective, with_pytorchs_sort.objective)
            for evaluate in (functools.partial(objective.evaluate, noisy), functools.partial(refinement, objective))
        ]
    )
    titles = ("products", "sorting", "Fourier", "limit", "here", "with PyTorch's sort")
    rows = [f"| evaluation | {' | '.join(f'{title} [s]' for title in titles)} | here / limit |", "|---" * 8 + "|"]
    # The preconditioner transforms forward and back, and so does its gradient; the view and its gradient once more.
    costs = ((products, sorting, 0.0), (products, sorting, 3 * fourier))
    for name, parts, *taken in zip(("spectrogram", "samples"), costs, times[:2], times[2:], strict=True):
        cells = " | ".join(f"{part:.4f}" for part in (*parts, sum(parts), *taken))
        rows.append(f"| {name} | {cells} | {taken[0] / sum(parts):.1f} |")
    return rows


if __name__ == "__main__":
    draw()
