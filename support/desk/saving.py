"""Results and their files: saved whole or not at all, and loaded again.

Conventions
  stem     folder and name of a result without suffix, outputs/NAME-001: its files are stem.wav, stem.json, and
           stem-PICTURE.png; stem-draft.wav and .json until the samples are refined
  report   the content of a json file: settings, what was used, versions, level, losses of every step
  history  the losses of every step, a list of dicts from name to number
"""

import contextlib
import functools
import json
import os
import platform
import re
import reprlib
import secrets
import signal
import threading
import warnings
from dataclasses import fields
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch

from support.checks import is_file, printable
from support.descent import check_whole, goes_on
from support.desk.checks import device_is_present
from support.desk.pictures import png
from support.desk.settings import DEFAULTS, Settings
from support.pipeline import Result
from support.sound.files import check_samples, fit_full_scale
from support.weights import KNOWN, read_weights, reason_of


def level(samples):
    """Peak and root mean square of samples, in dB below full scale."""
    peak, rms = np.abs(samples).max(), np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return decibels(peak, rms)


def decibels(peak, rms):
    """Return a peak and a root mean square as a dict for the json, in dB below full scale."""
    found = 20 * np.log10(np.maximum([peak, rms], 1e-10))
    return {"peak_dbfs": round(float(found[0]), 2), "rms_dbfs": round(float(found[1]), 2)}


def versions():
    """Return the versions of what makes a sound, for the json."""
    return {"python": platform.python_version(), "torch": torch.__version__, "librosa": librosa.__version__}


def new_stem(folder, outname):
    """First free path folder/outname-001, -002, ... without suffix, so that no run overwrites another."""
    names = [path.name.casefold() for path in Path(folder).iterdir()] if Path(folder).is_dir() else []
    number = 1
    while any(name.startswith(f"{outname}-{number:03d}".casefold()) for name in names):
        number += 1
    return Path(folder) / f"{outname}-{number:03d}"


