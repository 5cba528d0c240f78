"""What a notebook shows: one line for an error that the project raises, and the traceback for one of other code."""

import ast
import subprocess
import sys

import pytest
from kernel import ROOT

SHELL = """
import ast, contextlib, io, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor")
shell.run_cell("from support.desk.settings import Settings; from support.desk.steps import Steps")
shell.run_cell("from support.sound import files; import numpy as np")
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        shell.run_cell(ast.literal_eval(line))
    print(repr((out.getvalue(), err.getvalue())), flush=True)
"""


@pytest.fixture(scope="module")
def shown():
    """Run a cell, and return what it shows on standard output and on standard error; all cells in one process."""
    command, pipe = [sys.executable, "-c", SHELL], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:

        def show(cell):
            process.stdin.write(f"{cell!r}\n")
            return ast.literal_eval(process.stdout.readline())

        yield show


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("Settings(filters=0)", "ValueError: filters=0 must be a whole number of at least 1"),
        ("files.load_audio('nope.wav', sample_rate=8000)", "FileNotFoundError: nope.wav is not a file"),
        ("Settings(model_path='a.pth', recipe='gatys')", "ValueError: model_path='a.pth' needs its parameters"),
        ("Steps().check('The start')", "NotCurrent: the settings are not checked yet: run the cell"),
        (
            "steps = Steps()\nsteps.accept(Settings())\nwith steps.step('Spectrograms'):\n    pass",
            "NotCurrent: 'Listen to the inputs' was",
        ),
    ],
)
def test_an_error_of_the_project_is_one_line(cell, line, shown):
    out, err = shown(cell)
    assert out.startswith(line) and len(out.strip().splitlines()) == 1 and not err


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (
            "def mine():\n    raise ValueError('my own')\nmine()",
            ["Traceback", "raise ValueError", "ValueError: my own"],
        ),
        ("np.ones(3) + np.ones(4)", ["Traceback", "ValueError: operands could not be broadcast"]),
        ("files.fit_full_scale('text')", ["Traceback", "fit_full_scale"]),
        ("x = = 3", ["SyntaxError"]),
    ],
)
def test_other_errors_keep_their_traceback(cell, words, shown):
    out, err = shown(cell)
    assert all(word in out + err for word in words) and len((out + err).splitlines()) > 3


def test_a_warning_of_the_settings_is_a_sentence_outside_of_red_boxes(shown):
    out, err = shown("settings = Settings(filters=8, recipe='gatys')")
    assert out == "Note: filters=8 has no effect, because recipe='gatys' has no band networks\n" and not err
    out, _ = shown("settings = Settings(filters=8, widths=[1], recipe='gatys')")
    assert out == "Note: filters=8, widths=(1,) have no effect, because recipe='gatys' has no band networks\n"
