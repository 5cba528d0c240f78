"""Pictures, players, progress and the table of runs.

Conventions
  spectrograms  dict from title to compressed magnitudes [shape=(n_bins, n_frames)]
  history       the losses of every step, a list of dicts from name to number
  figures are returned, and never left open in matplotlib
"""

import gc
import html
import json
import math
import time

import IPython.display
import librosa
from tqdm import tqdm

from audiocnn import receptive_fields
from support.saving import level, list_reports
from support.transforms import fit_full_scale, from_image

# 1. Pictures -------------------------------------------------------------------------------------


def _figure(width, height, *, columns=1):
    from matplotlib import pyplot as plt  # takes half a second, and the first cells draw nothing

    figure, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False, layout="constrained")
    plt.close(figure)  # an open figure would be shown twice
    return figure, axes[0]


def plot_spectrograms(spectrograms, transform):
    """Draw spectrograms side by side on one colour scale; the transform (STFT or CQT) gives the axes."""
    figure, axes = _figure(5 * len(spectrograms), 4, columns=len(spectrograms))
    top = max(values.max() for values in spectrograms.values())
    for ax, (title, values) in zip(axes, spectrograms.items(), strict=True):
        mesh = librosa.display.specshow(values, ax=ax, vmin=0, vmax=top, cmap="magma", **transform.axes)
        ax.set(title=title, xlabel="Time [s]", ylabel="Frequency [Hz]")
    figure.colorbar(mesh, ax=axes, label="compressed magnitude")
    return figure


def plot_histograms(spectrograms):
    """Draw how often each value occurs, one curve for each title."""
    figure, (ax,) = _figure(7, 3)
    for title, values in spectrograms.items():
        ax.hist(values.ravel(), bins=100, density=True, histtype="step", label=title)
    ax.set(xlabel="compressed magnitude", ylabel="density", yscale="log", title="Values in the spectrograms")
    ax.legend()
    return figure


def plot_losses(histories):
    """Draw the weighted losses over the steps, for a list of histories."""
    figure, (ax,) = _figure(7, 3)
    _draw_losses(ax, histories)
    return figure


def _draw_losses(ax, histories):
    for run, history in enumerate(histories):
        for color, name in enumerate(history[0] if history else ()):
            values = [losses[name] for losses in history]
            steps, label = range(1, len(values) + 1), name if run == 0 else None
            ax.plot(steps, values, f"C{color}", alpha=1 / (1 + run), label=label)
    ax.set(xlabel="step", ylabel="weighted loss", yscale="log", title="Losses")
    if ax.lines:
        ax.legend()


def plot_progress(spectrogram, transform, history):
    """Draw a spectrogram [shape=(n_bins, n_frames)] as it is now beside the losses so far."""
    figure, axes = _figure(10, 3, columns=2)
    librosa.display.specshow(spectrogram, ax=axes[0], vmin=0, cmap="magma", **transform.axes)
    axes[0].set(title=f"After {len(history)} steps", xlabel="Time [s]", ylabel="Frequency [Hz]")
    _draw_losses(axes[1], [history])
    return figure


def plot_receptive_fields(network, *, hop_seconds):
    """Draw how many milliseconds one position of each layer covers, where frames are hop_seconds apart."""
    durations = {name: 1000 * hop_seconds * field for name, field in receptive_fields(network).items()}
    figure, (ax,) = _figure(7, 1 + 0.22 * len(durations))
    bars = ax.barh(list(durations), list(durations.values()))
    ax.bar_label(bars, fmt="%.0f ms", padding=3)
    ax.set(xlabel="receptive field [ms]", xscale="log", title="What one position of a layer covers")
    ax.margins(x=0.15)
    ax.invert_yaxis()
    return figure


def draw_image(image, settings, transform, history):
    """Draw how far the optimisation of an image is, see plot_progress."""
    return plot_progress(from_image(image, settings.whichChannel), transform, history)


