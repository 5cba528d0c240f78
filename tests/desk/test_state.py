"""The notebook's state can't mislead: cells out of order, changed settings, interrupts, sweeps, records.

Every test runs the real notebook, cell by cell, in a kernel.
"""

import ast
import json
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import nbformat
import numpy as np
import psutil
import pytest
import soundfile
import torch
from kernel import (
    BACK,
    CHECKED,
    CQT,
    LISTEN,
    LOSSES,
    NETWORK,
    OPTIMISE,
    PAIRS,
    REFINE,
    RESULT,
    ROOT,
    SAVE,
    SETTINGS,
    START,
    STFT,
    SWEEP,
    CellError,
    Notebook,
    sample,
)

from support import pipeline
from support.desk import saving
from support.desk.settings import DEFAULTS, Settings


@pytest.fixture(autouse=True)
def path_of_the_modules(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def quick(folder, name=STFT, **settings):
    """A notebook of a second, without its pictures."""
    return Notebook(folder, name, pictures=False, **dict(duration=1.0, filters=10, widths=[1, 4]) | settings)


@pytest.fixture
def notebook(tmp_path):
    with quick(tmp_path) as notebook:
        yield notebook


def reports(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "outputs").glob("*.json"))}


def sound(folder, stem):
    return soundfile.read(folder / f"outputs/{stem}.wav")[0]


