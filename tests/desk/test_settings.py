"""Settings: what recipes fill in, that nothing changes them, and what is refused before anything is loaded."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
import textwrap
import tracemalloc
import warnings
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
from kernel import CQT, ROOT, STFT
from test_steps import OTHER

from support import pipeline
from support.desk import fitting, sweeps
from support.desk.settings import (
    DEFAULTS,
    HELP,
    NO_STEP,
    NOT_TYPED,
    RECIPES,
    STEP_OF,
    Settings,
    best_device,
    line_of,
    table_of_settings,
)
from support.sound import transforms
from support.sound.analysis import Analysis

BANDS = dict(power=0.3, style_layers_default={"conv_2": 1.0}, num_steps=60, refine_steps=60)
BANDS |= dict(content_layers_default={"conv_2": 1.0}, style_weight=1.0, content_weight=30.0, content_level="free")
GATYS = dict(power="log1p", statistic="gram", style_layers_default={"relu_1": 1.0}, num_steps=300, refine_steps=0)
GATYS |= dict(content_layers_default={"relu_3": 1.0}, content_weight=1.0, content_level="same", diversity_weight=0.0)
TRANSFER = dict(CONTENT_FILENAME="speech.wav")
PAIR = dict(recipe="gatys", model_path="models/a.pth", param_pkl="params/a")


def silently(**given):
    with warnings.catch_warnings(action="ignore"):
        return Settings(**given)


def chosen(settings, names):
    return {name: getattr(settings, name) for name in names}


def names_of(**typed):
    """The names of a notebook: all settings, and names that are none."""
    return DEFAULTS | typed | {"sounds": [1], "_": 3, "steps": object()}


# From a notebook's names -------------------------------------------------------------------------


@pytest.mark.parametrize("transform", ["stft", "cqt"])
def test_every_setting_is_taken_from_the_names(transform):
    """Each has another value than its default in one of two cases, so that a setting that is left out shows."""
    cases = [
        {name: OTHER[name] for name in OTHER if name != "threads"} | dict(loop=False),
        dict(recipe="gatys", model_path="b.pth", param_pkl="b", loop=True),
    ]
    others = [{name for name in case if case[name] != DEFAULTS[name]} for case in cases]
    assert set.union(*others) == set(DEFAULTS) - {"threads"}  # which a cell can't type
    with warnings.catch_warnings(action="ignore"):
        for case in cases:
            names = names_of(**case) | {"transform": object()}  # the notebooks give this name to the transform itself
            settings = Settings.of(names | case.get("own", {}), transform=transform, own=case.get("own", ()))
            expected = Settings(**case | {"transform": transform})
            assert settings == expected and settings.given == expected.given


@pytest.mark.parametrize("transform", ["stft", "cqt"])
def test_a_setting_that_the_notebook_lacks_is_named(transform):
    others = {"stft": {"bins_per_octave", "lowest_frequency", "n_octaves"}, "cqt": {"N_FFT"}}[transform]
    for each in dataclasses.fields(Settings):
        names = names_of()
        del names[each.name]
        if each.name in others | set(NOT_TYPED):
            assert Settings.of(names, transform=transform) == Settings(transform=transform)
            continue
        line = re.escape(f"{each.name} = {DEFAULTS[each.name]!r}")
        with pytest.raises(ValueError, match=rf"has no line for {each.name}; add {line} to the settings cell, run the"):
            Settings.of(names, transform=transform)
    names = {name: value for name, value in names_of().items() if name not in ("seed", "filters")}
    with pytest.raises(ValueError, match="no line for filters, seed; add filters = 160, seed = 0 to"):
        Settings.of(names, transform=transform)
    with pytest.raises(ValueError, match="transform='mel' is unknown; choose one of stft, cqt"):
        Settings.of(names_of(), transform="mel")


# Declarations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [STFT, CQT])
def test_each_setting_is_declared_once(name):
    """The settings cell is what the declarations give, line by line, and so is the table of the readme."""
    (source,) = [
        cell.source
        for cell in nbformat.read(ROOT / name, as_version=4).cells
        if "parameters" in cell.metadata.get("tags", [])
    ]
    lines = source.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 120
    stem = name.removeprefix("neural_style_audio_").removesuffix(".ipynb")
    pair = f"{dict(pretrained='stft', cqt='cqt')[stem]}_freq"
    typed = dict(model_path=f"models/{pair}.pth", param_pkl=f"params/{pair}")
    other = {"N_FFT"} if name == CQT else {"bins_per_octave", "lowest_frequency", "n_octaves"}
    assert lines[0].startswith("steps.typed()") and lines.index("# The method, in the order of the steps") == 16
    assert [line for line in lines[1:] if not line.startswith("#")] == [
        line_of(each, typed.get(each)) for each in HELP if each not in other
    ]
    assert set(DEFAULTS) - set(HELP) == set(NOT_TYPED) == {"threads", "transform", "own"}
    table = (ROOT / "support/desk/README.md").read_text().split("<!-- settings -->\n")[1]
    assert table == table_of_settings() + "\n" and all(f"| `{each}` |" in table for each in HELP)


def test_misspelt_settings_are_refused_in_changes():
    with pytest.raises(ValueError, match=re.escape("'num_step' is not a setting; did you mean 'num_steps'?")):
        Settings().changed(num_step=3)
    with pytest.raises(ValueError, match=r"'tone' is not a setting; write a line tone = \.\.\. in the settings cell"):
        Settings().changed(tone=3)
    with pytest.raises(ValueError, match=re.escape("'my_wieght' is not a setting; did you mean 'my_weight'?")):
        Settings(own={"my_weight": 1}).changed(my_wieght=3)
    changed = Settings(own={"my_weight": 1, "other": 2}, num_steps=5).changed(my_weight=3, seed=4)
    assert changed == Settings(own={"my_weight": 3, "other": 2}, num_steps=5, seed=4) and changed.my_weight == 3
    with pytest.raises(TypeError, match="num_step"):
        Settings(num_step=3)


# Recipes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "content", "expected"),
    [
        ("bands", None, BANDS | dict(start="noise", statistic="balanced", diversity_weight=100.0)),
        ("bands", "speech.wav", BANDS | dict(start="content", statistic="distribution", diversity_weight=0.0)),
        ("gatys", None, GATYS | dict(start="rand", style_weight=1e9)),
        ("gatys", "speech.wav", GATYS | dict(start="content", style_weight=1e7)),
    ],
)
@pytest.mark.parametrize("transform", ["stft", "cqt"])
def test_a_recipe_fills_in_every_setting_that_is_none(recipe, content, transform, expected):
    settings = Settings(recipe=recipe, CONTENT_FILENAME=content, transform=transform)
    hops = {"bands": (512, 128, 50), "gatys": (1024, 256, 200)}[recipe] if transform == "stft" else (None, 128, 80)
    expected = expected | dict(zip(("N_FFT", "K_HOP", "phase_iterations"), hops, strict=True))
    assert chosen(settings, expected) == expected
    assert settings.device == best_device()
    # These say by None that the sound, or nothing, decides.
    free = {"CONTENT_FILENAME"} if content is None else set()
    free |= {"N_FFT"} if transform == "cqt" else set()
    free |= {"rhythm_weight"} if (recipe, content) == ("bands", None) else set()
    free |= {"model_path", "param_pkl", "style_blend", "result_duration"}
    assert {each.name for each in dataclasses.fields(settings) if getattr(settings, each.name) is None} == free


def test_typed_values_are_kept():
    typed = dict(N_FFT=2048, K_HOP=64, power=0.5, statistic="gram", style_weight=3.0, content_weight=0.0, start="rand")
    typed |= dict(refine_steps=0, phase_iterations=7, device="cpu")
    for recipe in ("bands", "gatys"):
        settings = Settings(recipe=recipe, style_layers_default=["conv_1"], **typed)
        assert chosen(settings, typed) == typed and settings.style_layers_default == {"conv_1": 1.0}


def test_nothing_of_a_recipe_sticks():
    """A change of what was typed gives the settings that a fresh start gives."""
    first = Settings(num_steps=7)
    transfer = Settings(**first.given | TRANSFER)
    assert (first.start, transfer.start) == ("noise", "content")
    gatys = Settings(**transfer.given | dict(recipe="gatys"))
    assert chosen(gatys, ("N_FFT", "K_HOP", "power", "statistic")) == dict(
        N_FFT=1024, K_HOP=256, power="log1p", statistic="gram"
    )
    assert gatys.num_steps == 7 and gatys == Settings(recipe="gatys", num_steps=7, **TRANSFER)
    assert Settings(**gatys.given | dict(recipe="bands", CONTENT_FILENAME=None)) == first


def test_a_network_of_ones_own_has_its_relu():
    for recipe in ("bands", "gatys"):
        settings = Settings(recipe=recipe, use_style_net=True, **TRANSFER)
        assert settings.style_layers_default == settings.content_layers_default == {"relu_1": 1.0}
    typed = Settings(use_style_net=True, style_layers_default=["conv_1"], **TRANSFER)
    assert typed.style_layers_default == {"conv_1": 1.0} and typed.content_layers_default == {"relu_1": 1.0}


# Immutability ------------------------------------------------------------------------------------


def test_settings_do_not_change():
    widths, layers, points, styles = [1, 8], {"conv_1": 2.0}, {"seed": [1, 2]}, ["a.wav", "b.wav"]
    given = dict(widths=widths, style_layers_default=layers, sweep=points, STYLE_FILENAME=styles, own={"mine": [1]})
    settings, untouched = Settings(**given), Settings(**json.loads(json.dumps(given)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.filters = 3
    assert settings.widths == (1, 8) and settings.styles == ("a.wav", "b.wav") and settings.sweep["seed"] == (1, 2)
    for mapping in (settings.style_layers_default, settings.sweep, settings.given, settings.own, settings.parameters):
        with pytest.raises(TypeError):
            mapping["new"] = 1
    widths.append(16)
    styles.clear()
    layers["conv_2"] = 1.0
    points["seed"].append(3)
    points["filters"] = [9]
    given["own"]["mine"].append(2)
    assert settings == untouched
    assert Settings(**settings.given) == untouched  # what was typed is kept too, not only what is filled in


def test_paths_may_be_objects():
    settings = Settings(STYLE_FILENAME=Path("a.wav"), CONTENT_FILENAME=Path("b.wav"))
    assert settings.styles == ("a.wav",) and settings.is_transfer
    assert Settings(STYLE_FILENAME="a.wav").styles == ("a.wav",)


# What depends on settings ------------------------------------------------------------------------


def test_one_run_of_many():
    settings = silently(runs=3, seed=5, sweep={"filters": [8, 9]}, rhythm_weight=1.0)
    with warnings.catch_warnings(action="error"):  # the warnings were shown before
        run = settings.of_run(2, num_steps=11)
    differing = {
        each.name for each in dataclasses.fields(Settings) if getattr(run, each.name) != getattr(settings, each.name)
    }
    assert differing == {"runs", "seed", "sweep", "num_steps"}
    assert (run.seed, run.runs, run.num_steps) == (7, 1, 11) and not run.sweep and not run.points()


def test_the_points_of_a_sweep_are_all_combinations():
    sweep = {"seed": [0, 1, 2], "widths": [[1], [1, 8]], "power": ["log1p", 0.5]}
    points = Settings(sweep=sweep).points()
    expected = [
        {"seed": seed, "widths": widths, "power": power}
        for seed, widths, power in itertools.product(range(3), [(1,), (1, 8)], ["log1p", 0.5])
    ]
    assert len(points) == 12 and all(point in points for point in expected)
    assert not Settings().points()
    repeated = Settings(sweep={"seed": [1, 0, 1]})
    assert repeated.points() == [{"seed": 1}, {"seed": 0}]


def test_a_sweep_runs_settings_as_they_were_typed(monkeypatch):
    """Every point gets its own recipe's values: none that the recipe of the sweeping notebook filled in."""
    seen = []
    monkeypatch.setattr(sweeps, "run_notebooks", lambda path, points, **how: seen.append((path, points, how)) or [])
    settings = Settings(sweep={"recipe": ["bands", "gatys"]}, outname="x")
    list(sweeps.run_sweep(STFT, settings, n_jobs=3, watch=print))
    ((path, points, how),) = seen
    assert path == STFT and how == dict(outname="x", named=["recipe"], n_jobs=3, watch=print) and len(points) == 2
    assert [Settings(**point).N_FFT for point in points] == [512, 1024]
    assert not set(points[0]) & {*NOT_TYPED, *(name for name in STEP_OF if STEP_OF[name] == NO_STEP)}


