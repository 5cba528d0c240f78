"""Checks of the settings: every message names the setting, its value, what is allowed and what to do.

An impossible setting raises ValueError. A setting that is legal but has no effect, or an unlikely one, warns. First
come checks of one setting, functions of its name and value; then those of settings together.
"""

import difflib
import inspect
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from audiocnn import MEMORY
from support.checks import PARAMETERS, check_choice, check_mapping, check_number, is_file, printable, shown
from support.curves import check_end, is_curve, largest
from support.desk.fitting import Fitting
from support.desk.memory import check_memory
from support.sound.excerpts import files_of
from support.sound.files import check_file, seconds_of
from support.sound.masks import check_gap, check_inside
from support.start import STARTS

START_VALUES = ("lower", "upper", "mu", "sigma")
MOST_RUNS = 1000  # of a sweep
CURVES = "style_weight", "content_weight", "pitch_weight", "diversity_weight", "style_blend"  # may be curves
CHANNELS = dict(l1channels=4096, l2channels=256, l3channels=128, kernelsize=11)  # of "gatys", where none are typed


# 1. One setting ----------------------------------------------------------------------------------


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
    """Raise ValueError unless a value is a list of shares, above 0, or (in a curve) also 0."""
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
    near = difflib.get_close_matches(name.lower()[:100], {each.lower(): each for each in known}, n=1, cutoff=0.8)
    if near and name not in known:
        near = next(each for each in known if each.lower() == near[0])
        raise ValueError(
            f"{what}{shown(name)} is not a setting; did you mean {near!r}? Names of your own must differ more"
        )


def _is_path(value):
    return isinstance(value, str | Path) and bool(str(value))


# 2. Settings together ----------------------------------------------------------------------------


