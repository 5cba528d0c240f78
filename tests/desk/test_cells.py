"""Parts that a cell replaces: the sound is what the cells say, and the json is true."""

import ast
import dataclasses
import functools
import json
import pickle
import re
import subprocess
import sys
import textwrap
import types
import warnings
import zipfile
import zlib

import nbformat
import numpy as np
import pytest
import soundfile
import torch
from kernel import (
    BACK,
    CHECKED,
    LOSSES,
    OPTIMISE,
    OPTIMIZER,
    ROOT,
    SETTINGS,
    STFT,
    TRANSFORM,
    CellError,
    Notebook,
    sample,
)
from matplotlib.figure import Figure
from torch import nn

import audiocnn
from support import pipeline
from support.descent import MEMORY
from support.desk import saving, show, sweeps, truth
from support.desk.settings import Settings
from support.sound.analysis import Analysis
from support.sound.files import fit_full_scale
from support.sound.transforms import STFT as Stft
from support.sound.transforms import Mel

SMALL = dict(STYLE_FILENAME=sample("fire"), duration=1.0, filters=10, widths=[1, 4], num_steps=3, refine_steps=2)
SMALL |= dict(phase_iterations=8, device="cpu")
RATE = 22050


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        with Notebook(tmp_path_factory.mktemp("cells"), **SMALL) as notebook:
            yield notebook


def run_edited(notebook, outname, *edits):
    """Run all cells with texts replaced in them; return the saved samples, and the report."""
    before = {cell.id: cell.source for cell in notebook.cells}
    notebook.edit(outname=outname)
    for old, new in edits:
        cell = notebook.cell(old)
        cell.source = cell.source.replace(old, new)
    try:
        notebook.run_all()
    finally:
        for cell in notebook.cells:
            cell.source = before[cell.id]
    return read(notebook, outname)


def read(notebook, outname):
    stem = notebook.folder / f"outputs/{outname}-001"
    samples, _ = soundfile.read(f"{stem}.wav", dtype="float32")
    return samples, json.loads(stem.with_suffix(".json").read_text())


def same(saved, made):
    """Whether a file of 16 bits has the samples that were made."""
    return np.abs(saved - fit_full_scale(made)).max() < 1.01 / 32768


MAKE = """transforms.STFT(
        sample_rate=settings.sample_rate,
        n_fft=settings.N_FFT,
        hop_length=settings.K_HOP,
        window="hann",
    )"""
