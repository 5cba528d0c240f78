"""Many runs: notebooks with other settings, sweeps, and going on from an earlier result."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types

import distributed
import joblib
import numpy as np
import papermill
import pytest
import soundfile
from kernel import ROOT, STFT, sample
from test_notebooks import BANDS, EXCERPT

from support.desk import grid, sweeps
from support.desk.settings import Settings
from support.desk.sweeps import run_notebooks

SETTINGS = "outname = None\nsweep = {}"  # that every run gets
SMALL = EXCERPT | BANDS | dict(recipe="bands", STYLE_FILENAME=sample("fire"), widths=[1, 8], duration=1.0)


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return shutil.copy(ROOT / STFT, tmp_path)


def runs_of(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "outputs").glob("*.json"))}


def test_a_sweep_survives_a_failing_run_and_goes_on(notebook, tmp_path):
    """The notebook sweeps itself: two runs succeed, one names a layer that isn't there; again, only that is tried."""
    sweep = dict(style_layers_default=[["conv_1"], ["relu_7"], ["conv_2"]])
    settings = SMALL | dict(sweep=sweep, num_steps=3)
    executed = papermill.execute_notebook(
        notebook, tmp_path / "executed.ipynb", parameters=settings, cwd=tmp_path, progress_bar=False
    )
    text = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
    assert text.count(" failed: ") == 1 and "there is no layer 'relu_7'" in text
    runs = runs_of(tmp_path)
    assert len(runs) == 3  # the notebook's own, and two of the sweep
    layers = [list(report["settings"]["style_layers_default"]) for report in runs.values()]
    assert sorted(map(str, layers)) == ["['conv_1']", "['conv_2']", "['conv_2']"]
    (cell,) = [cell for cell in executed.cells if "follow_sweep" in cell.source]
    assert not [output for output in cell.outputs if output.get("name") == "stderr"]  # which Jupyter shows in red
    progress, grid = (output.data["text/html"] for output in cell.outputs if output.output_type == "display_data")
    assert "3 of 3 runs have ended" in progress and re.findall("<td>(done|failed)</td>", progress).count("done") == 2
    assert grid.count("<audio") == 2 and grid.count("failed: ") == 1  # those of the sweep alone
    (log,) = (tmp_path / "outputs").glob("*.log")  # all that the failing run printed
    assert "there is no layer 'relu_7'" in log.read_text() and f"(all that the run printed: outputs/{log.name})" in text
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").iterdir() if path.stem != log.stem}
    papermill.execute_notebook(
        notebook, tmp_path / "executed.ipynb", parameters=settings, cwd=tmp_path, progress_bar=False
    )
    assert len(runs_of(tmp_path)) == 4  # the notebook's own again, and nothing else
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())


def test_runs_are_made_again_where_the_code_changed(tmp_path):
    """Other settings in the settings cell change nothing, since each run brings its own; other cells do."""
    save = "import pathlib\npathlib.Path('outputs', f'{outname}-001.json').write_text(str(value))"
    for number, (settings, code) in enumerate([("value = 1", save), ("value = 2", save), ("value = 1", save + "\n")]):
        write_notebook(tmp_path / "job.ipynb", [("parameters", f"{settings}\n{SETTINGS}"), ("rest", code)])
        report = sweeps.run_notebook(tmp_path / "job.ipynb", outname="x", value=7)
        assert "failed" not in report and report["outname"] == ["x-value7", "x-value7", "x-value7-v2"][number]
        assert len(list((tmp_path / "outputs").glob("x-*-001.json"))) == [1, 1, 2][number]
    write_notebook(tmp_path / "job.ipynb", [("parameters", f"value = 2\n{SETTINGS}"), ("rest", save)])
    report = sweeps.run_notebook(tmp_path / "job.ipynb", outname="x", value=7)  # the code of before finds its run
    assert report == {"outname": "x-value7", "settings": {"value": 7}, "progress": "made earlier"}