def of_number(folder, outname, ending):
    """Return the paths folder/outname-NUMBER and an ending, by their numbers, which have three digits or more."""
    name = re.compile(rf"{re.escape(outname)}-([0-9]{{3,}}){re.escape(ending)}")
    found = [(int(match[1]), path) for path in Path(folder).glob("*") if (match := name.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def check_can_save(outname, folder="outputs"):
    """Make a folder and try to write a file there, with a name as long as those of a result; OSError says why not."""
    probe = Path(folder) / f".{outname}-{secrets.token_hex(10)}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("This file can be deleted.")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"results can't be saved in {probe.parent.absolute()} ({error.strerror}): make it a folder that can be "
            "written; where the name is too long, set a shorter outname"
        ) from error


def save_result(result, *, used, kept=None, draft=False, folder="outputs"):
    """Save a result's samples and report, and return the stem; what is saved already is not saved again.

    A draft is saved as NAME-001-draft; the next save takes its number and removes the draft. Every other save gets a
    new number, and no file is ever overwritten. The report holds the settings that repeat this result alone: its own
    seed, and the steps that were done.

    Parameters
    ----------
    result : pipeline.Result
        With the settings that it was made with.
    used : dict
        What the cells used, see truth.describe.
    kept : np.ndarray or None
        Samples that must stay where the result has the same, see files.fit_full_scale.
    """
    steps, settings = (len(result.history), len(result.refinement)), result.settings
    is_saved = result.saved and result.saved[1] == steps and Path(f"{result.saved[0]}.json").is_file()
    if is_saved and result.saved[0].name.rpartition("-")[0] == settings.outname:
        return result.saved[0]
    began = result.begun + [len(result.history) + step for step in result.begun_to_refine]
    report = {
        "settings": settings.of_run(result.run, num_steps=steps[0], refine_steps=steps[1]).plain(),
        "used": used | {"optimizer_began_after_steps": began, "whole_losses": result.whole},
        "losses": result.history + result.refinement,
    }
    content = fit_full_scale(result.samples.detach().cpu().numpy(), kept), settings.sample_rate, report
    try:
        if draft:
            result.draft = _save_under_number(None, folder, settings.outname, "-draft", content)
            return result.draft
        stem = _save_under_number(result.draft, folder, settings.outname, "", content)
    except (OSError, soundfile.SoundFileError) as error:
        name = f"results[{result.run}]"
        raise OSError(
            f"run {result.run + 1} is not saved ({error}); its sound is still in this kernel: make place in {folder}/ "
            f"and run this cell again, or save the sound elsewhere: saving.save_result({name}, "
            f"used=used_by({name}), folder='/another/folder')"
        ) from error
    for ending in (".json", ".wav") if result.draft else ():
        with contextlib.suppress(OSError):  # gone, or in a folder that can't be written any more
            Path(f"{result.draft}{ending}").unlink()
    result.draft, result.saved = None, (stem, steps)
    return stem


def _save_under_number(draft, folder, outname, ending, content):
    # Under the number of a draft of this name, or under a new one.
    number = Path(str(draft).removesuffix("-draft"))
    is_kept = draft and number.name.rpartition("-")[0] == outname and number.parent == Path(folder)
    while True:
        stem = Path(f"{number if is_kept else new_stem(folder, outname)}{ending}")
        try:
            save_run(stem, *content)
            return stem
        except FileExistsError:  # another process took the number meanwhile
            if not stem.parent.is_dir():
                raise
            is_kept = False


def save_run(stem, samples, sample_rate, report):
    """Write stem.wav (16 bits) and stem.json, each whole or not at all; the json last: where it is, all is saved.

    The json holds the report, the versions and the level. Raises FileExistsError where there is such a wav already.
    """
    check_samples(samples, "the result")
    text = json.dumps({"versions": versions(), "level": level(samples)} | report, indent=1) + "\n"
    sound, description = Path(f"{stem}.wav"), Path(f"{stem}.json")
    stem.parent.mkdir(parents=True, exist_ok=True)
    write = functools.partial(soundfile.write, data=samples.T, samplerate=sample_rate, subtype="PCM_16", format="WAV")
    write_whole(sound, write, overwrite=False)
    write_whole(description, lambda path: path.write_text(text))
    return [sound, description]


def save_figures(stem, figures):
    """Write figures, a dict from name to Figure, as stem-name.png, each whole or not at all; return the paths."""
    paths = {Path(f"{stem}-{name}.png"): figure for name, figure in figures.items()}
    for path, figure in paths.items():
        write_whole(path, lambda partial, figure=figure: partial.write_bytes(png(figure)))
    return list(paths)


def write_whole(path, write, *, overwrite=True):
    """Write under another name in the same folder first: a crash or a full disk leaves no half-written file.

    Raises FileExistsError where overwrite is False and the path exists, also if another process made it just now.
    """
    partial = path.with_name(f".partial-{secrets.token_hex(8)}{path.suffix}")  # a name that nobody has made a link of
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
    """Hold back an interrupt until the block has ended, so that the sound is not lost; the next one ends the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = []

    def hold(*_):
        if held:  # 10,000 phase iterations take minutes
            raise KeyboardInterrupt
        held.append(True)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


ALL = "*"
# Of the parts of a report that are read again; a dict gives the kinds of some of its keys, or that of all.
REPORT = {
    "settings": {"own": dict},
    "used": {
        "whole_losses": {ALL: float},
        "not_in_settings": [str],
        "optimizer_began_after_steps": [int],
        "style_distance": float,
        "excerpts": {ALL: {ALL: list}},
    },
    "level": {ALL: float},
    "losses": [{ALL: float}],
}
MOST_BYTES = 2**25  # of a json: about 200,000 steps; reading takes up to 1 GB of memory


def read_report(path):
    """Return the report of a run, from its json file; ValueError names the file and what is wrong with it."""
    path, name = Path(path), printable(path)
    if not is_file(path):  # a FIFO would never end
        raise FileNotFoundError(f"{name} is not a file; give the json file of a run, such as outputs/NAME-001.json")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MB")
        report = json.loads(path.read_bytes(), parse_int=_whole)
        _check_kind("the file", report, REPORT)
        if "settings" not in report or _is_deep(report["settings"]):
            raise ValueError("it has no settings, or lists in lists that no setting has")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} is not the json file of a run ({reason_of(error)}); choose one of outputs/"
        ) from error
    return {"used": {}, "level": {}, "losses": []} | report


def _whole(digits):
    return int(digits) if len(digits) < 4000 else float(digits)  # infinite, which no setting may be


def _check_kind(name, value, kind):
    if not isinstance(value, type(kind) if isinstance(kind, dict | list) else kind):
        raise ValueError(f"{name} holds {reprlib.repr(value)}")
    if isinstance(kind, list):
        for each in value:
            _check_kind(name, each, kind[0])
    elif isinstance(kind, dict):
        for key in value.keys() if ALL in kind else value.keys() & kind.keys():
            _check_kind(repr(key), value[key], kind.get(key, kind.get(ALL)))


def _is_deep(value, left=20):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not left or any(_is_deep(each, left - 1) for each in inner)


def load_settings(path):
    """Return the Settings of a saved run, from its json file; running with them repeats the run.

    A warning says what the settings would not repeat: parts of cells, an interrupted descent, another folder's sounds.
    """
    report, path = read_report(path), printable(path)
    saved, used = report["settings"], report["used"]
    unknown = [name for name in saved if name not in DEFAULTS]
    if unknown:
        raise ValueError(
            f"{path} has settings that are not known: {', '.join(map(printable, unknown[:5]))}; take them "
            "out of the file"
        )
    if "device" in saved and not device_is_present(saved["device"]):
        saved["device"] = None
    if used.get("not_in_settings"):
        made = f"cells of the notebook made {', '.join(used['not_in_settings'])}, see 'used' in the file"
        warnings.warn(f"{path}: {made}; the settings alone give another sound", stacklevel=2)
    began = used.get("optimizer_began_after_steps", [])
    if began not in ([], [0], [0, saved.get("num_steps")]):
        again = f"the optimiser began again after steps {began}"
        warnings.warn(f"{path}: {again}; one run to the end gives another result", stacklevel=2)
    with warnings.catch_warnings(action="ignore"):  # those of settings without effect were shown before
        try:
            settings = Settings(**saved | {"sweep": {}}).of_run(0)
        except (OSError, ValueError, OverflowError) as error:  # the last of whole numbers with hundreds of digits
            raise ValueError(f"{path}: {str(error)[:600]}") from error
    if other := settings.with_other_excerpts(used.get("excerpts", {})):
        had = f"{', '.join(other)} had other files in this run, see 'excerpts' in the file"
        warnings.warn(f"{path}: {had}; the settings give another sound now", stacklevel=2)
    return settings


def save_state(result, path):
    """Write an unfinished result, to be taken up by load_state in another process."""
    kept = {each.name: getattr(result, each.name) for each in fields(result)}
    kept |= {"settings": result.settings.plain(), "objective": None}  # which the cells, or run, make again
    write_whole(Path(path), lambda partial: torch.save(kept, partial))


RESULT = {each.name: each.type for each in fields(Result)}  # an unfinished result in a file, and what its parts hold
RESULT |= {name: {ALL: float} for name in ("start", "noise")}
RESULT |= {name: [{ALL: float}] for name in ("history", "refinement")}
RESULT |= {"changed": [str], "begun": [int], "begun_to_refine": [int], "first": torch.Tensor}
KNOWN_PATHS = {f"{type(Path()).__module__}.{type(Path()).__name__}": Path}


def load_state(path, like):
    """Return an unfinished result that save_state wrote, in place of one that was begun with the present settings.

    The file holds what the optimiser knew, so that the result is the same, bit for bit on the same machine, as without
    a pause; a warning says where it does not, because no show.progress saw the last step.
    """
    settings = like.settings
    if not is_file(path):
        raise FileNotFoundError(f"{printable(path)} is not a file; give one that save_state wrote")
    try:
        kept = read_weights(path, KNOWN | KNOWN_PATHS)
        _check_kind("the file", kept, RESULT)
        for name in ("memory", "sample_memory"):
            check_whole(kept[name])
        names = [name for name in DEFAULTS if name not in ("num_steps", "refine_steps", "outname", "device", "threads")]
        changed = [name for name in names if kept["settings"][name] != settings.plain()[name]]
        if kept["image"].shape != like.image.shape:
            raise ValueError(f"its image is {list(kept['image'].shape)} and not {list(like.image.shape)}, as the start")
        tensors = {name: each.to(like.image.device) for name, each in kept.items() if isinstance(each, torch.Tensor)}
        result = Result(**kept | tensors | {"settings": settings, "loaded": kept["samples"] is not None})
    except Exception as error:  # a damaged or foreign file raises nearly anything
        raise ValueError(
            f"{printable(path)} is not an unfinished result of save_state that fits this start: "
            f"{reason_of(error)}; give another "
            "file, or run 'The start' with the settings of this file"
        ) from error
    if changed:
        warnings.warn(f"{printable(path)} was begun with other values of {', '.join(changed)}", stacklevel=2)
    memory, tensor, history, steps = result.memory, result.image, result.history, settings.num_steps
    if result.samples is not None:
        memory, tensor, history, steps = result.sample_memory, result.samples, result.refinement, settings.refine_steps
    if 0 < len(history) < steps and not goes_on(memory, tensor):
        words = f"the optimiser begins again after step {len(history)}, and the result differs from one without a pause"
        warnings.warn(f"{printable(path)} does not hold what the optimiser knew: {words}", stacklevel=2)
    return result
