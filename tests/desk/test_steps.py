"""The record of steps: what is current, what is stale, and what it says about it."""

import dataclasses
import re
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from audiocnn import ContentLoss, StyleLoss
from support.record import TITLES, NotCurrent, Record, content_of, plain
from support.settings import NO_STEP, STEPS, Settings
from support.transforms import STFT

BASE = dict(recipe="gatys", model_path="a.pth", param_pkl="a", start="noise", device="cpu", notebook=__file__)
# A legal other value of every setting.
OTHER = dict(STYLE_FILENAME=["a.wav"], CONTENT_FILENAME="c.wav", sample_rate=44100, offset=1.0, duration=None)
OTHER |= dict(stereo=True, transform="cqt", N_FFT=2048, K_HOP=64, bins_per_octave=12, lowest_frequency=50.0)
OTHER |= dict(n_octaves=7, power=0.5, use01scale=False, recipe="bands", seed=1, runs=2, device="cpu:0", filters=8)
OTHER |= dict(
    whichChannel="2D", widths=[3], pattern_share=0.5, dilation=2, use_style_net=True, model_path=None, param_pkl="b"
)
OTHER |= dict(l1channels=8, l2channels=8, l3channels=8, kernelsize=3, n_classes=2, orientation="2D", in_channels=9)
OTHER |= dict(in_height=9, in_width=9, statistic="distribution", style_layers_default={"relu_1": 2})
OTHER |= dict(content_layers_default=["relu_2"], rhythm_layers=["relu_1"], diversity_layers=["relu_1"])
OTHER |= dict(content_level="free")
OTHER |= dict(style_blend=[2.0], style_weight=3.0, content_weight=3.0, rhythm_weight=1.0, diversity_weight=1.0)
OTHER |= dict(boundopt=False, reg_weight=1.0, start="rand", lower=0.1, upper=0.9, mu=0.2, sigma=0.1)
OTHER |= dict(result_duration=2.0, segment_duration=None, redraw=5, history_size=5, num_steps=7, phase_iterations=8)
OTHER |= dict(
    loop=True,
    refine_steps=3,
    outname="other",
    refresh=0,
    draft_sound=False,
    frequency_axis="log",
    sweep={"seed": [1, 2]},
    n_jobs=2,
    notebook=str(Path(__file__).with_name("conftest.py")),
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings(action="ignore"):  # some of the values above have no effect
        yield


@pytest.fixture
def settings():
    return Settings(**BASE)


@pytest.fixture
def record(settings):
    """A record where all steps were made."""
    record = Record()
    make(record, settings, *TITLES)
    return record


def make(record, settings, *titles, **products):
    """Accept settings and make steps, each with the products of its name, or with its title for a product."""
    record.accept(settings)
    for title in titles:
        with record.step(title, settings) as made:
            made.of(products.get(title, title))


def stale(record, settings):
    """Titles of the steps that can't be used, and what the record says of them."""
    messages = {}
    for title in TITLES:
        try:
            record.check(title, settings)
        except NotCurrent as error:
            messages[title] = str(error)
    return messages


def test_other_is_complete_and_other(settings):
    assert set(OTHER) == {each.name for each in dataclasses.fields(Settings)}
    for name, value in OTHER.items():
        assert plain(getattr(dataclasses.replace(settings, **{name: value}), name)) != plain(getattr(settings, name))


def test_steps_are_made_in_their_order(settings):
    record = Record()
    assert record.accept(settings) == "The settings are complete. Run the cells below from 'Listen to the inputs'."
    for number, title in enumerate(TITLES):
        missing = f"{title!r} was not run to its end: run again from {title!r}"
        for later in TITLES[number + 1 :]:
            with pytest.raises(NotCurrent, match=re.escape(missing)), record.step(later, settings):
                raise AssertionError("the block of a refused step must not run")
        assert stale(record, settings) == dict.fromkeys(TITLES[number:], missing)
        make(record, settings, title)
    assert not stale(record, settings)


@pytest.mark.parametrize(("title", "name"), [(title, name) for title, names in STEPS.items() for name in names])
def test_a_changed_setting_makes_its_step_and_later_ones_stale(title, name, record, settings):
    """No step before the first that reads the setting; every message names all that one needs to know."""
    changed = dataclasses.replace(settings, **{name: OTHER[name]})
    was, now = (f"{name}={plain(getattr(each, name))!r}" for each in (settings, changed))
    expected = f"{title!r} was made with {was}, but the settings say {now}: run again from {title!r}"
    assert record.accept(changed) == expected
    first = TITLES.index(title)
    assert stale(record, changed) == dict.fromkeys(TITLES[first:], expected)
    for later in TITLES[first + 1 :]:
        with pytest.raises(NotCurrent, match=re.escape(expected)), record.step(later, changed):
            pass
    # One step after the other is named, until all are made with the new setting.
    for number in range(first, len(TITLES)):
        assert list(stale(record, changed)) == TITLES[number:]
        assert f"{TITLES[number]!r} was made with {was}" in stale(record, changed)[TITLES[number]]
        make(record, changed, TITLES[number])
    assert not stale(record, changed)
    assert record.accept(changed) == f"Everything was made with these settings; {TITLES[-1]!r} is current."


def test_num_steps_keeps_the_start(record, settings):
    changed = dataclasses.replace(settings, num_steps=9)
    record.accept(changed)
    assert list(stale(record, changed)) == ["Optimisation", "Back to sound", "Refine the samples"]


def test_all_changes_are_named_together(record, settings):
    changed = dataclasses.replace(settings, power=0.5, use01scale=False, num_steps=2, offset=2.0)
    assert "made with offset=0.5, but the settings say offset=2.0: run again from 'Listen" in record.accept(changed)
    make(record, changed, "Listen to the inputs", "The transform")
    expected = "'Spectrograms' was made with offset=0.5, power='log1p', use01scale=True, but the settings say "
    assert expected + "offset=2.0, power=0.5, use01scale=False: run again" in record.accept(changed)


def test_going_back_makes_everything_current_again(record, settings):
    record.accept(dataclasses.replace(settings, power=0.5))
    back = dataclasses.replace(settings)
    assert record.accept(back) == "Everything was made with these settings; 'Refine the samples' is current."
    assert not stale(record, back)


@pytest.mark.parametrize("name", NO_STEP)
def test_settings_that_change_no_sound_make_nothing_stale(name, record, settings):
    changed = dataclasses.replace(settings, **{name: OTHER[name]})
    assert "Everything was made with these settings" in record.accept(changed)
    assert not stale(record, changed)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_step_that_did_not_end_is_not_made(error, record, settings):
    with pytest.raises(error), record.step("The losses", settings) as made:
        made.of("The losses")
        raise error
    expected = "'The losses' was not run to its end: run again from 'The losses'"
    assert stale(record, settings) == dict.fromkeys(TITLES[TITLES.index("The losses") :], expected)
    make(record, settings, "The losses")
    assert not stale(record, settings)


def test_a_step_that_is_made_again_with_the_same_result_keeps_later_ones(record, settings):
    make(record, settings, "Spectrograms")
    assert not stale(record, settings)
    make(record, settings, "Spectrograms", Spectrograms=np.ones(3))
    expected = "'Spectrograms' was made anew after 'The network': run again from 'The network'"
    assert stale(record, settings) == dict.fromkeys(TITLES[TITLES.index("The network") :], expected)
    make(record, settings, "The network", "The losses")
    expected = "'Spectrograms' was made anew after 'The start': run again from 'The start'"
    assert stale(record, settings) == dict.fromkeys(TITLES[TITLES.index("The start") :], expected)
    make(record, settings, "Spectrograms")  # back to the first result: the network is the one that is too new
    assert "'Spectrograms' was made anew after 'The network'" in stale(record, settings)["The network"]


def test_a_step_that_says_nothing_of_its_products_is_new_every_time(record, settings):
    for _ in range(2):
        with record.step("The start", settings):
            pass
        assert "'The start' was made anew after 'Optimisation'" in stale(record, settings)["Optimisation"]
        make(record, settings, *TITLES[TITLES.index("Optimisation") :])
        assert not stale(record, settings)


@pytest.mark.parametrize("title", TITLES)
def test_typed_settings_count_only_when_they_are_checked(title, record, settings):
    unchecked = re.escape("run the cell 'The settings, checked' first, and then this cell again")
    record.typed()
    with pytest.raises(NotCurrent, match=unchecked), record.step(title, settings):
        raise AssertionError("the block of a refused step must not run")
    with pytest.raises(NotCurrent, match=unchecked):
        record.check(title, settings)
    with pytest.raises(NotCurrent, match=unchecked):
        record.check_settings(settings)
    record.accept(settings)
    record.check_settings(settings)
    assert not stale(record, settings)


@pytest.mark.parametrize("changes", [{}, dict(num_steps=9)])
def test_other_settings_than_the_checked_ones_are_refused(changes, record, settings):
    """Also equal ones: only the cell that checks them says which are meant."""
    replaced = dataclasses.replace(settings, **changes)
    for title in TITLES:
        with pytest.raises(NotCurrent, match="the settings are not checked yet"):
            record.check(title, replaced)
        with pytest.raises(NotCurrent, match="not checked"), record.step(title, replaced):
            pass
    assert not stale(record, settings)


def test_a_line_that_is_deleted_from_the_settings_cell_does_not_keep_its_value(monkeypatch):
    """In a notebook, typed() deletes what the cell assigned the last time, and nothing else."""
    typed = {each.name for each in dataclasses.fields(Settings)} - {"transform"}
    kept = dict(transform="the product of a step", settings="the checked ones", samples=1)
    shell = types.SimpleNamespace(user_ns=dict.fromkeys(typed, 1) | kept)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    Record().typed()
    assert shell.user_ns == kept


def test_unknown_steps_are_refused(record, settings):
    with pytest.raises(ValueError, match="The end"), record.step("The end", settings):
        pass


def network(*, seed=0, width=3, bias=0.0):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(2, 3, (1, width), padding="same"), nn.BatchNorm2d(3))
    layers[1].running_mean += bias
    return layers