def test_a_killed_process_is_a_failing_run(tmp_path):
    notebook = tmp_path / "dies.ipynb"
    write_notebook(
        notebook,
        [
            ("parameters", SETTINGS),
            ("rest", "import os, time\nprint('the last words', flush=True)\ntime.sleep(2)\nos.kill(os.getpid(), 9)"),
        ],
    )
    report = sweeps.run_notebook(notebook, outname="dead", threads=1)
    assert "Kernel died" in report["failed"] and report["outname"] == "dead"
    (log,) = (tmp_path / "outputs").glob("*.log")
    assert "the last words\n" in log.read_text() and str(log) in report["failed"]


def test_the_progress_of_every_run(tmp_path):
    """Two runs, one at a time: each waits, shows its own bar as the bar stands, and ends; a third was made earlier."""
    steps = "import time\nfrom tqdm import tqdm\nfor _ in tqdm(range(40), desc=f'run {value}', mininterval=0.1):"
    steps += "\n    time.sleep(0.1)\nimport pathlib\npathlib.Path('outputs', f'{outname}-001.json').touch()"
    write_notebook(tmp_path / "job.ipynb", [("parameters", f"value = 0\n{SETTINGS}"), ("rest", steps)])
    sweeps.run_notebook(tmp_path / "job.ipynb", outname="x", value=3)
    seen = []
    points = [dict(value=value) for value in (1, 2, 3)]
    how = dict(outname="x", watch=lambda reports: seen.append([report["progress"] for report in reports]))
    reports = list(sweeps.run_notebooks(tmp_path / "job.ipynb", points, **how))
    assert [report["progress"] for report in reports] == ["done", "done", "made earlier"]
    first, second, third = ([moment[run] for moment in seen] for run in range(3))
    bars = [re.fullmatch(r"run 1: .*\| (\d+)/40 \[.*", text) for text in first]
    counts = [int(bar[1]) for bar in bars if bar]
    assert len(set(counts)) > 1 and counts == sorted(counts)
    assert any(re.match("run 2: ", text) for text in second) and not any(text.startswith("run 1") for text in second)
    assert second[0] == "waiting" and set(third) <= {"waiting", "made earlier"} and "done" in first


SAVE = "import json, pathlib\npathlib.Path('outputs', f'{outname}-001.json').write_text(json.dumps([value]))"


def run_job(folder, points, **how):
    """Run a notebook that saves its setting `value` for several points: outname, and what was saved, of each run."""
    write_notebook(folder / "job.ipynb", [("parameters", f"value = 0\nother = 0\n{SETTINGS}"), ("rest", SAVE)])
    reports = list(sweeps.run_notebooks(folder / "job.ipynb", points, **dict(outname="x") | how))
    assert not [report["failed"] for report in reports if "failed" in report]
    saved = {path.stem.removesuffix("-001"): path.read_text() for path in (folder / "outputs").glob("*.json")}
    return {report["outname"]: json.loads(saved[report["outname"]])[0] for report in reports}


@pytest.mark.parametrize("number", [0, -2, 1.5, "2"])
def test_a_number_of_runs_at_once_that_can_not_be_is_refused(number, tmp_path):
    """With 0, no run would ever begin."""
    with pytest.raises(ValueError, match=r"n_jobs=.* must be a positive whole number, or -1 for one run on each core"):
        next(run_notebooks(tmp_path / "x.ipynb", [{}], outname="x", n_jobs=number))


def test_runs_are_named_by_their_values_and_never_share_a_name(tmp_path):
    """Paths, lists and long values too; two values whose names are the same get a version."""
    values = [
        10,
        "a b",
        "a_b",
        [1, 8],
        "samples/" + 60 * "long" + "er.wav",
        "samples/" + 61 * "long" + ".wav",
    ]
    found = run_job(tmp_path, [dict(value=value, other=1) for value in values], named=["value"], n_jobs=3)
    assert sorted(map(str, found.values())) == sorted(map(str, values))
    assert {"x-value10", "x-valuea_b", "x-valuea_b-v2", "x-value_1_8"} <= set(found)
    assert max(map(len, found)) <= 50 and len(found) == len(values)


