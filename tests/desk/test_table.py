"""The table of runs and the grid of a sweep, as a browser shows them."""

import base64
import io
import itertools
import json
import os
import time

import nbformat
import numpy as np
import pytest
import soundfile
from bs4 import BeautifulSoup
from matplotlib import image
from nbconvert import HTMLExporter

from support.desk import grid, past, pictures, saving, table
from support.desk.settings import Settings
from support.sound import transforms
from support.sound.analysis import Analysis

RATE = 22050


def sine(hertz, seconds=1.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


def save(folder, stem, samples, *, age=0, losses=None, whole=None, style_distance=None, **settings):
    """Save a run as the notebooks do; whole: the losses that count as 100 %, which earlier versions did not save."""
    used = dict(whole_losses=whole, style_distance=style_distance)
    used = {name: value for name, value in used.items() if value is not None}
    report = dict(losses=losses or [{"total": 1.0}], used=used)
    report["settings"] = Settings(**settings).plain()
    for path in saving.save_run(folder / stem, samples, RATE, report):
        os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def folder(tmp_path):
    """Four runs, newest first: low, middle, high, <b>; losses and weights are in other orders."""
    transfer = dict(CONTENT_FILENAME="speech.wav", seed=3)
    for age, (name, hertz, weight, loss, distance) in enumerate(
        [
            ("low", 500, 10, 20.0, 2.5),
            ("middle", 3000, 9, 3.0, 10.25),
            ("high", 9000, 100, 100.0, 0.75),
            ("<b>", 500, 9.5, 0.004, None),
        ]
    ):
        losses = [{"style conv_2": 7.0, "total": 900.0}, {"style conv_2": loss / 2, "total": loss}]
        used = dict(whole={"style conv_2": 40.0, "total": 50.0}, style_distance=distance)
        how = dict(age=age, losses=losses, **used)
        save(tmp_path, name, sine(hertz), content_weight=weight, outname="x", **how, **transfer)
    return tmp_path


def cells(text):
    """Texts of the cells of the first table, row by row."""
    rows = BeautifulSoup(text, "html.parser").find("table").find_all("tr")
    return [[cell.get_text(" ", strip=True) for cell in row.find_all(["th", "td"])] for row in rows]


def test_the_table_holds_everything_without_a_script(folder):
    heads, *rows = cells(table.table_of_runs(folder).data)
    heads = [head.replace("_ ", "_") for head in heads]  # a line may end there
    first = ["run", "sound", "spectrogram", "distance to the style [dB]", "loss"]
    assert heads == [*first, "content_weight", "level [dBFS]", "saved"]
    assert [row[0] for row in rows] == ["low", "middle", "high", "<b>"]
    assert [row[5] for row in rows] == [f"content_weight = {weight}" for weight in ("10", "9", "100", "9.5")]
    assert [row[4] for row in rows[:2]] == ["40 % style conv_2 25 %", "6 % style conv_2 3.8 %"]
    assert [row[3] for row in rows] == ["2.5", "10.25", "0.75", ""]
    assert rows[0][6] == "-9.03"  # of a sine with peak 0.5
    assert table.table_of_runs(folder, last=1).data.count("<audio") == 1
    assert cells(table.table_of_runs(folder, content_weight=9).data)[1][0] == "middle"
    assert table.table_of_runs(folder, names=["x"], last=1).data.count("<audio") == 4
    assert "<audio" not in table.table_of_runs(folder / "nothing").data


def test_losses_of_an_earlier_version_are_numbers_below_the_shares(tmp_path):
    """A run that saved no losses of its start, and a loss that began at 0: of the total, as in the notebook."""
    save(tmp_path, "earlier", sine(500), losses=[{"style conv_2": 0.2, "total": 0.25}])
    whole = {"bound input": 2.0, "total": 2.0}
    save(tmp_path, "later", sine(500), age=9, losses=[{"bound input": 0.01, "total": 1.0}], whole=whole)
    save(tmp_path, "no step", sine(500), age=99, losses=[{}])
    rows = BeautifulSoup(table.table_of_runs(tmp_path).data, "html.parser").tbody.find_all("tr")
    found = [[cell.get_text(" ", strip=True) for cell in row.find_all("td")] for row in rows]
    assert [row[3] for row in found] == ["0.25 style conv_2 0.2", "50 % bound input 0.5 %", ""]
    assert [json.loads(row["data-keys"])[2] for row in rows] == ["", 0.5, ""]  # texts are sorted below numbers


def test_players_and_thumbnails_are_those_of_their_run(folder):
    rows = BeautifulSoup(table.table_of_runs(folder).data, "html.parser").tbody.find_all("tr")
    brightest = []
    for row, hertz in zip(rows, (500, 3000, 9000, 500), strict=True):
        name = row.th.get_text()
        samples, rate = soundfile.read(decoded(row.audio["src"], "data:audio/ogg;base64,"))
        assert np.square(samples - sine(hertz)).mean() < 0.003 * np.square(sine(hertz)).mean()  # 25 dB
        assert rate == RATE and row.audio["aria-label"] == name and row.img["alt"] == f"spectrogram of {name}"
        pixels = image.imread(decoded(row.img["src"], "data:image/png;base64,"))[..., :3].sum(axis=-1)
        assert pixels.shape == (64, 160)
        brightest.append(1 - np.median(pixels.argmax(axis=0)) / 64)  # as a share of the height, from below
    np.testing.assert_allclose(brightest, np.array([500, 3000, 9000, 500]) / (RATE / 2), atol=0.03)


def decoded(source, kind):
    assert source.startswith(kind)
    return io.BytesIO(base64.b64decode(source.removeprefix(kind)))


def test_a_short_sound_and_a_broken_one(tmp_path):
    save(tmp_path, "short", sine(500, 0.01))
    save(tmp_path, "broken", sine(500))
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    text = table.table_of_runs(tmp_path).data
    assert text.count("<img") == 1 and "no sound file" in text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"conv_1": 1.0, "conv_2": 1}, "conv_1, conv_2"),
        ({"conv_1": 0.5}, "conv_1 0.5"),
        ([1, 2, 4], "1, 2, 4"),
        (1e7, "10000000"),
        (0.123456789, "0.123456789"),
        ([], "none"),
        ({}, "none"),
        (None, "None"),
        (True, "True"),
        ("a.wav", "a.wav"),
    ],
)
def test_values_in_words(value, words):
    assert table.in_words(value) == words