ARRAY = np.arange(6, dtype=np.float32)
PRODUCTS = [
    # equal within a row, unequal between rows
    [lambda: ARRAY, lambda: ARRAY.copy(), lambda: torch.from_numpy(ARRAY), lambda: np.repeat(ARRAY, 2)[::2]],
    [lambda: ARRAY.astype(np.float64)],
    [lambda: ARRAY.reshape(2, 3), lambda: np.asfortranarray(ARRAY.reshape(2, 3))],
    [lambda: ARRAY + 1e-6],
    [lambda: [ARRAY], lambda: (ARRAY,)],
    [lambda: [ARRAY, ARRAY]],
    [lambda: {"a": ARRAY, "b": 2 * ARRAY}],
    [lambda: {"a": 2 * ARRAY, "b": ARRAY}],
    [lambda: {"a": ARRAY, "c": 2 * ARRAY}],
    [network, network, lambda: network().eval().requires_grad_(False)],
    [lambda: network(seed=1)],
    [lambda: network(bias=1e-3)],  # buffers count as weights do
    [lambda: network(width=5)],
    [lambda: [network(), network(seed=1)]],
    [lambda: [network(seed=1), network()]],
    [lambda: nn.ModuleDict({"a": network()})],
    [lambda: STFT(sample_rate=8000, n_fft=64, hop_length=16)] * 2,
    [lambda: STFT(sample_rate=8000, n_fft=64, hop_length=8)],
    [lambda: [(StyleLoss, "relu_1", 1.0)]] * 2,
    [lambda: [(ContentLoss, "relu_1", 1.0)]],
    [lambda: [(StyleLoss, "relu_1", 2.0)]],
    *([lambda value=value: value] for value in ([1, 12], [21, 1], [112], [[1], 12], [[1, 12]], [1, [12]], ["1, 12"])),
    *([lambda value=value: value] for value in (None, "", [], {}, [[]], 0, 0.0, False, "a", ["a"], {"a": None})),
]


