"""The rules of the house: how long files and functions are, who imports whom, what stands where."""

import ast
import functools
import graphlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [ROOT / "neural_style_audio_pretrained.ipynb", ROOT / "neural_style_audio_cqt.ipynb"]
LIBRARY = [ROOT / "audiocnn.py", *sorted(ROOT.glob("support/**/*.py"))]
SCRIPTS = [path for folder in ("benchmarks", "models", "tests") for path in sorted(ROOT.glob(f"{folder}/**/*.py"))]
LONG = {
    "audiocnn.py": 800,
    "support/desk/settings.py": 600,
    "support/layers.py": 460,
    "support/sound/transforms.py": 400,
}
PROMISED = {"neural_style_audio_pretrained.ipynb", "neural_style_audio_cqt.ipynb", "audiocnn.py", "README.md"}
PROMISED |= {"params", "models", "samples", "requirements.txt"}
ALLOWED = PROMISED | {"support", "tests", "benchmarks", "LICENSE", "Makefile", "pyproject.toml", "CITATION.cff"}
ALLOWED |= {"CHANGELOG.md"}
README = (ROOT / "support/README.md").read_text()
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def parse(path):
    if path.suffix == ".py":
        return ast.parse(path.read_text(), filename=str(path))
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return ast.parse("\n".join(cells), filename=str(path))


def module_of(path):
    """Name by which other files import a file."""
    inside = path.relative_to(ROOT).with_suffix("").parts
    inside = inside[:-1] if inside[-1] == "__init__" else inside
    return ".".join(inside) if inside[0] == "support" else inside[-1]


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


# Length ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LIBRARY, ids=names(LIBRARY))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= LONG.get(str(path.relative_to(ROOT)), 370)


def lines_of(function):
    """Lines of a function without its docstring, and without arguments of a call that stand one a line."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    lines = set(range(body[0].lineno, function.end_lineno + 1)) if body else set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            arguments = [*node.args, *(each.value for each in node.keywords)]
            if len({each.lineno for each in arguments}) == len(arguments) > 1:
                lines -= {line for each in arguments for line in range(each.lineno, each.end_lineno + 1)}
    return len(lines)


@pytest.mark.parametrize("path", LIBRARY, ids=names(LIBRARY))
def test_functions_are_short(path):
    for function in functions(parse(path)):
        assert lines_of(function) <= 45, f"{path.name}:{function.lineno} {function.name}"


def test_lines_of_a_function_are_counted_without_what_stands_one_a_line():
    plain = "def f(a):\n    'doc'\n    b = g(a, c=1)\n    return b"
    spread = "def f(a):\n    'doc'\n    b = g(\n        a,\n        c=1,\n    )\n    return b"
    assert [lines_of(ast.parse(source).body[0]) for source in (plain, spread)] == [2, 3]


def test_no_two_functions_or_classes_of_files_share_a_name():
    found = [(node.name, path.name) for path in LIBRARY for node in parse(path).body if hasattr(node, "name")]
    names = [name for name, _ in found if not name.startswith("_")]
    assert [each for each in found if names.count(each[0]) > 1] == []


def test_the_size_that_the_readme_tells_is_that_of_the_files():
    told = re.search(r"about ([\d,]+) lines .*?: ([\d,]+) in .*?, ([\d,]+) in .*?, ([\d,]+) in .*? ([\d,]+) in", README)
    rooms = [[LIBRARY[0]], *(ROOT.glob(f"{folder}/*.py") for folder in ("support", "support/sound", "support/desk"))]
    sizes = [sum(len(path.read_text().splitlines()) for path in room) for room in rooms]
    assert [int(each.replace(",", "")) for each in told.groups()] == pytest.approx([sum(sizes), *sizes], rel=0.1)


# Imports -----------------------------------------------------------------------------------------

MODULES = {module_of(path) for path in [*LIBRARY, *SCRIPTS]} | {"support"}


def imported(tree):
    """Dict from a name that a file imports from this project to what it stands for: a module, or a name in one."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in MODULES:
                    found[alias.asname or alias.name.split(".")[0]] = alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            if node.module.split(".")[0] in MODULES:
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_modules(path):
    """Modules of the library that a file imports, also inside of functions."""
    library = {module_of(each) for each in LIBRARY}
    found = set()
    for name in imported(parse(path)).values():
        found |= {name, name.rpartition(".")[0]} & library
    return found


