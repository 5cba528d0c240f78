"""Does training matter? python models/compare.py [PROBE], where models/sounds.py made PROBE.

Compares each shipped network with random weights of the same shape, and writes the tables between
the marks in models/README.md; without PROBE all but the first:
  probe      a linear classifier on features averaged over all positions, for classes and recordings
             that the network did not see; tested on recordings that the classifier did not see
  texture    statistics distance ratio to the style (1: as close as another take)
  transfer   speech with the style of tabla: distance to the style, and the content's rhythm and pitch
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
import audiocnn  # noqa: E402
import metrics  # noqa: E402
from report import write_section  # noqa: E402

RATE = 22050
PAIRS = ("stft_freq", "stft_time", "stft_2d", "cqt_freq")
LAYERS = ("relu_1", "relu_2", "relu_3")
SEEDS = (0, 1, 2)  # of random weights, and of the starts
TEXTURES = ("water_stream", "fire", "frogs")
WIDTHS = (64, 128, 256, 2048)  # filters of the first block, for the texture table
STEPS = 100


def make_transform(pair):
    """Return the transform that a pair was trained with: train.py's defaults."""
    if pair.startswith("cqt"):
        return audiocnn.CQT(sample_rate=RATE, hop_length=128, bins_per_octave=48, fmin=41.2, n_octaves=8)
    return audiocnn.STFT(sample_rate=RATE, n_fft=1024, hop_length=256)


def make_networks(pair):
    """Return the parameters, and the networks by name: trained, and random for each seed."""
    parameters = audiocnn.load_parameters(ROOT / "params" / pair)
    networks = {"trained": audiocnn.build_network(parameters, model_path=ROOT / f"models/{pair}.pth")}
    networks |= {f"random {seed}": audiocnn.build_network(parameters, seed=seed) for seed in SEEDS}
    return parameters, networks


def read_probe(folder, transform):
    """Return spectrograms, labels and recordings of the probe's files, each 2 s long."""
    magnitudes, labels, recordings = [], [], []
    for path in tqdm(sorted(folder.rglob("*.wav")), desc="probe"):
        samples = audiocnn.load_audio(path, sample_rate=RATE)[: 2 * RATE]
        samples = np.pad(samples, (0, 2 * RATE - len(samples)))
        magnitudes.append(audiocnn.compress(transform.magnitude(samples), use01scale=True))
        labels.append(path.parent.name)
        recordings.append(f"{path.parent.name}/{path.stem.split('__')[0]}")
    return magnitudes, np.array(labels), np.array(recordings)


@torch.no_grad()
def features(network, magnitudes, orientation, frames):
    """Return averaged features of every layer in LAYERS, and of the spectrogram itself."""
    averages = {name: [] for name in ("input", *LAYERS)}
    for magnitude in magnitudes:
        image = audiocnn.to_image(magnitude[:, :frames], orientation)
        averages["input"].append(magnitude.mean(axis=1))
        for name, layer in audiocnn.named_layers(network).items():
            image = layer(image)
            if name in LAYERS:
                averages[name].append(image.mean(dim=(0, 2, 3)).numpy())
            if name == LAYERS[-1]:
                break
    return {name: np.array(values) for name, values in averages.items()}


def probe(values, labels, recordings, seed):
    """Return the mean per-class accuracy of a linear classifier; every second recording of a class is for the test."""
    test = np.zeros(len(labels), dtype=bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        own = rng.permutation(np.unique(recordings[labels == label]))
        test |= np.isin(recordings, own[::2])
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=30.0, class_weight="balanced"))
    classifier.fit(values[~test], labels[~test])
    guesses = classifier.predict(values[test])
    return np.mean([np.mean(guesses[labels[test] == label] == label) for label in np.unique(labels)])


def compare_probes(folder):
    """Return the rows of the probe's table."""
    rows = ["| network | features | trained | random (mean of 3 seeds) |", "|---|---|---|---|"]
    data = {}
    for pair in PAIRS:
        parameters, networks = make_networks(pair)
        transform = make_transform(pair)
        if transform not in data:
            data[transform] = read_probe(folder, transform)
        magnitudes, labels, recordings = data[transform]
        frames = parameters["in_channels" if parameters["orientation"] == "time" else "in_width"]
        scores = {}
        for name, network in tqdm(networks.items(), desc=pair):
            for layer, values in features(network, magnitudes, parameters["orientation"], frames).items():
                scores[name, layer] = np.mean([probe(values, labels, recordings, seed) for seed in SEEDS])
        for layer in ("input", *LAYERS):
            random = np.mean([scores[f"random {seed}", layer] for seed in SEEDS])
            cells = "the spectrogram itself" if layer == "input" else layer, scores["trained", layer], random
            rows.append("| {} | {} | {:.1%} | {:.1%} |".format(pair, *cells))
    classes = len(np.unique(labels))
    return [f"{classes} classes, {len(labels)} files, chance {1 / classes:.1%}.", "", *rows]


