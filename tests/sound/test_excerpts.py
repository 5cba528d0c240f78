"""Folders and long files as one style: which pieces a draw has, and that they are those of the files."""

import os
import re
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audiocnn
from support import pipeline
from support.desk.settings import Settings
from support.sound.excerpts import FADE, PIECE, excerpt, files_of, load

RATE = 8000
QUICK = dict(sample_rate=RATE, N_FFT=256, K_HOP=64, widths=[1, 4], filters=8, num_steps=4, refine_steps=4, redraw=2)


@pytest.fixture
def folder(tmp_path):
    """Three files: two of a constant tone each, whose frequency says which file and which second, and a short one."""
    (tmp_path / "deeper").mkdir()
    for name, seconds, first in (("a", 20, 100), ("deeper/b", 40, 1000), ("c", 0.5, 3000)):
        frequency = first + 20 * np.floor(np.arange(int(seconds * RATE)) / RATE)
        soundfile.write(tmp_path / f"{name}.wav", 0.3 * np.sin(2 * np.pi * np.cumsum(frequency) / RATE), RATE)
    (tmp_path / "notes.txt").write_text("no sound")
    return tmp_path


def test_every_sound_file_counts_by_its_length(folder):
    names = [str(folder / each) for each in ("a.wav", "c.wav", "deeper/b.wav")]
    assert files_of(folder) == dict(zip(names, (20.0, 0.5, 40.0), strict=True))
    pieces = [piece for draw in range(60) for piece in excerpt(folder, draw, duration=5.0, sample_rate=RATE)[0]]
    counts = [sum(path == name for path, _, _ in pieces) / len(pieces) for name in names]
    np.testing.assert_allclose(counts, np.array([20, 0.5, 40]) / 60.5, atol=0.08)
    offsets = [offset for path, offset, _ in pieces if path == names[2]]
    assert min(offsets) < 3 and max(offsets) > 36 and abs(np.mean(offsets) - 19.5) < 3
    assert all(seconds == (0.5 if path == names[1] else PIECE) for path, _, seconds in pieces)


def test_the_samples_are_those_of_the_pieces(folder):
    """The middle of each piece is the file's own sound at its place."""
    how = dict(duration=5.0, sample_rate=RATE)
    (pieces, samples), place = excerpt(folder, 3, **how), 0
    assert samples.shape == (5 * RATE,) and np.abs(samples).max() < 0.5
    for path, offset, seconds in pieces:
        recording, _ = soundfile.read(path)
        inner = slice(round(FADE * RATE), min(round((seconds - FADE) * RATE), len(samples) - place))
        first = round(offset * RATE)
        np.testing.assert_allclose(
            samples[place + inner.start : place + inner.stop],
            recording[first + inner.start : first + inner.stop],
            atol=1e-4,
        )
        place += round((seconds - FADE) * RATE)
        if place + inner.start >= len(samples):
            break
    np.testing.assert_array_equal(samples, excerpt(folder, 3, **how)[1])
    assert not np.array_equal(samples, excerpt(folder, 4, **how)[1])
    assert not np.array_equal(samples, excerpt(folder, 3, duration=5.0, sample_rate=RATE, seed=1)[1])
    assert excerpt(folder, 0, duration=1.5, sample_rate=RATE, mono=False)[1].shape == (2, 1.5 * RATE)


