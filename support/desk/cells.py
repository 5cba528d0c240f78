"""What a notebook's file says: the names in its settings cell, and the code beside this cell."""

import warnings
from pathlib import Path

from support.desk import checks
from support.desk.steps import assigned
from support.weights import reason_of


def check_notebook(path):
    """Raise FileNotFoundError unless a path is a file."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} is not a file in {Path.cwd()}: save the notebook, and write its name into the line "
            "`notebook = ...` of the cell 'The settings, checked'"
        )


def other_cells(path, point):
    """Return the code beside the settings cell, a list; ValueError for names in point that this cell does not have."""
    cells, names = _cells_of(path)
    for name in point:
        if name not in names:
            checks.check_own(name, names)
            raise ValueError(
                f"{name!r} is not a setting of {path.name}; write a line {name} = ... in its settings cell"
            )
    return cells


def _cells_of(path):
    # The code beside the settings cell, and the names that this cell assigns.
    import nbformat  # takes over a second, and only sweeps need it

    check_notebook(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        names = assigned(tagged[0].source) if tagged else []
        sources = [str(cell.source) for cell in cells if not tagged or cell is not tagged[0]]
    except Exception as error:  # of a file of another kind, nearly anything
        raise ValueError(
            f"{path} is not a notebook whose settings can be read: {reason_of(error)}; give a notebook of this project"
        ) from error
    if not tagged:
        raise ValueError(f"{path} has no cell tagged 'parameters'; tag its settings cell")
    return sources, names
