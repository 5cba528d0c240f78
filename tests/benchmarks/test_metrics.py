"""The metrics of benchmarks/ on sounds whose answers are known."""

import librosa
import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

import metrics
import quality

RATE = 22050


@pytest.mark.parametrize("name", ["fire", "vinyl_crackle"])
def test_distances_order_sounds_as_they_must(name):
    """A texture is nearest to itself, then to another take, then to noise with its spectrum."""
    style, other = metrics.takes(name, RATE)
    assert metrics.difference(style, style, RATE) == 0
    assert metrics.statistics_distance(other, style, other, RATE) == pytest.approx(1)
    noise = metrics.matched_noise(style)
    assert metrics.statistics_distance(noise, style, other, RATE) > 1.5
    assert metrics.log_spectral_distance(noise, style, RATE) < 0.5
    assert metrics.log_spectral_distance(10 * style, style, RATE) == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("name", ["frogs", "babble", "guitar_classical"])
def test_the_listener_orders_sounds_as_it_must(name):
    """A sound is most like itself, whatever its level, then like another take, then noise with its spectrum."""
    style, other = metrics.takes(name, RATE)
    assert metrics.likeness(0.1 * style, style, RATE) == pytest.approx(1, abs=1e-4)
    later = metrics.likeness(style[4000:], style, RATE)
    alike = metrics.likeness(other, style, RATE)
    noise = metrics.likeness(metrics.matched_noise(style), style, RATE)
    assert later > alike > noise + 0.3 and alike > 0.7
    strangers = [metrics.likeness(metrics.takes(each, RATE)[0], style, RATE) for each in ("fire", "bells", "singing")]
    assert max(strangers) < alike - 0.3


def test_the_listener_is_loaded_only_from_the_file_that_was_checked(monkeypatch):
    monkeypatch.setattr(metrics, "LISTENER_SHA256", "0" * 64)
    metrics.listener_network.cache_clear()
    with pytest.raises(ValueError, match=r"checkpoint.pth is not the file of aisfx 0.1.2; install exactly"):
        metrics.listener_network()


def test_recordings_report_or_tune_never_both():
    assert not set(metrics.TUNING) & set(metrics.REPORTING)
    assert set(metrics.VOICES_AND_CALLS) < set(metrics.REPORTING)
    for name in metrics.TUNING + metrics.REPORTING:
        assert metrics.copy_score(*metrics.takes(name, RATE), RATE) < 0.8  # another take is not the same again


def test_copies_are_found_wherever_they_were_moved():
    style, _ = metrics.takes("fire", RATE)
    moved = np.concatenate([style[30000:], style[:30000]])
    assert metrics.copy_score(style[5000:60000], style, RATE) > 0.7
    assert metrics.copy_score(moved, style, RATE) > 0.7
    assert metrics.copy_score(metrics.matched_noise(style), style, RATE) < 0.1
    half = np.concatenate([style[:40000], metrics.matched_noise(style)[:40000]])
    assert 0.3 < metrics.copy_score(half, style, RATE) < 0.7


def test_content_kept_is_whole_for_the_content_and_little_for_another_sound():
    content, other = quality.excerpt("speech"), quality.excerpt("piano")
    assert metrics.content_kept(content, content, RATE) == pytest.approx((1, 1))
    assert max(metrics.content_kept(other, content, RATE)) < 0.5


def clicks(times, seconds=5.0):
    """Short bursts of noise, all alike, at some times."""
    samples, burst = np.zeros(int(seconds * RATE), np.float32), np.random.default_rng(0).standard_normal(400)
    for time in times:
        samples[round(time * RATE) :][:400] += burst[: len(samples) - round(time * RATE)] * np.linspace(1, 0, 400)
    return samples


def tone(*hertz, seconds=1.0):
    """Harmonic tones, one after another."""
    times = np.arange(round(seconds * RATE)) / RATE
    return np.concatenate([sum(np.sin(2 * np.pi * k * f * times) / k for k in (1, 2, 3, 4)) for f in hertz]).astype(
        "f4"
    )


def test_a_regular_pulse_has_a_peak_at_its_period_and_an_irregular_one_has_none():
    regular = clicks(np.arange(0.1, 4.9, 0.4))
    curve = metrics.rhythm_curve(regular, RATE)
    lags = 0.01 * np.arange(8, 201)
    assert lags[curve.argmax()] == pytest.approx(0.4, abs=0.011) and curve[np.abs(lags - 0.6) < 0.03].max() < 0.2
    assert metrics.rhythm_peak(regular, RATE) == curve.max() == pytest.approx(1 - 0.4 / 5, abs=0.1)
    irregular = clicks(np.sort(np.random.default_rng(1).uniform(0.1, 4.8, 12)))
    assert metrics.rhythm_peak(irregular, RATE) < 0.5
    noise = np.random.default_rng(2).standard_normal(5 * RATE).astype("f4")
    assert metrics.rhythm_peak(noise, RATE) < 0.25
    onsets = librosa.onset.onset_strength(y=irregular, sr=RATE, hop_length=220)
    onsets = onsets - onsets.mean()
    expected = [onsets[lag:] @ onsets[:-lag] / (onsets @ onsets) for lag in range(8, 201)]
    np.testing.assert_allclose(metrics.rhythm_curve(irregular, RATE), expected, atol=1e-4)


