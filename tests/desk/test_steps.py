"""The steps of a notebook: what is current, what is stale, and what is said about it."""

import dataclasses
import re
import types
import warnings

import pytest
import torch

from support.desk.settings import DEFAULTS, NO_STEP, NOT_TYPED, STEP_OF, STEPS, Settings, plain
from support.desk.steps import NotCurrent, Steps

BASE = dict(recipe="gatys", model_path="a.pth", param_pkl="a", start="noise", device="cpu", threads=1, own={"mine": 1})
# A legal other value of every setting.
OTHER = dict(STYLE_FILENAME=["a.wav"], CONTENT_FILENAME="c.wav", sample_rate=44100, offset=1.0, duration=None)
OTHER |= dict(stereo=True, transform="cqt", N_FFT=2048, K_HOP=64, bins_per_octave=12, lowest_frequency=50.0)
OTHER |= dict(n_octaves=7, power=0.5, use01scale=False, recipe="bands", seed=1, runs=2, device="cpu:0", filters=8)
OTHER |= dict(whichChannel="2D", widths=[3], pattern_share=0.5, use_style_net=True, model_path=None, param_pkl="b")
OTHER |= dict(parameters=dict(l1channels=8), statistic="distribution", style_layers_default={"relu_1": 2})
OTHER |= dict(content_layers_default=["relu_2"], content_level="free", style_blend=[2.0])
OTHER |= dict(style_weight=3.0, content_weight=3.0, rhythm_weight=1.0, diversity_weight=1.0, pitch_weight=1.0)
OTHER |= dict(boundopt=False, where={"change": {"hertz": [[100, 200]]}})
OTHER |= dict(reg_weight=1.0, start="rand", start_values=dict(lower=0.1, upper=0.9, mu=0.2, sigma=0.1))
OTHER |= dict(result_duration=2.0, segment_duration=None, redraw=6, num_steps=7, phase_iterations=8, loop=True)
OTHER |= dict(refine_steps=3, outname="other", sweep={"seed": [1, 2]})
OTHER |= dict(own={"my_weight": 2.0}, threads=3)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings(action="ignore"):  # some of the values above have no effect
        yield


@pytest.fixture
def settings():
    return Settings(**BASE)


@pytest.fixture
def steps(settings):
    """Steps that were all made."""
    steps = Steps()
    make(steps, settings, *STEPS)
    return steps


def make(steps, settings, *titles, **tensors):
    """Accept settings and make steps, each with the tensors of its name."""
    steps.accept(settings)
    for title in titles:
        with steps.step(title) as made:
            made.of(*tensors.get(title, ()))


def stale(steps):
    """Titles of the steps that can't be used, and what is said of them."""
    messages = {}
    for title in STEPS:
        try:
            steps.check(title)
        except NotCurrent as error:
            messages[title] = str(error)
    return messages


def later(title):
    return STEPS[STEPS.index(title) + 1 :]


def test_other_is_complete_and_other(settings):
    assert set(OTHER) == {each.name for each in dataclasses.fields(Settings)} == set(DEFAULTS)
    for name, value in OTHER.items():
        assert plain(getattr(dataclasses.replace(settings, **{name: value}), name)) != plain(getattr(settings, name))
    assert set(STEP_OF.values()) == {*STEPS, NO_STEP}  # no step without a setting, and no setting without a step


def test_steps_are_made_in_their_order(settings):
    steps = Steps()
    assert steps.accept(settings) == "The settings are complete. Run the cells below from 'Listen to the inputs'."
    for number, title in enumerate(STEPS):
        missing = f"{title!r} was not run to its end: run again from {title!r}"
        for following in STEPS[number + 1 :]:
            with pytest.raises(NotCurrent, match=re.escape(missing)), steps.step(following):
                raise AssertionError("the block of a refused step must not run")
        assert stale(steps) == dict.fromkeys(STEPS[number:], missing)
        make(steps, settings, title)
    assert not stale(steps)


@pytest.mark.parametrize("name", [name for name in DEFAULTS if STEP_OF[name] != NO_STEP])
def test_a_changed_setting_makes_its_step_and_later_ones_stale(name, steps, settings):
    """No step before the first that reads the setting; every message names all that one needs to know."""
    title, changed = STEP_OF[name], dataclasses.replace(settings, **{name: OTHER[name]})
    was, now = (f"{name}={plain(getattr(each, name))!r}" for each in (settings, changed))
    expected = f"{title!r} was made with {was}, but the settings say {now}: run again from {title!r}"
    assert steps.accept(changed) == expected
    first = STEPS.index(title)
    assert stale(steps) == dict.fromkeys(STEPS[first:], expected)
    for following in later(title):
        with pytest.raises(NotCurrent, match=re.escape(expected)), steps.step(following):
            pass
    # One step after the other is named, until all are made with the new setting.
    for number in range(first, len(STEPS)):
        messages = stale(steps)
        assert tuple(messages) == STEPS[number:] and f"{STEPS[number]!r} was made with {was}" in messages[STEPS[number]]
        make(steps, changed, STEPS[number])
    assert not stale(steps)
    assert steps.accept(changed) == f"Everything was made with these settings; {STEPS[-1]!r} is current."


