"""Many runs of a notebook, each in a process of its own that can't outlive the process that began it.

Conventions
  report   a dict with "outname" and "settings" of a run, and "failed", the error's last line, if it did not end well
  threads  processor threads of a run; None: all
"""

import collections
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import nbformat
import psutil

from support.record import plain
from support.settings import NO_STEP

ROOT = Path(__file__).parents[1]


def run_sweep(settings):
    """Run the settings' notebook once for every combination of the values in sweep; yield reports, see run_notebooks.

    Every run gets the settings as typed, so that its own recipe fills in what is None.
    """
    fixed = {name: value for name, value in settings.given.items() if name not in (*NO_STEP, "transform")}
    points = [fixed | point for point in settings.points()]
    return run_notebooks(settings.notebook, points, outname=settings.outname, n_jobs=settings.n_jobs)


def run_notebook(path, *, outname, threads=None, **settings):
    """Execute a notebook in a process of its own with other settings, unless it has been done before.

    The notebook never sweeps in there, whatever its file says. The process ends when the calling one does.

    Parameters
    ----------
    path : str or Path
        A notebook whose settings cell is tagged "parameters"; it runs in its own folder.
    outname : str
        Name of the result; a hash of settings and code is added, so that the same call finds its result again.
    threads : int
        Processor threads of the run; None: all.
    settings : numbers, strings, None, and lists and dicts of them
        Override the notebook's.

    Returns
    -------
    report : dict
        "outname" and "settings", and "failed", the error's last line, where the run did not end well; all that the
        run printed is then in outputs/OUTNAME.log.
    """
    (report,) = run_notebooks(path, [settings], outname=outname, threads=threads)
    return report


def run_notebooks(path, points, *, outname, n_jobs=1, threads=None):
    """Run a notebook for every dict of settings; yield the report of each run as it ends, see run_notebook.

    n_jobs run at once, by default on all threads; -1: one for each core, on one thread each. An interrupt ends them.
    """
    if n_jobs == -1:
        n_jobs, threads = joblib.cpu_count(), threads or 1
    jobs = collections.deque(_Job(Path(path).resolve(), outname, point, threads) for point in points)
    running = []
    try:
        while jobs or running:
            while jobs and len(running) < n_jobs:
                running.append(jobs.popleft())
                running[-1].begin()
            for job in [job for job in running if job.has_ended()]:
                running.remove(job)
                yield job.report
            time.sleep(0.05)
    finally:
        for job in running:
            job.kill()


class _Job:
    # A run of a notebook in a process of its own.

    def __init__(self, path, outname, settings, threads):
        self.path, self.threads, self.process = path, threads, None
        notebook = nbformat.read(path, as_version=4)
        tagged = ["parameters" in cell.metadata.get("tags", []) for cell in notebook.cells]
        if not any(tagged):
            raise ValueError(f"{path} has no cell tagged 'parameters'; tag its settings cell")
        cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        others = [c.source for c, tag in zip(notebook.cells, tagged, strict=True) if c.cell_type == "code" and not tag]
        text = json.dumps([others, plain_settings(settings)], sort_keys=True)
        name = f"{outname}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        self.report = {"outname": name, "settings": settings}
        source = "\n".join(f"{key} = {value!r}" for key, value in plain_settings(settings).items())
        settings_cell = notebook.cells[tagged.index(True)].source
        self.cells = cells[: cells.index(settings_cell) + 1]
        self.cells += [f"{source}\noutname, sweep, refresh = {name!r}, {{}}, 0", *cells[len(self.cells) :]]
        self.log = path.parent / "outputs" / f"{name}.log"

    def begin(self):
        if list(self.log.parent.glob(f"{self.report['outname']}-[0-9][0-9][0-9].json")):
            return
        self.log.parent.mkdir(exist_ok=True)
        environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        environment |= {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        command = [sys.executable, "-c", f"from support import sweeps; sweeps.run_cells({os.getpid()})"]
        with self.log.open("wb") as log:
            settings = dict(cwd=self.path.parent, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
            # In a session of its own, where the interrupt of this process does not reach it.
            self.process = subprocess.Popen(command, start_new_session=True, **settings)
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
            pipe.write(json.dumps(self.cells).encode())

    def has_ended(self):
        if self.process is None:
            return True
        if self.process.poll() is None:
            return False
        if self.process.returncode == 0:
            self.log.unlink(missing_ok=True)
        else:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            killed = f"the process died with code {self.process.returncode}"
            self.report["failed"] = killed if self.process.returncode < 0 or not lines else lines[-1]
        return True

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.log.unlink(missing_ok=True)


def plain_settings(settings):
    """Return settings by name with plain lists and dicts for values, as JSON has them."""
    return {name: plain(value) for name, value in settings.items()}


def run_cells(parent):
    """Run the cells that come as JSON on standard input; the whole process ends with the process called parent."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}), colors="nocolor")
    for cell in json.loads(sys.stdin.buffer.read()):
        error = shell.run_cell(cell, silent=True)
        error = error.error_before_exec or error.error_in_exec
        if error is not None:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)


def _end_with(parent):
    while psutil.pid_exists(parent) and (os.name == "nt" or os.getppid() == parent):
        time.sleep(1)
    os._exit(1)
