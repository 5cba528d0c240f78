"""The time of every cell of a notebook: python benchmarks/cells.py [NOTEBOOK].

The notebook is run twice in one new kernel: all cells, and then, after one weight is changed, the settings cells and
all cells from the step "The losses" on. The time begins when the kernel is started, and the first sound counts when
the cell that shows its player has ended. Nothing is kept: the results go to a folder that is deleted.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from jupyter_client.manager import start_new_kernel

from report import ROOT, write_section

NOTEBOOK = "neural_style_audio_pretrained.ipynb"
OPTIMISATIONS = ('step("Optimisation', 'step("Refine the samples')
CHANGED = ("steps.typed()", "diversity_weight = None", "diversity_weight = 50.0")  # in the settings cell


def code_cells(path):
    """Return the code cells of a notebook, a list of (heading above, source)."""
    heading, found = "", []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            found.append((heading, source))
        else:
            heading = next((line.strip("# ") for line in source.splitlines() if line.startswith("#")), heading)
    return found


def seconds_of(client, source):
    """Run a cell; return its time [s]."""
    began = time.perf_counter()
    reply = client.execute_interactive(source, timeout=1800, output_hook=lambda message: None)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"{reply['content']['evalue']}, in the cell\n{source}")
    return time.perf_counter() - began


def measure(folder):
    """Return the seconds until the kernel is there, and a list of (heading, source, seconds cold, seconds again)."""
    began = time.perf_counter()
    manager, client = start_new_kernel(cwd=str(folder))
    try:
        ready = time.perf_counter() - began
        cells = code_cells(folder / NOTEBOOK)
        first = [seconds_of(client, source) for _, source in cells]
        losses = next(number for number, (_, source) in enumerate(cells) if "def objective_of" in source)
        again = []
        for number, (_, source) in enumerate(cells):
            if CHANGED[0] in source:
                assert CHANGED[1] in source, f"the settings cell has no line {CHANGED[1]!r}"
                source = source.replace(*CHANGED[1:])
            runs = number >= losses or CHANGED[0] in source or "steps.accept" in source
            again.append(seconds_of(client, source) if runs else None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return ready, [(*cell, *times) for cell, *times in zip(cells, first, again, strict=True)]


def main():
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in ("audiocnn.py", "support", "samples", "models", "params"):
            (folder / each).symlink_to(ROOT / each)
        shutil.copy(ROOT / NOTEBOOK, folder)
        ready, rows = measure(folder)
    table = ["| step | first line | at first [s] | after a change [s] |", "|---|---|---|---|"]
    for heading, source, first, again in rows:
        if max(first, again or 0) >= 0.05:
            line = source.strip().splitlines()[0][:60]
            table.append(f"| {heading} | `{line}` | {first:.2f} | {'' if again is None else f'{again:.2f}'} |")
    sound = next(number for number, row in enumerate(rows) if "players.compare" in row[1])
    others = [row for row in rows if not any(each in row[1] for each in OPTIMISATIONS)]
    cold, again = (sum(row[column] or 0 for row in others) for column in (2, 3))
    first = ready + sum(row[2] for row in rows[: sound + 1])
    text = f"The first sound is heard after {first:.1f} s, {ready:.1f} s of them for the kernel. All cells but the "
    text += f"optimisations take {cold:.1f} s at first, and {again:.1f} s after a change."
    write_section("cells", [*table, "", text])


if __name__ == "__main__":
    main()
