"""Which step of a notebook was made with which settings, so that no step goes on with products of other settings.

A step is current if it was made with the present values of all settings that it and the steps before it read, if no
step before it was run again since, and if the image and the samples that it started from are still the same.

Conventions
  title  of a step, see settings.STEPS; also the heading of the step in the notebooks
"""

import ast
import contextlib
import hashlib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import IPython
import torch

from support.checks import check_choice
from support.desk import checks
from support.desk.settings import DEFAULTS, NOT_TYPED, STEP_OF, STEPS, Settings, plain


class NotCurrent(RuntimeError):
    """A step can't be made or used as it stands; the message says what to run."""


@dataclass(eq=False)  # a step that is made again is another one, also with the same settings
class Made:
    """A step that was made: its settings, and what the steps before it were."""

    settings: Settings
    earlier: dict
    tensors: list = field(default_factory=list)
    at_the_end: str = hashlib.sha256().hexdigest()

    def of(self, *tensors):
        """Name the tensors that the step changed: a later step that was made from other values is not current."""
        self.tensors, self.at_the_end = list(tensors), _fingerprint(tensors)

    @property
    def state(self):
        """The step as it was made, and what its tensors hold now."""
        return self, _fingerprint(self.tensors)


class Steps:
    """The steps that were made in one kernel; the notebooks use `steps`, below, which lives as long as they do."""

    def __init__(self):
        self._made, self._settings, self._typed_at = {}, None, None

    def typed(self):
        """Note that the settings cell is run: its settings count only after the cell that checks them.

        In a notebook the settings of the last time are deleted, so that a line that is gone doesn't keep its value.
        """
        shell, old = IPython.get_ipython(), self.own()
        self._settings, places = None, [place for place, cell in enumerate(_cells()) if "steps.typed()" in cell]
        self._typed_at = places[-1] if places else None
        for name in [*DEFAULTS, *old] if shell else ():
            if name not in NOT_TYPED:
                shell.user_ns.pop(name, None)

    def own(self):
        """Return the names of the settings cell that are not declared; ValueError for misspelt parameters.

        Papermill writes its parameters into a cell of their own, below the settings cell.
        """
        if self._typed_at is None:
            return []
        typed, *later = _cells()[self._typed_at :]
        names = [name for name in assigned(typed) if name not in DEFAULTS]
        for name in [name for cell in later if cell.startswith("# Parameters\n") for name in assigned(cell)]:
            checks.check_known(name, [*DEFAULTS, *names])
        return names

    def accept(self, settings):
        """Take checked settings as the present ones; return a sentence that says what to run."""
        self._settings = settings
        stale = self._first_stale(STEPS)
        if not self._made:
            return f"The settings are complete. Run the cells below from {STEPS[0]!r}."
        return f"Everything was made with these settings; {STEPS[-1]!r} is current." if stale is None else stale

    @contextlib.contextmanager
    def step(self, title):
        """Make a step: NotCurrent if a step before it is not current. Counts as made if the block ends normally."""
        *before, _ = _steps_to(title)
        self._require(before)
        self._made.pop(title, None)
        made = Made(self._settings, {each: self._made[each].state for each in before})
        yield made
        self._made[title] = made

    def check(self, title):
        """Raise NotCurrent unless a step and all steps before it are current."""
        self._require(_steps_to(title))

    def check_settings(self):
        """Raise NotCurrent unless the settings were checked."""
        self._require([])

    def changed_by_cells(self):
        """Name the steps whose image or samples another cell changed after them."""
        return [title for title, made in self._made.items() if made.state[1] != made.at_the_end]

    def _require(self, titles):
        if self._settings is None:
            raise NotCurrent(
                "the settings are not checked yet: run the cell 'The settings, checked' first, and then this cell again"
            )
        stale = self._first_stale(titles)
        if stale is not None:
            raise NotCurrent(stale)

    def _first_stale(self, titles):
        # A sentence about the first of the steps that is not current; None if all are current.
        names = []
        for title in titles:
            names += [name for name, step in STEP_OF.items() if step == title]
            made = self._made.get(title)
            if made is None:
                return f"{title!r} was not run to its end: run again from {title!r}"
            both = made.settings, self._settings
            changed = [name for name in names if getattr(both[0], name) != getattr(both[1], name)]
            if changed:
                was, now = (", ".join(f"{name}={plain(getattr(each, name))!r}" for name in changed) for each in both)
                return f"{title!r} was made with {was}, but the settings say {now}: run again from {title!r}"
            for earlier, state in made.earlier.items():
                if self._made[earlier].state != state:
                    return f"{earlier!r} was run or changed after {title!r}: run again from {title!r}"
        return None


steps = Steps()  # outside the notebook, so that its first cell can be run again without losing the steps


def _steps_to(title):
    check_choice("step", title, STEPS)
    return STEPS[: STEPS.index(title) + 1]


def _cells():
    # Sources of the cells that this kernel ran, or of a script that nbconvert (# In[1]:) or an editor (# %%) made.
    shell, script = IPython.get_ipython(), Path(getattr(sys.modules["__main__"], "__file__", ""))
    if shell:
        return shell.user_ns["In"]
    text = script.read_text(encoding="utf-8") if script.is_file() else ""
    return re.split(r"(?m)^# (?:In\[.*\]:|%%.*)\s+", text)[1:]


def assigned(source):
    """Return the names that the lines of a cell assign, each once."""
    lines = [line for line in ast.parse(source).body if isinstance(line, ast.Assign | ast.AnnAssign)]
    targets = [target for line in lines for target in (line.targets if isinstance(line, ast.Assign) else [line.target])]
    names = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
    return list(dict.fromkeys(each.id for each in names if isinstance(each.ctx, ast.Store)))


def _fingerprint(tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(torch.as_tensor(tensor).detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
