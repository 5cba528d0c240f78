"""Does training matter? python models/compare.py [PROBE], where models/sounds.py made PROBE.

Compares each shipped network with random weights of the same shape, and writes the tables between
the marks in models/README.md. The first table needs PROBE and is left out without it:
  probe      accuracy of a linear classifier on features averaged over all positions, for classes and
             recordings that the network was not trained on; tested on recordings that the classifier
             was not trained on
  texture    distance ratio to the style (1: as close as another take)
  transfer   speech with the style of tabla: distance to the style, and how much of the content's
             rhythm and pitch is kept
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
import metrics  # noqa: E402
import quality  # noqa: E402
from report import write_section  # noqa: E402
from support import networks, pipeline  # noqa: E402
from support.desk.settings import Settings  # noqa: E402
from support.layers import Tap  # noqa: E402
from support.sound.analysis import Analysis  # noqa: E402
from support.sound.files import load_audio  # noqa: E402

RATE = 22050
PAIRS = ("stft_freq", "stft_time", "stft_2d", "cqt_freq")
LAYERS = ("relu_1", "relu_2", "relu_3")
SEEDS = (0, 1, 2)  # of random weights, and of the probe's splits
TEXTURES = ("water_stream", "fire", "frogs")
WIDTHS = (64, 128, 256, 2048)  # filters of the first block, for the texture table
STEPS = 100


def make_analysis(pair, layout="freq"):
    """Return the analysis that a pair was trained with."""
    transform = Settings(recipe="gatys", transform=_transform_of(pair)).make_transform()
    return Analysis(transform=transform, power="log1p", layout=layout)


def _transform_of(pair):
    return pair.partition("_")[0]  # "stft" or "cqt"


def make_networks(pair):
    """Return a pair's networks, trained and random, a dict from (weights, seed) to network, and its parameters."""
    parameters = networks.load_parameters(ROOT / "params" / pair)
    made = {("trained", 0): networks.build_network(parameters, model_path=ROOT / f"models/{pair}.pth")}
    made |= {("random", seed): networks.build_network(parameters, seed=seed) for seed in SEEDS}
    return made, parameters


def read_probe(folder, analysis):
    """Return spectrograms, labels and recordings of the probe's files, each 2 s long."""
    spectrograms, labels, recordings = [], [], []
    for path in tqdm(sorted(folder.rglob("*.wav")), desc="probe"):
        samples = load_audio(path, sample_rate=RATE)[: 2 * RATE]
        samples = np.pad(samples, (0, 2 * RATE - len(samples)))
        spectrograms.append(analysis.spectrogram(samples))
        labels.append(path.parent.name)
        recordings.append(f"{path.parent.name}/{path.stem.split('__')[0]}")
    return spectrograms, np.array(labels), np.array(recordings)


@torch.no_grad()
def average_features(network, spectrograms, analysis, frames):
    """Return the average features of every layer in LAYERS, and of the spectrogram itself as layer "input"."""
    averages = {"input": [spectrogram.mean(axis=1) for spectrogram in spectrograms]} | {name: [] for name in LAYERS}
    images = [analysis.to_image(spectrogram[:, :frames]) for spectrogram in spectrograms]
    tap = Tap(network, LAYERS, images[0])
    for image in images:
        for name, features in tap(image).items():
            averages[name].append(features.mean(dim=(0, 2, 3)).numpy())
    return {name: np.array(values) for name, values in averages.items()}


def probe(values, labels, recordings, seed):
    """Return a linear classifier's mean accuracy of the classes, tested on every second recording of each class."""
    test = np.zeros(len(labels), dtype=bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        own = rng.permutation(np.unique(recordings[labels == label]))
        test |= np.isin(recordings, own[::2])
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=30.0, class_weight="balanced"))
    classifier.fit(values[~test], labels[~test])
    guesses = classifier.predict(values[test])
    return np.mean([np.mean(guesses[labels[test] == label] == label) for label in np.unique(labels)])