def draw_samples(samples, view, settings, transform, history):
    """Draw how far the optimisation of samples is, whose image is what view returns."""
    return draw_image(view(samples.detach()), settings, transform, history)


# 2. Progress -------------------------------------------------------------------------------------


def follow(steps, history, *, title, num_steps, refresh, draw):
    """Run the steps of an optimisation: collect their losses in history, beside a bar and a picture.

    Parameters
    ----------
    steps : iterator
        Of losses by name, as audiocnn.optimise returns it.
    history : list
        The losses of the steps that were done before; each new step is appended.
    num_steps : int
        Steps when all are done, those in history included.
    refresh : float [s]
        How often the picture is drawn anew; 0: never.
    draw : function
        From the history to a figure of how far the optimisation is.
    """
    gc.collect()  # figures of earlier runs refer to themselves, and Python collects them late
    picture, drawn = IPython.display.display(IPython.display.Markdown(""), display_id=True), time.monotonic()
    try:
        with tqdm(steps, desc=title, initial=len(history), total=num_steps, mininterval=1) as bar:
            for losses in bar:
                history.append(losses)
                bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()}, refresh=False)
                if refresh and time.monotonic() > drawn + refresh:
                    picture.update(draw(history))
                    drawn = time.monotonic()
    finally:
        picture.update(IPython.display.Markdown(""))


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


# 3. Sounds and tables ----------------------------------------------------------------------------


def length_and_level(samples, sample_rate):
    """Say how long and how loud samples are, in words."""
    decibels = level(samples)
    return f"{samples.shape[-1] / sample_rate:.1f} s, {decibels['rms_dbfs']} dBFS, peak {decibels['peak_dbfs']} dBFS"


def list_layers(shapes):
    """Say what shapes a network's layers have, a dict from layer name to shape, and the megabytes they take."""
    rows = [f"{name:20} {shape!s:24} {4e-6 * math.prod(shape):.1f} MB" for name, shape in shapes.items()]
    return "\n".join(rows)


def players(sounds, *, sample_rate):
    """Show sounds, a dict from title to samples, side by side at their own levels: an IPython.display.HTML."""
    settings = dict(rate=sample_rate, normalize=False)
    return _table([sounds, [IPython.display.Audio(fit_full_scale(y), **settings) for y in sounds.values()]])


def table_of_runs(folder="outputs", *, last=20, names=None):
    """Show the last runs in a folder: the settings that differ, last losses, level, sound: an IPython.display.HTML.

    names : list of str or None
        Only runs of these outnames.
    """
    reports = list_reports(folder, last=last if names is None else None)
    reports = {path: r for path, r in reports.items() if names is None or r["settings"]["outname"] in names}
    settings = [report["settings"] for report in reports.values()]
    names = dict.fromkeys(name for each in settings for name in each if name not in ("outname", "used"))
    names = [name for name in names if len({json.dumps(each.get(name)) for each in settings}) > 1]
    rows = [("run", *names, "losses", "level [dBFS]", "sound")]
    for path, report in reports.items():
        losses = ", ".join(f"{name} {value:.3g}" for name, value in (report["losses"] or [{}])[-1].items())
        values = (report["settings"].get(name) for name in names)
        player = IPython.display.Audio(filename=path.with_suffix(".wav"))
        rows.append((path.stem, *values, losses, report["level"]["rms_dbfs"], player))
    return _table(rows)


def table_of_terms(terms):
    """Show the sum that is minimised, a list of (loss, layer, weight): an IPython.display.HTML."""
    rows = [(f"{weight:g}", "x", loss.__name__, "at", layer) for loss, layer, weight in terms if weight]
    return _table([("weight", "", "distance", "", "layer"), *rows])


def _table(rows):
    cells = [
        [cell._repr_html_() if isinstance(cell, IPython.display.Audio) else html.escape(str(cell)) for cell in row]
        for row in rows
    ]
    rows = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells)
    return IPython.display.HTML(f"<table>{''.join(rows)}</table>")