def in_one_call(folder, stem):
    """Samples of a script that repeats a saved run, without the notebook.

    In a process of its own, because rounding depends on where the memory of a process lies.
    """
    source = f"""
        import numpy as np
        from support import pipeline
        from support.desk import saving
        from support.sound.files import fit_full_scale
        from support.sound.masks import kept_of
        settings = saving.load_settings("outputs/{stem}.json")
        samples = pipeline.synthesise(settings)
        kept = kept_of(settings.load(), samples.shape[-1]) if settings.where else None
        np.save("again.npy", fit_full_scale(samples, kept))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(source)], cwd=folder, check=True)
    return np.load(folder / "again.npy")


# Stale steps -----------------------------------------------------------------------------------------


def test_settings_changed_after_the_optimisation_are_not_saved(notebook, tmp_path):
    notebook.run_all()
    before = reports(tmp_path)
    notebook.edit(filters=24, power=0.5)
    assert "run again from 'Spectrograms'" in notebook.run(SETTINGS, CHECKED)
    for cell in (SAVE, REFINE, BACK, OPTIMISE, START, LOSSES, NETWORK, RESULT):
        with pytest.raises(CellError, match=r"'Spectrograms' was made with power=0.3, .* say power=0.5"):
            notebook.run(cell)
    assert reports(tmp_path) == before
    assert before["test-001"]["settings"]["filters"] == 10 and before["test-001"]["settings"]["power"] == 0.3


def test_a_weight_changed_before_the_optimisation_is_used_or_refused(tmp_path):
    files = dict(CONTENT_FILENAME=sample("rooster"), STYLE_FILENAME=sample("frogs"))
    with quick(tmp_path, **files) as notebook:
        notebook.run_all()
        notebook.edit(content_weight=100.0)
        notebook.run(SETTINGS)
        with pytest.raises(
            CellError, match="the settings are not checked yet: run the cell 'The settings, checked' first"
        ):
            notebook.run(OPTIMISE)
        notebook.run(CHECKED)
        with pytest.raises(
            CellError, match=r"'The losses' was made with content_weight=30.0, .*=100.0: run again from"
        ):
            notebook.run(OPTIMISE)
        notebook.run(LOSSES)
        with pytest.raises(CellError, match=r"'The start' was made with content_weight=30.0"):
            notebook.run(OPTIMISE)
        notebook.run_all(START)
    first, second = reports(tmp_path).values()
    assert first["settings"]["content_weight"] == 30 and second["settings"]["content_weight"] == 100
    ((layer, weight),) = [each[1:] for each in second["used"]["terms"] if "FreeContentLoss" in each[0]]
    assert (layer, weight) == ("conv_2", 100)
    assert second["losses"][0]["content conv_2"] != first["losses"][0]["content conv_2"]


def test_a_new_style_is_loaded_before_anything_is_made_with_it(notebook, tmp_path):
    notebook.run_all()
    notebook.edit(STYLE_FILENAME=sample("rain"))
    notebook.run(SETTINGS, CHECKED)
    with pytest.raises(
        CellError, match=r"'Listen to the inputs' was made with STYLE_FILENAME='.*fire.flac'.*run again"
    ):
        notebook.run_all(LOSSES)
    assert len(reports(tmp_path)) == 1
    notebook.run_all(LISTEN)
    assert [r["settings"]["STYLE_FILENAME"] for r in reports(tmp_path).values()] == [sample("fire"), sample("rain")]


def test_a_file_that_changed_under_its_name_is_noticed(tmp_path):
    soundfile.write(tmp_path / "mine.wav", sound_of("fire"), 22050)
    with quick(tmp_path, STYLE_FILENAME="mine.wav") as notebook:
        notebook.run_all()
        soundfile.write(tmp_path / "mine.wav", sound_of("rain"), 22050)
        notebook.run(LISTEN)
        with pytest.raises(
            CellError, match="'Listen to the inputs' was run or changed after 'The transform': run again from"
        ):
            notebook.run(OPTIMISE)


def sound_of(name):
    return soundfile.read(sample(name))[0][22050:88200]


def test_an_edited_sum_starts_again_and_is_saved(notebook, tmp_path):
    notebook.run_all()
    notebook.replace(LOSSES, "beat.weight, settings.rhythm_layers", '0.25, {"conv_2": 2, "conv_1": 1.0}')
    notebook.run(LOSSES)
    with pytest.raises(
        CellError, match="'The losses' was run or changed after 'The start': run again from 'The start'"
    ):
        notebook.run(OPTIMISE)
    notebook.run_all(START)
    first, second = (report["used"] for report in reports(tmp_path).values())
    rhythm = [(layer, weight) for loss, layer, weight in second["terms"] if "RhythmLoss" in loss]
    assert rhythm == [("conv_2", 0.5), ("conv_1", 0.25)]
    assert first["not_in_settings"] == [] and second["not_in_settings"] == ["terms"]
    assert "rhythm conv_1" in reports(tmp_path)["test-002"]["losses"][0]


def test_a_step_that_failed_counts_as_not_made(notebook):
    notebook.run_all()
    notebook.edit(style_layers_default=["conv_9"])
    with pytest.raises(CellError, match="there is no layer 'conv_9'; choose among conv_1, conv_2"):
        notebook.run(SETTINGS, CHECKED)
    notebook.edit(style_layers_default=None)
    typed, own = "style_weight, settings.style_layers_default)", "style_weight, dict(conv_9=1.0))"  # by a cell
    notebook.replace(LOSSES, typed, own)
    with pytest.raises(CellError, match="style layers: there is no layer 'conv_9'"):
        notebook.run(SETTINGS, CHECKED, LOSSES, START)
    notebook.replace(LOSSES, own, typed)
    notebook.run(LOSSES)
    with pytest.raises(CellError, match="'The start' was not run to its end: run again from 'The start'"):
        notebook.run(OPTIMISE)


def test_the_first_cell_can_be_run_again(notebook):
    notebook.run_all()
    notebook.run("import audiocnn")
    assert "All 4 steps are done" in notebook.run(OPTIMISE)


# Recipes -----------------------------------------------------------------------------------------


def test_recipes_do_not_stick(notebook):
    show = "print([settings.N_FFT, settings.K_HOP, settings.power, settings.statistic, settings.start])"
    notebook.run("import audiocnn", SETTINGS, CHECKED)
    assert notebook.execute(show).strip() == "[512, 128, 0.3, 'balanced', 'noise']"
    notebook.edit(recipe="gatys", model_path=None, param_pkl=None)
    notebook.run(SETTINGS, CHECKED)
    assert notebook.execute(show).strip() == "[1024, 256, 'log1p', 'gram', 'rand']"
    notebook.edit(recipe="bands", CONTENT_FILENAME=sample("speech"))
    notebook.run(SETTINGS, CHECKED)
    assert notebook.execute(show).strip() == "[512, 128, 0.3, 'distribution', 'content']"


def test_settings_that_were_not_checked_are_not_used(notebook):
    notebook.run("import audiocnn", SETTINGS)
    with pytest.raises(CellError, match="the settings are not checked yet"):
        notebook.run(LISTEN)


# Nothing in silence ------------------------------------------------------------------------------


def test_steps_that_are_done_are_reported(notebook):
    assert "All 4 steps are done. To go on, set num_steps to more than 4" in notebook.run_all()
    said = notebook.run(OPTIMISE)
    assert "All 4 steps are done" in said and "to begin again, run again from 'The start'" in said
    notebook.edit(num_steps=7)
    assert "run again from 'Optimisation'" in notebook.run(SETTINGS, CHECKED)
    assert "All 7 steps are done" in notebook.run(OPTIMISE)
    notebook.edit(num_steps=2)
    notebook.run(SETTINGS, CHECKED)
    said = notebook.run(OPTIMISE)
    assert "Run 1 has 7 steps, more than num_steps=2; nothing was changed" in said and "'The start'" in said


def test_going_on_keeps_both_results_and_says_where_the_optimiser_began_again(notebook, tmp_path):
    notebook.run_all()
    notebook.edit(refine_steps=5)
    notebook.run(SETTINGS, CHECKED, REFINE, SAVE)
    notebook.run(SAVE)  # nothing new, so nothing is saved
    notebook.edit(num_steps=7)
    notebook.run(SETTINGS, CHECKED)
    notebook.run_all(OPTIMISE)
    found = list(reports(tmp_path).values())
    assert [len(report["losses"]) for report in found] == [6, 9, 12]
    assert [report["settings"]["refine_steps"] for report in found] == [2, 5, 5]
    began = [report["used"]["optimizer_began_after_steps"] for report in found]
    assert began == [[0, 4], [0, 4, 6], [0, 4, 7]]
    with warnings.catch_warnings(action="error"):
        saving.load_settings(tmp_path / "outputs/test-001.json")
    with pytest.warns(UserWarning, match=r"the optimiser began again after steps \[0, 4, 7\]"):
        saving.load_settings(tmp_path / "outputs/test-003.json")


def test_a_setting_of_a_later_step_is_saved_as_it_was_used(notebook, tmp_path):
    notebook.run_all()
    notebook.edit(phase_iterations=30)
    assert "run again from 'Back to sound'" in notebook.run(SETTINGS, CHECKED)
    notebook.run_all(BACK)
    assert [report["settings"]["phase_iterations"] for report in reports(tmp_path).values()] == [8, 30]
    np.testing.assert_allclose(in_one_call(tmp_path, "test-002"), sound(tmp_path, "test-002"), atol=1e-3)


def test_two_runs_of_a_transfer_differ_and_each_can_be_repeated(tmp_path):
    files = dict(CONTENT_FILENAME=sample("rooster"), STYLE_FILENAME=sample("frogs"))
    with quick(tmp_path, runs=2, **files) as notebook:
        notebook.run_all()
    sounds = [sound(tmp_path, stem) for stem in ("test-001", "test-002")]
    assert np.abs(sounds[0] - sounds[1]).max() > 0.01
    for stem, expected in zip(("test-001", "test-002"), sounds, strict=True):
        np.testing.assert_allclose(in_one_call(tmp_path, stem), expected, atol=1e-3)
    assert [report["settings"]["seed"] for report in reports(tmp_path).values()] == [0, 1]


def test_a_custom_network_in_a_transfer(tmp_path):
    """It finds its layers, and the json describes this network and no other."""
    files = dict(CONTENT_FILENAME=sample("rooster"), STYLE_FILENAME=sample("frogs"))
    with quick(tmp_path, use_style_net=True, **files) as notebook:
        notebook.run_all()
    (report,) = reports(tmp_path).values()
    assert list(report["used"]["layers"]) == ["conv_1", "relu_1"]
    assert report["used"]["layers"]["conv_1"].startswith("Conv2d(257, 512, kernel_size=(1, 11)")
    assert {"style relu_1", "content relu_1"} <= set(report["losses"][0])


# Repeating ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [STFT, CQT])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(
            recipe="gatys",
            param_pkl=None,
            model_path=None,
            parameters=dict(l1channels=24, l2channels=8, l3channels=8, kernelsize=5),
        ),
        dict(
            CONTENT_FILENAME=sample("speech"),
            where={"change": {"seconds": [[0.5, 1.5]]}, "content": {"hertz": [[0, 1000]]}},
            content_weight=[[0, 30], [2, 0]],
        ),
    ],
)
def test_the_pipeline_is_the_notebook_and_a_json_repeats_it(name, settings, tmp_path):
    """The same settings give the same samples: in the notebook, in one call, and from the saved json."""
    with quick(tmp_path, name, duration=2.0, **settings) as notebook:
        notebook.run_all()
        notebook.edit(filters=8, recipe="bands")  # what follows comes from the json alone
        load = 'settings = saving.load_settings("outputs/test-001.json")\nprint(steps.accept(settings))'
        notebook.execute(load)
        notebook.run_all(LISTEN)
    first, again = (sound(tmp_path, stem) for stem in ("test-001", "test-002"))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(in_one_call(tmp_path, "test-001"), first, atol=1e-3)


def test_files_that_are_not_the_json_of_a_run(tmp_path):
    for text in ("[1]", "{", '{"settings": 3}', "{}"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other.json is not the json file of a run"):
            saving.load_settings(tmp_path / "other.json")
    (tmp_path / "other.json").write_text('{"settings": {"seed": 3, "tone": 1}}')
    with pytest.raises(
        ValueError, match=r"other.json has settings that are not known: tone; take them out of the file"
    ):
        saving.load_settings(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match="give the json file of a run"):
        saving.load_settings(tmp_path / "gone.json")


@pytest.mark.parametrize("name", [STFT, CQT])
def test_the_defaults_of_the_object_are_those_of_the_notebook(name, monkeypatch):
    """So that scripts and benchmarks measure the sound that the notebooks make."""
    monkeypatch.chdir(ROOT)
    given = {}
    cells = [cell.source for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code"]
    (source,) = [cell for cell in cells if SETTINGS in cell]
    exec(source.replace("steps.typed()", ""), given)
    del given["__builtins__"]
    transform = "stft" if name == STFT else "cqt"
    typed, default = Settings(transform=transform, **given), Settings(transform=transform)
    differing = [each for each in given if getattr(typed, each) != getattr(default, each)]
    assert set(differing) == {"model_path", "param_pkl"}


# Interrupts --------------------------------------------------------------------------------------


class Stops:
    """Presses Stop when a text is printed, and again when more is printed or some time has gone."""

    def __init__(self, notebook, text):
        self.notebook, self.text, self.pressed = notebook, text, 0

    def __call__(self, printed):
        if not self.pressed and self.text in printed:
            self.pressed += 1
            self.notebook.interrupt()


def test_an_interrupt_keeps_what_is_done_and_says_so(notebook, tmp_path):
    notebook.edit(num_steps=100000)
    printed = notebook.run_all(watch=Stops(notebook, "style conv_2="))
    assert "of 100000 steps of run 1; run this cell again to go on" in printed
    (report,) = reports(tmp_path).values()
    assert report["settings"]["num_steps"] == len(report["losses"]) - 2 < 100000


def test_a_second_interrupt_does_not_cost_the_sound(notebook, tmp_path):
    """Stop while it optimises, and again while the phase is found: the draft is saved all the same."""
    notebook.edit(num_steps=100000, phase_iterations=4000)
    for cell in notebook.cells[: notebook.cells.index(notebook.cell(BACK))]:
        notebook.execute(cell.source, watch=Stops(notebook, "style conv_2="))
    threading.Timer(1.0, notebook.interrupt).start()
    with pytest.raises(CellError, match="KeyboardInterrupt"):
        notebook.run(BACK)
    (stem,) = reports(tmp_path)
    assert stem == "test-001-draft" and np.abs(sound(tmp_path, stem)).max() > 0.01
    notebook.run(PAIRS, REFINE, SAVE)  # the step counts as made, so that the next one goes on
    assert list(reports(tmp_path)) == ["test-001"]
    assert not list((tmp_path / "outputs").glob("*draft*"))


def test_two_interrupts_end_a_long_reconstruction(notebook, tmp_path):
    """The image is kept: with fewer iterations, the cell makes the sound."""
    notebook.edit(phase_iterations=10**4)
    for cell in notebook.cells[: notebook.cells.index(notebook.cell(BACK))]:
        if "analysis.reconstruct(" not in cell.source:
            notebook.execute(cell.source)
    for seconds in (1.0, 2.0):
        threading.Timer(seconds, notebook.interrupt).start()
    with pytest.raises(CellError, match="KeyboardInterrupt"):
        notebook.run(BACK, timeout=60)
    assert not reports(tmp_path)
    notebook.edit(phase_iterations=8)
    notebook.run(SETTINGS, CHECKED, BACK)
    assert list(reports(tmp_path)) == ["test-001-draft"]


def test_an_interrupted_refinement_is_saved(notebook, tmp_path):
    notebook.edit(refine_steps=100000)
    notebook.run_all(watch=Stops(notebook, "refine 1/1:"))
    (report,) = reports(tmp_path).values()
    assert report["settings"]["refine_steps"] < 100000 and np.abs(sound(tmp_path, "test-001")).max() > 0.01


# Sweeps ------------------------------------------------------------------------------------------


def children(folder):
    """Processes of a sweep in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if "support.desk.terminal" in " ".join(process.info["cmdline"] or []) and process.info["cwd"] == str(folder):
            found.append(process)
    return found


