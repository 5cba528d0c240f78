"""What make does in a terminal: python -m support.terminal NOTEBOOK OUTPUT executes a notebook and shows its steps.

jupyter nbconvert --execute writes the same file, but is silent until the end. Without arguments: compile what is
compiled once, so that the notebooks' first cells don't have to wait.
"""

import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from support import pictures, pipeline
from support.settings import Settings


class Follower(NotebookClient):
    """Executes a notebook, and writes its headings and what its cells print to standard error."""

    def process_message(self, msg, cell, cell_index):
        """Show what a cell prints, before it becomes an output of the notebook."""
        if msg["msg_type"] == "stream":
            _show(msg["content"]["text"])
        return super().process_message(msg, cell, cell_index)


def execute(source, target):
    """Execute a notebook in the folder of its file, and write it with its outputs to another file."""
    source, target = Path(source), Path(target)
    notebook = nbformat.read(source, as_version=4)
    settings = dict(timeout=None, coalesce_streams=True, on_cell_start=_show_heading)
    Follower(notebook, resources={"metadata": {"path": source.resolve().parent}}, **settings).execute()
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def prepare():
    """Run every function once that numba compiles and keeps, librosa's too, and let matplotlib list the fonts."""
    for transform in ("stft", "cqt"):
        settings = Settings(transform=transform, duration=3.0, filters=1, widths=(1,), num_steps=0, refine_steps=0)
        samples = pipeline.synthesise(settings)
        spectrograms, _ = pipeline.make_images(settings, {"style 1": samples})
        pictures.plot_spectrograms(spectrograms, settings.make_transform()).savefig(io.BytesIO())


def _show_heading(cell, cell_index):
    lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
    _show("".join(f"\n{line.lstrip('# ')}\n" for line in lines if line.startswith("#")))


def _show(text):
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    execute(*sys.argv[1:]) if sys.argv[1:] else prepare()
