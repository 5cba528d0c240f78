"""What stands in a cell decides, and the json says so: transforms, optimisers, losses, networks, images, settings.

Every test runs the real notebook, in a kernel or as a script.
"""

import functools
import json
import os
import re
import subprocess
import sys
import textwrap
import types
import warnings

import nbformat
import numpy as np
import pytest
import soundfile
import torch
from kernel import (
    BACK,
    CHECKED,
    CQT,
    LOSSES,
    OPTIMISE,
    OPTIMIZER,
    PAIRS,
    REFINE,
    RESULT,
    ROOT,
    SAVE,
    SETTINGS,
    SPECTROGRAMS,
    STFT,
    TRANSFORM,
    CellError,
    Notebook,
    sample,
)
from matplotlib.figure import Figure

import audiocnn
from support import pipeline
from support.desk import saving, settings, show, sweeps
from support.desk.settings import DEFAULTS, GROUPS, Settings
from support.sound import transforms
from support.sound.files import fit_full_scale

SHORT = dict(duration=1.0, filters=10, widths=[1, 4], num_steps=2, refine_steps=2, phase_iterations=8)


@pytest.fixture(autouse=True)
def path_of_the_modules(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def notebook(tmp_path):
    with Notebook(tmp_path, pictures=False, **SHORT) as notebook:
        yield notebook


def short(**changes):
    return Settings(**SHORT | dict(STYLE_FILENAME=sample("fire"), outname="test") | changes)


def report(folder, stem="test-001"):
    return json.loads((folder / f"outputs/{stem}.json").read_text())


def warns_of(folder, *names, stem="test-001"):
    """load_settings warns of exactly these parts that cells made."""
    with pytest.warns(UserWarning, match="the settings alone give another sound") as caught:
        saving.load_settings(folder / f"outputs/{stem}.json")
    return f"cells of the notebook made {', '.join(names)}, see 'used'" in str(caught[0].message)


# An analysis of one's own ------------------------------------------------------------------------

STFT_OF = functools.partial(transforms.STFT, sample_rate=22050, n_fft=512, hop_length=128)
ANALYSES = {
    # the cell, what is edited there, the same analysis, and words of the json
    "hop": (TRANSFORM, ("hop_length=settings.K_HOP", "hop_length=64"), STFT_OF(hop_length=64), 0.3, "hop_length=64"),
    "window": (TRANSFORM, ('window="hann"', 'window="hamming"'), STFT_OF(window="hamming"), 0.3, "hamming"),
    "power": (SPECTROGRAMS, ("power=settings.power", "power=0.6"), STFT_OF(), 0.6, "power=0.6"),
}


@pytest.mark.parametrize("name", ANALYSES)
def test_the_transform_of_the_cell_decides(name, notebook, tmp_path, monkeypatch):
    """The saved sound is made with it, in both descents and on the way back to sound, and the json says so."""
    cell, edit, transform, power, words = ANALYSES[name]
    notebook.replace(cell, *edit)
    notebook.run_all()
    # In a process of its own, because rounding depends on where the memory of a process lies.
    source = f"""
        import numpy as np
        from support import pipeline
        from support.desk.settings import Settings
        from support.sound import transforms
        from support.sound.analysis import Analysis
        from support.sound.files import fit_full_scale
        transform = transforms.STFT(sample_rate=22050, n_fft=512, hop_length={transform.hop_length},
                                    window={"hamming" if name == "window" else "hann"!r})
        analysis = Analysis(transform=transform, power={power})
        result = pipeline.run(Settings(**{SHORT | dict(STYLE_FILENAME=sample("fire"))!r}), analysis=analysis)
        np.save("again.npy", fit_full_scale(result.samples.cpu().numpy()))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(source)], cwd=tmp_path, check=True)
    soundfile.write(tmp_path / "again.wav", np.load(tmp_path / "again.npy"), 22050, subtype="PCM_16")
    made, again = (soundfile.read(tmp_path / path)[0] for path in ("outputs/test-001.wav", "again.wav"))
    np.testing.assert_array_equal(made, again)
    plain = pipeline.synthesise(short())
    assert np.abs(fit_full_scale(plain) - made).max() > 0.01  # and the settings alone give another sound
    used = report(tmp_path)["used"]
    assert words in used["analysis"] and "analysis" in used["not_in_settings"]
    assert warns_of(tmp_path, *used["not_in_settings"])


# Images and samples that cells change ------------------------------------------------------------


def test_an_image_changed_by_a_cell_makes_later_steps_stale(notebook, tmp_path):
    """And its json says so, also where the cell stands before the step."""
    notebook.run_all()
    assert report(tmp_path)["used"]["not_in_settings"] == []
    notebook.execute("results[0].image *= 0.5")
    for cell in (REFINE, SAVE, RESULT):
        with pytest.raises(CellError, match="'Optimisation' was run or changed after 'Back to sound': run again from"):
            notebook.run(cell)
    notebook.run(BACK, PAIRS, REFINE)
    notebook.execute("results[0].samples *= 0.5")
    notebook.run(SAVE)
    used = report(tmp_path, "test-002")["used"]
    assert used["not_in_settings"] == ["Optimisation", "Refine the samples"]
    assert warns_of(tmp_path, "Optimisation", "Refine the samples", stem="test-002")
    notebook.run_all('step("The start')
    assert report(tmp_path, "test-003")["used"]["not_in_settings"] == []  # from the beginning, nothing is left of it
    notebook.run('step("The start')
    notebook.execute("results[0].image += 0.1")
    notebook.run_all(OPTIMISE)
    assert report(tmp_path, "test-004")["used"]["not_in_settings"] == ["the image before its optimisation"]


# Optimisers, losses, networks --------------------------------------------------------------------


def test_another_optimiser_in_the_cell(notebook, tmp_path):
    notebook.edit(num_steps=12, redraw=0)
    notebook.cell(OPTIMIZER).source = f"optimizer = {ADAM.format(lr=0.02)}\nsample_optimizer = {ADAM.format(lr=0.001)}"
    notebook.run_all()
    said = notebook.run(RESULT) + notebook.execute("print(show.balance(results[0]))")
    assert "No step was done" not in said and "is at" in said
    saved = report(tmp_path)
    totals = [losses["total"] for losses in saved["losses"][:12]]
    assert totals[-1] < 0.7 * totals[0] and len(saved["losses"]) == 14
    for name, lr in dict(optimizer="lr=0.02", sample_optimizer="lr=0.001").items():
        assert "Adam" in saved["used"][name] and lr in saved["used"][name]
    assert saved["used"]["not_in_settings"] == ["optimizer", "sample_optimizer"]
    assert warns_of(tmp_path, "optimizer", "sample_optimizer")


ADAM = "functools.partial(torch.optim.Adam, lr={lr})"
LOSS = """\
def spread(features):
    return features.std(dim=-1)


class SpreadLoss(audiocnn.Loss):
    kind = "spread"
    compares = "style"

    def target(self, *styles, blend):
        return spread(styles[0])

    def distance(self, features, target):
        return (spread(features) - target).square().mean()
"""
NETWORK = """\
class Halves(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 32, (1, 3), padding="same")
        self.relu = nn.ReLU()

    def forward(self, image):
        return self.relu(self.conv(image)) + 0.5


def style_net(channels):
    return Halves(channels)
"""


def test_an_own_loss_and_an_own_network_are_in_the_json(notebook, tmp_path):
    """With their source, and that of what they call."""
    notebook.edit(use_style_net=True)
    notebook.cell("def style_net").source = NETWORK
    notebook.run(*SETUP)
    notebook.execute(LOSS)
    notebook.replace(LOSSES, "(RhythmLoss(), settings.rhythm_weight, {", "(SpreadLoss(), 2.0, {")
    notebook.run_all()
    saved = report(tmp_path)
    used, code = saved["used"], saved["used"]["own_code"]
    assert {name: source.rstrip() for name, source in code.items() if name in LOSS} == {
        "spread": LOSS.split("\n\n\n")[0],
        "SpreadLoss": LOSS.split("\n\n\n")[1].rstrip(),
    }
    assert code["Halves"].rstrip() == NETWORK.split("\n\n\n")[0]
    assert "SpreadLoss" in str(used["terms"]) and "spread conv_1" in saved["losses"][0]
    assert set(used["layers"]) >= {"conv_1", "relu_1"} and "Halves" in used["network"]
    assert {"network", "terms"} <= set(used["not_in_settings"])
    assert warns_of(tmp_path, *used["not_in_settings"])


SETUP = ("import audiocnn",)


# Names -------------------------------------------------------------------------------------------


def test_misspelt_settings_are_refused_everywhere(tmp_path):
    """In the settings cell, in changes, in sweeps, and as arguments of runs; before anything is made."""
    misspelt = re.escape("'num_step' is not a setting; did you mean 'num_steps'?")
    with Notebook(tmp_path, pictures=False, **SHORT) as notebook:
        notebook.save()
        cell = notebook.cell(SETTINGS)
        cell.source += "\nnum_step = 3"
        notebook.run(*SETUP, SETTINGS)
        with pytest.raises(CellError, match=misspelt):
            notebook.run(CHECKED)
        cell.source = cell.source.replace("num_step = 3", "")
        notebook.run(SETTINGS, CHECKED)
        notebook.execute("# Parameters\nnum_step = 3\n")
        with pytest.raises(CellError, match=misspelt):
            notebook.run(CHECKED)
    with pytest.raises(ValueError, match=misspelt):
        Settings().changed(num_step=3)
    with pytest.raises(ValueError, match=r"'tone' is not a setting; write a line tone = \.\.\. in the settings cell"):
        Settings().changed(tone=3)
    with pytest.raises(ValueError, match="sweep: " + misspelt):
        Settings(sweep={"num_step": [3, 4]})
    with pytest.raises(ValueError, match=misspelt):
        sweeps.run_notebook(notebook.path, outname="x", num_step=3)
    with pytest.raises(ValueError, match=r"'tone' is not a setting of .*; write a line tone = \.\.\."):
        sweeps.run_notebook(notebook.path, outname="x", tone=3)
    with pytest.raises(TypeError, match="num_step"):
        Settings(num_step=3)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", [STFT, CQT])
def test_each_setting_is_declared_once(name):
    """The settings cell is what the declarations give, line by line, and so is the table of the readme."""
    (source,) = [
        cell.source
        for cell in nbformat.read(ROOT / name, as_version=4).cells
        if "parameters" in cell.metadata.get("tags", [])
    ]
    lines = [line for line in source.splitlines() if line]
    assert len(lines) <= 50 and max(map(len, lines)) <= 120
    stem = name.removeprefix("neural_style_audio_").removesuffix(".ipynb")
    pair = f"{dict(pretrained='stft', cqt='cqt')[stem]}_freq"
    typed = dict(outname=f"water_stream_{dict(pretrained='texture', cqt='cqt')[stem]}")
    typed |= dict(model_path=f"models/{pair}.pth", param_pkl=f"params/{pair}")
    other = {"N_FFT"} if name == CQT else {"bins_per_octave", "lowest_frequency", "n_octaves"}
    expected = [lines[0]]
    for title, names in GROUPS.items():
        expected.append(f"# {title}")
        expected += [settings.line_of(each, typed.get(each)) for each in names.split() if each not in other]
    assert lines == expected and lines[0].startswith("steps.typed()")
    listed = " ".join(GROUPS.values()).split()
    assert sorted(listed) == sorted(set(DEFAULTS) - {"transform", "own"})
    table = (ROOT / "support/desk/README.md").read_text().split("<!-- settings -->\n")[1]
    assert table == settings.table_of_settings() + "\n" and all(f"| `{each}` |" in table for each in listed)


# Other processes ---------------------------------------------------------------------------------

DESCENT = """
    import sys
    import audiocnn
    from support import pipeline
    from support.desk import saving
    from support.desk.settings import Settings

    settings = Settings(**{given!r})
    parts = pipeline.parts(settings)
    objective = pipeline.make_objective(parts.images, parts.networks, parts.terms)
    done = int(sys.argv[1])
    if done:
        result = saving.load_state(f"at-{{done}}.pth", settings)
    else:
        result = pipeline.Result(0, parts.images["style 1"].flip(3), settings=settings)
        result.measure(objective, result.image)
    steps = audiocnn.optimise(result.image, objective, num_steps=40, done=result.begin(40), redraw=20)
    for losses in steps:
        result.history.append(losses)
        if not done and len(result.history) in (10, 20):
            saving.save_state(result, f"at-{{len(result.history)}}.pth")
    saving.save_state(result, f"from-{{done}}.pth")
"""


def test_an_unfinished_result_goes_on_in_a_new_process(tmp_path):
    """Saved at a draw of new filters, it ends bit for bit as without a pause; elsewhere a warning comes."""
    given = dict(STYLE_FILENAME=sample("fire"), duration=0.5, filters=6, widths=[1, 4], num_steps=40, device="cpu")
    source, said = textwrap.dedent(DESCENT).format(given=given), {}
    for done in (0, 20, 10):
        command = [sys.executable, "-c", source, str(done)]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        said[done] = ended.stderr
    whole, resumed, other = (torch.load(tmp_path / f"from-{done}.pth") for done in (0, 20, 10))
    torch.testing.assert_close(resumed["image"], whole["image"], rtol=0, atol=0)
    assert resumed["history"] == whole["history"] and len(whole["history"]) == 40
    assert resumed["start"] == whole["start"] and resumed["begun"] == [0, 20] and resumed["changed"] == []
    assert "the optimiser begins again" not in said[0] + said[20]
    assert "at-10.pth holds 10 steps, not a multiple of redraw=20: the optimiser begins again there" in said[10]
    assert other["history"][:10] == whole["history"][:10] and other["history"][-1] != whole["history"][-1]


def test_what_is_no_unfinished_result(tmp_path):
    present = Settings(device="cpu")
    with pytest.raises(FileNotFoundError):
        saving.load_state(tmp_path / "gone.pth", present)
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no tensors")
    for name in ("other", "text"):
        with pytest.raises(ValueError, match=f"{name}.pth is not an unfinished result of save_state"):
            saving.load_state(tmp_path / f"{name}.pth", present)
    saving.save_state(pipeline.Result(0, torch.ones(3), settings=present), tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match="mine.pth was begun with other values of seed, power"):
        saving.load_state(tmp_path / "mine.pth", Settings(device="cpu", seed=1, power=0.5))
    with warnings.catch_warnings(action="error"):
        saving.load_state(tmp_path / "mine.pth", Settings(device="cpu", outname="x", num_steps=3))


def test_the_notebook_is_a_plain_script(tmp_path):
    """As `jupyter nbconvert --to script` writes it: no display is needed, and the sound is the pipeline's."""
    notebook = Notebook(tmp_path, **SHORT)
    notebook.save()
    command = [sys.executable, "-m", "nbconvert", "--to", "script", "--output", "plain", notebook.path.name]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    again = """
        import numpy as np
        from support import pipeline
        from support.desk import saving
        np.save("again.npy", pipeline.synthesise(saving.load_settings("outputs/test-001.json")))
    """
    environment = os.environ | {"MPLBACKEND": "agg"}
    for script in (["plain.py"], ["-c", textwrap.dedent(again)]):
        done = subprocess.run(
            [sys.executable, *script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    saved = soundfile.read(tmp_path / "outputs/test-001.wav")[0]
    np.testing.assert_allclose(fit_full_scale(np.load(tmp_path / "again.npy")), saved, atol=1e-3)
    assert report(tmp_path)["used"]["not_in_settings"] == []
    assert {path.name for path in (tmp_path / "outputs").glob("*.png")} == {
        "test-001-losses.png",
        "test-001-spectrograms.png",
    }


# Pictures ----------------------------------------------------------------------------------------


def test_pictures_on_the_way_change_no_result(monkeypatch):
    """Whether somebody watches changes no value, and at the end the picture goes."""
    shown, images, given = [], [], short(device="cpu")
    monkeypatch.setattr(show, "show", lambda output: types.SimpleNamespace(update=shown.append))
    made = pipeline.parts(given)
    for refresh in (0, 1e-9):
        objective = pipeline.make_objective(made.images, made.networks, made.terms)
        result = pipeline.Result(0, made.images["style 1"].flip(3), settings=given)
        result.measure(objective, result.image)
        steps = audiocnn.optimise(result.image, objective, num_steps=30)
        for losses in show.progress(steps, result, made.analysis, 30, refresh):
            result.history.append(losses)
        images.append(result.image)
    figures = [isinstance(each, Figure) for each in shown]
    assert figures[0] is False and figures[1] is True and figures[-1] is False  # the first run had no picture
    torch.testing.assert_close(images[0], images[1], rtol=0, atol=0)
