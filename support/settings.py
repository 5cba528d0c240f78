"""The settings of a run: one immutable object, filled in by a recipe and checked before anything is loaded.

README.md, "Settings", says what each setting does. A setting of None is filled in by the recipe, or from the sound.

Conventions
  names   those of the notebooks' settings cell
  layers  a list of layer names, or a dict from layer name to weight; kept as a dict
  units   times in seconds, frequencies in Hz, N_FFT and K_HOP in samples, widths and dilation in frames
"""

import copy
import itertools
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from support.checks import OF_TRANSFORM, check_settings, of_other_transforms
from support.transforms import CQT, STFT
from support.values import check_choice, check_number

RECIPES = ("bands", "gatys")
OLD_NAMES = {"field": "gatys"}  # recipes in the json files of earlier versions
MEMORY = 3e8  # bytes that L-BFGS may take where history_size is None; 5 steps of 5 minutes take 5.3e8
LAYERS = ("style_layers_default", "content_layers_default", "rhythm_layers", "diversity_layers")

# Which step of the notebooks reads which setting first. A run has to be repeated from the first step that reads a
# changed setting; settings of NO_STEP change no sound.
STEPS = {
    "Listen to the inputs": ("STYLE_FILENAME", "CONTENT_FILENAME", "sample_rate", "offset", "duration", "stereo"),
    "The transform": ("transform", "N_FFT", "K_HOP", "bins_per_octave", "lowest_frequency", "n_octaves"),
    "Spectrograms": ("power", "use01scale"),
    "The network": (
        *("recipe", "seed", "runs", "device", "whichChannel", "widths", "filters", "pattern_share", "dilation"),
        *("use_style_net", "model_path", "param_pkl", "l1channels", "l2channels", "l3channels", "kernelsize"),
        *("n_classes", "orientation", "in_channels", "in_height", "in_width"),
    ),
    "The losses": (
        *("statistic", *LAYERS, "content_level", "style_blend", "style_weight", "content_weight", "rhythm_weight"),
        *("diversity_weight", "boundopt", "reg_weight"),
    ),
    "The start": (
        *("start", "lower", "upper", "mu", "sigma", "result_duration", "loop"),
        *("redraw", "segment_duration", "history_size"),  # read by the optimisation: one run keeps them to its end
    ),
    "Optimisation": ("num_steps",),
    "Back to sound": ("phase_iterations",),
    "Refine the samples": ("refine_steps",),
}
NO_STEP = ("outname", "refresh", "draft_sound", "frequency_axis", "sweep", "n_jobs", "notebook")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings as typed in the notebook, with None filled in; ValueError names the setting and what is allowed.

    The defaults are those of neural_style_audio_pretrained.ipynb; a test compares them.

    Attributes
    ----------
    given : mapping
        The settings as typed, before the recipe filled them in.
    """

    transform: str = "stft"
    STYLE_FILENAME: str | tuple = "samples/water_stream.flac"
    CONTENT_FILENAME: str | None = None
    sample_rate: int = 22050
    offset: float = 0.5
    duration: float | None = 5.0
    stereo: bool = False
    N_FFT: int | None = None
    K_HOP: int | None = None
    bins_per_octave: int = 48
    lowest_frequency: float = 41.2
    n_octaves: int = 8
    power: float | str | None = None
    use01scale: bool = True
    recipe: str = "bands"
    seed: int = 0
    runs: int = 1
    device: str | None = None
    whichChannel: str = "freq"
    widths: tuple = (1, 2, 4, 8, 16, 32)
    filters: int = 320
    pattern_share: float = 0.8
    dilation: int = 1
    use_style_net: bool = False
    model_path: str | None = None
    param_pkl: str | None = None
    l1channels: int = 4096
    l2channels: int = 256
    l3channels: int = 128
    kernelsize: int = 11
    n_classes: int = 50
    orientation: str | None = None
    in_channels: int | None = None
    in_height: int | None = None
    in_width: int | None = None
    statistic: str | None = None
    content_level: str | None = None
    style_layers_default: tuple | dict | None = None
    content_layers_default: tuple | dict | None = None
    rhythm_layers: tuple | dict = ()
    diversity_layers: tuple | dict = ("input",)
    style_blend: tuple | None = None
    style_weight: float | None = None
    content_weight: float | None = None
    rhythm_weight: float = 0.0
    diversity_weight: float | None = None
    boundopt: bool = True
    reg_weight: float = 1e-3
    start: str | None = None
    lower: float = 0.0
    upper: float = 1.0
    mu: float = 0.1
    sigma: float = 0.05
    result_duration: float | None = None
    loop: bool = False
    segment_duration: float | None = 5.0
    history_size: int | None = None
    redraw: int = 20
    num_steps: int | None = None
    phase_iterations: int | None = None
    refine_steps: int | None = None
    outname: str = "result"
    refresh: float = 10
    draft_sound: bool = True
    frequency_axis: str | None = None
    sweep: dict = field(default_factory=dict)
    n_jobs: int = -1
    notebook: str = ""

    def __post_init__(self):
        names = [each.name for each in fields(self)]
        self._set("given", _frozen({name: getattr(self, name) for name in names}))
        self._set("recipe", OLD_NAMES.get(str(self.recipe), self.recipe))
        check_choice("recipe", self.recipe, RECIPES)
        check_choice("transform", self.transform, OF_TRANSFORM)
        for name, value in filled_in(self).items():
            if getattr(self, name) is None:
                self._set(name, value)
        for name in LAYERS:
            self._set(name, _weights_by_layer(name, getattr(self, name)))
        for name in names:
            self._set(name, _frozen(getattr(self, name)))
        others = of_other_transforms(self.transform)
        check_settings(self, sweepable=set(names) - {"transform", *NO_STEP, *others})
        self.make_transform()  # raises ValueError for windows and grids that can't be inverted
        for point in self.points():
            with warnings.catch_warnings(action="ignore"):
                Settings(**self.given | {"sweep": {}} | point)

    @classmethod
    def of(cls, names, *, transform):
        """Return the settings among the names of a notebook; ValueError says which settings are missing.

        Parameters
        ----------
        names : mapping
            All names of the notebook, globals(); those that are no settings are left out.
        transform : "stft" or "cqt"
            The settings that only the other transform has may be missing.
        """
        check_choice("transform", transform, OF_TRANSFORM)
        settings = [each.name for each in fields(cls) if each.name != "transform"]
        missing = [name for name in settings if name not in names and name not in of_other_transforms(transform)]
        if missing:
            lines = ", ".join(f"{name} = {getattr(cls, name, {})!r}" for name in missing)
            raise ValueError(
                f"the settings cell has no line for {', '.join(missing)}; add {lines} to the settings cell, run the "
                "settings cell, and then this cell again"
            )
        return cls(transform=transform, **{name: names[name] for name in settings if name in names})

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    @property
    def styles(self):
        """Paths of the styles, a tuple."""
        return self.STYLE_FILENAME if isinstance(self.STYLE_FILENAME, tuple) else (self.STYLE_FILENAME,)

    @property
    def is_transfer(self):
        """Whether there is a content; otherwise the result is a texture."""
        return self.CONTENT_FILENAME is not None

    @property
    def content_layers(self):
        """content_layers_default in a transfer; a texture has none."""
        return self.content_layers_default if self.is_transfer else {}

    @property
    def compression(self):
        """Keyword arguments of transforms.compress and transforms.expand."""
        return dict(use01scale=self.use01scale, power=self.power)

    @property
    def segment(self):
        """segment_duration in frames, or None."""
        return self.segment_duration and max(1, round(self.segment_duration * self.sample_rate / self.K_HOP))

    @property
    def steps_of_draw(self):
        """Redraw where the networks are random ones of "bands"; 0: they stay the same."""
        return self.redraw if self.recipe == "bands" and not self.use_style_net else 0

    def history_of(self, tensor):
        """history_size, or where it is None: as many steps as L-BFGS remembers of a tensor in MEMORY, from 5 to 50."""
        step = 2 * tensor.numel() * tensor.element_size()  # the step itself, and the change of the gradient
        return self.history_size or min(max(int(MEMORY // step), 5), 50)

    def make_transform(self):
        """Return the transform, an STFT or a CQT."""
        common = dict(sample_rate=self.sample_rate, hop_length=self.K_HOP)
        if self.transform == "stft":
            return STFT(**common, n_fft=self.N_FFT)
        grid = dict(bins_per_octave=self.bins_per_octave, fmin=self.lowest_frequency, n_octaves=self.n_octaves)
        return CQT(**common, **grid)

    def of_run(self, run, **changes):
        """Return the settings that give run number `run` of these settings (from 0) alone, with other changes."""
        settings = copy.copy(self)  # not checked again: a file or a device may be gone when the result is saved
        for name, value in dict(seed=self.seed + run, runs=1, sweep={}, **changes).items():
            settings._set(name, _frozen(value))
        settings._set(
            "given", types.MappingProxyType({each.name: getattr(settings, each.name) for each in fields(self)})
        )
        return settings

    def points(self):
        """Return every combination of the sweep's values, a list of dicts."""
        points = itertools.product(*self.sweep.values()) if self.sweep else ()
        points = [dict(zip(self.sweep, values, strict=True)) for values in points]
        return [point for number, point in enumerate(points) if point not in points[:number]]