ROOMS = {  # which rooms a room may import, beside itself
    "support.checks": set(),
    "support.sound": {"support.checks"},
    "support.fast": {"support.checks"},
    "support.layers": {"support.fast", "support.checks"},
    "support.descent": {"support.fast"},
    "audiocnn": {"support.layers", "support.fast", "support.descent", "support.sound", "support.checks"},
    "support.bands": {"support.checks"},
    "support.start": {"support.checks"},
    "support.losses": {"audiocnn"},
    "support.weights": {"support.checks"},
    "support.frontend": {"support.checks", "support.weights"},
    "support.networks": {"support.checks", "audiocnn", "support.frontend", "support.sound", "support.weights"},
    "support.rhythm": {"audiocnn", "support.bands", "support.sound"},
    "support.pitch": {"audiocnn"},
    "support.curves": {"audiocnn", "support.pitch", "support.checks"},
    "support.heard": {"audiocnn", "support.layers"},
    "support.results": {"audiocnn", "support.descent"},
    "support.pipeline": {
        "support.curves",
        "support.results",
        "audiocnn",
        "support.start",
        "support.rhythm",
        "support.networks",
        "support.sound",
    },
    "support": set(),
}
ROOMS["support.desk"] = set(ROOMS)
PACKAGES = {"support", "support.sound", "support.desk"}


def room_of(module):
    return next(room for room in sorted(ROOMS, key=len, reverse=True) if f"{module}.".startswith(f"{room}."))


@pytest.mark.parametrize("path", LIBRARY, ids=names(LIBRARY))
def test_imports_run_one_way(path):
    room = room_of(module_of(path))
    found = {room_of(module) for module in imported_modules(path) - PACKAGES}
    assert found - {room} <= ROOMS[room]


def test_imports_run_in_no_circle():
    graph = {module_of(path): imported_modules(path) - PACKAGES for path in LIBRARY}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError for a circle
    assert set(order) == set(graph) and order.index("support.fast") < order.index("audiocnn")
    assert graph["support.sound.transforms"] >= {"support.sound.phase"}  # otherwise this test reads nothing


def test_five_functions_take_settings():
    """Mechanism never reads the settings: three of the pipeline take them, one that checks steps, one that sweeps."""
    taking = {}
    for path in LIBRARY:
        arguments = {each.name: [*each.args.args, *each.args.kwonlyargs] for each in functions(parse(path))}
        found = [name for name, given in arguments.items() if "settings" in [each.arg for each in given]]
        taking.setdefault(room_of(module_of(path)), []).extend(found)
    assert taking.pop("support.pipeline") == ["parts", "run", "synthesise"]
    assert taking.pop("support.desk") == ["accept", "run_sweep"] and not any(taking.values())


def test_threads_learn_how_long_to_wait_before_pytorch_is_imported():
    """PyTorch reads the variable once: with the usual one, a busy core made the default 10 times as slow."""
    for path in NOTEBOOKS:
        sources = [cell.source for cell in cells(path) if cell.cell_type == "code"]
        (sets,) = [number for number, source in enumerate(sources) if "GOMP_SPINCOUNT" in source]
        assert sets < min(number for number, source in enumerate(sources) if "import torch" in source)
    code = "import os, sys, support; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "5000"]


def test_stars_import_nothing():
    for path in [*LIBRARY, *SCRIPTS, *NOTEBOOKS]:
        assert "*" not in imported(parse(path)), path


# Names with an underscore ------------------------------------------------------------------------


def is_private(name):
    return name.startswith("_") and not name.endswith("_")  # IPython calls _render_traceback_


