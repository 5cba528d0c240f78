"""Pictures, and the words for the losses: panels, axes, text that can be read, shares of the start."""

import base64
import dataclasses
import io
import itertools

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
import torch
from kernel import ROOT
from matplotlib.axes import Axes
from matplotlib.text import Text
from PIL import Image

from support.desk import pictures, show
from support.desk.settings import Settings
from support.pipeline import Result
from support.sound import transforms
from support.sound.analysis import Analysis

IMAGE = torch.zeros(1, 4, 1, 8)
START = {"style conv_2": 2.0, "content conv_2": 0.5, "bound input": 0.0, "total": 2.5}
STEP = {"style conv_2": 0.08, "content conv_2": 0.3, "bound input": 1e-7, "total": 0.3800001}


@pytest.fixture(scope="module")
def rooster(load):
    return load("rooster")


@pytest.fixture(scope="module")
def spectrogram(rooster, stft):
    return Analysis(transform=stft, power="log1p").spectrogram(rooster)


def titled(figure):
    return [ax for ax in figure.axes if ax.get_title()]


def meshes(figure):
    """The spectrograms of a figure by their shape's size; colour bars and waveforms have other parts."""
    found = [part for ax in figure.axes for part in ax.collections if type(part).__name__ == "QuadMesh"]
    return [mesh for mesh in found if mesh.get_array().size > 10000]


def test_one_scale_of_colours_and_the_sound_own_axes(spectrogram, stft):
    figure = pictures.plot_spectrograms({"a": spectrogram, "b": spectrogram / 2}, stft)
    assert [ax.get_title() for ax in titled(figure)] == ["a", "b"]
    assert [mesh.get_clim() for mesh in meshes(figure)] == [(0, spectrogram.max())] * 2
    assert figure.axes[0].get_ylim()[1] == pytest.approx(11025, rel=0.01)
    assert figure.axes[0].get_xlim()[1] == pytest.approx(2.4, abs=0.1)
    assert pictures.plot_histograms({"a": spectrogram}).axes[0].patches
    assert not plt.get_fignums()


def test_rare_colours_of_a_small_picture_are_right(spectrogram, stft):
    """Those of the loudest places, too: the usual choice of 256 colours is off by 25 of 255 here."""
    whole = io.BytesIO()
    pictures.plot_spectrograms({"a": spectrogram}, stft).savefig(whole)
    small = io.BytesIO(pictures.in_256_colours(whole))
    before, after = (np.asarray(Image.open(each).convert("RGB"), int) for each in (whole, small))
    assert np.abs(before - after).max() <= 16 and len(small.getvalue()) < len(whole.getvalue()) / 2


@pytest.mark.parametrize("number", [1, 2, 3, 5, 6])
def test_many_panels_stay_readable(number, spectrogram, rooster, stft):
    """Text is at least 9 points in a picture that a notebook does not shrink, and nothing covers anything."""
    spectrograms = {f"panel {panel}": spectrogram for panel in range(number)}
    sounds = {"panel 0": rooster}
    difference = ("panel 0", f"panel {number - 1}")
    figure = pictures.plot_spectrograms(spectrograms, stft, sounds=sounds, difference=difference)
    assert figure.get_size_inches()[0] <= 11
    figure.draw_without_rendering()
    assert len(meshes(figure)) == number + 1 == len(titled(figure))
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert texts and min(text.get_fontsize() for text in texts) >= 9
    panels = [mesh.axes.get_window_extent() for mesh in meshes(figure)]
    assert min(panel.width for panel in panels) > 2 * figure.dpi and min(p.height for p in panels) > 2 * figure.dpi
    boxes = [ax.get_tightbbox() for ax in figure.axes if ax.axison]
    boxes = [box.shrunk(0.98, 0.98) for box in boxes]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_nothing_is_cut_off_or_covered(spectrogram, stft):
    """Also where names are long: all text lies inside of the picture, and the legend beside the curves."""
    analysis, name = Analysis(transform=stft, power="log1p"), "a_loss_of_my_own features.block_12.conv_3"
    steps = [{**STEP, name: 0.5 / step, "total": 0.5 / step + 0.38} for step in (1, 2, 4)]
    result = Result(0, analysis.to_image(spectrogram), start=steps[0], history=steps[1:], refinement=steps)
    rows = [dict(sound=sound, method=sound, mean=60, low=50, high=70) for sound in ("", "birds", "water stream")]
    layers = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, 3) for _ in range(30)))
    network = torch.nn.ModuleDict({"width_16_second_time": layers})
    for figure in (
        pictures.plot_losses(result),
        pictures.plot_progress(result, analysis),
        pictures.plot_histograms({"content": spectrogram, "style 1": spectrogram}),
        pictures.plot_receptive_fields(network, hop_seconds=0.006),
        pictures.plot_ratings(rows, (0, 100)),
        pictures.plot_spectrograms({"style 1": spectrogram}, stft),
    ):
        figure.draw_without_rendering()
        inside, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(inside.x0, inside.y0, width - inside.x1, height - inside.y1) >= 0
        legends = [ax.get_legend().get_window_extent() for ax in figure.axes if ax.get_title() == "Losses"]
        panels = [ax.get_window_extent() for ax in figure.axes]
        assert not [1 for legend in legends for panel in panels if legend.shrunk(0.98, 0.98).overlaps(panel)]


