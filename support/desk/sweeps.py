"""Many runs of a notebook by papermill, each in a process of its own that can't outlive the process that began it.

Conventions
  report   a dict with "outname" and "settings" of a run, "progress", in words, and "failed" where the run did not end
           well: the error's last line, and the file with all that the run printed
  watch    a function, called about once a second, and at the end, with the reports of all runs
  threads  processor threads of a run; None: all
"""

import ast
import contextlib
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import IPython
import joblib
import psutil

from support.checks import check_number
from support.desk import checks
from support.desk.saving import of_number, read_report, uninterrupted
from support.desk.settings import DEFAULTS, NO_STEP, STEP_OF, plain, typed_with
from support.desk.steps import assigned
from support.desk.terminal import MARK
from support.weights import reason_of

ROOT = Path(__file__).parents[2]
IN_SWEEP = "NEURAL_STYLE_AUDIO_IN_SWEEP"  # environment variable of every run
MOST_BYTES = 2**27  # of an executed notebook; one with a sweep has 15 MB


def run_sweep(notebook, settings, *, n_jobs=-1, watch=lambda reports: None):
    """Run a notebook once for every combination of the values in sweep; yield reports, see run_notebooks.

    Every run gets the settings as typed, so that its own recipe fills in what is None. A run that was made with other
    settings, because a cell of the notebook sets some, is reported as failed. A run of a sweep doesn't sweep.
    ValueError where a cell of the file is not the one that this kernel ran, as in a copy, or before it was saved.
    """
    if IN_SWEEP in os.environ:
        return
    _refuse_other_code(notebook)
    given = plain(settings.given)
    fixed = {name: given[name] for name in typed_with(settings.transform) if STEP_OF[name] != NO_STEP} | given["own"]
    points = [fixed | plain(point) for point in settings.points()]
    reports = run_notebooks(
        notebook,
        points,
        outname=settings.outname,
        named=list(settings.sweep),
        n_jobs=n_jobs,
        watch=watch,
    )
    for report in reports:
        if "failed" not in report:
            asked = settings.changed(sweep={}, **report["settings"])
            report |= _compare(report, asked, Path(notebook).parent / "outputs")
        yield report


def _refuse_other_code(path):
    shell = IPython.get_ipython()
    *ran, now = shell.user_ns["In"] if shell else [""]
    last = {_parts(source): source for source in ran}
    for source in _other_cells(Path(path), {}):
        parts = _parts(source)
        if parts and parts != _parts(now) and last.get(parts, source).rstrip() != source.rstrip():
            raise ValueError(
                f"{path}: this kernel ran another cell than {source.splitlines()[0]!r}: save the notebook; in a copy, "
                "write the name of the copy into the line `notebook = ...` of the cell 'The settings, checked'"
            )


def _parts(source):
    # What a cell makes, by which it is known after an edit: steps, functions, classes, names.
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a command of IPython
        return ()
    made = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return (*re.findall(r'steps\.step\("([^"]+)', source), *made, *assigned(source))


def _compare(report, asked, folder):
    # What failed, if the run that was saved is not the one that was asked for.
    paths = of_number(folder, report["outname"], ".json")
    if not paths:
        return {"failed": f"the run ended and saved nothing in {folder}; does a cell of the notebook set outname?"}
    try:
        asked, done = asked.of_run(0).plain(), read_report(paths[0])["settings"]
    except (OSError, ValueError) as error:
        return {"failed": str(error)}
    names = [name for name in DEFAULTS if STEP_OF[name] != NO_STEP and name not in ("device", "threads")]
    other = [f"{name}={done.get(name)!r}" for name in names if asked[name] != done.get(name)]
    failed = f"the run was made with {', '.join(other)}; does a cell of the notebook set this?"
    return {"failed": failed} if other else {}


def saved_at(path):
    """Say which file a sweep runs, and when it was saved: cells that were edited later are not in it."""
    _check_notebook(path)
    moment = time.localtime(Path(path).stat().st_mtime)
    return f"{path}, as it was saved on {time.strftime('%Y-%m-%d at %H:%M:%S', moment)}"


