"""Training on tiny trees of real recordings; no test needs the training set."""

import csv
import os
import pickle
import re

import numpy as np
import pytest
import soundfile
import torch

import train
from support import layers, networks
from support.desk.settings import Settings
from support.sound.analysis import Analysis
from support.sound.files import load_audio
from support.sound.transforms import CQT, STFT

TREE = {"water": ("water_stream", "rain"), "music": ("piano", "guitar"), "drums": ("drum_loop", "tabla")}
TINY = ["--channels", "8", "6", "4", "--windows", "48", "--batch", "8", "--epochs", "2", "--patience", "9"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory, load):
    folder = tmp_path_factory.mktemp("sounds")
    for name, recordings in TREE.items():
        (folder / name).mkdir()
        for recording in recordings:
            for part, offset in enumerate((0.5, 2.0)):
                samples = load(recording, offset=offset, duration=1.5)
                soundfile.write(folder / name / f"{recording}__{part}.wav", samples, 22050)
    return folder


def run(tree, into, *arguments, name="tiny"):
    train.main([str(tree), "--name", name, "--into", str(into), *TINY, *arguments])


def losses(capsys):
    return [float(loss) for loss in re.findall(r"epoch \d+: loss ([\d.]+)", capsys.readouterr().out)]


OPTIONS = [
    ["--orientation", "freq"],
    ["--orientation", "time"],
    ["--orientation", "2D", "--kernelsize", "3"],
    ["--transform", "cqt", "--lowest-frequency", "82.4", "--octaves", "7", "--bins-per-octave", "24"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=["freq", "time", "2D", "cqt"])
def test_the_loss_falls_and_the_pair_loads(options, tree, tmp_path, capsys, load):
    run(tree, tmp_path, *options)
    first, second = losses(capsys)
    assert second < first
    parameters = networks.load_parameters(tmp_path / "params/tiny")
    network = networks.build_network(parameters, model_path=tmp_path / "models/tiny.pth")
    transform = STFT(sample_rate=22050, n_fft=1024, hop_length=256)
    if "cqt" in options:
        transform = CQT(sample_rate=22050, hop_length=128, bins_per_octave=24, fmin=82.4, n_octaves=7)
    samples = load("speech", duration=2.0)
    frames = 87 if parameters["orientation"] == "time" else None
    analysis = Analysis(transform=transform, power="log1p", layout=parameters["orientation"])
    image = analysis.to_image(analysis.spectrogram(samples)[:, :frames])
    networks.check_fit(parameters, parameters["orientation"], image)
    assert layers.layer_shapes(network, image)["relu_3"][1] == 4
    assert torch.isfinite(network.layer3(network.layer2(network.layer1(image)))).all()


def test_card(tree, tmp_path):
    run(tree, tmp_path)
    text = (tmp_path / "models/tiny.md").read_text()
    assert "| files to train / to validate, no recording in both | 6 / 6 |" in text
    assert "| chance | 33.3% |" in text and "--seed 0" in text and "tiny.png" in text
    top1 = float(re.search(r"top-1 accuracy \| ([\d.]+)%", text)[1])
    assert 0 <= top1 <= 100
    assert (tmp_path / "models/tiny.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "outputs/training").iterdir())  # the checkpoint has done its work


def test_an_interrupted_run_resumes_to_the_same_weights(tree, tmp_path, monkeypatch, capsys):
    run(tree, tmp_path / "whole", "--epochs", "3")
    validate, calls = train.validate, []

    def interrupt(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*arguments)

    monkeypatch.setattr(train, "validate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tree, tmp_path / "broken", "--epochs", "3")
    assert not (tmp_path / "broken/models").exists()
    with pytest.raises(SystemExit, match="was begun with other settings"):
        run(tree, tmp_path / "broken", "--epochs", "4")
    (checkpoint,) = (tmp_path / "broken/outputs/training").iterdir()
    kept = checkpoint.read_bytes()
    deep = b"\x80\x02N." * 3 + b"\x80\x02})" + 2 * 10**5 * b"\x85" + b"K\x01s."  # such a key ends torch.load's process
    for damaged in (b"", b"no checkpoint", kept[: len(kept) // 2], pickle.dumps(os.getcwd, protocol=2), deep):
        checkpoint.write_bytes(damaged)
        with pytest.raises(SystemExit, match=r"^.*tiny.checkpoint can't be read: .*; remove it to start again$"):
            run(tree, tmp_path / "broken", "--epochs", "3")
    checkpoint.write_bytes(kept)
    capsys.readouterr()
    monkeypatch.setattr(train, "validate", validate)
    run(tree, tmp_path / "broken", "--epochs", "3")
    assert len(losses(capsys)) == 2  # the first epoch was not done again
    weights = [torch.load(tmp_path / part / "models/tiny.pth", weights_only=True) for part in ("whole", "broken")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_wrong_pair_is_refused(tree, tmp_path):
    run(tree, tmp_path, name="one")
    run(tree, tmp_path, "--orientation", "time", name="two")
    with pytest.raises(ValueError, match=r"(?s)two.pth holds no weights .* that fit.*layer1.0.weight"):
        networks.build_network(
            networks.load_parameters(tmp_path / "params/one"), model_path=tmp_path / "models/two.pth"
        )


def test_esc50_layout(tmp_path, load):
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    with open(tmp_path / "meta/esc50.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        for number, (name, category) in enumerate([("rain", "rain"), ("dog", "dog"), ("rain", "rain"), ("dog", "dog")]):
            fold = 1 + number // 2
            soundfile.write(tmp_path / f"audio/{fold}-{number}-A-0.wav", load(name, offset=number, duration=1.2), 22050)
            writer.writerow([f"{fold}-{number}-A-0.wav", fold, number % 2, category, "True", number, "A"])
    clips, names = train.list_clips(tmp_path, seed=0, held_out=0.2, fold=2)
    assert names == ["dog", "rain"]
    found = [(clip.path.name, names[clip.label], clip.validation) for clip in clips]
    assert found == [
        ("1-0-A-0.wav", "rain", False),
        ("1-1-A-0.wav", "dog", False),
        ("2-2-A-0.wav", "rain", True),
        ("2-3-A-0.wav", "dog", True),
    ]
    run(tmp_path, tmp_path / "into", "--fold", "2", "--epochs", "1")
    assert (tmp_path / "into/models/tiny.pth").exists()


def test_no_recording_is_on_both_sides(tree):
    for seed in range(5):
        clips, names = train.list_clips(tree, seed=seed, held_out=0.2, fold=5)
        sides = {}
        for clip in clips:
            sides.setdefault((names[clip.label], clip.path.stem.split("__")[0]), set()).add(clip.validation)
        assert len(sides) == 6 and all(len(side) == 1 for side in sides.values())
        assert sum(True in side for side in sides.values()) == 3  # one of two in every class


def test_bad_folders(tmp_path, load):
    with pytest.raises(SystemExit, match="nowhere is not a folder"):
        run(tmp_path / "nowhere", tmp_path)
    sounds = tmp_path / "sounds"
    (sounds / "one").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"class .*one holds no sound files"):
        run(sounds, tmp_path)
    soundfile.write(sounds / "one/a.wav", load("dog", duration=1.5), 22050)
    with pytest.raises(SystemExit, match="holds 1 class; a classifier needs at least two"):
        run(sounds, tmp_path)
    (sounds / "two").mkdir()
    (sounds / "two/broken.wav").write_text("no sound")
    with pytest.raises(SystemExit, match="no readable file is left to train the class two"), pytest.warns(UserWarning):
        run(sounds, tmp_path)


def test_unreadable_and_short_files_are_counted(tree, tmp_path, load):
    sounds = tmp_path / "sounds"
    for name in ("dog", "cat"):
        (sounds / name).mkdir(parents=True)
        for part in (0, 1):
            soundfile.write(sounds / name / f"{part}.wav", load(name, offset=0.2 + part, duration=0.7), 22050)
    (sounds / "dog/broken.wav").write_bytes(b"RIFF")
    (sounds / "dog/notes.txt").write_text("no sound, and not counted")
    with pytest.warns(UserWarning) as warned:
        run(sounds, tmp_path, "--epochs", "1")
    messages = [str(warning.message) for warning in warned]
    assert any("left out 1 of 5 files" in message and "broken.wav" in message for message in messages)
    assert any("4 of 4 files are shorter than 1.0 s: padded" in message for message in messages)
    assert (tmp_path / "models/tiny.pth").exists()


def test_windows_are_what_the_notebook_shows(tree):
    """The image of a window, at full level, is the notebook's image of the same sound."""
    settings = train.parse_arguments([str(tree), "--name", "x"])
    settings.hop_length = 256
    samples = load_audio(tree / "music/piano__0.wav", sample_rate=22050)
    analysis = Settings(recipe="gatys").make_analysis()
    expected = analysis.to_image(analysis.spectrogram(samples))[..., 10:97]
    image = train.make_image(analysis.transform.magnitude(samples).astype(np.float16), 10, settings)
    torch.testing.assert_close(image, expected, rtol=1e-3, atol=1e-4)


def test_help(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    assert "ESC-50" in text and "--resume" not in text and "by recording" in text


def test_normalising_changes_the_scale_and_not_the_output(parameters):
    torch.manual_seed(0)
    network, untrained = networks.build_network(parameters, seed=1), networks.build_network(parameters, seed=2)
    network.layer2[1].weight *= 40
    network.layer2[1].running_mean += 0.01
    images = torch.rand(16, 20, 1, 64)
    before = network(images)
    train.normalise(network, untrained, images)
    torch.testing.assert_close(network(images), before, rtol=1e-3, atol=1e-5)
    ours, theirs = images, images
    for block in ("layer1", "layer2", "layer3"):
        ours, theirs = getattr(network, block)(ours), getattr(untrained, block)(theirs)
        assert ours.square().mean().item() == pytest.approx(theirs.square().mean().item(), rel=1e-3)
