"""Masks, curves and folders in the notebooks' cells, in an order that nobody planned."""

import json
import re
import warnings

import numpy as np
import pytest
import scipy.signal
import soundfile
from kernel import CHECKED, REFINE, ROOT, SETTINGS, CellError, Notebook, sample

import audiocnn
from support import pipeline
from support.desk import saving
from support.desk.settings import Settings
from support.sound.files import fit_full_scale, load_audio

RATE = 22050
MASKS, HEARD = 'step("Where the', "layer, hertz ="


def saved(folder, stem):
    return soundfile.read(folder / f"outputs/{stem}.wav")[0], json.loads((folder / f"outputs/{stem}.json").read_text())


@pytest.fixture
def of_project(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_mask_of_ones_own_and_a_late_change_of_mind(tmp_path, of_project):
    """The cell's mask decides, the json says so; new settings make later steps stale; the layer's cells run late."""
    content = load_audio(sample("speech"), sample_rate=RATE, duration=2.0)
    own = "\n    masked = masks.Where(analysis=of_result, kept=masks.kept_of(recordings, length), change=late)"
    own = f"def late(times, frequencies):\n    return (times > 1.5) + 0.0 * frequencies\n\n\n{{}}{own}"
    with Notebook(tmp_path, CONTENT_FILENAME=sample("speech")) as notebook:
        before = notebook.cell(MASKS).source
        notebook.replace(MASKS, before, own.format(before))
        notebook.run_all()
        samples, report = saved(tmp_path, "test-001")
        early = int(1.45 * RATE)
        np.testing.assert_allclose(samples[:early], content[:early], atol=2**-15)
        assert np.abs(samples - content)[int(1.6 * RATE) :].max() > 0.01
        assert "masks" in report["used"]["not_in_settings"] and "times > 1.5" in report["used"]["own_code"]["late"]
        notebook.replace(MASKS, own.format(before), before)
        notebook.edit(where={"change": {"seconds": [[0.2, 0.5]]}})
        assert "Where the result may change" in notebook.run(SETTINGS, CHECKED)
        with pytest.raises(CellError, match="Where the result may change"):
            notebook.run(REFINE)
        notebook.run_all(MASKS)
        samples, report = saved(tmp_path, "test-002")
        np.testing.assert_allclose(samples[int(0.6 * RATE) :], content[int(0.6 * RATE) :], atol=2**-15)
        assert report["used"]["not_in_settings"] == [] and list(report["used"]["masks"]) == ["change"]
        with pytest.raises(CellError, match="there is no layer 'conv_9'"):
            notebook.execute(notebook.cell(HEARD).source.replace("None, None", "'conv_9', None"))
        notebook.execute(notebook.cell(HEARD).source.replace("None, None", "'width_8.conv_2', [[500, 2000]]"))
        notebook.execute(notebook.cell("heard.channel_distances").source)
        notebook.execute(notebook.cell(HEARD).source.replace("None, None", "None, [[500, 2000]]"))


def test_the_masks_of_the_readme(tmp_path, of_project):
    """Each example makes a mask that is 1 somewhere and 0 somewhere else."""
    text = (ROOT / "support/desk/README.md").read_text().split("## Only a part")[1].split("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(examples) == 2
    with Notebook(tmp_path, pictures=False, CONTENT_FILENAME=sample("drum_loop")) as notebook:
        for cell in notebook.cells[: notebook.cells.index(notebook.cell(MASKS)) + 1]:
            notebook.execute(cell.source)
        for example in examples:
            notebook.execute(example)
            found = notebook.execute("values = masked.values('change'); print(values.min(), values.max())")
            assert [float(each) for each in found.split()] == [0, 1]


def test_a_folder_in_the_notebook(tmp_path, of_project):
    """The notebook's sound is that of one call, and the json holds the places of all pieces."""
    (tmp_path / "sounds").mkdir()
    for name in ("rain", "fire"):
        samples = load_audio(sample(name), sample_rate=RATE, duration=4.0)
        soundfile.write(tmp_path / f"sounds/{name}.wav", samples, RATE)
    with Notebook(tmp_path, pictures=False, STYLE_FILENAME=str(tmp_path / "sounds"), redraw=2) as notebook:
        notebook.run_all()
        notebook.execute(notebook.cell(HEARD).source.replace("None, None", "None, [[500, 2000]]"))
    samples, report = saved(tmp_path, "test-001")
    settings = Settings(**{name: value for name, value in report["settings"].items() if name != "own"})
    np.testing.assert_allclose(fit_full_scale(pipeline.synthesise(settings)), samples, atol=1e-3)
    pieces = report["used"]["excerpts"]["style 1"]
    assert list(pieces) == ["0", "1", str(audiocnn.SAMPLES_DRAW)] and report["used"]["not_in_settings"] == []
    assert all(path.startswith(str(tmp_path / "sounds")) and 0 <= offset <= 3 for path, offset, _ in pieces["0"])
    with warnings.catch_warnings(action="error"):
        assert saving.load_settings(tmp_path / "outputs/test-001.json") == settings
    (tmp_path / "sounds/fire.wav").unlink()
    with pytest.warns(UserWarning, match="sounds had other files in this run, .* the settings give another sound now"):
        saving.load_settings(tmp_path / "outputs/test-001.json")


TWO = dict(STYLE_FILENAME=["samples/rain.flac", "samples/fire.flac"])


@pytest.mark.parametrize(
    "given",
    [
        TWO | dict(style_blend=[1, 3]),
        TWO | dict(style_blend=[[0, [1, 0]], [1, [0, 1]]], result_duration=1.0),
        dict(CONTENT_FILENAME="samples/speech.flac", start="content"),
        dict(loop=True),
        dict(STYLE_FILENAME="samples"),
    ],
    ids=["shares", "curve", "content", "loop", "folder"],
)
def test_a_band_of_the_style_is_made_again_whatever_the_run_was(given, load):
    """Without what the run alone needs: a content, other styles, a circle, a folder. The other bands stay."""
    settings = Settings(**given, duration=2.0, filters=16, widths=[1, 8], num_steps=2, refine_steps=2)
    style = load("rain", duration=2.0)
    made = pipeline.synthesise(settings.alone([[500, 2000]]), {"style 1": style})
    frequencies, power = scipy.signal.welch(np.stack([made - style, style]), RATE, nperseg=4096)
    low, inside = frequencies < 400, (frequencies > 500) & (frequencies < 2000)
    leak, change = (10 * np.log10(np.divide(*power[:, bins].sum(axis=1))) for bins in (low, inside))
    assert leak < -40 and change > -20


def test_a_long_result_in_the_notebook(tmp_path, of_project, monkeypatch):
    """The file is what one call makes; an interrupt and a late run of the cell go on; a note says what is a section."""
    short = "\nfrom support.desk import settings as declared\nfrom support.sound import sections\n"
    short += "declared.LONG, sections.SECTION = 3.0, 2.0"
    part, whole = tmp_path / "outputs/test-002-part.wav", tmp_path / "outputs/test-002.wav"
    with Notebook(tmp_path, STYLE_FILENAME=sample("speech"), result_duration=7.0, pictures=False) as notebook:
        cell = notebook.cell("import audiocnn")
        cell.source += short
        notebook.replace("follow_stream", "    display(show.follow", "    1 / 0\n    display(show.follow")
        with pytest.raises(CellError, match="ZeroDivisionError"):
            notebook.run_all()
        assert part.exists() and not whole.exists()
        notebook.replace("follow_stream", "    1 / 0\n", "")
        notebook.run("follow_stream")
        assert whole.exists() and not part.exists()
        settings = Settings(**json.loads(whole.with_suffix(".json").read_text())["settings"])
    report = json.loads((tmp_path / "outputs/test-001.json").read_text())
    assert report["used"]["not_in_settings"] == ["the length, because this is only the first section of a long result"]
    assert json.loads(whole.with_suffix(".json").read_text())["used"]["not_in_settings"] == []
    monkeypatch.setattr("support.desk.settings.LONG", 3.0)
    monkeypatch.setattr("support.sound.sections.SECTION", 2.0)
    np.testing.assert_array_equal(soundfile.read(whole, dtype="float32")[0], pipeline.synthesise(settings))
