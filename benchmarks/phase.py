"""Reconstruction from STFT magnitudes: python benchmarks/phase.py [--refined].

Spectral convergence and seconds for 8 s of sound, of librosa's Griffin-Lim and of this project's
reconstruction, for the magnitudes of recordings and for those of optimised textures. --refined: how much of a better
phase is left after the samples were refined, in textures of the default recipe with fewer filters and steps.
"""

import argparse
import time

import librosa
import numpy as np
import torch

import metrics
import quality
from report import ROOT, SEEDED, write_section

# isort: split
import audiocnn
from support import results
from support.desk.settings import Settings
from support.sound import phase, transforms
from support.sound.files import load_audio

RATE, SECONDS = 22050, 8.0
LENGTH = int(SECONDS * RATE)
SAMPLES = ("speech", "piano", "tabla", "water_stream", "orchestra_1936", "guitar", "fire", "birds")
STFT = transforms.STFT(sample_rate=RATE, n_fft=1024, hop_length=256)
SMALL_STFT = transforms.STFT(sample_rate=RATE, n_fft=512, hop_length=128)


def load(name):
    """Return 8 s of a sample, repeated where it is shorter."""
    samples = load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE)
    return np.resize(samples, LENGTH)


def optimised(samples):
    """Return the magnitudes of a texture by the Gatys recipe with the shipped network, after 60 steps."""
    files = dict(param_pkl=str(ROOT / "params/stft_freq"), model_path=str(ROOT / "models/stft_freq.pth"))
    settings = Settings(recipe="gatys", sample_rate=RATE, num_steps=60, **files)
    return quality.Descent(settings, {"style 1": samples}).finish().magnitude()


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
    settings = dict(n_iter=count, n_fft=STFT.n_fft, hop_length=STFT.hop_length, **SEEDED)
    return librosa.griffinlim(magnitude, length=LENGTH, **settings)


def admm(magnitude, *, n_iter, rho=0.1, share=0.7):
    """Reconstruct by ADMM whose last iterations are fast Griffin-Lim, from the phase that STFT.reconstruct begins with.

    Masuyama, Yatabe, Oikawa 2019, "Griffin-Lim like phase recovery via alternating direction method of multipliers".
    """
    frames = dict(n_fft=SMALL_STFT.n_fft, hop_length=SMALL_STFT.hop_length)
    begin = librosa.stft(SMALL_STFT.reconstruct(magnitude, n_iter=1), **frames)
    spectrum = magnitude * np.exp(1j * np.angle(begin))
    dual = np.zeros_like(spectrum)
    for _ in range(round(share * n_iter)):
        shifted = spectrum + dual
        consistent = librosa.stft(librosa.istft(shifted, **frames), **frames)
        mean = (rho * shifted + consistent) / (1 + rho)
        dual += spectrum - mean
        spectrum = magnitude * np.exp(1j * np.angle(mean - dual))
    return phase.griffinlim(magnitude, np.angle(spectrum), n_iter=n_iter - round(share * n_iter), **frames)


def compare_refined():
    """Return the rows of the table: loss, distance and listener after the refinement, over the reconstruction."""
    rows = [
        "| texture | reconstruction | convergence [dB] | loss before | after refining | distance ratio | listener |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    for name in ("fire", "frogs", "speech", "piano"):
        style, other = metrics.takes(name, RATE)
        settings, recordings = quality.prepare(style, length=3 * RATE, redraw=0)  # one network, to compare its losses
        descent = quality.Descent(settings, recordings).finish()
        magnitude, length = descent.magnitude(), descent.length
        for title, samples in {
            "fast Griffin-Lim, 200": SMALL_STFT.reconstruct(magnitude, n_iter=200, length=length),
            "fast Griffin-Lim, 50": SMALL_STFT.reconstruct(magnitude, n_iter=50, length=length),
            "ADMM, then fast Griffin-Lim, 200": librosa.util.fix_length(admm(magnitude, n_iter=200), size=length),
            "ADMM, then fast Griffin-Lim, 50": librosa.util.fix_length(admm(magnitude, n_iter=50), size=length),
        }.items():
            error = np.linalg.norm(SMALL_STFT.magnitude(samples) - magnitude) / np.linalg.norm(magnitude)
            losses, refined = refine(descent, torch.tensor(samples, device=settings.device), settings.refine_steps)
            figures = quality.score_texture(refined, style, other)
            cells = 20 * np.log10(error), *losses, figures["distance ratio"], figures["listener"]
            rows.append("| {} | {} | {:.1f} | {:.3f} | {:.4f} | {:.2f} | {:.2f} |".format(name, title, *cells))
            print(rows[-1], flush=True)
    return rows


def refine(descent, samples, num_steps):
    """Refine samples in place; return the sums of the losses before and after, and the samples as an array."""
    view = descent.analysis.view(len(samples), samples.device)
    how = dict(num_steps=num_steps, through=view, precondition=descent.analysis.preconditioner)
    losses = [results.measured(descent.objective, view(samples))]
    losses += audiocnn.optimise(samples, descent.objective, **how)
    return [losses[0]["total"], losses[-1]["total"]], samples.cpu().numpy()


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refined", action="store_true")
    if parser.parse_args().refined:
        write_section("refined", compare_refined())
        return
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