TRANSFORMS = {
    "hop": (
        "        hop_length=settings.K_HOP,",
        "        hop_length=64,",
        Stft(sample_rate=RATE, n_fft=512, hop_length=64),
    ),
    "window": (
        'window="hann"',
        'window="hamming"',
        Stft(sample_rate=RATE, n_fft=512, hop_length=128, window="hamming"),
    ),
    "mel": (
        MAKE,
        "transforms.Mel(sample_rate=22050, n_fft=512, hop_length=128, n_mels=40)",
        Mel(sample_rate=RATE, n_fft=512, hop_length=128, n_mels=40),
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_transform_of_the_cell_decides(name, notebook):
    old, new, transform = TRANSFORMS[name]
    samples, report = run_edited(notebook, name, (old, new))
    torch.set_num_threads(1)
    assert same(samples, pipeline.synthesise(Settings(**SMALL), analysis=Analysis(transform=transform)))
    assert not same(samples, pipeline.synthesise(Settings(**SMALL)))
    assert f"{type(transform).__name__}(" in report["used"]["analysis"]
    assert f"hop_length={transform.hop_length}" in report["used"]["analysis"]
    assert report["used"]["not_in_settings"][0] == "analysis"


def test_the_compression_of_the_cell_decides(notebook):
    samples, report = run_edited(notebook, "power", ("power=settings.power", "power=0.5"))
    transform = Stft(sample_rate=RATE, n_fft=512, hop_length=128)
    assert same(samples, pipeline.synthesise(Settings(**SMALL), analysis=Analysis(transform=transform, power=0.5)))
    assert "power=0.5" in report["used"]["analysis"] and report["used"]["not_in_settings"] == ["analysis"]


def test_unedited_cells_are_what_the_settings_say(notebook):
    samples, report = run_edited(notebook, "plain")
    assert same(samples, pipeline.synthesise(Settings(**SMALL)))
    assert report["used"]["not_in_settings"] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = saving.load_settings(notebook.folder / "outputs/plain-001.json")
    assert same(samples, pipeline.synthesise(again))


def test_another_optimiser_in_the_cell(notebook):
    adam = "functools.partial(torch.optim.Adam, lr={})"
    edits = [("sample_optimizer = audiocnn.lbfgs", f"sample_optimizer = {adam.format(0.001)}")]
    edits = [("optimizer = audiocnn.lbfgs  # of the image", f"optimizer = {adam.format(0.02)}"), *edits]
    samples, report = run_edited(notebook, "adam", *edits)
    made = [functools.partial(torch.optim.Adam, lr=lr) for lr in (0.02, 0.001)]
    assert same(samples, pipeline.synthesise(Settings(**SMALL), optimizer=made[0], sample_optimizer=made[1]))
    assert report["used"]["optimizer"] == "torch.optim.adam.Adam(lr=0.02)"
    assert report["used"]["not_in_settings"] == ["optimizer", "sample_optimizer"]
    totals = [losses["total"] for losses in report["losses"]]
    assert len(totals) == 5 and totals[2] < totals[0] and totals[4] < totals[3]
    assert "The style loss is at" in notebook.execute("print(show.balance(results[0]))")
    with pytest.warns(UserWarning, match=r"cells of the notebook made optimizer, sample_optimizer"):
        saving.load_settings(notebook.folder / "outputs/adam-001.json")


def test_the_last_cell_names_what_a_sweep_made_and_what_failed(notebook):
    run_edited(notebook, "short")
    notebook.execute("reports = [{'outname': 'short-seed0'}, {'outname': 'short-seed1', 'failed': 'killed'}]")
    printed = notebook.run("# If nothing is shown below")
    assert re.search(
        r"^outputs/short-001.wav: .*\nruns of the sweep, .*: short-seed0\nfailed runs.*: short-seed1$", printed, re.M
    )


@pytest.mark.parametrize("wrong", ["'adam'", "torch.optim.Adam([torch.zeros(1)])"])
def test_a_wrong_optimiser_of_the_samples_is_said_before_the_optimisation(wrong, notebook):
    edit = ("sample_optimizer = audiocnn.lbfgs", f"sample_optimizer = {wrong}")
    with pytest.raises(CellError, match=r"must be a function from a list of tensors .*functools.partial\(torch.optim"):
        run_edited(notebook, "wrong", edit)
    assert notebook.execute("print(len(results[0].history))") == "0\n"


LOOP = "{}\n            )\n            for values in show.progress(descent, result, of_result, settings.{}):"
OTHER = """short = transforms.STFT(sample_rate=22050, n_fft=256, hop_length=64)
    other = dataclasses.replace(of_result, transform=short)
    image = other.image(torch.from_numpy(recordings["style 1"]))
    extra = (other.view(length), audiocnn.Objective(None, [(nn.MSELoss(), "input", 1.0)], style=image))
    return [extra, """
PRECONDITION = "masked.in_samples if masked else of_result.preconditioner"
EDITS = {
    "segment": ("segment=analysis.frames(settings.segment_duration)", "segment=40"),
    "blend": ("blend=None if curves.is_curve(settings.style_blend) else settings.style_blend", "blend=[1, 3]"),
    "loop": ("        loop=settings.loop,", "        loop=True,"),
    "redraw": tuple(
        LOOP.format(f"redraw={redraw},\n                precondition=masked and masked.in_image,", "num_steps")
        for redraw in ("settings.steps_of_draw", "2")
    ),
    "optimizer": (
        "optimizer=optimizer,\n                redraw",
        "optimizer=functools.partial(audiocnn.lbfgs, history_size=3),\n                redraw",
    ),
    "start": ("            seed=settings.seed + run,", "            seed=settings.seed + run + 1,"),
    "sample_redraw": tuple(
        LOOP.format(f"redraw={redraw},\n                precondition={PRECONDITION},", "refine_steps")
        for redraw in ("settings.steps_of_draw", "1")
    ),
    "sample_precondition": (f"precondition={PRECONDITION},", ""),
    "sample_objectives": ("    return [", f"    {OTHER}"),
    "sample_objectives of another view": ("[(of_result.view(", "[(dataclasses.replace(of_result, power=0.5).view("),
}


@pytest.mark.parametrize("part", EDITS)
def test_the_json_says_which_argument_of_a_cell_is_another_one(part, notebook):
    """Of the objective, of both descents, and of the start: what each edit changes, and nothing else, is named."""
    before = notebook.cell(SETTINGS).source
    notebook.edit(STYLE_FILENAME=[sample("fire"), sample("rain")])
    try:
        _, report = run_edited(notebook, part.replace(" ", "_"), EDITS[part])
    finally:
        notebook.cell(SETTINGS).source = before
    assert report["used"]["not_in_settings"] == [part.split()[0]]


def test_steps_that_nothing_saw_are_not_taken_for_those_of_the_settings(notebook):
    loop = "show.progress(descent, result, of_result, settings.num_steps)"
    _, report = run_edited(notebook, "unseen", (loop, "descent"))
    assert report["used"]["not_in_settings"] == ["optimizer", "redraw", "precondition", "objectives"]
    assert "no show.progress saw these steps" in report["used"]["redraw"]


CHANGED = {
    "the recordings": (
        "    recordings = recordings_of(0)\n",
        "    recordings = {'style 1': recordings_of(0)['style 1'][::-1].copy()}\n",
    ),
    "the image of style 1": (
        "analysis.to_image(each, settings.device) for",
        "0.5 * analysis.to_image(each, settings.device) for",
    ),
    "the networks of later draws": (
        "make_network(settings.seed + run + 10**6 * draw)",
        "make_network(settings.seed + run + 7 * draw)",
    ),
    "the image in the loop": (
        "result.history.append(values)",
        "result.history.append(values)\n                result.image.mul_(0.9)",
    ),
    "the samples in the loop": (
        "result.refinement.append(values)",
        "result.refinement.append(values)\n                result.samples[:1000] = 0",
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_the_json_names_what_a_cell_changed_on_the_way(what, notebook):
    """The samples of a recording, an image, another seed of later draws, a line in a loop: all gave another sound."""
    before = notebook.cell(SETTINGS).source
    notebook.edit(redraw=2)
    try:
        samples, report = run_edited(notebook, what.replace(" ", "_"), CHANGED[what])
    finally:
        notebook.cell(SETTINGS).source = before
    assert what in report["used"]["not_in_settings"]
    assert not same(samples, pipeline.synthesise(Settings(**SMALL | dict(redraw=2))))


def test_a_loop_of_ones_own_is_not_taken_for_the_settings(notebook):
    """It has neither a descent nor a history; the json says that nothing is known of the steps."""
    loop = """for result in results:
    adam = torch.optim.Adam([result.image.requires_grad_()], lr=0.01)
    for _ in range(2):
        adam.zero_grad()
        sum(objectives[0](result.image).values()).backward()
        adam.step()
    result.image.requires_grad_(False)
made = types.SimpleNamespace(of=lambda *tensors: None)
with contextlib.suppress(KeyboardInterrupt):
    if False:
"""
    cell = notebook.cell('step("Optimisation")')
    lines = cell.source.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.lstrip().startswith("with contextlib"))
    end = next(number for number, line in enumerate(lines) if "made.of" in line)
    own = ["    import torch as _", *("    " + line for line in loop.splitlines()[:7])]
    source = "\n".join([*lines[:begin], *own, *lines[end:]])
    _, report = run_edited(notebook, "ownloop", (cell.source, source))
    assert "no show.progress saw these steps" in report["used"]["optimizer"]
    assert "optimizer" in report["used"]["not_in_settings"]


OWN_VALUES = """ALPHA, POWERS, BETA, GAMMA = 3, [1.5, 2], 4, 5


def make(delta):
    def mine(features, target):
        return ALPHA * sum(map(lambda power: (features - delta).abs().pow(power).mean(), POWERS))

    return mine


with steps.step("The losses"):"""


def test_values_that_own_code_reads_are_in_the_json(notebook):
    line = '    sums = [\n        (make(0.25), 2.0, {"width_4.conv_2": 1.0}),'
    _, report = run_edited(notebook, "values", ('with steps.step("The losses"):', OWN_VALUES), ("    sums = [", line))
    code = report["used"]["own_code"]
    assert {code[name] for name in ("ALPHA", "POWERS", "delta")} == {"3", "[1.5, 2]", "0.25"}
    assert not {"BETA", "GAMMA", "images", "settings"} & code.keys()


OWN_PARTS = """class Base(audiocnn.Loss):
    kind, compares = "base", "style"

    def distance(self, features, target):
        return self.gain * (features - target).square().mean()


class Child(Base):
    gain = 300.0


class Wrap(audiocnn.Loss):
    kind, compares = "wrap", "style"

    def __init__(self, function):
        self.function = function

    def distance(self, features, target):
        return self.function((features - target).square().mean())


def softly(value):
    return value + 0.125


def power_loss(p):
    return lambda features, target: (features - target).abs().pow(p).mean()


def own(features, target, of):
    return of((features - target).square().mean())


with steps.step("The losses"):"""


def test_own_code_has_all_that_has_one_name_and_what_stands_in_arguments(notebook):
    """Two lambdas, what a class inherits, functions as parameters of a class and of functools.partial."""
    lines = """    sums = [
        (power_loss(2.0), 2.0, {"width_4.conv_2": 1.0}),
        (power_loss(3.0), 2.0, {"width_1.conv_2": 1.0}),
        (Child(), 1.0, {"width_4.conv_1": 1.0}),
        (Wrap(softly), 1.0, {"width_1.conv_1": 1.0}),
        (functools.partial(own, of=lambda value: 0.75 * value), 1.0, {"input": 1.0}),"""
    changes = ('with steps.step("The losses"):', OWN_PARTS), ("    sums = [", lines)
    _, report = run_edited(notebook, "ownparts", *changes)
    code = report["used"]["own_code"]
    assert {code[name] for name in code if name.partition(" ")[0] == "p"} == {"2.0", "3.0"}
    assert "self.gain *" in code["Base"] and "gain = 300.0" in code["Child"] and "value + 0.125" in code["softly"]
    assert any("0.75 * value" in each for each in code.values())
    assert any("softly" in words for words, *_ in report["used"]["terms"])
    assert "source not found" not in code.values()


OWN_LOSS = """class Mean(audiocnn.Loss):
    kind, compares = "mean", "style"

    def distance(self, features, target):
        return (features.mean(dim=3) - target.mean(dim=3)).square().mean()


with steps.step("The losses"):"""


def test_an_own_loss_is_in_the_json_with_its_source(notebook):
    line = '    sums = [\n        (Mean(), 2.0, {"width_4.conv_2": 1.0}),'
    changes = ('with steps.step("The losses"):', OWN_LOSS), ("    sums = [", line)
    _, report = run_edited(notebook, "ownloss", *changes)
    assert ["__main__.Mean()", "width_4.conv_2", 2.0] in report["used"]["terms"]
    assert "features.mean(dim=3) - target.mean(dim=3)" in report["used"]["own_code"]["Mean"]
    assert report["used"]["not_in_settings"] == ["terms"] and "mean width_4.conv_2" in report["losses"][-1]
    with pytest.warns(UserWarning, match=r"cells of the notebook made terms"):
        saving.load_settings(notebook.folder / "outputs/ownloss-001.json")


def test_a_term_added_at_the_end_of_its_cell_counts(notebook):
    """README's line below the cell's others, behind the block that makes the list."""
    cell = notebook.cell(LOSSES)
    line = "terms.append((nn.L1Loss(), 'conv_1', 3.0))"
    _, report = run_edited(notebook, "appended", (cell.source, f"{cell.source}\n{line}"))
    assert report["used"]["terms"][-1][1:] == ["conv_1", 3.0] and "l1loss conv_1" in report["losses"][0]
    assert report["used"]["not_in_settings"] == ["terms"]


def test_an_own_network_is_in_the_json_with_its_source(notebook):
    old = "        return bands.band_networks("
    new = "        return style_net(images['style 1'].shape[1])\n        return bands.band_networks("
    layers = "settings.style_weight, settings.style_layers_default", "settings.style_weight, {'relu_1': 1.0}"
    _, report = run_edited(notebook, "ownnetwork", (old, new), layers)
    assert "nn.Conv2d(channels, 512" in report["used"]["own_code"]["style_net"]
    assert report["used"]["not_in_settings"] == ["network", "terms"]


def test_an_image_changed_by_a_cell_makes_later_steps_stale_and_the_json_says_so(notebook):
    notebook.edit(outname="changed")
    notebook.run_all()
    notebook.execute("results[0].image.mul_(0.5)")
    with pytest.raises(CellError, match=r"'Optimisation' was run or changed after 'Back to sound': run again from"):
        notebook.run("stem = saving.save_result")
    notebook.run_all(BACK)
    report = json.loads((notebook.folder / "outputs/changed-002.json").read_text())
    assert report["used"]["not_in_settings"] == ["what 'Optimisation' gave"]
    assert json.loads((notebook.folder / "outputs/changed-001.json").read_text())["used"]["not_in_settings"] == []


def test_a_step_that_is_run_again_makes_later_steps_stale(notebook):
    notebook.run(OPTIMISE)
    with pytest.raises(CellError, match=r"'Optimisation' was run or changed after 'Back to sound'"):
        notebook.run('step("Refine')


def test_settings_of_the_users_own(notebook):
    cell = notebook.cell(SETTINGS)
    before = cell.source
    cell.source += "\nmy_weight = 2.0"
    _, report = run_edited(notebook, "own", ("settings.style_weight, settings", "settings.my_weight, settings"))
    assert report["settings"]["own"] == {"my_weight": 2.0}
    assert report["used"]["terms"][0] == ["DistributionLoss(balance=0.65)", "conv_2", 2.0]
    cell.source = before + "\ncontent_wieght = 2.0"
    with pytest.raises(CellError, match=r"'content_wieght' is not a setting; did you mean 'content_weight'"):
        notebook.run(SETTINGS, CHECKED)
    cell.source = before


def test_an_own_setting_is_swept_and_a_misspelt_one_refused(tmp_path):
    notebook = nbformat.read(ROOT / STFT, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source += "\nmy_weight = 2.0"
    nbformat.write(notebook, tmp_path / "own.ipynb")
    settings = Settings(
        **SMALL | dict(num_steps=1, refine_steps=0), own={"my_weight": 2.0}, sweep={"my_weight": [1, 3]}
    )
    reports = list(sweeps.run_sweep(tmp_path / "own.ipynb", settings))
    assert not [report["failed"] for report in reports if "failed" in report]
    saved = [json.loads(path.read_text())["settings"]["own"] for path in (tmp_path / "outputs").glob("*.json")]
    assert sorted(each["my_weight"] for each in saved) == [1, 3]
    assert len(list((tmp_path / "outputs").glob("*.ipynb"))) == 2  # the executed notebooks
    with pytest.raises(ValueError, match=r"sweep: 'my_wieght' is not a setting; did you mean 'my_weight'"):
        Settings(**SMALL, own={"my_weight": 2.0}, sweep={"my_wieght": [1, 3]})
    with pytest.raises(ValueError, match=r"'filter' is not a setting; did you mean 'filters'"):
        sweeps.run_notebook(tmp_path / "own.ipynb", outname="x", filter=3)


UNFINISHED = """
    import sys, warnings
    sys.path.insert(0, {root!r})
    import numpy as np, torch
    torch.set_num_threads(1)
    import audiocnn
    from support import pipeline
    from support.desk import saving
    from support.desk.settings import Settings
    settings = Settings(**{settings!r})
    made = pipeline.parts(settings)
    objective = pipeline.make_objective(made.images, made.networks, made.terms)
    def go_on(result, num_steps):
        how = dict(num_steps=num_steps, done=result.begin(num_steps), memory=result.memory, redraw=4)
        steps = audiocnn.optimise(result.image, objective, **how)
        for losses in steps:
            result.history.append(losses)
        if {seen}:  # as show.progress does
            result.remember(steps.memory)
"""


@pytest.mark.parametrize(("steps", "bit_for_bit"), [(4, True), (2, True), (2, False)])
def test_an_unfinished_result_goes_on_in_a_new_process(steps, bit_for_bit, tmp_path):
    """Bit for bit where the file holds what the optimiser knew; otherwise a warning says so, and so does the result."""
    settings = SMALL | dict(redraw=4, num_steps=8)
    head = textwrap.dedent(UNFINISHED.format(root=str(ROOT), settings=settings, seen=bit_for_bit))
    first = head + textwrap.dedent(f"""
        style = made.recordings["style 1"]
        noise, image = pipeline.make_start("noise", made.analysis, style, made.images, length=22050, seed=0)
        whole, half = (pipeline.Result(0, image.clone(), settings=settings) for _ in range(2))
        go_on(whole, 8), go_on(half, {steps})
        np.save("whole.npy", whole.image.numpy())
        saving.save_state(half, "half.pth")
    """)
    second = head + textwrap.dedent("""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = saving.load_state("half.pth", like=pipeline.Result(0, made.images["style 1"], settings=settings))
        go_on(result, 8)
        np.save("again.npy", result.image.numpy())
        print(len(result.history), result.begun, [str(each.message) for each in caught])
    """)
    for source in (first, second):
        done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("8 [0] " if bit_for_bit else f"8 [0, {steps}] ")
    assert ("the optimiser begins again" in done.stdout.replace("\n", " ")) != bit_for_bit
    images = [np.load(tmp_path / f"{name}.npy") for name in ("whole", "again")]
    assert np.array_equal(*images) == bit_for_bit


def begun(**given):
    return pipeline.Result(0, torch.ones(3), settings=Settings(**given))


DEEP = b")" + 2 * 10**5 * b"\x85"  # a tuple in a tuple in a tuple ...


def test_a_file_that_is_not_an_unfinished_result(tmp_path):
    mine, other = tmp_path / "mine.pth", tmp_path / "other.pth"
    saving.save_state(begun(**SMALL), mine)
    whole = mine.read_bytes()
    kept = torch.load(mine, weights_only=False)
    contents = [b"", b"\x80", whole[:-100], whole[100:], b"PK\x03\x04" + bytes(99), pickle.dumps(print)]
    for change in ({"image": torch.ones(4)}, {"image": "x"}, {"settings": {}}, {"more": 1}, {"run": print}):
        torch.save(kept | change, other)
        contents.append(other.read_bytes())
    for deep in (b"}" + DEEP + b"K\x01s.", b"(" + DEEP + b"Q.", DEEP + b"."):  # such keys end a kernel by torch.load
        with zipfile.ZipFile(other, "w") as archive:
            archive.writestr("state/data.pkl", b"\x80\x02" + deep)
        contents.append(other.read_bytes())
    for content in contents:
        other.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"other.pth is not an unfinished result of save_state .*run 'The st"
        ) as error:
            saving.load_state(other, like=begun(**SMALL))
        assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_result_that_was_saved_comes_back_in_every_field(tmp_path):
    result = begun(**SMALL)
    result.begin(2)
    result.descents = [{"optimizer": "Adam(lr=0.02)"}]
    result.image *= 2
    result.history += [{"total": 1.0}, {"total": 0.5}]
    result.reconstructed(torch.sin(torch.arange(900.0)) / 2)
    result.begin_to_refine(1)
    result.sample_descents = [{"optimizer": "lbfgs", "redraw": 20, "objectives": [["the image", [["a", "b", 1.0]]]]}]
    result.refinement.append({"total": 0.25})
    memory = dict.fromkeys(MEMORY) | {"tensor": result.samples.clone()}
    result.remember(memory | {"state": {"old_dirs": [torch.arange(900.0), torch.ones(900)]}})
    saving.save_result(result, used={}, draft=True, folder=tmp_path / "outputs")
    saving.save_state(result, tmp_path / "mine.pth")
    drafted = saving.load_state(tmp_path / "mine.pth", like=begun(**SMALL))
    saving.save_result(drafted, used={}, folder=tmp_path / "outputs")
    saving.save_state(drafted, tmp_path / "mine.pth")
    again = saving.load_state(tmp_path / "mine.pth", like=begun(**SMALL))
    assert len(list((tmp_path / "outputs").iterdir())) == 2  # the draft is gone
    assert saving.save_result(again, used={}, folder=tmp_path / "outputs") == drafted.saved[0]  # and is not saved twice
    for each in dataclasses.fields(drafted):
        was, now = getattr(drafted, each.name), getattr(again, each.name)
        if each.name == "sample_memory":
            assert now.keys() == was.keys()
            torch.testing.assert_close(now["tensor"], was["tensor"], rtol=0, atol=0)
            torch.testing.assert_close(now["state"], was["state"], rtol=0, atol=0)
        elif isinstance(was, torch.Tensor):
            torch.testing.assert_close(now, was, rtol=0, atol=0)
        else:
            assert now == was, each.name
    assert again.descents == result.descents and again.sample_descents == result.sample_descents


def test_an_unfinished_result_of_other_settings(tmp_path):
    given = SMALL | dict(redraw=4, num_steps=8)
    saving.save_state(begun(**given), tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match=r"mine.pth was begun with other values of seed, power"):
        saving.load_state(tmp_path / "mine.pth", like=begun(**given | dict(seed=1, power=0.5)))
    with warnings.catch_warnings(action="error"):
        saving.load_state(tmp_path / "mine.pth", like=begun(**given | dict(outname="x", num_steps=3)))


def test_the_notebook_is_a_plain_script(tmp_path):
    notebook = nbformat.read(ROOT / STFT, as_version=4)
    (place,) = [n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    notebook.cells[place].source += "\nmy_weight = 2.0\n"
    given = SMALL | dict(outname="script")
    lines = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    nbformat.write(notebook, tmp_path / "plain.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "script", "plain.ipynb"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": "",
        "OMP_NUM_THREADS": "1",
        "HOME": str(tmp_path),
        "MPLBACKEND": "agg",
    }
    done = subprocess.run([sys.executable, "plain.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    samples, _ = soundfile.read(tmp_path / "outputs/script-001.wav", dtype="float32")
    torch.set_num_threads(1)
    assert same(samples, pipeline.synthesise(Settings(**SMALL)))
    assert json.loads((tmp_path / "outputs/script-001.json").read_text())["settings"]["own"] == {"my_weight": 2.0}


def test_a_note_is_shown_where_its_cause_stands_and_not_again(notebook):
    before = notebook.cell(SETTINGS).source
    notebook.edit(N_FFT=512, K_HOP=256)
    try:
        shown = [notebook.execute(each.source).count("than a quarter") for each in notebook.cells]
    finally:
        notebook.cell(SETTINGS).source = before
    places = [notebook.cells.index(each) for each in map(notebook.cell, (CHECKED, TRANSFORM))]
    assert [place for place, number in enumerate(shown) if number] == places and max(shown) == 1


def test_the_losses_before_the_loop_are_named_by_network(notebook):
    notebook.execute("shown = show.table_of_losses(objectives[0], results[0].image).data")
    printed = notebook.execute("print(shown)")
    for text in ("style width_1.conv_2", "style width_4.conv_2", "diversity input", "its gradient"):
        assert text in printed
    assert audiocnn.Term(None, "input").weight == 1.0


def test_names_that_no_step_used_are_not_in_the_json(notebook):
    notebook.edit(outname="unused")
    notebook.run_all()
    notebook.execute(
        "optimizer, terms = functools.partial(torch.optim.Adam, lr=0.02), []\nnets, style_net = None, None"
    )
    notebook.run_all(BACK)
    for number in (1, 2):
        report = json.loads((notebook.folder / f"outputs/unused-00{number}.json").read_text())
        assert report["used"]["not_in_settings"] == [] and report["used"]["optimizer"] == "lbfgs"
        assert report["used"]["terms"][0] == ["DistributionLoss(balance=0.65)", "conv_2", 1.0]


def test_pictures_on_the_way_change_no_result(monkeypatch):
    """Whether somebody watches changes no value, and at the end the picture goes."""
    shown, images, given = [], [], Settings(**SMALL)
    monkeypatch.setattr(show, "show", lambda output: types.SimpleNamespace(update=shown.append))
    made = pipeline.parts(given)
    for refresh in (0, 1e-9):
        objective = pipeline.make_objective(made.images, made.networks, made.terms)
        result = pipeline.Result(0, made.images["style 1"].flip(3), settings=given)
        result.measure(objective, result.image)
        steps = audiocnn.optimise(result.image, objective, num_steps=30)
        for losses in show.progress(steps, result, made.analysis, 30, refresh):
            result.history.append(losses)
        images.append(result.image)
    figures = [isinstance(each, Figure) for each in shown]
    assert figures[0] is False and figures[1] is True and figures[-1] is False  # the first run had no picture
    torch.testing.assert_close(images[0], images[1], rtol=0, atol=0)


class Weighted(audiocnn.Loss):
    def __init__(self, weights):
        self.weights = weights


def test_parts_in_words_tell_apart_what_differs_and_say_nothing_else():
    mel = Mel(sample_rate=RATE, n_fft=1024, hop_length=128, n_mels=96)
    assert truth.words(mel).endswith("Mel(sample_rate=22050, n_fft=1024, hop_length=128, n_mels=96)")
    assert truth.words(nn.HuberLoss(delta=0.5)).endswith("HuberLoss(reduction='mean', delta=0.5)")
    weights = torch.linspace(0, 1, 2000)  # repr leaves out the middle of more than 1000 values
    first, second = truth.words(Weighted(weights)), truth.words(Weighted(weights.where(weights != weights[999], 0.0)))
    assert first != second and "array of (2000,)" in first and max(map(len, (first, second))) < 100
    assert first == truth.words(Weighted(weights.numpy().copy()))
    assert truth.words(Weighted(weights[:2])).endswith("Weighted(weights=tensor([0.0000, 0.0005]))")
    linear = [nn.Linear(9, 1) for _ in range(2)]
    assert truth.words(linear[0]) != truth.words(linear[1])


OWN_NETWORK = "def style_net"
EDITED = {TRANSFORM: (TRANSFORM, "analysis"), LOSSES: ("terms.append", "terms")}
EDITED |= {OPTIMIZER: ("optimizer =", "optimizer"), OWN_NETWORK: ("style_net", "network")}  # a word, a part
NOT_HERE = """
import sys, types
from torch import nn
my_cnn14 = nn.Sequential(*(nn.Sequential(nn.Conv2d(n, 4, 3), nn.ReLU()) for n in (1, 4)), nn.AvgPool2d(2))
vgg = nn.Sequential(*(nn.Sequential(nn.Conv2d(n, 4, 3), nn.ReLU(), nn.MaxPool2d(2)) for n in (3, 4, 4)))
models = types.SimpleNamespace(vgg19=lambda weights: types.SimpleNamespace(features=vgg))
sys.modules["torchvision"] = types.SimpleNamespace(models=models)
"""  # what the examples take from elsewhere


def examples():
    part = (ROOT / "README.md").read_text().split("## Change a part\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL)


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.strip().splitlines()[-1].strip()[:40])
def test_each_example_of_the_readme_is_one_edited_cell(example, notebook):
    (place,) = [cell for cell, (word, _) in EDITED.items() if word in example]
    old = notebook.cell(place).source
    new = f"{old}\n{example}" if place == LOSSES else example
    settings = dict.fromkeys(["style_layers_default", "CONTENT_FILENAME"]) | dict(use_style_net=place == OWN_NETWORK)
    settings["widths"] = [1, 8]
    settings |= dict(CONTENT_FILENAME=sample("speech")) if '"content"' in example else {}
    settings |= {name: ast.literal_eval(value) for name, value in re.findall(r"^# (\w+) = (.*)", example)}
    before = notebook.cell(SETTINGS).source
    notebook.execute(NOT_HERE)
    notebook.edit(**settings)
    try:
        samples, report = run_edited(notebook, f"example{zlib.crc32(example.encode())}", (old, new))
    finally:
        notebook.cell(SETTINGS).source = before
    assert 0.01 < np.abs(samples).max() < 1 and report["losses"][4]["total"] < report["losses"][3]["total"]
    assert report["used"]["not_in_settings"][0] == EDITED[place][1]
