"""Checks of the settings: every message names the setting, its value, what is allowed and what to do.

An impossible setting raises ValueError. A setting that is legal but has no effect, or an unlikely one, warns. First
come checks of one setting, functions of its name and value; then those of settings together.
"""

import difflib
import inspect
import math
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import soundfile
import torch

from audiocnn import PARAMETERS
from support.checks import check_choice, check_number
from support.networks import MUSICNN
from support.start import STARTS

START_VALUES = ("lower", "upper", "mu", "sigma")
MOST_RUNS = 1000  # of a sweep


# 1. One setting ----------------------------------------------------------------------------------


def check_flag(name, value):
    """Raise ValueError unless a value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be True or False")


def check_path(name, value):
    """Raise ValueError unless a value may be a path."""
    if not _is_path(value):
        raise ValueError(f"{name}={value!r} must be the path of a file, or None")


def check_styles(name, value):
    """Raise ValueError unless a value is a path, or several."""
    if not _is_path(value) and not (isinstance(value, tuple) and value and all(map(_is_path, value))):
        raise ValueError(f"{name}={value!r} must be the path of a sound file, or a list of such paths")


def check_outname(name, value):
    """Raise ValueError unless a value is a file name without folders."""
    is_plain = isinstance(value, str) and 0 < len(value) <= 150 and value.isprintable()
    if not is_plain or Path(value).name != value or value.startswith("."):
        raise ValueError(f"{name}={value!r} must be a file name of at most 150 characters without folders, like 'rain'")


def check_widths(name, value):
    """Raise ValueError unless a value is a list of positive whole numbers."""
    if not isinstance(value, tuple) or not value:
        raise ValueError(f"{name}={value!r} must be a list of lengths in frames, such as [8]")
    for number, width in enumerate(value):
        check_number(f"{name}[{number}]", width, 1, whole=True)


def check_blend(name, value):
    """Raise ValueError unless a value is a list of shares."""
    if not isinstance(value, tuple):
        raise ValueError(f"{name}={value!r} must hold one share for each style, such as [1, 2]")
    for number, share in enumerate(value):
        check_number(f"{name}[{number}]", share, 0, beyond=True, most=1e6)


def check_mapping(name, value):
    """Raise ValueError unless a value is a dict."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}={value!r} must be a dict from names to values")


def check_parameters(name, value):
    """Raise ValueError unless a value holds parameters of a CNN; those that are missing or None are filled in."""
    check_mapping(name, value)
    for key, number in value.items():
        check_choice(f"{name}: a name", key, PARAMETERS)
        if key != "orientation" and number is not None:
            check_number(f"{name}[{key!r}]", number, 1, whole=True)


def check_sweep(name, value):
    """Raise ValueError unless a value maps names to lists of values."""
    check_mapping(name, value)
    for key, values in value.items():
        if not isinstance(values, tuple) or not values:
            raise ValueError(f"{name}={{{key!r}: {values!r}}} must map names of settings to lists, such as [1, 2]")
    number = math.prod(map(len, value.values()))
    if number > MOST_RUNS:
        raise ValueError(f"{name} has {number} combinations of its values, more than {MOST_RUNS}; make shorter lists")


def check_start(name, value):
    """Raise ValueError unless a value names a start, or a sound file."""
    if value in STARTS:
        return
    if not (_is_path(value) and Path(value).is_file()):
        raise ValueError(f"{name}={value!r} is neither a file in {Path.cwd()} nor one of {', '.join(STARTS)}")
    try:
        soundfile.info(value)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name}={value!r} is not a sound file that can be read ({error}); give a wav file") from error


def check_start_values(name, value):
    """Raise ValueError unless a value gives the limits, the mean and the deviation of random values."""
    check_mapping(name, value)
    if set(value) != set(START_VALUES):
        raise ValueError(f"{name}={dict(value)!r} must hold {', '.join(START_VALUES)}")
    for key, number in value.items():
        check_number(f"{name}[{key!r}]", number, 1e-3 if key == "sigma" else -100, most=100)
    if not value["lower"] < value["upper"]:
        raise ValueError(f"{name}: lower={value['lower']} must be below upper={value['upper']}")


def check_device(name, value):
    """Raise ValueError unless tensors can be made on a device."""
    if not device_is_present(value):
        raise ValueError(
            f"{name}={value!r} is not present here; choose 'cpu', 'cuda' or 'mps', or None for the best one"
        )


def device_is_present(device):
    """Whether tensors can be made on a device: "cpu", "cuda", "cuda:1" or "mps", if this machine has one."""
    try:
        return isinstance(device, str) and torch.empty(1, device=device).cpu() is not None
    except (RuntimeError, AssertionError, NotImplementedError):
        return False


def check_own(name, known, what=""):
    """Raise ValueError for a name that is probably a misspelt setting."""
    near = difflib.get_close_matches(name.lower(), {each.lower(): each for each in known}, n=1, cutoff=0.8)
    if near and name not in known:
        near = next(each for each in known if each.lower() == near[0])
        raise ValueError(f"{what}{name!r} is not a setting; did you mean {near!r}? Names of your own must differ more")