@pytest.mark.parametrize(
    ("title", "names"),
    [
        # Where the first cell stands that reads the setting, as one sees in the notebooks.
        ("The losses", "loop segment_duration statistic style_blend boundopt own"),
        ("The start", "redraw result_duration start start_values"),
        ("The network", "seed runs whichChannel model_path parameters device recipe"),
        ("Optimisation", "num_steps"),
        ("Refine the samples", "refine_steps"),
        (NO_STEP, "outname sweep"),
    ],
)
def test_the_step_that_reads_a_setting_first(title, names):
    assert {STEP_OF[name] for name in names.split()} == {title}


def test_num_steps_keeps_the_start(steps, settings):
    steps.accept(dataclasses.replace(settings, num_steps=9))
    assert list(stale(steps)) == ["Optimisation", "Back to sound", "Refine the samples"]


def test_all_changes_are_named_together(steps, settings):
    changed = dataclasses.replace(settings, power=0.5, use01scale=False, num_steps=2, offset=2.0)
    assert "made with offset=0.0, but the settings say offset=2.0: run again from 'Listen" in steps.accept(changed)
    make(steps, changed, "Listen to the inputs", "The transform")
    expected = "'Spectrograms' was made with offset=0.0, power='log1p', use01scale=True, but the settings say "
    assert expected + "offset=2.0, power=0.5, use01scale=False: run again" in steps.accept(changed)


def test_going_back_makes_everything_current_again(steps, settings):
    steps.accept(dataclasses.replace(settings, power=0.5))
    back = dataclasses.replace(settings)
    assert steps.accept(back) == "Everything was made with these settings; 'Refine the samples' is current."
    assert not stale(steps)


@pytest.mark.parametrize("name", [name for name in DEFAULTS if STEP_OF[name] == NO_STEP])
def test_settings_that_change_no_sound_make_nothing_stale(name, steps, settings):
    changed = dataclasses.replace(settings, **{name: OTHER[name]})
    assert "Everything was made with these settings" in steps.accept(changed)
    assert not stale(steps)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_step_that_did_not_end_is_not_made(error, steps, settings):
    with pytest.raises(error), steps.step("The losses"):
        raise error
    expected = "'The losses' was not run to its end: run again from 'The losses'"
    assert stale(steps) == dict.fromkeys(STEPS[STEPS.index("The losses") :], expected)
    make(steps, settings, *STEPS[STEPS.index("The losses") :])
    assert not stale(steps)


@pytest.mark.parametrize("title", STEPS[:-1])
def test_a_step_that_is_run_again_makes_later_ones_stale(title, steps, settings):
    for _ in range(2):
        make(steps, settings, title)
        for number, following in enumerate(later(title)):
            expected = f"{title!r} was run or changed after {following!r}: run again from {following!r}"
            assert stale(steps) == dict.fromkeys(later(title)[number:], expected)
            make(steps, settings, following)
        assert not stale(steps)


def test_tensors_changed_by_another_cell_make_later_steps_stale(settings):
    """Also where nothing but the values changed; what the later step itself changes counts as made."""
    steps, image, samples = Steps(), torch.zeros(4), torch.ones(3)
    make(steps, settings, *STEPS[: STEPS.index("Optimisation")])
    make(steps, settings, *later("The start"), **{"Optimisation": [image], "Refine the samples": [samples]})
    assert not stale(steps) and not steps.changed_by_cells()
    image[2] = 1e-7
    expected = "'Optimisation' was run or changed after 'Back to sound': run again from 'Back to sound'"
    assert stale(steps) == dict.fromkeys(later("Optimisation"), expected)
    assert steps.changed_by_cells() == ["Optimisation"]
    make(steps, settings, *later("Optimisation"), **{"Refine the samples": [samples]})
    assert not stale(steps) and steps.changed_by_cells() == ["Optimisation"]  # made from the changed image
    samples *= 2
    assert steps.changed_by_cells() == ["Optimisation", "Refine the samples"]
    make(steps, settings, "Optimisation", Optimisation=[image])
    assert steps.changed_by_cells() == ["Refine the samples"]
    image[2] = 0  # and back
    image[2] = 1e-7
    assert steps.changed_by_cells() == ["Refine the samples"]


