"""Progress and words.

Conventions
  result   a pipeline.Result
  history  the losses of every step, a list of dicts from name to number
"""

import contextlib
import gc
import html
import math
import sys
import time
from pathlib import Path

import IPython.display
from tqdm import tqdm

from support.desk import pictures, players
from support.desk.saving import level
from support.desk.settings import plain
from support.desk.truth import noted

# 1. Progress -------------------------------------------------------------------------------------


def progress(steps, result, analysis, total, refresh=10.0):
    """Yield the steps of a descent, note how they are made, and show a bar and, from time to time, a picture.

    Parameters
    ----------
    steps : audiocnn.Descent
    result : pipeline.Result
        Its image is optimised; or its samples, if it has samples.
    analysis : of the result
    total : int
        Steps when all are done.
    refresh : float [s]
        Between pictures (0: none); where they take long, less often, so that they take less than a tenth of the time.
    """
    history, title = (result.history, "run") if result.samples is None else (result.refinement, "refine")
    if len(history) < total:
        descents = result.descents if result.samples is None else result.sample_descents
        descents.append(noted(steps, analysis, result.samples))
        if getattr(steps, "begins", True):
            result.note_begun()
    gc.collect()  # figures of earlier runs refer to themselves, and Python collects them late
    shown, due = show(IPython.display.Markdown("")), time.monotonic() + refresh
    # On standard output, because JupyterLab shows standard error in a red box.
    bar = tqdm(
        steps,
        desc=f"{title} {result.run + 1}/{result.settings.runs}",
        initial=len(history),
        total=total,
        mininterval=1,
        file=sys.stdout,
        disable=not total,
    )
    edits = 0
    with bar as seen:
        try:
            for losses in seen:
                if getattr(steps, "edits", 0) > edits:
                    edits = steps.edits
                    result.note_begun()
                result.remember(getattr(steps, "memory", None))
                yield losses
                seen.set_postfix(_large(result.shares(losses)), refresh=False)
                if refresh and shown and time.monotonic() > due:
                    began = time.monotonic()
                    shown.update(pictures.plot_progress(result, analysis))
                    due = time.monotonic() + max(refresh, 10 * (time.monotonic() - began))
            result.remember(None)  # of 30 s, what L-BFGS knows takes 0.2 GB
            with contextlib.suppress(AttributeError):  # steps of one's own may have no place for this
                steps.memory = None
        finally:
            if getattr(steps, "edited", False):
                result.note_change(f"the {'image' if result.samples is None else 'samples'} in the loop")
            if shown:
                shown.update(IPython.display.Markdown(""))


def follow_stream(stream):
    """Make a long result to its end, or to an interrupt: show a bar; return its player, and where the file is."""
    there, seconds = stream.seconds
    bar = tqdm(desc="seconds", initial=round(there), total=round(seconds), mininterval=1, file=sys.stdout)
    with bar as seen, contextlib.suppress(KeyboardInterrupt):
        for new in stream:
            seen.update(round(new))
    there, is_part = stream.seconds[0], stream.sound.stem.endswith("-part")
    more = "; run this cell again to go on" if is_part else ", all that was asked for"
    words = html.escape(f"{stream.sound}: {there:.1f} of {seconds:.1f} s{more}")
    return IPython.display.HTML(f"<p>{words}</p>{players.of_file(stream.sound)}")


def show(output):
    """Display an output that can be changed later: its handle, or None where there is no notebook."""
    return IPython.display.display(output, display_id=True) if IPython.get_ipython() else None


def _large(shares):
    # Shares in percent, without those below a thousandth of the largest, such as the bound's: the bar is short.
    least = max(shares.values()) / 1000
    return {name: percent(share) for name, share in shares.items() if share >= least}


def steps_done(histories, num_steps, setting, first):
    """Return a sentence about how far the runs are: setting is the name of num_steps, first the step to begin with."""
    for run, history in enumerate(histories, start=1):
        if len(history) < num_steps:
            return f"Stopped after {len(history)} of {num_steps} steps of run {run}; run this cell again to go on."
        if len(history) > num_steps:
            more = f"Run {run} has {len(history)} steps, more than {setting}={num_steps}; nothing was changed."
            return f"{more} For fewer steps, run again from {first!r}."
    return (
        f"All {num_steps} steps are done. To go on, set {setting} to more than {num_steps}, run the two settings cells "
        f"and this cell again; to begin again, run again from {first!r}."
    )


# 2. Words ----------------------------------------------------------------------------------------


def percent(share):
    """Say a share in percent: 0.0412 is "4.1 %", 0.6 is "60 %", and 1e-6 is "<0.001 %"."""
    if 0 < share < 1e-5:
        return "<0.001 %"
    return f"{100 * share:.2g} %" if share < 0.095 else f"{100 * share:.0f} %"


def balance(result):
    """Say in one line how near a result is to its style and to its content, and which weight changes the balance."""
    steps = result.history + result.refinement
    if not steps or not result.start:
        return "No step was done: the result is the start."
    parts = []
    for kind in ("style", "content"):
        names = [name for name in steps[-1] if name.split()[0] == kind and result.whole_of(name)]
        if names:
            share = sum(steps[-1][name] for name in names) / sum(result.whole_of(name) for name in names)
            whole = "its value for noise with the style's spectrum" if names[0] in result.noise else "its start"
            parts.append(f"the {kind} loss is at {percent(share)} of {whole}")
    said = ", ".join(parts) or f"the total is at {percent(result.shares(steps[-1])['total'])} of its start"
    weight = result.settings.content_weight
    weight = f"{weight:g}" if isinstance(weight, int | float) else plain(weight)
    change = f": for more style lower content_weight (now {weight}), for more content raise content_weight"
    return f"{said[0].upper()}{said[1:]}{change if len(parts) == 2 else ''}."


def title_of(result):
    """Return the title of a result's player: "result 1: rain_texture-001", with the name of its files once saved."""
    return f"result {result.run + 1}" + (f": {Path(result.saved[0]).name}" if result.saved else "")


def named(recordings, files):
    """Return the recordings with the names of their files in their titles: "style 1: tabla"."""
    return {f"{name}: {Path(files[name]).stem}": samples for name, samples in recordings.items()}


def length_and_level(samples, sample_rate):
    """Say how long and how loud samples are, in words."""
    decibels = level(samples)
    return f"{samples.shape[-1] / sample_rate:.1f} s, {decibels['rms_dbfs']} dBFS, peak {decibels['peak_dbfs']} dBFS"


def list_layers(shapes):
    """Say what shapes a network's layers have, a dict from layer name to shape, and the megabytes they take."""
    rows = [f"{name:20} {shape!s:24} {4e-6 * math.prod(shape):.1f} MB" for name, shape in shapes.items()]
    return "\n".join(rows)


def table_of_losses(objective, image):
    """Show every term of an objective for an image: its weight, its distance, and their product: an HTML.

    The last row has the sum, and the size of its gradient: the root of the mean square over the image.
    """
    losses, gradient = objective.evaluate(image, by_network=True)
    weights = objective.weights
    rows = [("loss", "weight", "distance", "weight x distance")]
    for name, loss in losses.items():
        rows.append((name, f"{weights[name]:.4g}", f"{float(loss) / weights[name]:.4g}", f"{float(loss):.4g}"))
    size = float(gradient.square().mean().sqrt())
    rows.append(("total", "", f"its gradient: {size:.3g}", f"{float(sum(losses.values())):.4g}"))
    cells = ["".join(f"<td style='text-align: left'>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return IPython.display.HTML(f"<table>{''.join(f'<tr>{each}</tr>' for each in cells)}</table>")
