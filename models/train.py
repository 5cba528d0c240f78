"""Train an audiocnn.CNN to classify sounds: python models/train.py FOLDER --name NAME.

FOLDER has one sub-folder for each class, or is a checkout of ESC-50 (audio/ and meta/esc50.csv).
Writes models/NAME.pth, params/NAME.pkl and the card models/NAME.md with models/NAME.png. After an
interrupt, the same command continues from the last finished epoch, and ends with the same weights.

Sounds are split into training and validation by recording, never by window. In a class folder, files
are from one recording if their names are equal up to "__" (key60__soft.wav, key60__loud.wav); ESC-50
has folds for this. Sounds shorter than a window are padded with silence.
"""

import argparse
import csv
import functools
import pickle
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from support import networks  # noqa: E402
from support.checks import LAYOUTS  # noqa: E402
from support.desk.saving import write_whole  # noqa: E402
from support.desk.settings import best_device  # noqa: E402
from support.sound import transforms  # noqa: E402
from support.sound.analysis import Analysis  # noqa: E402
from support.sound.files import load_audio  # noqa: E402
from support.weights import read_weights, reason_of  # noqa: E402

ENDINGS = {".wav", ".flac", ".ogg", ".mp3"}


@dataclass
class Clip:
    """A sound file's magnitudes, its class and its part in the split."""

    path: Path
    label: int
    validation: bool
    magnitude: np.ndarray | None = None  # (n_bins, n_frames), float16 to save memory


def parse_arguments(arguments=None):
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="one sub-folder for each class, or an ESC-50 checkout")
    parser.add_argument("--name", required=True, help="stem of the files that are written")
    parser.add_argument("--into", type=Path, default=ROOT, help="folder with models/ and params/ (default: this one)")
    parser.add_argument("--transform", choices=("stft", "cqt"), default="stft")
    parser.add_argument("--orientation", choices=LAYOUTS, default="freq")
    parser.add_argument("--channels", type=int, nargs=3, default=(256, 96, 64), help="filters of the three blocks")
    parser.add_argument("--kernelsize", type=int, default=11, help="length of the filters, in positions")
    parser.add_argument("--seconds", type=float, default=1.0, help="window that is classified")
    parser.add_argument("--sample-rate", type=int, default=22050)
    parser.add_argument("--n-fft", type=int, default=1024)
    parser.add_argument("--hop-length", type=int, help="default: 256 for the STFT, 128 for the CQT")
    parser.add_argument("--bins-per-octave", type=int, default=48)
    parser.add_argument("--lowest-frequency", type=float, default=41.2)
    parser.add_argument("--octaves", type=int, default=8)
    parser.add_argument("--fold", type=int, default=5, help="ESC-50's fold to validate on")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the recordings to validate on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--patience", type=int, default=5, help="epochs without a better validation to wait")
    parser.add_argument("--windows", type=int, default=2048, help="windows in an epoch, drawn evenly from the classes")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=best_device())
    return parser.parse_args(arguments)


