"""Checks of single values and of networks: every message names the value and says what is allowed."""

import errno
import itertools
import math
import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

LAYOUTS = ("freq", "time", "2D")  # of images, and the orientations of a CNN
PARAMETERS = ("l1channels", "l2channels", "l3channels", "kernelsize", "in_channels", "in_height", "in_width")
PARAMETERS += ("n_classes", "orientation")  # of a CNN


def shown(value: object) -> str:
    """Return a value as a message shows it: in one line of at most 200 characters.

    >>> shown(["a", 1]), shown(10**5000), len(shown("a" * 10**6))
    ("['a', 1]", 'a very long int', 179)
    """
    try:
        return _short(repr(value))
    except (ValueError, RecursionError):  # of numbers with more than 4300 digits, and lists in lists in lists
        return f"a very long {type(value).__name__}"


def printable(text: object) -> str:
    r"""Return a path or a name as a message shows it: what no text can hold, as in names of old files, is a "?".

    >>> printable("caf\udce9.wav"), printable("two\nlines")
    ('caf?.wav', "'two\\nlines'")
    """
    text = str(text).encode(errors="replace").decode()
    return _short(text if text.isprintable() else repr(text))


def _short(text):
    return text if len(text) <= 200 else f"{text[:150]} ... (in all {len(text)} letters)"


def is_file(path: str | Path) -> bool:
    """Whether a path is a file; False where no path can be so long; PermissionError where nobody may look."""
    try:
        return Path(path).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def check_choice(setting: str, value: object, allowed: Iterable[str | int]) -> None:
    """Raise ValueError unless a setting's value is one of the allowed ones, which are strings or whole numbers.

    >>> check_choice("layout", "freq", ("freq", "time"))
    >>> check_choice("layout", "2d", ("freq", "time"))
    Traceback (most recent call last):
    ValueError: layout='2d' is unknown; choose one of freq, time
    """
    simple = isinstance(value, str | int | np.integer) and not isinstance(value, bool)
    if not simple or value not in tuple(allowed):  # a list can't be looked up in a dict; arrays compare value by value
        raise ValueError(f"{setting}={shown(value)} is unknown; choose one of {', '.join(map(str, allowed))}")


def check_positive_int(**values: object) -> None:
    """Raise ValueError unless every value is a whole number above 0."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={shown(value)} must be a positive whole number")


def check_number(
    name: str, value: object, least: float, *, most: float = math.inf, beyond: bool = False, whole: bool = False
) -> None:
    """Raise ValueError unless a value is a finite number from the least one (or beyond) to the most."""
    number = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool)
    if not number or not least <= value <= most or (beyond and value == least) or abs(value) == math.inf:
        kind = "a whole number" if whole else "a finite number"
        bound = f"{'above' if beyond else 'of at least'} {least}" + ("" if most == math.inf else f" and at most {most}")
        comma = (
            "; Python takes a comma for two numbers: write 2.5, not 2,5"
            if isinstance(value, tuple) and not whole
            else ""
        )
        raise ValueError(f"{name}={shown(value)} must be {kind} {bound}{comma}")


def check_mapping(name: str, value: object) -> None:
    """Raise ValueError unless a value is a dict."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}={shown(value)} must be a dict from names to values")


def check_network(network: nn.Module) -> None:
    """Raise ValueError, which names the layer, unless a network has weights that can be used, and layers that are seen.

    >>> check_network(nn.Sequential(nn.Conv2d(1, 2, 3)))
    >>> check_network(nn.Sequential(nn.ReLU(), nn.Linear(2, 2, device="meta")))
    Traceback (most recent call last):
    ValueError: the network's 1.weight has no values, only a shape; load its weights first
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError(
            "the network is compiled by torch.jit, so that its layers can't be reached; give the network that it was "
            "compiled from"
        )
    buffers = [(name, each) for name, each in network.named_buffers() if "running_" in name]  # masks hold -inf
    for name, each in [*network.named_parameters(), *buffers]:
        if nn.parameter.is_lazy(each):
            raise ValueError(f"the network's {name} has no shape yet; call the network with an image first")
        if each.is_meta:
            raise ValueError(f"the network's {name} has no values, only a shape; load its weights first")
        if each.dtype.itemsize > 1 and not each.isfinite().all():
            raise ValueError(f"the network's {name} holds NaN or infinite values; load other weights")
        if name.endswith("running_var") and (each < 0).any():
            raise ValueError(f"the network's {name}, a variance, holds values below 0; load other weights")


def check_cnn(parameters: dict) -> None:
    """Raise ValueError unless a dict holds the parameters of a CNN, see there."""
    missing = [name for name in PARAMETERS if name not in parameters]
    if missing:
        raise ValueError(
            f"the network's parameters lack {', '.join(missing)}; they hold {', '.join(map(str, parameters))}"
        )
    check_positive_int(**{name: parameters[name] for name in PARAMETERS if name != "orientation"})
    check_choice("orientation", parameters["orientation"], LAYOUTS)
    flat = parameters["orientation"] != "2D"
    for name in ("in_width",) if flat else ("in_height", "in_width"):
        if parameters[name] < 8:
            raise ValueError(f"{name}={parameters[name]} must be at least 8, because three max-pools halve this side")
    channels = [parameters[name] for name in ("in_channels", "l1channels", "l2channels", "l3channels")]
    taps = parameters["kernelsize"] ** (1 if flat else 2)
    positions = (parameters["in_height"] // (1 if flat else 8)) * (parameters["in_width"] // 8)
    weights = taps * sum(map(math.prod, itertools.pairwise(channels)))
    if weights + channels[-1] * positions * parameters["n_classes"] > 10**9:
        raise ValueError(f"parameters={parameters} make more than 10**9 weights (4 GB); lower the largest of them")
