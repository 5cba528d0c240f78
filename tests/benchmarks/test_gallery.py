"""The page to listen to: its sounds, pictures and figures, in the file and in a browser."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import scipy.signal
import soundfile
from playwright.sync_api import sync_playwright

import gallery
import masks
import rhythm
import strokes
import truth

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RATE = 22050
TRANSFER = ["content", "style", "mosaic, continuity 3", *(f"default, content_weight {w}" for w in (10, 30, 100))]
ODD = "rain & <b>wind"
MELODY = "trumpet scarborough_fair, cello twinkle"
TRUTH = ["content: trumpet", "style: cello", "default", "truth: cello", "Gatys recipe"]
LISTEN = """async () => {
    const found = [];
    for (const audio of document.querySelectorAll('audio')) {
        const ready = new Promise((done, fail) => { audio.oncanplay = done; audio.onerror = fail; });
        audio.load();
        await ready;
        const bytes = await (await fetch(audio.src)).arrayBuffer();
        const sound = await new OfflineAudioContext(1, 1, 22050).decodeAudioData(bytes);
        const peak = sound.getChannelData(0).reduce((peak, value) => Math.max(peak, Math.abs(value)), 0);
        found.push([audio.readyState, audio.duration, peak]);
    }
    return found;
}"""
PRESS = """async () => {
    const figure = document.querySelector('figure'), [picture, audio] = figure.querySelectorAll('button, audio');
    const found = [];
    for (let press = 0; press < 2; press++) {
        picture.click();
        await new Promise(done => setTimeout(done, 600));
        const at = parseFloat(picture.style.getPropertyValue('--at'));
        found.push([audio.paused, figure.classList.contains('playing'), at]);
    }
    return found;
}"""
PLAY_BOTH = """async () => {
    const [first, second] = document.querySelectorAll('audio');
    await first.play();
    const before = [first.paused, second.paused];
    await second.play();
    await new Promise(done => setTimeout(done, 100));
    return [...before, first.paused, second.paused];
}"""


def sound(seed, seconds):
    """A few tones that swell and fade."""
    times, generator = np.arange(round(seconds * RATE)) / RATE, np.random.default_rng(seed)
    tones = [np.sin(2 * np.pi * hertz * times) for hertz in generator.uniform(200, 3000, 4)]
    return 0.1 * np.sum(tones, axis=0) * (1.2 + np.sin(2 * np.pi * 3 * times))


def write(folder, sounds, *, figures=None, kind="flac"):
    folder.mkdir(parents=True)
    for title, samples in sounds.items():
        soundfile.write(folder / f"{title}.{kind}", samples, RATE)
    if figures:
        (folder / "figures.json").write_text(json.dumps(figures))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two textures and a transfer, with sounds that the page leaves out."""
    folder = tmp_path_factory.mktemp("sounds")
    methods = ("default", "recording", "Gatys recipe", "matched noise")
    textures = {title: sound(seed, 1.0 + seed / 4) for seed, title in enumerate(methods)}
    figures = {"default": {"distance ratio": 0.7, "listener": 0.95, "<i>": 1}, "Gatys recipe": {"listener": np.nan}}
    write(folder / "textures" / ODD, textures, figures=figures)
    write(folder / "textures/fire", {"recording": sound(8, 1.0)}, kind="wav")
    transfer = {title: sound(20 + seed, 1.5) for seed, title in enumerate(TRANSFER)}
    transfer |= {f"mosaic, continuity {number}": sound(40 + number, 1.5) for number in (1, 10)}
    transfer |= {f"default, content_weight {weight}": sound(60, 1.5) for weight in ("0.3", "3")}
    write(folder / "transfers/speech, tabla", transfer, figures={TRANSFER[-1]: {"pitch kept": 0.421}})
    return folder


