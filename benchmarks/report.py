"""The common parts of the benchmarks: the path to the project, timing, and tables between marks in a README."""

import sys
import time
from pathlib import Path

import librosa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that scripts that import this file find audiocnn and support
README = Path(__file__).with_name("README.md")
SEEDED = {"random_state" if librosa.__version__.startswith("0.") else "rng": 0}  # of griffinlim; librosa 1.0 renamed it


def best_times(functions, *, repeats=5):
    """Return each function's shortest time of several, taken in turns, after a first call that doesn't count [s]."""
    for function in functions:
        function()
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, seconds in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - began)
    return [min(seconds) for seconds in times]


def sgemm_speed():
    """Return the speed of this machine's matrix product in single precision [GFLOP/s]."""
    import torch  # here, because most scripts need no torch

    a, b = torch.randn(4096, 4096), torch.randn(4096, 1024)
    return 2 * 4096 * 4096 * 1024 / best_times([lambda: a @ b])[0] / 1e9


def write_section(name, lines, *, readme=README):
    """Write lines between the marks of a section in a README, and print them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = readme.read_text().partition(begin)
    if not found or end not in rest:
        raise ValueError(f"{readme} lacks the marks {begin} and {end}")
    text = "\n".join(lines)
    readme.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")
    print(text)
