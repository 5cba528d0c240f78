"""The settings of a run: each is declared once, and Settings is the immutable object of all of them.

A declaration holds the setting's name, its type (only what may stay None has None there), its default, the step of the
notebooks that reads the setting first, what values are allowed, what None becomes in each recipe, and, below, what the
setting does. The settings cells of the notebooks, the table in README.md of this folder, the checks, the json files and
the rules of what to run again follow from them.

Conventions
  names   those of the notebooks' settings cell; own settings may be added there, in small letters
  layers  a list of layer names, or a dict from layer name to weight; kept as a dict
  units   times in seconds, frequencies in Hz, N_FFT and K_HOP in samples, widths in frames
"""

import ast
import contextlib
import copy
import inspect
import itertools
import json
import re
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

import audiocnn
from support import losses, networks
from support.bands import band_networks
from support.checks import LAYOUTS, check_choice, check_mapping, check_number, printable, shown
from support.curves import check_curve, is_curve, terms_of
from support.desk import checks
from support.desk.fitting import Fitting
from support.pitch import PitchLoss
from support.rhythm import RhythmLoss
from support.sound import excerpts
from support.sound.analysis import Analysis, check_power
from support.sound.excerpts import is_drawn
from support.sound.files import seconds_of
from support.sound.masks import check_boxes
from support.sound.sections import LONG, ends_of
from support.sound.transforms import CQT, LONGEST, SHORTEST, STFT
from support.start import STARTS

RECIPES = ("bands", "gatys")
LISTEN, TRANSFORM, SPECTROGRAMS, NETWORK, WHERE, LOSSES, START, OPTIMISE, SOUND, REFINE = STEPS = (
    *("Listen to the inputs", "The transform", "Spectrograms", "The network"),
    *("Where the result may change", "The losses", "The start", "Optimisation", "Back to sound", "Refine the samples"),
)
NO_STEP = "no step"  # of settings that change no sound


def _setting(default, step, check, bands=None, gatys=None, *, transform=None):
    # bands and gatys: what None becomes in a recipe, one value, or (in a texture, in a transfer).
    # transform: the one that alone has this setting.
    about = dict(step=step, check=check, bands=bands, gatys=gatys, transform=transform)
    factory = (lambda: dict(default)) if isinstance(default, dict) else (lambda: default)
    return field(default_factory=factory, metadata=about)


def _number(least, **how):
    return lambda name, value: check_number(name, value, least, **how)


def _choice(allowed):
    return lambda name, value: check_choice(name, value, tuple(allowed))


def _cost_or_curve(name, value):
    check_curve(name, value, _cost) if is_curve(value) else _cost(name, value)


def _layers(name, value):
    # The only check that returns what the setting becomes: a dict from layer name to weight.
    names = value if isinstance(value, list | tuple | Mapping) else [None]
    if not all(isinstance(layer, str) for layer in names):
        example = value if isinstance(value, str) else "conv_1"
        raise ValueError(
            f"{name}={shown(value)} must be a list of layer names, such as [{shown(example)}], or a dict to weights"
        )
    weights = dict(value) if isinstance(value, Mapping) else dict.fromkeys(value, 1.0)
    for layer, weight in weights.items():
        _cost(f"{name}[{layer!r}]", weight)
    return weights


def _own(name, value):
    check_mapping(name, value)
    for each, given in value.items():
        if hasattr(Settings, each) or each in DEFAULTS:
            raise ValueError(f"{each!r} is a name that the settings use themselves; choose another one")
        checks.check_own(each, DEFAULTS)
        try:
            json.dumps(plain(given))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{printable(each)}={shown(given)} can't be kept in a json file ({error}); set numbers, strings, and "
                "lists and dicts of them, or write this line in a cell below"
            ) from error


_seconds = _number(0, beyond=True, most=10**6)
_steps, _cost = _number(0, most=10**6, whole=True), _number(0, most=1e15)  # float32 holds squares of what is larger


