"""Time of an evaluation of loss and gradient: python benchmarks/speed.py [--square | --default].

This project against the usual implementation of the Gatys recipe, which is written out below as
`Baseline`: the whole network of three equally wide blocks, Gram matrices of channels by channels, no
line search. Timed in turns in one run, beside the time that the machine's own matrix product would
take. With --square: the same for 2D filters. With --default: the default's quality over seconds, see
race.py.
"""

import argparse
import dataclasses
import functools
import os

import numpy as np
import torch
from torch import nn

from report import ROOT, best_times, sgemm_speed, write_section

# isort: split
import audiocnn
import race
from support import networks
from support.sound.analysis import Analysis
from support.sound.files import load_audio
from support.sound.transforms import STFT
from support.start import start_image

RATE, WIDTH = 22050, 11
ANALYSIS = Analysis(transform=STFT(sample_rate=RATE, n_fft=1024, hop_length=256), power="log1p")  # the Gatys recipe's


class Baseline:
    """The usual implementation, from the PyTorch tutorial on style transfer, on a spectrogram."""

    def __init__(self, network, style, *, cut=False):
        blocks = (network.layer1[:3],) if cut else (network.layer1, network.layer2, network.layer3)
        self.layers = nn.Sequential(*(layer for block in blocks for layer in block))
        self.target = self.gram(network.layer1[:3](style)).detach()

    @staticmethod
    def gram(features):
        rows = features.view(features.shape[1], -1)
        return torch.mm(rows, rows.t()) / rows.shape[1]

    def loss(self, image):
        loss = None
        for number, layer in enumerate(self.layers):
            image = layer(image)
            if number == 2:  # relu_1
                loss = nn.functional.mse_loss(self.gram(image), self.target)
        return loss  # the layers after relu_1 were computed for nothing

    def evaluate(self, image):
        image = image.detach().requires_grad_()
        loss = self.loss(image)
        return loss, torch.autograd.grad(loss, image)[0]


class Ours(audiocnn.Objective):
    """The same loss, times a weight, by this project, which counts its evaluations."""

    def __init__(self, network, style, *, weight=1.0):
        super().__init__(network, [(audiocnn.StyleLoss(), "relu_1", weight)], style=style)
        self.calls = 0

    def evaluate(self, tensor, **how):
        self.calls += 1
        return super().evaluate(tensor, **how)


class PlainConv(torch.nn.Conv2d):
    """A convolution that stays PyTorch's: fast.faster replaces nn.Conv2d alone, and no subclass."""


def image_of(name, seconds, orientation):
    """Return the image of a sample, repeated where it is shorter."""
    samples = np.resize(load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE), int(seconds * RATE))
    analysis = dataclasses.replace(ANALYSIS, layout=orientation)
    return analysis.to_image(analysis.spectrogram(samples))


def make(filters, seconds, orientation, *, last=None):
    """Return a network, its second and third blocks of `last` filters or as wide as the first, and a style image."""
    image = image_of("rain", seconds, orientation)
    last = last or filters
    parameters = dict(l1channels=filters, l2channels=last, l3channels=last, kernelsize=WIDTH, n_classes=2)
    parameters |= dict(zip(("in_channels", "in_height", "in_width"), image.shape[1:], strict=True))
    return networks.build_network(parameters | dict(orientation=orientation)), image


def time_in_turns(evaluations, image, *, repeats=4):
    """Return the shortest time of each evaluation, a function of an image [s]."""
    return best_times([functools.partial(evaluate, image) for evaluate in evaluations], repeats=repeats)


# 1. Evaluations ----------------------------------------------------------------------------------


