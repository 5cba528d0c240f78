"""Files of results: levels, numbers of runs, and that no file is ever half written."""

import json

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from support.desk import saving
from support.desk.settings import Settings
from support.sound import files


def test_level_and_full_scale():
    tone = 2 * np.sin(np.arange(22050) * 0.1)
    assert saving.level(tone) == {"peak_dbfs": 6.02, "rms_dbfs": 3.01}
    assert np.abs(files.fit_full_scale(tone)).max() == pytest.approx(0.99)
    assert np.array_equal(files.fit_full_scale(0.3 * tone), 0.3 * tone)


def save(stem, samples):
    used = {"layers": {"conv_1": "a convolution"}}
    return saving.save_run(stem, samples, settings=Settings(seed=1), losses=[{"total": 2.0}], used=used)


def test_saved_run(tmp_path):
    stems = []
    samples = np.sin(np.arange(2205) * 0.1) / 2
    for _ in range(2):
        stems.append(saving.new_stem(tmp_path / "outputs", "name"))
        paths = save(stems[-1], samples) + saving.save_figures(stems[-1], {"nothing": Figure()})
    assert [stem.name for stem in stems] == ["name-001", "name-002"]
    assert sorted(path.name for path in paths) == ["name-002-nothing.png", "name-002.json", "name-002.wav"]
    back, rate = soundfile.read(paths[0])
    assert rate == 22050 and np.abs(back - samples).max() < 1e-4
    report = json.loads(paths[1].read_text())
    assert report["settings"]["seed"] == 1 and report["losses"] == [{"total": 2.0}]
    assert report["used"] == {"layers": {"conv_1": "a convolution"}}
    assert report["versions"]["torch"] == torch.__version__ and report["level"]["peak_dbfs"] == -6.02
    assert len(list((tmp_path / "outputs").iterdir())) == 6  # nothing partial is left


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    def fail(path, content):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    class Broken:
        def savefig(self, path, **_):
            fail(path, None)

    with pytest.raises(OSError, match="disk full"):
        saving.save_figures(tmp_path / "name", {"whole": Figure(), "broken": Broken()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name-whole.png"]
    with pytest.raises(ValueError, match="the result holds NaN"):
        save(tmp_path / "other", np.full(100, np.nan))
    assert not list(tmp_path.glob("other*"))
    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "third", np.ones(100) / 2)
    assert [path.name for path in tmp_path.glob("*third*")] == ["third.wav"]