def wait_for(condition, seconds):
    for _ in range(10 * seconds):
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_own_settings_are_kept_and_swept(tmp_path):
    """In the json, in the cells, and in every run of a sweep that the settings cell asks for, each of which is made."""
    with quick(tmp_path, sweep={"my_weight": [1.0, 3.0]}, num_steps=2) as notebook:
        notebook.cell(SETTINGS).source += "\nmy_weight = 2.0\nmy_note = {'low': [1, 2]}"
        notebook.replace(LOSSES, "settings.rhythm_weight", "settings.my_weight")
        notebook.save()
        notebook.run_all(timeout=600)
        assert not children(tmp_path)
        assert notebook.execute("print(settings.my_weight, settings.my_note)").strip() == "2.0 {'low': (1, 2)}"
        notebook.cell(SETTINGS).source = notebook.cell(SETTINGS).source.replace("my_weight = 2.0", "my_weight = 4.0")
        notebook.run(SETTINGS)
        said = notebook.run(CHECKED)
    assert (
        said.startswith("'The losses' was made with own={'my_weight': 2.0,") and "run again from 'The losses'" in said
    )
    found = sorted(reports(tmp_path).values(), key=lambda report: report["settings"]["own"]["my_weight"])
    assert [report["settings"]["own"] for report in found] == [
        {"my_weight": weight, "my_note": {"low": [1, 2]}} for weight in (1.0, 2.0, 3.0)
    ]
    for report, weight in zip(found, (1.0, 2.0, 3.0), strict=True):
        assert [each[2] for each in report["used"]["terms"] if "RhythmLoss" in each[0]] == [weight]
        assert report["settings"]["num_steps"] == 2
    with pytest.warns(UserWarning, match="cells of the notebook made terms"):
        loaded = saving.load_settings(tmp_path / "outputs/test-001.json")
    assert loaded.my_weight == 2.0 and not loaded.sweep