def test_values_of_numpy_and_paths_reach_the_run(tmp_path):
    """With NaN and infinity, and inside of lists and dicts; names and values never become code."""
    evil = "'\"\\\n\nimport pathlib; pathlib.Path('evil').touch()\n#"
    value = [np.float64(0.1), np.int64(3), np.bool_(True), tmp_path / "a", {"b": np.arange(2)}, float("inf"), evil]
    (found,) = run_job(tmp_path, [dict(value=value)]).values()
    assert found == [0.1, 3, True, str(tmp_path / "a"), {"b": [0, 1]}, float("inf"), evil]
    ((name, found),) = run_job(tmp_path, [dict(value=np.float64("nan"))], outname=150 * "n").items()
    assert np.isnan(found) and len(name) <= 150
    for name in ("x = 1\nimport pathlib; pathlib.Path('evil').touch()\ny", "value = other", "", "import os"):
        with pytest.raises(ValueError, match=r"is not a setting"):
            sweeps.run_notebook(tmp_path / "job.ipynb", outname="x", **{name: 1})
    for name in ("../out", "a/b", "/tmp/x", "", ".hidden", 3):
        with pytest.raises(ValueError, match=r"outname=.* must be a file name"):
            sweeps.run_notebook(tmp_path / "job.ipynb", outname=name)
    assert not list(tmp_path.rglob("*evil*")) and {path.name for path in tmp_path.iterdir()} == {"job.ipynb", "outputs"}


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo", "deep", "huge"])
@pytest.mark.parametrize("ending", ["log", "ipynb"])
def test_what_lies_in_the_place_of_a_run_s_files_is_never_overwritten(kind, ending, tmp_path):
    """One report says so, and the other run goes on; a plain file of an earlier run is written again."""
    place, mine = tmp_path / f"outputs/x-value1.{ending}", tmp_path / "mine.txt"
    place.parent.mkdir()
    mine.write_text("a text of mine")
    match kind:
        case "link":
            place.symlink_to(mine)
        case "dangling":
            place.symlink_to(tmp_path / "new.txt")
        case "folder":
            place.mkdir()
        case "fifo":
            os.mkfifo(place)
        case "deep":
            place.write_text(10**5 * "[" + 10**5 * "]")
        case "huge":
            with place.open("wb") as file:
                file.truncate(2**33)
    write_notebook(tmp_path / "job.ipynb", [("parameters", f"value = 0\nother = 0\n{SETTINGS}"), ("rest", SAVE)])
    how = dict(outname="x", named=["value"])
    first, second = sweeps.run_notebooks(tmp_path / "job.ipynb", [dict(value=1), dict(value=2)], **how)
    assert "failed" not in second and mine.read_text() == "a text of mine" and not (tmp_path / "new.txt").exists()
    if kind in ("deep", "huge"):
        assert "failed" not in first and (tmp_path / "outputs/x-value1.ipynb").stat().st_size < 1e6
    else:
        assert re.fullmatch(rf"{place} is a link, a folder or a device; .* outname", first["failed"])
        assert place.is_symlink() or not place.is_file()


def write_notebook(path, cells):
    code = dict(cell_type="code", execution_count=None, outputs=[])
    cells = [code | dict(id=f"c{n}", metadata={"tags": [tag]}, source=text) for n, (tag, text) in enumerate(cells)]
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))