def _is_path(value):
    return isinstance(value, str | Path) and bool(str(value))


# 2. Settings together ----------------------------------------------------------------------------


class Together:
    """Checks of settings together, for the class Settings."""

    def check_together(self):
        """Raise ValueError for settings that can't stand together, and warn of those without effect."""
        self._check_networks()
        self._check_start()
        self._check_losses()
        self._warn_of_settings_without_effect()

    def _check_networks(self):
        if self.use_style_net:
            return
        if self.recipe == "bands" and self.whichChannel != "freq":
            raise ValueError(
                f"whichChannel={self.whichChannel!r} needs recipe='gatys', because the networks of recipe='bands' "
                "take whichChannel='freq' only"
            )
        pair = self.model_path is not None and Path(self.model_path).name != MUSICNN
        if self.recipe == "gatys" and pair and self.param_pkl is None:
            raise ValueError(
                f"model_path={self.model_path!r} needs its parameters: set param_pkl to the file of the same name, or "
                "set model_path to None too, for random weights with the typed parameters"
            )

    def _check_start(self):
        start = self.start
        if start == "content" and not self.is_transfer:
            raise ValueError("the start 'content' needs a content; set CONTENT_FILENAME, or start='noise'")
        random_network = self.use_style_net or self.recipe == "bands" or self.model_path is None
        if self.runs > 1 and not random_network and start not in ("noise", "rand", "randn", "samples"):
            raise ValueError(
                f"runs={self.runs} would make the same sound {self.runs} times, because neither the network nor "
                f"start={start!r} is random; set runs=1, or start='noise'"
            )
        if self.loop and self.is_transfer:
            raise ValueError("loop=True makes textures alone; set CONTENT_FILENAME to None, or loop to False")
        if self.loop and self.whichChannel == "time":
            raise ValueError(
                "loop=True can't close frames that are channels; set whichChannel to 'freq', or loop to False"
            )
        if self.is_transfer and self.result_duration is not None:
            _warn(f"result_duration={self.result_duration} has no effect: in a transfer the content gives the length")

    def _check_losses(self):
        blend = self.style_blend
        if blend is not None and len(blend) != len(self.styles):
            raise ValueError(f"style_blend={blend!r} must hold one share for each of the {len(self.styles)} styles")
        aims = dict(style=self.style_layers_default, rhythm={"conv_1": 1.0}, content=self.content_layers)
        weights = {kind: getattr(self, f"{kind}_weight") for kind in aims}
        if not any(weights[kind] * weight for kind, layers in aims.items() for weight in layers.values()):
            given = ", ".join(f"{kind}_weight={weights[kind]}" for kind in aims if aims[kind])
            raise ValueError(f"nothing to optimise: no loss has both a layer and a weight above 0 ({given})")
        if self.boundopt and self.reg_weight and not self.use01scale:
            _warn("boundopt pulls the values into [0, 1], but with use01scale=False they reach 7; set boundopt=False")

    def without_effect(self):
        """Return the settings that nothing reads beside the others, a dict from the reason to their names."""
        other = {"stft": ("bins_per_octave", "lowest_frequency", "n_octaves"), "cqt": ("N_FFT",)}[self.transform]
        bands = ("filters", "widths", "pattern_share", "redraw")
        cnn = self.recipe == "gatys" and not self.use_style_net
        of_content = ("content_weight", "content_layers_default", "content_level")
        return {
            f"the transform is {self.transform!r}": other,
            "the recipe has no band networks": () if self.recipe == "bands" and not self.use_style_net else bands,
            "the network has no typed parameters": () if cnn and self.param_pkl is None else ("parameters",),
            "there is no content": () if self.is_transfer else of_content,
            'start is not "samples"': () if self.start == "samples" else ("start_values",),
            "boundopt is False": () if self.boundopt else ("reg_weight",),
            "there is one style": () if len(self.styles) > 1 else ("style_blend",),
        }

    def _warn_of_settings_without_effect(self):
        defaults = type(self)  # declares them
        defaults = {each.name: each.default_factory() for each in fields(defaults)}
        for reason, names in self.without_effect().items():
            given = {name: self.given[name] for name in names if self.given[name] != defaults[name]}
            given = {name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items()}
            changed = [f"{name}={value!r}" for name, value in given.items()]
            if changed:
                _warn(f"{', '.join(changed)} has no effect, because {reason}")


def _warn(message):
    # At the line that makes the settings, in the notebook or script: the first one that is neither in this folder nor
    # in the code that dataclass writes.
    files = [frame.filename for frame in inspect.stack(0)]
    own = ("<string>", str(Path(__file__).parent))
    level = next((level for level, file in enumerate(files, start=1) if not file.startswith(own)), 1)
    warnings.warn(message, stacklevel=level)
