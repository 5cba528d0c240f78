"""The notebooks: how they are written, and what they do when they run."""

import ast
import json
import re
import warnings

import nbformat
import numpy as np
import papermill
import pytest
import scipy.signal
import soundfile
import torch
from kernel import CQT, ROOT, STFT, sample

from support import networks, pipeline
from support.desk import saving
from support.desk.settings import STEPS, Settings, plain
from support.desk.steps import Steps
from support.sound.files import fit_full_scale

GATYS = dict(
    recipe="gatys",
    param_pkl=None,
    model_path=None,
    parameters=dict(l1channels=24, l2channels=8, l3channels=8, kernelsize=11),
    num_steps=8,
    outname="test",
)
BANDS = dict(filters=24, num_steps=6, refine_steps=2, outname="test")
EXCERPT = dict(offset=0.2, duration=2.0, phase_iterations=8)


def cells(name, kind=None, tag=None):
    notebook = nbformat.read(ROOT / name, as_version=4)
    nbformat.validate(notebook)
    found = [cell for cell in notebook.cells if kind in (None, cell.cell_type)]
    return [cell for cell in found if tag is None or tag in cell.metadata.get("tags", [])]


def assigned(name):
    """Names assigned in the settings cell."""
    (cell,) = cells(name, "code", "parameters")
    return {
        node.id
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def test_shared_cells_are_identical():
    first, second = ([(c.cell_type, c.source) for c in cells(name, tag="shared")] for name in (STFT, CQT))
    assert first == second
    assert len(first) > 30
    kinds = ([c.cell_type for c in cells(name)] for name in (STFT, CQT))
    assert next(kinds) == next(kinds)  # the same steps in the same order
    for name in (STFT, CQT):
        own = [c for c in cells(name, "code") if "shared" not in c.metadata.get("tags", [])]
        assert len(own) == 3  # the settings, their check, and the transform


@pytest.mark.parametrize("name", [STFT, CQT])
def test_names_are_shown_as_text_not_code(name):
    """A name of a file, or the outname of a stranger's json, may be <img src=x onerror=...>; Markdown would run it."""
    shown = [cell.source for cell in cells(name, "code") if re.search(r"Markdown|HTML|Javascript|Latex", cell.source)]
    assert shown == []


@pytest.mark.parametrize("name", [STFT, CQT])
def test_form(name):
    everything = cells(name)
    for before, cell in zip([None, *everything], everything, strict=False):
        if cell.cell_type == "code":
            folded = before is not None and (before.metadata | cell.metadata).get("jupyter")  # belongs to the one above
            assert before is not None and (before.cell_type == "markdown" or folded or "step(" in cell.source), (
                cell.source
            )
            assert not cell.outputs and cell.execution_count is None
            assert "locals(" not in cell.source and "vars(" not in cell.source
            assert "globals(" not in cell.source or "Settings.of(globals()," in cell.source
    text = "\n".join(cell.source for cell in everything)
    assert "### Here we create a custom network" in text
    assert "image to input in generative network" in text


@pytest.mark.parametrize("name", [STFT, CQT])
def test_the_steps_are_the_headings(name):
    headings = [line[3:] for c in cells(name, "markdown") for line in c.source.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in STEPS] == list(STEPS)
    made = re.findall(r'steps\.step\("(.*?)"', "\n".join(cell.source for cell in cells(name, "code")))
    assert made == list(STEPS)


@pytest.mark.parametrize("name", [STFT, CQT])
def test_papermill_lists_every_setting_with_its_help(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = papermill.inspect_notebook(ROOT / name)
    assert set(found) == assigned(name) and all(setting["help"] for setting in found.values())


@pytest.mark.parametrize("name", [STFT, CQT])
def test_every_setting_is_passed_on(name, monkeypatch):
    names = assigned(name)
    (typed,) = cells(name, "code", "parameters")
    (checked,) = [cell.source for cell in cells(name, "code") if "Settings.of(" in cell.source]
    monkeypatch.chdir(ROOT)
    notebook = dict(steps=Steps(), Settings=Settings, torch=torch, saving=saving)
    exec(typed.source, notebook)
    exec(checked, notebook)
    settings = notebook["settings"]
    assert settings.transform == ("cqt" if name == CQT else "stft")
    assert {each: plain(settings.given[each]) for each in names} == {each: notebook[each] for each in names}
    promised = "STYLE_FILENAME CONTENT_FILENAME outname runs seed K_HOP model_path param_pkl use01scale boundopt "
    promised += "reg_weight whichChannel content_layers_default style_layers_default start_values parameters "
    promised += "style_weight content_weight num_steps offset duration sample_rate"
    assert set(promised.split()) <= names


def run(name, folder, monkeypatch, **settings):
    """Execute a notebook in an empty folder; return its outputs folder and the executed notebook."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    executed = papermill.execute_notebook(
        ROOT / name,
        folder / "executed.ipynb",
        parameters=EXCERPT | (BANDS if settings.get("recipe") == "bands" else GATYS) | settings,
        cwd=folder,
        progress_bar=False,
    )
    return folder / "outputs", executed


def check(outputs, executed, stem="test-001"):
    samples, rate = soundfile.read(outputs / f"{stem}.wav")
    assert rate == 22050 and len(samples) == 2 * 22050
    assert np.isfinite(samples).all() and 0.01 < np.abs(samples).max() < 1
    report = json.loads((outputs / f"{stem}.json").read_text())
    losses = [losses["total"] for losses in report["losses"]]
    assert len(losses) == 8 and losses[-1] < 0.5 * losses[0]
    for picture in ("spectrograms", "losses"):
        assert (outputs / f"{stem}-{picture}.png").read_bytes().startswith(b"\x89PNG")
    codes = [cell for cell in executed.cells if cell.cell_type == "code"]
    data = [output.data for cell in codes for output in cell.outputs if "data" in output]
    players = [entry["text/html"] for entry in data if "<audio" in entry.get("text/html", "")]
    assert len(players) >= 3 and all(len(player) > 20000 for player in players)
    assert sum("image/png" in entry for entry in data) >= 5
    kinds = {"text/plain", "text/html", "text/markdown", "image/png"}  # what all readers of notebooks can show
    assert not [entry for entry in data if not set(entry) <= kinds]
    assert len(nbformat.writes(executed)) < 2e6  # the default of 5 s takes 1.5 MB; with wav and all colours 5.0 MB
    return report


@pytest.mark.parametrize("name", [STFT, CQT])
def test_texture(name, tmp_path, monkeypatch):
    outputs, executed = run(name, tmp_path, monkeypatch, STYLE_FILENAME=sample("water_stream"))
    report = check(outputs, executed)
    settings = report["settings"]
    assert settings["start"] == "rand" and settings["style_weight"] == 1e9
    assert report["used"]["terms"] == [["StyleLoss()", "relu_1", 1e9], ["BoundLoss()", "input", 1e-3]]


@pytest.mark.parametrize("name", [STFT, CQT])
def test_transfer(name, tmp_path, monkeypatch):
    settings = dict(STYLE_FILENAME=sample("tabla"), CONTENT_FILENAME=sample("speech"))
    report = check(*run(name, tmp_path, monkeypatch, **settings))
    settings = report["settings"]
    assert settings["start"] == "content" and settings["style_weight"] == 1e7
    assert [term[:2] for term in report["used"]["terms"][:2]] == [
        ["StyleLoss()", "relu_1"],
        ["ContentLoss()", "relu_3"],
    ]
    assert {"style relu_1", "content relu_3", "bound input", "total"} == set(report["losses"][0])


@pytest.mark.parametrize("name", [STFT, CQT])
def test_default_texture(name, tmp_path, monkeypatch):
    """The default recipe: from noise, on the spectrogram and then on the samples; another length than the style's."""
    outputs, _ = run(name, tmp_path, monkeypatch, recipe="bands", STYLE_FILENAME=sample("fire"), result_duration=3.0)
    samples, _ = soundfile.read(outputs / "test-001.wav")
    assert len(samples) == 3 * 22050 and np.isfinite(samples).all() and 0.01 < np.abs(samples).max() < 1
    report = json.loads((outputs / "test-001.json").read_text())
    assert report["settings"]["start"] == "noise"
    assert (
        report["used"]["terms"][0] == ["DistributionLoss(balance=0.65)", "conv_2", 1]
        and "width_8.conv_2" in report["used"]["layers"]
    )
    losses = [losses["total"] for losses in report["losses"]]
    assert len(losses) == 8 and losses[7] < losses[6]
    assert losses[4] < 0.5 * losses[0]  # the next step sees new filters


def test_default_transfer_with_everything(tmp_path, monkeypatch):
    """A blend of two styles, weights of layers, rhythm and diversity, on a content of another length, in segments."""
    settings = dict(STYLE_FILENAME=[sample("tabla"), sample("fire")], CONTENT_FILENAME=sample("rooster"))
    settings |= dict(style_blend=[1, 2], style_layers_default={"conv_1": 0.5, "conv_2": 1.0})
    settings |= dict(rhythm_weight=0.1, diversity_weight=0.1)
    settings |= dict(segment_duration=0.7)
    outputs, _ = run(STFT, tmp_path, monkeypatch, recipe="bands", widths=[1, 8], **settings)
    samples, rate = soundfile.read(outputs / "test-001.wav")
    assert len(samples) == 2 * rate
    report = json.loads((outputs / "test-001.json").read_text())
    names = {
        "style conv_1",
        "style conv_2",
        "content conv_2",
        "rhythm width_1.conv_1",
        "diversity input",
        "bound input",
    }
    assert names | {"total"} == set(report["losses"][0]) and report["settings"]["start"] == "content"


@pytest.mark.parametrize("name", [STFT, CQT])
def test_stereo_at_44100_hertz(name, tmp_path, monkeypatch):
    """Fire on the left and rain on the right, soft: the texture has two channels with these levels."""
    recordings = [soundfile.read(sample(sound))[0][22050:77175] for sound in ("fire", "rain")]
    both = [scipy.signal.resample_poly(samples, 2, 1) / samples.std() for samples in recordings]
    soundfile.write(tmp_path / "both.wav", np.stack([0.1 * both[0], 0.03 * both[1]], axis=1).clip(-1, 1), 44100)
    settings = dict(STYLE_FILENAME="both.wav", stereo=True, sample_rate=44100, offset=0.0, refine_steps=4)
    outputs, _ = run(name, tmp_path, monkeypatch, recipe="bands", **settings)
    samples, rate = soundfile.read(outputs / "test-001.wav")
    assert rate == 44100 and samples.shape == (2 * 44100, 2)
    left, right = samples.std(axis=0)
    assert 20 * np.log10(left / right) == pytest.approx(10.5, abs=2)
    assert abs(np.corrcoef(samples.T)[0, 1]) < 0.5
    report = json.loads((outputs / "test-001.json").read_text())
    losses = [losses["total"] for losses in report["losses"]]
    assert losses[-1] < losses[6]


def test_other_settings(tmp_path, monkeypatch):
    """Time as channels, a typed setting for each of the rest, two runs, and the same seed again."""
    settings = dict(
        STYLE_FILENAME=sample("fire"), CONTENT_FILENAME=sample("birds"), whichChannel="time", start="samples"
    )
    settings |= dict(use01scale=False, boundopt=False, runs=2, style_layers_default=["conv_1", "pool_2"])
    outputs, executed = run(STFT, tmp_path, monkeypatch, **settings)
    reports = [check(outputs, executed, stem) for stem in ("test-001", "test-002")]
    assert [report["settings"]["seed"] for report in reports] == [0, 1]
    assert reports[0]["losses"] != reports[1]["losses"] and "bound input" not in reports[0]["losses"][0]
    outputs, _ = run(STFT, tmp_path, monkeypatch, **settings)
    again = [soundfile.read(outputs / f"test-00{number}.wav")[0] for number in (1, 3, 2)]
    np.testing.assert_array_equal(again[0], again[1])
    assert np.abs(again[0] - again[2]).max() > 0.01


@pytest.mark.parametrize(
    "settings", [dict(whichChannel="2D", parameters=GATYS["parameters"] | {"kernelsize": 3}), dict(use_style_net=True)]
)
def test_2d_and_custom_network(settings, tmp_path, monkeypatch):
    report = check(*run(STFT, tmp_path, monkeypatch, STYLE_FILENAME=sample("frogs"), **settings))
    assert report["settings"]["use_style_net"] == settings.get("use_style_net", False)


PAIRS = sorted(path.stem for path in ROOT.glob("params/*.pkl"))


def test_the_shipped_pairs_are_pairs():
    assert PAIRS == ["cqt_freq", "stft_2d", "stft_freq", "stft_time"]
    for pair in PAIRS:
        assert (ROOT / f"models/{pair}.pth").stat().st_size < 8e6
        assert "| top-1 accuracy |" in (ROOT / f"models/{pair}.md").read_text()
    for name, pair in ((STFT, "stft_freq"), (CQT, "cqt_freq")):
        (cell,) = cells(name, "code", "parameters")
        assert f'model_path = "models/{pair}.pth"' in cell.source and f'param_pkl = "params/{pair}"' in cell.source


@pytest.mark.parametrize("pair", PAIRS)
def test_a_shipped_pair_in_its_notebook(pair, tmp_path, monkeypatch):
    settings = dict(param_pkl=str(ROOT / "params" / pair), model_path=str(ROOT / "models" / f"{pair}.pth"))
    parameters = networks.load_parameters(settings["param_pkl"])
    orientation, width = parameters["orientation"], parameters["in_channels"]
    settings |= dict(STYLE_FILENAME=sample("tabla"), whichChannel=orientation)
    report = check(*run(CQT if pair.startswith("cqt") else STFT, tmp_path, monkeypatch, **settings))
    assert report["used"]["layers"]["conv_1"].startswith(f"Conv2d({width}, ")


@pytest.mark.parametrize("name", [STFT, CQT])
@pytest.mark.parametrize("content", [None, "speech"])
@pytest.mark.parametrize("recipe", ["bands", "gatys"])
def test_a_notebook_makes_the_samples_of_the_pipeline(name, content, recipe, tmp_path, monkeypatch):
    settings = dict(recipe=recipe, STYLE_FILENAME=sample("tabla"), CONTENT_FILENAME=content and sample(content))
    settings |= dict(num_steps=4, refine_steps=3, device="cpu")
    outputs, _ = run(name, tmp_path, monkeypatch, **settings)
    saved, _ = soundfile.read(outputs / "test-001.wav", dtype="float32")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    more = EXCERPT | (BANDS if recipe == "bands" else GATYS) | settings
    made = pipeline.synthesise(Settings(**more, transform="cqt" if name == CQT else "stft"))
    np.testing.assert_allclose(saved, fit_full_scale(made), atol=1.01 / 32768)  # the file has 16 bits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(STYLE_FILENAME="gone.wav"), "gone.wav is not a file; give the path"),
        (dict(style_layers_default=["relu_9"]), "there is no layer 'relu_9'; choose among conv_1"),
        (dict(whichChannel="2d"), "whichChannel='2d' is unknown; choose one of freq, time, 2D"),
        (dict(start="content"), "the start 'content' needs a content"),
        (dict(recipe="plain"), "recipe='plain' is unknown; choose one of bands, gatys"),
        (dict(recipe="bands", result_duration=0.05), "result_duration=0.05: 0.050 s are too short for widths"),
        (dict(recipe="bands", whichChannel="2D"), "whichChannel='2D' needs recipe='gatys'"),
    ],
)
def test_bad_settings_stop_the_notebook(settings, message, tmp_path, monkeypatch):
    settings = dict(STYLE_FILENAME=sample("rooster")) | settings
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        run(STFT, tmp_path, monkeypatch, **settings)
    assert not list(tmp_path.glob("outputs/*"))