# The page ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A page of 12 runs of 5 s of noise, which is compressed least; all but the last with the pictures of a run."""
    folder = tmp_path_factory.mktemp("shared")
    analysis = Analysis(transform=transforms.STFT(sample_rate=RATE, n_fft=512, hop_length=128))
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 5 * RATE)).astype(np.float32)
    panels = {f"noise {number}": analysis.spectrogram(samples) for number, samples in enumerate(noise)}
    figure = pictures.plot_spectrograms(panels, analysis.transform, difference=("noise 0", "noise 1"))
    for number in range(12):
        generator = np.random.default_rng(number)
        samples = (number + 1) / 30 * generator.uniform(-1, 1, 5 * RATE)
        how = dict(losses=[{"total": 3.0}], whole={"total": 30.0}, STYLE_FILENAME="samples/<fire>.flac")
        how |= dict(style_distance=0.5 + number) if number else {}
        save(folder, f"run-{number:03}", samples, age=100 * number, seed=number, filters=80 + number % 2, **how)
        if number < 11:
            saving.save_figures(folder / f"run-{number:03}", {"spectrograms": figure})
    table.write_page(past.find_runs(folder), folder / "page.html", title="$cards <1>")
    return folder


@pytest.mark.slow
def test_a_page_to_share_holds_everything_in_less_than_10_megabytes(shared):
    text = (shared / "page.html").read_text()
    assert len(text) < 10e6 and "http" not in text
    html = BeautifulSoup(text, "html.parser")
    assert html.h1.get_text() == html.title.get_text() == "$cards <1>"
    figures = html.find_all("figure")
    assert len(figures) == 12
    for number, figure in enumerate(figures):
        words = list(figure.stripped_strings)
        distance = [f"distance to the style {0.5 + number} dB"] * (number > 0)  # an earlier version saved none
        assert words == [f"run-{number:03}", *distance, "loss 10 %", f"filters = {80 + number % 2}", f"seed = {number}"]
        samples, rate = soundfile.read(decoded(figure.audio["src"], "data:audio/mpeg;base64,"))
        original, _ = soundfile.read(shared / f"run-{number:03}.wav")
        assert rate == RATE and np.corrcoef(samples, original)[0, 1] > 0.8
        assert float(figure["data-gain"]) == pytest.approx(1 / (number + 1), rel=0.01)
        pixels = image.imread(decoded(figure.img["src"], "data:image/png;base64,"))[..., :3]
        if number < 11:
            whole = image.imread(shared / f"run-{number:03}-spectrograms.png")[..., :3]
            assert pixels.shape == whole.shape and np.abs(pixels - whole).mean() < 0.01
        else:
            assert pixels.shape == (64, 160, 3)
    with pytest.raises(ValueError, match="no run to write; choose other runs"):
        table.write_page({}, shared / "none.html")


