"""Masks: what may change changes, what is kept is kept, and statistics come from where they should."""

import dataclasses
import re
import warnings

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

import audiocnn
from support import pipeline
from support.bands import band_networks
from support.desk.settings import Settings
from support.pitch import PitchLoss
from support.sound import masks
from support.sound.analysis import Analysis
from support.sound.transforms import CQT, STFT

RATE = 22050
STFT_OF_DEFAULT = STFT(sample_rate=RATE, n_fft=512, hop_length=128)
TRANSFORMS = {
    "stft": STFT_OF_DEFAULT,
    "cqt": CQT(sample_rate=RATE, hop_length=128, bins_per_octave=24, fmin=110.0, n_octaves=6),
    "long windows": STFT(sample_rate=RATE, n_fft=2048, hop_length=512),
}
QUICK = dict(filters=24, num_steps=6, refine_steps=6, redraw=3, threads=1)


def noise(seed, length=RATE):
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def where(kept, transform=STFT_OF_DEFAULT, **given):
    analysis = Analysis(transform=transform)
    return masks.Where(analysis=analysis, kept=kept, **{name: masks.boxes(**each) for name, each in given.items()})


def click(samples, place, near=32):
    """How far samples around a place can't be predicted, as a share of the worst of 100 places, as test_loops.py."""
    error = np.abs(np.convolve(samples, librosa.lpc(samples.astype(np.float64), order=16))[: len(samples)])
    elsewhere = [error[k - near : k + near].max() for k in range(4 * near, len(samples) - 4 * near, 2 * near)]
    return error[place - near : place + near].max() / np.percentile(elsewhere, 99)


def decibels(difference, sound, lowest, highest):
    """Power of a difference in a band of frequency, relative to that of a sound there."""
    frequencies, power = scipy.signal.welch(np.stack([difference, sound]), RATE, nperseg=4096)
    power = power[:, (frequencies >= lowest) & (frequencies <= highest)].sum(axis=1)
    return 10 * np.log10(power[0] / power[1] + 1e-20)


# Masks -------------------------------------------------------------------------------------------


def test_a_box_is_one_inside_and_falls_as_half_a_cosine():
    mask = masks.boxes(seconds=[(1, 2), (3, 4)], hertz=[(1000, 2000)], fade=0.1)
    times = np.array([0.89, 0.95, 1.0, 1.5, 2.025, 2.5, 3.5])
    expected = [0, 0.5, 1, 1, np.cos(np.pi / 8) ** 2, 0, 1]
    np.testing.assert_allclose(mask(times, np.array([[1500.0]]))[0], expected, atol=1e-9)
    frequencies = np.array([[899.0], [950.0], [1000.0], [2100.0], [2201.0]])
    np.testing.assert_allclose(mask(np.array([1.5]), frequencies)[:, 0], [0, 0.5, 1, 0.5, 0], atol=1e-9)


