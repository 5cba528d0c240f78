"""A GPU against two cores: python benchmarks/gpu.py, on a machine with a GPU.

The default and the Gatys recipe make a texture on the CPU, in two threads of two cores, and on the GPU beside the same
two cores, with the calls of an evaluation recorded, see fast.recorded, and called one by one. Then how long a step
takes on the GPU, and for how much of this time the GPU computes.
"""

import os
import time

import numpy as np
import torch

import metrics
import quality
from report import write_section

# isort: split
import audiocnn
from support.start import matched_noise

CORES, STEPS = 2, 20
TEXTURE = "water_stream"
CASES = (("default", 5), ("default", 30), ("Gatys recipe", 5))  # seconds of sound
COLUMNS = ("distance ratio", "listener", "copy score")


class OneByOne(audiocnn.BoundLoss):
    """The bound as a loss that is not the project's own: an objective with one is not recorded."""


ONE_BY_ONE = {"bound": OneByOne()}


def make(recipe, device, style, seconds, *, losses=None):
    """Make a texture, some losses replaced; return the samples, the time [s], and the peak memory of the GPU [GB]."""
    function = quality.baseline if recipe == "Gatys recipe" else quality.default
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    made = function(style, length=seconds * quality.RATE, device=device, losses=losses)
    took = time.perf_counter() - began
    return made, took, 0.0 if device == "cpu" else torch.cuda.max_memory_allocated() / 1e9


def compare(style, other):
    """Return the rows of the table of textures."""
    titles = ("CPU [s]", "GPU, one by one [s]", "GPU [s]", "CPU / GPU", "GPU memory [GB]")
    titles += tuple(f"{each}, CPU and GPU" for each in COLUMNS)
    rows = [f"| recipe | sound | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    for recipe, seconds in CASES:
        one_by_one = make(recipe, "cuda", style, seconds, losses=ONE_BY_ONE)[1]
        sounds, times, memory = zip(*(make(recipe, device, style, seconds) for device in ("cpu", "cuda")), strict=True)
        n_samples = int(quality.SECONDS * quality.RATE)
        figures = [quality.score_texture(samples[:n_samples], style, other) for samples in sounds]
        cells = [f"{each:.1f}" for each in (times[0], one_by_one, times[1], times[0] / times[1])]
        cells += [f"{memory[1]:.2f}", *(", ".join(f"{each[name]:.2f}" for each in figures) for name in COLUMNS)]
        rows.append(f"| {recipe} | {seconds} s | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def descents(settings, recordings, *, losses=None):
    """Return iterators over the steps of a run, by the name of the tensor that they optimise."""
    descent = quality.Descent(settings, recordings, losses=losses)
    found = {"spectrogram": descent.steps}
    if settings.refine_steps:
        style = recordings["style 1"]
        samples = torch.tensor(matched_noise(style, length=len(style)), device=settings.device)
        found["samples"] = audiocnn.optimise(
            samples,
            descent.objective,
            num_steps=settings.num_steps,
            through=descent.analysis.view(len(samples), settings.device),
            redraw=settings.steps_of_draw,
            precondition=descent.analysis.preconditioner,
        )
    return found


def take_steps(steps, n_draws):
    """Take the steps of some draws; return the time of one in the last draw [s]."""
    for _ in range(n_draws):
        began = time.perf_counter()
        for _ in range(STEPS):
            next(steps)
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / STEPS


def watch(style):
    """Return the rows of the table of steps; the second draw of filters is timed, and the third is watched."""
    rows = ["| recipe | tensor | one by one [ms] | a step [ms] | the GPU computes [ms] | calls of the GPU |"]
    rows.append("|---" * 6 + "|")
    for recipe, prepare in {"default": quality.prepare, "Gatys recipe": quality.gatys}.items():
        settings, recordings = prepare(style, device="cuda", num_steps=3 * STEPS)
        plain = descents(settings, recordings, losses=ONE_BY_ONE)
        one_by_one = [take_steps(steps, 2) for steps in plain.values()]
        for (tensor, steps), before in zip(descents(settings, recordings).items(), one_by_one, strict=True):
            step = take_steps(steps, 2)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                take_steps(steps, 1)
            calls = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
            busy = sum(event.device_time_total for event in calls) / STEPS / 1e3
            cells = f"{1e3 * before:.1f} | {1e3 * step:.1f} | {busy:.1f} | {len(calls) / STEPS:.0f}"
            rows.append(f"| {recipe} | {tensor} | {cells} |")
            print(rows[-1], flush=True)
    return rows


def main():
    """Measure, and write the tables."""
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA GPU here; run this script on a machine with one")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    style, other = metrics.takes(TEXTURE, quality.RATE)
    style = np.resize(style, int(quality.SECONDS * quality.RATE))
    for device in ("cpu", "cuda"):  # the first use compiles and loads
        quality.default(style, device=device, num_steps=2, refine_steps=2, filters=8)
    steps = watch(style)
    card = f"{torch.cuda.get_device_name()}; torch {torch.__version__}."
    write_section("gpu", [card, "", *compare(style, other), "", *steps])


if __name__ == "__main__":
    main()