def compare_evaluations(cases, gflops, *, repeats=4):
    """Return the rows of the table, for cases (filters, orientation, seconds)."""
    rows = ["| filters | orientation | sound | baseline [s] | here [s] | ratio | sgemm limit [s] | here / limit |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for filters, orientation, seconds in cases:
        style = make(1, seconds, orientation)[1]
        taps = style.shape[1] * (WIDTH if orientation != "2D" else WIDTH**2)
        positions = style.shape[2] * style.shape[3]
        limit = 2 * 2 * filters * taps * positions / gflops / 1e9  # forward, and back to the image
        needed = memory_needed(filters, orientation, positions)
        fits = needed < 0.9e-9 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        baseline, here = times = compare_one(filters, orientation, seconds, fits, repeats=repeats)
        cells = [f"{t:.3f}" if fit else f"needs {n:.0f} GB" for t, fit, n in zip(times, fits, needed, strict=True)]
        cells += [f"{baseline / here:.1f}", f"{limit:.3f}", f"{here / limit:.1f}"]
        rows.append(f"| {filters} | {orientation} | {seconds} s | {' | '.join(cells)} |".replace("nan", "-"))
        print(rows[-1], flush=True)
    return rows


def memory_needed(filters, orientation, positions):
    """Estimate the memory of the baseline and of ours: five times the features, and the baseline's filters [GB]."""
    baseline_filters = 8e-9 * WIDTH**2 * filters**2 * (orientation == "2D")
    return 20e-9 * filters * positions + np.array([baseline_filters, 0])


def compare_one(filters, orientation, seconds, fits, *, repeats):
    """Return the times of the baseline and of ours [s], each NaN if it does not fit into the memory."""
    times = [np.nan, np.nan]
    if fits.any():
        network, style = make(filters, seconds, orientation, last=None if fits[0] else 1)
        evaluations = [Baseline(network, style).evaluate] if fits[0] else []
        evaluations.append(Ours(network, style).evaluate)
        image = torch.rand_like(style) / 10
        times[-len(evaluations) :] = time_in_turns(evaluations, image, repeats=repeats)
    return times


def compare_steps(filters, seconds):
    """Return the rows of a table on the gain of each idea."""
    network, style = make(filters, seconds, "freq")
    ways = ways_of(network, style)
    times = time_in_turns(list(ways.values()), torch.rand_like(style) / 10)
    rows = [f"| {filters} filters, {seconds} s | an evaluation [s] |", "|---|---|"]
    return rows + [f"| {way} | {time:.2f} |" for way, time in zip(ways, times, strict=True)]


def ways_of(network, style):
    """Return evaluations of the same loss, each with one more idea, by name."""
    conv, *others = network.layer1[:3]
    plain = PlainConv(conv.in_channels, conv.out_channels, conv.kernel_size, padding="same")
    plain.load_state_dict(conv.state_dict())
    return {
        "the baseline": Baseline(network, style).evaluate,
        "without the layers after relu_1": Baseline(network, style, cut=True).evaluate,
        "and without forming the Gram matrices": Ours(nn.Sequential(plain, *others), style).evaluate,
        "and with overlap-save convolution": Ours(network, style).evaluate,
    }


# 2. Descents -------------------------------------------------------------------------------------


def compare_descents(filters, seconds, marks=(50, 100, 200, 500)):
    """Return the rows of a table on the time to the loss that the baseline has after some evaluations.

    Its loss is the same as ours, so its evaluations are done with our faster ones, and counted with the time of its
    own.
    """
    network, style = make(filters, seconds, "freq")
    objective, start = Ours(network, style, weight=1e9), start_image("rand", like=style)
    theirs, here = time_in_turns([Baseline(network, style).evaluate, objective.evaluate], start)
    losses = baseline_losses(objective, start, marks[-1])
    targets = [min(losses[:mark]) for mark in marks]
    rows = [f"| {filters} filters, {seconds} s: evaluations of the baseline | its loss | the same here | ratio |"]
    rows.append("|---|---|---|---|")
    for mark, target, count in zip(marks, targets, count_evaluations(objective, start, targets), strict=True):
        cells = f"{mark}, {mark * theirs:.0f} s", f"{target:.3g}", f"{count} evaluations, {count * here:.0f} s"
        rows.append(f"| {' | '.join(cells)} | {mark * theirs / (count * here):.0f} |")
    return rows


def baseline_losses(objective, start, n_evaluations):
    """Return the loss of every evaluation of torch's L-BFGS with its defaults, which has no line search."""
    image, seen = start.clone().requires_grad_(), []

    def closure():
        losses, image.grad = objective.evaluate(image)
        seen.append(float(sum(losses.values())))
        return seen[-1]

    optimizer = torch.optim.LBFGS([image], max_iter=20)
    while len(seen) < n_evaluations:
        optimizer.step(closure)
    return seen


def count_evaluations(objective, start, targets):
    """Return how many evaluations this project's optimisation takes until the loss is as low as each target."""
    before, counts = objective.calls, []
    for losses in audiocnn.optimise(start.clone(), objective, num_steps=2000):
        counts += [objective.calls - before for target in targets[len(counts) :] if losses["total"] <= target]
        if len(counts) == len(targets):
            return counts
    raise RuntimeError(f"2000 steps did not reach {targets[len(counts)]}; raise num_steps")


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="512 and 1024 filters, 5 s, nothing written")
    parser.add_argument("--square", action="store_true", help="the table of 2D filters instead, up to 20 GB")
    parser.add_argument(
        "--default", action="store_true", help="the default's quality over seconds instead, see race.py"
    )
    arguments = parser.parse_args()
    if arguments.default:
        gflops = sgemm_speed()
        speed = f"{torch.get_num_threads()} threads; matrix product {gflops:.0f} GFLOP/s."
        write_section("limit", [speed, "", *race.limit(gflops)])
        write_section("default", race.race())
        race.draw()
    elif arguments.square:
        cases = [(32, "2D", 5), (64, "2D", 5)]
        cases += [(filters, "2D", seconds) for filters in (512, 1024, 4096) for seconds in (5, 10, 30)]
        write_section("square", compare_evaluations(cases, sgemm_speed(), repeats=1))
    elif arguments.quick:
        print("\n".join(compare_frequencies([(512, "freq", 5), (1024, "freq", 5)], size=(512, 5))))
    else:
        cases = [(filters, "freq", seconds) for filters in (512, 1024, 4096) for seconds in (5, 10, 30)]
        write_section("speed", compare_frequencies(cases, size=(4096, 10)))


def compare_frequencies(cases, *, size):
    """Return the rows of all tables on filters over frequency bins."""
    gflops = sgemm_speed()
    lines = [f"{torch.get_num_threads()} threads; matrix product {gflops:.0f} GFLOP/s.", ""]
    return [*lines, *compare_evaluations(cases, gflops), "", *compare_steps(*size), "", *compare_descents(*size)]


if __name__ == "__main__":
    main()