@pytest.mark.parametrize("title", STEPS)
def test_typed_settings_count_only_when_they_are_checked(title, steps, settings):
    unchecked = re.escape("run the cell 'The settings, checked' first, and then this cell again")
    steps.typed()
    with pytest.raises(NotCurrent, match=unchecked), steps.step(title):
        raise AssertionError("the block of a refused step must not run")
    with pytest.raises(NotCurrent, match=unchecked):
        steps.check(title)
    with pytest.raises(NotCurrent, match=unchecked):
        steps.check_settings()
    steps.accept(settings)
    steps.check_settings()
    assert not stale(steps)


class Shell:
    """Takes the place of IPython: cells are executed, and kept as In."""

    def __init__(self, monkeypatch):
        self.user_ns, self.steps = {"In": [""]}, Steps()
        monkeypatch.setattr("IPython.get_ipython", lambda: self)

    def run(self, source):
        self.user_ns["In"].append(source)
        self.user_ns["steps"] = self.steps
        exec(source, self.user_ns)


@pytest.fixture
def shell(monkeypatch):
    return Shell(monkeypatch)


def test_a_line_that_is_deleted_from_the_settings_cell_does_not_keep_its_value(monkeypatch):
    """In a notebook, typed() deletes what the cell assigned the last time, and nothing else."""
    kept = dict(transform="the product of a step", settings="the checked ones", samples=1, In=["", "steps.typed()"])
    shell = types.SimpleNamespace(user_ns=dict.fromkeys(set(DEFAULTS) - set(NOT_TYPED), 1) | kept)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    Steps().typed()
    assert shell.user_ns == kept


def test_names_of_the_settings_cell_that_are_not_settings_are_ones_own(shell):
    assert shell.steps.own() == []
    shell.run(
        "steps.typed()\nseed = 1\nmy_weight = 2.0\nmy_low, my_high = 1, 2\nmy_note: str = 'a'\nmy_low, seed = 0, 2"
    )
    assert shell.steps.own() == ["my_weight", "my_low", "my_high", "my_note"]
    shell.run("another = 3")
    assert shell.steps.own() == ["my_weight", "my_low", "my_high", "my_note"]
    shell.run("steps.typed()\nseed = 1\nmy_other = [each for each in range(2)]")
    assert shell.steps.own() == ["my_other"]
    assert "my_weight" not in shell.user_ns and shell.user_ns["another"] == 3


@pytest.mark.parametrize(
    ("script", "own"),
    [
        ("x = 1\n# In[ ]:\nsteps.typed()\nseed = 1\nmine = 2\n\n\n# ## Title\n\n# In[3]:\n\n\nother = 3", ["mine"]),
        ("# %%\nsteps.typed()\nmine = 2\n# %% [markdown]\n# # Title\n# %% code\nother = 3", ["mine"]),
        ("# %%\nsteps.typed()\nmine = 2\n# %%\n# Parameters\nmine = 3", ["mine"]),
        ("steps.typed()\nseed = 1\nsettings = 2", []),  # without cells, nothing says where the settings end
    ],
)
def test_own_settings_of_a_script(script, own, tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    monkeypatch.setattr("__main__.__file__", str(tmp_path / "script.py"), raising=False)
    steps = Steps()
    exec(script, {"steps": steps})
    assert steps.own() == own


def test_parameters_from_outside_are_settings_or_ones_own(shell):
    """Papermill writes them into a cell below the settings cell."""
    shell.run("steps.typed()\nseed = 1\nmy_weight = 2.0")
    shell.run("# Parameters\nseed = 2\nmy_weight = 3.0\n")
    assert shell.steps.own() == ["my_weight"]
    for name, message in {
        "num_step": "'num_step' is not a setting; did you mean 'num_steps'",
        "my_weigth": "'my_weigth' is not a setting; did you mean 'my_weight'",
        "tone": "'tone' is not a setting; write a line tone = ... in the settings cell first",
    }.items():
        shell.run(f"# Parameters\n{name} = 3\n")
        with pytest.raises(ValueError, match=re.escape(message)):
            shell.steps.own()
        shell.user_ns["In"].pop()


def test_unknown_steps_are_refused(steps):
    with pytest.raises(ValueError, match="The end"), steps.step("The end"):
        pass


def test_plain_values():
    settings = Settings(widths=[1, 2], style_layers_default={"conv_1": 2.0}, sweep={"widths": [[1], [2, 3]]})
    values = [plain(value) for value in (settings.widths, settings.style_layers_default, settings.sweep, 3, None)]
    assert values == [[1, 2], {"conv_1": 2.0}, {"widths": [[1], [2, 3]]}, 3, None]
    assert [type(value) for value in values] == [list, dict, dict, int, type(None)]