def best_device():
    """Name the fastest device that is present: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def filled_in(settings):
    """Return the values of the settings that are None: reads transform, recipe, is_transfer and use_style_net alone."""
    transfer, stft = settings.is_transfer, settings.transform == "stft"
    values = dict(device=best_device(), phase_iterations=200 if stft else 80)
    values |= dict(frequency_axis="mel" if stft else "log")
    if settings.recipe == "bands":
        values |= dict(N_FFT=512, K_HOP=128, power=0.3, style_layers_default=["conv_2"])
        values |= dict(statistic="distribution" if transfer else "balanced")  # see BalancedLoss
        values |= dict(diversity_weight=0.0 if transfer else 100.0)
        values |= dict(content_layers_default=["conv_2"], style_weight=1.0, content_weight=30.0, content_level="free")
        values |= dict(num_steps=60, refine_steps=60)
        values |= dict(start="content" if transfer else "noise")
    else:
        values |= dict(N_FFT=1024, K_HOP=256, power="log1p", statistic="gram", style_layers_default=["relu_1"])
        values |= dict(content_layers_default=["relu_3"], content_weight=1.0, content_level="same")
        values |= dict(diversity_weight=0.0)
        values |= dict(num_steps=300, refine_steps=0)
        values |= dict(start="content" if transfer else "rand", style_weight=1e7 if transfer else 1e9)
    if settings.use_style_net:
        values |= dict(style_layers_default=["relu_1"], content_layers_default=["relu_1"])
    return values if stft else values | dict(N_FFT=None, K_HOP=128)


def _weights_by_layer(name, layers):
    names = layers if isinstance(layers, list | tuple | Mapping) else [None]
    if not all(isinstance(layer, str) for layer in names):
        example = layers if isinstance(layers, str) else "conv_1"
        raise ValueError(
            f"{name}={layers!r} must be a list of layer names, such as [{example!r}], or a dict to weights"
        )
    layers = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
    for layer, weight in layers.items():
        check_number(f"{name}[{layer!r}]", weight, 0)
    return layers


def _frozen(value):
    if isinstance(value, np.generic | Path):
        return value.item() if isinstance(value, np.generic) else str(value)
    if isinstance(value, Mapping):
        return types.MappingProxyType({name: _frozen(each) for name, each in value.items()})
    return tuple(_frozen(each) for each in value) if isinstance(value, list | tuple) else value
