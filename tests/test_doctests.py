"""The examples in docstrings, and types on everything public in audiocnn.py and support/sound/."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import support
from support import sound

MODULES = ["audiocnn"] + [
    f"{package.__name__}.{module.name}"
    for package in (support, sound)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.ispkg
]


def test_the_examples_give_what_they_say():
    results = {name: doctest.testmod(importlib.import_module(name)) for name in MODULES}
    assert {name: result.failed for name, result in results.items() if result.failed} == {}
    assert sum(result.attempted for result in results.values()) >= 5


def public_functions(module):
    """Functions, methods and properties without an underscore that a module defines."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        members = vars(value).items() if inspect.isclass(value) else [(name, value)]
        for member, function in members:
            function = getattr(function, "fget", getattr(function, "func", getattr(function, "__func__", function)))
            if inspect.isfunction(function) and not member.startswith("_"):
                yield f"{name}.{member}", function


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name.startswith("support.sound.")] + ["support.checks", "audiocnn"]
)
def test_public_functions_have_types(name):
    for path, function in public_functions(importlib.import_module(name)):
        signature = inspect.signature(function)
        untyped = [each for each in signature.parameters.values() if each.annotation is each.empty]
        assert [each.name for each in untyped if each.name not in ("self", "ctx")] == [], path
        assert signature.return_annotation is not signature.empty, path
