"""A notebook in a kernel of its own, whose cells a test runs in any order, as people do."""

import re
from pathlib import Path

import jupyter_client
import nbformat

ROOT = Path(__file__).parents[1]
STFT, CQT = "neural_style_audio_pretrained.ipynb", "neural_style_audio_cqt.ipynb"
SMALL = dict(filters=16, widths=[1, 8], num_steps=4, refine_steps=2, duration=2.0, phase_iterations=8)
# Cells by a part of their source.
SETTINGS, CHECKED, LISTEN = "steps.typed()", "Settings.of(", 'step("Listen'
TRANSFORM = 'step("The transform'
SPECTROGRAMS, NETWORK, LOSSES, START = 'step("Spectrograms', 'step("The network', "sums = [", 'step("The start'
OPTIMIZER, PAIRS = "optimizer = audiocnn.lbfgs  # of the image", "def pairs_of"
OPTIMISE, BACK, REFINE, SAVE = 'step("Optimisation', 'step("Back', 'step("Refine', "stem = saving.save_result"
RESULT, SWEEP = "outputs = {show", "follow_sweep"


def sample(name):
    """Path of a recording of samples/."""
    return str(ROOT / f"samples/{name}.flac")


class CellError(Exception):
    """A cell raised: the name and the message of the error."""


class Notebook:
    """A notebook and its kernel; a context manager that ends the kernel."""

    def __init__(self, folder, name=STFT, *, pictures=True, **settings):
        self.folder, self.path, self.last_output = Path(folder), Path(folder) / name, ""
        self.notebook = nbformat.read(ROOT / name, as_version=4)
        if not pictures:  # they take seconds
            self.notebook.cells = [cell for cell in self.notebook.cells if "pictures.plot_" not in cell.source]
        self.cells = [cell for cell in self.notebook.cells if cell.cell_type == "code"]
        self.edit(**SMALL | dict(STYLE_FILENAME=sample("fire"), outname="test") | settings)

    def __enter__(self):
        self.manager, self.client = jupyter_client.manager.start_new_kernel(
            cwd=str(self.folder), extra_arguments=["--HistoryManager.enabled=False"]
        )
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def edit(self, **settings):
        """Change lines of the settings cell."""
        cell = self.cell(SETTINGS)
        for name, value in settings.items():
            cell.source, count = re.subn(rf"(?m)^{name} = .*$", lambda _, n=name, v=value: f"{n} = {v!r}", cell.source)
            assert count == 1, name

    def replace(self, text, old, new):
        """Change a part of the cell whose source holds a text, as a person edits it."""
        cell = self.cell(text)
        assert cell.source.count(old) == 1, old
        cell.source = cell.source.replace(old, new)

    def save(self):
        """Write the notebook's file, as the sweep reads it."""
        nbformat.write(self.notebook, self.path)

    def cell(self, text):
        """Return the code cell whose source holds a text."""
        (found,) = [cell for cell in self.cells if text in cell.source]
        return found

    def run(self, *texts, watch=None, timeout=300):
        """Run cells by a part of their source; watch gets each output as it comes. Returns all they printed."""
        printed = ""
        for text in texts:
            printed += self.execute(self.cell(text).source, watch=watch, timeout=timeout)
        return printed

    def run_all(self, start=None, *, watch=None, timeout=300):
        """Run all cells, or those from one on; stops at the first error, as Run All does."""
        first = self.cells.index(self.cell(start)) if start else 0
        printed = ""
        for cell in self.cells[first:]:
            printed += self.execute(cell.source, watch=watch, timeout=timeout)
        return printed

    def execute(self, source, *, watch=None, timeout=300):
        """Run code, return what it printed; CellError if it raised."""
        self.last_output = ""

        def hook(message):
            content = message["content"]
            text = content.get("text") or content.get("data", {}).get("text/plain", "")
            self.last_output += text
            if watch is not None:
                watch(text)

        reply = self.client.execute_interactive(source, output_hook=hook, timeout=timeout, allow_stdin=False)
        if reply["content"]["status"] != "ok":
            raise CellError(f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}")
        return self.last_output

    def interrupt(self):
        """Press Stop."""
        self.manager.interrupt_kernel()
