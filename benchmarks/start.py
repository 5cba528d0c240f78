"""How long the first cells of a notebook take: python benchmarks/start.py.

Executes the STFT notebook's cells as far as the first picture, in a new kernel each time. The first execution after
an installation reads all files from the disk; "warm" is the shortest of the later ones.
"""

import datetime

import nbformat
from nbclient import NotebookClient

from report import ROOT, write_section

CELLS = {
    "imports": "import audiocnn",
    "first sound (loads, resamples)": 'record.step("Listen',
    "first picture (STFT)": "plot_spectrograms(spectrograms, transform)",
}


def measure():
    """Return the seconds of each of the CELLS, and of all cells up to the first picture."""
    notebook = nbformat.read(ROOT / "neural_style_audio_pretrained.ipynb", as_version=4)
    last = next(number for number, cell in enumerate(notebook.cells) if CELLS["first picture (STFT)"] in cell.source)
    notebook.cells = [cell for cell in notebook.cells[: last + 1] if cell.cell_type == "code"]
    NotebookClient(notebook, record_timing=True, resources={"metadata": {"path": str(ROOT)}}).execute()
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
    first, *later = [measure() for _ in range(4)]
    rows = ["| cells | first time [s] | warm [s] |", "|---|---|---|"]
    for name, took in first.items():
        rows.append(f"| {name} | {took:.1f} | {min(each[name] for each in later):.1f} |")
    write_section("start", rows)


if __name__ == "__main__":
    main()
