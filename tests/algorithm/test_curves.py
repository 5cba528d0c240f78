"""Weights and blends that change over time."""

import re

import numpy as np
import pytest
import scipy.signal
import torch

import audiocnn
from support import curves, pipeline
from support.desk.settings import Settings
from support.losses import CONTENT_LOSSES, DiversityLoss
from support.pitch import PitchLoss
from support.rhythm import RhythmLoss
from support.sound.analysis import Analysis
from support.sound.transforms import STFT

RATE = 22050
HOP = 128 / RATE
FADING = [(0, 4.0), (3, 0.0)]


def rows(seed, n_positions, n_channels=6):
    return torch.rand(1, n_channels, 1, n_positions, generator=torch.Generator().manual_seed(seed))


def objective(terms, segment=None, **sounds):
    network = torch.nn.Conv2d(6, 8, (1, 5), bias=False)
    return audiocnn.Objective(network.requires_grad_(False), terms, segment=segment, **sounds)


@pytest.mark.parametrize("segment", [None, 172])
def test_the_gradient_of_a_content_follows_the_curve(segment):
    """The gradient of a frame, against the gradient without a curve, is the curve's value there."""
    image, content = rows(0, 517), rows(1, 517)
    terms = [
        curves.terms_of([(audiocnn.ContentLoss(), weight, {"conv_1": 1.0})], hop_seconds=HOP)
        for weight in (FADING, 1.0)
    ]
    network = torch.nn.Conv2d(6, 8, (1, 5), bias=False).requires_grad_(False)
    with_curve, without = (
        audiocnn.Objective(network, each, content=content, segment=segment).evaluate(image)[1] for each in terms
    )
    ratio = (with_curve.square().sum(dim=1) / without.square().sum(dim=1)).sqrt()[0, 0]
    seconds = np.arange(517) * HOP
    inner = slice(10, -10)
    expected = np.interp(seconds, *zip(*FADING, strict=True))[inner]
    assert np.abs(ratio.numpy()[inner] - expected).max() < 0.4  # windows are a second long: 1.3 of the curve
    assert np.abs(ratio.numpy()[inner] - expected).mean() < 0.2


def test_a_constant_curve_is_the_mean_over_windows():
    image, style = rows(0, 517), rows(1, 300)
    (term,) = curves.terms_of([(audiocnn.DistributionLoss(), [(0, 3.0), (9, 3.0)], {"input": 2.0})], hop_seconds=HOP)
    found = objective([term], style=style).evaluate(image)[0]["style input"]
    edges = [0, 86, 172, 258, 344, 430, 517]  # half a second has 86.1 frames
    windows = [slice(edges[max(k - 1, 0)], edges[min(k + 1, 6)]) for k in range(7)]
    values, lengths = [], []
    for window in windows:
        part = image[0, :, 0, window].sort(dim=1).values
        count = part.shape[1]
        quantiles = torch.nn.functional.interpolate(style[0, :, 0].sort(dim=1).values[None], size=count, mode="linear")[
            0
        ]
        scale = style[0, :, 0].var(dim=1).mean()
        values.append(float(((part - quantiles).square() / scale).mean()))
        lengths.append(count)
    expected = 6.0 * np.average(values, weights=lengths)
    assert abs(float(found) - expected) < 1e-4 * expected


def test_pitch_counts_as_the_curve_says():
    """A curve of 0 takes the loss away, one of 2 doubles the loss."""
    times = np.arange(RATE) / RATE
    tones = [torch.from_numpy(np.sin(2 * np.pi * pitch * times)).float()[None, None, None] for pitch in (440, 523)]
    values = []
    for weight in (1.0, [(0, 2.0), (1, 2.0)], [(0, 0.0), (1, 0.0)], [(0, 2.0), (1, 0.0)]):
        (term,) = curves.terms_of([(PitchLoss(RATE), weight, {"samples": 1.0})], hop_seconds=HOP)
        made = audiocnn.Objective(None, [term], content=tones[0])
        values.append(float(made.evaluate(tones[1])[0]["pitch samples"]))
    assert values[0] > 0.1 and abs(values[1] - 2 * values[0]) < 1e-5 and values[2] == 0
    assert abs(values[3] - values[0]) < 0.1 * values[0]


