"""The metrics of benchmarks/ on sounds whose answers are known."""

import numpy as np
import pytest

import metrics
import quality
from support.settings import Settings

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
    assert quality.distance_at([(0.9, 4.0), (0.5, 2.0)], 0.7) == pytest.approx(3)
    assert np.isnan(quality.distance_at([(0.9, 4.0), (0.5, 2.0)], 0.4))


def test_the_benchmark_measures_the_notebooks_recipe():
    """Short runs of both recipes, with and without a content, have the right length and level."""
    style, _ = metrics.takes("rain", RATE)
    content = quality.excerpt("rooster")
    few = dict(num_steps=6, refine_steps=2, filters=16)
    hop = 256  # without a length, librosa's Griffin-Lim makes whole hops
    for samples, length in (
        (quality.default(style, length=30000, **few), 30000),
        (quality.default(style, content, **few), len(content)),
        (quality.baseline(style, length=30000, filters=16, steps=5), 30000),
        (quality.baseline(style, content, filters=16, steps=5), hop * (len(content) // hop)),
    ):
        assert len(samples) == length and np.isfinite(samples).all() and 0.01 < np.abs(samples).max() < 3
    (texture, _), (transfer, _) = quality.prepare(style), quality.prepare(style, content)
    assert texture == Settings()
    assert texture.start == "noise" and transfer.start == "content"
    assert texture.recipe == transfer.recipe == "bands"
