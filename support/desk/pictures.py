"""Pictures of spectrograms, waveforms, losses and layers.

Conventions
  spectrograms    dict from title to compressed magnitudes [shape=(n_bins, n_frames)]
  frequency_axis  "linear", "log" or "mel"; None: as even as the bins, "log" for a constant-Q transform and else "mel"
  result          a pipeline.Result
  figures are returned, and never left open in matplotlib
"""

import io
import math
import warnings
import weakref

import IPython
import librosa
import numpy as np
from IPython.core import pylabtools

from support.layers import receptive_fields
from support.sound.transforms import CQT
from support.weights import reason_of

WIDTH = 11  # inches; about as wide as a notebook, so that the browser hardly shrinks the picture and its text
MOST_COLUMNS = 3
MOST_POINTS = 2**23  # of a picture that is read from a file: 1.5 s and 0.2 GB
MOST_FRAMES = 400  # of a spectrogram, which is about 450 points wide; 862 frames took a third more of a picture's time
TICKS = {"log": (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000), "mel": (0, 500, 1000, 2000, 4000, 8000, 16000)}


def _figure(width, height):
    from matplotlib import pyplot as plt  # takes half a second, and the first cells draw nothing

    figure, shell = plt.figure(figsize=(width, height), layout=None), IPython.get_ipython()
    plt.close(figure)  # an open figure would be shown twice
    if shell:  # also where MPLBACKEND=agg left figures without a picture
        pylabtools.select_figure_formats(shell, {"png"})
        # In 256 colours; the files beside the sound keep all.
        formatter = shell.display_formatter.formatters["image/png"]
        formatter.for_type(type(figure), lambda each: in_256_colours(io.BytesIO(png(each))))
    return figure


def _axes_at(figure, left, below, across, up, **how):
    # Axes at a place in inches: matplotlib's own search for places takes half of the time of a small picture.
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, below / height, across / width, up / height), **how)


def _wide(texts):
    return 0.085 * max(map(len, texts), default=0)  # inches; about as wide as the longest of some texts


def plot_ratings(rows, limits):
    """Draw the means of a listening test and their intervals, see listening.result: for all sounds, and for each.

    limits : of the scale, two numbers
    """
    figure, methods = _figure(8, 4), list(dict.fromkeys(row["method"] for row in rows))
    sounds, ax = list(dict.fromkeys(row["sound"] for row in rows)), _axes_at(figure, 0.7, 0.5, 7.1, 3.3)
    for sound, shift in zip(sounds, np.linspace(-0.3, 0.3, len(sounds)), strict=True):
        found = [row for row in rows if row["sound"] == sound]
        where = [methods.index(row["method"]) + shift for row in found]
        half = np.nan_to_num([row["high"] - row["mean"] for row in found])
        ax.errorbar(where, [row["mean"] for row in found], half, fmt="o", capsize=4, label=sound or "all sounds")
    ax.set_xticks(range(len(methods)), methods)
    ax.set(ylim=limits, ylabel="rating, 95 % interval")
    ax.legend()
    return figure


def png(figure):
    """Return a figure as the bytes of a png; drawn once, because that takes a second: a cell saves it and shows it."""
    if figure not in _drawn:
        whole = io.BytesIO()
        figure.savefig(whole, dpi=100, format="png")
        _drawn[figure] = whole.getvalue()
    return _drawn[figure]


_drawn = weakref.WeakKeyDictionary()


def in_256_colours(picture):
    """Return a picture, a file or a path, as the bytes of a png of 256 colours: of a spectrogram, a quarter.

    Colours are off by at most 8 of 255 in a spectrogram; the usual choice of colours would be off by 59 in rare ones,
    which are the loudest places. ValueError for a file that is damaged, or of more than MOST_POINTS.
    """
    from PIL import Image

    small = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(picture, formats=["PNG"]) as opened:
            if opened.width * opened.height > MOST_POINTS:  # so says the header; nothing is decoded yet
                raise ValueError(f"it has {opened.width} x {opened.height} points")
            opened.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(small, format="PNG")
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(f"a picture can't be read: {reason_of(error)}") from error
    return small.getvalue()


# 1. Spectrograms and waveforms -------------------------------------------------------------------