def test_the_rhythm_is_kept_where_the_period_is_whatever_the_time_and_the_sound():
    regular, other = clicks(np.arange(0.1, 4.9, 0.4)), clicks(np.arange(0.1, 4.9, 0.55))
    assert metrics.rhythm_kept(regular, regular, RATE) == pytest.approx(1)
    assert metrics.rhythm_kept(0.1 * clicks(np.arange(0.25, 4.9, 0.4)), regular, RATE) > 0.9
    assert metrics.rhythm_kept(other, regular, RATE) < 0.5
    with pytest.raises(ValueError, match=r"needs more than 2 s, and the sound has 1.5 s"):
        metrics.rhythm_curve(regular[: int(1.5 * RATE)], RATE)


def test_onsets_and_chroma_are_kept_by_sounds_that_share_them():
    """Clicks at the same times share onsets whatever their sound; tones an octave higher share chroma."""
    times = [0.3, 0.9, 1.0, 2.2, 3.1, 3.3, 4.4]
    moved = clicks([time + 0.15 for time in times])
    tones = clicks(times) * np.sin(2 * np.pi * 3000 / RATE * np.arange(5 * RATE)).astype("f4")
    assert metrics.onsets_kept(tones, clicks(times), RATE) > 0.7 > 0.2 > metrics.onsets_kept(moved, clicks(times), RATE)
    melody, octave, other = tone(262, 330, 392, 294), tone(524, 660, 784, 588), tone(370, 466, 554, 415)
    assert metrics.chroma_kept(octave, melody, RATE) > 0.8 > 0 > metrics.chroma_kept(other, melody, RATE)
    assert metrics.content_kept(octave, melody, RATE)[1] == metrics.chroma_kept(octave, melody, RATE)


@pytest.mark.parametrize("cents", [0, 20, -80, 1200, -1230])
def test_the_pitch_error_is_the_detuning_without_its_octave(cents):
    notes = np.array([262.0, 330.0, 392.0])
    median, share = metrics.pitch_error(tone(*notes * 2 ** (cents / 1200)), tone(*notes), RATE)
    expected = abs((cents + 600) % 1200 - 600)
    assert median == pytest.approx(expected, abs=11)  # pYIN has a grid of 10 cents
    assert share > 0.9 if expected < 40 else share < 0.1


def test_the_pitch_error_counts_wrong_notes_and_noise():
    wrong = metrics.pitch_error(tone(262, 466, 392, 294), tone(262, 330, 392, 294), RATE)
    assert wrong[0] < 11 and wrong[1] == pytest.approx(0.75, abs=0.05)
    noise = metrics.matched_noise(clicks([1.0]), seed=1)[: 4 * RATE]
    assert metrics.pitch_error(noise, tone(262, 330, 392, 294), RATE)[1] < 0.5
    assert np.isnan(metrics.pitch_error(noise, np.zeros(RATE, np.float32), RATE)).all()


def test_the_voice_is_lost_where_it_is_silenced():
    """Noise of which a part is 30 dB lower; gaps of the content and passages 12 dB lower don't count."""
    content = np.random.default_rng(0).standard_normal(5 * RATE).astype("f4")
    content[: 2 * RATE] *= 1e-3  # 2 s are not a voice, so that 3 s are active
    result = content.copy()
    result[2 * RATE : 3 * RATE] *= 10 ** (-30 / 20)
    assert metrics.voice_lost(result, content, RATE) == pytest.approx(1 / 3, abs=0.02)
    assert metrics.voice_lost(0.01 * result, content, RATE) == metrics.voice_lost(result, content, RATE)
    assert metrics.voice_lost(content, content, RATE) == 0
    softer = content.copy()
    softer[2 * RATE : 3 * RATE] *= 10 ** (-12 / 20)
    assert metrics.voice_lost(softer, content, RATE) == 0


def test_the_kernel_distance_is_that_of_scikit_learn_and_orders_sounds_as_it_must():
    style, other = metrics.takes("frogs", RATE)
    assert metrics.kernel_distance(style, style, RATE) == pytest.approx(0, abs=1e-6)
    noise, stranger = metrics.matched_noise(style), metrics.takes("fire", RATE)[0]
    distances = [metrics.kernel_distance(each, style, RATE) for each in (other, noise, stranger)]
    assert 0 < distances[0] < 0.5 * distances[1] and distances[1] < distances[2] <= 2
    width = metrics.usual_width()
    first, second = (metrics.embeddings(each, RATE, step=8) for each in (other, style))
    kernel = rbf_kernel(np.concatenate([first, second]), gamma=0.5 / width**2)
    weights = np.concatenate([np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))])
    assert distances[0] == pytest.approx(weights @ kernel @ weights, abs=1e-4)


def test_curves_are_read_at_a_level():
    curve = [(0.9, 4.0, 0.2), (0.5, 2.0, 0.6)]  # content kept, distance to the style, likeness to the style
    assert quality.at_level(curve, 0.7) == pytest.approx([3, 0.4])
    assert np.isnan(quality.at_level(curve, 0.4)).all()