def test_a_notebook_without_settings_cell(tmp_path):
    write_notebook(tmp_path / "plain.ipynb", [("other", "1")])
    with pytest.raises(ValueError, match="has no cell tagged 'parameters'"):
        sweeps.run_notebook(tmp_path / "plain.ipynb", outname="x")


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"[1, 2]", b"3", b"\xff\xfe\x00\x80" * 9, 10**5 * b"[" + 10**5 * b"]", b'{"cells": 3}'],
)
def test_a_file_that_is_not_a_notebook(content, tmp_path):
    (tmp_path / "job.ipynb").write_bytes(content)
    with pytest.raises(ValueError, match=r"job.ipynb is not a notebook .*; give a notebook of this project") as error:
        sweeps.run_notebook(tmp_path / "job.ipynb", outname="x")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("settings", ["value = = 1", "value = (", "value = '\0'", 2000 * "(" + "1" + 2000 * ")"])
def test_a_settings_cell_with_a_fault(settings, tmp_path):
    write_notebook(tmp_path / "job.ipynb", [("parameters", settings)])
    with pytest.raises(ValueError, match=r"job.ipynb is not a notebook .*; give a notebook of this project") as error:
        sweeps.run_notebook(tmp_path / "job.ipynb", outname="x")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2", "x;y", 10**9])
def test_a_number_of_threads_that_can_not_be(threads, tmp_path):
    write_notebook(tmp_path / "job.ipynb", [("parameters", SETTINGS)])
    with pytest.raises(ValueError, match=r"threads=.* must be a whole number of at least 1 and at most 1024"):
        sweeps.run_notebook(tmp_path / "job.ipynb", outname="x", threads=threads)
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_on_a_dask_cluster(tmp_path):
    """Two worker processes, one of which is killed by a run: joblib's Dask backend ends the sweep all the same."""
    source = """
        import json, os, pathlib, signal
        if value == 1 and not pathlib.Path("killed").exists():
            pathlib.Path("killed").touch()
            os.kill(worker, signal.SIGKILL)
            raise SystemExit
        pathlib.Path("outputs").mkdir(exist_ok=True)
        pathlib.Path(f"outputs/{outname}-001.json").write_text(json.dumps(dict(value=value)))
    """
    settings = f"import os\nimport psutil\nvalue = 0\n{SETTINGS}\nworker = psutil.Process(os.getppid()).ppid()"
    write_notebook(tmp_path / "job.ipynb", [("parameters", settings), ("rest", textwrap.dedent(source))])
    cluster = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**cluster) as local, distributed.Client(local):
        jobs = [joblib.delayed(sweeps.run_notebook)(tmp_path / "job.ipynb", outname="d", value=v) for v in range(4)]
        with joblib.parallel_config(backend="dask"):
            reports = joblib.Parallel(prefer="threads")(jobs)
    assert [report for report in reports if "failed" in report] == []
    assert (tmp_path / "killed").exists()
    assert sorted(report["value"] for report in runs_of(tmp_path).values()) == [0, 1, 2, 3]


def test_going_on_from_an_earlier_result(notebook, tmp_path):
    """From its own result, the loss begins about where the first run ended, far below noise."""
    losses = []
    for start in ("noise", "outputs/test-001.wav"):
        papermill.execute_notebook(
            notebook,
            tmp_path / "executed.ipynb",
            parameters=SMALL | dict(start=start, num_steps=12),
            cwd=tmp_path,
            progress_bar=False,
        )
        losses.append([losses["total"] for losses in runs_of(tmp_path)[f"test-00{len(losses) + 1}"]["losses"]])
    assert losses[1][0] < 0.3 * losses[0][0]
    samples, _ = soundfile.read(tmp_path / "outputs/test-002.wav")
    assert np.isfinite(samples).all() and np.abs(samples).max() > 0.01


def in_a_process(line, *, threads):
    """Run a line of Python in a process that begins with so many threads; what it prints, as a number."""
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import numpy as np; from support import pipeline; "
    head += "from support.desk import saving; from support.desk.settings import Settings; "
    head += "from support.sound.files import fit_full_scale; "
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", head + line], env=environment, check=True, capture_output=True)
    return float(done.stdout)