@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_the_runs_of_a_sweep_end_with_the_sweep(end, tmp_path):
    with quick(tmp_path, sweep={"seed": [0, 1, 2, 3]}, num_steps=100000) as notebook:
        notebook.save()
        notebook.run("import audiocnn", SETTINGS, CHECKED)
        pressed = threading.Thread(target=lambda: (wait_for(lambda: len(children(tmp_path)) == 2, 60), stop()))

        def stop():
            time.sleep(2)  # well into their runs
            if end == "interrupt":
                notebook.interrupt()
            else:
                psutil.Process(notebook.manager.provisioner.pid).kill()

        pressed.start()
        if end == "interrupt":
            notebook.run(SWEEP)  # the cell ends with one line, see grid.follow_sweep
        else:
            with pytest.raises(Exception, match=r"(?i)died|timeout|dead"):
                notebook.run(SWEEP, timeout=15)
        pressed.join()
        assert wait_for(lambda: not children(tmp_path), 10)
        time.sleep(1)
        assert not children(tmp_path) and not reports(tmp_path)


def test_a_run_of_a_sweep_never_sweeps_and_is_what_was_asked(tmp_path):
    """Also where a cell behind the settings sets a sweep, and a value that the sweep varies: that is reported."""
    sweep = {"num_steps": [1, 2]}
    with quick(tmp_path, sweep=sweep) as notebook:
        scratch = "sweep = {'num_steps': [1, 2]}\nnum_steps = 2"
        code = notebook.notebook.cells.index(notebook.cell(CHECKED)) - 1
        notebook.notebook.cells.insert(code, nbformat.v4.new_code_cell(scratch))
        notebook.save()
        notebook.run("import audiocnn", SETTINGS, CHECKED)
        printed = notebook.run(SWEEP)
    assert printed.count("failed: the run was made with num_steps=2; does a cell of the notebook set this?") == 1
    assert len(reports(tmp_path)) == 2 and not children(tmp_path)