def test_the_transform_is_that_of_the_settings():
    stft = Settings(N_FFT=256, K_HOP=32, sample_rate=8000).make_transform()
    assert (stft.n_fft, stft.hop_length, stft.sample_rate) == (256, 32, 8000)
    grid = dict(bins_per_octave=12, lowest_frequency=100.0, n_octaves=4)
    cqt = Settings(transform="cqt", K_HOP=64, **grid).make_transform()
    assert (cqt.bins_per_octave, cqt.fmin, cqt.n_octaves, cqt.hop_length) == (12, 100.0, 4, 64)


# What is refused ---------------------------------------------------------------------------------

NUMBER = "must be a finite number"
HOLDS_ITSELF = []
HOLDS_ITSELF.append(HOLDS_ITSELF)
VALUES = dict(lower=0.0, upper=1.0, mu=0.1, sigma=0.05)
REFUSED = [
    # settings, the value as the message names it, what is allowed or what to do
    (dict(content_weight=-1), "content_weight=-1", "must be a finite number of at least 0"),
    (dict(content_weight="10"), "content_weight='10'", "must be a finite number of at least 0"),
    (dict(content_weight=float("nan")), "content_weight=nan", "must be a finite number of at least 0"),
    (dict(style_weight=float("inf")), "style_weight=inf", NUMBER),
    (dict(style_weight=True), "style_weight=True", NUMBER),
    (dict(start_values=VALUES | dict(mu=True)), "start_values['mu']=True", NUMBER),
    (dict(start_values=VALUES | dict(mu=float("-inf"))), "start_values['mu']=-inf", NUMBER),
    (dict(filters=True), "filters=True", "must be a whole number of at least 1"),
    (dict(seed=True), "seed=True", "must be a whole number of at least 0"),
    (dict(seed=-1), "seed=-1", "must be a whole number of at least 0"),
    (dict(num_steps=1.5), "num_steps=1.5", "must be a whole number of at least 0"),
    (dict(runs=0), "runs=0", "must be a whole number of at least 1"),
    (dict(sample_rate=22050.0), "sample_rate=22050.0", "must be a whole number of at least 1"),
    (dict(duration=0), "duration=0", "must be a finite number above 0"),
    (dict(duration="5"), "duration='5'", "must be a finite number above 0"),
    (dict(offset=-0.1), "offset=-0.1", "must be a finite number of at least 0"),
    (dict(segment_duration=0.0), "segment_duration=0.0", "must be a finite number of at least 0.1"),
    (dict(use01scale=1), "use01scale=1", "must be True or False"),
    (dict(stereo="yes"), "stereo='yes'", "must be True or False"),
    (dict(widths=[]), "widths=()", "must be a list of lengths in frames, such as [8]"),
    (dict(widths=8), "widths=8", "must be a list of lengths in frames, such as [8]"),
    (dict(widths=[1, 0.5]), "widths[1]=0.5", "must be a whole number of at least 1"),
    (dict(power=0), "power=0", 'must be from 0.01 to 1, for example 0.3; or "log1p"'),
    (dict(power="log"), "power='log'", 'must be from 0.01 to 1, for example 0.3; or "log1p"'),
    (dict(power=True), "power=True", 'must be from 0.01 to 1, for example 0.3; or "log1p"'),
    (dict(recipe="bend"), "recipe='bend'", "choose one of bands, gatys"),
    (dict(recipe=["bands"]), "recipe=['bands']", "choose one of bands, gatys"),
    (dict(transform="fft"), "transform='fft'", "choose one of stft, cqt"),
    (dict(statistic="mean"), "statistic='mean'", "choose one of gram, distribution, balanced"),
    (dict(content_level="quiet"), "content_level='quiet'", "choose one of same, free"),
    (dict(statistic=["gram"]), "statistic=('gram',)", "choose one of gram, distribution, balanced"),
    (dict(whichChannel="3D"), "whichChannel='3D'", "choose one of freq, time, 2D"),
    (dict(whichChannel="time"), "whichChannel='time'", "needs recipe='gatys'"),
    (dict(whichChannel="2D"), "whichChannel='2D'", "needs recipe='gatys'"),
    (dict(parameters=[8]), "parameters=(8,)", "must be a dict from names to values"),
    (dict(device="meta"), "device='meta'", "set it to None, for the fastest one that is present"),
    (dict(device=0), "device=0", "set it to None, for the fastest one that is present"),
    (dict(seed=2**63), f"seed={2**63}", f"of at least 0 and at most {2**63 - 1}"),
    (dict(param_pkl=3), "param_pkl=3", "must be the path of a file, or None"),
    (dict(model_path=["a.pth"]), "model_path=('a.pth',)", "must be the path of a file, or None"),
    (dict(outname="x" * 151), "outname='xxx", "at most 150 characters"),
    (dict(outname=".rain"), "outname='.rain'", "must be a file name"),
    (dict(outname="ra\nin"), "outname='ra", "must be a file name"),
    (dict(style_layers_default=[1]), "style_layers_default=(1,)", "must be a list of layer names, such as ['conv_1']"),
    (dict(device="gpu"), "device='gpu'", "set it to None, for the fastest one that is present"),
    (dict(STYLE_FILENAME=[]), "STYLE_FILENAME=()", "must be the path of a sound file, or a list of such paths"),
    (dict(STYLE_FILENAME=""), "STYLE_FILENAME=''", "must be the path of a sound file, or a list of such paths"),
    (dict(STYLE_FILENAME=["a.wav", 3]), "STYLE_FILENAME=('a.wav', 3)", "or a list of such paths"),
    (dict(CONTENT_FILENAME=""), "CONTENT_FILENAME=''", "must be the path of a file, or None"),
    (dict(CONTENT_FILENAME=["a.wav"]), "CONTENT_FILENAME=('a.wav',)", "must be the path of a file, or None"),
    (
        dict(outname="a/b"),
        "outname='a/b'",
        "must be a file name of at most 150 characters without folders, like 'rain'",
    ),
    (dict(outname=""), "outname=''", "must be a file name of at most 150 characters without folders, like 'rain'"),
    (PAIR | dict(param_pkl=None), "model_path='models/a.pth'", "set param_pkl to the file of the same name"),
    (dict(start="outputs/nope.wav"), "start='outputs/nope.wav'", "one of samples, rand, randn, content, noise"),
    (dict(start=5), "start=5", "one of samples, rand, randn, content, noise"),
    (dict(start="content"), "'content' needs a content", "set CONTENT_FILENAME, or start='noise'"),
    (dict(start="samples", start_values=VALUES | dict(lower=0.5, upper=0.2)), "lower=0.5", "must be below upper=0.2"),
    (dict(start="samples", start_values=VALUES | dict(sigma=0)), "start_values['sigma']=0", "of at least 0.001"),
    (dict(start_values=dict(mu=0.1)), "start_values={'mu': 0.1}", "must hold lower, upper, mu, sigma"),
    (PAIR | TRANSFER | dict(runs=2), "runs=2", "set runs=1, or start='noise'"),
    (dict(style_weight=0), "style_weight=0", "no loss has both a layer and a weight above 0"),
    (
        TRANSFER | dict(style_weight=0, content_weight=0),
        "content_weight=0",
        "no loss has both a layer and a weight above",
    ),
    (dict(style_layers_default=[]), "nothing to optimise", "no loss has both a layer and a weight above 0"),
    (dict(style_layers_default={"conv_1": 0}), "nothing to optimise", "no loss has both a layer and a weight above 0"),
    (dict(style_layers_default="relu_1"), "style_layers_default='relu_1'", "list of layer names, such as ['relu_1']"),
    (dict(style_layers_default=3), "style_layers_default=3", "must be a list of layer names"),
    (dict(style_layers_default={"conv_1": -2}), "style_layers_default['conv_1']=-2", NUMBER),
    (dict(style_blend=[1, 2]), "style_blend=(1, 2)", "one share for each of the 1 styles"),
    (dict(STYLE_FILENAME=["a", "b"], style_blend=[1]), "style_blend=(1,)", "one share for each of the 2 styles"),
    (dict(STYLE_FILENAME=["a", "b"], style_blend=[1, 0]), "style_blend[1]=0", "must be a finite number above 0"),
    (dict(style_blend=1), "style_blend=1", "one share for each style, such as [1, 2]"),
    (dict(sweep={"own": [{}]}), "'own'", "must be a setting of the sound, or a name of your own in the settings cell"),
    (dict(sweep={"N_FFT": [512]}, transform="cqt"), "sweep: 'N_FFT'", "must be a setting of the sound, or a name"),
    (dict(sweep={"num_step": [1]}), "sweep: 'num_step' is not a setting", "did you mean 'num_steps'?"),
    (dict(own={"mine": 1}, sweep={"Mine": [1]}), "sweep: 'Mine' is not a setting", "did you mean 'mine'?"),
    (dict(own=[1]), "own=(1,)", "must be a dict from names to values"),
    (dict(own={"mine": HOLDS_ITSELF}), "a setting holds itself", "write plain lists and dicts"),
    (dict(style_layers_default="x" * 10**5), "in all 100002 letters", "must be a list of layer names"),
    (dict(own={"mine": np.ones(2)}), "mine=array([1., 1.])", "or write this line in a cell below"),
    (dict(own={"mine": [abs]}), "mine=(<built-in function abs>,)", "set numbers, strings, and lists and dicts of them"),
    (dict(own={"files": 3}), "'files' is a name that the settings use themselves", "choose another one"),
    (
        dict(sweep={"nonsense": [1]}),
        "'nonsense'",
        "must be a setting of the sound, or a name of your own in the settings cell",
    ),
    (
        dict(sweep={"sweep": [{}]}),
        "'sweep'",
        "must be a setting of the sound, or a name of your own in the settings cell",
    ),
    (
        dict(sweep={"outname": ["a"]}),
        "'outname'",
        "must be a setting of the sound, or a name of your own in the settings cell",
    ),
    (
        dict(sweep={"transform": ["cqt"]}),
        "'transform'",
        "must be a setting of the sound, or a name of your own in the settings cell",
    ),
    (dict(sweep={"seed": 3}), "'seed': 3", "must map names of settings to lists"),
    (dict(sweep={"seed": []}), "'seed': ()", "must map names of settings to lists"),
    (dict(sweep=["seed"]), "sweep=('seed',)", "must be a dict from names to values"),
    (dict(sweep={"seed": [0, -1]}), "seed=-1", "must be a whole number of at least 0"),
    (
        dict(sweep={"recipe": ["gatys"], "K_HOP": [1024]}),
        "hop_length=1024",
        "the hop must be at most 512",
    ),
    (dict(K_HOP=512), "hop_length=512", "the hop must be at most 256; 128 is usual"),
    (dict(transform="cqt", n_octaves=9), "n_octaves=9", "set n_octaves=8 or lowest_frequency=21.4 or sample_rate="),
    (dict(transform="cqt", lowest_frequency=0), "lowest_frequency=0", "must be a finite number above 0"),
]