def test_one_long_file_needs_little_memory(tmp_path):
    """Ten minutes take as much as an excerpt."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(600 * RATE)
    soundfile.write(tmp_path / "long.wav", noise, RATE)
    tracemalloc.start()
    samples = load(tmp_path / "long.wav", offset=None, duration=5.0, sample_rate=RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(samples) == 5 * RATE and peak < 10 * samples.nbytes < noise.nbytes / 5


def test_silence_is_left_out(tmp_path):
    samples = np.zeros(20 * RATE)
    samples[15 * RATE : 18 * RATE] = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(tmp_path / "rare.wav", samples, RATE)
    assert all(14 < offset < 18 for _, offset, _ in excerpt(tmp_path, 0, duration=3.0, sample_rate=RATE)[0])
    soundfile.write(tmp_path / "rare.wav", 0 * samples, RATE)
    with pytest.raises(ValueError, match="is nearly silent, or its files are nearly empty; choose another folder"):
        excerpt(tmp_path, 0, duration=3.0, sample_rate=RATE)


def test_every_draw_has_the_style_of_its_excerpt(folder):
    """The target of a draw is that of an objective with this excerpt alone."""
    settings = Settings(**QUICK, STYLE_FILENAME=str(folder), duration=3.0)
    made = pipeline.parts(settings)
    load_images = lambda draw: pipeline.images_of_draw(settings.load, made.analysis, "cpu", draw)  # noqa: E731
    objective = pipeline.make_objective(made.images, made.networks, made.terms, redrawn=load_images)
    for draw in (0, 1, audiocnn.SAMPLES_DRAW):
        objective.draw(draw)
        samples = excerpt(folder, draw, duration=3.0, sample_rate=RATE)[1]
        style = made.analysis.to_image(made.analysis.spectrogram(samples))
        alone = audiocnn.Objective(made.networks(draw), made.terms, style=style)
        image = torch.rand(style.shape, generator=torch.Generator().manual_seed(1))
        expected = {name: float(value) for name, value in alone.evaluate(image)[0].items()}
        assert {name: float(value) for name, value in objective.evaluate(image)[0].items()} == expected


def test_a_run_with_a_folder_repeats(folder):
    settings = Settings(**QUICK, STYLE_FILENAME=str(folder), duration=2.0)
    first, again = pipeline.synthesise(settings), pipeline.synthesise(settings)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, pipeline.synthesise(settings.changed(redraw=3)))
    assert list(settings.excerpts([0, 1])["style 1"]) == ["0", "1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(duration=None), "duration=None must be a number"),
        (dict(runs=2), "runs=2 must be 1; sweep the seed"),
        (dict(where={"change": {"seconds": [[1, 2]]}}), "give one file and a number for offset"),
    ],
)
def test_what_needs_one_excerpt_is_refused(folder, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**{**dict(STYLE_FILENAME=str(folder), duration=2.0), **changes})
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**{**dict(STYLE_FILENAME=str(folder / "a.wav"), offset=None, duration=2.0), **changes})


def test_a_folder_without_sounds_and_a_fixed_network(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no sound file; put wav, flac, ogg or mp3 files into this folder"):
        Settings(STYLE_FILENAME=str(tmp_path / "empty")).check_files()
    with pytest.warns(UserWarning, match="one excerpt is drawn and stays, because no random networks are drawn again"):
        Settings(STYLE_FILENAME=str(folder), redraw=0, duration=2.0)
    with pytest.warns(UserWarning, match=r"offset=3\.0 has no effect, because excerpts of .* are drawn"):
        Settings(STYLE_FILENAME=str(folder), offset=3.0, duration=2.0)
    with pytest.raises(FileNotFoundError):
        Settings(STYLE_FILENAME=str(folder), CONTENT_FILENAME=str(folder)).check_files()


def spoil(path, how):
    """A file that can't be read, or only in part; what a stranger's folder may hold."""
    if how == "NaN":
        soundfile.write(path, np.full(30 * RATE, np.nan), RATE, subtype="FLOAT")
    elif how == "empty":
        soundfile.write(path, np.zeros(0), RATE)
    else:
        path.write_bytes({"text": b"This is a letter.", "macOS": bytes(4096)}[how])


@pytest.mark.parametrize(
    ("name", "how", "reason"),
    [
        ("letter.wav", "text", r"left out of the style: .*letter.wav is not a sound file"),
        ("silent.wav", "NaN", r"left out of the style: .*silent.wav .* holds NaN"),
        ("deeper/empty.wav", "empty", r"left out of the style: .*empty.wav says no length in its header"),
        ("._a.wav", "macOS", None),
        (".trash/a.wav", "text", None),
    ],
)
def test_a_bad_file_takes_no_others_with_it(name, how, reason, folder):
    """All others are heard, and a note names the file and the reason; what is hidden is not a sound of the folder."""
    good = files_of(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    spoil(folder / name, how)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Settings(STYLE_FILENAME=str(folder), duration=2.0).check_files()
        heard = {path for draw in range(20) for path, _, _ in excerpt(folder, draw, duration=5.0, sample_rate=RATE)[0]}
    assert set(list(good)[::2]) <= heard <= set(good)  # the short one is rarely drawn
    said = [str(each.message) for each in caught]
    assert all(re.match(reason, each) for each in said) if reason else said == []
    assert bool(said) == bool(reason)
    for path in good:
        os.remove(path)
    with pytest.raises(ValueError, match=re.escape(Path(name).name) if reason else "has no sound file; put wav"):
        excerpt(folder, 0, duration=5.0, sample_rate=RATE)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_in_a_folder_that_are_not_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(ValueError, match=r"the folder .*caf\? has no sound file") as error:
        files_of(os.fsdecode(folder))
    str(error.value).encode()  # can be shown
    soundfile.write(folder + b"/\xe9t\xe9.wav", 0.1 * np.random.default_rng(0).standard_normal(3 * RATE), RATE)
    settings = Settings(STYLE_FILENAME=os.fsdecode(folder), duration=2.0, sample_rate=RATE)
    settings.check_files()
    assert settings.load()["style 1"].shape == (2 * RATE,)
