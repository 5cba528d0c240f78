"""The metrics of benchmarks/ on sounds whose answers are known."""

import numpy as np
import pytest

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


def test_curves_are_read_at_a_level():
    curve = [(0.9, 4.0, 0.2), (0.5, 2.0, 0.6)]  # content kept, distance to the style, likeness to the style
    assert quality.at_level(curve, 0.7) == pytest.approx([3, 0.4])
    assert np.isnan(quality.at_level(curve, 0.4)).all()