def probe_pair(pair, spectrograms, labels, recordings):
    """Return the accuracies of a pair's networks, a dict from (weights, seed, layer) to the mean over splits."""
    made, parameters = make_networks(pair)
    analysis = make_analysis(pair, parameters["orientation"])
    frames = parameters["in_channels" if parameters["orientation"] == "time" else "in_width"]
    scores = {}
    for key, network in tqdm(made.items(), desc=pair):
        averages = average_features(network, spectrograms, analysis, frames)
        for layer, values in averages.items():
            scores[*key, layer] = np.mean([probe(values, labels, recordings, seed) for seed in SEEDS])
    return scores


def compare_probes(folder):
    """Return the rows of the probe's table."""
    rows = ["| network | features | trained | random (mean of 3 seeds) |", "|---|---|---|---|"]
    data = {}
    for pair in PAIRS:
        analysis = make_analysis(pair)
        if analysis not in data:
            data[analysis] = read_probe(folder, analysis)
        scores = probe_pair(pair, *data[analysis])
        for layer in ("input", *LAYERS):
            random = np.mean([scores["random", seed, layer] for seed in SEEDS])
            title = "the spectrogram itself" if layer == "input" else layer
            rows.append("| {} | {} | {:.1%} | {:.1%} |".format(pair, title, scores["trained", 0, layer], random))
    _, labels, _ = data[analysis]
    classes = len(np.unique(labels))
    return [f"{classes} classes, {len(labels)} files, chance {1 / classes:.1%}.", "", *rows]


def synthesise(pair, network, orientation, style, content=None, *, style_weight=1e9):
    """Return the samples that the Gatys recipe makes with a network."""
    changes = dict(recipe="gatys", transform=_transform_of(pair), whichChannel=orientation, num_steps=STEPS)
    settings, recordings = quality.prepare(style, content, style_weight=style_weight, **changes)
    return pipeline.synthesise(settings, recordings, networks=network.to(settings.device))


def load(name, duration):
    """Return a sample of samples/, cut to a duration."""
    return load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE, duration=duration)


def longest(orientation):
    """Return how long sounds may be [s]: a network with time frames as channels takes 2 s."""
    return 2.0 if orientation == "time" else 5.0


def compare_textures():
    """Return the rows of the texture table."""
    rows = [f"| network | weights | {' | '.join(TEXTURES)} | mean |", "|---|---|" + "---|" * (len(TEXTURES) + 1)]
    for pair in PAIRS:
        made, parameters = make_networks(pair)
        orientation, ratios = parameters["orientation"], {}
        if pair == PAIRS[0]:
            for filters in WIDTHS:
                made[f"random {filters} filters", 0] = networks.build_network(parameters | {"l1channels": filters})
        for texture in tqdm(TEXTURES, desc=f"textures, {pair}"):
            style, other = metrics.takes(texture, RATE, longest=longest(orientation))
            for (weights, _), network in made.items():
                samples = synthesise(pair, network, orientation, style)
                ratio = metrics.statistics_distance(samples, style, other, RATE)
                ratios.setdefault(weights, {}).setdefault(texture, []).append(ratio)
        for weights, by_texture in ratios.items():
            means = [np.mean(values) for values in by_texture.values()]
            cells = " | ".join(f"{mean:.2f}" for mean in (*means, np.mean(means)))
            rows.append(f"| {pair} | {weights} | {cells} |")
    return rows


def compare_transfers():
    """Return the rows of the transfer table."""
    head = "| network | weights | style weight | distance to the style | rhythm kept | pitch kept |"
    rows = [head, "|---|---|---|---|---|---|"]
    for pair in PAIRS:
        made, parameters = make_networks(pair)
        orientation = parameters["orientation"]
        style, content = (load(name, longest(orientation)) for name in ("tabla", "speech"))
        for weights in ("trained", "random"):
            for style_weight in (1e5, 1e7):
                scores = []
                for network in (network for key, network in made.items() if key[0] == weights):
                    samples = synthesise(pair, network, orientation, style, content, style_weight=style_weight)
                    kept = metrics.content_kept(samples, content, RATE)
                    scores.append((metrics.difference(samples, style, RATE), *kept))
                numbers = " | ".join(f"{score:.2f}" for score in np.mean(scores, axis=0))
                rows.append(f"| {pair} | {weights} | {style_weight:.0e} | {numbers} |")
    apart = metrics.difference(load("speech", 5.0), load("tabla", 5.0), RATE)
    return [f"The unchanged speech is {apart:.2f} from the style.", "", *rows]


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
