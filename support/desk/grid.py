"""A sweep as a picture: how far every run is, and the results in a grid over the values of the settings.

Conventions
  report  of a run of the sweep, see sweeps.py
  sweep   a mapping from names of settings to their values, as in the settings
"""

import html
import itertools
import re
import time
import warnings

from support.desk import players
from support.desk.past import find_runs
from support.desk.settings import OPTIMISE, REFINE, plain
from support.desk.show import show
from support.desk.table import cards_of, framed, settings_in_words

# As tqdm prints the bar of show.progress.
BAR = re.compile(
    r"(run|refine) (?P<run>\d+)/(?P<runs>\d+): +\d+%\|[^|]*\| (?P<done>\d+)/(?P<total>\d+) \[(?P<rest>.*)\]"
)
STEP = {"run": OPTIMISE, "refine": REFINE}


def follow_sweep(run, sweep):
    """Run a sweep, show how far each of its runs is, and return the reports, see sweeps.py.

    run : function of watch, such as functools.partial(sweeps.run_sweep, notebook, settings)
    """
    if not sweep:
        return []
    shown, began = show(framed("")), time.monotonic()

    def watch(reports):
        if shown:
            shown.update(progress_of_sweep(reports, sweep, seconds=time.monotonic() - began))

    reports = []
    try:
        for report in run(watch=watch):
            reports.append(report)
    except KeyboardInterrupt:
        warnings.warn("the sweep was stopped; run this cell again to make the runs that are missing", stacklevel=2)
    return reports


def progress_of_sweep(reports, sweep, *, seconds=0.0):
    """Show how far each run of a sweep is, and how long all will take if they go on as so far: an HTML.

    seconds : since the sweep began
    """
    states = ["failed" if "failed" in report else report["progress"] for report in reports]
    ended = sum(state in ("failed", "done", "made earlier") for state in states)
    bars = [_bar(state) for state in states]
    shares = [share for (share, _), state in zip(bars, states, strict=True) if state != "made earlier"]
    left = seconds * (len(shares) / sum(shares) - 1) if sum(shares) else 0
    estimate = (
        f" About {left / 60:.0f} min are left." if left > 90 else f" About {left:.0f} s are left." if left else ""
    )
    rows = (
        f"<tr><th scope='row'>{html.escape(_words(report['settings'], sweep))}</th><td>{bar}</td></tr>"
        for report, (_, bar) in zip(reports, bars, strict=True)
    )
    return framed(f"<p>{ended} of {len(reports)} runs have ended.{estimate}</p><table>{''.join(rows)}</table>")


def _bar(state):
    # How much of a run is done, where the steps on the spectrogram count as much as those on the samples; and its HTML.
    bar = BAR.fullmatch(state)
    if bar is None:
        return float(state in ("failed", "done")), html.escape(state[:120])
    run, runs, done, total = (int(bar[name]) for name in ("run", "runs", "done", "total"))
    share = (run - 1 + done / max(1, total)) / runs
    of_runs = f", run {run} of {runs}" if runs > 1 else ""
    words = html.escape(f"{STEP[bar[1]]}{of_runs}: step {done} of {total}, {bar['rest']}")
    line = f"<span class='line'><progress value='{done}' max='{total}'></progress> {words}</span>"
    return (share + (bar[1] == "refine")) / 2, line


def grid_of_sweep(reports, sweep, *, folder="outputs"):
    """Show the results of a sweep in a grid: players, thumbnails, distances and losses, or why a run failed: an HTML.

    The values of the first setting stand side by side, those of the second setting below each other. With more
    settings there is one grid for each combination of their values. Buttons switch between all players.
    """
    runs = dict(sorted(find_runs(folder, names=[report["outname"] for report in reports]).items()))
    cards, titles = cards_of(runs, []), []
    points = [plain({name: report["settings"][name] for name in sweep}) for report in reports]

    def cell(point):
        report = reports[points.index(point)] if point in points else {}
        parts = [f"failed: {html.escape(report['failed'])}"] if "failed" in report else []
        parts += [cards[path] for path, run in runs.items() if run["settings"]["outname"] == report.get("outname")]
        titles.extend(_words(point, sweep) for part in parts if "<audio" in part)
        return "".join(f"<div>{part}</div>" for part in parts) or "not made"

    values = {
        name: [each[n] for n in range(len(each)) if each[n] not in each[:n]] for name, each in plain(sweep).items()
    }
    across, down, others = list(values)[:1], list(values)[1:2], list(values)[2:]
    grids = [_grid(other, across, down, values, cell) for other in _points(others, values)] if values else []
    return framed(players.with_buttons(titles, "".join(grids)))


def _points(names, values):
    # Every combination of the values of some settings, dicts; one empty dict where there are no names.
    return [dict(zip(names, each, strict=True)) for each in itertools.product(*(values[name] for name in names))]


def _grid(other, across, down, values, cell):
    columns, rows = _points(across, values), _points(down, values)
    if not down:
        cards = (f"<div><b>{html.escape(_words(column))}</b>{cell(column)}</div>" for column in columns)
        return players.wrapped(cards)
    heads = "".join(_head(point, "col") for point in columns)
    lines = ("".join(f"<td>{cell(row | column | other)}</td>" for column in columns) for row in rows)
    body = "".join(f"<tr>{_head(row, 'row')}{line}</tr>" for row, line in zip(rows, lines, strict=True))
    caption = f"<caption>{html.escape(_words(other))}</caption>" if other else ""
    return f"<table>{caption}<thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _head(point, scope):
    return f"<th scope='{scope}'>{html.escape(_words(point))}</th>"


def _words(point, names=None):
    return ", ".join(settings_in_words(point, names or point))