@pytest.mark.parametrize(("given", "value", "advice"), REFUSED, ids=[str(given) for given, *_ in REFUSED])
def test_impossible_settings_are_refused_with_advice(given, value, advice):
    with pytest.raises(ValueError, match=re.escape(value)) as error:
        silently(**given)
    assert advice in str(error.value)


NUMBERS = [name for name, value in Settings().plain().items() if type(value) in (int, float)]
NUMBERS += ["duration", "result_duration", "segment_duration", "power", "N_FFT", "K_HOP"]
VALUES_OF = {name: lambda value, name=name: {name: value} for name in NUMBERS}
VALUES_OF |= {
    "widths": lambda value: {"widths": [1, value]},
    "style_blend": lambda value: {"style_blend": [value, 1], "STYLE_FILENAME": ["a.wav", "b.wav"]},
    "style_layers_default": lambda value: {"style_layers_default": {"conv_2": value, "conv_1": 1.0}},
    **{
        f"start_values['{name}']": lambda value, name=name: {"start": "samples", "start_values": VALUES | {name: value}}
        for name in VALUES
    },
    **{
        f"parameters['{name}']": lambda value, name=name: {"recipe": "gatys", "parameters": {name: value}}
        for name in ("l1channels", "l2channels", "l3channels", "kernelsize", "n_classes")
    },
}
EXTREMES = [0, -1, 1e-300, 1e300, -1e300, 10**9, 10**30, 10**400, float("nan"), float("inf"), True, np.bool_(True)]
EXTREMES += [np.float32(1e30), np.float64("nan"), np.int64(2**62), np.int8(-3), "3", b"3", 1j, [1], {}]