class Together(Fitting):
    """Checks of settings together, for the class Settings."""

    def check_together(self):
        """Raise ValueError for settings that can't stand together, and warn of those without effect."""
        self.check_networks()
        self._check_start()
        self._check_losses()
        self.check_recordings(self._promised())
        self._warn_of_settings_without_effect()
        for message in self.unlikely():
            _warn(message)

    def check_files(self):
        """Raise an error where a recording, also one of the sweep, is missing or is not a sound, by its header."""
        for name in ("STYLE_FILENAME", "CONTENT_FILENAME"):
            for value in (getattr(self, name), *self.sweep.get(name, ())):
                for path in value if isinstance(value, tuple) else [value]:
                    if name == "STYLE_FILENAME" and os.path.isdir(path):
                        files_of(path)
                    elif path is not None:
                        check_file(path)
        self.check_network_files()

    def check_transform(self, transform):
        """Raise ValueError where a transform takes another sample rate than that of the recordings."""
        if transform.sample_rate != self.sample_rate:
            raise ValueError(
                f"the transform has sample_rate={transform.sample_rate}, but the recordings {self.sample_rate} Hz; "
                "make the transform with sample_rate=settings.sample_rate, and change sample_rate in the settings cell"
            )

    def check_recordings(self, recordings):
        """Raise ValueError where recordings, by name, are too short for the filters, or too long for the memory."""
        with warnings.catch_warnings(action="ignore"):  # of the hop, which was shown with the settings
            transform = self.make_transform()
        lengths = {name: each.shape[-1] for name, each in recordings.items()}
        lengths["result"] = self.length_of(recordings)
        for reason, shortest, advice in self._shortest(transform):
            for name, length in lengths.items():
                if length < shortest:
                    raise ValueError(
                        f"{self._origin(name)}: {length / self.sample_rate:.3f} s are too short for {reason}; give at "
                        f"least {shortest / self.sample_rate + 5e-4:.3f} s, or {advice}"
                    )
        seconds = lengths["result"] / self.sample_rate
        styles = [length / self.sample_rate for name, length in lengths.items() if name.startswith("style")]
        check_inside(self.where, result=seconds, style=min(styles), highest=self.sample_rate / 2)
        if not self.is_transfer:
            check_gap(self.where, styles[0])
        for name in CURVES:
            check_end(name, getattr(self, name), seconds)
        if message := check_memory(self._memory(lengths, len(transform.frequencies)), self.device):
            _warn(message)

    def _shortest(self, transform):
        # Yields for what a sound may be too short, how many samples are enough, and what else helps.
        names = dict(stft=f"N_FFT={self.N_FFT}", cqt=f"the filter of lowest_frequency={self.lowest_frequency}")
        advice = dict(stft="lower N_FFT", cqt="raise lowest_frequency, or lower bins_per_octave")
        yield names[self.transform], 2 * transform.reach, advice[self.transform]
        if self.use_style_net:
            return
        if self.recipe == "bands" and "conv_2" in {**self.style_layers_default, **self.content_layers}:
            # Two places of the longest filter: one value has no variance, so that the loss would be NaN.
            yield f"widths={list(self.widths)}", max(self.widths) * self.K_HOP, "leave out the longest widths"
        elif self.recipe == "gatys" and self.whichChannel != "time":
            yield "three max-pools, which need 8 frames", 7 * self.K_HOP, "lower K_HOP"

    def _memory(self, lengths, n_bins):
        # Bytes that a run takes, by what makes them fewer. Measured in processes of their own, with 5 to 150 s and 20
        # to 3000 filters or 256 to 4096 channels: 32 peaks of 0.6 to 2 GB lie within 20 % of these sums.
        frames = {name: 1 + length // self.K_HOP for name, length in lengths.items()}
        result, longest, planes = frames["result"], max(frames.values()), 4 if self.stereo else 1
        weights = features = 0  # numbers; of networks from files and of one's own they are not known here
        if self.recipe == "bands" and not self.use_style_net:
            segment = 1.5 * (self.segment_duration or 1e6) * self.sample_rate / self.K_HOP
            weights = self.filters * (2 * n_bins * len(self.widths) + sum(self.widths))
            features = self.filters * (planes * min(result, segment) + longest)
        elif not self.use_style_net and self.param_pkl is None and self.model_path is None:
            given = {name: value for name, value in self.parameters.items() if value is not None}
            first, second, third, size = ((CHANNELS | given)[name] for name in CHANNELS)
            before, positions = {"freq": (n_bins, 1), "time": (longest, n_bins / longest), "2D": (1, n_bins)}[
                self.whichChannel
            ]
            taps = size**2 if self.whichChannel == "2D" else size
            weights = taps * (first * before + second * first + third * second) + first**2  # with a Gram matrix
            features = first * positions * (result + longest)
        image = 4 * planes * n_bins * result
        history = min(100 * image, max(MEMORY, 10 * image))
        return {
            "a shorter duration or result_duration": 6.5e8 + (28 if self.transform == "stft" else 44) * image + history,
            "fewer filters, l1channels or runs, or a shorter segment_duration": 10 * self.runs * (weights + features),
        }

    def _origin(self, name):
        typed = name == "result" and self.result_duration is not None and not self.is_transfer
        excerpt = (
            f"{printable(self.files.get(name, self.styles[0]))} with offset={self.offset} and duration={self.duration}"
        )
        return f"result_duration={self.result_duration}" if typed else excerpt

    def _promised(self):
        # Recordings without memory, as long as headers say; warns where a file ends within its excerpt.
        recordings = {}
        for name, path in self.files.items():
            rest = seconds_of(path, offset=self.offset or 0.0, duration=self.duration)
            if self.duration is not None and rest and rest < self.duration:
                _warn(
                    f"duration={self.duration} is longer than {printable(path)}, of which offset={self.offset} leaves "
                    f"{rest:.2f} s"
                )
            seconds = self.duration or 5.0 if rest is None else min(rest, self.duration_of(name) or rest)
            recordings[name] = np.broadcast_to(np.float32(0), math.ceil(seconds * self.sample_rate))
        return recordings

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
        self._check_drawn()
        if self.loop and self.is_transfer:
            raise ValueError("loop=True makes textures alone; set CONTENT_FILENAME to None, or loop to False")
        if self.loop and self.whichChannel == "time":
            raise ValueError(
                "loop=True can't close frames that are channels; set whichChannel to 'freq', or loop to False"
            )
        if self.where and (self.loop or self.whichChannel == "time"):
            raise ValueError("where needs loop=False and whichChannel='freq' or '2D'; change these, or set where={}")
        if "content" in self.where and not self.is_transfer:
            _warn("where['content'] has no effect, because there is no content")
        if self.is_transfer and self.result_duration is not None:
            _warn(f"result_duration={self.result_duration} has no effect: in a transfer the content gives the length")

    def _check_drawn(self):
        drawn = ", ".join(self.drawn.values())
        if not drawn:
            return
        if self.duration is None or self.runs > 1:
            raise ValueError(
                f"excerpts of {drawn} are drawn: duration={self.duration} must be a number, and runs={self.runs} must "
                "be 1; sweep the seed for more results"
            )
        if self.where and not self.is_transfer:
            raise ValueError(
                f"where keeps the style, but excerpts of {drawn} are drawn; give one file and a number for offset"
            )
        if self.offset and all(map(os.path.isdir, self.files.values())):
            _warn(f"offset={self.offset} has no effect, because excerpts of {drawn} are drawn")
        if not self.steps_of_draw:
            _warn(f"{drawn}: one excerpt is drawn and stays, because no random networks are drawn again")

    def _check_losses(self):
        blend, curve = self.style_blend, is_curve(self.style_blend)
        for shares in [shares for _, shares in blend] if curve else [blend] * (blend is not None):
            if len(shares) != len(self.styles) or not sum(shares):
                raise ValueError(f"style_blend={blend!r} must hold one share for each of the {len(self.styles)} styles")
        aims = dict(style=self.style_layers_default, rhythm={"conv_1": 1.0}, content=self.content_layers)
        weights = {kind: largest(getattr(self, f"{kind}_weight")) for kind in aims}
        if not any(weights[kind] * weight for kind, layers in aims.items() for weight in layers.values()):
            given = ", ".join(f"{kind}_weight={weights[kind]}" for kind in aims if aims[kind])
            raise ValueError(f"nothing to optimise: no loss has both a layer and a weight above 0 ({given})")
        if self.boundopt and self.reg_weight and not self.use01scale:
            _warn("boundopt pulls the values into [0, 1], but with use01scale=False they reach 7; set boundopt=False")

    def without_effect(self):
        """Return the settings that nothing reads beside the others, a dict from the reason to their names."""
        other = {"stft": ("bins_per_octave", "lowest_frequency", "n_octaves"), "cqt": ("N_FFT",)}[self.transform]
        kind = "a network of your own (use_style_net)" if self.use_style_net else f"recipe={self.recipe!r}"
        bands = () if kind == "recipe='bands'" else ("filters", "widths", "pattern_share", "redraw")
        untyped = () if kind == "recipe='gatys'" else ("parameters",)
        of_content = ("content_weight", "content_layers_default", "content_level", "pitch_weight")
        return {
            f"the transform is {self.transform!r}": other,
            f"{kind} has no band networks": bands,
            f"{kind} takes no parameters": untyped,
            "param_pkl is a file of them": () if self.param_pkl is None or untyped else ("parameters",),
            "there is no content": () if self.is_transfer else of_content,
            'start is not "samples"': () if self.start == "samples" else ("start_values",),
            "boundopt is False": () if self.boundopt else ("reg_weight",),
            "refine_steps is 0": () if self.refine_steps else ("pitch_weight",),
            "there is one style": () if len(self.styles) > 1 else ("style_blend",),
        }

    def _warn_of_settings_without_effect(self):
        defaults = type(self)  # declares them
        defaults = {each.name: each.default_factory() for each in fields(defaults)}
        for reason, names in self.without_effect().items():
            given = {name: self.given[name] for name in names if self.given[name] != defaults[name]}
            given = {name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items()}
            changed = [f"{name}={shown(value)}" for name, value in given.items()]
            if changed:
                _warn(f"{', '.join(changed)} {'have' if len(changed) > 1 else 'has'} no effect, because {reason}")


def _warn(message):
    # At the line that makes the settings, in the notebook or script: the first one that is neither in this folder nor
    # in the code that dataclass writes.
    files = [frame.filename for frame in inspect.stack(0)]
    own = ("<string>", str(Path(__file__).parent))
    level = next((level for level, file in enumerate(files, start=1) if not file.startswith(own)), 1)
    warnings.warn(message, stacklevel=level)
