"""Past runs: found by their settings, compared, and as a pandas frame.

Conventions
  report  the content of a run's json file, see saving.py; a run's own settings stand beside the others
  runs    a dict from the path of a run's json file to its report, newest first
"""

import contextlib
import itertools
import os
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from support.checks import check_choice
from support.desk.saving import read_report
from support.desk.settings import DEFAULTS, LAYERS, NO_STEP, RECIPES, STEP_OF, STEPS, Settings, plain


def find_runs(folder="outputs", *, last=None, names=None, **settings):
    """Return the runs in a folder whose settings have these values, newest first.

    Parameters
    ----------
    last : int or None
        At most so many runs; None: all.
    names : list of str or None
        Only runs of these outnames.
    settings : numbers, strings, None, and lists and dicts of them
        Values as the json files hold them, with None filled in: recipe="gatys", content_weight=10.

    Returns
    -------
    runs : dict
        From the path of the json file to the report. Files without a sound of the same name are not runs; a warning
        names the files that have a sound and can't be read.
    """
    reports, unread = {}, []
    for path in sorted(Path(folder).glob("[!.]*.json"), key=saving_time, reverse=True):
        try:
            if has_sound(path):
                reports[path] = _read(path)
        except (OSError, ValueError) as error:  # also where another process removes its draft meanwhile
            unread += [str(error)] * (has_sound(path) and os.path.lexists(path))
    if unread:
        more = f"; and {len(unread) - 5} more" if len(unread) > 5 else ""
        warnings.warn(f"left out of the runs: {'; '.join(unread[:5])}{more}", stacklevel=2)
    known = {*DEFAULTS, *(name for report in reports.values() for name in report["settings"])}
    for name in settings:
        check_choice("the setting", name, sorted(known))
    asked = {name: _comparable(name, value) for name, value in settings.items()}
    found = (
        (path, report)
        for path, report in reports.items()
        if (names is None or report["settings"]["outname"] in names)
        and all(_comparable(name, report["settings"].get(name)) == value for name, value in asked.items())
    )
    return dict(itertools.islice(found, last))


def saving_time(path):
    """Return when a file was saved, a datetime; the earliest one where the file is gone."""
    with contextlib.suppress(OSError, ValueError, OverflowError):  # of times before the year 1 or after 9999
        return datetime.fromtimestamp(path.stat().st_mtime)
    return datetime.min


def has_sound(path):
    """Whether there is a sound beside a run's json file; a link could show any file of the machine."""
    sound = path.with_suffix(".wav")
    return sound.is_file() and not sound.is_symlink()


def _read(path):
    # The report of a run, with its own settings beside the others.
    report = read_report(path)
    settings = DEFAULTS | report["settings"] | report["settings"].get("own", {})
    check_choice(f"{path}: recipe", settings["recipe"], RECIPES)
    check_choice(f"{path}: transform", settings["transform"], ("stft", "cqt"))
    return report | {"settings": settings}


def _comparable(name, value):
    # A setting's value as the json file of a run holds it, whichever way it was typed.
    value = plain(value) if isinstance(value, tuple | Mapping) else value
    if name in LAYERS and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return dict.fromkeys(value, 1.0)
    return str(value) if isinstance(value, Path) else value


def differing_settings(runs):
    """Name the settings in which runs differ, in the order of the steps.

    A setting differs between runs where the setting has an effect. Left out are settings that have in all these runs
    the value that the run's own recipe fills in: where the recipes differ, a dozen settings follow.
    """
    names = dict.fromkeys(sorted((n for n in DEFAULTS if STEP_OF[n] in STEPS), key=lambda n: STEPS.index(STEP_OF[n])))
    names |= dict.fromkeys(name for report in runs.values() for name in report["settings"])
    effective = [effective_settings(report) for report in runs.values()]
    of_recipes = [Settings.filled_in(_as_object(report["settings"])) for report in runs.values()]
    differing = []
    for name in names:
        pairs = zip(effective, of_recipes, strict=True)
        pairs = [(each[name], _comparable(name, own.get(name))) for each, own in pairs if name in each]
        removed = bool(pairs) and any(name not in report["settings"] for report in runs.values())
        differs = removed or any(value != pairs[0][0] for value, _ in pairs)
        if differs and any(value != own for value, own in pairs):
            differing.append(name)
    return differing


def effective_settings(report):
    """Return the settings of a run that its sound depends on: without filters in "gatys", for example."""
    settings = report["settings"]
    names = {name for names in Settings.without_effect(_as_object(settings)).values() for name in names}
    names |= {"own", "threads", *(name for name in DEFAULTS if STEP_OF[name] == NO_STEP)}
    if settings["recipe"] != "gatys" or settings["use_style_net"]:
        names |= {"model_path", "param_pkl"}  # without a warning, because the notebooks always have them
    return {name: value for name, value in settings.items() if name not in names}


def _as_object(saved):
    # What checks and recipes read of a Settings object; the files that the settings name may be gone.
    styles = saved["STYLE_FILENAME"]
    more = dict(
        styles=styles if isinstance(styles, list) else [styles], is_transfer=saved["CONTENT_FILENAME"] is not None
    )
    return SimpleNamespace(**saved | more)


def last_losses(report):
    """Return the losses of a run's last step, a dict from name to number; empty where no step was done."""
    return (report["losses"] or [{}])[-1]


def last_shares(report):
    """Return these losses as shares of their start, by name."""
    whole = report["used"].get("whole_losses", {})
    return {name: loss / whole[name] for name, loss in last_losses(report).items() if whole.get(name)}


def frame_of_runs(folder="outputs", *, last=None, names=None, **settings):
    """Return runs, newest first, as a pandas frame, see find_runs: the settings that differ, losses, distance.

    ImportError where pandas is not installed: nothing else in this project needs pandas.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("pandas is not installed; run pip install pandas, or use past.find_runs") from error
    runs = find_runs(folder, last=last, names=names, **settings)
    differing = differing_settings(runs)
    rows = [
        {name: effective_settings(report).get(name) for name in differing}
        | {f"loss {name}": value for name, value in last_losses(report).items()}
        | {"style_distance": report["used"].get("style_distance")}
        | {"saved": saving_time(path), "sound": str(path.with_suffix(".wav"))}
        for path, report in runs.items()
    ]
    return pandas.DataFrame(rows, index=pandas.Index([path.stem for path in runs], name="run"))