@pytest.mark.parametrize("transform", ["stft", "cqt"])
@pytest.mark.parametrize("name", VALUES_OF)
def test_every_number_is_taken_or_refused_in_one_line(name, transform):
    """In 50 MB: a window or a network of the refused sizes would take more."""
    tracemalloc.start()
    refused = 0
    for value in EXTREMES:
        try:
            silently(**VALUES_OF[name](value) | {"transform": transform})
        except ValueError as error:
            refused += 1
            setting = name.split("[")[0]
            assert "\n" not in str(error) and (setting in str(error) or "GB of memory" in str(error)), (value, error)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    unread = transform == "cqt" and name == "N_FFT"
    unread |= transform == "stft" and name in ("bins_per_octave", "lowest_frequency", "n_octaves")
    assert refused == 0 if unread else refused > len(EXTREMES) / 2
    assert most < 5e7


@pytest.mark.parametrize("name", ["duration", "offset", "content_weight"])
def test_a_decimal_comma_is_explained(name):
    """Python takes 2,5 as a tuple of two numbers, without a word."""
    exec(f"{name} = 2,5", typed := {})
    with pytest.raises(ValueError, match=rf"{name}=\(2, 5\) must be .*; Python takes a comma .*: write 2\.5, not 2,5"):
        Settings(**{name: typed[name]})