@pytest.mark.parametrize("largest", [0.0021, 0.005, 0.012, 0.04, 0.3, 4.0, 7.5])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_numbers_of_the_difference_do_not_touch(largest, number, rooster, stft):
    shape = stft.magnitude(rooster).shape
    spectrograms = {f"panel {panel}": np.zeros(shape) for panel in range(number)} | {"last": np.full(shape, largest)}
    sounds, difference = {"last": rooster}, ("panel 0", "last")
    for how in (dict(sounds=sounds), {}):
        figure = pictures.plot_spectrograms(spectrograms, stft, difference=difference, **how)
        figure.draw_without_rendering()
        bars = [ax._colorbar for ax in figure.findobj(Axes) if hasattr(ax, "_colorbar")]
        (bar,) = [bar.ax for bar in bars if bar.orientation == "horizontal"]
        boxes = [label.get_window_extent() for label in bar.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 3 and all(a.x1 + 4 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("seconds", [1.5, 1.7, 2.2, 3.0, 5.0])
def test_panels_end_with_their_spectrograms(seconds, stft):
    """Also where the waveform ends later: matplotlib would add a white margin to this panel alone."""
    samples = np.random.default_rng(0).standard_normal(round(seconds * 22050)).astype(np.float32)
    spectrogram = Analysis(transform=stft).spectrogram(samples)
    figure = pictures.plot_spectrograms({"a": spectrogram, "b": spectrogram}, stft, sounds={"a": samples})
    figure.draw_without_rendering()
    limits = {mesh.axes.get_xlim() for mesh in meshes(figure)}
    (edges,) = {tuple(mesh.get_coordinates()[0, [0, -1], 0]) for mesh in meshes(figure)}
    assert limits == {edges} and edges[1] == pytest.approx(seconds, abs=256 / 22050)


def test_the_difference_and_the_waveform_are_those_of_the_data(spectrogram, rooster, stft):
    both, sounds = {"asked": spectrogram, "found": 0.5 * spectrogram}, {"asked": rooster}
    figure = pictures.plot_spectrograms(both, stft, sounds=sounds, difference=("asked", "found"))
    np.testing.assert_allclose(meshes(figure)[2].get_array().reshape(spectrogram.shape), -0.5 * spectrogram, atol=1e-6)
    assert titled(figure)[2].get_title() == "found minus asked"
    low, high = meshes(figure)[2].get_clim()
    assert low == -high < 0  # nothing asked for is white
    (wave,) = titled(figure)[0].collections
    outline = wave.get_paths()[0].vertices[:, 1]
    assert [outline.min(), outline.max()] == pytest.approx([rooster.min(), rooster.max()])


def test_a_long_spectrogram_is_drawn_by_the_means_of_neighbouring_frames(stft):
    """Five minutes: the picture has few columns, an event stays at its time, and levels stay."""
    n_frames, event = 1 + 300 * 22050 // 256, 200.0
    values = np.full((513, n_frames), 0.2, dtype=np.float32)
    at = int(event * 22050 / 256)
    values[:, at - 100 : at + 100] = 0.8
    figure = pictures.plot_spectrograms({"a": values}, stft)
    (mesh,) = meshes(figure)
    drawn, edges = np.asarray(mesh.get_array()).reshape(513, -1), mesh.get_coordinates()[0, :, 0]
    assert 400 <= drawn.shape[1] < 800  # the picture is about 500 points wide
    assert drawn.mean() == pytest.approx(values.mean(), rel=0.01) and drawn.max() == pytest.approx(0.8, abs=1e-6)
    assert edges[drawn[0].argmax()] == pytest.approx(event - 100 * 256 / 22050, abs=0.3)
    assert figure.axes[0].get_xlim()[1] == pytest.approx(300, abs=0.5)


@pytest.mark.parametrize("axis", ["linear", "log", "mel"])
def test_a_tone_is_at_its_frequency_on_every_axis(axis):
    """In both transforms. Mel and log give the speech below 4 kHz more height than linear does."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050).astype(np.float32)
    grid = dict(sample_rate=22050, hop_length=256)
    for transform in (
        transforms.STFT(**grid, n_fft=1024),
        transforms.CQT(**grid, bins_per_octave=12, fmin=110, n_octaves=6),
    ):
        values = Analysis(transform=transform, power="log1p").spectrogram(tone)
        figure = pictures.plot_spectrograms({"tone": values}, transform, frequency_axis=axis)
        figure.draw_without_rendering()
        ax, (mesh,) = figure.axes[0], [part for part in figure.axes[0].collections]
        row = mesh.get_array().reshape(values.shape)[:, 20].argmax()
        edges = mesh.get_coordinates()[[row, row + 1], 0, 1]
        assert edges[0] < 1000 < edges[1]
        bottom, at, top = ax.transData.transform([(0, hertz) for hertz in (0 if axis != "log" else 65, 4000, 11025)])[
            :, 1
        ]
        share = (at - bottom) / (top - bottom)
        assert (share < 0.5) if axis == "linear" else (share > 0.6)


# Losses ------------------------------------------------------------------------------------------


def curves(figure):
    (ax,) = [ax for ax in figure.axes if ax.get_title() == "Losses"]
    return {line.get_label().split(" (")[0]: line for line in ax.lines}, ax


def test_losses_are_shares_of_their_start():
    result = Result(0, IMAGE, start=START, history=[STEP] * 3, refinement=[STEP] * 2)
    lines, ax = curves(pictures.plot_losses(result))
    assert list(lines) == ["style conv_2", "content conv_2", "total"]  # the bound is millions of times smaller
    assert list(lines["style conv_2"].get_xdata()) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(lines["style conv_2"].get_ydata(), [100] + [4] * 5)
    np.testing.assert_allclose(lines["content conv_2"].get_ydata(), [100] + [60] * 5)
    assert 1 < ax.get_ylim()[0] < 4  # as low as the losses that count, and no lower
    assert all(lines["total"].get_zorder() < line.get_zorder() for name, line in lines.items() if name != "total")
    (refined,) = ax.patches
    assert [refined.get_x(), refined.get_width()] == [3, 2]
    assert "refinement of the samples" in [text.get_text() for text in ax.get_legend().get_texts()]
    large = STEP | {"bound input": 0.25}
    lines, ax = curves(pictures.plot_losses(Result(0, IMAGE, start=START, history=[STEP, large])))
    assert not ax.patches
    np.testing.assert_allclose(lines["bound input"].get_ydata(), [0, 100 * 1e-7 / 2.5, 10])  # of the total
    assert ax.get_ylim()[0] > 1


def test_the_content_of_a_start_from_the_content_is_compared_with_noise():
    """The content's loss is 0 there, or as good as 0, and no number can be a share of 0."""
    start = START | {"content conv_2": 1e-15, "total": 2.0}
    result = Result(0, IMAGE, start=start, noise={"content conv_2": 1.2}, history=[STEP])
    lines, ax = curves(pictures.plot_losses(result))
    values = lines["content conv_2"].get_ydata()
    assert np.isnan(values[0]) and values[1] == pytest.approx(25)
    assert ax.get_ylim()[0] > 1
    assert "content conv_2 (100 %: noise)" in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("start", [START, {}])
def test_the_first_live_picture_shows_something(start, spectrogram, stft):
    """After one step, a curve has two points, or a mark."""
    analysis = Analysis(transform=stft, power="log1p")
    result = Result(0, analysis.to_image(spectrogram), start=start, history=[STEP])
    figure = pictures.plot_progress(result, analysis)
    assert np.asarray(meshes(figure)[0].get_array()).max() == pytest.approx(spectrogram.max())
    lines, _ = curves(figure)
    for line in lines.values():
        assert len(line.get_xdata()) >= 2 or line.get_marker() not in ("", "None", None)
    assert "After 1 steps" in [ax.get_title() for ax in figure.axes]
    assert not pictures.plot_losses(Result(0, IMAGE)).axes[0].lines  # no step yet


def balance(result, settings):
    return show.balance(dataclasses.replace(result, settings=settings))


def test_the_balance_in_words():
    transfer = Settings(CONTENT_FILENAME="c.wav", content_weight=3.0, device="cpu")
    said = balance(Result(0, IMAGE, start=START, history=[STEP, STEP]), transfer)
    assert said.startswith("The style loss is at 4 % of its start, the content loss is at 60 % of its start")
    assert "for more style lower content_weight (now 3)" in said and "\n" not in said
    result = Result(0, IMAGE, start=START | {"content conv_2": 0.0}, noise={"content conv_2": 1.2}, history=[STEP])
    assert "the content loss is at 25 % of its value for noise" in balance(result, transfer)
    nearly = dataclasses.replace(result, start=START | {"content conv_2": 3e-25})  # of a start that is the content
    assert "the content loss is at 25 % of its value for noise" in balance(nearly, transfer)
    layers = {"style conv_1": 1.0, "style conv_2": 3.0, "total": 4.0}
    texture = Result(0, IMAGE, start=layers, refinement=[{"style conv_1": 0.5, "style conv_2": 0.5, "total": 1.0}])
    assert balance(texture, Settings(device="cpu")) == "The style loss is at 25 % of its start."
    assert "No step was done" in balance(Result(0, IMAGE), transfer)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1, "100 %"),
        (0.6, "60 %"),
        (0.0949, "9.5 %"),
        (0.096, "10 %"),
        (0.00123, "0.12 %"),
        (0, "0 %"),
        (12, "1200 %"),
        (1.2e-5, "0.0012 %"),
        (1.7e-7, "<0.001 %"),
    ],
)
def test_percent(share, words):
    assert show.percent(share) == words


@pytest.mark.parametrize("backend", ["agg", "module://matplotlib_inline.backend_inline"])
def test_pictures_are_shown_whatever_the_backend(backend, tmp_path, monkeypatch):
    """MPLBACKEND=agg stands in the environment of servers and containers."""
    monkeypatch.setenv("MPLBACKEND", backend)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source = (
        "from support.desk import pictures\npicture = pictures.plot_histograms({'a': __import__('numpy').ones(9)})\n"
    )
    cells = [nbformat.v4.new_code_cell(source + "display(picture)\ndisplay(picture)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    patient = dict(timeout=300, startup_timeout=300, iopub_timeout=300)  # a slow machine gives outputs after 4 s
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, **patient).execute()
    outputs = [each for each in cells[0].outputs if each.output_type == "display_data"]  # others say that it is slow
    shown = [base64.b64decode(output.data["image/png"]) for output in outputs]
    assert len(shown) == 2 and all(len(picture) > 5000 for picture in shown)