def test_contents_are_equal_where_products_are():
    rows = [{content_of(make()) for make in row} for row in PRODUCTS]
    assert [len(row) for row in rows] == [1] * len(PRODUCTS)
    assert len(set.union(*rows)) == len(PRODUCTS)


def test_reading_the_annotations_of_a_class_changes_nothing():
    """Python 3.14 keeps them in the class when they are read for the first time."""

    class Weighted(StyleLoss):
        strength: float = 1.0

    before = content_of(Weighted)
    assert list(Weighted.__annotations__) == ["strength"]
    assert content_of(Weighted) == before


def test_several_products_are_told_apart():
    contents = [content_of(*products) for products in ([1, 2], [2, 1], [12], [1], [[1, 2]], [])]
    assert len(set(contents)) == len(contents)


def test_plain_values():
    settings = Settings(
        widths=[1, 2], style_layers_default={"conv_1": 2.0}, sweep={"widths": [[1], [2, 3]]}, notebook=__file__
    )
    values = [plain(value) for value in (settings.widths, settings.style_layers_default, settings.sweep, 3, None)]
    assert values == [[1, 2], {"conv_1": 2.0}, {"widths": [[1], [2, 3]]}, 3, None]
    assert [type(value) for value in values] == [list, dict, dict, int, type(None)]
