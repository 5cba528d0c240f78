"""The distance of levels: what it hears and what it does not hear, and recordings beside another take and noise."""

import numpy as np
import pytest

from support.sound.likeness import distance_of_levels
from support.start import matched_noise

RATE = 22050


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def test_order_level_length_and_channels_do_not_count():
    quiet_and_loud = np.concatenate([noise(1, 1), 0.1 * noise(1, 2)])
    again = np.concatenate([0.1 * noise(1, 3), noise(1, 4)])
    assert distance_of_levels(quiet_and_loud, quiet_and_loud, RATE) == 0
    assert distance_of_levels(0.01 * again, quiet_and_loud, RATE) < 1
    assert distance_of_levels(noise(2, 5), noise(7, 6), RATE) < 0.5
    stereo = np.stack([noise(2, 5)] * 2)
    assert distance_of_levels(stereo, noise(2, 5), RATE) == 0


def test_decibels_are_those_that_were_made():
    """Half of the frames 20 dB quieter: at one level, one half differs by 2.97 dB and the other by 17.03 dB."""
    steady = np.tile(noise(256 / RATE), 400)  # the same in every frame
    changing = steady * np.repeat(np.float32([0.1, 1]), len(steady) // 2)
    assert distance_of_levels(changing, steady, RATE) == pytest.approx((2.97 + 17.03) / 2, rel=0.05)


@pytest.mark.parametrize("rate", [1000, 8000, 44100, 192000])
@pytest.mark.parametrize("length", [1, 700, 30000])
def test_every_rate_and_length_gives_a_number_without_a_warning(rate, length, recwarn):
    sounds = [np.random.default_rng(seed).normal(0, 0.1, length).astype(np.float32) for seed in (0, 1)]
    assert 0 < distance_of_levels(*sounds, rate) < 60 and distance_of_levels(0 * sounds[0], sounds[1], rate) > 1
    assert not recwarn.list


@pytest.mark.parametrize("name", ["fire", "frogs", "babble", "piano", "water_stream", "birdsong", "electric_arc"])
def test_another_take_is_nearer_than_noise_of_the_same_spectrum(name, load):
    whole = load(name)
    half = len(whole) // 2
    first, second = whole[:half], whole[half:]
    like = matched_noise(first, length=half, seed=0)
    assert distance_of_levels(second, first, RATE) < distance_of_levels(like, first, RATE)