def band_noise(lowest, highest, seed):
    sections = scipy.signal.butter(4, [lowest, highest], "band", fs=RATE, output="sos")
    samples = scipy.signal.sosfilt(sections, np.random.default_rng(seed).standard_normal(3 * RATE))
    return (0.1 * samples / samples.std()).astype(np.float32)


@pytest.mark.slow
def test_a_blend_over_time_has_the_share_of_every_second():
    """Two noises of bands apart: the compressed magnitude of a band is the share of its noise."""
    low, high = band_noise(300, 600, 0), band_noise(3000, 6000, 1)
    blend = [[0, [1, 0]], [1, [1, 0]], [4, [0, 1]], [5, [0, 1]]]
    settings = Settings(
        STYLE_FILENAME=["low.wav", "high.wav"],
        style_blend=blend,
        result_duration=5.0,
        filters=60,
        num_steps=20,
        refine_steps=20,
        threads=1,
    )
    made = pipeline.synthesise(settings, {"style 1": low, "style 2": high})
    analysis = Analysis(transform=STFT(sample_rate=RATE, n_fft=512, hop_length=128))
    bins = analysis.transform.frequencies
    for sound, other, band in ((low, high, (350, 550)), (high, low, (3500, 5500))):
        inside = (bins > band[0]) & (bins < band[1])
        one, none, found = (analysis.spectrogram(each)[inside].mean(axis=0) for each in (sound, other, made))
        for second in range(5):
            share = (found[round(second / HOP) : round((second + 1) / HOP)].mean() - none.mean()) / (
                one.mean() - none.mean()
            )
            expected = np.interp(np.linspace(second, second + 1, 50), [1, 4], [1, 0]).mean()
            expected = expected if sound is low else 1 - expected
            assert abs(share - expected) < 0.1, (second, share, expected)


def test_losses_of_the_whole_sound_take_no_curve():
    with pytest.raises(ValueError, match="the rhythm loss compares the whole sound; its weight must be a number"):
        curves.terms_of([(RhythmLoss(), FADING, {"conv_1": 1.0})], hop_seconds=HOP)
    (curved,) = curves.terms_of([(DiversityLoss(), FADING, {"input": 1.0})], hop_seconds=HOP)
    assert curved.loss.kind == "diversity" and curved.weight == 1
    (kept,) = curves.terms_of([(DiversityLoss(), 100.0, {"input": 1.0})], hop_seconds=HOP)
    assert kept == audiocnn.made_term(DiversityLoss(), "input", 100.0)
    (free,) = curves.terms_of([(CONTENT_LOSSES["free"], FADING, {"conv_1": 1.0})], hop_seconds=HOP)
    assert free.loss.kind == "content" and free.compares == "content" and free.weight == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(style_weight=[[1, 2], [9, 3]]), "must hold pairs (second, value) from second 0 on, in the order of time"),
        (dict(style_weight=[[0, 2], [9, 3], [5, 1]]), "in the order of time"),
        (dict(style_weight=[[0, -2], [9, 3]]), "style_weight=-2 must be a finite number of at least 0"),
        (dict(style_weight=[["a", 2], [9, 3]]), "style_weight: a second='a' must be a finite number"),
        (dict(style_weight=[[0, 2], [4, 3]]), "ends at 4 s, but the result at 5.00 s; add a pair for this second"),
        (dict(style_weight=[[0, 0], [9, 0]]), "nothing to optimise"),
        (dict(style_blend=[[0, [1, 0]], [9, [1]]], STYLE_FILENAME=("a", "b")), "one share for each of the 2 styles"),
        (dict(style_blend=[[0, [0, 0]], [9, [1, 1]]], STYLE_FILENAME=("a", "b")), "one share for each of the 2"),
        (dict(rhythm_weight=[[0, 1], [9, 1]]), "rhythm_weight=((0, 1), (9, 1)) must be a finite number"),
    ],
)
def test_curves_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**changes)
