"""The listening page in a browser, by a listener whose answers are known; and the analysis of answers."""

import base64
import csv
import io
import json
import os
import re

import numpy as np
import pytest
import scipy
import soundfile

from support.desk import listening, past, saving
from support.desk.settings import Settings
from support.sound.files import load_audio

RATE = 22050
SOUNDS = ("brook", "birds", "fire")
METHODS = {'Łódź, "a" & <b>': 0.5, "method_two": 0.1}  # levels
RATINGS = dict(zip([listening.REFERENCE, *METHODS, "noise"], (97, 71, 40, 12), strict=True))
STATE = """() => [...document.querySelectorAll('#desk audio')].map(audio =>
    [audio.closest('figure').dataset.id, audio.paused, audio.currentTime, audio.volume])"""
RATE_ALL = """values => { for (const figure of document.querySelectorAll('figure:has(input)')) {
    const input = figure.querySelector('input');
    if (!(figure.dataset.id in values)) continue;
    input.value = values[figure.dataset.id];
    input.dispatchEvent(new Event('input'));
} }"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths by sound and method: the recordings at two levels, with noise; and of the recordings."""
    folder = tmp_path_factory.mktemp("sounds")
    runs, recordings = {}, {}
    for seed, sound in enumerate(SOUNDS):
        recordings[sound] = f"samples/{sound}.flac"
        samples = load_audio(recordings[sound], sample_rate=RATE, duration=1.5)
        for number, (method, level) in enumerate(METHODS.items()):
            noise = np.random.default_rng(seed).standard_normal(len(samples))
            path = folder / f"{sound}{number}.wav"
            soundfile.write(path, 0.3 * level * (samples / samples.std() + noise) / 5, RATE)
            runs.setdefault(sound, {})[method] = path
    return runs, recordings


def make(files, tmp_path, **options):
    runs, recordings = files
    listening.page(runs, tmp_path / "page.html", reference=recordings, **options)
    return tmp_path / "page.html"


def content_of(path):
    """What the page holds, and its key: from the identity of a stimulus to its sound and method."""
    found = re.search(r"const PAGE = {\n(.*?)};\n", path.read_text(), re.S)[1]
    content = {name: json.loads(value) for name, value in re.findall(r"  (\w+): (.*),\n", found)}
    return content, json.loads(base64.b64decode(content["key"]))


def test_a_page_hides_the_names_and_holds_sounds_of_one_level_and_length(files, tmp_path):
    path = make(files, tmp_path)
    text = path.read_text()
    assert not [name for name in (*SOUNDS, "method_two", "noise") if name in text]
    assert not re.search(r"(?:src|href)=[\"'](?!data:)|https?://", text)  # it loads nothing
    content, key = content_of(path)
    assert len(content["trials"]) == 3 and len({each["reference"] for each in content["trials"]}) == 3
    for trial, sound in zip(content["trials"], SOUNDS, strict=True):
        assert sorted(key[each][1] for each in trial["stimuli"]) == sorted(RATINGS)
        decoded = {}
        for each in (trial["reference"], *trial["stimuli"]):
            data = base64.b64decode(content["sounds"][each].removeprefix("data:audio/flac;base64,"))
            decoded[each], _ = soundfile.read(io.BytesIO(data))
            assert key[each][0] == sound and len(decoded[each]) == int(1.5 * RATE)
        np.testing.assert_allclose([samples.std() for samples in decoded.values()], decoded[each].std(), rtol=0.01)
        assert max(np.abs(samples).max() for samples in decoded.values()) == pytest.approx(0.99, abs=0.001)
        by_method = {key[each][1]: samples for each, samples in decoded.items()}
        recording = load_audio(f"samples/{sound}.flac", sample_rate=RATE, duration=1.5)
        assert np.corrcoef(by_method["reference"], recording)[0, 1] > 0.9999  # nothing is lost
        spectra = [scipy.signal.welch(by_method[name], nperseg=512)[1] for name in ("reference", "noise")]
        assert np.corrcoef(np.log(spectra))[0, 1] > 0.95
        assert abs(np.corrcoef(by_method["noise"], recording)[0, 1]) < 0.2  # by chance 0.11, in a fire of low tones


def order_of(page):
    state = page.evaluate("state")
    return [(each["number"], *each["stimuli"]) for each in state["order"]]