def test_none_is_not_offered_where_the_recipe_fills_it_in():
    with pytest.raises(ValueError, match="power=0") as error:
        Settings(power=0)
    assert "None" not in str(error.value) and '"log1p"' in str(error.value)


def test_a_start_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"start='earlier.wav' is neither a file in {tmp_path} nor one of")):
        Settings(start="earlier.wav")
    (tmp_path / "earlier.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"earlier.wav is not a sound file that libsndfile can read"):
        Settings(start="earlier.wav")
    soundfile.write(tmp_path / "earlier.wav", np.ones(9), 22050)
    assert Settings(start="earlier.wav").start == "earlier.wav"


def test_runs_differ_by_network_or_by_start(tmp_path):
    """Several runs are refused where they would all be the same sound, and only there."""
    trained = PAIR | TRANSFER | dict(runs=2)
    soundfile.write(tmp_path / "earlier.wav", np.ones(9), 22050)
    for fixed in ("content", str(tmp_path / "earlier.wav")):
        with pytest.raises(ValueError, match=re.escape("runs=2 would make the same sound 2 times")):
            Settings(**trained | dict(start=fixed))
    for different in (dict(start="noise"), dict(model_path=None), dict(recipe="bands"), dict(use_style_net=True)):
        assert Settings(**trained | different).runs == 2
    assert Settings(**trained | dict(runs=1)).start == "content"


EFFECTLESS = [
    (dict(n_octaves=7), "n_octaves=7 has no effect, because the transform is 'stft'"),
    (dict(transform="cqt", N_FFT=512), "N_FFT=512 has no effect, because the transform is 'cqt'"),
    (
        dict(PAIR, parameters=dict(l1channels=8)),
        "parameters={'l1channels': 8} has no effect, because param_pkl is a file of them",
    ),
    (
        dict(PAIR, filters=8, widths=[4]),
        "filters=8, widths=(4,) have no effect, because recipe='gatys' has no band networks",
    ),
    (dict(parameters=dict(kernelsize=3)), "parameters={'kernelsize': 3} has no effect"),
    (
        dict(redraw=2, use_style_net=True),
        "redraw=2 has no effect, because a network of your own (use_style_net) has no",
    ),
    (dict(content_layers_default=["conv_1"]), "content_layers_default=('conv_1',) has no effect, because there is no"),
    (dict(content_weight=3.0), "content_weight=3.0 has no effect, because there is no content"),
    (
        dict(start_values=VALUES | dict(mu=0.3)),
        "mu': 0.3, 'sigma': 0.05} has no effect, because start is not \"samples\"",
    ),
    (dict(boundopt=False, reg_weight=1.0), "reg_weight=1.0 has no effect, because boundopt is False"),
    (dict(style_blend=[2.0]), "style_blend=(2.0,) has no effect, because there is one style"),
]


@pytest.mark.parametrize(("typed", "message"), EFFECTLESS)
def test_settings_that_nothing_reads_warn(typed, message):
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        Settings(**typed)
    assert {warning.filename for warning in caught} == {__file__}  # the line that makes the settings
    names = names_of(**typed)
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        Settings.of(names, transform=names["transform"])
    assert {warning.filename for warning in caught} == {__file__}


def test_settings_of_what_is_unused_are_not_in_the_way():
    """A pair of files does not matter to recipes without one, and a content layer does not matter to a texture."""
    assert Settings(model_path="models/a.pth").model_path == "models/a.pth"
    assert Settings(recipe="gatys", whichChannel="2D", model_path="a.pth", use_style_net=True).whichChannel == "2D"
    assert Settings(content_layers_default=[], content_weight=0).content_layers == {}
    assert Settings(**TRANSFER).content_layers == {"conv_2": 1.0}


# What has no effect ------------------------------------------------------------------------------

WITHOUT_EFFECT = [
    (TRANSFER | dict(result_duration=3.0), "result_duration=3.0 has no effect: in a transfer the content gives"),
    (dict(use01scale=False), "boundopt pulls the values into [0, 1], but with use01scale=False they reach 7"),
]


@pytest.mark.parametrize(("given", "message"), WITHOUT_EFFECT, ids=[str(given) for given, _ in WITHOUT_EFFECT])
def test_settings_without_effect_warn(given, message):
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        Settings(**given)
    assert len(caught) == 1 and caught[0].filename == __file__  # the line that makes the settings


@pytest.mark.filterwarnings("error")
def test_sensible_settings_do_not_warn():
    for given in (dict(), TRANSFER, dict(result_duration=3.0), dict(use01scale=False, boundopt=False)):
        for recipe, transform in itertools.product(("bands", "gatys"), ("stft", "cqt")):
            Settings(recipe=recipe, transform=transform, **given)
    Settings(rhythm_weight=0.1, diversity_weight=1)
    Settings(use01scale=False, reg_weight=0)
    Settings(filters=9, widths=[3], redraw=2)
    Settings(recipe="gatys", parameters=dict(l1channels=9, kernelsize=3, in_width=64))
    Settings(start="samples", start_values=dict(mu=0.3, sigma=0.2, lower=0.05, upper=0.9))
    Settings(STYLE_FILENAME=["a.wav", "b.wav"], style_blend=[1, 2], content_weight=3.0, **TRANSFER)
    Settings(sweep={"rhythm_weight": [0.1, 1.0]})  # no point of a sweep warns on its own


# Recordings and the machine ----------------------------------------------------------------------


def noise(seconds, rate=22050):
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate)).astype(np.float32)


