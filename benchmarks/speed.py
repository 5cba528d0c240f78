"""Time of an evaluation of loss and gradient: python benchmarks/speed.py [--square | --sorting].

This project against the common recipe, which is written out below as `CommonRecipe`: the whole
network of three equally wide blocks, Gram matrices of channels by channels, no line search. Timed
in turns in one run, with the machine's own matrix product as the yardstick. With --square: the same
for 2D filters. With --sorting: the default recipe, whose values are sorted, with PyTorch's sort and
with ours.
"""

import argparse
import os
from unittest import mock

import numpy as np
import torch
from torch import nn

from phase import ROOT, audiocnn
from report import best_times, sgemm_speed, write_section

RATE, N_FFT, HOP, WIDTH = 22050, 1024, 256, 11


class CommonRecipe:
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
        return loss  # the layers behind relu_1 were computed for nothing


def evaluate(loss, image):
    """Compute a loss and its gradient."""
    image = image.clone().requires_grad_()
    torch.autograd.grad(loss(image), image)


def our_loss(network, style, approaching=False):
    """Return the same loss as this project computes it, or the distance from the nearest features."""
    model = audiocnn.insert_losses(network, style=style, style_layers=["relu_1"])
    layer = dict(model.named_children())["style relu_1"]
    layer.approaching = approaching

    def loss(image):
        model(image)
        return layer.loss

    return loss


def make(filters, seconds, orientation, *, behind=None):
    """Return a network, with other numbers of filters behind its first block, and a style image of a real texture."""
    samples = audiocnn.load_audio(ROOT / "samples/rain.flac", sample_rate=RATE)
    samples = np.resize(samples, int(seconds * RATE))
    transform = audiocnn.STFT(sample_rate=RATE, n_fft=N_FFT, hop_length=HOP)
    image = audiocnn.to_image(audiocnn.compress(transform.magnitude(samples), use01scale=True), orientation)
    behind = behind or filters
    parameters = dict(l1channels=filters, l2channels=behind, l3channels=behind, kernelsize=WIDTH, n_classes=2)
    parameters |= dict(zip(("in_channels", "in_height", "in_width"), image.shape[1:], strict=True))
    return audiocnn.build_network(parameters | dict(orientation=orientation)), image


