"""The notebooks in JupyterLab, as somebody at a browser meets them. Needs Chromium; skipped without."""

import re

import numpy as np
import pytest
from kernel import CQT, ROOT, STFT, sample

from screenshot import CHROMIUM, browser_page, change, jupyterlab, open_notebook, wait_until_done
from support.desk import saving
from support.desk.settings import Settings

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

SMALL = {"filters": 32, "widths": [1, 8], "num_steps": 60, "refine_steps": 20, "duration": 2.0}
# A picture after every second.
OFTEN = """() => {
    const model = cells()[find('step("Optimisation')].model.sharedModel;
    model.setSource(model.getSource().replace('settings.num_steps):', 'settings.num_steps, refresh=1):'));
    if (!model.getSource().includes('refresh=1')) throw new Error('no refresh');
}"""
LISTEN = """async () => {
    const peaks = [];
    for (const audio of panel().node.querySelectorAll('[id^="desk-"] audio')) {
        const source = audio.src || audio.querySelector('source').src;
        const bytes = await (await fetch(source)).arrayBuffer();
        const sound = await new OfflineAudioContext(1, 1, 44100).decodeAudioData(bytes);
        peaks.push(sound.getChannelData(0).reduce((peak, value) => Math.max(peak, Math.abs(value)), 0));
    }
    return peaks;
}"""
LOOK = """() => [...panel().node.querySelectorAll('.jp-OutputArea img')].map(image => {
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(Array.from({length: 5000}, (_, i) => data[4 * Math.floor(i * data.length / 20000)])).size;
})"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a folder with both notebooks, made small; returns its address."""
    folder = tmp_path_factory.mktemp("lab")
    for name in (STFT, CQT):
        text = (ROOT / name).read_text().replace("samples/brook.flac", sample("brook"))
        (folder / name).write_text(text)
    with jupyterlab(folder) as address:
        yield address


@pytest.fixture
def page(lab):
    with browser_page(1280, 1600) as page:
        yield page


def open_small(page, lab, name):
    """Open a notebook with small settings and with a picture after every second; return its settings cell."""
    open_notebook(page, lab, name)
    settings = page.evaluate("find('steps.typed()')")
    change(page, settings, **SMALL)
    page.evaluate(OFTEN)
    return settings


def run(page, *indexes, command="notebook:run-cell"):
    for index in indexes:
        page.evaluate(f"index => {{ select(index); run('{command}'); }}", index)
        wait_until_done(page)


def output(page, index):
    return page.evaluate("index => output(index)", index)


def check(page, players):
    peaks, colours = page.evaluate(LISTEN), page.evaluate(LOOK)
    assert len(peaks) >= players and min(peaks) > 0.01, peaks
    assert len(colours) >= 6 and min(colours) > 5, colours
    assert (
        page.evaluate("panel().node.querySelectorAll('[data-mime-type=\"application/vnd.jupyter.error\"]').length") == 0
    )


def steps(page, index):
    found = re.findall(r"\| *(\d+)/\d+ \[", output(page, index))
    return int(found[-1]) if found else 0


@pytest.mark.parametrize("name", [STFT, CQT])
def test_the_loop(name, page, lab, tmp_path):
    """Run all, watch the bar, interrupt, listen, go on, change a weight and a layer, run what is below."""
    settings = open_small(page, lab, name)
    cell = {
        name: page.evaluate("text => find(text)", text)
        for name, text in {
            "checked": "Settings.of(",
            "losses": "sums = [",
            "start": 'step("The start',
            "optimise": 'step("Optimisation',
            "back": 'step("Back',
            "refine": 'step("Refine',
            "save": "stem = saving.save_result",
            "result": "outputs = {show",
        }.items()
    }
    change(page, settings, num_steps=30000)
    page.evaluate("run('notebook:run-all-cells')")
    page.wait_for_function("index => / [1-9][0-9]*\\/30000 /.test(output(index))", arg=cell["optimise"])
    picture = "index => cells()[index].node.querySelector('.jp-OutputArea img')?.naturalWidth > 0"
    page.wait_for_function(picture, arg=cell["optimise"])
    seen = [steps(page, cell["optimise"])]
    page.wait_for_timeout(3000)
    seen.append(steps(page, cell["optimise"]))
    assert seen[1] > seen[0]
    assert "style conv_2=" in output(page, cell["optimise"])
    page.evaluate("index => cells()[index].node.scrollIntoView()", cell["optimise"])
    page.screenshot(path=tmp_path / "running.png")
    page.evaluate("run('notebook:interrupt-kernel')")
    wait_until_done(page)
    assert "run this cell again to go on" in output(page, cell["optimise"])
    stopped = steps(page, cell["optimise"])
    assert seen[1] <= stopped < 30000

    run(page, cell["back"], cell["refine"], cell["save"], cell["result"])  # the result so far is audible
    assert min(page.evaluate(LISTEN)) > 0.01

    change(page, settings, num_steps=stopped + 40)
    run(page, settings, cell["checked"], cell["optimise"])
    assert steps(page, cell["optimise"]) == stopped + 40

    change(page, settings, num_steps=40, style_weight=2.0, style_layers_default=["conv_1"])
    run(page, settings, cell["checked"], cell["refine"])
    stale = "'The losses' was made with style_weight=1.0, style_layers_default={'conv_2': 1.0}"
    assert stale in output(page, cell["refine"]) and "run again from 'The losses'" in output(page, cell["refine"])
    page.evaluate("index => cells()[index].node.scrollIntoView()", cell["refine"])
    page.screenshot(path=tmp_path / "stale.png")
    run(page, cell["losses"], command="notebook:run-all-below")
    assert steps(page, cell["optimise"]) == 40
    assert "style conv_1=" in output(page, cell["optimise"])
    check(page, players=5)
    page.evaluate("index => cells()[index].node.scrollIntoView()", settings)
    page.screenshot(path=tmp_path / "settings.png")