def answer(page, values, tmp_path):
    """Rate every stimulus by its identity, from the present trial to the end, and download the answers."""
    while page.locator("#desk").count():
        assert page.locator("#next").is_disabled() or page.locator("text=not rated").count() == 0
        page.evaluate(RATE_ALL, values)
        page.locator("#next").click()
    with page.expect_download() as download:
        page.locator("#download").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_scripted_listeners_whose_answers_are_known(browser, files, tmp_path):
    """Two who hear well, in orders of their own, one of them with a reload; and one who is deaf."""
    path = make(files, tmp_path)
    _, key = content_of(path)
    csvs, orders = [], []
    for shift in (0, 2, -30):
        values = {each: RATINGS[method] + shift for each, (_, method) in key.items()}
        page = browser.new_context(accept_downloads=True).new_page()
        page.goto(path.as_uri())
        orders.append(order_of(page))
        if shift == 0:
            page.evaluate(RATE_ALL, values)
            page.locator("#next").click()
            page.evaluate(RATE_ALL, dict(list(values.items())[::2]))
            before = page.evaluate("state")
            page.reload()
            assert page.evaluate("state") == before and before["place"] == 1
            assert page.locator("#place").inner_text() == "2 of 3"
            page.locator("#back").click()
            assert page.locator("text=not rated").count() == 0
            shown = page.eval_on_selector_all(
                "figure:has(input)", "all => all.map(f => [f.dataset.id, f.children[2].value])"
            )
            assert {each: int(value) for each, value in shown} == {each: values[each] for each, _ in shown}
        csvs.append(answer(page, values, tmp_path))
    assert len({tuple(order) for order in orders}) == 3
    with csvs[0].open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["stimulus"]: [line["sound"], line["method"]] for line in lines}.items() <= key.items()
    assert {(line["sound"], line["method"], int(line["rating"])) for line in lines} == {
        (sound, method, rating) for sound in SOUNDS for method, rating in RATINGS.items()
    }
    rows, failed, figure = listening.result(csvs)
    deaf = csvs[2].stem.removeprefix("listening-")
    assert failed == {deaf: 1.0}
    found = {(row["method"], row["sound"]): row for row in rows}
    assert len(found) == 4 * 4
    for (method, _), row in found.items():
        assert row["mean"] == RATINGS[method] + 1 and row["listeners"] == 2
    assert figure.axes[0].get_ylim() == (0, 100)


def test_switching_by_keys_keeps_the_place(browser, files, tmp_path):
    page = browser.new_page()
    page.goto(make(files, tmp_path).as_uri())
    page.wait_for_function("[...document.querySelectorAll('audio')].every(audio => audio.readyState === 4)")
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('audio').currentTime > 0.4")
    page.keyboard.press("3")
    page.wait_for_function("!document.querySelectorAll('audio')[3].paused")
    state = page.evaluate(STATE)
    assert [paused for _, paused, _, _ in state] == [True, True, True, False, True]
    assert state[3][2] == pytest.approx(state[0][2], abs=0.15) and {volume for *_, volume in state} == {1}
    page.keyboard.press("0")
    page.wait_for_function("!document.querySelector('audio').paused")
    page.get_by_role("button", name="Sound 2").click()
    assert [paused for _, paused, _, _ in page.evaluate(STATE)] == [True, True, False, True, True]
    page.keyboard.press("Space")
    assert all(paused for _, paused, _, _ in page.evaluate(STATE))
    page.get_by_label("rating of Sound 2").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert page.locator("figure output").nth(1).inner_text() == "99"


def test_a_or_b(browser, files, tmp_path):
    """A listener who prefers by rank: in pairs of 4 stimuli, the best wins 3 of 3, the next one 2 of 3, and so on."""
    runs, recordings = files
    path = make(({"brook": runs["brook"]}, recordings), tmp_path, scale="ab")
    _, key = content_of(path)
    page = browser.new_context(accept_downloads=True).new_page()
    page.goto(path.as_uri())
    assert len(order_of(page)) == 6
    while page.locator("#desk").count():
        ids = page.eval_on_selector_all("figure:has(input)", "all => all.map(figure => figure.dataset.id)")
        best = max(ids, key=lambda each: RATINGS[key[each][1]])
        page.locator(f"[data-id='{min(ids, key=lambda each: RATINGS[key[each][1]])}'] input").check()
        page.locator(f"[data-id='{best}'] input").check()
        page.locator("#next").click()
    assert page.locator("#another").is_disabled()  # its click loses what is not downloaded
    rows, failed, _ = listening.result([answer(page, {}, tmp_path)])
    before = page.evaluate("state.listener")
    page.locator("#another").click()
    assert page.evaluate("state.place") == 0 and page.evaluate("state.ratings") == {}
    assert page.evaluate("state.listener") != before
    assert failed == {} and {row["method"]: row["mean"] for row in rows if row["sound"]} == pytest.approx(
        dict(zip(RATINGS, (1, 2 / 3, 1 / 3, 0), strict=True))
    )


