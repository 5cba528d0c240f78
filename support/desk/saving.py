"""Results and their files: saved whole or not at all, and loaded again.

Conventions
  stem     folder and name of a result without suffix, outputs/NAME-001: its files are stem.wav, stem.json, and
           stem-PICTURE.png; stem-draft.wav and .json until the samples are refined
  report   the content of a json file: settings, what was used, versions, level, losses of every step
  history  the losses of every step, a list of dicts from name to number
"""

import contextlib
import functools
import glob
import json
import os
import platform
import signal
import threading
import warnings
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch

import audiocnn
from support.checks import device_is_present
from support.record import plain
from support.settings import OLD_NAMES, Settings
from support.transforms import check_samples, fit_full_scale

# Of runs that were saved before there were these settings.
BEFORE = dict(pattern_share=0.0, redraw=0, content_level="same", diversity_weight=0.0)


@dataclass
class Result:
    """One result in the making: the image, then the samples, and the losses on the way."""

    run: int  # from 0; its seed is that of the settings plus this number
    image: torch.Tensor
    noise: dict = field(default_factory=dict)  # losses of noise, where the start's are 0
    start: dict = field(default_factory=dict)  # losses of the first evaluation, before any step
    history: list = field(default_factory=list)
    samples: torch.Tensor | None = None
    refinement: list = field(default_factory=list)  # the history of the samples
    begun: list = field(default_factory=list)  # steps of history after which L-BFGS began anew: 0, and after interrupts
    begun_to_refine: list = field(default_factory=list)  # the same, of refinement
    draft: Path | None = None  # stem of the files that hold the draft
    saved: tuple = ()  # of the files that hold the samples: their stem, and how many steps they have

    def whole_of(self, name):
        """Return the value of a loss that counts as 100 %: that of the start, or of noise where the start has none.

        0 where neither has this loss, as for the bound.
        """
        value = self.noise.get(name, self.start.get(name, 0))
        return value if value > 1e-6 * self.start.get("total", 0) else 0

    def whole_losses(self):
        """Return the values that count as 100 %, by name: of whole_of, or the total of the start."""
        return {name: self.whole_of(name) or self.start["total"] for name in self.start}

    def shares(self, losses):
        """Return losses, by name, as shares of whole_losses; all are 1 where nothing is known of the start."""
        whole = self.whole_losses()
        return {name: loss / (whole.get(name) or loss or 1) for name, loss in losses.items()}

    def begin(self, num_steps):
        """Return how many steps of the image are done; note that L-BFGS begins anew if num_steps are more."""
        return self._begin(self.begun, self.history, num_steps)

    def begin_to_refine(self, num_steps):
        """Return how many steps of the samples are done, and note the same."""
        return self._begin(self.begun_to_refine, self.refinement, num_steps)

    @staticmethod
    def _begin(begun, history, num_steps):
        if len(history) < num_steps and len(history) not in begun:
            begun.append(len(history))
        return len(history)

    def reconstructed(self, samples):
        """Take the samples that the image gave; their refinement begins afresh, and so do their files."""
        self.samples, self.refinement, self.begun_to_refine, self.draft, self.saved = samples, [], [], None, ()


def level(samples):
    """Peak and root mean square of samples, in dB below full scale."""
    peak, rms = np.abs(samples).max(), np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    decibels = 20 * np.log10(np.maximum([peak, rms], 1e-10))
    return {"peak_dbfs": round(float(decibels[0]), 2), "rms_dbfs": round(float(decibels[1]), 2)}


def new_stem(folder, outname):
    """First free path folder/outname-001, -002, ... without suffix, so that no run overwrites another."""
    names = [path.name.casefold() for path in Path(folder).iterdir()] if Path(folder).is_dir() else []
    number = 1
    while any(name.startswith(f"{outname}-{number:03d}".casefold()) for name in names):
        number += 1
    return Path(folder) / f"{outname}-{number:03d}"


def save_result(result, settings, *, used, draft=False, folder="outputs"):
    """Save a result's samples and report, and return the stem; what is saved already is not saved again.

    A draft is saved as NAME-001-draft; the next save takes its number and removes the draft. Every other save gets a
    new number, and no file is ever overwritten. The report holds the settings that repeat this result alone: its own
    seed, and the steps that were done.

    Parameters
    ----------
    result : Result
    settings : Settings
        Those that the result was made with.
    used : dict
        What the settings don't say, such as the network's layers.
    """
    steps = (len(result.history), len(result.refinement))
    if (
        result.saved
        and result.saved[1] == steps
        and result.saved[0].with_name(f"{result.saved[0].name}.json").is_file()
    ):
        return result.saved[0]
    began = result.begun + [len(result.history) + step for step in result.begun_to_refine]
    content = dict(
        samples=fit_full_scale(result.samples.detach().cpu().numpy()),
        settings=settings.of_run(result.run, num_steps=steps[0], refine_steps=steps[1]),
        losses=result.history + result.refinement,
        used=used | {"lbfgs_began_after_steps": began, "whole_losses": result.whole_losses()},
    )
    if draft:
        result.draft = _save_under_new_number(folder, settings.outname, "-draft", content)
        return result.draft
    number = result.draft and result.draft.with_name(result.draft.name.removesuffix("-draft"))
    if (
        number
        and number.name[:-4] == settings.outname
        and not list(number.parent.glob(f"{glob.escape(number.name)}.*"))
    ):
        save_run(number, **content)
    else:
        number = _save_under_new_number(folder, settings.outname, "", content)
    for ending in (".json", ".wav") if result.draft else ():
        result.draft.with_name(result.draft.name + ending).unlink(missing_ok=True)
    result.draft, result.saved = None, (number, steps)
    return number


