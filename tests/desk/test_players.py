"""Players and the buttons that switch between them: levels, sounds inside the output, a browser without JupyterLab."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from support.desk import players

RATE = 22050
TIME = np.arange(3 * RATE) / RATE
SINE = 0.5 * np.sin(2 * np.pi * 500 * TIME)
SQUARE = 0.1 * np.sign(np.sin(2 * np.pi * 100.3 * TIME[:RATE]) + 1e-9)
BOTH = np.stack([0.25 * np.sin(2 * np.pi * 300 * TIME), np.zeros(len(TIME))])
SOUNDS = {"result": SINE, "style & <1>": SQUARE, "content": BOTH}
LEVELS = """async () => {
    const levels = [];
    for (const audio of document.querySelectorAll('audio')) {
        const bytes = await (await fetch(audio.src)).arrayBuffer();
        const sound = await new OfflineAudioContext(2, 1, 22050).decodeAudioData(bytes);
        let sum = 0;
        for (let channel = 0; channel < sound.numberOfChannels; channel++)
            sum += sound.getChannelData(channel).reduce((sum, value) => sum + value * value, 0) / sound.length;
        levels.push(audio.volume * Math.sqrt(sum / sound.numberOfChannels));
    }
    return levels;
}"""
STATE = """() => {
    const players = [...document.querySelectorAll('audio')];
    const pressed = [...document.querySelectorAll('button[aria-pressed]')];
    return {playing: players.map(player => !player.paused), places: players.map(player => player.currentTime),
            pressed: pressed.map(button => button.getAttribute('aria-pressed') === 'true')};
}"""


def test_gains_bring_all_to_the_level_of_the_quietest():
    """A sine's root mean square is its amplitude over the root of 2, that of a square wave is its amplitude."""
    gains = players.gains(SOUNDS | {"silence": np.zeros(100)})
    assert gains["style & <1>"] == 1 and gains["silence"] == 1
    assert gains["result"] == pytest.approx(0.1 / (0.5 / np.sqrt(2)), rel=1e-3)
    assert gains["content"] == pytest.approx(0.1 / (0.25 / 2), rel=1e-3)  # a sine on one of two channels
    assert players.gains({"silence": np.zeros(100)}) == {"silence": 1}
    quiet = np.random.default_rng(0).standard_normal((5, 2000)) * np.array([[1e-2], [0.1], [0.3], [1], [2]])
    sounds = {str(number): samples for number, samples in enumerate(quiet)}
    levels = [np.linalg.norm(gain * sounds[title]) for title, gain in players.gains(sounds).items()]
    np.testing.assert_allclose(levels, np.linalg.norm(quiet[0]), rtol=1e-6)
    assert max(players.gains(sounds).values()) == 1


def test_the_highest_sample_rate_is_heard_and_names_in_other_letters_are_shown():
    """A setting of 384,000 Hz is allowed, which no encoder of ogg takes; a name from another system has no UTF-8."""
    output = players.compare({"caf\udce9": SINE, "b": BOTH}, sample_rate=384_000).data
    assert output.encode().decode().count("caf?") >= 3
    sounds = re.findall(r"data:audio/wav;base64,([^']+)", output)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert len(sounds) == 2 and rate == 384_000 and np.abs(samples - SINE).max() < 1e-4
    with pytest.raises(ValueError, match="kind='m4a' is unknown"):
        players.compare({"a": SINE}, sample_rate=RATE, kind="m4a")


@pytest.mark.parametrize(("kind", "error"), [("wav", 1e-3), ("ogg", 0.02)])
def test_samples_keep_their_levels(kind, error):
    tone = np.sin(2 * np.pi * 500 * TIME)
    sounds = {"soft": 0.1 * tone, "stereo": 0.5 * np.stack([tone, tone]), "too loud": 2.0 * tone}
    output = players.compare(sounds, sample_rate=RATE, kind=kind).data
    levels = []
    for text in re.findall(rf"data:audio/{kind};base64,([^']+)", output):
        levels.append(np.sqrt(2 * np.mean(soundfile.read(io.BytesIO(base64.b64decode(text)))[0] ** 2)))
    np.testing.assert_allclose(levels, [0.1, 0.5, 0.99], rtol=error)
    assert ">too loud</figcaption>" in output


def test_an_output_stands_alone():
    """Two outputs do not share an id, and load nothing."""
    outputs = [players.compare(SOUNDS, sample_rate=RATE).data for _ in range(2)]
    names = [re.findall(r'<div id="([^"]+)"', output) for output in outputs]
    assert len(names[0]) == len(names[1]) == 1 and names[0] != names[1]
    for output in outputs:
        assert all(source.startswith("data:audio/") for source in re.findall(r"(?:src|href)=['\"]([^'\"]*)", output))
        assert output.count("<audio") == 3 and "http" not in output and "<1>" not in output
    assert "<button" not in players.compare({"one": SINE}, sample_rate=RATE).data  # nothing to compare