def test_an_array_is_a_mask():
    analysis = Analysis(transform=STFT_OF_DEFAULT)
    array = np.random.default_rng(0).random((257, 40))
    made = masks.Where(analysis=analysis, kept=noise(0, 128 * 49), change=masks.of_array(array, analysis))
    np.testing.assert_array_equal(made.values("change"), np.pad(array, ((0, 0), (0, 10))))
    with pytest.raises(ValueError, match=r"not the shape \(256, 40\)"):
        masks.of_array(array[:256], analysis)
    with pytest.raises(ValueError, match=r"values from 0 to 1, not .* and values from .* to 2\.0"):
        masks.of_array(np.full((257, 40), 2.0), analysis)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_a_mask_of_ones_own_has_values_from_0_to_1(value):
    made = dataclasses.replace(where(noise(0)), change=lambda times, frequencies: np.full_like(times, value))
    with pytest.raises(ValueError, match="0 to 1 is allowed"):
        made.values("change")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": {}}, "where: a mask='keep' is unknown; choose one of change, style, content"),
        ({"change": {"minutes": [[1, 2]]}}, "a unit='minutes' is unknown; choose one of seconds, hertz"),
        ({"change": {"seconds": [2, 4]}}, "where['change']['seconds']: 2 must be a pair from and to"),
        ({"change": {"seconds": [[4, 2]]}}, "(4, 2) must be a pair from and to, two finite numbers of at least 0 in"),
        ({"change": {"seconds": []}}, "() must be a pair"),
        ({"change": {"seconds": [[False, True]]}}, "(False, True) must be a pair"),
        ({"change": {"hertz": [[2000, np.inf]]}}, "(2000, inf) must be a pair from and to, two finite numbers"),
        ({"change": {"hertz": [[np.nan, 3]]}}, "(nan, 3) must be a pair"),
        ({"style": {"seconds": [[6, 7]]}}, "from 6 to 7 is beyond the style, which ends at 5 s"),
        (
            {"change": {"seconds": [[0.5, 2], [1, 3.5]]}},
            "of 5.00 s of the style, 3.00 s may change, more than the other",
        ),
        ({"change": {"seconds": [[9, 10]]}}, "from 9 to 10 is beyond the result, which ends at 5 s"),
        ({"change": {"hertz": [[12000, 20000]]}}, "from 12000 to 20000 is beyond the result, which ends at 11025 Hz"),
        (3, "where=3 must be a dict"),
    ],
)
def test_intervals_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(where=given, STYLE_FILENAME="samples/brook.flac")


def test_what_a_gap_may_be():
    """As long as the rest, what goes on beyond the recording, and anything in a transfer."""
    for seconds, given in (
        ([2.5, 5], {}),
        ([4.9, 30], dict(result_duration=30.0)),
        ([0, 5], dict(CONTENT_FILENAME="c")),
    ):
        Settings(where={"change": {"seconds": [seconds]}}, **given)


@pytest.mark.parametrize(
    ("change", "first", "last"),
    [
        ({"seconds": [[4.9, 8]]}, 8, 10),
        ({"seconds": [[6, 10]]}, 5, 6),
        ({"hertz": [[2000, 11025]]}, 5, 10),
        ({"seconds": [[4.9, 10]], "hertz": [[2000, 8000]]}, 5, 10),
        ({"seconds": [[1, 2], [4.9, 7], [8, 10]]}, 7, 8),
        ({"seconds": [[1, 2], [4.9, 7], [7, 10]]}, None, None),
    ],
)
def test_what_is_silent_behind_the_kept_sound_is_said(change, first, last):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        Settings(STYLE_FILENAME="samples/brook.flac", duration=5.0, result_duration=10.0, where={"change": change})
    said = [str(each.message) for each in found if "kept sound ends at 5.00 s" in str(each.message)]
    assert len(said) == (first is not None)
    assert not any("mappingproxy" in each for each in said)
    assert all(f"from {first:.2f} to {last:.2f} s, what is kept is silent" in each for each in said)


def test_a_content_that_is_not_there_does_not_count():
    with pytest.warns(UserWarning, match=re.escape("where['content'] has no effect, because there is no content")):
        Settings(where={"content": {"seconds": [[1, 2]]}})


def test_masks_need_a_line_of_time():
    with pytest.raises(ValueError, match="where needs loop=False"):
        Settings(where={"change": {"seconds": [[1, 2]]}}, loop=True)


# What is kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMS)
def test_kept_samples_are_the_same_bits(name):
    kept, new, transform = noise(0), noise(1), TRANSFORMS[name]
    made = where(kept, transform, change={"seconds": [(0.4, 0.6)]})
    mixed = made.mixed(new)
    beyond = masks.FADE + transform.n_fft_of_refinement / 2 / RATE  # as support/desk/README.md says
    first, last = int((0.4 - beyond) * RATE), int((0.6 + beyond) * RATE)
    np.testing.assert_array_equal(np.delete(mixed, slice(first, last)), np.delete(kept, slice(first, last)))
    inside = slice(int((0.4 + beyond) * RATE), int((0.6 - beyond) * RATE))
    if inside.stop > inside.start:
        np.testing.assert_allclose(mixed[inside], new[inside], atol=1e-6)


