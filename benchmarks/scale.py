"""Time and peak memory over the length of the sound: python benchmarks/scale.py.

The notebooks' default texture, as long as its style, with fewer steps: 22 on the spectrogram, the reconstruction, 22 on
the samples; each length in a process of its own.
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

LENGTHS = (5, 30, 60, 300)  # seconds
STEPS = 22  # one draw of random filters, after which the memory of L-BFGS is full, and the beginning of the next


def measure(seconds):
    """Print the time [s] and the peak memory [GB] of a texture."""
    samples = transforms.load_audio(ROOT / "samples/fire.flac", sample_rate=quality.RATE)
    samples = np.resize(samples, int(seconds * quality.RATE))
    began = time.perf_counter()
    quality.default(samples, num_steps=STEPS, refine_steps=STEPS)
    print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def main():
    """Measure every length in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=float, metavar="SECONDS", help="measure one length here")
    one = parser.parse_args().one
    if one:
        measure(one)
        return
    rows = ["| sound [s] | time [s] | time / sound | peak memory [GB] |", "|---|---|---|---|"]
    for seconds in LENGTHS:
        run = subprocess.run([sys.executable, __file__, "--one", str(seconds)], check=True, stdout=subprocess.PIPE)
        took, peak = map(float, run.stdout.split())
        rows.append(f"| {seconds} | {took:.0f} | {took / seconds:.2f} | {peak:.2f} |")
        print(rows[-1], flush=True)
    write_section("scale", rows)


if __name__ == "__main__":
    main()