@dataclass(frozen=True, kw_only=True)
class Settings(Fitting):
    """Settings as typed in the notebook, with None filled in; ValueError names the setting and what is allowed.

    Each field is declared with its default, its step, its check, its help, and what None becomes. The defaults are
    those of neural_style_audio_pretrained.ipynb, but for names of files.

    Attributes
    ----------
    own : mapping
        Settings of the user's own, by name; settings.NAME gives them too.
    given : mapping
        The settings as typed, before the recipe filled them in.
    """

    # What most people change first
    STYLE_FILENAME: str | tuple = _setting("samples/brook.flac", LISTEN, checks.check_styles)
    "path of a sound file, of a folder, or a list of paths that are blended"
    CONTENT_FILENAME: str | None = _setting(None, LISTEN, checks.check_path)
    "path of a sound file; None: a texture from the style alone"
    outname: str = _setting(None, NO_STEP, checks.check_outname)
    "results are outputs/outname-001.wav and so on, never overwritten; None: named by the files"
    recipe: str = _setting("bands", NETWORK, _choice(RECIPES))
    '"bands" or "gatys"; fills in every setting that is None'
    content_weight: float | tuple = _setting(None, LOSSES, _cost_or_curve, 30.0, 1.0)
    '0 and more; higher: nearer to the content; None: 30, "gatys": 1'
    style_weight: float | tuple = _setting(None, LOSSES, _cost_or_curve, 1.0, (1e9, 1e7))
    '0 and more; higher: nearer to the style; None: 1, "gatys": 1e9, in a transfer 1e7'
    filters: int = _setting(160, NETWORK, _number(1, most=10**9, whole=True))
    'filters of each network of "bands"; 80: a quick draft'
    num_steps: int = _setting(None, OPTIMISE, _steps, 60, 300)
    'steps on the spectrogram, 0 and more; None: 60, "gatys": 300'
    refine_steps: int = _setting(None, REFINE, _steps, 60, 0)
    'steps on the samples, 0 and more; None: 60, "gatys": 0'
    seed: int = _setting(0, NETWORK, _number(0, most=2**63 - 1, whole=True))
    "0 and more; the same seed gives the same result on the same machine"
    offset: float | None = _setting(0.0, LISTEN, _number(0, most=10**6))
    "seconds; where the excerpt begins; None: pieces of the whole style, as of a folder"
    duration: float | None = _setting(5.0, LISTEN, _seconds)
    "seconds of the excerpt, better without fades; None: to the end"
    result_duration: float | None = _setting(None, START, _seconds)
    "seconds of a texture; None: as long as the style"
    loop: bool = _setting(False, LOSSES, checks.check_flag)
    "True: the end of a texture meets its beginning, so that a player can repeat the sound"
    stereo: bool = _setting(False, LISTEN, checks.check_flag)
    "True: two channels; the refinement takes longer"
    # The method, in the order of the steps
    sample_rate: int = _setting(22050, LISTEN, _number(1000, most=768000, whole=True))
    "Hz; files are resampled to this rate"
    N_FFT: int = _setting(None, TRANSFORM, _number(SHORTEST, most=LONGEST, whole=True), 512, 1024, transform="stft")
    'window in samples; longer: finer in pitch, blurred in time; None: 512, "gatys": 1024'
    K_HOP: int = _setting(None, TRANSFORM, _number(1, most=LONGEST, whole=True), 128, 256)
    'hop in samples, at most half of the window, better a quarter; None: 128, 256 on the STFT of "gatys"'
    bins_per_octave: int = _setting(48, TRANSFORM, _number(1, whole=True), transform="cqt")
    "bins in an octave; more: finer in pitch, low bins blurred in time"
    lowest_frequency: float = _setting(41.2, TRANSFORM, _number(0, beyond=True), transform="cqt")
    "Hz, of the lowest bin"
    n_octaves: int = _setting(8, TRANSFORM, _number(1, most=20, whole=True), transform="cqt")
    "octaves from there; the highest bin must lie below half of sample_rate"
    power: float | str = _setting(None, SPECTROGRAMS, lambda name, value: check_power(value), 0.3, "log1p")
    'magnitudes are compressed by this power, 0.01 to 1, or "log1p"; None: 0.3, "gatys": "log1p"'
    use01scale: bool = _setting(True, SPECTROGRAMS, checks.check_flag)
    'True: spectrograms from 0 to 1; False: from 0 to 7 with "log1p"'
    whichChannel: str = _setting("freq", NETWORK, _choice(LAYOUTS))
    '"freq": filters run over time; "time": over frequency; "2D": over both; "bands" needs "freq"'
    widths: tuple = _setting((1, 2, 4, 8, 16, 32), NETWORK, checks.check_widths)
    'frames; lengths of the filters of "bands", one network each'
    pattern_share: float = _setting(0.8, NETWORK, _number(0, most=1))
    "0 to 1; share of these filters that see a random pattern of bins; the others: a band"
    redraw: int = _setting(5, START, _steps)
    'steps after which "bands" draws new random filters; 0: the same filters to the end'
    model_path: str | None = _setting(None, NETWORK, checks.check_path)
    'weights of "gatys"; None: random weights'
    param_pkl: str | None = _setting(None, NETWORK, checks.check_path)
    'parameters of "gatys", the pair of model_path; None: `parameters`'
    parameters: dict = _setting(checks.CHANNELS, NETWORK, checks.check_parameters)
    'of "gatys" without files'
    use_style_net: bool = _setting(False, NETWORK, checks.check_flag)
    'True: the network written in the cell "Here we create a custom network"'
    where: dict = _setting({}, WHERE, check_boxes)
    'masks, such as {"change": {"seconds": [[2, 4]], "hertz": [[2000, 8000]]}}; {}: everything may change'
    statistic: str = _setting(None, LOSSES, _choice(audiocnn.STYLE_LOSSES), ("balanced", "distribution"), "gram")
    '"distribution", "balanced" or "gram"; None: balanced, in a transfer distribution, "gatys": gram'
    style_layers_default: dict = _setting(None, LOSSES, _layers, ["conv_2"], ["relu_1"])
    'list of layers, or dict to weights; None: ["conv_2"], "gatys": ["relu_1"]'
    content_layers_default: dict = _setting(None, LOSSES, _layers, ["conv_2"], ["relu_3"])
    'the same, in a transfer; None: ["conv_2"], "gatys": ["relu_3"]'
    content_level: str = _setting(None, LOSSES, _choice(losses.CONTENT_LOSSES), "free", "same")
    """"free": frames may be quieter than the content's; "same"; None: free, "gatys": same"""
    style_blend: tuple | None = _setting(None, LOSSES, checks.check_blend)
    "shares of several styles, such as [1, 2]; None: equal"
    rhythm_weight: float | None = _setting(None, LOSSES, _cost, (None, 0.0), 0.0)
    '0 and more; None: as far as the style has a beat, in a transfer and in "gatys" 0'
    diversity_weight: float | tuple = _setting(None, LOSSES, _cost_or_curve, (100.0, 0.0), 0.0)
    'cost of copied passages, 0 and more; None: 100 in a texture of "bands", otherwise 0'
    pitch_weight: float | tuple = _setting(None, LOSSES, _cost_or_curve, (0.0, 0.5), 0.0)
    '0 and more; keeps the notes of a content; None: 0.5 in a transfer of "bands", otherwise 0'
    boundopt: bool = _setting(True, LOSSES, checks.check_flag)
    "True: a loss grows where the result leaves 0 to 1"
    reg_weight: float = _setting(1e-3, LOSSES, _cost)
    "0 and more; weight of this loss"
    segment_duration: float | None = _setting(5.0, LOSSES, _number(0.1, most=10**6))
    "seconds; a longer result is compared segment by segment; None: as a whole"
    start: str = _setting(None, START, checks.check_start, ("noise", "content"), ("rand", "content"))
    '"noise", "content", "rand", "randn", "samples" or a file; None: noise, "gatys": rand, transfer: content'
    start_values: dict = _setting(dict(lower=0.0, upper=1.0, mu=0.1, sigma=0.05), START, checks.check_start_values)
    'limits, mean, deviation of the start "samples"'
    phase_iterations: int = _setting(None, SOUND, _number(1, most=10**4, whole=True), 50, 200)
    'iterations of the reconstruction; more: cleaner; None: 50, "gatys": 200, constant-Q: 80'
    # Many runs, and the device
    runs: int = _setting(1, NETWORK, _number(1, most=1000, whole=True))
    "separate results, each with the next seed"
    sweep: dict = _setting({}, NO_STEP, checks.check_sweep)
    'lists of values, such as {"content_weight": [10, 30, 100], "seed": [0, 1]}; see the last step'
    device: str = _setting(None, NETWORK, checks.check_device)
    '"cpu", "cuda" or "mps"; None: the fastest that is present'
    # Without a line in the settings cell, and without help
    threads: int = _setting(None, NETWORK, _number(1, most=1024, whole=True))
    transform: str = _setting("stft", TRANSFORM, _choice(("stft", "cqt")))
    own: dict = _setting({}, LOSSES, _own)

    def __post_init__(self):
        try:
            self._set("given", _frozen({each.name: getattr(self, each.name) for each in fields(self)}))
        except RecursionError as error:
            raise ValueError("a setting holds itself; write plain lists and dicts") from error
        check_choice("recipe", self.recipe, RECIPES)
        check_choice("transform", self.transform, ("stft", "cqt"))
        filled_in = self.filled_in()
        for each in fields(self):
            value = self.given[each.name]
            value = _frozen(filled_in.get(each.name)) if value is None else value
            may_be_none = isinstance(None, each.type)
            read = each.metadata["transform"] in (None, self.transform) and not (value is None and may_be_none)
            weights = each.metadata["check"](each.name, value) if read else None
            self._set(each.name, value if weights is None else _frozen(weights))
        self.make_transform()  # raises ValueError for windows and grids that can't be inverted
        self.check_together()
        self._check_sweep()

    def filled_in(self):
        """Return the values of the settings that are None: reads transform, recipe, is_transfer, use_style_net."""
        values = {"device": best_device(), "threads": torch.get_num_threads()}
        values["outname"] = _name_of(self.STYLE_FILENAME, self.CONTENT_FILENAME)
        for each in fields(Settings):
            value = each.metadata[self.recipe]
            if value is not None:
                values[each.name] = value[self.is_transfer] if isinstance(value, tuple) else value
        if self.use_style_net:
            values |= dict(style_layers_default=["relu_1"], content_layers_default=["relu_1"])
        if self.transform == "cqt":
            values |= dict(N_FFT=None, K_HOP=128, phase_iterations=80)
        return values

    @classmethod
    def of(cls, names, *, transform, own=()):
        """Return the settings among the names of a notebook; ValueError says which are missing or misspelt.

        Parameters
        ----------
        names : mapping
            All names of the notebook, globals().
        transform : "stft" or "cqt"
            The settings that only the other transform has may be missing.
        own : names of the settings cell that may be settings of the user's own
        """
        declared = typed_with(transform)
        for name in own:
            checks.check_own(name, declared)
        missing = [name for name in declared if name not in names]
        if missing:
            lines = ", ".join(f"{name} = {DEFAULTS[name]!r}" for name in missing)
            raise ValueError(
                f"the settings cell has no line for {', '.join(missing)}; add {lines} to the settings cell, run the "
                "settings cell, and then this cell again"
            )
        typed = {name: names[name] for name in DEFAULTS if name in names and name not in NOT_TYPED}
        return cls(transform=transform, own={name: names[name] for name in own}, **typed)

    def __getattr__(self, name):
        if name not in self.__dict__.get("own", {}):  # which a copy in the making lacks
            raise AttributeError(f"there is no setting {name!r}")
        return self.own[name]

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    def _check_sweep(self):
        swept = [name for name in (*typed_with(self.transform), *self.own) if STEP_OF.get(name) != NO_STEP]
        for name in self.sweep:
            checks.check_own(name, swept, what="sweep: ")
            if name not in swept:
                raise ValueError(
                    f"sweep: {name!r} must be a setting of the sound, or a name of your own in the settings cell"
                )
        for point in self.points():
            with warnings.catch_warnings(action="ignore"):
                self.changed(sweep={}, **point)

    def changed(self, **changes):
        """Return the settings as typed, with changes; names that are neither declared nor own raise ValueError."""
        for name in changes:
            checks.check_known(name, [*DEFAULTS, *self.own])
        own = {name: changes.pop(name, value) for name, value in self.own.items()}
        return Settings(**self.given | {"own": own} | changes)

    @property
    def styles(self):
        """Paths of the styles, a tuple."""
        return self.STYLE_FILENAME if isinstance(self.STYLE_FILENAME, tuple) else (self.STYLE_FILENAME,)

    @property
    def files(self):
        """Paths of the recordings: dict from "style 1", "style 2" ... and "content"."""
        files = {f"style {number}": path for number, path in enumerate(self.styles, start=1)}
        return files | ({"content": self.CONTENT_FILENAME} if self.is_transfer else {})

    @property
    def drawn(self):
        """Paths of the styles whose excerpts are drawn, a dict from name to path, see sound/excerpts.py."""
        return {name: path for name, path in self.files.items() if name != "content" and is_drawn(path, self.offset)}

    @property
    def length_of_long(self):
        """How long a result is that is made section by section [samples]; None: it is made at once, see sections.py."""
        curved = any(is_curve(getattr(self, name)) for name in checks.CURVES)
        at_once = self.loop or self.where or self.runs > 1 or self.whichChannel == "time" or curved
        if at_once or self.start not in STARTS:
            return None
        seconds = self.result_duration
        if self.is_transfer:
            seconds = seconds_of(self.CONTENT_FILENAME, offset=self.offset or 0.0, duration=self.duration)
        return round(seconds * self.sample_rate) if seconds and seconds > LONG else None

    def offset_of(self, name, section=None):
        """Return where the excerpt of a recording begins [s]; None: it is drawn. section: of a long result."""
        if name != "content":
            return self.offset
        return (self.offset or 0.0) + (section.first / self.sample_rate if section else 0.0)

    def duration_of(self, name, section=None):
        """Return the duration of the excerpt [s]; None: to the end. Of the content of a long result, one section's."""
        if name != "content" or self.length_of_long is None:
            return self.duration
        length = section.length if section else ends_of(self.length_of_long, self.sample_rate)[0]
        return length / self.sample_rate

    def load(self, draw=0, section=None):
        """Return the recordings of a draw, and of a section of a long result, a dict from name to samples."""
        return {
            name: excerpts.load(
                path,
                draw=draw,
                seed=self.seed,
                sample_rate=self.sample_rate,
                offset=self.offset_of(name, section),
                duration=self.duration_of(name, section),
                mono=not self.stereo,
                may_be_silent=section is not None,
            )
            for name, path in self.files.items()
        }

    def excerpts(self, draws):
        """Return the pieces of drawn excerpts, for the json: dict from name to dict from draw to pieces."""
        how = dict(seed=self.seed, sample_rate=self.sample_rate, duration=self.duration, mono=not self.stereo)
        return {
            name: {str(draw): excerpts.excerpt(path, draw, **how)[0] for draw in draws}
            for name, path in self.drawn.items()
        }

    def with_other_excerpts(self, saved):
        """Return the paths of styles whose excerpts are not the ones of a json; missing files are named later."""
        with contextlib.suppress(OSError, ValueError):
            now = plain(self.excerpts({int(draw) for drawn in saved.values() for draw in drawn}))
            return [self.files[name] for name in now if now[name] != saved.get(name)]
        return []

    @property
    def is_transfer(self):
        """Whether there is a content; otherwise the result is a texture."""
        return self.CONTENT_FILENAME is not None

    @property
    def kind_of_network(self):
        """The recipe, or "own" with use_style_net."""
        return "own" if self.use_style_net else self.recipe

    @property
    def rhythm_layers(self):
        """conv_1 of the first network: that of the others sees the same, and each costs as much as all style losses."""
        return {f"width_{self.widths[0]}.conv_1" if self.kind_of_network == "bands" else "conv_1": 1.0}

    @property
    def content_layers(self):
        """content_layers_default in a transfer; a texture has none."""
        return self.content_layers_default if self.is_transfer else {}

    @property
    def steps_of_draw(self):
        """Redraw where the networks are random ones of "bands"; 0: they stay the same."""
        return self.redraw if self.kind_of_network == "bands" else 0

    def length_of(self, recordings):
        """Return about how long the result is [samples]: as the content, result_duration, or the style.

        Of a long result, how long its first section is.
        """
        if self.is_transfer:
            return recordings["content"].shape[-1]
        if self.length_of_long is not None:
            return ends_of(self.length_of_long, self.sample_rate)[0]
        if self.result_duration is not None:
            return max(1, round(self.result_duration * self.sample_rate))
        return recordings["style 1"].shape[-1]

    def make_transform(self):
        """Return the transform, an STFT or a CQT."""
        if self.transform == "stft":
            return STFT(sample_rate=self.sample_rate, n_fft=self.N_FFT, hop_length=self.K_HOP)
        return CQT(
            sample_rate=self.sample_rate,
            hop_length=self.K_HOP,
            bins_per_octave=self.bins_per_octave,
            fmin=self.lowest_frequency,
            n_octaves=self.n_octaves,
        )

    def make_analysis(self):
        """Return the analysis of the recordings."""
        return Analysis(
            transform=self.make_transform(),
            power=self.power,
            scaled=self.use01scale,
            layout=self.whichChannel,
        )

    def make_network(self, images, analysis, draw=0):
        """Return the networks of a draw for images by name: band networks, or the network of a file."""
        seed = self.seed + 10**6 * draw
        if self.use_style_net:
            raise ValueError("use_style_net=True: pass your network too, run(settings, networks=...), or set False")
        if self.recipe == "bands":
            network = band_networks(
                analysis.transform.frequencies,
                widths=self.widths,
                filters=self.filters,
                pattern_share=self.pattern_share,
                seed=seed,
            )
        else:
            given = self.param_pkl or self.parameters
            network = networks.network_of_files(self.model_path, given, list(images.values()), analysis, seed=seed)
        return network.to(self.device)

    def make_terms(self, rhythm):
        """Return the sum that is minimised, a list of audiocnn.Term; rhythm: see rhythm.chosen_rhythm."""
        parts = [
            (audiocnn.STYLE_LOSSES[self.statistic], self.style_weight, self.style_layers_default),
            (losses.CONTENT_LOSSES[self.content_level], self.content_weight, self.content_layers),
            (RhythmLoss(), rhythm.weight, self.rhythm_layers),
            (PitchLoss(self.sample_rate), self.pitch_weight, {"samples": 1.0}),
            (losses.DiversityLoss(), self.diversity_weight, {"input": 1.0}),
            (audiocnn.BoundLoss(), self.reg_weight * self.boundopt, {"input": 1.0}),
        ]
        return terms_of(parts, hop_seconds=self.K_HOP / self.sample_rate, blend=self.style_blend)

    def of_run(self, run, **changes):
        """Return the settings that give run number `run` of these settings (from 0) alone, with other changes."""
        settings = copy.copy(self)  # not checked again: a file or a device may be gone when the result is saved
        for name, value in dict(seed=self.seed + run, runs=1, sweep={}, **changes).items():
            settings._set(name, _frozen(value))
        settings._set("given", types.MappingProxyType({name: getattr(settings, name) for name in DEFAULTS}))
        return settings

    def alone(self, hertz=None):
        """Return the settings that make the first style again, given as samples, or only its bands of frequency."""
        unset = dict.fromkeys([*checks.CURVES, "start", "result_duration"])  # they may need a content or two styles
        return self.changed(
            **unset,
            STYLE_FILENAME="style 1",
            CONTENT_FILENAME=None,
            offset=0.0,
            loop=False,
            where={"change": {"hertz": hertz}} if hertz else {},
            runs=1,
            sweep={},
            outname="alone",
        )

    def points(self):
        """Return every combination of the sweep's values, a list of dicts."""
        points = itertools.product(*self.sweep.values()) if self.sweep else ()
        points = [dict(zip(self.sweep, values, strict=True)) for values in points]
        return [point for number, point in enumerate(points) if point not in points[:number]]

    def plain(self):
        """Return all settings by name, as plain lists and dicts."""
        return {name: plain(getattr(self, name)) for name in DEFAULTS}