def test_kept_bands_stay():
    kept, new = noise(0, 2 * RATE), noise(1, 2 * RATE)
    mixed = where(kept, change={"hertz": [(2000, 11025)]}).mixed(new)
    assert decibels(mixed - kept, kept, 0, 1700) < -60
    assert decibels(mixed - new, new, 2100, 10900) < -20


def test_the_map_of_samples_is_symmetric_and_keeps():
    first, second = (torch.from_numpy(noise(seed)) for seed in (1, 2))
    change = where(noise(0), change={"seconds": [(0.4, 0.6)], "hertz": [(500, 4000)]}).in_samples(first)
    one, two = float((change(first) * second).sum()), float((first * change(second)).sum())
    assert abs(one - two) < 1e-4 * abs(one)
    moved = change(second).abs().numpy()
    assert moved[: int(0.36 * RATE)].max() == 0 and moved[int(0.64 * RATE) :].max() == 0 and moved.max() > 0


# What is compared --------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0, 3, 31])
def test_ranges_are_the_features_that_see_a_change(overlap):
    made = where(noise(0), change={"seconds": [(0, 0.1), (0.5, 0.52), (0.58, 0.6)]})
    changed = made.values("change").max(axis=0) > 0
    sees = [changed[first : first + overlap + 1].any() for first in range(len(changed) - overlap)]
    found = np.zeros(len(sees), bool)
    for first, last in made.ranges(overlap):
        assert not found[max(0, first - 1) : last].any()  # they neither meet nor overlap
        found[first:last] = True
    np.testing.assert_array_equal(found, sees)


def test_targets_come_from_where_the_style_counts():
    """The value of a frame says which frame it is."""
    image = torch.arange(173.0).expand(1, 257, 1, 173)
    kept = noise(0)
    gap = dataclasses.replace(where(kept, change={"seconds": [(0.4, 0.5)]}), own=True)
    frames = torch.cat([piece[0, 0, 0] for piece in gap.pieces("style", image, overlap=31)])
    times = frames.numpy() * 128 / RATE
    assert ((times < 0.4 - masks.FADE + 0.01) | (times > 0.5 + masks.FADE - 0.01)).all()
    assert len(frames) > 173 - (0.1 + 2 * masks.FADE) * RATE / 128 - 3
    chosen = where(kept, change={"seconds": [(0.4, 0.5)]}, style={"seconds": [(0.2, 0.9)]})
    frames = torch.cat([piece[0, 0, 0] for piece in chosen.pieces("style", image, overlap=31)])
    assert 0.15 < frames.min() * 128 / RATE < 0.2 and 0.9 < frames.max() * 128 / RATE < 0.95
    whole = dataclasses.replace(where(kept, change={"hertz": [(2000, 8000)]}), own=True)
    assert whole.pieces("style", image, overlap=31)[0].shape[3] == 173
    with pytest.raises(ValueError, match=r"leave no 0\.23 s of the style in one piece"):
        dataclasses.replace(gap, change=masks.boxes(seconds=[(0.15, 0.85)])).pieces("style", image, overlap=31)


def test_losses_with_masks_are_those_of_the_parts_that_count():
    """In bins: as if all other bins were silent. In time: as if the image were the changed frames and their context."""
    networks = band_networks(STFT_OF_DEFAULT.frequencies, widths=[4, 8], filters=12)
    analysis = Analysis(transform=STFT_OF_DEFAULT)
    kept, style, content = (analysis.image(torch.from_numpy(noise(seed))) for seed in range(3))
    terms = [(audiocnn.DistributionLoss(), "conv_2", 1.0), (audiocnn.ContentLoss(), "conv_2", 1.0)]
    sounds = dict(style=style, content=content)
    made = where(noise(0), change={"hertz": [(2000, 8000)]}, content={"hertz": [(0, 900)]})
    found = audiocnn.Objective(networks, terms, **sounds, where=made).evaluate(kept, by_network=True)[0]
    high, low = (torch.tensor(made.values(name), dtype=torch.float32)[None, :, None] for name in ("change", "content"))
    for chosen, mask in ((terms[:1], high), (terms[1:], low)):
        masked = {kind: image * mask for kind, image in sounds.items()}
        expected = audiocnn.Objective(networks, chosen, **masked).evaluate(kept * mask, by_network=True)[0]
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)
    timed = where(noise(0), change={"seconds": [(0.4, 0.6)]})
    found = audiocnn.Objective(networks, terms[:1], style=style, where=timed).evaluate(kept, by_network=True)[0]
    changed = np.flatnonzero(timed.values("change").max(axis=0))
    for width in (4, 8):
        alone = audiocnn.Objective(networks[f"width_{width}"], terms[:1], style=style)
        piece = kept[..., changed[0] - width + 1 : changed[-1] + width]
        expected = alone.evaluate(piece)[0]["style conv_2"]
        torch.testing.assert_close(found[f"style width_{width}.conv_2"], expected, rtol=1e-4, atol=1e-7)