@functools.cache
def private_names(tree):
    """Names with an underscore that a file defines: functions, classes, variables, attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {name for name in found if is_private(name)}


def root_of(node):
    """First name of a.b.c, or None."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def foreign_private_names(tree, elsewhere):
    """Yield the names with an underscore of other files that a file uses; elsewhere: those that others define."""
    foreign, own = imported(tree), private_names(tree)
    yield from (name for name in foreign.values() if is_private(name.rpartition(".")[2]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            # On an imported name always; on anything else, such as an object, where only another file defines it.
            if root_of(node) in foreign or (node.attr in elsewhere and node.attr not in own):
                yield f"{ast.unparse(node)} in line {node.lineno}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # As getattr and monkeypatch take names, and in source that a test runs.
            for name in re.findall(r"(?:\.|^)(_[a-z]\w*)", node.value):
                if name in elsewhere and name not in own:
                    yield f"{name} in a string in line {node.lineno}"


@pytest.mark.parametrize("path", [*LIBRARY, *SCRIPTS, *NOTEBOOKS], ids=names([*LIBRARY, *SCRIPTS, *NOTEBOOKS]))
def test_no_file_uses_private_names_of_another(path):
    elsewhere = set.union(*(private_names(parse(each)) for each in [*LIBRARY, *SCRIPTS] if each != path))
    assert list(foreign_private_names(parse(path), elsewhere)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import audiocnn\naudiocnn.~shares(1)",
        "import audiocnn as a\na.StyleLoss.~x",
        "from audiocnn import ~shares",
        "from support import fast\nfast.SortedDistance.~run()",
        "from support.sound.transforms import CQT\ncqt = make()\ncqt.~filters",
        "def f(settings):\n    settings.~set('seed', 1)",
        "import support.fast\nsupport.fast.~x = 1",
        "monkeypatch.setattr(support.desk.steps, '~steps_to', 1)",
        "source = 'import audiocnn; audiocnn.~shares'",
    ],
)
def test_uses_of_private_names_are_found(source):
    source = source.replace("~", "_")  # otherwise the test above would find these strings
    elsewhere = set.union(*(private_names(parse(each)) for each in LIBRARY))
    assert list(foreign_private_names(ast.parse(source), elsewhere))


@pytest.mark.parametrize("source", ["import os\nos._exit(1)", "x.__dict__", "class A:\n    def _f(self): self._f()"])
def test_other_underscores_are_allowed(source):
    assert list(foreign_private_names(ast.parse(source), {"_f"})) == []


# What a library does not do ----------------------------------------------------------------------


@pytest.mark.parametrize("path", LIBRARY, ids=names(LIBRARY))
def test_the_library_does_not_print_and_has_no_globals(path):
    for node in ast.walk(parse(path)):
        assert not isinstance(node, ast.Global), node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("globals", "exec", "eval", "print"), node.lineno


@pytest.mark.parametrize("path", LIBRARY, ids=names(LIBRARY))
def test_everything_public_has_a_docstring(path):
    tree = parse(path)
    assert ast.get_docstring(tree)
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}:{node.lineno} {node.name}"
            todo += node.body if isinstance(node, ast.ClassDef) else []


# The notebooks ---------------------------------------------------------------------------------


def cells(path):
    return nbformat.read(path, as_version=4).cells


def has_tag(cell, tag):
    return tag in cell.metadata.get("tags", [])


def test_shared_cells_are_the_same_in_both_notebooks():
    first, second = ([cell for cell in cells(path) if has_tag(cell, "shared")] for path in NOTEBOOKS)
    assert [(each.source, each.metadata) for each in first] == [(each.source, each.metadata) for each in second]
    own = [sum(not has_tag(cell, "shared") for cell in cells(path)) for path in NOTEBOOKS]
    assert own == [5, 5]  # the title, the settings, their check, the transform and its title


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names(NOTEBOOKS))
def test_cells_are_short_folded_where_they_only_show_and_without_outputs(path):
    before = None
    for cell in cells(path):
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert len(lines) <= (52 if has_tag(cell, "parameters") else 21)
            statements = sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(cell.source)))
            assert statements <= 16 or has_tag(cell, "parameters")
            kept = (
                "steps.step(",
                "follow_sweep",
                "follow_stream",
                "analysis.reconstruct",
                "layer",
            )  # parts of the method
            shows_only = "display(" in cell.source and not any(word in cell.source for word in kept)
            assert not shows_only or cell.metadata.get("jupyter", {}).get("source_hidden"), cell.source
        before = cell
    assert "players.compare(outputs" in before.source  # where Run All Cells ends