DEFAULTS = {each.name: each.default_factory() for each in fields(Settings)}
LAYERS = [each.name for each in fields(Settings) if each.metadata["check"] is _layers]
STEP_OF = {each.name: each.metadata["step"] for each in fields(Settings)}
LINES = itertools.pairwise(ast.parse(inspect.getsource(Settings)).body[0].body)
HELP = {
    declared.target.id: text.value.value
    for declared, text in LINES
    if isinstance(declared, ast.AnnAssign) and isinstance(text, ast.Expr)
}
NOT_TYPED = [name for name in DEFAULTS if name not in HELP]


def typed_with(transform):
    """Name the settings that have a line in the settings cell of a notebook with a transform."""
    return [
        each.name for each in fields(Settings) if each.name in HELP and each.metadata["transform"] in (None, transform)
    ]


def _name_of(style, content):  # "water_stream_texture", "speech_in_tabla"
    style = "_and_".join(Path(str(each)).stem for each in (style if isinstance(style, list | tuple) else [style]))
    name = f"{style}_texture" if content is None else f"{Path(str(content)).stem}_in_{style}"
    return re.sub(r"[^\w-]+", "_", name)[:60].strip("_-") or "result"


def best_device():
    """Name the fastest device that is present: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def line_of(name, value=None):
    """Return the line of the settings cell for a setting: its value, or its default, and its help."""
    return f"{name} = {_typed(DEFAULTS[name] if value is None else value)}  # {HELP[name]}"


def _typed(value):  # as a person types it, and as papermill can read it
    value = plain(value)
    return json.dumps(value) if isinstance(value, str | list | dict) else repr(value)


def table_of_settings():
    """Return the table of README.md in this folder: Markdown lines."""
    rows = ["| setting | default | what it does | run again from |", "|---|---|---|---|"]
    for name in HELP:
        step = "-" if STEP_OF[name] == NO_STEP else STEP_OF[name]
        rows.append(f"| `{name}` | `{_typed(DEFAULTS[name])}` | {HELP[name]} | {step} |")
    return "\n".join(rows)


def plain(value):
    """Return a setting's value as plain lists and dicts."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple | list) else value


def _frozen(value):
    if isinstance(value, np.generic | Path):
        return value.item() if isinstance(value, np.generic) else str(value)
    if isinstance(value, Mapping):
        return types.MappingProxyType({name: _frozen(each) for name, each in value.items()})
    return tuple(_frozen(each) for each in value) if isinstance(value, list | tuple) else value


if __name__ == "__main__":  # writes the table of README.md
    readme = Path(__file__).with_name("README.md")
    before, table, after = readme.read_text().split("<!-- settings -->")
    readme.write_text(f"{before}<!-- settings -->\n{table_of_settings()}\n<!-- settings -->{after}")