# Smaller traps -----------------------------------------------------------------------------------


def test_an_edited_loss_class_is_another_sum(notebook, tmp_path):
    loss = "class MyLoss(audiocnn.Loss):\n    kind = 'mine'\n    def distance(self, features, target):\n"
    loss += "        return FACTOR * features.square().mean()"
    notebook.run("import audiocnn")
    notebook.execute(loss.replace("FACTOR", "1.0"))
    notebook.replace(
        LOSSES, "(rhythm.RhythmLoss(), beat.weight, settings.rhythm_layers)", "(MyLoss(), 1.0, {'conv_1': 1.0})"
    )
    notebook.run_all()
    notebook.execute(loss.replace("FACTOR", "7.0"))
    notebook.run(LOSSES)
    with pytest.raises(CellError, match="'The losses' was run or changed after 'The start'"):
        notebook.run(OPTIMISE)
    notebook.run_all(START)
    values = [report["losses"][0]["mine conv_1"] for report in reports(tmp_path).values()]
    assert values[1] > 2 * values[0]
    sources = [report["used"]["own_code"]["MyLoss"].rstrip() for report in reports(tmp_path).values()]
    assert sources == [loss.replace("FACTOR", factor) for factor in ("1.0", "7.0")]


def test_a_setting_whose_line_is_gone_has_no_value(notebook):
    notebook.run("import audiocnn", SETTINGS, CHECKED)
    cell = notebook.cell(SETTINGS)
    cell.source = cell.source.replace("\nseed = 0", "\n# seed = 0")
    notebook.run(SETTINGS)
    with pytest.raises(CellError, match="ValueError: the settings cell has no line for seed; add seed = 0"):
        notebook.run(CHECKED)


