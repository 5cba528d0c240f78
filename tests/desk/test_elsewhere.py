"""The first cell of the notebooks: on Google Colab or Binder, where a notebook may be alone."""

import re
import shutil
import subprocess

import nbformat
import pytest
from kernel import CQT, ROOT, STFT, CellError, Notebook

SUPPORT = [str(path.relative_to(ROOT)) for path in ROOT.glob("support/**/*.py")]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")

# Notes every command before the cell runs the command.
SPY = """
import subprocess, sys
commands, run = [], subprocess.run
def spy(command, **how):
    commands.append(command)
    return run(command, **how)
subprocess.run = spy
"""


@pytest.fixture
def project(tmp_path):
    """Address of a git repository that holds the modules, the requirements and one recording."""
    folder = tmp_path / "project"
    for name in (
        "audiocnn.py",
        "requirements.txt",
        "samples/brook.flac",
        *SUPPORT,
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    return folder.as_uri()


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder with nothing in it, and an environment that names no path of modules."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def first_cell(name):
    (cell,) = [
        cell for cell in nbformat.read(ROOT / name, as_version=4).cells if "colab" in cell.metadata.get("tags", [])
    ]
    return cell


@pytest.mark.parametrize("name", [STFT, CQT])
def test_the_cell_is_the_first_and_its_first_line_is_the_address(name):
    code = [cell for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code"]
    assert code[0] == first_cell(name) and re.match(r'PROJECT = "\S*"  # ', code[0].source)


def test_a_notebook_alone_fetches_the_project_and_installs_the_requirements(empty, project, monkeypatch):
    """pip really runs, and finds every package of requirements.txt; then the imports work, and the sample is there."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # under pytest, kernels don't pass on what other processes print
    with Notebook(empty) as notebook:
        with pytest.raises(CellError, match="No module named 'audiocnn'"):
            notebook.run("import audiocnn")
        with pytest.raises(CellError, match=r"empty has no audiocnn\.py; start the kernel in the project's folder"):
            notebook.run("find_spec(")
        assert not list(empty.iterdir())
        cell = notebook.cell("find_spec(")
        cell.source = cell.source.replace('PROJECT = ""', f"PROJECT = {project!r}")
        printed = notebook.execute(SPY + cell.source)
        for line in (ROOT / "requirements.txt").read_text().splitlines():
            package = re.match(r"[a-z]*", line)[0]
            found = f"Requirement already satisfied: {package}==" in printed
            assert found or not package or f"Ignoring {package}" in printed, line
        expected = "['-m', 'pip', 'install', '--requirement', 'requirements.txt']"
        check = f"assert commands[-1][0] == sys.executable and commands[-1][1:] == {expected}, commands"
        notebook.execute(f"{check}\nassert len(commands) == 2")
        notebook.run("import audiocnn")
        where = "import os\nprint(os.path.dirname(audiocnn.__file__), os.path.isfile('samples/brook.flac'))"
        assert notebook.execute(where).split() == [str(empty / "neural_style_audio"), "True"]
        notebook.execute(cell.source + f"\n{check}\nassert len(commands) == 2")  # a second time: nothing


def test_after_a_restart_the_project_is_not_fetched_again(empty, project):
    """Colab asks for a restart after some installations: the working folder is then the first one again."""
    shutil.copytree(project.removeprefix("file://"), empty / "neural_style_audio")
    source = (
        first_cell(STFT).source.replace('PROJECT = ""', "PROJECT = 'file:///gone'").replace('"install", ', '"list", ')
    )
    with Notebook(empty) as notebook:
        with pytest.raises(CellError, match="CalledProcessError"):  # pip list takes no requirements
            notebook.execute(SPY + source)
        assert notebook.execute("print(len(commands), os.getcwd())").split() == ["1", str(empty / "neural_style_audio")]


@pytest.mark.parametrize("name", [STFT, CQT])
def test_in_the_project_folder_the_cell_does_nothing(name, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with Notebook(ROOT, name) as notebook:
        check = (
            "import os, sys\nstate = lambda: (os.getcwd(), list(sys.path), sorted(os.listdir()))\nbefore = state()\n"
        )
        nothing = "\nassert not commands and state() == before"
        assert notebook.execute(check + SPY + notebook.cell("find_spec(").source + nothing) == ""
