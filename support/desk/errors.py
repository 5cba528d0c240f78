"""What a notebook shows of errors and warnings: one line where the project says what to do, as of a wrong setting."""

import linecache
import sys
import traceback
import warnings
from pathlib import Path

import IPython

ROOT = Path(__file__).parents[2]
RAISED = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError)


def speak_plainly():
    """Let the notebook of this kernel show the project's errors in one line, and its warnings without a box.

    An error of other code, or of a line that raises nothing itself, keeps its traceback. Without a notebook, nothing
    is changed.
    """
    shell = IPython.get_ipython()
    if shell:
        shell.set_custom_exc(RAISED, _show)
        usual = warnings.showwarning
        warnings.showwarning = lambda *given, **how: _warn(usual, *given, **how)


def _show(shell, kind, error, trace, tb_offset=None):
    *_, (frame, line) = traceback.walk_tb(trace)
    file = frame.f_code.co_filename
    of_project = file == str(ROOT / "audiocnn.py") or Path(file).is_relative_to(ROOT / "support")
    if of_project and linecache.getline(file, line).strip().startswith("raise "):
        error._render_traceback_ = lambda: [f"{kind.__name__}: {error}"]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)


def _warn(usual, message, category, *place, **how):
    if category is UserWarning:
        sys.stdout.write(f"Note: {message}\n")  # standard error is a red box in JupyterLab
    else:
        usual(message, category, *place, **how)
