"""A notebook executed in a terminal, as `make run` does."""

import shutil
import subprocess
import sys

import nbformat
import numpy as np
import papermill
import pytest
from kernel import CQT, ROOT, STFT

from cells import CHANGED, OPTIMISATIONS, code_cells
from support.desk import terminal


def write(path, *sources):
    """Write a notebook; sources that begin with # are markdown."""
    kinds = (nbformat.v4.new_markdown_cell if s.startswith("#") else nbformat.v4.new_code_cell for s in sources)
    cells = [make(source) for make, source in zip(kinds, sources, strict=True)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_what_cells_print_is_shown_and_the_notebook_is_written(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    bar = "import sys\nfrom tqdm import tqdm\nfor _ in tqdm(range(3), desc='optimise', file=sys.stdout):\n    pass"
    write(tmp_path / "steps.ipynb", "## The network\n\ntext that is not shown", "print(6 * 7)", "## Optimisation", bar)
    (tmp_path / "outputs").mkdir()
    terminal.execute(tmp_path / "steps.ipynb", tmp_path / "outputs/steps.ipynb")
    shown = capfd.readouterr().out
    places = [shown.index(part) for part in ("42", "optimise: 100%")]
    assert places == sorted(places) and "not shown" not in shown
    executed = nbformat.read(tmp_path / "outputs/steps.ipynb", as_version=4)
    assert executed.cells[1].outputs[0].text == "42\n"
    assert {output.name for output in executed.cells[3].outputs} == {"stdout"}  # stderr is a red box in JupyterLab


def test_the_preparation_compiles_the_phase_for_later_processes(tmp_path):
    """In a copy, so that no file of an earlier run is there."""
    shutil.copytree(ROOT / "support", tmp_path / "support", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "audiocnn.py", tmp_path)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    subprocess.run([sys.executable, "-m", "support.desk.terminal"], cwd=tmp_path, check=True)
    assert list((tmp_path / "support/sound/__pycache__").glob("phase.*.nbc"))


PHASE = """
import numpy, sys
from support.sound import phase
magnitude = numpy.abs(numpy.random.default_rng(0).standard_normal((33, 20))).astype(numpy.float32)
numpy.save(sys.argv[1], phase.pghi(magnitude, numpy.arange(33) / 64, numpy.full(33, 64), 16))
"""


def test_without_a_folder_for_compiled_code_the_phase_is_the_same(tmp_path, monkeypatch):
    """Where neither the project nor the home can be written, numba finds no locator, as here."""
    for name in ("kept", "not kept"):
        subprocess.run([sys.executable, "-c", PHASE, tmp_path / f"{name}.npy"], cwd=ROOT, check=True)
        monkeypatch.setenv("NUMBA_CACHE_LOCATOR_CLASSES", "IPythonCacheLocator")  # takes no files
    np.testing.assert_array_equal(*(np.load(tmp_path / f"{name}.npy") for name in ("kept", "not kept")))


@pytest.mark.parametrize("name", [STFT, CQT])
def test_the_imports_cell_loads_nothing_heavy(name):
    """Each of these modules takes 0.3 s to 2 s; the cells that need one load it."""
    cells = nbformat.read(ROOT / name, as_version=4).cells
    imports = next(cell.source for cell in cells if "import audiocnn" in cell.source)
    heavy = (
        "numba",
        "nbformat",
        "ipywidgets",
        "papermill",
        "scipy.signal",
        "scipy.fft",
        "scipy.stats",
        "matplotlib.pyplot",
        "librosa.core",
    )
    code = f"{imports}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_the_benchmark_of_the_cells_finds_its_cells():
    sources = [source for _, source in code_cells(ROOT / STFT)]
    for text in (*OPTIMISATIONS, *CHANGED[:2], "steps.accept", "def objective_of"):
        assert sum(text in source for source in sources) == 1, text


def test_a_failing_cell_stops_the_run(tmp_path):
    write(tmp_path / "steps.ipynb", "print(1)", "raise ValueError('the sound is silent')")
    with pytest.raises(papermill.PapermillExecutionError, match="the sound is silent"):
        terminal.execute(tmp_path / "steps.ipynb", tmp_path / "executed.ipynb")