def test_runs_are_sorted_by_sound_and_named_by_the_settings_that_differ(tmp_path):
    """Two seeds of one method are two stimuli; the reference is the excerpt of the style."""
    for number, (style, weight, seed) in enumerate(
        [("brook", 10, 0), ("brook", 10, 1), ("brook", 30, 0), ("fire", 30, 0)]
    ):
        settings = Settings(
            STYLE_FILENAME=f"samples/{style}.flac",
            CONTENT_FILENAME="samples/speech.flac",
            content_weight=weight,
            seed=seed,
            offset=1.0,
            duration=1.0,
        )
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, RATE)
        saving.save_run(tmp_path / f"r-{number:03}", samples, RATE, dict(settings=settings.plain(), losses=[], used={}))
    listening.page(past.find_runs(tmp_path), tmp_path / "page.html", anchors={})
    content, key = content_of(tmp_path / "page.html")
    found = [sorted(key[each] for each in trial["stimuli"]) for trial in content["trials"]]
    brook, fire = sorted(found)
    assert [method for _, method in brook] == ["content_weight = 10"] * 2 + ["content_weight = 30", "reference"]
    assert brook[0][0] == "speech in brook" and fire[0] == ["speech in fire", "content_weight = 30"]
    (reference,) = (trial["reference"] for trial in content["trials"] if key[trial["reference"]][0] == fire[0][0])
    data = base64.b64decode(content["sounds"][reference].removeprefix("data:audio/flac;base64,"))
    recording = load_audio("samples/fire.flac", sample_rate=RATE, offset=1.0, duration=1.0)
    assert np.corrcoef(soundfile.read(io.BytesIO(data))[0], recording)[0, 1] > 0.9999


def test_a_sound_of_two_channels_and_another_rate_beside_one_of_one_channel(tmp_path):
    """All get the highest rate; the root mean square is that of both channels."""
    generator = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", generator.uniform(-1, 1, (44100, 2)) * [0.4, 0.05], 44100)
    soundfile.write(tmp_path / "b.wav", generator.uniform(-0.2, 0.2, 22050), 22050)
    files = {"noise of two": {"a": tmp_path / "a.wav", "b": tmp_path / "b.wav"}}
    with pytest.warns(UserWarning, match="b.wav has one channel"):
        listening.page(files, tmp_path / "page.html", reference={"noise of two": tmp_path / "a.wav"})
    content, key = content_of(tmp_path / "page.html")
    squares = {}
    for each, (_, method) in key.items():
        data = base64.b64decode(content["sounds"][each].removeprefix("data:audio/flac;base64,"))
        samples, rate = soundfile.read(io.BytesIO(data))
        squares[method] = np.mean(samples**2)
        assert rate == 44100 and len(samples) == 44100
    assert set(squares) == {"a", "b", "reference", "noise"}
    np.testing.assert_allclose(list(squares.values()), squares["a"], rtol=0.01)


def test_what_a_page_needs(files, tmp_path):
    runs, recordings = files
    with pytest.raises(ValueError, match=r"no reference for 'brook'; give reference=\{'brook': 'its recording.wav'\}"):
        listening.page(runs, tmp_path / "page.html")
    with pytest.raises(ValueError, match="scale='webmushra' is unknown; choose one of mushra, five, ab"):
        make(files, tmp_path, scale="webmushra")
    for bad in ({}, {"brook": {"noise": runs["brook"]["method_two"]}}):
        with pytest.raises(ValueError, match="at least one run, and no method named noise or reference"):
            make((bad, recordings), tmp_path)
    assert not list(tmp_path.iterdir())


# The analysis ------------------------------------------------------------------------------------


