"""A folder of results in which strangers, crashes and other runs left things: no file costs another file its place."""

import base64
import copy
import io
import json
import os
import random
import re
import resource
import signal
import struct
import tracemalloc
import warnings
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile
from bs4 import BeautifulSoup
from matplotlib import image

from support.desk import grid, past, saving, table
from support.desk.settings import Settings

RATE = 22050
NAMES = ["first-001", "second-001", "third-001"]
VALUES = [
    None,
    True,
    -1,
    1.5,
    10**30,
    1e308,
    float("nan"),
    "x",
    "\ud800",
    "</script>",
    [],
    [3],
    [[1]],
    {},
    {"a": 1},
    [{}],
]
VALUES += [json.loads("[" * 60 + "]" * 60)]


@pytest.fixture(autouse=True)
def nothing_hangs():
    """A read that never ends, as of a FIFO, ends the test instead."""

    def end(*_):
        raise TimeoutError("a file is read without end")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def save(folder, stem, seconds=0.3, channels=1, **settings):
    """Save a run as the notebooks do, of noise, with all that a report may hold."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, int(seconds * RATE))).squeeze()
    losses = [{"style conv_2": 1.0 / step, "total": 1.5 / step} for step in range(1, 4)]
    used = {"whole_losses": losses[0], "not_in_settings": ["terms"], "optimizer_began_after_steps": [0, 2]}
    settings = Settings(outname=stem.rpartition("-")[0], own={"my_weight": 2.0}, **settings)
    saving.save_run(folder / stem, samples, RATE, dict(settings=settings.plain(), losses=losses, used=used))


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(NAMES):
        save(tmp_path, name, seed=seed)
    return tmp_path


def runs_of(html):
    """Names of the rows of a table, each with whether it has a player."""
    rows = BeautifulSoup(html, "html.parser").find("tbody").find_all("tr")
    return {row.th.get_text(): row.find("audio") is not None for row in rows}


def check(folder, damaged="second-001"):
    """Everything that reads the folder shows the other runs, and the damaged one names its file or can be read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = table.table_of_runs(folder).data
        text.encode()  # as the kernel sends it
        shown = runs_of(text)
        if find_spec("pandas"):
            past.frame_of_runs(folder)
        reports = [{"outname": name[:-4], "settings": {"seed": n}} for n, name in enumerate(NAMES)]
        table.write_page(past.find_runs(folder), folder / "page.html", kind="ogg")
        assert (folder / "page.html").read_text().count("<audio") >= 2
        assert grid.grid_of_sweep(reports, {"seed": [0, 1, 2]}, folder=folder).data.count("<audio") >= 2
    assert all(shown[name] for name in NAMES if name != damaged), shown
    files = [folder / f"{damaged}{ending}" for ending in (".json", ".wav")]
    told = [str(each.message) for each in caught if damaged in str(each.message)]
    assert damaged in shown or told or not all(path.is_file() and not path.is_symlink() for path in files)
    with warnings.catch_warnings(action="ignore"):
        try:
            saving.load_settings(folder / f"{damaged}.json")
        except (ValueError, FileNotFoundError) as error:
            assert damaged in str(error) and "\n" not in str(error)