@pytest.fixture(scope="module")
def more(folder, tmp_path_factory):
    """The same and melodies, rhythms and ringing sounds; one row of each kind is not for the page."""
    more = tmp_path_factory.mktemp("more")
    shutil.copytree(folder, more, dirs_exist_ok=True)
    for row in (MELODY, "flute jesu, vibraphone twinkle", "flute elise, guitar jesu"):
        titles = ("content", "style", "truth", "default", "Gatys recipe", "mosaicing")
        figures = {"default": {"style left": 0.5, "pitch error [cents]": np.nan}}
        write(more / "truth" / row, {title: sound(n, 1.0) for n, title in enumerate(titles)}, figures=figures)
    for row in ("rhythm/tabla", "rhythm/clock", "ringing/music_box", "ringing/harp"):
        titles = ("recording", "another take", "default", "default without rhythm")
        write(more / row, {title: sound(n, 1.0) for n, title in enumerate(titles)})
    return more


@pytest.fixture(scope="module")
def whole_page(more):
    return gallery.make_page(more)


@pytest.fixture(scope="module")
def page(folder):
    return gallery.make_page(folder)


def section_of(page, row):
    return page.split(f"<h3>{html.escape(row)}</h3>")[1].split("</section>")[0]


def players(page, row):
    """Dict from title to samples of the players of a row, by its heading."""
    section = section_of(page, row)
    titles = [html.unescape(title) for title in re.findall("<figcaption>(.*?)</figcaption>", section)]
    audio = re.findall(r'<audio [^>]*src="data:audio/mpeg;base64,([^"]*)"', section)
    sounds = [soundfile.read(io.BytesIO(base64.b64decode(each, validate=True))) for each in audio]
    assert all(rate == RATE for _, rate in sounds)
    return dict(zip(titles, (samples for samples, _ in sounds), strict=True))


def test_players_hold_the_sounds(folder, page):
    found = players(page, "speech in the style of tabla")
    assert list(found) == TRANSFER
    textures = players(page, ODD)
    assert list(textures) == ["recording", "Gatys recipe", "default"]
    tuned = players(page, "fire")
    rows = {"transfers/*": found, "textures/rain*": textures, "textures/fire": tuned}
    for row, sounds in rows.items():
        for title, samples in sounds.items():
            (path,) = (path for path in folder.glob(f"{row}/*") if path.stem == title)
            original, _ = soundfile.read(path)
            assert len(samples) == len(original)
            assert np.corrcoef(samples, original)[0, 1] > 0.98
            assert np.std(samples) == pytest.approx(
                np.std(original), rel=0.07
            )  # the encoder makes all sounds 0.4 dB quieter


def test_pictures_have_one_scale_of_colour_and_of_time():
    loud, quiet, short = sound(1, 2.0), 0.1 * sound(1, 2.0), sound(1, 1.0)
    uris = gallery.draw([loud, quiet, short])
    pictures = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="jpg") / 255 for uri in uris
    ]
    assert pictures[0].shape == (gallery.N_BANDS, 1 + len(loud) // 256, 3)
    assert pictures[0].max() > 0.9 and pictures[1].max() < 0.7 * pictures[0].max()
    assert pictures[2].shape[1] == 1 + len(short) // 256
    low, high = (np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32) for hertz in (200, 5000))
    rows = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="jpg").sum(axis=(1, 2)).argmax()
        for uri in gallery.draw([low, high])
    ]
    assert rows[0] > 0.8 * gallery.N_BANDS and rows[1] < 0.5 * gallery.N_BANDS  # pitch runs upwards


def test_pictures_are_as_wide_as_their_sounds_are_long(page):
    widths = re.findall(r'alt="spectrogram" style="width: (\d+)%"', section_of(page, ODD))
    assert widths == ["83", "100", "67"]  # of 1.25, 1.5 and 1.0 s