def _check_notebook(path):
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} is not a file in {Path.cwd()}: save the notebook, and write its name into the line "
            "`notebook = ...` of the cell 'The settings, checked'"
        )


def _other_cells(path, point):
    # The code beside the settings cell; ValueError for names in point that the settings cell does not have.
    import nbformat  # takes over a second, and only sweeps need it

    _check_notebook(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        tagged = next((cell for cell in cells if "parameters" in cell.metadata.get("tags", [])), None)
        names = assigned(tagged.source) if tagged else []
        others = [str(cell.source) for cell in cells if cell is not tagged]
    except Exception as error:  # of a file of another kind, nearly anything
        raise ValueError(
            f"{path} is not a notebook whose settings can be read: {reason_of(error)}; give a notebook of this project"
        ) from error
    if not tagged:
        raise ValueError(f"{path} has no cell tagged 'parameters'; tag its settings cell")
    for name in point:
        if name not in names:
            checks.check_own(name, names)
            raise ValueError(
                f"{name!r} is not a setting of {path.name}; write a line {name} = ... in its settings cell"
            )
    return others


def run_notebook(path, *, outname, threads=None, **settings):
    """Execute a notebook in a process of its own with other settings, unless it has been done before.

    The notebook never sweeps in there, whatever its file says. The process ends when the calling one does.

    Parameters
    ----------
    path : str or Path
        A notebook whose settings cell is tagged "parameters"; it runs in its own folder.
    outname : str
        Name of the result, to which the settings are added. The same call finds its result again; where code or
        files changed, the name gets a further -v2, and so on.
    threads : int
        Processor threads of the run; None: all.
    settings : numbers, strings, paths, None, and lists and dicts of them
        Override the notebook's.

    Returns
    -------
    report : dict
        "outname" and "settings", and "failed" where the run did not end well: the error's last line, and the file
        outputs/OUTNAME.log, which holds all that the run printed. The executed notebook is outputs/OUTNAME.ipynb.
    """
    (report,) = run_notebooks(path, [settings], outname=outname, threads=threads)
    return report


def run_notebooks(path, points, *, outname, named=None, n_jobs=1, threads=None, watch=lambda reports: None):
    """Run a notebook for every dict of settings; yield the report of each run as it ends, see run_notebook.

    n_jobs run at once, by default on all threads; -1: one for each core, on one thread each. An interrupt ends them.
    The settings in the list `named` name the runs; None: all settings.
    """
    if threads is not None:
        check_number("threads", threads, 1, most=1024, whole=True)
    if not isinstance(n_jobs, int) or (n_jobs < 1 and n_jobs != -1):
        raise ValueError(f"{n_jobs=} must be a positive whole number, or -1 for one run on each core")
    if n_jobs == -1:
        n_jobs, threads = joblib.cpu_count(), threads or 1
    jobs, reports, running, watched = [], [], [], 0.0
    for point in points:
        taken = [report["outname"] for report in reports]
        jobs.append(_Job(Path(path).resolve(), outname, point, named, threads, taken))
        reports.append(jobs[-1].report)
    try:
        while jobs or running:
            while jobs and len(running) < n_jobs:
                running.append(jobs.pop(0))
                try:
                    running[-1].begin()
                except OSError as error:
                    running[-1].report |= {"failed": str(error), "progress": "failed"}
            for job in [job for job in running if job.has_ended()]:
                running.remove(job)
                yield job.report
            if time.monotonic() > watched + 1:
                for job in running:
                    job.read_progress()
                watch(reports)
                watched = time.monotonic()
            time.sleep(0.05)
        watch(reports)
    finally:
        with uninterrupted():
            for job in running:
                job.kill()


class _Job:
    # A run of a notebook in a process of its own.

    def __init__(self, path, outname, point, named, threads, taken):
        self.path, self.threads, self.process, self.folder = path, threads, None, path.parent / "outputs"
        checks.check_outname("outname", outname)
        others = _other_cells(path, point)
        # Numbers and arrays of NumPy, and paths, as json holds them.
        as_json = json.dumps(plain(point), default=lambda each: each.tolist() if hasattr(each, "tolist") else str(each))
        self.settings = json.loads(as_json)
        self.mark = _digest(json.dumps([others, self.settings, _files(self.settings, path.parent)], sort_keys=True))
        name = _name(outname, {each: self.settings[each] for each in (point if named is None else named)})
        versions = itertools.chain([name], (f"{name}-v{number}" for number in itertools.count(2)))
        name = next(each for each in versions if each not in taken and self._is_mine_or_free(each))
        self.report = {"outname": name, "settings": point, "progress": "waiting"}
        self.log = self.folder / f"{name}.log"

    def _is_mine_or_free(self, name):
        path = self.folder / f"{name}.ipynb"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            is_whole = path.is_file() and path.stat().st_size < MOST_BYTES  # a FIFO would never end
            if is_whole and json.loads(path.read_bytes())["metadata"][MARK] == self.mark:
                return True
        return not of_number(self.folder, name, ".json")

    def begin(self):
        """Begin the run; OSError where its files can't be written."""
        if of_number(self.folder, self.report["outname"], ".json"):
            self.report["progress"] = "made earlier"
            return
        target = self.folder / f"{self.report['outname']}.ipynb"
        self.folder.mkdir(exist_ok=True)
        for path in (self.log, target):
            if path.is_symlink() or (path.exists() and not path.is_file()):  # else what a link names is overwritten
                raise FileExistsError(f"{path} is a link, a folder or a device; remove it, or set another outname")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), IN_SWEEP: "1"}
        environment |= {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        with self.log.open("wb") as log:
            # In a session of its own, where the interrupt of this process does not reach it.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.desk.terminal", str(self.path), str(target), self.mark],
                cwd=self.path.parent,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        own = {"outname": self.report["outname"], "sweep": {}}
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(self.settings | own).encode() + b"\n")
            self.process.stdin.flush()

    def has_ended(self):
        if self.process is None:
            return True
        if self.process.poll() is None:
            return False
        self.process.communicate()  # closes the pipe
        if self.process.returncode == 0:
            self.log.unlink(missing_ok=True)
            self.report["progress"] = "done"
        else:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            code = self.process.returncode
            error = f"the process died with code {code}" if code < 0 or not lines else lines[-1]
            log = self.log.relative_to(Path.cwd()) if self.log.is_relative_to(Path.cwd()) else self.log
            self.report |= {"failed": f"{error} (all that the run printed: {log})", "progress": "failed"}
        return True

    def read_progress(self):
        # The last bar, which tqdm writes over and over; other lines tell nothing, such as <IPython.core.display.HTML>.
        lines = self.log.read_text(errors="replace")[-5000:].splitlines()
        self.report["progress"] = next((line.strip() for line in reversed(lines) if "%|" in line), "begins")

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in psutil.Process(self.process.pid).children(recursive=True):  # the notebook's kernel
                    each.kill()
            self.process.kill()
            self.process.communicate()
            self.log.unlink(missing_ok=True)


def _name(outname, values):
    # outname-seed1-content_weight10: what does not fit into a name of a file becomes "_", and long values are cut.
    words = [re.sub(r"[^\w.+-]+", "_", f"{name}{value}").strip("_") for name, value in values.items()]
    words = [each if len(each) <= 40 else f"{each[:34]}_{_digest(each)[:5]}" for each in words]
    name = "-".join([outname, *words])
    return name if len(name) <= 140 else f"{name[:130]}-{_digest(name)[:9]}"  # 150 are allowed


def _digest(text):
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _files(point, folder):
    # Hashes of the files that the settings name, and of the modules: with other contents, the runs are others.
    values = [each for value in point.values() for each in (value if isinstance(value, list | tuple) else [value])]
    paths = [folder / value for value in values if isinstance(value, str) and value]
    paths += [ROOT / "audiocnn.py", *sorted(ROOT.glob("support/**/*.py"))]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()]
