"""Progress and words.

Conventions
  result   a saving.Result
  history  the losses of every step, a list of dicts from name to number
"""

import gc
import html
import math
import sys
import time

import IPython.display
from tqdm import tqdm

from support.players import Drafts
from support.saving import level

# 1. Progress -------------------------------------------------------------------------------------


def bar(steps, *, title, total, done=0):
    """Return tqdm's bar around steps, on standard output: JupyterLab shows standard error in a red box."""
    return tqdm(steps, desc=title, initial=done, total=total, mininterval=1, file=sys.stdout, disable=not total)


def follow(steps, history, *, title, num_steps, shares, draw, hear, settings):
    """Run the steps of an optimisation: collect their losses in history, beside a bar, a picture and a draft to hear.

    Parameters
    ----------
    steps : iterator
        Of losses by name, as audiocnn.optimise returns it.
    history : list
        The losses of the steps that were done before; each new step is appended.
    num_steps : int
        Steps when all are done, those in history included.
    shares : function
        From the losses of a step to the numbers that the bar shows, see Result.shares.
    draw : function
        Returns a figure of how far the optimisation is.
    hear : function
        Returns the sound so far, samples [shape=(n,) or (2, n)]; or None for no sound.
    settings : Settings
        Picture and draft are made anew every refresh seconds (0: never), or less often where they take long, so that
        they take less than a tenth of the time.
    """
    gc.collect()  # figures of earlier runs refer to themselves, and Python collects them late
    picture = IPython.display.display(IPython.display.Markdown(""), display_id=True)
    drafts, due = Drafts(sample_rate=settings.sample_rate), time.monotonic() + settings.refresh
    try:
        with bar(steps, title=title, total=num_steps, done=len(history)) as seen:
            for losses in seen:
                history.append(losses)
                seen.set_postfix(_large(shares(losses)), refresh=False)
                if settings.refresh and time.monotonic() > due:
                    began = time.monotonic()
                    picture.update(draw())
                    if (samples := hear()) is not None:
                        drafts.play(samples, f"draft after {len(history)} of {num_steps} steps")
                    due = time.monotonic() + max(settings.refresh, 10 * (time.monotonic() - began))
    finally:
        picture.update(IPython.display.Markdown(""))
        drafts.close()


def _large(shares):
    # Shares in percent, without those below a thousandth of the largest, such as the bound's: the bar is short.
    least = max(shares.values()) / 1000
    return {name: percent(share) for name, share in shares.items() if share >= least}


def steps_done(histories, num_steps, *, setting, afresh):
    """Return a sentence about how far the runs are: setting is the name of num_steps, afresh the step to begin with."""
    for run, history in enumerate(histories, start=1):
        if len(history) < num_steps:
            return f"Stopped after {len(history)} of {num_steps} steps of run {run}; run this cell again to go on."
        if len(history) > num_steps:
            more = f"Run {run} has {len(history)} steps, more than {setting}={num_steps}; nothing was changed."
            return f"{more} For fewer steps, run again from {afresh!r}."
    return (
        f"All {num_steps} steps are done. To go on, raise {setting}, run the two settings cells and this cell again; "
        f"to begin afresh, run again from {afresh!r}."
    )


# 2. Words ----------------------------------------------------------------------------------------


def percent(share):
    """Say a share in percent: 0.0412 is "4.1 %", 0.6 is "60 %", and 1e-6 is "<0.001 %"."""
    if 0 < share < 1e-5:
        return "<0.001 %"
    return f"{100 * share:.2g} %" if share < 0.095 else f"{100 * share:.0f} %"


def balance(result, settings):
    """Say in one line how near a result is to its style and to its content, and which weight changes the balance."""
    steps = result.history + result.refinement
    if not steps or not result.start:
        return "No step was done: the result is the start."
    parts = []
    for kind in ("style", "content"):
        names = [name for name in steps[-1] if name.split()[0] == kind and result.whole_of(name)]
        if names:
            share = sum(steps[-1][name] for name in names) / sum(result.whole_of(name) for name in names)
            whole = "its start" if result.start[names[0]] else "its value for noise with the style's spectrum"
            parts.append(f"the {kind} loss is at {percent(share)} of {whole}")
    said = ", ".join(parts) or f"the total is at {percent(result.shares(steps[-1])['total'])} of its start"
    weight = settings.content_weight
    change = f": for more style lower content_weight (now {weight:g}), for more content raise content_weight"
    return f"{said[0].upper()}{said[1:]}{change if len(parts) == 2 else ''}."


def length_and_level(samples, sample_rate):
    """Say how long and how loud samples are, in words."""
    decibels = level(samples)
    return f"{samples.shape[-1] / sample_rate:.1f} s, {decibels['rms_dbfs']} dBFS, peak {decibels['peak_dbfs']} dBFS"


def list_layers(shapes):
    """Say what shapes a network's layers have, a dict from layer name to shape, and the megabytes they take."""
    rows = [f"{name:20} {shape!s:24} {4e-6 * math.prod(shape):.1f} MB" for name, shape in shapes.items()]
    return "\n".join(rows)


def table_of_terms(terms):
    """Show the sum that is minimised, a list of (loss, layer, weight): an IPython.display.HTML."""
    rows = [("weight", "", "distance", "", "layer")]
    rows += [(f"{weight:g}", "x", loss.__name__, "at", layer) for loss, layer, weight in terms if weight]
    rows = [[f'<td style="text-align: left">{html.escape(cell)}</td>' for cell in row] for row in rows]
    rows = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return IPython.display.HTML(f"<table>{rows}</table>")
