"""Checks of one setting, functions of its name and value: every message says what is allowed and what to do."""

import difflib
import functools
import math
from pathlib import Path

import torch

from support.checks import PARAMETERS, check_choice, check_mapping, check_number, is_file, shown
from support.curves import check_curve, is_curve
from support.sound.files import check_file
from support.start import STARTS

START_VALUES = ("lower", "upper", "mu", "sigma")
MOST_RUNS = 1000  # of a sweep
CURVES = "style_weight", "content_weight", "pitch_weight", "diversity_weight", "style_blend"  # may be curves
CHANNELS = dict(l1channels=4096, l2channels=256, l3channels=128, kernelsize=11)  # of "gatys", where none are typed


def check_flag(name, value):
    """Raise ValueError unless a value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={shown(value)} must be True or False")


def check_path(name, value):
    """Raise ValueError unless a value may be a path."""
    if not _is_path(value):
        raise ValueError(f"{name}={shown(value)} must be the path of a file, or None")


def check_styles(name, value):
    """Raise ValueError unless a value is a path, or several."""
    if not _is_path(value) and not (isinstance(value, tuple) and value and all(map(_is_path, value))):
        raise ValueError(f"{name}={shown(value)} must be the path of a sound file, or a list of such paths")


def check_outname(name, value):
    """Raise ValueError unless a value is a file name without folders."""
    is_plain = isinstance(value, str) and 0 < len(value) <= 150 and value.isprintable()
    if not is_plain or Path(value).name != value or value.startswith("."):
        raise ValueError(
            f"{name}={shown(value)} must be a file name of at most 150 characters without folders, like 'rain'"
        )


def check_widths(name, value):
    """Raise ValueError unless a value is a list of positive whole numbers."""
    if not isinstance(value, tuple) or not value:
        raise ValueError(f"{name}={shown(value)} must be a list of lengths in frames, such as [8]")
    for number, width in enumerate(value):
        check_number(f"{name}[{number}]", width, 1, most=10**9, whole=True)


def check_blend(name, value, beyond=True):
    """Raise ValueError unless a value is a list of shares above 0, or a curve of such lists, which may hold 0 too."""
    if is_curve(value):
        check_curve(name, value, functools.partial(check_blend, beyond=False))
        return
    if not isinstance(value, tuple):
        raise ValueError(f"{name}={shown(value)} must hold one share for each style, such as [1, 2]")
    for number, share in enumerate(value):
        check_number(f"{name}[{number}]", share, 0, beyond=beyond, most=1e6)


def check_parameters(name, value):
    """Raise ValueError unless a value holds parameters of a CNN; those that are missing or None are filled in."""
    check_mapping(name, value)
    for key, number in value.items():
        check_choice(f"{name}: a name", key, PARAMETERS)
        if key != "orientation" and number is not None:
            check_number(f"{name}[{key!r}]", number, 1, most=10**5, whole=True)


def check_sweep(name, value):
    """Raise ValueError unless a value maps names to lists of values."""
    check_mapping(name, value)
    for key, values in value.items():
        if not isinstance(values, tuple) or not values:
            raise ValueError(
                f"{name}={{{shown(key)}: {shown(values)}}} must map names of settings to lists, such as [1, 2]"
            )
    number = math.prod(map(len, value.values()))
    if number > MOST_RUNS:
        raise ValueError(f"{name} has {number} combinations of its values, more than {MOST_RUNS}; make shorter lists")


def check_start(name, value):
    """Raise ValueError unless a value names a start, or a sound file."""
    if value in STARTS:
        return
    if not (_is_path(value) and is_file(value)):
        raise ValueError(f"{name}={shown(value)} is neither a file in {Path.cwd()} nor one of {', '.join(STARTS)}")
    check_file(value)


def check_start_values(name, value):
    """Raise ValueError unless a value gives the limits, the mean and the deviation of random values."""
    check_mapping(name, value)
    if set(value) != set(START_VALUES):
        raise ValueError(f"{name}={dict(value)!r} must hold {', '.join(START_VALUES)}")
    for key, number in value.items():
        check_number(f"{name}[{key!r}]", number, 1e-3 if key == "sigma" else -100, most=100)
    lower, upper, mean, spread = map(value.get, START_VALUES)
    if not lower < upper:
        raise ValueError(f"{name}: {lower=} must be below {upper=}")
    if not lower - 2 * spread <= mean <= upper + 2 * spread:  # otherwise torch looks for values that never come
        raise ValueError(f"{name}: mu={mean} must be from {lower=} to {upper=}, or at most two sigma={spread} outside")


def check_device(name, value):
    """Raise ValueError unless tensors can be made on a device."""
    if not device_is_present(value):
        raise ValueError(
            f"{name}={shown(value)} is not present here; set it to None, for the fastest one that is present"
        )


def device_is_present(device):
    """Whether tensors can be made on a device: "cpu", "cuda", "cuda:1" or "mps", if this machine has one."""
    try:
        return isinstance(device, str) and torch.empty(1, device=device).cpu() is not None
    except (RuntimeError, AssertionError, NotImplementedError):
        return False


def check_own(name, known, what=""):
    """Raise ValueError for a name that is probably a misspelt setting."""
    small = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower()[:100], small, n=1, cutoff=0.8)
    if near and name not in known:
        raise ValueError(
            f"{what}{shown(name)} is not a setting; did you mean {small[near[0]]!r}? Names of your own must differ more"
        )


def check_known(name, known):
    """Raise ValueError unless a name is that of a setting, or one of the settings cell."""
    check_own(name, known)
    if name not in known:
        raise ValueError(f"{name!r} is not a setting; write a line {name} = ... in the settings cell first")


def _is_path(value):
    return isinstance(value, str | Path) and bool(str(value))