def _save_under_new_number(folder, outname, ending, content):
    while True:
        stem = new_stem(folder, outname)
        stem = stem.with_name(stem.name + ending)
        try:
            save_run(stem, **content)
            return stem
        except FileExistsError:  # another process took the number meanwhile
            if not stem.parent.is_dir():
                raise


def save_run(stem, samples, *, settings, losses, used):
    """Write stem.wav (16 bits) and stem.json, each whole or not at all; the json last: where it is, all is saved.

    Raises FileExistsError where there is such a wav already.
    """
    check_samples(samples, "the result")
    versions = {"python": platform.python_version(), "torch": torch.__version__, "librosa": librosa.__version__}
    report = dict(settings=_as_dict(settings), used=used, versions=versions, level=level(samples), losses=losses)
    text = json.dumps(report, indent=1) + "\n"
    sound, description = (stem.with_name(stem.name + ending) for ending in (".wav", ".json"))
    stem.parent.mkdir(parents=True, exist_ok=True)
    rate = settings.sample_rate
    write = functools.partial(soundfile.write, data=samples.T, samplerate=rate, subtype="PCM_16", format="WAV")
    write_whole(sound, write, overwrite=False)
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


def write_whole(path, write, *, overwrite=True):
    """Write under another name in the same folder first: a crash or a full disk leaves no half-written file.

    Raises FileExistsError where overwrite is False and the path exists, also if another process made it just now.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        write(partial)
        if not overwrite:
            _claim(path, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _claim(path, partial):
    # A link, unlike a file that is replaced, can't be made twice, whoever else tries. Some disks have no links.
    try:
        os.link(partial, path)
    except OSError as error:
        if path.exists():
            raise FileExistsError(f"{path} exists already") from error


@contextlib.contextmanager
def uninterrupted():
    """Hold back interrupts until the block has ended, so that a second interrupt does not lose the sound."""
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

    Settings that were removed since are left out, with a warning if they had an effect.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the json file of a run, such as outputs/NAME-001.json")
    try:
        report = json.loads(path.read_text())
        saved, used = report["settings"], report.get("used", {})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the json file of a run ({error!r}); choose one of outputs/") from error
    saved = up_to_date(saved)
    names = {each.name for each in fields(Settings)}
    gone = {name: value for name, value in saved.items() if name not in names}
    if any(gone.values()):
        warnings.warn(f"{path} has settings that were removed: {gone}; the result will differ", stacklevel=2)
    if "device" in saved and not device_is_present(saved["device"]):
        saved["device"] = None
    began = used.get("lbfgs_began_after_steps", [])
    if began not in ([], [0], [0, saved.get("num_steps")]):
        warnings.warn(
            f"{path}: L-BFGS began anew after steps {began}; one run to the end gives another result", stacklevel=2
        )
    with warnings.catch_warnings(action="ignore"):  # those of settings without effect were shown before
        settings = Settings(**{name: value for name, value in saved.items() if name in names} | {"sweep": {}})
    return settings.of_run(0)


def up_to_date(saved):
    """Return the settings of a json file as this version saves them; settings that were removed since stay."""
    before = BEFORE | {"transform": "cqt" if "bins_per_octave" in saved else "stft"}  # only the CQT's had bins
    settings = {each.name: each.default for each in fields(Settings) if each.default is not MISSING}
    settings |= before | {name: value for name, value in saved.items() if name not in ("used", "run")}
    recipe = OLD_NAMES.get(str(settings["recipe"]), settings["recipe"])
    return settings | dict(recipe=recipe, seed=settings["seed"] + saved.get("run", 0))


def describe(network, terms):
    """Say what was used beside the settings: the layers of a network, and the sum that was minimised."""
    layers = {
        f"{prefix} {name}".strip(): str(layer)
        for prefix, chain in audiocnn.side_by_side(network).items()
        for name, layer in audiocnn.named_layers(chain).items()
    }
    return {"layers": layers, "terms": [[loss.__name__, layer, weight] for loss, layer, weight in terms if weight]}
