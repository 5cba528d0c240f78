"""Time and peak memory over the length of the sound: python benchmarks/scale.py.

The STFT notebook with its defaults and all its cells, on a style of each length, with fewer steps: 22 on the
spectrogram, and 22 on the samples.
"""

import os
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import soundfile
from nbclient import NotebookClient

from report import ROOT, write_section

LENGTHS = (5, 30, 60, 300)  # seconds
STEPS = 22  # one draw of random filters, after which the memory of L-BFGS is full, and the beginning of the next
PEAK = "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)"  # of the kernel, Linux


def measure(seconds):
    """Return the time [s] of the notebook and the peak memory of its kernel [GB]."""
    notebook = nbformat.read(ROOT / "neural_style_audio_pretrained.ipynb", as_version=4)
    settings = dict(STYLE_FILENAME="style.wav", offset=0.0, duration=None, num_steps=STEPS, refine_steps=STEPS)
    (typed,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    typed.source += "".join(f"\n{name} = {value!r}" for name, value in settings.items())
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))
    samples, rate = soundfile.read(ROOT / "samples/fire.flac")
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "style.wav", np.resize(samples, seconds * rate), rate)
        began = time.perf_counter()
        client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}})
        client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
        took = time.perf_counter() - began
    return took, float(notebook.cells[-1].outputs[0].text)


def main():
    """Measure every length, and write the table."""
    rows = ["| sound [s] | time [s] | time / sound | peak memory [GB] |", "|---|---|---|---|"]
    for seconds in LENGTHS:
        took, peak = measure(seconds)
        rows.append(f"| {seconds} | {took:.0f} | {took / seconds:.2f} | {peak:.2f} |")
        print(rows[-1], flush=True)
    write_section("scale", rows)


if __name__ == "__main__":
    main()
