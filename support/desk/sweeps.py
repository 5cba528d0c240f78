"""Many runs of a notebook, each in a process of its own that can't outlive the process that began it.

Conventions
  report   a dict with "outname" and "settings" of a run, "progress", in words, and "failed" where the run did not end
           well: the error's last line, and the file with all that the run printed
  watch    a function, or None: called about once a second with the reports of all runs, those that run included
  threads  processor threads of a run; None: all
"""

import collections
import contextlib
import glob
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import joblib
import psutil

from support.record import plain
from support.saving import load_settings, uninterrupted
from support.settings import NO_STEP, STEPS, Settings

ROOT = Path(__file__).parents[1]
IN_SWEEP = "NEURAL_STYLE_AUDIO_IN_SWEEP"  # environment variable of every run


def run_sweep(settings, *, watch=None):
    """Run the settings' notebook once for every combination of the values in sweep; yield reports, see run_notebooks.

    Every run gets the settings as typed, so that its own recipe fills in what is None. A run that was made with other
    settings, because a cell of the notebook sets some, is reported as failed. A run of a sweep doesn't sweep.
    """
    if IN_SWEEP in os.environ:
        return
    fixed = {name: value for name, value in settings.given.items() if name not in (*NO_STEP, "transform")}
    points = [fixed | point for point in settings.points()]
    how = dict(outname=settings.outname, n_jobs=settings.n_jobs, watch=watch)
    for report in run_notebooks(settings.notebook, points, **how):
        if "failed" not in report:
            report |= _compare(report, settings)
        yield report


def _compare(report, settings):
    # What failed, if the run that was saved is not the one that was asked for.
    folder = Path(settings.notebook).parent / "outputs"
    paths = sorted(folder.glob(f"{glob.escape(report['outname'])}-[0-9][0-9][0-9].json"))
    with warnings.catch_warnings(action="ignore"):
        asked = Settings(**dict(report["settings"]), transform=settings.transform).of_run(0)
        if not paths:
            return {"failed": f"the run ended and saved nothing in {folder}; does a cell of the notebook set outname?"}
        done = load_settings(paths[0])
    names = [name for step in STEPS.values() for name in step if name != "device"]
    other = [f"{name}={plain(getattr(done, name))!r}" for name in names if getattr(asked, name) != getattr(done, name)]
    return (
        {"failed": f"the run was made with {', '.join(other)}; does a cell of the notebook set this?"} if other else {}
    )


def saved_at(path):
    """Say which file a sweep runs, and when it was saved: cells that were edited later are not in it."""
    moment = time.localtime(Path(path).stat().st_mtime)
    return f"{path}, as it was saved on {time.strftime('%Y-%m-%d at %H:%M:%S', moment)}"


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
        "outname" and "settings", and "failed" where the run did not end well: the error's last line, and the file
        outputs/OUTNAME.log, which holds all that the run printed.
    """
    (report,) = run_notebooks(path, [settings], outname=outname, threads=threads)
    return report


def run_notebooks(path, points, *, outname, n_jobs=1, threads=None, watch=None):
    """Run a notebook for every dict of settings; yield the report of each run as it ends, see run_notebook.

    n_jobs run at once, by default on all threads; -1: one for each core, on one thread each. An interrupt ends them.
    """
    if n_jobs == -1:
        n_jobs, threads = joblib.cpu_count(), threads or 1
    jobs = collections.deque(_Job(Path(path).resolve(), outname, point, threads) for point in points)
    all_jobs, running, watched = list(jobs), [], 0.0
    try:
        while jobs or running:
            while jobs and len(running) < n_jobs:
                running.append(jobs.popleft())
                running[-1].begin()
            for job in [job for job in running if job.has_ended()]:
                running.remove(job)
                yield job.report
            if watch is not None and time.monotonic() > watched + 1:
                for job in running:
                    job.read_progress()
                watch([job.report for job in all_jobs])
                watched = time.monotonic()
            time.sleep(0.05)
    finally:
        with uninterrupted():
            for job in running:
                job.kill()


class _Job:
    # A run of a notebook in a process of its own.

    def __init__(self, path, outname, settings, threads):
        self.path, self.threads, self.process = path, threads, None
        import nbformat  # takes over a second, and only sweeps need it

        notebook = nbformat.read(path, as_version=4)
        tagged = ["parameters" in cell.metadata.get("tags", []) for cell in notebook.cells]
        if not any(tagged):
            raise ValueError(f"{path} has no cell tagged 'parameters'; tag its settings cell")
        cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        others = [c.source for c, tag in zip(notebook.cells, tagged, strict=True) if c.cell_type == "code" and not tag]
        text = json.dumps([others, plain_settings(settings), _files(settings, path.parent)], sort_keys=True)
        name = f"{outname}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        self.report = {"outname": name, "settings": settings, "progress": "waiting"}
        source = "\n".join(f"{key} = {value!r}" for key, value in plain_settings(settings).items())
        settings_cell = notebook.cells[tagged.index(True)].source
        self.cells = cells[: cells.index(settings_cell) + 1]
        self.cells += [f"{source}\noutname, sweep, refresh = {name!r}, {{}}, 0", *cells[len(self.cells) :]]
        self.log = path.parent / "outputs" / f"{name}.log"

    def begin(self):
        if list(self.log.parent.glob(f"{glob.escape(self.report['outname'])}-[0-9][0-9][0-9].json")):
            self.report["progress"] = "made earlier"
            return
        self.log.parent.mkdir(exist_ok=True)
        environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        environment |= {IN_SWEEP: "1", "PYTHONUNBUFFERED": "1"}  # the log of a killed run holds all that was printed
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
            self.report["progress"] = "done"
        else:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            killed = f"the process died with code {self.process.returncode}"
            error = killed if self.process.returncode < 0 or not lines else lines[-1]
            log = self.log.relative_to(Path.cwd()) if self.log.is_relative_to(Path.cwd()) else self.log
            self.report |= {"failed": f"{error} (all that the run printed: {log})", "progress": "failed"}
        return True

    def read_progress(self):
        # The last line that the run printed: while steps are made, the bar, which tqdm writes over and over.
        with self.log.open("rb") as log:
            log.seek(max(self.log.stat().st_size - 5000, 0))
            lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
        self.report["progress"] = next((line.strip() for line in reversed(lines) if line.strip()), "begins")

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.log.unlink(missing_ok=True)


def _files(settings, folder):
    # Hashes of the files that the settings name, and of the modules: with other contents, the runs are others.
    values = [each for value in settings.values() for each in (value if isinstance(value, list | tuple) else [value])]
    paths = [folder / value for value in values if isinstance(value, str) and value]
    paths += [ROOT / "audiocnn.py", *sorted(ROOT.glob("support/*.py"))]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()]


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
