"""Files of results: levels, numbers of runs, and that no file is ever half written."""

import json
import os
import re

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from support import pipeline
from support.desk import saving
from support.desk.settings import Settings
from support.sound import files


def test_level_and_full_scale():
    tone = 2 * np.sin(np.arange(22050) * 0.1)
    assert saving.level(tone) == {"peak_dbfs": 6.02, "rms_dbfs": 3.01}
    assert np.abs(files.fit_full_scale(tone)).max() == pytest.approx(0.99)
    assert np.array_equal(files.fit_full_scale(0.3 * tone), 0.3 * tone)


def save(stem, samples):
    report = {"used": {"layers": {"conv_1": "a convolution"}}, "losses": [{"total": 2.0}]}
    return saving.save_run(stem, samples, 22050, report | {"settings": Settings(seed=1).plain()})


def test_runs_beyond_number_999_are_found_in_the_order_of_their_numbers(tmp_path):
    for name in ["name-998", "name-999", "name-1000", "name-01", "name-1000-draft", "names-001", "name-12a4"]:
        (tmp_path / f"{name}.json").touch()
    for number in range(1, 998):
        (tmp_path / f"name-{number:03d}.wav").touch()
    assert saving.new_stem(tmp_path, "name").name == "name-1001"
    found = saving.of_number(tmp_path, "name", ".json")
    assert [path.stem for path in found] == ["name-998", "name-999", "name-1000"]
    assert not saving.of_number(tmp_path / "absent", "name", ".json")


