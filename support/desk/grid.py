"""A sweep as a picture: how far every run is, and the results in a grid over the values of the settings.

Conventions
  report  of a run of the sweep, see support/sweeps.py
  sweep   a mapping from names of settings to their values, as in the settings
"""

import collections
import html
import itertools
import json
import re

from support.desk.past import find_runs
from support.desk.settings import plain
from support.desk.show import show
from support.desk.sweeps import run_sweep
from support.desk.table import framed, in_words, losses_in_words, player, thumbnail

BAR = re.compile(r"(?P<title>[^|]*): +\d+%\|[^|]*\| (?P<done>\d+)/(?P<total>\d+) (?P<rest>.*)")  # as tqdm prints it


def follow_sweep(notebook, settings, *, n_jobs=-1):
    """Run the settings' sweep of a notebook, n_jobs at once (-1: one for each core), and show how far each run is.

    Returns the reports, see sweeps.py.
    """
    if not settings.sweep:
        return []
    shown, reports = show(framed("")), []

    def watch(now):
        reports[:] = now
        if shown:
            shown.update(progress_of_sweep(now, settings.sweep))

    ended = list(run_sweep(notebook, settings, n_jobs=n_jobs, watch=watch))
    watch(reports or ended)
    return ended


def progress_of_sweep(reports, sweep):
    """Show how far each run of a sweep is, a bar for each run that makes steps: an IPython.display.HTML."""
    states = [_state(report) for report in reports]
    ended = sum(state in ("failed", "done", "made earlier") for state in states)
    rows = (
        f"<tr><th scope='row'>{html.escape(_point(report, sweep))}</th><td>{_bar(state)}</td></tr>"
        for report, state in zip(reports, states, strict=True)
    )
    return framed(f"<p>{ended} of {len(reports)} runs have ended.</p><table>{''.join(rows)}</table>")


def _state(report):
    return "failed" if "failed" in report else report["progress"]


def _point(report, sweep):
    return ", ".join(f"{name} = {in_words(report['settings'][name])}" for name in sweep)


def _bar(state):
    bar = BAR.fullmatch(state)
    if bar is None:
        return html.escape(state[:120])
    done, total = bar["done"], bar["total"]
    words = html.escape(f"{bar['title']}: {done}/{total} {bar['rest']}")
    return f"<span class='line'><progress value='{done}' max='{total}'></progress> {words}</span>"


def grid_of_sweep(reports, sweep, *, folder="outputs"):
    """Show the results of a sweep in a grid: players, thumbnails and losses, or why a run failed: an HTML.

    The values of the first setting stand side by side, those of the second setting below each other. With more
    settings there is one grid for each combination of their values.
    """
    runs = collections.defaultdict(dict)
    for path, report in sorted(find_runs(folder, names=[report["outname"] for report in reports]).items()):
        runs[report["settings"]["outname"]][path] = report
    cells = {_key(report["settings"], sweep): _cell(report, runs[report["outname"]]) for report in reports}
    values = {name: {json.dumps(plain(value)): value for value in each}.values() for name, each in sweep.items()}
    across, down, others = list(values)[:1], list(values)[1:2], list(values)[2:]
    grids = [_grid(other, across, down, values, cells) for other in _points(others, values)] if values else []
    return framed("".join(grids))


def _points(names, values):
    # Every combination of the values of some settings, dicts; one empty dict where there are no names.
    return [dict(zip(names, each, strict=True)) for each in itertools.product(*(values[name] for name in names))]


def _key(values, names):
    return tuple(json.dumps(plain(values[name])) for name in names)


def _grid(other, across, down, values, cells):
    columns, rows = _points(across, values), _points(down, values)
    heads = "".join(_head(point, "col") for point in columns)
    lines = [
        "".join(cells.get(_key(row | column | other, values), "<td>not made</td>") for column in columns)
        for row in rows
    ]
    body = "".join(f"<tr>{_head(row, 'row')}{line}</tr>" for row, line in zip(rows, lines, strict=True))
    caption = f"<caption>{_words(other)}</caption>" if other else ""
    return f"<table>{caption}<thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _head(point, scope):
    return f"<th scope='{scope}'>{_words(point)}</th>"


def _words(point):
    return html.escape(", ".join(f"{name} = {in_words(value)}" for name, value in point.items()))


def _cell(report, runs):
    parts = [f"failed: {html.escape(report['failed'])}"] if "failed" in report else []
    for path, run in runs.items():
        total = losses_in_words(run).get("total")
        loss = [html.escape(f"loss {total}")] if total else []
        parts += [player(path), thumbnail(path), html.escape(path.stem), *loss]
    return f"<td>{''.join(f'<div>{part}</div>' for part in parts) or 'not made'}</td>"
