"""Results and their files: saved whole or not at all, and loaded again.

Conventions
  stem     folder and name of a result without suffix, outputs/NAME-001: its files are stem.wav, stem.json, and
           stem-PICTURE.png; stem-draft.wav and .json until the samples are refined
  report   the content of a json file: settings, what was used, versions, level, losses of every step
  history  the losses of every step, a list of dicts from name to number
"""

import contextlib
import json
import os
import platform
import signal
import threading
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch

import audiocnn
from support.record import plain
from support.settings import Settings
from support.transforms import check_samples, fit_full_scale


@dataclass
class Result:
    """One result in the making: the image, then the samples, and the losses on the way."""

    run: int  # from 0; its seed is that of the settings plus this number
    image: torch.Tensor
    history: list = field(default_factory=list)
    samples: torch.Tensor | None = None
    refinement: list = field(default_factory=list)  # the history of the samples
    begun: list = field(default_factory=list)  # steps after which L-BFGS began anew: 0, and after interrupts
    stem: Path | None = None  # of its files; None until something is saved
    saved: int | None = None  # steps of the refinement when the samples were saved last, drafts not counted

    def begin(self, history, num_steps):
        """Return how many steps are left of num_steps, and note that L-BFGS begins anew where there are some."""
        left = max(0, num_steps - len(history))
        self.begun += [len(self.history) + len(self.refinement)] if left else []
        return left

    def reconstructed(self, samples):
        """Take the samples that the image gave; their refinement begins afresh, and so do their files."""
        self.samples, self.refinement, self.stem, self.saved = samples, [], None, None
        self.begun = [step for step in self.begun if step < len(self.history)]


def level(samples):
    """Peak and root mean square of samples, in dB below full scale."""
    peak, rms = np.abs(samples).max(), np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    decibels = 20 * np.log10(np.maximum([peak, rms], 1e-10))
    return {"peak_dbfs": round(float(decibels[0]), 2), "rms_dbfs": round(float(decibels[1]), 2)}


def new_stem(folder, outname):
    """First free path folder/outname-001, -002, ... without suffix, so that no run overwrites another."""
    names = [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []
    number = 1
    while any(name.startswith(f"{outname}-{number:03d}") for name in names):
        number += 1
    return Path(folder) / f"{outname}-{number:03d}"


def save_result(result, settings, *, used, draft=False, folder="outputs"):
    """Save a result's samples and report, and return the stem; what is saved already is not saved again.

    A draft is saved as stem-draft; the next save takes its number and removes the draft. Every other save gets a new
    number. The report holds the settings that repeat this result alone: its own seed, and the steps that were done.

    Parameters
    ----------
    result : Result
    settings : Settings
        Those that the result was made with.
    used : dict
        What the settings don't say, such as the network's layers.
    """
    if result.saved == len(result.refinement):
        return result.stem
    if result.stem is None or result.saved is not None:
        result.stem = new_stem(folder, settings.outname)
    stem = result.stem.with_name(f"{result.stem.name}-draft")
    settings = settings.of_run(result.run, num_steps=len(result.history), refine_steps=len(result.refinement))
    save_run(
        stem if draft else result.stem,
        fit_full_scale(result.samples.detach().cpu().numpy()),
        settings=settings,
        losses=result.history + result.refinement,
        used=used | {"lbfgs_began_after_steps": result.begun},
    )
    if not draft:
        result.saved = len(result.refinement)
        for ending in (".json", ".wav"):
            stem.with_name(stem.name + ending).unlink(missing_ok=True)
    return result.stem


def save_run(stem, samples, *, settings, losses, used):
    """Write stem.wav (16 bits) and stem.json, each whole or not at all; the json last: where it is, all is saved."""
    check_samples(samples, "the result")
    versions = {"python": platform.python_version(), "torch": torch.__version__, "librosa": librosa.__version__}
    report = dict(settings=_as_dict(settings), used=used, versions=versions, level=level(samples), losses=losses)
    text = json.dumps(report, indent=1, default=str) + "\n"
    sound, description = (stem.with_name(stem.name + ending) for ending in (".wav", ".json"))
    stem.parent.mkdir(parents=True, exist_ok=True)
    rate = settings.sample_rate
    write_whole(sound, lambda path: soundfile.write(path, samples.T, rate, subtype="PCM_16", format="WAV"))
    write_whole(description, lambda path: path.write_text(text))
    return [sound, description]


def _as_dict(settings):
    return {each.name: plain(getattr(settings, each.name)) for each in fields(settings)}


def save_figures(stem, figures):
    """Write figures, a dict from name to Figure, as stem-name.png, each whole or not at all; return the paths."""
    paths = [stem.with_name(f"{stem.name}-{name}.png") for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        write_whole(path, lambda partial, figure=figure: figure.savefig(partial, dpi=100))
    return paths


def write_whole(path, write):
    """Write under another name in the same folder first: a crash or a full disk leaves no half-written file."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def uninterrupted():
    """Hold back interrupts until the block has ended: a second Stop shall not cost the sound that the first kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = []
    before = signal.signal(signal.SIGINT, lambda *_: held.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def load_settings(path):
    """Return the Settings of a saved run, from its json file; running with them repeats the run.

    Settings that earlier versions saved and that exist no more are left out, with a warning if they had an effect.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the json file of a run, such as outputs/NAME-001.json")
    try:
        saved = json.loads(path.read_text())["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the json file of a run ({error!r}); choose one of outputs/") from error
    if "transform" not in saved:  # before there was this name, only the CQT's settings had bins
        saved["transform"] = "cqt" if "bins_per_octave" in saved else "stft"
    names = {each.name for each in fields(Settings)}
    gone = {name: value for name, value in saved.items() if name not in names and name not in ("used", "run")}
    if any(gone.values()):
        warnings.warn(f"{path} has settings that exist no more: {gone}; the result will differ", stacklevel=2)
    settings = Settings(**{name: value for name, value in saved.items() if name in names} | {"sweep": {}})
    return settings.of_run(saved.get("run", 0))


def describe(network, terms):
    """Say what was used beside the settings: the layers of a network, and the sum that was minimised."""
    layers = {
        f"{prefix} {name}".strip(): str(layer)
        for prefix, chain in audiocnn.side_by_side(network).items()
        for name, layer in audiocnn.named_layers(chain).items()
    }
    return {"layers": layers, "terms": [[loss.__name__, layer, weight] for loss, layer, weight in terms if weight]}


def list_reports(folder="outputs", *, last=20):
    """Return the reports of the last runs saved in a folder, a dict from the json's path to the report."""
    paths = sorted(Path(folder).glob("[!.]*.json"), key=lambda path: path.stat().st_mtime)[-last:]
    return {path: json.loads(path.read_text()) for path in paths}