SWITCH = """index => {
    const desk = cells()[index].node.querySelector('[id^="desk-"]');
    const [first, ...others] = desk.querySelectorAll('audio'), last = others.at(-1);
    const before = first.currentTime;
    desk.querySelectorAll('button[aria-pressed]')[others.length].click();
    return [before, last.currentTime];
}"""


def test_comparing_the_result_of_a_transfer(page, lab, tmp_path):
    """Two styles in a window of 1,500 px: the result comes first, all players are in sight, nothing is red."""
    page.set_viewport_size({"width": 1500, "height": 1200})
    settings = open_small(page, lab, STFT)
    styles = [sample("tabla"), sample("fire")]
    steps = dict(num_steps=6, refine_steps=3, phase_iterations=8)
    change(page, settings, STYLE_FILENAME=styles, CONTENT_FILENAME=sample("speech"), **steps)
    last = page.evaluate("find('follow_sweep')")
    page.evaluate("run('notebook:run-all-cells')")
    page.wait_for_function("index => output(index).includes('no sweep')", arg=last, timeout=300_000)
    wait_until_done(page)
    red = "panel().node.querySelectorAll('[data-mime-type=\"application/vnd.jupyter.stderr\"]').length"
    assert page.evaluate(red) == 0
    result = page.evaluate("find('outputs = {show')")
    page.evaluate("index => cells()[index].node.scrollIntoView()", result)
    page.screenshot(path=tmp_path / "result.png")
    edge = page.evaluate("panel().node.getBoundingClientRect().right")
    players = page.evaluate(
        """index => [...cells()[index].node.querySelectorAll('figure')].map(figure =>
            [figure.querySelector('figcaption').innerText, figure.getBoundingClientRect().right])""",
        result,
    )
    titles = [title for title, _ in players]
    assert titles[0].startswith("result 1: ") and titles[1:] == ["style 1: tabla", "style 2: fire", "content: speech"]
    assert max(right for _, right in players) <= edge <= 1500
    assert "The style loss is at " in output(page, result) and "lower content_weight" in output(page, result)

    desk = page.locator(".jp-OutputArea [id^=desk-]", has_text="result 1").first  # the last cell has it again
    desk.get_by_role("button", name="Play").focus()
    page.keyboard.press("Enter")  # the button's, not JupyterLab's, which would edit the cell
    first = "index => cells()[index].node.querySelector('audio').currentTime > 0.4"
    page.wait_for_function(first, arg=result)
    before, after = page.evaluate(SWITCH, result)
    assert after == pytest.approx(before, abs=0.02) and before > 0.4
    goes_on = "([index, after]) => [...cells()[index].node.querySelectorAll('audio')].at(-1).currentTime > after + 0.1"
    page.wait_for_function(goes_on, arg=[result, after])
    paused = "index => [...cells()[index].node.querySelectorAll('audio')].map(player => player.paused)"
    assert page.evaluate(paused, result) == [True, True, True, False]


def test_a_heading_of_the_table_of_runs_sorts_by_mouse_and_keys(page, lab, tmp_path):
    """Where Enter and Space are commands of JupyterLab too."""
    for name, seed in (("first", 1), ("second", 2), ("third", 0)):
        settings = Settings(seed=seed, STYLE_FILENAME=f"samples/own/the recording of the {name} day.wav")
        report = dict(settings=settings.plain(), losses=[], used={})
        saving.save_run(tmp_path / name, np.ones(3000) / 2, 22050, report)
    open_small(page, lab, STFT)
    table = page.evaluate("find('table.table_of_runs')")
    source = f"display(table.table_of_runs({str(tmp_path)!r}))"
    page.evaluate("([index, source]) => cells()[index].model.sharedModel.setSource(source)", [table, source])
    run(page, page.evaluate("find('import audiocnn')"), table)
    page.evaluate("index => cells()[index].node.scrollIntoView()", table)

    def order():
        return page.locator(".runs tbody th").all_inner_texts()

    page.get_by_role("button", name="seed", exact=True).click()
    assert order() == ["third", "first", "second"]
    page.get_by_role("button", name="run", exact=True).focus()
    page.keyboard.press("Enter")
    assert order() == ["first", "second", "third"]
    page.keyboard.press("Space")
    assert order() == ["third", "second", "first"]

    page.set_viewport_size({"width": 1440, "height": 1000})  # with the list of files beside, nothing is cut
    page.wait_for_function(
        "[...panel().node.querySelectorAll('.runs')].every(each => each.scrollWidth <= each.clientWidth)"
    )
    page.set_viewport_size({"width": 1100, "height": 1000})  # where every letter once had a line of its own
    page.wait_for_function("panel().node.getBoundingClientRect().right <= 1100")
    rows = "[...panel().node.querySelectorAll('.runs tr')].map(row => row.getBoundingClientRect().height)"
    assert max(page.evaluate(rows)) < 130
