"""The way back from constant-Q magnitudes: python benchmarks/cqt.py.

Spectral convergence, in the STFT domain (1024/256), and seconds for 8 s of sound, for librosa's
griffinlim_cqt and this project's way.
"""

import time

import librosa
import numpy as np

from phase import RATE, SECONDS, TRANSFORM, audiocnn, convergence, load
from report import write_section

SAMPLES = ("speech", "piano", "tabla", "water_stream", "orchestra_1936", "guitar")
GRID = dict(hop_length=128, bins_per_octave=48, fmin=41.2)


def main():
    """Measure, and write the table."""
    stft = audiocnn.STFT(**TRANSFORM)
    length = int(SECONDS * RATE)

    def theirs(magnitude):
        magnitude = magnitude / audiocnn.CQT_GAIN
        return librosa.griffinlim_cqt(magnitude, sr=RATE, n_iter=32, length=length, random_state=0, **GRID)

    ways = {"librosa.griffinlim_cqt, 32 iterations": theirs}
    for count in (1, 20, 80, 200):
        ours = audiocnn.CQT(sample_rate=RATE, n_octaves=8, n_iter=count, **GRID)
        name = f"audiocnn, {count} iterations{' (default)' if count == 80 else ''}"
        ways[name] = lambda magnitude, ours=ours: ours.samples(magnitude, length=length)
    sounds = {name: load(name) for name in SAMPLES}
    magnitudes = {name: ours.magnitude(samples) for name, samples in sounds.items()}
    ways["audiocnn, 1 iterations"](magnitudes["speech"])  # what is compiled once doesn't count
    lines = [f"{SECONDS:g} s; 48 bins an octave, hop 128; convergence in the STFT domain, lower is better.", ""]
    lines += [f"| way back | {' | '.join(SAMPLES)} | mean [dB] | time [s] |", "|---|" + "---|" * (len(SAMPLES) + 2)]
    for title, way in ways.items():
        errors, seconds = [], []
        for name, samples in sounds.items():
            began = time.perf_counter()
            back = way(magnitudes[name])
            seconds.append(time.perf_counter() - began)
            errors.append(convergence(stft.magnitude(samples), back, stft))
        numbers = " | ".join(f"{error:.1f}" for error in (*errors, np.mean(errors)))
        lines.append(f"| {title} | {numbers} | {np.median(seconds):.1f} |")
    write_section("cqt", lines)


if __name__ == "__main__":
    main()
