"""How long the first cells of a notebook take: python benchmarks/start.py (Linux, in an environment of its own).

Executes the STFT notebook's cells as far as the first picture, in a new kernel each time: with no file of the
environment in memory and nothing compiled by numba, as after an installation without make; with no file in memory,
as after one with make or a restart; and with everything in memory (the shortest of three).

Processes that use the same environment keep its files in memory: then the first two columns are too short. For that
reason this script loads none of the modules that it measures.
"""

import datetime
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from report import ROOT, write_section

CELLS = {
    "imports": "import audiocnn",
    "first sound (loads, resamples)": 'step("Listen',
    "first picture (STFT)": "plot_spectrograms(spectrograms, transform",
}


def forget():
    """Drop the files of the environment and of the project from memory."""
    for folder in (sys.prefix, ROOT / "support", ROOT / "samples"):
        for path in Path(folder).rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())  # only what is written can be dropped
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(**environment):
    """Return the seconds of each of the CELLS, and of all cells up to the first picture."""
    notebook = nbformat.read(ROOT / "neural_style_audio_pretrained.ipynb", as_version=4)
    last = next(number for number, cell in enumerate(notebook.cells) if CELLS["first picture (STFT)"] in cell.source)
    notebook.cells = [cell for cell in notebook.cells[: last + 1] if cell.cell_type == "code"]
    client = NotebookClient(notebook, record_timing=True, resources={"metadata": {"path": str(ROOT)}})
    client.execute(env=os.environ | environment)
    seconds = [_seconds(cell.metadata.execution) for cell in notebook.cells]
    found = {
        name: next(took for took, cell in zip(seconds, notebook.cells, strict=True) if part in cell.source)
        for name, part in CELLS.items()
    }
    return found | {"all cells to the first picture": sum(seconds)}


def _seconds(times):
    began, ended = (datetime.datetime.fromisoformat(times[name]) for name in ("iopub.status.busy", "iopub.status.idle"))
    return (ended - began).total_seconds()


def main():
    """Measure, and write the table."""
    with tempfile.TemporaryDirectory() as empty:
        forget()
        not_compiled = measure(NUMBA_CACHE_DIR=empty)
        forget()
        from_disk = measure(NUMBA_CACHE_DIR=empty)
        warm = [measure(NUMBA_CACHE_DIR=empty) for _ in range(3)]
    rows = ["| cells | not compiled, from disk [s] | compiled, from disk [s] | from memory [s] |", "|---|---|---|---|"]
    for name in warm[0]:
        shortest = min(each[name] for each in warm)
        rows.append(f"| {name} | {not_compiled[name]:.1f} | {from_disk[name]:.1f} | {shortest:.1f} |")
    write_section("start", rows)


if __name__ == "__main__":
    main()