def test_a_run_is_repeated_with_the_threads_that_it_had(tmp_path):
    """Sums of other threads round otherwise: the json holds how many there were, and a repeated run has as many."""
    settings = SMALL | dict(num_steps=10, refine_steps=4, redraw=5, device="cpu", outname="two")
    made = f"saving.save_result(pipeline.run(Settings(**{settings})), used={{}}, folder={str(tmp_path)!r})"
    in_a_process(f"{made}; print(0)", threads=2)
    assert json.loads((tmp_path / "two-001.json").read_text())["settings"]["threads"] == 2
    before = f"import soundfile; before, _ = soundfile.read({str(tmp_path / 'two-001.wav')!r}); "
    before += f"settings = saving.load_settings({str(tmp_path / 'two-001.json')!r}); "
    again = before + "print(np.abs(fit_full_scale(pipeline.synthesise(settings{})) - before).max())"
    assert in_a_process(again.format(""), threads=1) < 1e-4  # the wav has 16 bits
    assert in_a_process(again.format(".changed(threads=1)"), threads=1) > 3e-4  # otherwise this test shows nothing


@pytest.mark.parametrize(
    ("ran", "refused"),
    [
        ([], False),
        (["def make(seed):\n    return 1"], False),  # the cell of the file
        (["def make(seed):\n    return 2"], True),  # an edit that is not saved, or a copy
        (["def make(seed):\n    return 2", "def make(seed):\n    return 1\n"], False),  # the edit was taken back
        (["def make(seed):\n    return 1", "def make(seed):\n    return 2"], True),
        (['with steps.step("The losses"):\n    terms = [1]'], False),
        (['with steps.step("The losses"):\n    terms = [2]'], True),
        (["def another():\n    pass", "%matplotlib inline", "display(1)", "value = 5"], False),
    ],
)
def test_a_sweep_of_code_that_this_kernel_did_not_run_is_refused(ran, refused, tmp_path, monkeypatch):
    losses, sweep = 'with steps.step("The losses"):\n    terms = [1]', "reports = run_sweep(n_jobs=1)"
    cells = ["def make(seed):\n    return 1", losses, "display(2)", sweep]
    cells = [("parameters", f"seed = 0\n{SETTINGS}"), *(("rest", cell) for cell in cells)]
    write_notebook(tmp_path / "copied.ipynb", cells)
    now = sweep.replace("1", "2")  # what the sweep's own cell says is not a part of a run
    shell = types.SimpleNamespace(user_ns={"In": ["", "seed = 1\nsweep = {'seed': [1, 2]}", *ran, now, now]})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(sweeps, "run_notebooks", lambda path, points, **how: [{"failed": str(points)}])
    run = sweeps.run_sweep(tmp_path / "copied.ipynb", Settings(sweep={"seed": [1, 2]}))
    if refused:
        with pytest.raises(ValueError, match=r"copied.ipynb: this kernel ran another cell than '(def make|with steps)"):
            list(run)
    else:
        assert "'seed': 2" in next(run)["failed"]


def test_a_notebook_that_is_not_there_is_named():
    for run in (sweeps.saved_at, lambda path: sweeps.run_notebook(path, outname="x", seed=1)):
        with pytest.raises(FileNotFoundError, match=r"gone.ipynb is not a file in .* write its name into the line"):
            run("gone.ipynb")


def test_a_sweep_that_is_stopped_says_so_in_one_line_and_keeps_what_was_made():
    def run(watch):
        watch([])
        yield {"outname": "first"}
        raise KeyboardInterrupt

    with pytest.warns(
        UserWarning, match="^the sweep was stopped; run this cell again to make the runs that are missin"
    ):
        assert grid.follow_sweep(run, {"seed": [0, 1]}) == [{"outname": "first"}]
