"""The panel of controls: the settings that it makes, and the settings that it must not make."""

import importlib.util
import re
import warnings
from pathlib import Path

import pytest
from kernel import BACK, CHECKED, CQT, LISTEN, LOSSES, OPTIMISE, ROOT, SETTINGS, STFT, CellError, Notebook

from support import panel
from support.record import Record
from support.settings import Settings

PANEL = "panel.controls("


class Desk:
    """What the notebooks' cells do around the panel, and the hands of a user."""

    def __init__(self, **typed):
        self.record = Record()
        self.check(**typed)
        self.box = panel.controls(lambda: self.settings, self.use)
        columns, self.button, self.message = self.box.children
        self.controls = {control.description: control for column in columns.children for control in column.children}

    def check(self, **typed):
        self.settings = Settings(**typed)
        return self.record.accept(self.settings)

    def use(self, changed):
        self.record.check_settings(self.settings)
        self.settings = Settings(**self.settings.given | changed)
        return self.record.accept(self.settings)

    def choose(self, **values):
        for name, value in values.items():
            self.controls[name].value = value
        self.button.click()
        return re.sub("^<div.*?>|</div>$", "", self.message.value)


@pytest.fixture(autouse=True)
def at_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_panel_shows_the_settings_as_typed():
    desk = Desk(STYLE_FILENAME=["samples/fire.flac", "samples/bells.flac"], style_weight=1e7, seed=1234567, filters=80)
    values = {name: control.value for name, control in desk.controls.items()}
    assert values == dict(
        STYLE_FILENAME=("samples/fire.flac", "samples/bells.flac"),
        CONTENT_FILENAME=None,
        recipe="bands",
        content_weight="",
        style_weight="10000000.0",
        filters="80",
        num_steps="",
        refine_steps="",
        seed="1234567",
        outname="result",
    )
    assert desk.controls["CONTENT_FILENAME"].label == "no content: a texture"
    files = {str(path) for path in Path("samples").glob("*.flac")}
    assert set(desk.controls["STYLE_FILENAME"].options) == files and len(files) > 20


def test_a_click_without_a_change_changes_nothing():
    desk = Desk(style_weight=3.0, N_FFT=1024)
    before = desk.settings
    assert desk.choose().startswith("The settings are complete.")
    assert desk.settings == before and desk.settings.given == before.given


@pytest.mark.parametrize("recipe", ["bands", "gatys"])
def test_the_choices_become_settings_and_others_stay(recipe):
    desk = Desk(power=0.5, widths=[1, 5])
    files = dict(STYLE_FILENAME=("samples/fire.flac",), CONTENT_FILENAME="samples/speech.flac")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = desk.choose(**files, recipe=recipe, content_weight="3", filters="64", num_steps="7", outname="mine")
        expected = dict(STYLE_FILENAME="samples/fire.flac", CONTENT_FILENAME="samples/speech.flac", recipe=recipe)
        expected |= dict(content_weight=3, filters=64, num_steps=7, outname="mine", power=0.5, widths=[1, 5])
        assert desk.settings == Settings(**expected)
    for line in ("content_weight = 3", "filters = 64", "outname = &#x27;mine&#x27;"):  # to be kept in the settings cell
        assert line in said.split("<br>")
    assert "seed = " not in said
    desk.record.check_settings(desk.settings)


