"""How rhythmic a style is, the beat of the start, and whether a texture keeps the rhythm."""

import librosa
import numpy as np
import pytest
import torch

from support import pipeline, rhythm
from support.desk.settings import Settings
from support.sound.files import load_audio
from support.start import matched_noise

RATE = 22050
UNITS = {"clock": 0.5, "metronome": 0.45, "bongos": 0.15, "shaker": 0.13, "guiro": 0.19}  # seconds, of the pattern
STATIONARY = ("water_stream", "rain", "fire", "applause", "birds", "furnace", "sawmill", "babble", "vinyl_crackle")


@pytest.fixture
def part(request):
    path = request.config.rootpath / "benchmarks/parts"
    return lambda name: load_audio(path / f"{name}.flac", sample_rate=RATE)


def strength(samples):
    analysis = Settings(device="cpu").make_analysis()
    return rhythm.strength_of_rhythm(analysis.spectrogram(samples), analysis.transform)


def onset_peak(samples):
    """The highest autocorrelation of the onset strength at lags of 0.08 to 2 s."""
    onsets = librosa.onset.onset_strength(y=samples, sr=RATE, hop_length=220)
    onsets = onsets - onsets.mean()
    correlation = np.correlate(onsets, onsets, "full")[len(onsets) - 1 :] / np.dot(onsets, onsets)
    return correlation[8:201].max()


@pytest.mark.parametrize("name", UNITS)
def test_patterns_have_a_rhythm_of_their_period(name, part):
    found, period = strength(part(name))
    assert found > 0.6  # 1.0, but for the metronome, whose three beats differ
    assert abs(period / RATE / UNITS[name] - round(period / RATE / UNITS[name])) < 0.06  # a whole number of beats


@pytest.mark.parametrize("name", STATIONARY)
def test_stationary_recordings_have_none(name, load):
    assert strength(load(name, offset=0.5, duration=5.0))[0] == 0.0


def test_noise_and_sounds_of_a_moment_have_none():
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert strength(noise)[0] == 0.0 and strength(noise[:2000])[0] == 0.0


def test_a_number_overrides_and_0_turns_the_rhythm_off(part, load):
    analysis = Settings(device="cpu").make_analysis()
    clock, rain = (analysis.spectrogram(samples) for samples in (part("clock"), load("rain", duration=3.0)))
    chosen = lambda weight, style: tuple(rhythm.chosen_rhythm(weight, style, analysis.transform)[:2])  # noqa: E731
    assert chosen(None, clock) == (rhythm.WEIGHT, 1.0) and chosen(None, rain) == (0.0, 0.0)
    assert chosen(0.3, rain) == (0.3, 1.0) and chosen(0, clock) == (0.0, 0.0)


def test_the_noise_of_a_beat_has_the_beat_the_level_and_the_spectrum(part):
    """Also when the noise is longer than the recording, which is repeated after a whole number of periods."""
    samples = part("clock")
    _, period = strength(samples)
    noise = matched_noise(samples, length=12 * RATE, seed=3, strength=1.0, period=period)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(np.sqrt(np.mean(samples**2)), rel=1e-3)
    onsets = librosa.onset.onset_detect(y=noise, sr=RATE, units="time", hop_length=128)
    distances = np.diff(onsets)
    assert len(onsets) >= 20 and np.mean(np.abs(distances - 0.5) < 0.05) > 0.85
    power = [np.abs(librosa.stft(each, n_fft=1024)).mean(axis=1) for each in (noise, samples)]
    power = [each / np.linalg.norm(each) for each in power]
    assert power[0] @ power[1] > 0.9
    other = matched_noise(samples, length=12 * RATE, seed=4, strength=1.0, period=period)
    assert not np.allclose(noise, other)
    plain = matched_noise(samples, length=RATE, seed=3)
    np.testing.assert_array_equal(plain, matched_noise(samples, length=RATE, seed=3, strength=0.0, period=period))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), [("clock", {}), ("bongos", dict(result_duration=7.0))])
def test_a_texture_keeps_the_rhythm(name, changes, part):
    """Also in a result of several segments, longer than its style; without rhythm, the peak is below half of it."""
    torch.set_num_threads(1)
    samples, peaks = part(name), []
    for weight in (None, 0.0):
        quick = dict(filters=40, num_steps=20, refine_steps=10, redraw=10, segment_duration=2.0, phase_iterations=20)
        settings = Settings(device="cpu", rhythm_weight=weight, **quick, **changes)
        made = pipeline.synthesise(settings, {"style 1": samples})
        peaks.append(onset_peak(made) / onset_peak(samples))
    assert peaks[0] > 0.85 and peaks[1] < 0.5