def test_a_page_to_share_plays_and_switches(shared, browser):
    page = browser.new_page()
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto((shared / "page.html").as_uri())
    page.wait_for_function("[...document.querySelectorAll('audio')].every(audio => audio.readyState === 4)")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="run-007").click()
    page.wait_for_function("document.querySelectorAll('audio')[7].currentTime > 0.2")
    playing = page.evaluate("[...document.querySelectorAll('audio')].map(audio => !audio.paused)")
    assert playing == [number == 7 for number in range(12)]


# The grid ----------------------------------------------------------------------------------------


def sweep_of(folder, sweep, **failed):
    """Reports of a sweep whose runs are saved, but for those that failed, by their number."""
    reports = []
    for number, values in enumerate(itertools.product(*sweep.values())):
        point = dict(zip(sweep, values, strict=True))
        report = {"outname": f"s-{number}", "settings": {"recipe": "bands"} | point, "progress": "done"}
        if f"run_{number}" in failed:
            report |= {"failed": failed[f"run_{number}"], "progress": "failed"}
        else:
            how = dict(losses=[{"total": 10.0 + number}], whole={"total": 100.0})
            save(folder, f"s-{number}-001", sine(500), outname=f"s-{number}", **how, **point)
        reports.append(report)
    return reports[::-1]  # runs end in any order


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        (
            {"filters": [8, 16, 24], "seed": [5, 6]},
            [
                ["filters = 8", "filters = 16", "filters = 24"],
                ["seed = 5", "10 %", "12 %", "14 %"],
                ["seed = 6", "11 %", "13 %", "15 %"],
            ],
        ),
    ],
)
def test_a_grid_has_every_run_at_its_place(sweep, expected, tmp_path):
    text = grid.grid_of_sweep(sweep_of(tmp_path, sweep), sweep, folder=tmp_path).data
    assert [[cell.split("loss ")[-1] for cell in row if cell] for row in cells(text)] == expected
    assert text.count("<audio") == text.count("<img") == sum("loss" in cell for row in cells(text) for cell in row)


def test_the_runs_of_one_setting_stand_in_lines_that_wrap(tmp_path):
    sweep = {"seed": [0, 1, 2]}
    text = grid.grid_of_sweep(sweep_of(tmp_path, sweep), sweep, folder=tmp_path).data
    assert cards(text) == [(f"seed = {seed}", f"loss 1{seed} %") for seed in range(3)] and "<table" not in text


def cards(text):
    """The first and the last line of each place of the grid of one setting."""
    found = BeautifulSoup(text, "html.parser").find_all("b")
    return [(each.get_text(), list(each.parent.stripped_strings)[-1]) for each in found]


def test_the_buttons_of_a_grid_name_the_values_in_the_order_of_the_players(tmp_path):
    """And bring all to the level of the quietest run: the sines have peaks of 0.5, 0.25 and 0.1, one run failed."""
    sweep, reports = {"seed": [0, 1], "power": [0.5, 0.3]}, []
    for number, (seed, power, peak) in enumerate([(0, 0.5, 0.5), (1, 0.5, 0.25), (0, 0.3, 0), (1, 0.3, 0.1)]):
        values = dict(seed=seed, power=power)
        reports.append({"outname": f"g-{number}", "settings": values} | ({} if peak else {"failed": "a reason"}))
        if peak:
            save(tmp_path, f"g-{number}-001", 2 * peak * sine(500), outname=f"g-{number}", **values)
    html = BeautifulSoup(grid.grid_of_sweep(reports[::-1], sweep, folder=tmp_path).data, "html.parser")
    buttons = [button.get_text() for button in html.find_all("button", attrs={"aria-pressed": True})]
    assert buttons == ["seed = 0, power = 0.5", "seed = 1, power = 0.5", "seed = 1, power = 0.3"]
    figures = [player.find_parent("figure") for player in html.find_all("audio")]
    assert [figure.figcaption.get_text() for figure in figures] == ["g-0-001", "g-1-001", "g-3-001"]
    np.testing.assert_allclose([float(each["data-gain"]) for each in figures], [0.2, 0.4, 1], rtol=2e-3)


def test_a_grid_for_each_combination_of_further_settings(tmp_path):
    sweep = {"seed": [0, 1], "widths": [[1, 8], [1]], "power": [0.5, "log1p"], "filters": [8]}
    text = grid.grid_of_sweep(sweep_of(tmp_path, sweep), sweep, folder=tmp_path).data
    grids = BeautifulSoup(text, "html.parser").find_all("table")
    assert [each.caption.get_text() for each in grids] == ["power = 0.5, filters = 8", "power = log1p, filters = 8"]
    second = [[cell.split("loss ")[-1] for cell in row if cell] for row in cells(str(grids[1]))]
    assert second == [["seed = 0", "seed = 1"], ["widths = 1, 8", "11 %", "15 %"], ["widths = 1", "13 %", "17 %"]]