# What stands where -------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout of git")
def test_the_top_folder_holds_what_it_should():
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    tracked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    top = {name.split("/")[0] for name in tracked if name}
    assert {name for name in top if not name.startswith(".")} <= ALLOWED
    assert top >= PROMISED and "outputs" not in top


TEXTS = sorted(path for path in ROOT.glob("**/*.md") if ".venv" not in path.parts and "outputs" not in path.parts)


def test_headings_and_steps_that_texts_name_exist():
    cells = [cell.source for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    texts = [*cells, *(path.read_text() for path in TEXTS)]
    headings = {heading for text in texts for heading in re.findall(r"(?m)^#+ (.*)$", text)}
    texts += [path.read_text() for path in LIBRARY]
    named = {name for text in texts for name in re.findall(r'(?:README\.md,?|\bsteps?|\bcells?) "([A-Z][^"]*)"', text)}
    assert len(named) > 9 and named <= headings


@pytest.mark.parametrize("path", TEXTS, ids=names(TEXTS))
def test_every_link_of_a_text_leads_to_a_file_or_a_heading(path):
    """Of this project; headings are linked as GitHub names them."""
    for target in re.findall(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)", path.read_text()):
        name, _, heading = target.partition("#")
        if "://" not in target:
            linked = path.parent / name if name else path
            assert linked.resolve().is_relative_to(ROOT) and linked.exists(), target
            headings = re.findall(r"(?m)^#+ (.*)$", linked.read_text()) if heading else []
            assert not heading or heading in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


HOUSE_WORDS = r"\ba" + r"new\b|\baf" + r"resh\b|(?<!\bthere )\b(?:is|are|was|were|be) " + r"no (?!longer\b|more\b)"


@pytest.mark.parametrize("path", [*TEXTS, *NOTEBOOKS, *LIBRARY, *SCRIPTS], ids=lambda path: path.name)
def test_texts_keep_to_the_words_of_the_house(path):
    """Something "is not a" thing, and happens "again"; also in the names of functions."""
    text = "\n".join(cell.source for cell in cells(path)) if path.suffix == ".ipynb" else path.read_text()
    text = re.sub(r"[_\s]+", " ", text)
    assert [text[each.start() - 30 : each.end() + 30] for each in re.finditer(HOUSE_WORDS, text, re.IGNORECASE)] == []


def test_every_picture_is_shown_and_every_shown_picture_exists():
    shown = {path.parent / name for path in TEXTS for name in re.findall(r"!\[[^]]*\]\(([^)]*)\)", path.read_text())}
    pictures = {path for folder in ("benchmarks", "models") for path in ROOT.glob(f"{folder}/*.png")}
    assert {path.resolve() for path in shown} == pictures


def test_the_citation_file_has_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation) and citation["cff-version"] == "1.2.0"
    assert citation["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for work in citation["references"]:
        assert {"type", "title", "authors"} <= set(work)
        assert all({"family-names", "given-names"} <= set(author) for author in work["authors"])
    works = [(work["authors"][0]["family-names"], work["year"]) for work in citation["references"]]
    expected = [("Gatys", 2015), ("Ulyanov", 2016), ("Huzaifah", 2019), ("Antognini", 2019), ("Heitz", 2021)]
    assert works == expected
    sources = README.split("## Sources\n")[1]
    assert all(re.search(rf"{author}\D* {year}", sources) for author, year in expected)


def test_binder_installs_the_requirements_with_a_python_that_they_allow():
    """repo2docker reads no other folder where there is this one, and takes an older Python without it."""
    assert (ROOT / ".binder/requirements.txt").read_text() == "-r ../requirements.txt\n"
    minor = int(re.fullmatch(r"python-3\.(\d+)\n", (ROOT / ".binder/runtime.txt").read_text())[1])
    allowed = re.search(r"You need Python 3\.(\d+) to 3\.(\d+)", (ROOT / "README.md").read_text())
    assert int(allowed[1]) <= minor <= int(allowed[2])