def test_an_empty_control_is_filled_in_by_the_recipe_and_says_so():
    desk = Desk(num_steps=5)
    desk.choose(num_steps="", recipe="gatys")
    assert desk.settings.given["num_steps"] is None and desk.settings.num_steps == 300
    for recipe, weight in (("bands", 1), ("gatys", 1e9)):
        desk.controls["recipe"].value = recipe
        assert desk.controls["style_weight"].placeholder == f"{weight:g}, from {recipe!r}"
    desk.controls["CONTENT_FILENAME"].value = "samples/speech.flac"
    assert desk.controls["style_weight"].placeholder == "1e+07, from 'gatys'"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (dict(filters="many"), "is no number"),
        (dict(filters="-3"), "filters=-3"),
        (dict(filters=""), "filters=None"),
        (dict(filters="__import__('os')"), "is no number"),
        (dict(content_weight="True"), "is no number"),
        (dict(STYLE_FILENAME=()), "no style is chosen"),
        (dict(outname="a/b"), "outname="),
    ],
)
def test_settings_that_are_refused_change_nothing(wrong, named):
    desk = Desk()
    before = desk.settings
    said = desk.choose(**wrong)
    assert said.startswith("Nothing was changed: ") and named in said
    assert desk.settings is before
    desk.choose(content_weight="", outname="ab", filters="12", STYLE_FILENAME=("samples/fire.flac",))
    assert desk.settings.filters == 12  # the next click, with values that are allowed, counts


def test_warnings_are_shown():
    assert "Warning: content_weight=4 has no effect" in Desk().choose(content_weight="4")


def test_settings_changed_outside_are_shown_before_they_are_used():
    """A panel that shows old values must not bring them back."""
    desk = Desk(filters=80)
    desk.choose(filters="40")
    desk.check(filters=200, seed=5)
    said = desk.choose(num_steps="9")
    assert "changed outside of the panel" in said
    assert desk.settings == Settings(filters=200, seed=5)
    assert (desk.controls["filters"].value, desk.controls["seed"].value, desk.controls["num_steps"].value) == (
        *("200", "5"),
        "",
    )
    assert "filters" not in desk.choose(num_steps="9")
    assert desk.settings == Settings(filters=200, seed=5, num_steps=9)


def test_other_settings_changed_outside_are_kept():
    desk = Desk()
    desk.check(N_FFT=1024)
    desk.choose(filters="12")
    assert desk.settings == Settings(N_FFT=1024, filters=12)


def test_settings_that_are_typed_and_not_checked_refuse_the_panel():
    desk = Desk()
    desk.record.typed()
    before = desk.settings
    assert "not checked yet" in desk.choose(filters="12")
    assert desk.settings is before


def test_without_ipywidgets_a_sentence_stands_there(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(panel, "find_spec", lambda name: None if name == "ipywidgets" else found(name))
    assert "needs the package ipywidgets" in panel.controls(None, None).data


def test_sound_files(tmp_path):
    for name in ("b.WAV", "a.flac", "c.txt", "d.mp3"):
        (tmp_path / name).touch()
    assert [Path(path).name for path in panel.sound_files(tmp_path, tmp_path, "nowhere")] == [
        "a.flac",
        "b.WAV",
        "d.mp3",
    ]


# In the notebooks --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [STFT, CQT])
def test_the_panel_in_a_notebook(name, tmp_path, monkeypatch):
    """The panel makes the settings that the steps use, and says from which step to run again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    click = (
        "box = panel.controls(lambda: settings, use); controls = {c.description: c for v in box.children[0].children"
    )
    click += (
        " for c in v.children}; controls['filters'].value = '{}'; box.children[1].click(); print(box.children[2].value)"
    )
    with Notebook(tmp_path, name) as notebook:
        notebook.run_all()
        printed = notebook.execute(click.replace("{}", "24"))
        assert "The network" in printed and "run again from" in printed and "filters = 24" in printed
        with pytest.raises(CellError, match=r"'The network' was made with filters=16, but the settings say filters=24"):
            notebook.run(OPTIMISE)
        notebook.run(LISTEN)
        notebook.run(SETTINGS)  # not checked yet
        assert "not checked yet" in notebook.execute(click.replace("{}", "32"))
        with pytest.raises(CellError, match="not checked yet"):
            notebook.run(LOSSES)
        assert "is current" in notebook.run(CHECKED)  # the settings cell's values count again
        notebook.run(PANEL, BACK)
