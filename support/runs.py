"""Results and their files: saved whole or not at all, loaded again, and made in many runs of a notebook.

Conventions
  stem     folder and name of a result without suffix, outputs/NAME-001: its files are stem.wav, stem.json, and
           stem-PICTURE.png; stem-draft.wav and .json until the samples are refined
  report   the content of a json file: settings, what was used, versions, level, losses of every step
  history  the losses of every step, a list of dicts from name to number
"""

import collections
import contextlib
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path

import librosa
import nbformat
import numpy as np
import psutil
import soundfile
import torch

from support.record import plain
from support.settings import Settings
from support.transforms import check_samples, fit_full_scale

ROOT = Path(__file__).parents[1]


@dataclass
class Result:
    """One result in the making: the image, then the samples, and the losses on the way."""

    run: int  # from 0; its seed is that of the settings plus this number
    image: torch.Tensor
    history: list = field(default_factory=list)
    samples: torch.Tensor | None = None
    refinement: list = field(default_factory=list)  # the history of the samples
    begun: list = field(default_factory=list)  # steps after which L-BFGS began anew: 0, and after interrupts
    stem: Path | None = None


# 1. Files ----------------------------------------------------------------------------------------


def level(samples):
    """Peak and root mean square of samples, in dB below full scale."""
    peak, rms = np.abs(samples).max(), np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    decibels = 20 * np.log10(np.maximum([peak, rms], 1e-10))
    return {"peak_dbfs": round(float(decibels[0]), 2), "rms_dbfs": round(float(decibels[1]), 2)}


def new_stem(folder, outname):
    """First free path folder/outname-001, -002, ... without suffix, so that no run overwrites another."""
    names = [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []
    number = 1
    while any(name.startswith(f"{outname}-{number:03d}") for name in names):
        number += 1
    return Path(folder) / f"{outname}-{number:03d}"


def save_result(result, settings, *, used, draft=False, folder="outputs"):
    """Save a result's samples and its report under a new number, and return the two paths.

    A draft is saved as stem-draft; the next save of the same result takes its number and removes the draft. The
    report holds the settings that repeat this result alone: its own seed, and the steps that were really done.

    Parameters
    ----------
    result : Result
    settings : Settings
        Those that the result was made with.
    used : dict
        What the settings don't say, such as the networks' layers.
    """
    result.stem = result.stem or new_stem(folder, settings.outname)
    stem = result.stem.with_name(f"{result.stem.name}-draft") if draft else result.stem
    done = dict(num_steps=len(result.history), refine_steps=len(result.refinement))
    samples = fit_full_scale(result.samples.detach().cpu().numpy())
    paths = save_run(
        stem,
        samples,
        settings=settings.of_run(result.run, **done),
        losses=result.history + result.refinement,
        used=used | {"lbfgs_began_after_steps": result.begun},
    )
    if not draft:
        for path in paths:
            path.with_name(path.name.replace(stem.name, f"{stem.name}-draft")).unlink(missing_ok=True)
        result.stem = None  # what is saved later gets a number of its own
    return paths


def save_run(stem, samples, *, settings, losses, used):
    """Write stem.wav (16 bits) and stem.json, each whole or not at all; the json last: where it is, all is saved."""
    check_samples(samples, "the result")
    versions = {"python": platform.python_version(), "torch": torch.__version__, "librosa": librosa.__version__}
    report = dict(settings=_as_dict(settings), used=used, versions=versions, level=level(samples), losses=losses)
    text = json.dumps(report, indent=1, default=str) + "\n"
    sound, description = (stem.with_name(stem.name + ending) for ending in (".wav", ".json"))
    stem.parent.mkdir(parents=True, exist_ok=True)
    rate = settings.sample_rate
    write_whole(sound, lambda path: soundfile.write(path, samples.T, rate, subtype="PCM_16", format="WAV"))
    write_whole(description, lambda path: path.write_text(text))
    return [sound, description]


def _as_dict(settings):
    return {each.name: plain(getattr(settings, each.name)) for each in fields(settings)}


def save_figures(stem, figures):
    """Write figures, a dict from name to Figure, as stem-name.png, each whole or not at all; return the paths."""
    paths = [stem.with_name(f"{stem.name}-{name}.png") for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        write_whole(path, lambda partial, figure=figure: figure.savefig(partial, dpi=100))
    return paths


def write_whole(path, write):
    """Write under another name in the same folder first: a crash or a full disk leaves no half-written file."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def uninterrupted():
    """Hold back interrupts until the block has ended: a second Stop shall not cost the sound that the first kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = []
    before = signal.signal(signal.SIGINT, lambda *_: held.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def load_settings(path):
    """Return the Settings of a saved run, from its json file; running with them repeats the run.

    Settings that earlier versions saved and that exist no more are left out, with a warning if they had an effect.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the json file of a run, such as outputs/NAME-001.json")
    try:
        saved = json.loads(path.read_text())["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the json file of a run ({error!r}); choose one of outputs/") from error
    if "transform" not in saved:  # before there was this name, only the CQT's settings had bins
        saved["transform"] = "cqt" if "bins_per_octave" in saved else "stft"
    names = {each.name for each in fields(Settings)}
    gone = {name: value for name, value in saved.items() if name not in names and name not in ("used", "run")}
    if any(gone.values()):
        warnings.warn(f"{path} has settings that exist no more: {gone}; the result will differ", stacklevel=2)
    settings = Settings(**{name: value for name, value in saved.items() if name in names} | {"sweep": {}})
    return settings.of_run(saved.get("run", 0))


def list_reports(folder="outputs", *, last=20):
    """Return the reports of the last runs saved in a folder, a dict from the json's path to the report."""
    paths = sorted(Path(folder).glob("*.json"), key=lambda path: path.stat().st_mtime)[-last:]
    return {path: json.loads(path.read_text()) for path in paths}


# 2. Many runs ------------------------------------------------------------------------------------


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
        n_jobs, threads = os.cpu_count(), threads or 1
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
        self.cells += [f"{source}\noutname, sweep = {name!r}, {{}}", *cells[len(self.cells) :]]
        self.log = path.parent / "outputs" / f"{name}.log"

    def begin(self):
        if list(self.log.parent.glob(f"{self.report['outname']}-[0-9][0-9][0-9].json")):
            return
        self.log.parent.mkdir(exist_ok=True)
        environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        environment |= {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        command = [sys.executable, "-c", f"from support import runs; runs.run_cells({os.getpid()})"]
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
