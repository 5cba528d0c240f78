"""Train a network of audiocnn on labelled sounds: python models/train.py FOLDER --name NAME.

FOLDER has one sub-folder for each class, or is a checkout of ESC-50 (audio/ and meta/esc50.csv).
Writes models/NAME.pth, params/NAME.pkl and the card models/NAME.md with models/NAME.png. After an
interrupt the same command goes on from the last finished epoch, to the same weights.

Sounds are split into training and validation by recording, never by window. In a class folder, file
names share a recording if they agree up to "__" (key60__soft.wav, key60__loud.wav); ESC-50 uses its
folds. Sounds shorter than a window are filled up with silence.
"""

import argparse
import csv
import functools
import os
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
import audiocnn  # noqa: E402

ENDINGS = {".wav", ".flac", ".ogg", ".mp3"}


@dataclass
class Clip:
    """A sound file's spectrogram, its class and its part in the split."""

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
    parser.add_argument("--orientation", choices=audiocnn.ORIENTATIONS, default="freq")
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
    parser.add_argument("--device", default=audiocnn.best_device())
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
    """Compute every clip's spectrogram; count and drop those that can't be read, count those too short."""
    frames = n_frames(settings)
    window = int(settings.seconds * settings.sample_rate)
    shortest = max(window, 2 * settings.sample_rate if settings.transform == "cqt" else settings.n_fft)
    dropped, short, kept = [], 0, []
    for clip in tqdm(clips, desc="spectrograms"):
        try:
            samples = audiocnn.load_audio(clip.path, sample_rate=settings.sample_rate)
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
        warnings.warn(f"{short} of {len(kept)} files are shorter than {settings.seconds} s: filled up", stacklevel=2)
    for label, name in enumerate(names):
        if not any(clip.label == label and not clip.validation for clip in kept):
            raise SystemExit(f"no readable file is left to train the class {name}; add some, or remove the class")
    return kept


def n_frames(settings):
    """Return the number of frames in a window."""
    return 1 + int(settings.seconds * settings.sample_rate) // settings.hop_length


def make_image(magnitude, first, settings, gain=1.0):
    """Return a window of a spectrogram as the network's image [shape=(1, channels, height, width)]."""
    part = gain * magnitude[:, first : first + n_frames(settings)].astype(np.float32)
    return audiocnn.to_image(audiocnn.compress(part, use01scale=True), settings.orientation)


def training_batches(clips, names, settings, epoch):
    """Yield images and labels of an epoch: classes evenly, places and levels (0 to -24 dB) at random."""
    rng = np.random.default_rng([settings.seed, epoch])  # of this epoch alone, so that a resumed run repeats it
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
    """Top-1 accuracy, and accuracy of each class (NaN where none was validated)."""
    with np.errstate(invalid="ignore"):
        return confusion.trace() / max(1, confusion.sum()), confusion.diagonal() / confusion.sum(axis=1)


def train(network, clips, names, settings, checkpoint):
    """Train with a checkpoint after every epoch; return the best state, its confusion, and the history."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-2)
    options = {name: str(value) for name, value in vars(settings).items() if name != "device"}
    state = dict(
        options=options, epoch=0, best=-1.0, best_epoch=0, best_weights=None, confusion=None, history=[], seconds=0.0
    )
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=settings.device, weights_only=True)
        if state["options"] != options:
            raise SystemExit(f"{checkpoint} was begun with other settings; repeat those, or remove it to start afresh")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    while state["epoch"] < settings.epochs and state["epoch"] - state["best_epoch"] < settings.patience:
        began, epoch = time.perf_counter(), state["epoch"]
        losses = []
        network.train()
        for group in optimizer.param_groups:  # cosine from the full rate to nearly nothing
            group["lr"] = float(settings.rate * (0.51 + 0.49 * np.cos(np.pi * epoch / settings.epochs)))
        batches = training_batches(clips, names, settings, epoch)
        for images, labels in tqdm(batches, desc=f"epoch {epoch + 1}", total=settings.windows // settings.batch):
            loss = functional.cross_entropy(network(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        confusion = validate(network, clips, names, settings)
        top1, per_class = accuracies(confusion)
        mean = float(np.nanmean(per_class)) if confusion.any() else 0.0
        tqdm.write(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, top-1 {top1:.3f}, mean per class {mean:.3f}")
        state["history"].append([float(np.mean(losses)), float(top1), mean])
        state["epoch"] = epoch + 1
        if mean > state["best"]:
            weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
            state |= dict(best=mean, best_epoch=epoch + 1, best_weights=weights, confusion=confusion.tolist())
        state["seconds"] += time.perf_counter() - began
        state |= dict(network=network.state_dict(), optimizer=optimizer.state_dict())
        write_whole(checkpoint, functools.partial(torch.save, state))
    return state


@torch.no_grad()
def normalise(network, untrained, images):
    """Scale each block's activations to the size that they have in an untrained network.

    Gatys normalises VGG likewise. What the network computes in the end stays the same, since ReLU and
    max-pool pass a factor on and the next layer takes it back; but the weights of style, content and
    bound that are known from random networks hold for this one too.
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


