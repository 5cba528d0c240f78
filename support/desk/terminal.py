"""A notebook in a process of its own: python -m support.desk.terminal NOTEBOOK OUTPUT, for make and for sweeps.

With a third argument, the mark of a sweep's run, the process reads settings as a line of json from standard input, and
it ends when standard input does. Without arguments: compile what is compiled once, so that the notebooks' first cells
don't have to wait. The process imports what its task needs: torch alone takes a second, which every run of a sweep
would pay.
"""

import io
import json
import os
import sys
import threading
from pathlib import Path

MARK = "neural_style_audio"  # of an executed notebook of a sweep: a hash of its settings, code and files


def prepare():
    """Run every function once that numba compiles and keeps, librosa's too, and let matplotlib list the fonts."""
    from support import pipeline
    from support.desk import pictures
    from support.desk.settings import Settings

    for transform in ("stft", "cqt"):
        settings = Settings(transform=transform, duration=3.0, filters=1, widths=(1,), num_steps=0, refine_steps=0)
        analysis, samples = settings.make_analysis(), pipeline.synthesise(settings)
        pictures.plot_spectrograms({"": analysis.spectrogram(samples)}, analysis.transform).savefig(io.BytesIO())


def execute(source, target, parameters=None):
    """Execute a notebook by papermill in the folder of its file, print what its cells print, and write it to target."""
    import papermill  # takes half a second

    papermill.execute_notebook(
        str(source),
        str(target),
        parameters=parameters or {},
        cwd=str(Path(source).resolve().parent),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        stdout_file=sys.stdout,
        stderr_file=sys.stderr,
        coalesce_streams=True,
    )


def execute_with_input(source, target, mark):
    """Execute a notebook with settings from a line of standard input, whose end also ends the process.

    The mark of what the run was made of is written into the executed notebook.
    """
    parameters = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    from papermill import PapermillExecutionError

    try:
        execute(source, target, parameters)
    except PapermillExecutionError as error:  # its last line is a line of code
        sys.stderr.write("\n".join(error.traceback))
        sys.exit(f"\n{error.ename}: {error.evalue}")
    executed, partial = json.loads(Path(target).read_bytes()), Path(f"{target}.partial")
    executed["metadata"][MARK] = mark
    partial.write_text(json.dumps(executed, indent=1))
    partial.replace(target)


def _end_with_input():
    # The system closes the pipe when the process at its other end is gone, whatever ended that process.
    os.read(0, 1)
    os._exit(1)


def main(source=None, target=None, mark=None):
    """Do what the arguments of the command ask for."""
    # jsonschema, which papermill needs, would load a grammar of addresses, 0.7 s, that no notebook uses.
    sys.modules.setdefault("rfc3987_syntax", None)
    if source is None:
        prepare()
    elif mark is None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        execute(source, target)
    else:
        execute_with_input(source, target, mark)


if __name__ == "__main__":
    main(*sys.argv[1:])