def synthesise(network, transform, orientation, style, content, style_weight, seed):
    """Return the samples that the notebook would make."""
    values = [audiocnn.compress(transform.magnitude(y), use01scale=True) for y in (style, content) if y is not None]
    images = [audiocnn.to_image(value, orientation) for value in values]
    model = audiocnn.insert_losses(
        network,
        style=images[0],
        style_layers=["relu_1"],
        content=None if content is None else images[1],
        content_layers=[] if content is None else ["relu_3"],
    )
    start = "rand" if content is None else "content"
    image = audiocnn.start_image(start, like=images[-1], seed=seed, content=images[-1])
    weights = dict(style_weight=style_weight, content_weight=1.0, reg_weight=1e-3)
    for _ in audiocnn.optimise(image, model, **weights, num_steps=STEPS):
        pass
    magnitude = audiocnn.expand(audiocnn.from_image(image, orientation), use01scale=True)
    return transform.samples(magnitude, length=len(style if content is None else content), seed=seed)


def load(name, duration):
    """Return a sample of samples/, cut to a duration."""
    return audiocnn.load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE, duration=duration)


def compare_textures():
    """Return the rows of the texture table."""
    rows = [f"| network | weights | {' | '.join(TEXTURES)} | mean |", "|---|---|" + "---|" * (len(TEXTURES) + 1)]
    for pair in PAIRS:
        parameters, networks = make_networks(pair)
        transform, ratios = make_transform(pair), {}
        if pair == PAIRS[0]:
            for filters in WIDTHS:
                networks[f"random_{filters}_filters 0"] = audiocnn.build_network(parameters | {"l1channels": filters})
        for texture in tqdm(TEXTURES, desc=f"textures, {pair}"):
            style, other = metrics.takes(texture, RATE, longest=2.0 if parameters["orientation"] == "time" else 5.0)
            for name, network in networks.items():
                made = synthesise(network, transform, parameters["orientation"], style, None, 1e9, seed=0)
                ratio = metrics.statistics_distance(made, style, other, RATE)
                ratios.setdefault((name.split()[0], texture), []).append(ratio)
        for weights in dict.fromkeys(name.split()[0] for name in networks):
            means = [np.mean(ratios[weights, texture]) for texture in TEXTURES]
            rows.append(
                f"| {pair} | {weights.replace('_', ' ')} | {' | '.join(f'{m:.2f}' for m in (*means, np.mean(means)))} |"
            )
    return rows


def compare_transfers():
    """Return the rows of the transfer table."""
    head = "| network | weights | style weight | distance to the style | rhythm kept | pitch kept |"
    rows = [head, "|---|---|---|---|---|---|"]
    for pair in PAIRS:
        parameters, networks = make_networks(pair)
        transform, orientation = make_transform(pair), parameters["orientation"]
        style, content = (load(name, 2.0 if orientation == "time" else 5.0) for name in ("tabla", "speech"))
        for weights in ("trained", "random"):
            for style_weight in (1e5, 1e7):
                scores = []
                for name, network in networks.items():
                    if name.startswith(weights):
                        made = synthesise(network, transform, orientation, style, content, style_weight, seed=0)
                        kept = metrics.content_kept(made, content, RATE)
                        scores.append((metrics.difference(made, style, RATE), *kept))
                numbers = " | ".join(f"{score:.2f}" for score in np.mean(scores, axis=0))
                rows.append(f"| {pair} | {weights} | {style_weight:.0e} | {numbers} |")
    apart = metrics.difference(load("speech", 5.0), load("tabla", 5.0), RATE)
    return [f"The untouched speech is {apart:.2f} from the style.", "", *rows]


def main():
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe", type=Path, nargs="?", help="the folder FOLDER/probe that models/sounds.py made")
    folder = parser.parse_args().probe
    readme = ROOT / "models/README.md"
    if folder:
        write_section("probe", compare_probes(folder), readme=readme)
    write_section("texture", compare_textures(), readme=readme)
    write_section("transfer", compare_transfers(), readme=readme)


if __name__ == "__main__":
    main()