def test_a_grid_says_what_failed_and_what_is_missing(tmp_path):
    sweep = {"seed": [0, 1, 2]}
    reports = sweep_of(tmp_path, sweep, run_1="ValueError: <too short> (outputs/s-1.log)")[1:]
    found = cards(grid.grid_of_sweep(reports, sweep, folder=tmp_path).data)
    assert found[1:] == [("seed = 1", "failed: ValueError: <too short> (outputs/s-1.log)"), ("seed = 2", "not made")]
    assert grid.grid_of_sweep([], {}).data.count("<table") == 0


def test_the_progress_of_a_sweep():
    states = ["waiting", "refine 1/1:  40%|####      | 24/60 [00:03<00:05, 6.6it/s, total=0.01]", "on cpu", "done"]
    reports = [{"settings": {"seed": n, "widths": (1, 2)}, "progress": state} for n, state in enumerate(states)]
    reports.append({"settings": {"seed": 4, "widths": (1,)}, "progress": "done", "failed": "other settings"})
    text = grid.progress_of_sweep(reports, {"seed": (), "widths": ()}).data
    assert "2 of 5 runs have ended" in text and "<progress value='24' max='60'>" in text
    assert [row[1] for row in cells(text)] == [
        "waiting",
        "Refine the samples: step 24 of 60, 00:03<00:05, 6.6it/s, total=0.01",
        "on cpu",
        "done",
        "failed",
    ]
    assert cells(text)[1][0] == "seed = 1, widths = 1, 2"


def test_the_time_that_a_sweep_still_takes():
    """Of four new runs, one has ended, one has made half of its steps and one a quarter, in 100 s."""
    bar = "{} 1/{}:   0%|  | {}/60 [00:03<00:05, 6it/s]"
    states = ["done", "made earlier", "waiting", bar.format("refine", 1, 0), bar.format("run", 1, 30)]
    text = progress_of(states, 100)
    assert "2 of 5 runs have ended. About 2 min are left." in text  # 100 s * 2.25 / 1.75 = 129 s
    assert "About 30 s are left." in progress_of([bar.format("run", 2, 60), "done"], 50)  # 1.25 of 2 runs are done
    assert "are left" not in progress_of(["waiting", "waiting"], 9) + progress_of(["made earlier"], 9)


def progress_of(states, seconds):
    reports = [{"settings": {"seed": number}, "progress": state} for number, state in enumerate(states)]
    return grid.progress_of_sweep(reports, {"seed": ()}, seconds=seconds).data


# In a browser ------------------------------------------------------------------------------------


@pytest.fixture
def page(folder, browser):
    """The table twice in a notebook that is exported as HTML."""
    data = {"text/html": table.table_of_runs(folder).data}
    outputs = [nbformat.v4.new_output("display_data", data=data) for _ in range(2)]
    cell = nbformat.v4.new_code_cell("display(table.table_of_runs())", outputs=outputs)
    text, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (folder / "exported.html").write_text(text)
    page = browser.new_page()
    page.goto((folder / "exported.html").as_uri(), wait_until="domcontentloaded")
    return page


def test_headings_sort_the_exported_table_by_mouse_and_keys(page):
    def order(number=0):
        return page.locator(".runs").nth(number).locator("tbody th").all_inner_texts()

    def state(heading):
        button = page.locator(".runs").first.get_by_role("button", name=heading)
        return button.evaluate("button => button.dataset.order && button.closest('th').getAttribute('aria-sort')")

    newest_first = ["low", "middle", "high", "<b>"]
    assert order() == newest_first
    page.get_by_role("button", name="content_weight").first.click()
    assert order() == ["middle", "<b>", "low", "high"] and state("content_weight") == "ascending"
    page.get_by_role("button", name="content_weight").first.click()
    assert order() == ["high", "low", "<b>", "middle"] and state("content_weight") == "descending"
    page.get_by_role("button", name="loss").first.focus()
    page.keyboard.press("Enter")
    assert order() == ["<b>", "middle", "low", "high"] and state("content_weight") is None
    page.keyboard.press("Tab")  # to content_weight, the heading behind
    page.keyboard.press("Space")
    assert order() == ["middle", "<b>", "low", "high"]
    page.get_by_role("button", name="run").first.click()
    assert order()[1:] == ["high", "low", "middle"]
    page.get_by_role("button", name="saved").first.click()
    page.get_by_role("button", name="saved").first.click()
    assert order() == newest_first and order(1) == newest_first  # the other table is left alone
    assert page.locator("audio").first.evaluate("audio => audio.src.length") > 1000
