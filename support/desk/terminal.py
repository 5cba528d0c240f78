"""What make does in a terminal: python -m support.desk.terminal NOTEBOOK OUTPUT executes a notebook.

Without arguments: compile what is compiled once, so that the notebooks' first cells don't have to wait.
"""

import io
import sys
from pathlib import Path

from support import pipeline
from support.desk import pictures, sweeps
from support.desk.settings import Settings


def prepare():
    """Run every function once that numba compiles and keeps, librosa's too, and let matplotlib list the fonts."""
    for transform in ("stft", "cqt"):
        settings = Settings(transform=transform, duration=3.0, filters=1, widths=(1,), num_steps=0, refine_steps=0)
        analysis, samples = settings.make_analysis(), pipeline.synthesise(settings)
        pictures.plot_spectrograms({"": analysis.spectrogram(samples)}, analysis.transform).savefig(io.BytesIO())


if __name__ == "__main__":
    if sys.argv[1:]:
        Path(sys.argv[2]).parent.mkdir(parents=True, exist_ok=True)
        sweeps.execute(*sys.argv[1:])
    else:
        prepare()