def list_clips(folder, *, seed, held_out, fold):
    """Return clips and class names, split by recording; see the top of this file for the layouts."""
    if (folder / "meta/esc50.csv").is_file():
        with open(folder / "meta/esc50.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        names = sorted({row["category"] for row in rows})
        clips = [
            Clip(folder / "audio" / row["filename"], names.index(row["category"]), int(row["fold"]) == fold)
            for row in rows
        ]
    else:
        if not folder.is_dir():
            raise SystemExit(f"{folder} is not a folder; give one with a sub-folder for each class")
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        clips = []
        for label, name in enumerate(names):
            clips += _split_class(folder / name, label, np.random.default_rng([seed, label]), held_out)
    if len(names) < 2:
        raise SystemExit(f"{folder} holds {len(names)} class; a classifier needs at least two sub-folders with sounds")
    return clips, names


def _split_class(folder, label, rng, held_out):
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise SystemExit(f"the class {folder} holds no sound files ({', '.join(sorted(ENDINGS))}); fill or remove it")
    recordings = sorted({path.stem.split("__")[0] for path in paths})
    count = min(len(recordings) - 1, max(1, round(held_out * len(recordings))))
    chosen = set(rng.permutation(recordings)[:count])
    return [Clip(path, label, path.stem.split("__")[0] in chosen) for path in paths]


def analyse(clips, names, transform, settings):
    """Compute every clip's magnitudes; leave out clips that can't be read, and warn of these and of short ones."""
    frames = n_frames(settings)
    window = int(settings.seconds * settings.sample_rate)
    shortest = max(window, 2 * settings.sample_rate if settings.transform == "cqt" else settings.n_fft)
    dropped, short, kept = [], 0, []
    for clip in tqdm(clips, desc="magnitudes"):
        try:
            samples = load_audio(clip.path, sample_rate=settings.sample_rate)
        except (OSError, ValueError) as error:
            dropped.append(f"{clip.path}: {error}")
            continue
        short += len(samples) < window
        samples = np.pad(samples, (0, max(0, shortest - len(samples))))
        clip.magnitude = transform.magnitude(samples).astype(np.float16)
        assert clip.magnitude.shape[1] >= frames
        kept.append(clip)
    if dropped:
        warnings.warn(f"left out {len(dropped)} of {len(clips)} files: " + "; ".join(dropped[:5]), stacklevel=2)
    if short:
        warnings.warn(f"{short} of {len(kept)} files are shorter than {settings.seconds} s: padded", stacklevel=2)
    for label, name in enumerate(names):
        if not any(clip.label == label and not clip.validation for clip in kept):
            raise SystemExit(f"no readable file is left to train the class {name}; add some, or remove the class")
    return kept


def n_frames(settings):
    """Return the number of frames in a window."""
    return 1 + int(settings.seconds * settings.sample_rate) // settings.hop_length


def make_image(magnitude, first, settings, gain=1.0):
    """Return a window of a sound's magnitudes as the network's image [shape=(1, channels, height, width)]."""
    part = gain * magnitude[:, first : first + n_frames(settings)].astype(np.float32)
    analysis = Analysis(transform=None, power="log1p", layout=settings.orientation)  # the transform is done
    return analysis.to_image(analysis.compress(part))


def training_batches(clips, names, settings, epoch):
    """Yield images and labels of an epoch: each class as often, at random places and levels (0 to -24 dB)."""
    rng = np.random.default_rng([settings.seed, epoch])  # one for each epoch, so that a resumed run repeats it
    by_class = [[clip for clip in clips if clip.label == label and not clip.validation] for label in range(len(names))]
    for _ in range(settings.windows // settings.batch):
        labels = rng.integers(len(names), size=settings.batch)
        images = []
        for label in labels:
            clip = by_class[label][rng.integers(len(by_class[label]))]
            first = rng.integers(clip.magnitude.shape[1] - n_frames(settings) + 1)
            images.append(make_image(clip.magnitude, first, settings, gain=10 ** (-rng.uniform(0, 24) / 20)))
        yield torch.cat(images).to(settings.device), torch.from_numpy(labels).to(settings.device)


@torch.no_grad()
def validate(network, clips, names, settings, *, windows=4):
    """Classify evenly spaced windows of the validation recordings; return the confusion matrix."""
    network.eval()
    confusion = np.zeros((len(names), len(names)), dtype=int)
    for clip in (clip for clip in clips if clip.validation):
        last = clip.magnitude.shape[1] - n_frames(settings)
        places = sorted({round(place) for place in np.linspace(0, last, windows)})
        images = torch.cat([make_image(clip.magnitude, first, settings) for first in places])
        for guess in network(images.to(settings.device)).argmax(dim=1).tolist():
            confusion[clip.label, guess] += 1
    return confusion


def accuracies(confusion):
    """Return the top-1 accuracy, and the accuracy of each class (NaN where no window was validated)."""
    with np.errstate(invalid="ignore"):
        return confusion.trace() / max(1, confusion.sum()), confusion.diagonal() / confusion.sum(axis=1)


def train(network, clips, names, settings, checkpoint):
    """Train with a checkpoint after every epoch; return the state, with the best weights and their confusion matrix."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-2)
    state = load_state(network, optimizer, settings, checkpoint)
    while state["epoch"] < settings.epochs and state["epoch"] - state["best_epoch"] < settings.patience:
        began, epoch = time.perf_counter(), state["epoch"] + 1
        loss = train_epoch(network, optimizer, clips, names, settings, state["epoch"])
        confusion = validate(network, clips, names, settings)
        top1, per_class = accuracies(confusion)
        mean = float(np.nanmean(per_class)) if confusion.any() else 0.0
        tqdm.write(f"epoch {epoch}: loss {loss:.3f}, top-1 {top1:.3f}, mean per class {mean:.3f}")
        state["history"].append([loss, float(top1), mean])
        if mean > state["best"]:
            weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
            state |= dict(best=mean, best_epoch=epoch, best_weights=weights, confusion=confusion.tolist())
        state |= dict(epoch=epoch, seconds=state["seconds"] + time.perf_counter() - began)
        state |= dict(network=network.state_dict(), optimizer=optimizer.state_dict())
        write_whole(checkpoint, functools.partial(torch.save, state))
    return state


def load_state(network, optimizer, settings, checkpoint):
    """Return the state of the training, from the checkpoint if there is one; SystemExit for other settings' state."""
    options = {name: str(value) for name, value in vars(settings).items() if name != "device"}
    if not checkpoint.is_file():
        best = dict(best=-1.0, best_epoch=0, best_weights=None, confusion=None)
        return dict(options=options, epoch=0, history=[], seconds=0.0, **best)
    try:
        state = read_weights(checkpoint)
        if state["options"] == options:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            return state
    except Exception as error:  # a damaged or foreign file raises nearly anything
        raise SystemExit(f"{checkpoint} can't be read: {reason_of(error)}; remove it to start again") from error
    raise SystemExit(f"{checkpoint} was begun with other settings; repeat those, or remove it to start again")


def train_epoch(network, optimizer, clips, names, settings, epoch):
    """Train for one epoch, counted from 0; return the mean loss."""
    network.train()
    for group in optimizer.param_groups:  # the rate falls as a cosine, to 2 % of the full rate
        group["lr"] = float(settings.rate * (0.51 + 0.49 * np.cos(np.pi * epoch / settings.epochs)))
    losses, batches = [], training_batches(clips, names, settings, epoch)
    for images, labels in tqdm(batches, desc=f"epoch {epoch + 1}", total=settings.windows // settings.batch):
        loss = functional.cross_entropy(network(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def normalise(network, untrained, images):
    """Scale the features after each block to the root mean square that they have in an untrained network.

    Gatys normalises VGG likewise. The network's output stays the same, because ReLU and max-pool preserve a factor
    and the next layer divides by it. But then the usual weights of style, content and bound, which suit random
    networks, suit this network too.
    """
    pairs = [(net.layer1, net.layer2, net.layer3) for net in (network, untrained)]
    following = [network.layer2[0], network.layer3[0], network.fc]
    features = [images, images]
    for trained_block, untrained_block, after in zip(*pairs, following, strict=True):
        features = [block.eval()(x) for block, x in zip((trained_block, untrained_block), features, strict=True)]
        factor = features[1].square().mean().sqrt() / features[0].square().mean().sqrt()
        trained_block[1].weight *= factor
        trained_block[1].bias *= factor
        after.weight /= factor
        features[0] = factor * features[0]


def draw_confusion(confusion, names, path):
    """Save a picture of the confusion matrix, each row as shares of its class."""
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    size = 3 + 0.17 * len(names)
    figure, ax = plt.subplots(figsize=(size, size), layout="constrained")
    mesh = ax.imshow(shares, cmap="magma", vmin=0, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set(xlabel="predicted class", ylabel="class")
    figure.colorbar(mesh, ax=ax, shrink=0.6, label="share of the windows")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def card(settings, names, clips, state, size):
    """Return the text of the card, for a file of weights of a size [bytes]."""
    options = " ".join(
        f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in vars(settings).items()
        if name not in ("folder", "into", "device")
    )
    first, second, third = settings.channels
    return f"""# {settings.name}

{settings.transform.upper()}, orientation {settings.orientation}, windows of {settings.seconds:g} s; \
{first}, {second} and {third} filters of width {settings.kernelsize}; {size / 1e6:.1f} MB.

{result_table(settings, names, clips, state)}

{weak_classes(names, np.array(state["confusion"]))}

![confusion]({settings.name}.png)

To repeat it:

    python models/train.py FOLDER {options}
"""


def result_table(settings, names, clips, state):
    """Return the table of the card."""
    confusion = np.array(state["confusion"])
    top1, per_class = accuracies(confusion)
    parts = {part: sum(clip.validation == part for clip in clips) for part in (False, True)}
    return f"""| | |
|---|---|
| classes | {len(names)} |
| files to train / to validate, no recording in both | {parts[False]} / {parts[True]} |
| windows validated | {confusion.sum()} |
| top-1 accuracy | {top1:.1%} |
| mean accuracy of the classes | {np.nanmean(per_class):.1%} |
| chance | {1 / len(names):.1%} |
| best of epochs | {state["best_epoch"]} of {state["epoch"]} |
| training time | {state["seconds"] / 60:.1f} minutes on {settings.device} |
| seed | {settings.seed} |"""


def weak_classes(names, confusion):
    """Return a sentence on the classes below 50 %, and one on the classes without validation."""
    pairs = list(zip(accuracies(confusion)[1], names, strict=True))
    failing = [f"{name} {accuracy:.0%}" for accuracy, name in sorted(p for p in pairs if p[0] < 0.5)]
    missing = [name for accuracy, name in pairs if np.isnan(accuracy)]
    return (
        f"Classes below 50 %: {', '.join(failing) or 'none'}. "
        f"Not validated, because there is only one recording: {', '.join(missing) or 'none'}."
    )


def make_transform(settings):
    """Return the transform of the settings, an STFT or a CQT."""
    common = dict(sample_rate=settings.sample_rate, hop_length=settings.hop_length)
    if settings.transform == "stft":
        return transforms.STFT(**common, n_fft=settings.n_fft)
    grid = dict(bins_per_octave=settings.bins_per_octave, fmin=settings.lowest_frequency, n_octaves=settings.octaves)
    return transforms.CQT(**common, **grid)


def make_parameters(settings, image, n_classes):
    """Return the parameters of the audiocnn.CNN that takes images like this one."""
    parameters = dict(zip(("l1channels", "l2channels", "l3channels"), settings.channels, strict=True))
    parameters |= dict(zip(("in_channels", "in_height", "in_width"), image.shape[1:], strict=True))
    return parameters | dict(orientation=settings.orientation, kernelsize=settings.kernelsize, n_classes=n_classes)


def save_pair(network, parameters, weights_path, parameters_path):
    """Save the weights, and the parameters as a pickle."""
    for path in (weights_path, parameters_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Half precision halves the file; the network computes in float32.
    weights = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    write_whole(weights_path, lambda path: torch.save(weights, path))
    write_whole(parameters_path, lambda path: path.write_bytes(pickle.dumps(parameters)))


def main(arguments=None):
    """Train, and write weights, parameters and card."""
    settings = parse_arguments(arguments)
    settings.hop_length = settings.hop_length or (128 if settings.transform == "cqt" else 256)
    clips, names = list_clips(settings.folder, seed=settings.seed, held_out=settings.held_out, fold=settings.fold)
    clips = analyse(clips, names, make_transform(settings), settings)
    parameters = make_parameters(settings, make_image(clips[0].magnitude, 0, settings), len(names))
    network = networks.build_network(parameters, seed=settings.seed).requires_grad_(True).to(settings.device)
    checkpoint = settings.into / f"outputs/training/{settings.name}.checkpoint"
    weights_path = settings.into / f"models/{settings.name}.pth"
    parameters_path = settings.into / f"params/{settings.name}.pkl"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = train(network, clips, names, settings, checkpoint)
    network.load_state_dict(state["best_weights"])
    some = np.random.default_rng(settings.seed).permutation(len(clips))[:64]
    images = torch.cat([make_image(clips[number].magnitude, 0, settings) for number in some])
    normalise(network.cpu(), networks.build_network(parameters, seed=settings.seed), images)
    save_pair(network, parameters, weights_path, parameters_path)
    draw_confusion(np.array(state["confusion"]), names, weights_path.with_suffix(".png"))
    text = card(settings, names, clips, state, weights_path.stat().st_size)
    write_whole(weights_path.with_suffix(".md"), lambda path: path.write_text(text))
    checkpoint.unlink()
    print(f"wrote {weights_path}, its parameters {parameters_path}, and its card {weights_path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
