"""Time and peak memory over the length of the sound: python benchmarks/scale.py [SECONDS ...].

The STFT notebook with its defaults and all its cells makes a texture of each length (`result_duration`), with fewer
steps: 22 on the spectrogram, and 22 on the samples. Longer than a minute, the sound is made section by section.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import nbformat
import soundfile
from nbclient import NotebookClient

from report import ROOT, write_section

LENGTHS = (5, 30, 300, 1800)  # seconds
STEPS = 22  # after 20, the memory of L-BFGS is full
PEAK = "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)"  # of the kernel, Linux


def measure(seconds):
    """Return the time [s] of the notebook and the peak memory of its kernel [GB]."""
    notebook = nbformat.read(ROOT / "neural_style_audio_pretrained.ipynb", as_version=4)
    settings = dict(STYLE_FILENAME=str(ROOT / "samples/fire.flac"), result_duration=float(seconds), outname="scale")
    settings |= dict(num_steps=STEPS, refine_steps=STEPS)
    (typed,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    typed.source += "".join(f"\n{name} = {value!r}" for name, value in settings.items())
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}})
        client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
        took = time.perf_counter() - began
        (sound,) = [each for each in Path(folder).glob("outputs/*.wav") if soundfile.info(each).duration > seconds - 1]
        print(f"{sound.name}: {soundfile.info(sound).duration:.2f} s", flush=True)
    return took, float(notebook.cells[-1].outputs[0].text)


def main():
    """Measure every length, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", nargs="*", type=int, default=LENGTHS, help="of the sounds")
    lengths = parser.parse_args().seconds
    rows = ["| sound [s] | time [s] | time / sound | peak memory [GB] |", "|---|---|---|---|"]
    for seconds in lengths:
        took, peak = measure(seconds)
        rows.append(f"| {seconds} | {took:.0f} | {took / seconds:.2f} | {peak:.2f} |")
        print(rows[-1], flush=True)
    if lengths == LENGTHS:
        write_section("scale", rows)


if __name__ == "__main__":
    main()
