"""Reconstruction from constant-Q magnitudes: python benchmarks/cqt.py.

Spectral convergence, in the STFT domain (1024/256), and seconds for 8 s of sound, of librosa's
griffinlim_cqt and of this project's reconstruction.
"""

import librosa
import numpy as np

from phase import LENGTH, RATE, SECONDS, STFT, load, measure, ours
from report import write_section
from support import transforms
from support.settings import Settings

SAMPLES = ("speech", "piano", "tabla", "water_stream", "orchestra_1936", "guitar")
GRID = dict(hop_length=128, bins_per_octave=48, fmin=41.2)


def librosas(magnitude):
    """Reconstruct by librosa's Griffin-Lim for the constant-Q transform."""
    magnitude = magnitude / transforms.CQT_GAIN
    return librosa.griffinlim_cqt(magnitude, sr=RATE, n_iter=32, length=LENGTH, random_state=0, **GRID)


def main():
    """Measure, and write the table."""
    transform = transforms.CQT(sample_rate=RATE, n_octaves=8, **GRID)
    methods = {"librosa.griffinlim_cqt, n_iter=32": librosas}
    methods |= ours(transform, (1, 20, 80, 200), default=Settings(transform="cqt").phase_iterations)
    sounds = [load(name) for name in SAMPLES]
    magnitudes, targets = ([t.magnitude(samples) for samples in sounds] for t in (transform, STFT))
    transform.reconstruct(magnitudes[0], n_iter=1, length=LENGTH)  # compiles, which shall not count
    lines = [f"{SECONDS:g} s; 48 bins an octave, hop 128; convergence in the STFT domain, lower is better.", ""]
    lines.append(f"| reconstruction | {' | '.join(SAMPLES)} | mean [dB] | time [s] |")
    lines.append("|---|" + "---|" * (len(SAMPLES) + 2))
    for title, reconstruct in methods.items():
        errors, seconds = measure(reconstruct, magnitudes, targets)
        numbers = " | ".join(f"{error:.1f}" for error in (*errors, np.mean(errors)))
        lines.append(f"| {title} | {numbers} | {np.median(seconds):.1f} |")
    write_section("cqt", lines)


if __name__ == "__main__":
    main()
