"""Which step of a notebook was made with which settings, so that no step goes on with products of other settings.

A step is current if it was made with the present values of all settings that it and the steps before it read
(settings.STEPS), and from the present products of the steps before it.

Conventions
  title    of a step, a key of settings.STEPS; also the heading of the step in the notebooks
  content  a short text that stands for the products of a step: two texts are equal if the products are
"""

import contextlib
import hashlib
import itertools
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import IPython
import numpy as np
import torch

from support.settings import STEPS, Settings
from support.checks import check_choice

TITLES = list(STEPS)
_executions = itertools.count()
_NOT_OF_A_CLASS = ("__dict__", "__weakref__", "__module__", "__firstlineno__", "__annotations_cache__")


class NotCurrent(RuntimeError):
    """A step can't be made or used as it stands; the message says what to run. Jupyter shows the message alone."""

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


@dataclass
class Made:
    """A step that was made: its settings, the content of its products, and of the earlier products it was made from."""

    settings: object
    earlier: dict
    content: str = field(default_factory=lambda: f"execution {next(_executions)}")

    def of(self, *products):
        """Say what the products are: a step that is run again with the same result leaves later steps current."""
        self.content = content_of(*products)


class Record:
    """The steps that were made in one kernel; the notebooks use `record`, below, which lives as long as they do."""

    def __init__(self):
        self._made, self._settings = {}, None

    def typed(self):
        """Note that the settings cell is run: its settings count only after the cell that checks them.

        In a notebook the settings of the last time are deleted, so that a line that is gone doesn't keep its value.
        """
        self._settings = None
        shell = IPython.get_ipython()
        for each in fields(Settings) if shell else ():
            if each.name != "transform":  # no line of the settings cell
                shell.user_ns.pop(each.name, None)

    def accept(self, settings):
        """Take checked settings as the present ones; return a sentence that says what to run."""
        self._settings = settings
        stale = self._first_stale(TITLES, settings)
        if not self._made:
            return f"The settings are complete. Run the cells below from {TITLES[0]!r}."
        return f"Everything was made with these settings; {TITLES[-1]!r} is current." if stale is None else stale[1]

    @contextlib.contextmanager
    def step(self, title, settings):
        """Make a step: NotCurrent if a step before it is not current. Counts as made if the block ends normally."""
        *before, _ = _steps_to(title)
        self._require(before, settings)
        self._made.pop(title, None)
        made = Made(settings, {each: self._made[each].content for each in before})
        yield made
        self._made[title] = made

    def check(self, title, settings):
        """Raise NotCurrent unless a step and all steps before it are current."""
        self._require(_steps_to(title), settings)

    def check_settings(self, settings):
        """Raise NotCurrent unless these are the settings that were checked last."""
        self._require([], settings)

    def _require(self, titles, settings):
        if settings is not self._settings:
            raise NotCurrent(
                "the settings are not checked yet: run the cell 'The settings, checked' first, and then this cell again"
            )
        stale = self._first_stale(titles, settings)
        if stale is not None:
            raise NotCurrent(stale[1])

    def _first_stale(self, titles, settings):
        # The first of the steps that is not current, and a sentence about it; None if all are current.
        names = []
        for title in titles:
            names += STEPS[title]
            made = self._made.get(title)
            if made is None:
                return title, f"{title!r} was not run to its end: run again from {title!r}"
            changed = [name for name in names if getattr(made.settings, name) != getattr(settings, name)]
            if changed:
                was, now = (
                    ", ".join(f"{name}={plain(getattr(each, name))!r}" for name in changed)
                    for each in (made.settings, settings)
                )
                return title, f"{title!r} was made with {was}, but the settings say {now}: run again from {title!r}"
            for earlier, content in made.earlier.items():
                if self._made[earlier].content != content:
                    return title, f"{earlier!r} was made anew after {title!r}: run again from {title!r}"
        return None


record = Record()  # outside the notebook, so that its first cell can be run again without losing the record


def _steps_to(title):
    check_choice("step", title, TITLES)
    return TITLES[: TITLES.index(title) + 1]


def plain(value):
    """Return a setting's value as plain lists and dicts."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple) else value


def content_of(*products):
    """Return a text that is equal for equal arrays, tensors, modules, and lists and dicts of them."""
    digest, todo = hashlib.sha256(), [products]
    while todo:
        product = todo.pop()
        if isinstance(product, torch.nn.Module):
            todo += [str(product), product.state_dict()]
        elif isinstance(product, Mapping):
            digest.update(f"mapping of {len(product)}".encode())
            todo += [*product.keys(), *product.values()]
        elif isinstance(product, list | tuple):
            digest.update(f"list of {len(product)}".encode())
            todo += product
        elif isinstance(product, np.ndarray | torch.Tensor):
            array = np.ascontiguousarray(product.detach().cpu().numpy() if torch.is_tensor(product) else product)
            digest.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())
        elif isinstance(product, type):
            own = [base for base in product.__bases__ if not base.__module__.startswith(("torch", "builtins"))]
            todo += [product.__qualname__, own, {k: v for k, v in vars(product).items() if k not in _NOT_OF_A_CLASS}]
        elif isinstance(product, staticmethod | classmethod | property):
            todo.append(product.fget if isinstance(product, property) else product.__func__)
        elif isinstance(product, types.FunctionType):
            todo += [product.__code__, product.__defaults__, product.__kwdefaults__]
        elif isinstance(product, types.CodeType):
            todo += [product.co_code, product.co_names, product.co_consts]
        else:
            digest.update(f"{product!r}, ".encode())
    return digest.hexdigest()