SHORT = dict(num_steps=1, refine_steps=1, phase_iterations=1, device="cpu", filters=8, widths=[1, 4, 32])
SHORT |= dict(parameters=dict(l1channels=8, l2channels=8, l3channels=8, kernelsize=11))
CASES = list(itertools.product(("bands", "gatys"), ("stft", "cqt"), (None, "speech.wav")))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("recipe", "transform", "content"), CASES)
def test_short_sounds_are_finite_or_refused_with_a_length_that_works(recipe, transform, content):
    settings = Settings(recipe=recipe, transform=transform, CONTENT_FILENAME=content, **SHORT)
    refused = []
    for seconds in (0.001, 0.01, 0.0232, 0.0465, 0.1, 0.18, 0.187, 0.2, 0.3, 1.68, 1.7):
        recordings = {name: noise(seconds) for name in settings.files}
        try:
            assert np.isfinite(pipeline.synthesise(settings, recordings)).all()
        except ValueError as error:
            refused.append(str(error))
    assert refused
    for message in refused[-1:]:
        least = float(re.search(r"at least (\d+ samples \()?([\d.]+) s", message)[2])
        recordings = {name: noise(least) for name in settings.files}
        assert np.isfinite(pipeline.synthesise(settings, recordings)).all(), message


def test_a_result_that_is_too_short_names_its_duration():
    with pytest.raises(ValueError, match=r"result_duration=0.1: 0.100 s are too short for widths=.*at least 0.18\d s"):
        Settings(result_duration=0.1)
    assert Settings(result_duration=0.1, widths=[1, 4]).result_duration == 0.1


def test_the_default_excerpt_begins_with_its_file_and_does_not_fade(load):
    settings = Settings()
    excerpt = load(Path(settings.STYLE_FILENAME).stem, offset=settings.offset, duration=settings.duration)
    levels = 10 * np.log10(np.square(excerpt[: 20 * 5512].reshape(20, 5512)).mean(axis=1))  # of quarter seconds
    assert settings.offset == 0 and len(excerpt) == 5 * 22050
    assert np.ptp(levels) < 6  # a fade of 20 dB became a gap of 20 dB in the texture


def test_files_of_the_settings_and_of_their_sweep_are_checked_by_their_headers(tmp_path):
    good, torn, gone = (str(tmp_path / name) for name in ("good.wav", "torn.wav", "gone.wav"))
    soundfile.write(good, noise(5), 22050)
    Path(torn).write_bytes(b"no sound")
    Settings(STYLE_FILENAME=[good, good], CONTENT_FILENAME=good, sweep={"CONTENT_FILENAME": [None, good]}).check_files()
    for path, reason in ((gone, "gone.wav is not a file"), (torn, "torn.wav is not a sound file that libsndfile")):
        for settings in (
            dict(STYLE_FILENAME=[good, path]),
            dict(STYLE_FILENAME=good, CONTENT_FILENAME=path),
            dict(STYLE_FILENAME=good, sweep={"STYLE_FILENAME": [good, [good, path]]}),
        ):
            with pytest.raises((FileNotFoundError, ValueError), match=reason):
                Settings(**settings).check_files()