def places(value, path=()):
    """Every place in the content of a json, as a tuple of keys."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from places(each, (*path, key))


@pytest.mark.parametrize("seed", range(4))
def test_a_value_of_another_type_anywhere_in_a_json(seed, folder):
    """50 random places of a real report and random values in each of four runs of this test."""
    path, choice = folder / "second-001.json", random.Random(seed)
    report = json.loads(path.read_text())
    everywhere = [each for each in places(report) if each]
    for _ in range(50):
        damaged, (*keys, last) = copy.deepcopy(report), choice.choice(everywhere)
        inner = damaged
        for key in keys:
            inner = inner[key]
        inner[last] = choice.choice(VALUES)
        path.write_text(json.dumps(damaged))
        check(folder)


@pytest.mark.parametrize("ending", [".json", ".wav"])
def test_bytes_that_are_changed_lost_or_added(ending, folder):
    """100 random damages of a file; half of them in its first 200 bytes, where a header is."""
    path, choice = folder / f"second-001{ending}", random.Random(1)
    content = path.read_bytes()
    for number in range(100):
        place, length = choice.randrange(200 if number % 2 else len(content)), choice.choice([1, 4, 40])
        new = [b"", choice.randbytes(length), b"\xff" * length, content[:place] + choice.randbytes(3)]
        path.write_bytes(content[:place] + choice.choice(new) + content[place + choice.choice([0, 1, 4, 5000]) :])
        check(folder)


@pytest.mark.parametrize("rate", [1, 1000, 44101, 200_001, 384_000, 10**6, 2**31 - 1])
def test_a_header_with_any_sample_rate(rate, folder):
    """No encoder of ogg or mp3 takes all of these; the players then hold wav with every sample."""
    samples, _ = soundfile.read(folder / "second-001.wav")
    soundfile.write(folder / "second-001.wav", samples, rate)
    check(folder)
    for kind in ("ogg", "mp3"):
        table.write_page(past.find_runs(folder), folder / "page.html", kind=kind)
        players = BeautifulSoup((folder / "page.html").read_text(), "html.parser").find_all("audio")
        (source,) = [each["src"] for each in players if each["aria-label"] == "second-001"]
        heard, found = soundfile.read(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert found == rate and heard.shape == samples.shape
        if kind == "mp3" or rate > 200_000:
            np.testing.assert_array_equal(heard, samples)


def picture(points, width=60, height=40):
    """A png whose header promises a width and a height."""
    stream = io.BytesIO()
    image.imsave(stream, points, format="png")
    content = stream.getvalue()
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def test_a_picture_that_is_damaged_or_huge_is_left_out(folder):
    """Beside the others; a picture of 13,000 x 13,000 points took 20 s and 3 GB."""
    points = np.random.default_rng(0).random((40, 60))
    whole, choice = picture(points), random.Random(2)
    assert len(image.imread(io.BytesIO(whole))) == 40
    (folder / "first-001-spectrograms.png").write_bytes(whole)
    saved, runs = folder / "second-001-spectrograms.png", past.find_runs(folder)
    contents = [b"", whole[:200], whole[:-20], b"GIF89a" + bytes(30), b"<svg/>", picture(points, 0, 0)]
    contents += [picture(points, 13_000, 13_000), picture(points, 50_000, 50_000), picture(points, 2**31 - 1, 1)]
    for _ in range(40):
        place = choice.randrange(len(whole))
        contents.append(whole[:place] + choice.randbytes(4) + whole[place + choice.choice([0, 4, 50]) :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in contents:
        saved.write_bytes(content)
        table.write_page(runs, folder / "page.html", kind="ogg")
        first, second = (figure_of(folder / "page.html", name) for name in ("first-001", "second-001"))
        assert first.img and first.audio and second.audio
        assert bool(second.img) != ("second-001-spectrograms.png is damaged or too large" in second.get_text())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2e5  # kB
    replace(saved, "fifo")
    table.write_page(runs, folder / "page.html", kind="ogg")
    assert figure_of(folder / "page.html", "second-001").img  # the small picture of the sound


def figure_of(page, name):
    """The card of a run in a page."""
    figures = BeautifulSoup(page.read_text(), "html.parser").find_all("figure")
    return next(each for each in figures if each.figcaption.get_text() == name)


def replace(path, kind):
    """Put something else in the place of a file."""
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "nothing":
        return
    else:
        path.symlink_to({"itself": path, "device": "/dev/zero", "nowhere": "gone"}[kind])


@pytest.mark.parametrize("ending", [".json", ".wav"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "nothing", "itself", "device", "nowhere"])
def test_something_else_in_the_place_of_a_file(kind, ending, folder):
    replace(folder / f"second-001{ending}", kind)
    check(folder)
    assert "second-001" not in runs_of(table.table_of_runs(folder).data)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"settings": ' * 900 + "1" + "}" * 900, '{"settings": 9' + "9" * 5000]
)
def test_a_json_that_is_deep_or_endless(text, folder):
    (folder / "second-001.json").write_text(text)
    check(folder)


def test_a_json_of_gigabytes_is_not_read(folder):
    with (folder / "second-001.json").open("wb") as file:
        file.truncate(2**33)
    tracemalloc.start()
    check(folder)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


def test_a_link_shows_no_other_file(folder):
    """A link named as a sound, to a file of the machine, and to a sound that may be private."""
    soundfile.write(folder / "private.flac", np.ones(99), RATE)
    for target in ("/etc/hostname", folder / "private.flac", folder / "first-001.wav"):
        (folder / "second-001.wav").unlink()
        (folder / "second-001.wav").symlink_to(target)
        check(folder)
        assert "second-001" not in runs_of(table.table_of_runs(folder).data)


@pytest.mark.parametrize("form", ["FLAC", "OGG", "AIFF"])
def test_a_sound_of_another_kind_under_the_name_of_a_wav(form, folder):
    soundfile.write(folder / "second-001.wav", np.ones(999) / 2, RATE, format=form)
    check(folder)
    assert not runs_of(table.table_of_runs(folder).data)["second-001"]


def test_a_sound_that_another_run_removes_meanwhile(folder, monkeypatch):
    """Between the list of the runs and their players: as the runs of a sweep remove their drafts."""
    found = past.find_runs(folder)
    monkeypatch.setattr(past, "find_runs", lambda *_, **__: found)
    (folder / "second-001.wav").unlink()
    (folder / "second-001.json").unlink()
    assert runs_of(table.table_of_runs(folder).data) == {"first-001": True, "second-001": False, "third-001": True}


def test_names_and_values_are_text_not_code(folder):
    """In names of files, of settings and of losses; and a name that is not text in any encoding."""
    evil = "<img src=x onerror=alert(1)>"
    for number, name in enumerate([f"{evil}'\"-001".replace("/", ""), os.fsdecode(b"caf\xe9-001")]):
        save(folder, name.encode(errors="replace").decode(), seed=7 + number)
        report = json.loads((folder / "first-001.json").read_text())
        report["settings"] |= {"STYLE_FILENAME": evil, evil: 3}
        report["losses"] = [{evil: 1.0, "total": 1.0}]
        (folder / f"{name}.json").write_text(json.dumps(report))
        (folder / f"{name}.wav").write_bytes((folder / "first-001.wav").read_bytes())
    html = BeautifulSoup(table.table_of_runs(folder).data, "html.parser")
    assert not [image for image in html.find_all("img") if not image["src"].startswith("data:image/png;")]
    assert not [tag for tag in html.find_all(True) if any(name.startswith("on") for name in tag.attrs)]
    assert html.get_text().count(evil) > 3 and "caf?-001" in html.get_text()


def test_a_table_of_long_sounds_is_below_20_megabytes(folder):
    """20 runs of noise, which can be compressed least, each of 60 s in stereo; what takes more place is cut."""
    save(folder, "long-001", seconds=60, channels=2, seed=5)
    save(folder, "longer-001", seconds=150, channels=2, seed=6)
    for seed, words in ((5, ""), (6, r"the first \d+ s")):
        (row,) = BeautifulSoup(table.table_of_runs(folder, seed=seed).data, "html.parser").tbody.find_all("tr")
        assert 20 * len(str(row)) < 20e6 and re.fullmatch(words, row.find_all("td")[0].get_text())


def test_a_long_sound_is_heard_as_it_is(folder):
    """Compressed, the sine has its pitch and its level."""
    sine = 0.5 * np.sin(2 * np.pi * 441 * np.arange(40 * RATE) / RATE)
    saving.save_run(folder / "sine-001", sine, RATE, dict(settings=Settings(seed=5).plain(), losses=[], used={}))
    source = BeautifulSoup(table.table_of_runs(folder, seed=5).data, "html.parser").audio["src"]
    kind, data = source.split(";base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:audio/ogg" and rate == RATE and len(samples) == 40 * RATE
    assert np.abs(np.fft.rfft(samples)).argmax() == 441 * 40
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