def write(path, listener, ratings, scale="mushra", page="p"):
    """Answers of a listener: ratings by sound and method."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(listening.COLUMNS)
        for trial, (sound, by_method) in enumerate(ratings.items()):
            for method, rating in by_method.items():
                writer.writerow([page, listener, scale, trial, f"{sound}{method}", sound, method, rating])
    return path


def test_a_table_worked_out_by_hand(tmp_path):
    """Three listeners of two sounds. t for 2 degrees of freedom is 4.3027; of means 50, 60, 70, the error is 10 / √3.

    "a" on all sounds: means of (40, 60), (50, 70), (60, 80), so 60 and 4.3027 * 10 / √3 = 24.84 to both sides.
    """
    csvs = [
        write(tmp_path / f"{name}.csv", name, {"x": {"a": x, "reference": 90}, "y": {"a": y, "reference": 100}})
        for name, x, y in (("k", 40, 60), ("l", 50, 70), ("m", 60, 80))
    ]
    csvs.append(write(tmp_path / "n.csv", "n", {"x": {"a": 0, "reference": 89}, "y": {"a": 0, "reference": 100}}))
    rows, failed, _ = listening.result(csvs)
    assert failed == {"n": 0.5}
    found = {(row["method"], row["sound"]): [row["low"], row["mean"], row["high"], row["listeners"]] for row in rows}
    assert found["a", None] == pytest.approx([35.16, 60, 84.84, 3], abs=0.01)
    assert found["a", "x"] == pytest.approx([25.16, 50, 74.84, 3], abs=0.01)
    assert found["a", "y"] == pytest.approx([45.16, 70, 94.84, 3], abs=0.01)
    assert found["reference", None] == [95, 95, 95, 3]
    assert list(found) == [(method, sound) for sound in (None, "x", "y") for method in ("reference", "a")]
    assert listening.result(csvs, most_failed=0.5)[0][0]["listeners"] == 4


def test_intervals_are_those_of_scipy(tmp_path):
    ratings = np.random.default_rng(0).integers(1, 5, (12, 2)).tolist()
    csvs = [
        write(tmp_path / f"{n}.csv", str(n), {"x": {"a": a, "b": b, "reference": 4}}, scale="five")
        for n, (a, b) in enumerate(ratings)
    ]
    rows, failed, figure = listening.result(csvs)
    assert not failed and next(label.get_text() for label in figure.axes[0].get_xticklabels()) == "reference"
    for column, method in enumerate("ab"):
        values = [row[column] for row in ratings]
        expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        for row in rows:
            if row["method"] == method:
                assert (row["low"], row["high"]) == pytest.approx(tuple(expected))
    one = listening.result(csvs[:1])[0]
    assert all(np.isnan(row["low"]) and row["listeners"] == 1 for row in one)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_csv_that_a_spreadsheet_saved_again(encoding, delimiter, tmp_path):
    """Excel's "Unicode text" is UTF-16 with tabs."""
    path = write(tmp_path / "a.csv", "k", {"caf\u00e9": {"a": 40, "reference": 95}})
    expected = listening.result([path])[0]
    path.write_bytes(path.read_text(encoding="utf-8").replace(",", delimiter).encode(encoding))
    assert str(listening.result([path])[0]) == str(expected)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"\x00\xff\x80" * 99, b"\x00" * 99, b"a" * 200_000, b'"' + b"a" * 200_000, b"caf\xe9", b""],
)
def test_a_file_of_another_kind_is_named(content, tmp_path):
    (tmp_path / "no.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"no.csv is not a csv of a listening page") as error:
        listening.result([tmp_path / "no.csv"])
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    good = write(tmp_path / "long.csv", "k", {"x": {"a": 40, 200_000 * "b": 95}})
    with pytest.raises(ValueError, match=r"long.csv is not a csv of a listening page .field larger than"):
        listening.result([good])
    os.mkfifo(tmp_path / "fifo.csv")
    for path in (tmp_path / "fifo.csv", tmp_path / "gone.csv", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{path.name} is not a file"):
            listening.result([path])


def test_answers_that_can_not_be_used(tmp_path):
    good = write(tmp_path / "good.csv", "k", {"x": {"a": 40, "reference": 95}})
    high = write(tmp_path / "high.csv", "l", {"x": {"a": 101}})
    deaf = write(tmp_path / "deaf.csv", "m", {"x": {"reference": 10}})
    other = write(tmp_path / "other.csv", "n", {"x": {"reference": 5}}, scale="five")
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    for csvs, words in [
        ([good, good], "every file once"),
        ([], "there is no csv; give the paths"),
        ([good, other], "on one scale"),
        ([high], r"high.csv: a rating is not a whole number from 0 to 100; download"),
        ([tmp_path / "no.csv"], "no.csv is not a csv of a listening page; its columns must be page, listener"),
        ([deaf], r"no listener heard the hidden reference: \{'m': 1.0\}; ask others, or set most_failed=1"),
    ]:
        with pytest.raises(ValueError, match=words):
            listening.result(csvs)