@pytest.mark.parametrize("name", [STFT, CQT])
def test_no_cell_sets_a_setting(name):
    """Otherwise the check of the settings, run again, would take what a later cell left."""
    names = set(DEFAULTS) - {"transform"}
    cells = [cell.source for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code"]
    for cell in cells:
        if SETTINGS not in cell:
            stored = [
                n.id for n in ast.walk(ast.parse(cell)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            ]
            assert not names & set(stored), cell


def test_files_that_are_gone_are_saved_again_and_names_are_true(tmp_path):
    with Notebook(tmp_path, duration=1.0) as notebook:
        check_names(notebook, tmp_path)


def check_names(notebook, tmp_path):
    notebook.run_all()
    shutil.rmtree(tmp_path / "outputs")
    notebook.run_all(SAVE)
    (report,) = reports(tmp_path).values()
    assert report["settings"]["outname"] == "test" and (tmp_path / "outputs/test-001-losses.png").is_file()
    notebook.edit(refine_steps=3, outname="other")
    notebook.run(SETTINGS, CHECKED, BACK)
    notebook.edit(outname="third")
    notebook.run(SETTINGS, CHECKED, REFINE, SAVE)
    found = {stem: report["settings"]["outname"] for stem, report in reports(tmp_path).items()}
    assert found == {"test-001": "test", "third-001": "third"}


def test_a_start_that_is_gone_does_not_cost_the_sound(notebook, tmp_path):
    notebook.run_all()
    notebook.edit(start="outputs/test-001.wav")
    notebook.run(SETTINGS, CHECKED)
    notebook.run_all(START)
    (tmp_path / "outputs/test-001.wav").unlink()
    notebook.run_all(BACK)
    assert reports(tmp_path)["test-003"]["settings"]["start"] == "outputs/test-001.wav"


def test_nothing_is_overwritten_by_another_process(tmp_path):
    """Two results under one name, the second made while the first was a draft and its files were tidied away."""
    settings, samples = Settings(outname="r"), torch.sin(torch.arange(9000.0))
    first, second = (pipeline.Result(0, samples, samples=samples * level, settings=settings) for level in (0.5, 0.1))
    saving.save_result(first, used={}, draft=True, folder=tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    saving.save_result(second, used={}, folder=tmp_path)
    saving.save_result(first, used={}, folder=tmp_path)
    peaks = [np.abs(soundfile.read(tmp_path / f"r-00{n}.wav")[0]).max() for n in (1, 2)]
    np.testing.assert_allclose(peaks, [0.1, 0.5], atol=1e-3)
    with pytest.raises(FileExistsError, match=r"r-001.wav exists already"):
        saving.save_run(tmp_path / "r-001", np.ones(9), 22050, dict(settings=settings.plain(), losses=[], used={}))


def test_settings_of_numpy_and_pathlib_come_back_from_json(tmp_path):
    settings = Settings(widths=list(2 ** np.arange(3)), filters=np.int64(8), STYLE_FILENAME=ROOT / "a.wav")
    saving.save_run(tmp_path / "x-001", np.ones(9), 22050, dict(settings=settings.plain(), losses=[], used={}))
    assert saving.load_settings(tmp_path / "x-001.json") == settings


def test_the_pipeline_needs_the_custom_network():
    with pytest.raises(ValueError, match="use_style_net=True: pass your network too"):
        pipeline.synthesise(Settings(use_style_net=True), {"style 1": np.random.default_rng(0).normal(0, 0.1, 9000)})
