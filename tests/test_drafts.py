"""Drafts to hear while the optimisation goes on: how often they come, and how they sound."""

import base64
import io
import json
import re

import IPython.display
import numpy as np
import pytest
import soundfile
import torch

from support import pipeline, players, saving, show
from support.settings import Settings


class Screen:
    """Takes the place of IPython.display.display: keeps the data of all outputs, in the order of their updates."""

    def __init__(self):
        self.shown = []

    def display(self, data, *, display_id=False):
        self.shown.append(data)
        return self if display_id else None

    def update(self, data):
        self.shown.append(data)

    def newest(self):
        """What the scripts hand to the player, in order; None hides the player."""
        found = [re.search(r"desk.newest = (.*);\n", getattr(data, "data", "") or "") for data in self.shown]
        return [json.loads(each[1]) for each in found if each]


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(IPython.display, "display", screen.display)
    return screen


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when the test moves it."""
    now = [0.0]
    monkeypatch.setattr(show.time, "monotonic", lambda: now[0])
    return now


def follow(screen, clock, *, step, picture, sound, num_steps=1000, **settings):
    """Follow steps of so many seconds, with pictures and sounds that take so many; return when sounds were made."""
    times, drawn = [], []

    def steps():
        for _ in range(num_steps):
            clock[0] += step
            yield {"total": 1.0}

    def draw():
        drawn.append(clock[0])
        clock[0] += picture
        return "a picture"

    def hear():
        times.append(clock[0])
        clock[0] += sound
        return np.full(100, 0.5)

    settings = Settings(**settings)
    how = dict(title="a", num_steps=num_steps, shares=dict, draw=draw, hear=hear, settings=settings)
    show.follow(steps(), [], **how)
    return times, drawn


def test_a_draft_comes_with_every_picture(screen, clock):
    times, drawn = follow(screen, clock, step=0.5, picture=0.01, sound=0.01, refresh=10)
    assert len(times) == len(drawn) == pytest.approx(500 / 10, abs=3)
    *drafts, last = screen.newest()
    assert len(drafts) == len(times) and last is None
    assert drafts[0]["title"] == "draft after 21 of 1000 steps"  # the first step after 10 s


@pytest.mark.parametrize(("picture", "sound"), [(3.0, 0.0), (1.0, 5.0), (0.3, 0.1)])
def test_pictures_and_drafts_take_less_than_a_tenth_of_the_time(picture, sound, screen, clock):
    times, _ = follow(screen, clock, step=0.25, picture=picture, sound=sound, refresh=1)
    assert len(times) > 2
    assert (len(times) - 1) * (picture + sound) < 0.1 * (times[-1] - times[0])


def test_without_refresh_nothing_is_made(screen, clock):
    assert follow(screen, clock, step=5, picture=1, sound=1, refresh=0) == ([], [])
    assert screen.newest() == []


def test_an_interrupt_hides_the_player(screen, clock):
    def steps():
        yield {"total": 1.0}
        clock[0] += 20
        yield {"total": 0.5}
        raise KeyboardInterrupt

    history = []
    how = dict(title="a", num_steps=9, shares=dict, draw=str, hear=lambda: np.full(100, 0.5), settings=Settings())
    with pytest.raises(KeyboardInterrupt):
        show.follow(steps(), history, **how)
    assert len(history) == 2 and screen.newest()[-1] is None


def test_a_draft_holds_the_sound(screen):
    sound = 0.5 * np.random.default_rng(0).uniform(-1, 1, 40000).astype(np.float32)
    drafts = players.Drafts(sample_rate=22050)
    drafts.play(sound, "one </script>")
    assert "one </script>" not in screen.shown[-1].data  # would end the script
    drafts.play(np.stack([4 * sound, sound]), "two")
    one, two = screen.newest()
    assert one["title"] == "one </script>"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(one["source"].split(",")[1])))
    assert rate == 22050
    np.testing.assert_allclose(samples, sound, atol=1e-4)
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(two["source"].split(",")[1])))
    assert samples.shape == (40000, 2) and np.abs(samples).max() < 1  # would have clipped


# The sounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", ["stft", "cqt"])
@pytest.mark.parametrize("changes", [{}, dict(loop=True), dict(stereo=True)])
def test_a_draft_sounds_like_the_image(transform, changes, load):
    """Its spectrogram is near to the image's: less than a tenth of the energy is elsewhere."""
    settings = Settings(transform=transform, device="cpu", **changes)
    samples = load("speech", duration=2.0)
    samples = samples[: len(samples) // 128 * 128]
    spectrograms, images = pipeline.make_images(settings, {"style 1": samples})
    result = saving.Result(0, images["style 1"])
    draft = pipeline.hear_image(result, settings, spectrograms, length=len(samples))
    assert draft.shape == samples.shape and np.isfinite(draft).all()
    magnitude, found = (settings.make_transform().magnitude(each) for each in (samples, draft))
    assert np.linalg.norm(found - magnitude) ** 2 < 0.1 * np.linalg.norm(magnitude) ** 2


def test_a_draft_is_of_what_is_optimised(load):
    """After the refinement of an earlier image, a draft of the image is not the refined sound."""
    settings, samples = Settings(device="cpu"), load("fire", duration=1.0)
    spectrograms, images = pipeline.make_images(settings, {"style 1": samples})
    result = saving.Result(0, images["style 1"], samples=torch.zeros(len(samples)))
    assert np.abs(pipeline.hear_image(result, settings, spectrograms, length=len(samples))).max() > 0.01
    assert not pipeline.hear_samples(result, settings).any()
    silent = Settings(device="cpu", draft_sound=False)
    assert pipeline.hear_image(result, silent, spectrograms, length=len(samples)) is None
    assert pipeline.hear_samples(result, silent) is None


def test_no_draft_changes_the_result(load):
    """Whether somebody listens on the way changes no sample."""
    settings = Settings(device="cpu", filters=12, widths=[1, 4], num_steps=4, refine_steps=0)
    spectrograms, images = pipeline.make_images(settings, {"style 1": load("fire", duration=1.0)})
    image = images["style 1"].clone()
    result = saving.Result(0, image)
    pipeline.hear_image(result, settings, spectrograms, length=22050)
    torch.testing.assert_close(result.image, images["style 1"], rtol=0, atol=0)
    loudest = spectrograms["style 1"].max()
    assert pipeline.spectrogram_of(settings, 2 * image, spectrograms).max() == loudest  # not louder than the inputs
