"""Reconstruction from constant-Q magnitudes: python benchmarks/cqt.py [--textures].

Spectral convergence, in the STFT domain (1024/256), and seconds for 8 s of sound, of librosa's
griffinlim_cqt and of this project's reconstruction. --textures: how far a texture's true magnitudes, reconstructed
without any network, lead away from its statistics, beside the STFT.
"""

import argparse

import librosa
import numpy as np

import metrics
from phase import LENGTH, RATE, SECONDS, STFT, load, measure, ours
from report import SEEDED, write_section
from support.desk.settings import Settings
from support.sound import transforms

SAMPLES = ("speech", "piano", "tabla", "water_stream", "orchestra_1936", "guitar")
GRID = dict(hop_length=128, bins_per_octave=48, fmin=41.2)


def librosas(magnitude):
    """Reconstruct by librosa's Griffin-Lim for the constant-Q transform."""
    magnitude = magnitude / transforms.CQT_GAIN
    return librosa.griffinlim_cqt(magnitude, sr=RATE, n_iter=32, length=LENGTH, **SEEDED, **GRID)


def compare_textures():
    """Return the rows of the table: distance ratios of reconstructions from the recordings' own magnitudes."""
    rows = ["| texture | STFT | constant-Q |", "|---|---|---|"]
    for name in metrics.REPORTING:
        style, other = metrics.takes(name, RATE)
        ratios = []
        for kind in ("stft", "cqt"):
            settings = Settings(transform=kind)
            transform, n_iter = settings.make_transform(), settings.phase_iterations
            samples = transform.reconstruct(transform.magnitude(style), n_iter=n_iter, length=len(style))
            ratios.append(metrics.statistics_distance(samples, style, other, RATE))
        rows.append("| {} | {:.2f} | {:.2f} |".format(name, *ratios))
    return rows


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--textures", action="store_true")
    if parser.parse_args().textures:
        write_section("cqt-textures", compare_textures())
        return
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