def compare_evaluations(cases, gflops, *, repeats=4):
    """Return the rows of the table."""
    rows = ["| filters | orientation | sound | common recipe [s] | here [s] | ratio | sgemm limit [s] | here / limit |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for filters, orientation, seconds in cases:
        style = make(1, seconds, orientation)[1]
        image = torch.rand_like(style) / 10
        taps = style.shape[1] * (WIDTH if orientation != "2D" else WIDTH**2)
        positions = style.shape[2] * style.shape[3]
        limit = 2 * 2 * filters * taps * positions / gflops / 1e9  # forward, and back to the image
        # Reckoned, not measured: five times the features, and for the common recipe the other blocks' filters.
        needed = 20e-9 * filters * positions + np.array([8e-9 * WIDTH**2 * filters**2 * (orientation == "2D"), 0])
        fits = needed < 0.9e-9 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        times = [np.nan, np.nan]
        if fits.any():
            network, style = make(filters, seconds, orientation, behind=None if fits[0] else 1)
            losses = [our_loss(network, style)]
            losses = [CommonRecipe(network, style).loss, *losses] if fits[0] else losses
            times[-len(losses) :] = time_in_turns(losses, image, repeats=repeats)
        theirs, ours = times
        cells = [f"{t:.3f}" if fit else f"needs {n:.0f} GB" for t, fit, n in zip(times, fits, needed, strict=True)]
        cells += [f"{theirs / ours:.1f}", f"{limit:.3f}", f"{ours / limit:.1f}"]
        rows.append(f"| {filters} | {orientation} | {seconds} s | {' | '.join(cells)} |".replace("nan", "-"))
        print(rows[-1], flush=True)
    return rows


def time_in_turns(losses, image, *, repeats=4):
    """Return the shortest time of an evaluation of each loss [s]."""
    return best_times([lambda loss=loss: evaluate(loss, image) for loss in losses], repeats=repeats)


def compare_steps(filters, seconds):
    """Return the rows of a table on what each idea gives."""
    network, style = make(filters, seconds, "freq")
    with mock.patch("audiocnn._faster", lambda layer, image: layer):
        direct = our_loss(network, style)
    ways = {
        "the common recipe": CommonRecipe(network, style).loss,
        "cut behind the last tapped layer": CommonRecipe(network, style, cut=True).loss,
        "and Gram products through the smaller side": direct,
        "and overlap-save convolution": our_loss(network, style),
    }
    times = time_in_turns(list(ways.values()), torch.rand_like(style) / 10)
    rows = [f"| {filters} filters, {seconds} s | an evaluation [s] |", "|---|---|"]
    return rows + [f"| {way} | {time:.2f} |" for way, time in zip(ways, times, strict=True)]


def compare_descents(filters, seconds, marks=(50, 100, 200, 500), nearest_steps=40):
    """Return the rows of a table on the time to the loss that the common recipe has after some evaluations.

    Its loss is the same as ours, so its evaluations are done with our faster ones, and counted with the
    time that its own take. Ours: with the Gram matrices from the first step on, and after some steps
    towards the nearest features.
    """
    network, style = make(filters, seconds, "freq")
    common, gram, nearest = CommonRecipe(network, style), our_loss(network, style), our_loss(network, style, True)
    start = audiocnn.start_image("rand", like=style)
    theirs, *ours = time_in_turns([common.loss, gram, nearest], start)
    image, seen = start.clone().requires_grad_(), []

    def closure():
        image.grad = None
        value = 1e9 * gram(image)
        value.backward()
        image.grad = image.grad.contiguous()
        seen.append(float(value.detach()))
        return value

    optimizer = torch.optim.LBFGS([image], max_iter=20)  # torch's defaults, as everybody has them
    while len(seen) < marks[-1]:
        optimizer.step(closure)
    targets = [min(seen[:mark]) for mark in marks]
    reached = [descend(network, style, start.clone(), targets, gram, ours, first) for first in (0, nearest_steps)]
    rows = [f"| {filters} filters, {seconds} s: evaluations of the common recipe | its loss "]
    rows[0] += f"| the same here | ratio | the nearest features first ({nearest_steps} steps) | ratio |"
    rows.append("|---|---|---|---|---|---|")
    for mark, target, *found in zip(marks, targets, *reached, strict=True):
        cells = [f"{calls} evaluations, {spent:.0f} s | {mark * theirs / spent:.0f}" for calls, spent in found]
        rows.append(f"| {mark}, {mark * theirs:.0f} s | {target:.3g} | {' | '.join(cells)} |")
    return rows


def descend(network, style, image, targets, gram, times, nearest_steps):
    """Return evaluations and seconds until the loss is as low as each target."""
    model = audiocnn.insert_losses(network, style=style, style_layers=["relu_1"])
    layer, calls, reached = dict(model.named_children())["style relu_1"], [], []
    model.register_forward_hook(lambda *_: calls.append(times[layer.approaching]))
    settings = dict(style_weight=1e9, num_steps=2000, nearest_steps=nearest_steps)
    for _ in audiocnn.optimise(image, model, **settings):
        with torch.no_grad():
            value = 1e9 * float(gram(image))
        while len(reached) < len(targets) and value <= targets[len(reached)]:
            reached.append((len(calls), sum(calls)))
        if len(reached) == len(targets):
            return reached
    raise RuntimeError(f"{len(calls)} evaluations did not reach {targets[len(reached)]}; raise num_steps")


def compare_sorting():
    """Return the rows of a table on the default recipe's evaluation."""
    rows = ["| sound | with PyTorch's sort [s] | here [s] | ratio |", "|---|---|---|---|"]
    whole = audiocnn.load_audio(ROOT / "samples/rain.flac", sample_rate=RATE)
    transform = audiocnn.STFT(sample_rate=RATE, n_fft=512, hop_length=128)
    widths = [1, 2, 4, 8, 16, 32, 64, 128]
    networks = audiocnn.band_networks(transform.frequencies, widths=widths, filters=512)
    for seconds in (5, 30):
        magnitude = transform.magnitude(np.resize(whole, seconds * RATE))
        style = audiocnn.to_image(audiocnn.compress(magnitude, use01scale=True, power=0.3), "freq")
        model = audiocnn.insert_losses(networks, style=style, style_layers=["conv_2"], statistic="distribution")

        def ours(image, model=model):
            for chain in model.values():
                chain(image)
            return sum(chain[-1].loss for chain in model.values())

        def pytorchs(image, ours=ours):
            with mock.patch("audiocnn._Sort.apply", lambda rows: rows.sort(dim=1).values):
                return ours(image)

        theirs, here = time_in_turns([pytorchs, ours], style + 0.1 * torch.rand_like(style))
        rows.append(f"| {seconds} s | {theirs:.3f} | {here:.3f} | {theirs / here:.1f} |")
    return rows


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="512 and 1024 filters, 5 s, nothing written")
    parser.add_argument("--square", action="store_true", help="the table of 2D filters instead, up to 20 GB")
    parser.add_argument("--sorting", action="store_true", help="the table of the default recipe instead")
    arguments = parser.parse_args()
    if arguments.sorting:
        write_section("sorting", compare_sorting())
        return
    if arguments.square:
        cases = [(32, "2D", 5), (64, "2D", 5)]
        cases += [(filters, "2D", seconds) for filters in (512, 1024, 4096) for seconds in (5, 10, 30)]
        write_section("square", compare_evaluations(cases, sgemm_speed(), repeats=1))
        return
    quick = arguments.quick
    cases = [(filters, "freq", seconds) for filters in (512, 1024, 4096) for seconds in (5, 10, 30)]
    if quick:
        cases = [(512, "freq", 5), (1024, "freq", 5)]
    gflops = sgemm_speed()
    lines = [f"{torch.get_num_threads()} threads; matrix product {gflops:.0f} GFLOP/s.", ""]
    lines += compare_evaluations(cases, gflops)
    size = (512, 5) if quick else (4096, 10)
    lines += ["", *compare_steps(*size), "", *compare_descents(*size)]
    if quick:
        print("\n".join(lines))
    else:
        write_section("speed", lines)


if __name__ == "__main__":
    main()