def test_figures_are_shown_and_explained(page):
    shown = dict(re.findall("<dt>([^<]*)</dt><dd>([0-9.]+)</dd>", page))
    assert shown == {"distance ratio": "0.70", "listener": "0.95", "&lt;i&gt;": "1.00", "pitch kept": "0.42"}
    meanings = page.split('class="meanings"')[1].split("</dl>")[0]
    assert re.findall("<dt>(.*?)</dt>", meanings) == ["distance ratio", "listener", "pitch kept"]
    assert "nan" not in re.sub(r'"data:[^"]*"', "", page)


def test_the_page_is_whole(page):
    """Titles are escaped, every link has its target, and nothing is loaded from elsewhere."""
    text = re.sub(r'"data:[^"]*"', '""', page)
    assert "<b>wind" not in text and "&lt;b&gt;wind" in text
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == ["All sounds", "Contents", "Textures", "Textures that settings were chosen on", "Transfers"]
    links, places = re.findall('href="#(.*?)"', text), re.findall('<section id="(.*?)"', text)
    assert links == places and len(set(places)) == 3
    assert not re.search(r"https?:|<link|@import|url\(", text)


def test_a_page_that_is_too_large_is_an_error(folder, monkeypatch):
    monkeypatch.setattr(gallery, "LARGEST", 50_000)
    with pytest.raises(ValueError, match=r"the page takes 0\.\d MB, more than .* MB; show fewer sounds"):
        gallery.make_page(folder)


