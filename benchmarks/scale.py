"""Time and peak memory over the length of the sound: python benchmarks/scale.py.

The default texture (512 filters of every width), as long as its style: 12 steps on the spectrogram,
the reconstruction, 12 steps on the samples; each length in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

import quality
from report import ROOT, write_section
from support import transforms

LENGTHS = ((5, 10), (30, 10), (60, 10), (300, 10))  # seconds, and steps that L-BFGS remembers
STEPS = 12  # more than L-BFGS remembers, so that its memory is full


def measure(seconds, history_size):
    """Print the time [s] and the peak memory [GB] of a texture."""
    samples = transforms.load_audio(ROOT / "samples/fire.flac", sample_rate=quality.RATE)
    samples = np.resize(samples, int(seconds * quality.RATE))
    began = time.perf_counter()
    quality.default(samples, num_steps=STEPS, refine_steps=STEPS, history_size=history_size)
    print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def main():
    """Measure every length in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, type=float, metavar=("SECONDS", "HISTORY"), help="measure one length here")
    one = parser.parse_args().one
    if one:
        measure(one[0], int(one[1]))
        return
    rows = ["| sound [s] | history_size | time [s] | time / sound | peak memory [GB] |", "|---|---|---|---|---|"]
    for seconds, history_size in LENGTHS:
        command = [sys.executable, __file__, "--one", str(seconds), str(history_size)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        took, peak = map(float, run.stdout.split())
        rows.append(f"| {seconds} | {history_size} | {took:.0f} | {took / seconds:.2f} | {peak:.2f} |")
        print(rows[-1], flush=True)
    write_section("scale", rows)


if __name__ == "__main__":
    main()