def test_saved_run(tmp_path):
    stems = []
    samples = np.sin(np.arange(2205) * 0.1) / 2
    for _ in range(2):
        stems.append(saving.new_stem(tmp_path / "outputs", "name"))
        paths = save(stems[-1], samples) + saving.save_figures(stems[-1], {"nothing": Figure()})
    assert [stem.name for stem in stems] == ["name-001", "name-002"]
    assert sorted(path.name for path in paths) == ["name-002-nothing.png", "name-002.json", "name-002.wav"]
    back, rate = soundfile.read(paths[0])
    assert rate == 22050 and np.abs(back - samples).max() < 1e-4
    report = json.loads(paths[1].read_text())
    assert report["settings"]["seed"] == 1 and report["losses"] == [{"total": 2.0}]
    assert report["used"] == {"layers": {"conv_1": "a convolution"}}
    assert report["versions"]["torch"] == torch.__version__ and report["level"]["peak_dbfs"] == -6.02
    assert len(list((tmp_path / "outputs").iterdir())) == 6  # nothing partial is left


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    def fail(path, content):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    saving.save_figures(tmp_path / "name", {"whole": Figure()})
    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        saving.save_figures(tmp_path / "name", {"broken": Figure()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name-whole.png"]
    with pytest.raises(ValueError, match="the result holds NaN"):
        save(tmp_path / "other", np.full(100, np.nan))
    assert not list(tmp_path.glob("other*"))
    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "third", np.ones(100) / 2)
    assert [path.name for path in tmp_path.glob("*third*")] == ["third.wav"]


def place(folder, kind):
    """Make a place where nothing can be saved."""
    path = folder / "outputs"
    path.symlink_to(folder / "gone") if kind == "a link to nowhere" else path.write_text("a file")
    return path


@pytest.mark.parametrize("kind", ["a link to nowhere", "a file"])
def test_a_folder_that_takes_no_results_is_found_before_the_work(kind, tmp_path):
    with pytest.raises(OSError, match=r"results can't be saved in .*outputs \(.+\): make it a folder that can be writ"):
        saving.check_can_save("name", place(tmp_path, kind))
    saving.check_can_save("name", tmp_path / "new/outputs")
    assert not list((tmp_path / "new/outputs").iterdir())


def test_the_length_of_a_name_is_tried_too(tmp_path):
    """Of 255 bytes that most disks allow, 21 are for the longest ending; an é has two bytes."""
    for outname, fits in ((117 * "é", False), (116 * "é", True), (150 * "n", True)):
        if fits:
            saving.check_can_save(outname, tmp_path)
            save(tmp_path / f"{outname}-001", np.ones(99) / 2)
            saving.save_figures(tmp_path / f"{outname}-001", {"spectrograms": Figure()})
        else:
            with pytest.raises(OSError, match=r"File name too long\).* set a shorter outname"):
                saving.check_can_save(outname, tmp_path)


@pytest.mark.parametrize("kind", ["a link to nowhere", "a file"])
@pytest.mark.parametrize("has_draft", [True, False])
def test_a_result_that_is_not_saved_can_be_saved_elsewhere(has_draft, kind, tmp_path):
    """By the line that the message says."""
    sine = torch.sin(torch.arange(9000) * 0.1)
    results = [pipeline.Result(0, sine, samples=sine / 2, settings=Settings(outname="r"))]
    if has_draft:
        saving.save_result(results[0], used={}, draft=True, folder=tmp_path / "outputs")
        (tmp_path / "outputs").rename(tmp_path / "moved")
    folder = place(tmp_path, kind)
    with pytest.raises(
        OSError, match=r"run 1 is not saved .* its sound is still in this kernel: make place in"
    ) as error:
        saving.save_result(results[0], used={}, draft=not has_draft, folder=folder)
    line = str(error.value).split("elsewhere: ")[1].replace("/another/folder", str(tmp_path / "other"))
    stem = eval(line, {"saving": saving, "results": results, "used_by": lambda result: {}})
    assert stem == tmp_path / "other/r-001"
    np.testing.assert_allclose(soundfile.read(f"{stem}.wav")[0], sine / 2, atol=1e-4)


def test_nothing_is_written_through_a_link(tmp_path):
    """A link at the place of the result, and links under names that a half-written file could have."""
    (tmp_path / "precious").write_text("precious")
    for name in ("x.json", f".partial-{os.getpid()}-x.json"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    partials = []
    saving.write_whole(tmp_path / "x.json", lambda path: (partials.append(path.name), path.write_text("new")))
    saving.write_whole(tmp_path / "x.json", lambda path: (partials.append(path.name), path.write_text("newer")))
    assert (tmp_path / "precious").read_text() == "precious" and (tmp_path / "x.json").read_text() == "newer"
    assert partials[0] != partials[1]  # so that nobody can make a link of this name before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(settings={"seed": "x"}), "seed='x'"),
        (dict(settings={"widths": 10**400}), "10000000"),
        (dict(settings={"own": 3}), "'own' holds 3"),
        (dict(used=3), "'used' holds 3"),
        (dict(used={"not_in_settings": 3}), "'not_in_settings' holds 3"),
        (dict(used={"not_in_settings": [3]}), "'not_in_settings' holds 3"),
        (dict(used={"optimizer_began_after_steps": {}}), "'optimizer_began_after_steps' holds {}"),
        (dict(losses=[[]]), r"'losses' holds \[\]"),
        (dict(settings=None), "'settings' holds None"),
        (dict(settings={"start": 10**5 * "a"}), "start='aaa"),
        (dict(settings={"recipe": 10**5 * "a"}), "recipe='aaa"),
        (dict(settings={"statistic": 10**5 * "\n"}), r"statistic='.n"),
        (dict(settings={"two\nlines": 1}), r"settings that are not known: 'two.nlines'"),
        (dict(settings={10**5 * "a": 1}), "settings that are not known: aaa"),
    ],
)
def test_a_json_with_a_wrong_value_names_the_file_and_the_key(change, words, tmp_path):
    save(tmp_path / "x-001", np.ones(99) / 2)
    report = json.loads((tmp_path / "x-001.json").read_text())
    if isinstance(change.get("settings"), dict):
        change = {"settings": report["settings"] | change["settings"]}
    (tmp_path / "x-001.json").write_text(json.dumps(report | change))
    with pytest.raises(ValueError, match=rf"x-001\.json.*{words}") as error:
        saving.load_settings(tmp_path / "x-001.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["seed", "widths", "content_weight", "duration"])
def test_a_number_of_5000_digits_names_its_setting(name, tmp_path):
    save(tmp_path / "x-001", np.ones(99) / 2)
    text = (tmp_path / "x-001.json").read_text()
    text = re.sub(rf'"{name}": (\[[^]]*\]|[^,]*),', f'"{name}": {5000 * "9"},', text)
    (tmp_path / "x-001.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x-001\.json: {name}=inf must be") as error:
        saving.load_settings(tmp_path / "x-001.json")
    assert len(str(error.value)) < 1000
    with pytest.raises(ValueError, match=rf"^{name}=a very long int must be"):
        Settings(**{name: 10**5000 - 1})


def test_paths_that_are_too_long_or_no_text_are_said_in_one_line_that_can_be_shown(tmp_path):
    save(tmp_path / "x-001", np.ones(99) / 2)
    report = json.loads((tmp_path / "x-001.json").read_text())
    for path in (400 * "a", 300 * "a/" + "b", 10**5 * "a", "caf\udce9", "two\nlines", "nul\0"):
        files = dict(STYLE_FILENAME=path), dict(CONTENT_FILENAME=path)
        files += (dict(recipe="gatys", param_pkl=path), dict(recipe="gatys", param_pkl="params/x", model_path=path))
        for change in files:
            (tmp_path / "y-001.json").write_text(json.dumps(report | {"settings": report["settings"] | change}))
            with pytest.raises(
                (ValueError, FileNotFoundError), match=r"not a file|no parameter file|no weights file"
            ) as error:
                saving.load_settings(tmp_path / "y-001.json").check_files()
            assert "\n" not in str(error.value) and len(str(error.value).encode()) < 700
        with pytest.raises(ValueError, match=r"y-001.json: start=.* is neither a file") as error:
            change = {"settings": report["settings"] | {"start": path}}
            (tmp_path / "y-001.json").write_text(json.dumps(report | change))
            saving.load_settings(tmp_path / "y-001.json")
        assert "\n" not in str(error.value) and len(str(error.value).encode()) < 700
        with pytest.raises(FileNotFoundError, match="is not a file") as error:
            saving.load_settings(path)
        assert "\n" not in str(error.value) and len(str(error.value).encode()) < 700


def test_a_new_name_gives_new_files(tmp_path):
    """After a run to its end; the files of the old name stay."""
    samples = 0.1 * torch.randn(2205, generator=torch.Generator().manual_seed(0))
    result = pipeline.Result(0, torch.zeros(1, 2, 1, 3), samples=samples, settings=Settings(outname="old"))
    stems = [saving.save_result(result, used={}, folder=tmp_path) for _ in range(2)]
    result.settings = Settings(outname="new")
    stems.append(saving.save_result(result, used={}, folder=tmp_path))
    assert [stem.name for stem in stems] == ["old-001", "old-001", "new-001"]
    assert sorted(each.name for each in tmp_path.glob("*.wav")) == ["new-001.wav", "old-001.wav"]


@pytest.mark.parametrize("same", [True, False])
def test_a_state_of_the_refinement_goes_on_where_the_image_gives_the_same_sound(same, tmp_path):
    """As in the notebook: "Optimisation" finds all steps done, and "Back to sound" gives the sound again."""
    image, sound = torch.zeros(1, 2, 1, 3), 0.1 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    result = pipeline.Result(0, image, settings=Settings(), history=[{"total": 1.0}] * 2)
    result.reconstructed(sound)
    result.samples.add_(0.01)
    result.refinement.append({"total": 0.5})
    saving.save_state(result, tmp_path / "half.pth")
    again = saving.load_state(tmp_path / "half.pth", like=pipeline.Result(0, image, settings=Settings()))
    assert again.begin(2) == 2
    again.reconstructed(sound.clone() if same else 2 * sound)
    kept = result.samples if same else 2 * sound
    assert torch.equal(again.samples, kept) and len(again.refinement) == same
    again.reconstructed(sound)  # run once more, it begins again
    assert torch.equal(again.samples, sound) and again.refinement == []