def test_pitch_counts_where_the_content_counts_in_time():
    """Notes of the second half alone: what the first half plays changes no loss."""
    times = np.arange(2 * RATE) / RATE
    tones = [np.sin(2 * np.pi * pitch * times).astype(np.float32) for pitch in (440, 523, 660)]
    made = where(tones[0], content={"seconds": [(1, 2)]})
    terms = [(PitchLoss(RATE), "samples", 1.0)]
    ((through, objective),) = pipeline.on_samples(terms, {"style 1": tones[1], "content": tones[0]}, "cpu", made)
    results = [np.r_[first[:RATE], second[RATE:]] for first in tones for second in tones[:2]]
    values = [
        float(objective.evaluate(torch.from_numpy(each), through=through)[0]["pitch samples"]) for each in results
    ]
    same, other = values[::2], values[1::2]
    assert max(same) < 0.2 * min(other) and np.ptp(other) < 0.1 * min(other)


# Whole runs --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gap_is_filled_and_the_rest_stays(load):
    """At the edges of the silent gap is a click, and none where the gap is filled, measured as the seam of a loop."""
    style = load("babble", duration=3.0)
    style[RATE : RATE + RATE // 2] = 0
    settings = Settings(**QUICK, where={"change": {"seconds": [[1, 1.5]]}})
    made = pipeline.synthesise(settings, {"style 1": style})
    kept = np.r_[0 : int(0.96 * RATE), int(1.54 * RATE) : len(style)]
    np.testing.assert_array_equal(made[kept], style[kept])
    filled, around = made[RATE : RATE + RATE // 2], style[kept]
    assert abs(20 * np.log10(filled.std() / around.std())) < 3
    edges = RATE, RATE + RATE // 2
    assert max(click(made, edge) for edge in edges) < 1.2 and max(click(style, edge) for edge in edges) > 2


@pytest.mark.slow
def test_a_sound_goes_on(load):
    style = load("brook", duration=2.0)
    settings = Settings(**QUICK, result_duration=3.0, where={"change": {"seconds": [[1.9, 3]]}})
    made = pipeline.synthesise(settings, {"style 1": style})
    assert len(made) == 3 * RATE
    np.testing.assert_array_equal(made[: int(1.85 * RATE)], style[: int(1.85 * RATE)])
    assert abs(20 * np.log10(made[2 * RATE :].std() / style.std())) < 3


@pytest.mark.parametrize("channels", [1, 2])
def test_a_transfer_above_a_frequency(load, channels):
    content, style = load("speech", duration=2.0), load("rain", duration=2.0)
    if channels == 2:
        content, style = (np.stack([each, np.roll(each, 50)]) for each in (content, style))
    where = {"change": {"hertz": [[3000, 11025]]}}
    settings = Settings(**QUICK, CONTENT_FILENAME="speech.flac", stereo=channels == 2, where=where)
    made = pipeline.synthesise(settings, {"style 1": style, "content": content})
    for new, old in zip(np.atleast_2d(made), np.atleast_2d(content), strict=True):
        assert decibels(new - old, old, 50, 2600) < -40 < decibels(new - old, old, 3000, 8000)