FREQ = dict(recipe="gatys", param_pkl=str(ROOT / "params/stft_freq"), model_path=str(ROOT / "models/stft_freq.pth"))
MUSICNN = dict(recipe="gatys", model_path=str(ROOT / "models/musicnn_vgg.pth"), style_layers_default=["relu_2"])
TRAINED = dict(sample_rate=16000, N_FFT=512, K_HOP=256)
SPEECH = dict(CONTENT_FILENAME="samples/speech.flac")
SHORT_OF = {name: value for name, value in Settings().parameters.items() if name != "kernelsize"}
NOT_FITTING = [
    (dict(style_layers_default=["conv_9"]), "style_layers_default: there is no layer 'conv_9'; choose among conv_1, c"),
    (dict(style_layers_default=["width_3.conv_1"]), "there is no layer 'width_3.conv_1'"),
    (
        dict(recipe="gatys", style_layers_default=["relu_4"]),
        "no layer 'relu_4'; choose among conv_1, batchnorm_1, relu",
    ),
    (
        dict(CONTENT_FILENAME="samples/speech.flac", content_layers_default={"Conv_1": 1}),
        "content_layers_default: there is no layer 'Conv_1'",
    ),
    (MUSICNN | TRAINED | dict(style_layers_default=["relu_6"]), "no layer 'relu_6'; choose among .*relu_5"),
    (FREQ | dict(param_pkl="params/gone"), "no parameter file params/gone.pkl"),
    (FREQ | dict(param_pkl=str(ROOT / "LICENSE")), "LICENSE is not a parameter file"),
    (FREQ | dict(model_path="models/gone.pth"), "no weights file models/gone.pth"),
    (FREQ | dict(model_path=str(ROOT / "models/stft_2d.pth")), "stft_2d.pth holds no weights .* that fit the network"),
    (FREQ | dict(whichChannel="2D"), "the network's orientation is 'freq' but whichChannel='2D'"),
    (MUSICNN | TRAINED | dict(whichChannel="time"), "takes an STFT in the layout 'freq'"),
    (dict(recipe="gatys", parameters=SHORT_OF), "the network's parameters lack kernelsize"),
]


@pytest.mark.parametrize(("given", "reason"), NOT_FITTING)
def test_networks_and_layers_are_checked_before_a_sound_is_loaded(given, reason):
    settings = Settings(**given)
    with pytest.raises((ValueError, FileNotFoundError), match=reason) as error:
        settings.check_files()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        dict(style_layers_default=["conv_1", "width_8.conv_2", "input"]),
        dict(widths=[3, 3], style_layers_default=["width_3_2.conv_1"]),
        dict(recipe="gatys", style_layers_default=["conv_1", "batchnorm_2", "relu_3", "pool_3"], whichChannel="time"),
        dict(recipe="gatys", whichChannel="2D", parameters=Settings().parameters | {"in_height": None}),
        dict(style_layers_default={"conv_2": 1, "of no weight": 0}),
        dict(use_style_net=True, style_layers_default=["my_own"]),
        dict(recipe="gatys", use_style_net=True, model_path="gone.pth", param_pkl="gone"),
        FREQ,
        FREQ | dict(model_path=None),
        FREQ | dict(N_FFT=2048),  # the cell of the transform may make another one
        dict(
            recipe="gatys",
            whichChannel="time",
            param_pkl=str(ROOT / "params/stft_time"),
            model_path=str(ROOT / "models/stft_time.pth"),
        ),
        MUSICNN | TRAINED,
    ],
)
def test_networks_and_layers_that_fit(given):
    Settings(**given).check_files()


def test_musicnn_with_other_sounds_than_in_its_training_warns():
    with pytest.warns(UserWarning, match=r"trained with sample_rate=16000, N_FFT=512, but .* sample_rate=22050"):
        Settings(**MUSICNN | TRAINED | dict(sample_rate=22050, N_FFT=1024))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Settings(**MUSICNN | TRAINED)
        Settings(recipe="gatys", sample_rate=32000)
    assert not [each for each in caught if "trained" in str(each.message)]


def test_an_excerpt_that_is_longer_than_its_file_warns(tmp_path):
    path = str(tmp_path / "two.wav")
    soundfile.write(path, noise(2), 22050)
    with pytest.warns(UserWarning, match=r"duration=5.0 is longer than .*two.wav, of which offset=0.0 leaves 2.00 s"):
        Settings(STYLE_FILENAME=path)
    with warnings.catch_warnings(action="error"):
        assert Settings(STYLE_FILENAME=path, duration=1.5).duration == 1.5
        assert Settings(STYLE_FILENAME=path, duration=None).duration is None
    with pytest.raises(ValueError, match=r"offset=3.0 is beyond the end of .*two.wav, which has 2.00 s; lower it"):
        Settings(STYLE_FILENAME=path, offset=3.0)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (dict(result_duration=900, loop=True), "a shorter duration or result_duration"),
        (dict(stereo=True, result_duration=250, loop=True), "a shorter duration or result_duration"),
        (dict(filters=200_000), "fewer filters"),
        (dict(recipe="gatys", parameters=dict(l1channels=60_000)), "fewer filters, l1channels or runs"),
        (dict(runs=1000), "fewer filters, l1channels or runs"),
    ],
)
def test_what_needs_more_than_4_gb_says_so(given, advice, monkeypatch):
    monkeypatch.setattr(fitting, "available_memory", lambda device: 4e9)
    with pytest.raises(ValueError, match=r"need about \d+\.\d GB of memory, and there are 4.0 GB; set ") as error:
        silently(device="cpu", **given)
    assert advice in str(error.value)
    silently(device="cpu", result_duration=60)
    silently(device="cpu", result_duration=10**6)  # is made section by section


