"""Past runs: found by their settings, compared, and as a pandas frame."""

import builtins
import json
import os
import time
import warnings

import numpy as np
import pytest

from support.desk import past, saving
from support.desk.settings import NO_STEP, STEP_OF, Settings

PARAMETERS = dict(l1channels=16, l2channels=8, l3channels=4, kernelsize=3)
SAMPLES = np.sin(np.arange(3000) / 10)


def save(folder, stem, *, age=0, losses=None, **settings):
    """Save a run as the notebooks do; age: seconds since then."""
    with warnings.catch_warnings(action="ignore"):  # of settings without effect
        settings = Settings(**settings)
    report = dict(settings=settings.plain(), losses=losses or [{"total": 0.5}], used={})
    saved = saving.save_run(folder / stem, SAMPLES, settings.sample_rate, report)
    for path in saved:
        os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def folder(tmp_path):
    """Six runs of both recipes, newest last; their names are in another order than their times."""
    speech = dict(CONTENT_FILENAME="speech.wav")
    save(tmp_path, "f-001", age=60, recipe="bands", **speech, content_weight=10)
    save(tmp_path, "e-001", age=50, recipe="bands", **speech, content_weight=10.0, seed=1)
    save(tmp_path, "d-001", age=40, recipe="gatys", **speech, content_weight=10, style_layers_default=["relu_1"])
    save(tmp_path, "c-001", age=30, recipe="gatys", outname="other")
    save(tmp_path, "b-001", age=20, recipe="bands", style_layers_default={"conv_1": 0.5, "conv_2": 1.0})
    save(tmp_path, "a-001", age=10, recipe="bands", losses=[{"total": 3.0}, {"total": 2.0, "style conv_2": 1.5}])
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text(json.dumps({"settings": 3}))
    return tmp_path


def found(folder, **how):
    return "".join(path.stem[0] for path in past.find_runs(folder, **how))


def test_runs_are_found_by_their_settings_newest_first(folder):
    assert found(folder) == "abcdef" and found(folder, last=2) == "ab"
    assert found(folder, recipe="gatys") == "cd"
    assert found(folder, content_weight=10) == "def" and found(folder, content_weight=10, recipe="gatys") == "d"
    assert found(folder, content_weight=30) == "ab"  # as the recipe filled in
    assert found(folder, CONTENT_FILENAME=None) == "abc" and found(folder, widths=list(Settings().widths)) == "abcdef"
    assert found(folder, style_layers_default=["conv_2"]) == "aef"
    assert found(folder, style_layers_default={"conv_1": 0.5, "conv_2": 1}) == "b"
    assert found(folder, names=["other"]) == "c" == found(folder, outname="other")
    assert found(folder, seed=1, last=1) == "e" and found(folder, seed=2) == ""
    assert found(folder / "nothing") == ""
    with pytest.raises(ValueError, match=r"the setting='weight' is unknown; choose one of CONTENT_FILENAME, .*seed"):
        past.find_runs(folder, weight=10)


def test_a_run_without_its_sound_is_not_a_run(folder):
    (folder / "a-001.wav").unlink()
    assert found(folder, last=1) == "b"


def test_settings_that_differ(folder):
    """A recipe's own values and settings without a sound are not differences; a value of one's own is."""
    assert past.differing_settings({}) == []
    differing = past.differing_settings(past.find_runs(folder))
    expected = ["CONTENT_FILENAME", "recipe", "seed", "style_layers_default"]
    assert differing == expected and NO_STEP not in map(STEP_OF.get, differing)
    assert past.differing_settings(past.find_runs(folder, recipe="gatys")) == ["CONTENT_FILENAME"]
    save(folder, "g-001", recipe="gatys", N_FFT=2048)
    assert "N_FFT" in past.differing_settings(past.find_runs(folder))
    assert "K_HOP" not in past.differing_settings(past.find_runs(folder))


def test_settings_without_effect_are_not_differences(tmp_path):
    """Of a network that only one run has; two runs that have the network show how their networks differ."""
    differing = []
    for number, settings in enumerate(
        [
            dict(filters=8),
            dict(recipe="gatys", parameters=PARAMETERS | {"l1channels": 24}),
            dict(recipe="gatys", param_pkl="params/stft_freq", parameters=PARAMETERS | {"l1channels": 3}),
            dict(recipe="gatys", parameters=PARAMETERS | {"l1channels": 48}),
            dict(filters=16, CONTENT_FILENAME="a.wav", content_weight=3),
        ]
    ):
        save(tmp_path, f"g-00{number}", age=-number, **settings)
        differing.append(past.differing_settings(past.find_runs(tmp_path)))
    one, two, three = ["recipe"], ["recipe", "param_pkl"], ["recipe", "param_pkl", "parameters"]
    assert differing == [[], one, two, three, ["CONTENT_FILENAME", "recipe", "filters", *three[1:]]]
    effective = [set(past.effective_settings(report)) for report in past.find_runs(tmp_path).values()]
    assert {"filters", "content_weight"} <= effective[0] and not {"param_pkl", "parameters"} & effective[0]
    assert "param_pkl" in effective[2] and not {"filters", "parameters", "content_weight", "outname"} & effective[2]


def test_the_number_of_threads_is_not_a_difference(tmp_path):
    """A sweep's runs have one thread each: the same method in a table, and in a listening test."""
    save(tmp_path, "a-001", content_weight=10.0, CONTENT_FILENAME="c.wav", threads=1)
    save(tmp_path, "a-002", content_weight=30.0, CONTENT_FILENAME="c.wav", threads=2)
    assert past.differing_settings(past.find_runs(tmp_path)) == ["content_weight"]


def test_settings_of_the_users_own_are_found_and_compared(folder):
    save(folder, "own-001", own={"my_weight": 2.0})
    save(folder, "own-002", own={"my_weight": 3.0})
    assert [path.stem for path in past.find_runs(folder, my_weight=2)] == ["own-001"]
    assert past.differing_settings(past.find_runs(folder, recipe="bands", last=2)) == ["my_weight"]
    with pytest.raises(ValueError, match=r"the setting='my_wieght' is unknown; choose one of .*my_weight"):
        past.find_runs(folder, my_wieght=2)


def test_a_frame_of_runs(folder):
    pandas = pytest.importorskip("pandas")
    frame = past.frame_of_runs(folder)
    assert isinstance(frame, pandas.DataFrame) and list(frame.index) == [f"{name}-001" for name in "abcdef"]
    assert list(frame.loc["e-001", ["recipe", "seed"]]) == ["bands", 1]
    assert frame.loc["a-001", "loss total"] == 2.0 and frame["saved"].is_monotonic_decreasing
    assert frame.loc["a-001", "sound"] == str(folder / "a-001.wav")
    assert frame.sort_values("loss total").index[-1] == "a-001" and "filters" not in frame
    assert list(past.frame_of_runs(folder, recipe="gatys", last=1).index) == ["c-001"]
    assert len(past.frame_of_runs(folder / "nothing")) == 0


def test_a_frame_without_pandas(folder, monkeypatch):
    original = builtins.__import__

    def without_pandas(name, *rest, **more):
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ImportError, match=r"pandas is not installed; run pip install pandas, or use past.find_runs"):
        past.frame_of_runs(folder)