def open_page(browser, sounds=SOUNDS, *, width=1000, outputs=1, **options):
    page = browser.new_page(viewport={"width": width, "height": 800}, **options)
    page.set_default_timeout(120_000)
    page.set_content("".join(players.compare(sounds, sample_rate=RATE).data for _ in range(outputs)))
    page.locator("audio").first.wait_for()
    return page


def wait_until_loaded(page):
    page.wait_for_function("[...document.querySelectorAll('audio')].every(audio => audio.readyState === 4)")


def test_switching_keeps_the_place_and_whether_a_sound_plays(browser):
    page = open_page(browser)
    wait_until_loaded(page)
    assert page.evaluate(STATE) == {"playing": [False] * 3, "places": [0, 0, 0], "pressed": [True, False, False]}
    page.evaluate("document.querySelector('audio').currentTime = 1.5")
    page.get_by_role("button", name="content").click()
    state = page.evaluate(STATE)
    assert not any(state["playing"]) and state["places"][2] == pytest.approx(1.5, abs=1e-3)
    assert state["pressed"] == [False, False, True]
    page.get_by_role("button", name="style").click()  # a sound of 1 s, which repeats
    # Chromium takes an ogg of 1 s for 12 ms longer, whose samples are all in their place, see test_files.py.
    assert page.evaluate(STATE)["places"][1] == pytest.approx(0.5, abs=0.02)
    page.get_by_role("button", name="result").click()
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('audio').currentTime > 0.7")
    places = page.evaluate("""() => {
        const [first, , third] = document.querySelectorAll('audio');
        const before = first.currentTime;
        document.querySelectorAll('button')[3].click();
        return [before, third.currentTime];
    }""")
    assert places[1] == pytest.approx(places[0], abs=0.02) and places[0] > 0.7
    page.wait_for_function(f"document.querySelectorAll('audio')[2].currentTime > {places[1] + 0.1}")
    assert page.evaluate(STATE)["playing"] == [False, False, True]
    page.get_by_role("button", name="Pause").click()
    assert not any(page.evaluate(STATE)["playing"])


def test_the_last_of_several_quick_switches_counts(browser):
    """The browser reports that a player began only after the next one was chosen."""
    page = open_page(browser)
    wait_until_loaded(page)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('audio').currentTime > 0.2")
    page.evaluate("[3, 1, 2, 1, 3].forEach(number => document.querySelectorAll('button')[number].click())")
    page.wait_for_function("document.querySelectorAll('audio')[2].currentTime > 0.5")
    state = page.evaluate(STATE)
    assert state["playing"] == [False, False, True] and state["pressed"] == [False, False, True]


def test_the_same_level_and_the_keyboard(browser):
    page = open_page(browser)
    wait_until_loaded(page)
    np.testing.assert_allclose(page.evaluate(LEVELS), 0.1, rtol=0.01)
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press("Space")
    page.wait_for_function("!document.querySelector('audio').paused")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate(STATE)["pressed"] == [False, False, True]
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # "same level" off: the sounds have their own levels
    own = [0.5 / np.sqrt(2), 0.1, 0.25 / 2]
    np.testing.assert_allclose(page.evaluate(LEVELS), own, rtol=0.01)


def test_two_outputs_do_not_disturb_each_other(browser):
    page = open_page(browser, outputs=2)
    page.get_by_role("button", name="content").nth(1).click()
    assert page.evaluate(STATE)["pressed"] == [True, False, False, False, False, True]


def test_players_stand_below_their_titles_and_wrap(browser):
    page = open_page(browser, {f"sound {number}": SINE[:1000] for number in range(6)}, width=700)
    boxes = page.evaluate("""() => [...document.querySelectorAll('figure')].map(figure =>
        ['figcaption', 'audio'].map(part => figure.querySelector(part).getBoundingClientRect().toJSON()))""")
    for title, player in boxes:
        assert title["left"] == pytest.approx(player["left"], abs=1) and title["bottom"] <= player["top"] + 5
        assert player["left"] >= 0 and player["right"] <= 700
    assert len({player["top"] for _, player in boxes}) == 3  # two in a row


def test_without_scripts_the_players_remain(browser):
    page = open_page(browser, java_script_enabled=False)
    assert page.locator("audio").count() == 3
    assert all(page.locator("audio").nth(number).is_visible() for number in range(3))
    assert not page.locator("button").first.is_visible()