def test_fifteen_minutes_from_a_header(tmp_path, monkeypatch):
    """Before the file is loaded, and again with the recordings."""
    monkeypatch.setattr(fitting, "available_memory", lambda device: 4e9)
    path = str(tmp_path / "long.flac")
    soundfile.write(path, np.zeros(900 * 8000, dtype=np.int16), 8000)
    with pytest.raises(ValueError, match=r"GB of memory, and there are 4\.0 GB; set a shorter duration"):
        Settings(STYLE_FILENAME=path, duration=None, device="cpu")
    settings = Settings(STYLE_FILENAME=path, duration=10.0, device="cpu")
    with pytest.raises(ValueError, match="GB of memory"):
        settings.check_recordings({"style 1": np.zeros(900 * 22050, dtype=np.float32)})


def test_a_transform_of_another_sample_rate_is_refused():
    """In the cell "Spectrograms" and in a script: the result would have another pitch."""
    settings = Settings(device="cpu")
    transform = transforms.STFT(sample_rate=16000, n_fft=512, hop_length=128)
    settings.check_transform(settings.make_transform())
    with pytest.raises(ValueError, match=r"sample_rate=16000, but the recordings 22050 Hz"):
        settings.check_transform(transform)
    with pytest.raises(ValueError, match=r"sample_rate=16000, but the recordings 22050 Hz"):
        pipeline.run(settings, {"style 1": np.ones(22050, np.float32)}, analysis=Analysis(transform=transform))


def test_the_memory_of_a_limited_process_is_what_its_limit_leaves():
    """An independent limit of the system: half a GB above what the process has."""
    code = """
    import resource, numpy, psutil
    from support.desk.fitting import available_memory
    memory = psutil.Process().memory_info()
    resource.setrlimit(resource.RLIMIT_AS, (memory.vms + 5 * 10**8, resource.RLIM_INFINITY))
    print(available_memory() - memory.rss)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    left = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout
    assert 4e8 < float(left) < 5.1e8


@pytest.mark.parametrize("rate", [8000, 16000, 11025])
def test_the_advice_of_a_constant_q_transform_works(rate):
    with pytest.raises(ValueError, match="above the Nyquist frequency") as error:
        Settings(transform="cqt", sample_rate=rate)
    assert "fmin" not in str(error.value)
    advice = re.findall(r"(n_octaves|lowest_frequency|sample_rate)=([\d.]+)", str(error.value).split("; set ")[1])
    assert len(advice) == 3
    for name, value in advice:
        value = float(value) if name == "lowest_frequency" else int(value)
        silently(
            **dict(transform="cqt", sample_rate=rate, duration=20.0, result_duration=20.0, STYLE_FILENAME="a")
            | {name: value}
        )
    with pytest.raises(
        ValueError, match="bins_per_octave=1 and n_octaves=1 make 1 in all; 2 to 16384 bins are possible"
    ):
        Settings(transform="cqt", bins_per_octave=1, n_octaves=1)


@pytest.mark.parametrize(
    ("style", "content", "name"),
    [
        ("samples/rain.flac", None, "rain_texture"),
        (["a/rain.wav", "b/fire.ogg"], "my voice.wav", "my_voice_in_rain_and_fire"),
        ("<img src=x>.wav", "../..", "in__img_src_x"),
        ("." * 300, None, "texture"),
        ("тишина.wav", "海.flac", "海_in_тишина"),
    ],
)
def test_results_are_named_by_their_files(style, content, name):
    found = Settings(STYLE_FILENAME=style, CONTENT_FILENAME=content).outname
    assert found == name
    assert Settings(STYLE_FILENAME=style, CONTENT_FILENAME=content, outname="mine").outname == "mine"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("conten_weight", "'conten_weight' is not a setting; did you mean 'content_weight'"),
        ("Bins_per_octave", "did you mean 'bins_per_octave'"),
        ("content_weight", "'content_weight' is a name that the settings use themselves"),
        ("files", "'files' is a name that the settings use themselves"),
    ],
)
def test_misspelt_settings_are_refused_as_own_ones_too(name, reason):
    with pytest.raises(ValueError, match=reason):
        Settings(own={name: 1})
    assert Settings(own={"loudness": 1}).loudness == 1


def words_of(text):
    """The numbers, and the words, of a help."""
    numbers = {float(each) for each in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e\d+)?", text)}
    return numbers | set(re.findall(r"[a-z]\w*", text))


def flat(values):
    """The numbers and words that values hold."""
    found = set()
    for value in values:
        found |= flat(value) if isinstance(value, list | tuple) else {value}
    return found


def filled_in(recipe, content, transform):
    """What None becomes in a texture or a transfer."""
    settings = silently(recipe=recipe, CONTENT_FILENAME=content, transform=transform, **dict.fromkeys(["model_path"]))
    filled = settings.filled_in()
    return {name: value for name, value in filled.items() if name not in ("device", "threads", "outname")}


def test_the_help_says_what_none_becomes():
    """Every value of every recipe stands in the help behind "None:", and no value that no recipe has."""
    cases = {
        (recipe, content, transform): filled_in(recipe, content, transform)
        for recipe in ("bands", "gatys")
        for content in (None, "speech.wav")
        for transform in ("stft", "cqt")
    }
    names = set().union(*cases.values()) & HELP.keys()
    known = {each for values in cases.values() for each in flat(values.values()) if isinstance(each, str)}
    assert len(names) > 12 and len(known) > 8
    for name in names:
        of = {recipe: flat(v[name] for (r, *_), v in cases.items() if r == recipe and name in v) for recipe in RECIPES}
        of = {recipe: values - {None} for recipe, values in of.items()}
        before, said, after = HELP[name].rpartition("None:")[2].partition('"gatys":')
        numbers_and_words = {each for each in words_of(before + after) if isinstance(each, float) or each in known}
        assert numbers_and_words == of["bands"] | of["gatys"], name
        if said:
            assert words_of(after) & (known | of["gatys"]) == of["gatys"], name
            assert words_of(before) >= of["bands"] - of["gatys"], name
