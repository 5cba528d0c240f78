"""The way back from STFT magnitudes: python benchmarks/phase.py.

Spectral convergence and seconds for 8 s of sound, for librosa's Griffin-Lim and this project's way,
for true magnitudes and for those of an optimised texture.
"""

import sys
import time
from pathlib import Path

import librosa
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import audiocnn  # noqa: E402
from report import write_section  # noqa: E402

RATE, SECONDS = 22050, 8.0
SAMPLES = ("speech", "piano", "tabla", "water_stream", "orchestra_1936", "guitar", "fire", "birds")
TRANSFORM = dict(sample_rate=RATE, n_fft=1024, hop_length=256)


def convergence(magnitude, samples, transform):
    """Return the distance of a sound's magnitudes from those it was made for [dB]."""
    found = transform.magnitude(samples)
    return 20 * np.log10(np.linalg.norm(found - magnitude) / np.linalg.norm(magnitude))


def load(name):
    """Return 8 s of a sample, repeated where it is shorter."""
    samples = audiocnn.load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE)
    return np.resize(samples, int(SECONDS * RATE))


def optimised(samples, transform):
    """Return the magnitudes of a texture, found from noise by the default notebook's recipe, in 60 steps."""
    parameters = audiocnn.load_parameters(ROOT / "params/stft_freq")
    network = audiocnn.build_network(parameters, model_path=ROOT / "models/stft_freq.pth")
    style = audiocnn.to_image(audiocnn.compress(transform.magnitude(samples), use01scale=True), "freq")
    model = audiocnn.insert_losses(network, style=style, style_layers=["relu_1"])
    image = audiocnn.start_image("rand", like=style)
    for _ in audiocnn.optimise(image, model, style_weight=1e9, content_weight=0, reg_weight=1e-3, num_steps=60):
        pass
    return audiocnn.expand(audiocnn.from_image(image, "freq"), use01scale=True)


def main():
    """Measure, and write the table."""
    transform = audiocnn.STFT(**TRANSFORM)
    ways = {
        f"librosa.griffinlim, {count} iterations": lambda magnitude, count=count: librosa.griffinlim(
            magnitude, n_iter=count, n_fft=1024, hop_length=256, length=int(SECONDS * RATE), random_state=0
        )
        for count in (32, 100, 500)
    }
    for count in (0, 32, 100, 200):
        ours = audiocnn.STFT(**TRANSFORM, n_iter=count or 1)
        name = f"audiocnn, {count or 1} iterations{' (default)' if count == transform.n_iter else ''}"
        ways[name] = lambda magnitude, ours=ours: ours.samples(magnitude, length=int(SECONDS * RATE))
    sounds = {name: load(name) for name in SAMPLES}
    targets = {"true": {name: transform.magnitude(samples) for name, samples in sounds.items()}}
    targets["optimised"] = {name: optimised(samples, transform) for name, samples in sounds.items()}
    for way in ways.values():
        way(targets["true"]["speech"])  # what is compiled or planned once doesn't count
    lines = [f"{SECONDS:g} s of {', '.join(SAMPLES)}; mean spectral convergence, lower is better.", ""]
    lines += ["| way back | true magnitudes [dB] | optimised magnitudes [dB] | time [s] |", "|---|---|---|---|"]
    for title, way in ways.items():
        means, seconds = [], []
        for magnitudes in targets.values():
            errors = []
            for magnitude in magnitudes.values():
                began = time.perf_counter()
                samples = way(magnitude)
                seconds.append(time.perf_counter() - began)
                errors.append(convergence(magnitude, samples, transform))
            means.append(f"{np.mean(errors):.1f}")
        lines.append(f"| {title} | {' | '.join(means)} | {np.median(seconds):.2f} |")
    write_section("phase", lines)


if __name__ == "__main__":
    main()
