"""Reconstruction from STFT magnitudes: python benchmarks/phase.py.

Spectral convergence and seconds for 8 s of sound, of librosa's Griffin-Lim and of this project's
reconstruction, for the magnitudes of recordings and for those of optimised textures.
"""

import time

import librosa
import numpy as np

from report import ROOT, write_section
from support import pipeline, transforms
from support.settings import Settings

RATE, SECONDS = 22050, 8.0
LENGTH = int(SECONDS * RATE)
SAMPLES = ("speech", "piano", "tabla", "water_stream", "orchestra_1936", "guitar", "fire", "birds")
STFT = transforms.STFT(sample_rate=RATE, n_fft=1024, hop_length=256)


def load(name):
    """Return 8 s of a sample, repeated where it is shorter."""
    samples = transforms.load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE)
    return np.resize(samples, LENGTH)


def optimised(samples):
    """Return the magnitudes of a texture by the Gatys recipe with the shipped network, after 60 steps."""
    files = dict(param_pkl=str(ROOT / "params/stft_freq"), model_path=str(ROOT / "models/stft_freq.pth"))
    settings = Settings(recipe="gatys", sample_rate=RATE, num_steps=60, **files)
    spectrogram, _, _ = pipeline.optimise_spectrogram(settings, {"style 1": samples})
    return transforms.expand(spectrogram, **settings.compression)


def convergence(samples, target):
    """Return the distance of a sound's STFT magnitudes from the target magnitudes [dB]."""
    return 20 * np.log10(np.linalg.norm(STFT.magnitude(samples) - target) / np.linalg.norm(target))


def measure(reconstruct, magnitudes, targets):
    """Reconstruct sounds from magnitudes: convergence to each target [dB], and the seconds that each took."""
    errors, seconds = [], []
    for magnitude, target in zip(magnitudes, targets, strict=True):
        began = time.perf_counter()
        samples = reconstruct(magnitude)
        seconds.append(time.perf_counter() - began)
        errors.append(convergence(samples, target))
    return errors, seconds


def ours(transform, counts, *, default):
    """Return this project's reconstruction with several numbers of iterations, a dict from title to function."""
    return {
        f"this project, n_iter={count}{' (default)' if count == default else ''}": lambda magnitude, count=count: (
            transform.reconstruct(magnitude, n_iter=count, length=LENGTH)
        )
        for count in counts
    }


def librosas(magnitude, count):
    """Reconstruct by librosa's Griffin-Lim."""
    settings = dict(n_iter=count, n_fft=STFT.n_fft, hop_length=STFT.hop_length, random_state=0)
    return librosa.griffinlim(magnitude, length=LENGTH, **settings)


def main():
    """Measure, and write the table."""
    methods = {
        f"librosa.griffinlim, n_iter={count}": lambda magnitude, count=count: librosas(magnitude, count)
        for count in (32, 100, 500)
    }
    methods |= ours(STFT, (1, 32, 100, 200), default=Settings().phase_iterations)
    sounds = [load(name) for name in SAMPLES]
    recorded = [STFT.magnitude(samples) for samples in sounds]
    kinds = (recorded, [optimised(samples) for samples in sounds])
    for reconstruct in methods.values():
        reconstruct(recorded[0])  # compiles and plans, which shall not count
    lines = [f"{SECONDS:g} s of {', '.join(SAMPLES)}; mean spectral convergence, lower is better.", ""]
    lines += ["| reconstruction | true magnitudes [dB] | optimised magnitudes [dB] | time [s] |", "|---|---|---|---|"]
    for title, reconstruct in methods.items():
        results = [measure(reconstruct, magnitudes, magnitudes) for magnitudes in kinds]
        means = " | ".join(f"{np.mean(errors):.1f}" for errors, _ in results)
        lines.append(f"| {title} | {means} | {np.median([seconds for _, seconds in results]):.2f} |")
    write_section("phase", lines)


if __name__ == "__main__":
    main()