def plot_spectrograms(
    spectrograms, transform, *, frequency_axis=None, sounds=None, difference=None, label="compressed magnitude"
):
    """Draw spectrograms on one colour scale, in rows of at most three, with their waveforms above.

    Parameters
    ----------
    transform : STFT or CQT
        Gives the frequency of each bin and the time of each frame.
    sounds : dict or None
        Samples [shape=(n,)] by the titles of the spectrograms; a spectrogram without samples has no waveform.
    difference : (str, str) or None
        Two of the titles: one more panel shows the second spectrogram minus the first.
    label : str
        What the values are.
    """
    sounds, top = sounds or {}, max(values.max() for values in spectrograms.values())
    figure, above, axes, scale = _panels(len(spectrograms) + bool(difference), waveforms=bool(sounds))
    peak = max((np.abs(samples).max() for samples in sounds.values()), default=1)
    for upper, ax, (title, values) in zip(above, axes, spectrograms.items(), strict=False):
        mesh = _draw_spectrogram(ax, values, transform, frequency_axis, vmin=0, vmax=top, cmap="magma")
        upper.set_title(title)
        if title in sounds:
            _draw_waveform(upper, sounds[title], transform.sample_rate, peak)
    figure.colorbar(mesh, cax=scale, label=label, ticklocation="left")
    if difference:
        asked, found = difference
        values = spectrograms[found] - spectrograms[asked]
        most = max(np.quantile(np.abs(values), 0.995), 1e-9)  # the largest differences of all would make others pale
        mesh = _draw_spectrogram(axes[-1], values, transform, frequency_axis, vmin=-most, vmax=most, cmap="RdBu_r")
        above[-1].set_title(f"{found} minus {asked}")
        place = dict(cax=above[-1].inset_axes([0.1, 0.45, 0.8, 0.2])) if sounds else dict(ax=axes[-1])
        bar = figure.colorbar(mesh, **place, orientation="horizontal", extend="both")
        bar.ax.locator_params(axis="x", nbins=4, steps=[1, 2, 5, 10])  # -0.0050 beside -0.0025 would touch
    return figure