def write_whole(path, write):
    """Write under another name first, so that an interrupt leaves no half-written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    write(partial)
    os.replace(partial, path)


def draw_confusion(confusion, names, path):
    """Draw the confusion matrix, each row as shares of its class."""
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    size = 3 + 0.17 * len(names)
    figure, ax = plt.subplots(figsize=(size, size), layout="constrained")
    mesh = ax.imshow(shares, cmap="magma", vmin=0, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set(xlabel="heard as", ylabel="class")
    figure.colorbar(mesh, ax=ax, shrink=0.6, label="share of the windows")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def card(settings, names, clips, state, size):
    """Text of the card."""
    confusion = np.array(state["confusion"])
    top1, per_class = accuracies(confusion)
    counted = [(accuracy, name) for accuracy, name in zip(per_class, names, strict=True) if np.isfinite(accuracy)]
    failing = [f"{name} {accuracy:.0%}" for accuracy, name in sorted(counted) if accuracy < 0.5]
    unheard = [name for accuracy, name in zip(per_class, names, strict=True) if not np.isfinite(accuracy)]
    parts = {part: sum(clip.validation == part for clip in clips) for part in (False, True)}
    options = " ".join(
        f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in vars(settings).items()
        if name not in ("folder", "into", "device")
    )
    lines = [
        f"# {settings.name}",
        "",
        f"{settings.transform.upper()}, orientation {settings.orientation}, windows of {settings.seconds:g} s; "
        f"{settings.channels[0]}, {settings.channels[1]} and {settings.channels[2]} filters of width "
        f"{settings.kernelsize}; {size / 1e6:.1f} MB.",
        "",
        "| | |",
        "|---|---|",
        f"| classes | {len(names)} |",
        f"| files to train / to validate, no recording in both | {parts[False]} / {parts[True]} |",
        f"| windows validated | {confusion.sum()} |",
        f"| top-1 accuracy | {top1:.1%} |",
        f"| mean accuracy of the classes | {np.nanmean(per_class):.1%} |",
        f"| chance | {1 / len(names):.1%} |",
        f"| best of epochs | {state['best_epoch']} of {state['epoch']} |",
        f"| training time | {state['seconds'] / 60:.1f} minutes on {settings.device} |",
        f"| seed | {settings.seed} |",
        "",
        f"Classes below 50 %: {', '.join(failing) or 'none'}. "
        f"Not validated, for want of a second recording: {', '.join(unheard) or 'none'}.",
        "",
        f"![confusion]({settings.name}.png)",
        "",
        "To repeat it:",
        "",
        f"    python models/train.py FOLDER {options}",
        "",
    ]
    return "\n".join(lines)


def main(arguments=None):
    """Train, and write weights, parameters and card."""
    settings = parse_arguments(arguments)
    cqt = settings.transform == "cqt"
    settings.hop_length = settings.hop_length or (128 if cqt else 256)
    if cqt:
        transform = audiocnn.CQT(
            sample_rate=settings.sample_rate,
            hop_length=settings.hop_length,
            bins_per_octave=settings.bins_per_octave,
            fmin=settings.lowest_frequency,
            n_octaves=settings.octaves,
        )
    else:
        transform = audiocnn.STFT(
            sample_rate=settings.sample_rate, n_fft=settings.n_fft, hop_length=settings.hop_length
        )
    clips, names = list_clips(settings.folder, seed=settings.seed, held_out=settings.held_out, fold=settings.fold)
    clips = analyse(clips, names, transform, settings)
    image = make_image(clips[0].magnitude, 0, settings)
    parameters = dict(zip(("l1channels", "l2channels", "l3channels"), settings.channels, strict=True))
    parameters |= dict(zip(("in_channels", "in_height", "in_width"), image.shape[1:], strict=True))
    parameters |= dict(orientation=settings.orientation, kernelsize=settings.kernelsize, n_classes=len(names))
    network = audiocnn.build_network(parameters, seed=settings.seed).requires_grad_(True).to(settings.device)
    checkpoint = settings.into / "outputs" / "training" / f"{settings.name}.checkpoint"
    state = train(network, clips, names, settings, checkpoint)
    network.load_state_dict(state["best_weights"])
    some = np.random.default_rng(settings.seed).permutation(len(clips))[:64]
    images = torch.cat([make_image(clips[number].magnitude, 0, settings) for number in some])
    normalise(network.cpu(), audiocnn.build_network(parameters, seed=settings.seed), images)
    # Half precision halves the files; the network computes in float32.
    weights = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    weights_path = settings.into / "models" / f"{settings.name}.pth"
    write_whole(weights_path, lambda path: torch.save(weights, path))
    write_whole(
        settings.into / "params" / f"{settings.name}.pkl", lambda path: path.write_bytes(pickle.dumps(parameters))
    )
    draw_confusion(np.array(state["confusion"]), names, weights_path.with_suffix(".png"))
    text = card(settings, names, clips, state, weights_path.stat().st_size)
    write_whole(weights_path.with_suffix(".md"), lambda path: path.write_text(text))
    checkpoint.unlink()
    print(f"wrote {weights_path}, its parameters in params/, and its card {weights_path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