def test_the_page_of_all_benchmarks_is_small_enough(page):
    """24 textures with 4 sounds, 6 transfers with 6, 4 melodies with 5 and 8 rows with 3, each of 5 s, fit."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE).astype(np.float32)
    size = 4 / 3 * len(gallery.encoded(noise, RATE, "mp3", loss=0.7)) + len(gallery.draw([noise])[0])
    assert size * (24 * 4 + 6 * 6 + 4 * 5 + 8 * 3) < gallery.LARGEST


def test_the_first_rows_stand_on_top_and_no_sound_is_shown_twice(whole_page):
    """The others follow below the contents, each with its place; rows that are not chosen are left out."""
    text = re.sub(r'"data:[^"]*"', '""', whole_page)
    top, below = text.split("<h2>All sounds</h2>")
    titles = list(gallery.FIRST.values())
    assert [html.unescape(title) for title in re.findall("<h3>(.*?)</h3>", top)] == titles[:2]
    headings = re.findall("<h2>(.*?)</h2>", below)
    assert headings[:4] == ["Contents", "Melodies for another instrument", "Bells, chimes and strings", "Textures"]
    rest = re.findall("<h3>(.*?)</h3>", below)
    assert rest[:2] == ["jesu on the flute, in the style of the vibraphone", "music box"] and len(rest) == 5
    links, places = re.findall('href="#(.*?)"', below), re.findall('<section id="(.*?)"', below)
    assert links == places and len(set(places)) == 5
    assert list(players(whole_page, titles[0])) == TRUTH
    assert list(players(whole_page, titles[1])) == ["recording", "default without rhythm", "default"]
    assert list(players(whole_page, "music box")) == ["recording", "another take", "default"]
    sounds = re.findall(r'src="(data:audio[^"]*)"', whole_page)
    assert len(sounds) == text.count("<audio ") == 5 + 3 + 5 + 3 + 3 + 1 + 6
    assert text.count('<figure class="made">') == 1 + 2 + 1 + 1 + 1 + 3
    assert "style left" in text.split('class="meanings"')[1] and "nan" not in text


def test_a_page_without_names_stands_beside_the_page(tmp_path, monkeypatch):
    """Each of its trials has the recording twice, noise and the methods; the page of sounds has a link to it."""
    monkeypatch.setattr(gallery, "BLIND", ("fire", "rain"))
    with pytest.raises(FileNotFoundError, match="holds no texture of fire; make it: python"):
        gallery.write_blind(tmp_path, tmp_path / "blind.html")
    for row in ("fire", "rain"):
        titles = ("recording", "another take", "Gatys recipe", "default", "matched noise")
        write(tmp_path / "textures" / row, {title: sound(n, 1.0) for n, title in enumerate(titles)})
    gallery.write_blind(tmp_path, tmp_path / "blind.html")
    text = (tmp_path / "blind.html").read_text(encoding="utf-8")
    assert text.count("data:audio/flac") == 2 * (2 + 1 + 3)
    assert all(title not in text for title in ("fire", "Gatys", "another take"))
    linked = gallery.make_page(tmp_path, blind="blind.html")
    assert gallery.make_page(tmp_path, old=linked) == linked
    links = re.findall(r'<a href="([^#"][^"]*)"', linked)
    assert links == ["blind.html"] and not re.findall('<a href="[^#]', gallery.make_page(tmp_path))


def test_rows_that_the_page_chooses_exist():
    """Their names are those that the scripts save, and of the half that no setting was chosen on."""
    pairs = {f"{a} {melody}, {b} {other}" for a, b, melody, other in truth.pairs("reporting")}
    assert set(gallery.CHOSEN["truth"]) <= pairs
    assert set(gallery.CHOSEN["rhythm"]) <= set(rhythm.RHYTHMIC["reporting"])
    assert set(gallery.CHOSEN["ringing"]) <= set(strokes.RINGING["reporting"])
    assert {path.split("/")[1] for path in gallery.LINES} == {*masks.GAPPED, *masks.PARTS}
    for path in gallery.FIRST:
        kind, name = path.split("/")
        assert name in gallery.CHOSEN[kind]


def test_an_old_page_keeps_every_byte_of_its_sounds(whole_page, folder, tmp_path):
    """Without new sounds the page stays as it is; a new row joins, a row that is made again replaces the old one."""
    assert gallery.make_page(tmp_path, old=whole_page) == whole_page
    row = "only_a_part/rain becomes fire"
    write(tmp_path / row, {title: sound(n, 1.0) for n, title in enumerate(("fire", "rain", "rain becomes fire"))})
    more = gallery.make_page(tmp_path, old=whole_page)
    before, after = (re.findall('"(data:[^"]*)"', page) for page in (whole_page, more))
    assert after[: len(before)] == before and len(after) == len(before) + 2 * 3
    assert list(players(more, "rain becomes fire")) == ["rain", "fire", "rain becomes fire"]
    assert f"<p>{gallery.LINES[row]}</p>" in section_of(more, "rain becomes fire")
    write(tmp_path / "textures/fire", {"recording": sound(9, 0.5)})
    again = gallery.make_page(tmp_path, old=more)
    assert len(players(again, "fire")["recording"]) == RATE // 2
    changed = [old for old, new in zip(after, re.findall('"(data:[^"]*)"', again), strict=True) if old != new]
    assert len(changed) == 2 and changed[0] in section_of(more, "fire")
    shutil.rmtree(tmp_path / "textures")
    write(tmp_path / "textures/fire", {"default": sound(8, 0.5)})
    last = gallery.make_page(tmp_path, old=again)  # one method's sound joins the row, in its place
    lengths = {title: len(samples) for title, samples in players(last, "fire").items()}
    assert lengths == {"recording": RATE // 2, "default": RATE // 2}
    assert re.findall('"(data:[^"]*)"', section_of(again, "fire"))[0] in section_of(last, "fire")
    with pytest.raises(ValueError, match=r"only \d+ of the \d+ sounds of the old page can be read; write to another"):
        gallery.make_page(tmp_path, old=more.replace("<figcaption>fire", "<figcaption class='x'>fire"))


@pytest.fixture(scope="module")
def published():
    path = ROOT / "benchmarks/gallery.html"
    if not path.exists():
        pytest.skip("the page of sounds is not here")
    return path.read_text(encoding="utf-8")


def test_in_the_last_rows_of_the_repository_s_page_only_a_part_changes(published, tmp_path):
    """The gaps are silent, and then as loud as what is around them; the rest and what lies below 2 kHz is kept."""
    assert len(published.encode()) < 8_000_000 and gallery.make_page(tmp_path, old=published) == published
    middle, kept = slice(round(2.65 * RATE), round(3.35 * RATE)), slice(round(2.5 * RATE))
    for row in masks.GAPPED:
        recording, gap, filled = players(published, row).values()
        assert np.abs(gap[middle]).max() < 0.02 * np.abs(recording).max()
        assert 0.3 < filled[middle].std() / recording[middle].std() < 3
        assert np.corrcoef(filled[kept], recording[kept])[0, 1] > 0.99
        assert abs(np.corrcoef(filled[middle], recording[middle])[0, 1]) < 0.3
    speech, rain, made = players(published, "speech with rain above 2 kHz").values()
    low = scipy.signal.butter(8, 1800, "low", fs=RATE, output="sos")
    high = scipy.signal.butter(8, 2400, "high", fs=RATE, output="sos")
    alike = [np.corrcoef(*(scipy.signal.sosfilt(band, each) for each in (speech, made)))[0, 1] for band in (low, high)]
    assert alike[0] > 0.97 and alike[1] < 0.5

    def spectrum(samples):
        return np.log(scipy.signal.welch(samples, RATE, nperseg=512)[1][4:200])

    rain, fire, made = players(published, "rain becomes fire").values()
    for part, near, far in ((made[:RATE], rain, fire), (made[-RATE:], fire, rain)):
        distances = [np.abs(spectrum(part) - spectrum(whole)).mean() for whole in (near, far)]
        assert distances[0] < distances[1]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_picture_plays_its_sound_and_the_top_fits_one_screen(whole_page, tmp_path):
    path = tmp_path / "gallery.html"
    path.write_text(whole_page, encoding="utf-8")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.goto(path.as_uri())
        assert tab.evaluate("document.querySelector('.first').getBoundingClientRect().bottom") <= 900
        (*playing, at), (*paused, later) = tab.evaluate(PRESS)
        assert playing == [False, True] and paused == [True, False] and later >= at > 0
        width = tab.evaluate("document.querySelector('.picture img').clientWidth")
        share = tab.evaluate("(audio => audio.currentTime / audio.duration)(document.querySelector('audio'))")
        assert later == pytest.approx(width * share, abs=0.35 * width)
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate("document.querySelector('.made audio').getBoundingClientRect().bottom") <= 844
        browser.close()


@pytest.mark.parametrize("odd", ["empty", "missing", "other files"])
def test_a_folder_without_sounds_says_how_to_make_them(tmp_path, odd):
    folder = tmp_path / "missing" if odd == "missing" else tmp_path
    if odd == "other files":
        write(tmp_path / "textures/rain", {"matched noise": sound(0, 1.0)})
    command = [sys.executable, "benchmarks/gallery.py", "--folder", folder, "--page", tmp_path / "page.html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "page.html").exists()
    assert "holds no sounds; make them first: python benchmarks/quality.py textures" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_plays_every_sound_one_at_a_time(page, tmp_path, width):
    """The page of the repository, where there is one."""
    path = ROOT / "benchmarks/gallery.html"
    if not path.exists():
        path = tmp_path / "gallery.html"
        path.write_text(page, encoding="utf-8")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        tab, problems, requests = browser.new_page(viewport={"width": width, "height": 1000}), [], []
        tab.on("pageerror", lambda error: problems.append(error))
        tab.on("request", lambda request: requests.append(request.url.split(":")[0]))
        tab.goto(path.as_uri())
        found = tab.evaluate(LISTEN)
        assert len(found) == path.read_text(encoding="utf-8").count("<audio ") > 0
        assert min(ready for ready, _, _ in found) > 1 and min(duration for _, duration, _ in found) > 0.2
        assert min(peak for _, _, peak in found) > 0.005
        assert tab.evaluate(PLAY_BOTH) == [False, True, True, False]
        pictures = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(pictures) == len(found) and min(pictures) > 10
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert problems == [] and set(requests) <= {"file", "data"}
