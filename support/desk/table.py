"""The table of runs, which a click on a heading sorts, with a player and a thumbnail of each; and a page to share.

Everything is inside the table: a notebook that is exported as HTML needs no other file. Without JavaScript, as in a
notebook that is not trusted, only the sorting is missing.
"""

import html
import io
import json
import string
from collections.abc import Mapping
from pathlib import Path

import IPython.display
import numpy as np
import soundfile

from support.desk import past, pictures, players
from support.desk.players import data_uri
from support.desk.saving import write_whole
from support.desk.show import percent

MOST_VALUES = 2_700_000  # of a player, 61 s of stereo at 22,050 Hz: with more, a table of 20 runs takes over 20 MB

STYLE = """<style>
.runs { overflow-x: auto; }
.runs table { border-collapse: collapse; }
.runs th, .runs td { text-align: left !important; vertical-align: middle; padding: 0.2em 0.6em; max-width: 18em; }
.runs th, .runs td { overflow-wrap: anywhere; }
.runs thead th { overflow-wrap: normal; } /* otherwise a narrow window breaks headings after every letter */
.runs .words { min-width: 14em; }
.runs td:has(.line) { max-width: none; }
.runs tbody th { position: sticky; left: 0; z-index: 1; background: var(--jp-layout-color0, Canvas); min-width: 6em; }
.runs time, .runs summary, .runs .line { white-space: nowrap; }
.runs button[data-key] { all: unset; cursor: pointer; font-weight: bold; margin-right: 0.6em; }
.runs button[data-key]:focus-visible { outline: 2px solid; }
.runs button[data-order="1"]::after { content: " \\25B2"; }
.runs button[data-order="-1"]::after { content: " \\25BC"; }
.runs audio { width: 14em; height: 2em; display: block; }
.runs img { width: 160px; height: 64px; max-width: none; display: block; }
</style>"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 1rem; }
figure { width: min(32rem, 94vw); }
figure audio, figure img { display: block; width: 100%; margin: 0.3em 0; }
</style></head><body><h1>$title</h1>$cards</body></html>"""

# One listener for all tables of a page: JupyterLab runs a script before its table is in the page. Numbers come before
# texts, and the rows of equal cells keep their order. Without data-lm-suppress-shortcuts, Enter on a heading is a
# command of JupyterLab.
SCRIPT = """<script>
if (!window.sortsRuns) {
  window.sortsRuns = true;
  document.addEventListener("click", event => {
    const button = event.target.closest?.(".runs button[data-key]");
    if (!button) return;
    const table = button.closest("table"), order = button.dataset.order === "1" ? -1 : 1;
    const key = row => JSON.parse(row.dataset.keys)[button.dataset.key], isText = row => typeof key(row) === "string";
    const compare = (a, b) => isText(a) - isText(b) || order * (isText(a)
      ? key(a).localeCompare(key(b)) : key(a) - key(b));
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    for (const other of table.querySelectorAll("[data-order]")) delete other.dataset.order;
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    button.dataset.order = order;
    button.closest("th").setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
  });
}
</script>"""


def table_of_runs(folder="outputs", *, last=20, names=None, **settings):
    """Show runs, newest first: name, player, thumbnail, distance to the style, losses, settings, level.

    Parameters
    ----------
    last : int or None
        At most so many runs; None, or where names are given: all.
    names : list of str or None
        Only runs of these outnames.
    settings : numbers, strings, None, and lists and dicts of them
        Only runs with these values, see past.find_runs.
    """
    runs = past.find_runs(folder, last=last if names is None else None, names=names, **settings)
    if not runs:
        return IPython.display.HTML(f"<p>no such runs in {html.escape(str(folder))}</p>")
    differing = past.differing_settings(runs)
    sorts = ["run", "distance to the style [dB]", "loss", *differing, "level [dBFS]", "saved"]
    run, distance, loss, *names, level, saved = (_button(number, name) for number, name in enumerate(sorts))
    titles = [run, "sound", "spectrogram", distance, loss, _words("".join(names)), level, saved]
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    body = "".join(_row(path, report, differing) for path, report in runs.items())
    table = f"<table data-lm-suppress-shortcuts='true'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return framed(table + SCRIPT)


def write_page(runs, path, *, title="Runs", kind="mp3"):
    """Write one HTML file to share: a player, spectrograms, figures and the settings that differ of each run.

    Buttons switch between all players, at the same level. 12 runs of 5 s take about 5 MB.

    runs : see past.find_runs
    kind : of the sounds, see files.encoded; all browsers play mp3
    """
    if not runs:
        raise ValueError("runs={} has no run to write; choose other runs with past.find_runs")
    cards = cards_of(runs, past.differing_settings(runs), kind, large=True)
    titles = [file.stem for file, card in cards.items() if "<audio" in card]
    cards = players.with_buttons(titles, players.wrapped(cards.values()))
    page = string.Template(PAGE).substitute(title=html.escape(title), cards=cards).encode(errors="replace")
    write_whole(Path(path), lambda partial: partial.write_bytes(page))


def cards_of(runs, names, kind="ogg", *, large=False):
    """Return what is heard, seen and said of each run, by path, as HTML; the gains bring all players to one level.

    names : of the settings that are said
    large : whether the picture is the saved one, with all spectrograms, in place of a thumbnail
    """
    levels = {path: min(report["level"].get("rms_dbfs", 0), 0) for path, report in runs.items()}
    gains, cards = players.gains_of_levels({path: 10 ** (level / 20) for path, level in levels.items()}), {}
    for path, report in runs.items():
        sound, picture = heard(path, kind)
        distance = report["used"].get("style_distance")
        words = [] if distance is None else [f"distance to the style {in_words(distance)} dB"]
        words += [f"loss {total}" for name, total in losses_in_words(report).items() if name == "total"]
        words += settings_in_words(past.effective_settings(report), names)
        picture = (large and _spectrograms(path)) or picture
        text = sound + picture + "<br>".join(html.escape(word) for word in words)
        cards[path] = players.card(path.stem, text, gains[path])
    return cards


