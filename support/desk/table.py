"""The table of runs: an HTML table that a click on a heading sorts, with a player and a thumbnail of each run.

Everything is inside the table: a notebook that is exported as HTML needs no other file. Without JavaScript, as in a
notebook that is not trusted, only the sorting is missing.
"""

import base64
import html
import io
from collections.abc import Mapping

import IPython.display
import numpy as np
import soundfile

from support.desk.past import differing_settings, effective_settings, find_runs, last_losses, last_shares, saved_at
from support.desk.show import percent

STYLE = """<style>
.runs { overflow-x: auto; }
.runs table { border-collapse: collapse; }
.runs th, .runs td { text-align: left !important; vertical-align: middle; padding: 0.2em 0.6em; max-width: 18em; }
.runs td[data-number] { text-align: right !important; }
.runs tbody th, .runs td:has(.line) { max-width: none; }
.runs tbody th, .runs time, .runs details, .runs .line { white-space: nowrap; }
.runs th button { all: unset; cursor: pointer; font-weight: bold; }
.runs th button:focus-visible { outline: 2px solid; }
.runs th[aria-sort=ascending] button::after { content: " \\25B2"; }
.runs th[aria-sort=descending] button::after { content: " \\25BC"; }
.runs audio { width: 14em; height: 2em; display: block; }
.runs img { width: 160px; height: 64px; max-width: none; display: block; }
</style>"""

# One listener for all tables of a page: JupyterLab runs a script before its table is in the page. Numbers come before
# texts, and the rows of equal cells keep their order. Without data-lm-suppress-shortcuts, Enter on a heading is a
# command of JupyterLab.
SCRIPT = """<script>
if (!window.sortsRuns) {
  window.sortsRuns = true;
  const key = (row, column) => row.cells[column].dataset.number ?? row.cells[column].textContent.trim();
  const isText = (row, column) => row.cells[column].dataset.number === undefined;
  document.addEventListener("click", event => {
    const heading = event.target.closest?.(".runs th[data-sorts]");
    if (!heading) return;
    const column = heading.cellIndex, body = heading.closest("table").tBodies[0];
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const compare = (a, b) => isText(a, column) - isText(b, column) || sign * (isText(a, column)
      ? key(a, column).localeCompare(key(b, column)) : key(a, column) - key(b, column));
    body.append(...[...body.rows].sort(compare));
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  });
}
</script>"""


def table_of_runs(folder="outputs", *, last=20, names=None, **settings):
    """Show runs, newest first: name, player, thumbnail, the settings that differ, losses, level: an HTML.

    Parameters
    ----------
    last : int or None
        At most so many runs; None, or where names are given: all.
    names : list of str or None
        Only runs of these outnames.
    settings : numbers, strings, None, and lists and dicts of them
        Only runs with these values, see past.find_runs.
    """
    runs = find_runs(folder, last=last if names is None else None, names=names, **settings)
    if not runs:
        return IPython.display.HTML(f"<p>no such runs in {html.escape(str(folder))}</p>")
    differing = differing_settings(runs)
    headings = [_heading("run"), "<th scope='col'>sound</th><th scope='col'>spectrogram</th>"]
    headings += [_heading(name) for name in (*differing, "loss", "level [dBFS]", "saved")]
    rows = []
    for path, report in runs.items():
        cells = [f"<th scope='row'>{html.escape(path.stem)}</th><td>{player(path)}</td><td>{thumbnail(path)}</td>"]
        settings = effective_settings(report)
        cells += [_cell(settings.get(name, "")) for name in differing]
        cells += [_cell_of_losses(report), _cell(report.get("level", {}).get("rms_dbfs"))]
        rows.append(f"<tr>{''.join(cells)}<td><time>{saved_at(path):%Y-%m-%d %H:%M:%S}</time></td></tr>")
    head, body = f"<thead><tr>{''.join(headings)}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    return framed(f"<table data-lm-suppress-shortcuts='true'>{head}{body}</table>{SCRIPT}")


def framed(text):
    """Return HTML with the style of the tables."""
    return IPython.display.HTML(f"{STYLE}<div class='runs'>{text}</div>")


def _heading(name):
    name = html.escape(name).replace("_", "_<wbr>")  # where a line may end
    return f"<th scope='col' data-sorts><button type='button'>{name}</button></th>"


def _cell(value):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    number = f" data-number='{value}'" if is_number else ""
    return f"<td{number}>{html.escape(in_words(value))}</td>"


def _cell_of_losses(report):
    # The sum, by which the rows are sorted; the terms of the sum open below the sum.
    words, shares = losses_in_words(report), last_shares(report)
    terms = "<br>".join(html.escape(f"{name} {word}") for name, word in words.items() if name != "total")
    if "total" not in words:
        return f"<td>{terms}</td>"
    number = f" data-number='{shares['total']}'" if "total" in shares else ""
    return f"<td{number}><details><summary>{html.escape(words['total'])}</summary>{terms}</details></td>"


def losses_in_words(report):
    """Return the losses of a run's last step, by name: in percent of their start, or as numbers without a start."""
    shares = last_shares(report)
    return {
        name: percent(shares[name]) if name in shares else f"{loss:.3g}" for name, loss in last_losses(report).items()
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


def player(path):
    """Return an HTML player of the sound beside a run's json file."""
    sound = base64.b64encode(path.with_suffix(".wav").read_bytes()).decode()
    return f"<audio controls aria-label='{html.escape(path.stem)}' src='data:audio/wav;base64,{sound}'></audio>"


def thumbnail(path, *, width=160, height=64, n_fft=1024):
    """Return a small HTML picture of the sound beside a run's json file: the spectra of `width` windows, up in Hz."""
    from matplotlib import image  # takes a moment, and the first cells draw nothing

    try:
        samples, _ = soundfile.read(path.with_suffix(".wav"), always_2d=True)
    except soundfile.LibsndfileError:
        return "no sound file"
    begin = np.linspace(0, max(len(samples) - n_fft, 0), width).astype(int)
    windows = np.pad(samples.mean(axis=1), (0, n_fft))[begin[:, None] + np.arange(n_fft)] * np.hanning(n_fft)
    magnitude = np.abs(np.fft.rfft(windows))[:, : n_fft // 2]
    bands = magnitude.reshape(width, height, -1).mean(axis=2).T[::-1] ** 0.3
    picture = io.BytesIO()
    image.imsave(picture, bands, cmap="magma", format="png")
    name, data = html.escape(path.stem), base64.b64encode(picture.getvalue()).decode()
    return f"<img alt='spectrogram of {name}' src='data:image/png;base64,{data}'>"