def _panels(number, *, waveforms):
    # A figure, and the axes of its waveforms, of its spectrograms (without waveforms, the same) and of its colours.
    columns = 2 if number == 4 else min(number, MOST_COLUMNS)
    rows, wave = math.ceil(number / columns), 0.6 * waveforms
    width, row_height = WIDTH if columns > 1 else 7, 4 if waveforms else 3.2
    figure = _figure(width, row_height * rows)
    left, gap, below, title = 1.5, 0.4, 0.55, 0.3
    across, up = (width - left - 0.15 + gap) / columns - gap, row_height - below - title - wave
    places = [
        (left + panel % columns * (across + gap), below + (rows - 1 - panel // columns) * row_height)
        for panel in range(number)
    ]
    axes = [_axes_at(figure, *place, across, up) for place in places]
    scale = _axes_at(figure, 0.65, below, 0.15, (rows - 1) * row_height + up)
    if not waveforms:
        return figure, axes, axes, scale
    above = [_axes_at(figure, x, y + up, across, wave, sharex=ax) for (x, y), ax in zip(places, axes, strict=True)]
    for ax in above:
        ax.set_axis_off()
    return figure, above, axes, scale


def _draw_spectrogram(ax, values, transform, frequency_axis, **colours):
    frequency_axis = frequency_axis or ("log" if isinstance(transform, CQT) else "mel")
    # Means of neighbouring frames where there are more than a picture can show: matplotlib takes 32 bytes for each
    # value, and 5 minutes took 5.9 GB.
    group = max(1, values.shape[1] // MOST_FRAMES)
    begins = np.arange(0, values.shape[1], group)
    values = np.add.reduceat(values, begins, axis=1) / np.diff(begins, append=values.shape[1])
    mesh = librosa.display.specshow(
        values,
        ax=ax,
        x_axis="time",
        y_axis=frequency_axis,
        sr=transform.sample_rate,
        hop_length=group * transform.hop_length,
        y_coords=transform.frequencies,
        **colours,
    )
    if frequency_axis in TICKS:
        low, high = transform.frequencies[[0, -1]]
        ticks = [tick for tick in TICKS[frequency_axis] if low <= tick <= high]
        ax.set_yticks(ticks, [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks])
        ax.minorticks_off()
    ax.set_xlim(mesh.get_coordinates()[0, [0, -1], 0])  # a waveform may end later, and would add a margin
    ax.set(xlabel="Time [s]", ylabel="Frequency [Hz]" if ax.get_position().x0 < 0.25 else "")  # else: a neighbour's
    return mesh


def _draw_waveform(ax, samples, sample_rate, peak):
    # The lowest and the highest of some neighbouring samples: a line through all samples would take long to draw.
    begins = np.arange(0, len(samples), max(1, len(samples) // 1000))
    low, high = (extreme.reduceat(samples, begins) for extreme in (np.minimum, np.maximum))
    ax.fill_between(begins / sample_rate, low, high, color="C0", linewidth=0.6, edgecolor="C0")
    ax.set_ylim(-peak, peak)


def plot_histograms(spectrograms):
    """Draw how often each value occurs, one curve for each title."""
    figure = _figure(7, 3)
    ax = _axes_at(figure, 0.8, 0.5, 6.0, 2.1)
    for title, values in spectrograms.items():
        ax.stairs(*np.histogram(values, bins=100, density=True), label=title)
    ax.set(xlabel="compressed magnitude", ylabel="density", yscale="log", title="Values in the spectrograms")
    ax.legend()
    return figure


# 2. Losses and progress --------------------------------------------------------------------------


def plot_losses(result):
    """Draw every loss of a result as a share of its value at the start, see Result.shares."""
    figure = _figure(9, 3.5)
    _draw_losses(figure, result, left=0.9)
    return figure


def _draw_losses(figure, result, *, left):
    # The losses, from a place in inches to the figure's right edge; the legend stands beside them.
    curves, first = _curves(result), 0 if result.start else 1
    ax = _axes_at(figure, left, 0.55, 1, 2.6)
    for color, (name, values) in enumerate(curves.items()):
        if not result.whole_of(name) and max(values) < 1:
            continue  # such as the bound: less than 1 % of the total
        # The total lies under the others, because the total is often nearly the same as the style.
        line = dict(color="0.8", linewidth=6, zorder=1) if name == "total" else dict(color=f"C{color}")
        whole = " (100 %: noise)" if name in result.noise else "" if result.whole_of(name) else " (100 %: total)"
        marker = "." if len(values) < 3 else ""
        ax.plot(range(first, first + len(values)), values, marker=marker, label=name + whole, **line)
    ax.set(xlabel="step", ylabel="share of the loss at the start", title="Losses")
    ax.set_yscale("log", nonpositive="mask")
    ax.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    ax.yaxis.set_major_formatter("{x:g} %")
    ax.yaxis.set_minor_formatter("")
    drawn = [value for name, values in curves.items() if result.whole_of(name) for value in values if value > 0]
    if drawn:  # a loss that began at 0 may be millions of times smaller, and would squash the others
        ax.set_ylim(bottom=0.7 * min(drawn), top=1.4 * max(drawn))
    if result.refinement:
        span = (len(result.history), len(result.history) + len(result.refinement))
        ax.axvspan(*span, color="C0", alpha=0.12, zorder=0, label="refinement of the samples")
    across = figure.get_figwidth() - left - 0.1
    if ax.lines:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
        across -= 0.7 + _wide(ax.get_legend_handles_labels()[1])
    ax.set_position((*ax.get_position().p0, max(across, 1) / figure.get_figwidth(), ax.get_position().height))


def _curves(result):
    # Each loss in percent of its value at the start, by name. A start that is known comes first; noise is not a start.
    steps = [result.start] * bool(result.start) + result.history + result.refinement
    shares = [result.shares(losses) for losses in steps]
    curves = {name: [100 * each[name] for each in shares] for name in (shares[0] if shares else ())}
    for name in result.noise if result.start else ():
        curves[name][0] = math.nan
    return curves


def plot_progress(result, analysis):
    """Draw the spectrogram of a result as it is now, beside the losses so far.

    analysis : of the result; the picture shows the samples, or if there are none, the image
    """
    if result.samples is None:
        spectrogram = analysis.from_image(result.image)
    else:
        spectrogram = analysis.spectrogram(result.samples.detach().cpu().numpy())
    figure = _figure(WIDTH, 3.5)
    ax = _axes_at(figure, 0.8, 0.55, 4.0, 2.6)
    _draw_spectrogram(ax, spectrogram, analysis.transform, None, vmin=0, cmap="magma")
    _draw_losses(figure, result, left=5.8)
    ax.set_title(f"After {len(result.history) + len(result.refinement)} steps")
    return figure


# 3. Layers ---------------------------------------------------------------------------------------


def plot_receptive_fields(network, *, hop_seconds):
    """Draw how many milliseconds one position of each layer covers, where frames are hop_seconds apart."""
    durations = {name: 1000 * hop_seconds * size for name, size in receptive_fields(network).items()}
    left, height = 0.3 + _wide(durations), 0.22 * len(durations)
    figure = _figure(7, 1 + height)
    ax = _axes_at(figure, left, 0.6, max(1, 6.9 - left), height)
    bars = ax.barh(list(durations), list(durations.values()))
    ax.bar_label(bars, fmt="%.0f ms", padding=3)
    ax.set(xlabel="receptive field [ms]", xscale="log", title="What one position of a layer covers")
    ax.margins(x=0.15)
    ax.invert_yaxis()
    return figure