def _spectrograms(file):
    # The saved picture beside a run's json file, or why there is none; "" where nothing is saved.
    saved = file.with_name(f"{file.stem}-spectrograms.png")
    if not saved.is_file() or saved.is_symlink():
        return ""
    try:
        source = data_uri("image/png", pictures.in_256_colours(saved))
    except ValueError:
        return f"<p>{html.escape(saved.name)} is damaged or too large, and left out</p>"
    return f"<img alt='spectrograms of {html.escape(file.stem)}' src='{source}'>"


def settings_in_words(values, names):
    """Return "name = value" for each of the names that values have."""
    return [f"{name} = {in_words(values[name])}" for name in names if name in values]


def framed(text):
    """Return HTML with the style of the tables; what no text can hold, as in broken names of files, becomes a ?."""
    return IPython.display.HTML(players.in_unicode(f"{STYLE}<div class='runs'>{text}</div>"))


def _button(number, name):
    name = html.escape(name).replace("_", "_<wbr>")  # where a line may end
    return f"<button type='button' data-key='{number}'>{name}</button> "


def _words(text):
    return f"<div class='words'>{text}</div>" if text else ""


def _row(path, report, differing):
    # The rows are sorted by numbers and texts, in the order of the buttons.
    settings, level = past.effective_settings(report), report["level"].get("rms_dbfs", "")
    settings = {name: settings[name] for name in differing if name in settings}
    total, saved = past.last_shares(report).get("total", ""), f"{past.saving_time(path):%Y-%m-%d %H:%M:%S}"
    distance = report["used"].get("style_distance", "")  # losses of different networks can't be compared
    values = [path.stem, distance, total, *(settings.get(name, "") for name in differing), level, saved]
    keys = [each if isinstance(each, int | float) and abs(each) < 1e300 else in_words(each) for each in values]
    keys = html.escape(json.dumps(keys))
    words = "<br>".join(html.escape(word) for word in settings_in_words(settings, differing))
    when = "<br>".join(f"<time>{part}</time>" for part in saved.split())  # 1,440 px with the list of files are enough
    cells = [*heard(path), in_words(distance), _losses(report), _words(words), in_words(level), when]
    name = f"<th scope='row'>{html.escape(path.stem)}</th>"
    return f"<tr data-keys='{keys}'>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _losses(report):
    # The sum; its terms open below.
    words = {name: html.escape(word) for name, word in losses_in_words(report).items()}
    terms = "<br>".join(f"{html.escape(name)} {word}" for name, word in words.items() if name != "total")
    return f"<details><summary>{words['total']}</summary>{terms}</details>" if "total" in words else terms


def losses_in_words(report):
    """Return the losses of a run's last step, by name: in percent of their start, or as numbers without a start."""
    shares = past.last_shares(report)
    return {
        name: percent(shares[name]) if name in shares else f"{loss:.3g}"
        for name, loss in past.last_losses(report).items()
    }


def in_words(value):
    """Return the value of a setting as a short text: a list of layers without the weights that are 1."""
    if isinstance(value, Mapping):
        return (
            ", ".join(name if weight == 1 else f"{name} {in_words(weight)}" for name, weight in value.items()) or "none"
        )
    if isinstance(value, list | tuple):
        return ", ".join(in_words(each) for each in value) or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def heard(path, kind="ogg"):
    """Return a player and a thumbnail of the sound beside a run's json file, as HTML; words where there is no sound."""
    try:
        if not past.has_sound(path):
            raise FileNotFoundError
        with path.with_suffix(".wav").open("rb") as opened, soundfile.SoundFile(opened) as file:
            if file.format != "WAV" or file.channels > 2:
                raise FileNotFoundError
            return _player(path, file, kind), _thumbnail(path, file)
    except (OSError, ValueError, soundfile.SoundFileError):  # a draft may be removed by another process
        return "no sound file that can be read", ""


def _player(path, file, kind):
    # As much of a sound as there is place for.
    most = MOST_VALUES // file.channels
    samples = file.read(most, dtype="float32", always_2d=True)
    part = f"the first {most / file.samplerate:.0f} s" if most < file.frames else ""
    loss = 0.4 if samples.size < MOST_VALUES / 4 else 0.7
    return players.player(path.stem, np.nan_to_num(samples).T, file.samplerate, kind, loss=loss) + part


def _thumbnail(path, file, *, width=160, height=64, n_fft=1024):
    # A small picture of the spectra of `width` windows, up in Hz.
    from matplotlib import image  # takes a moment, and the first cells draw nothing

    windows = np.zeros((width, n_fft))
    for window, begin in zip(windows, np.linspace(0, max(file.frames - n_fft, 0), width), strict=True):
        file.seek(int(begin))
        samples = file.read(n_fft, always_2d=True).mean(axis=1)
        window[: len(samples)] = np.nan_to_num(samples)
    magnitude = np.abs(np.fft.rfft(windows * np.hanning(n_fft)))[:, : n_fft // 2]
    bands = magnitude.reshape(width, height, -1).mean(axis=2).T[::-1] ** 0.3
    picture = io.BytesIO()
    image.imsave(picture, bands, cmap="magma", format="png")
    return f"<img alt='spectrogram of {html.escape(path.stem)}' src='{data_uri('image/png', picture.getvalue())}'>"
