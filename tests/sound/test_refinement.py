"""The refinement's preconditioner, and new random filters after every few steps."""

import functools
import itertools

import numpy as np
import pytest
import torch

import audiocnn
from support import fast, pipeline, transforms
from support.preconditioning import preconditioner
from support.settings import Settings

FRAMES = dict(n_fft=512, hop_length=128)
POWER = dict(use01scale=True, power=0.3)
LENGTH = 30000


@pytest.fixture(scope="module")
def fire(load):
    return load("fire", duration=2.0)


def settings_of(**changes):
    return Settings(**dict(filters=12, widths=[1, 8], num_steps=6, refine_steps=6, redraw=3, device="cpu") | changes)


# The preconditioner ------------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "exponent"), [(0.3, 0.7), ("log1p", 1.0)])
def test_places_are_weighted_by_one_over_the_slope_of_the_compression(power, exponent):
    """A tone ten times as loud in its second half: a soft noise added to it counts by the slopes' known ratio."""
    times = np.arange(LENGTH) / 22050
    tone = torch.from_numpy(np.sin(2 * np.pi * 1000 * times) * np.where(times < times[-1] / 2, 0.1, 1)).float()
    changed = preconditioner(tone, **FRAMES, use01scale=True, power=power)(tone)
    soft, loud = (changed[part].std() / tone[part].std() for part in (slice(4000, 11000), slice(19000, 26000)))
    assert float(loud / soft) == pytest.approx(10**exponent, rel=0.15)


@pytest.mark.parametrize("hop_length", [64, 128, 256])  # half a window is the longest hop that can be inverted
@pytest.mark.parametrize("shape", [(LENGTH,), (2, LENGTH + 77)])
def test_the_map_is_linear_and_stays_small_at_the_ends(hop_length, shape):
    generator = torch.Generator().manual_seed(0)
    samples, one, two = (torch.randn(shape, generator=generator) for _ in range(3))
    change = preconditioner(samples, n_fft=512, hop_length=hop_length, **POWER)
    torch.testing.assert_close(change(2 * one - two), 2 * change(one) - change(two), rtol=1e-4, atol=1e-4)
    changed = change(one)
    assert changed.shape == shape
    assert changed[..., -600:].abs().max() < 2 * changed[..., 2000:-2000].abs().max()
    assert float(changed.std() / one.std()) == pytest.approx(1, rel=0.3)  # the mean weight is 1


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("hop_length", [64, 128, 100])
@pytest.mark.parametrize("n_samples", [LENGTH, 3 * fast.BLOCK * 100])  # the second in blocks
def test_the_map_is_symmetric(loop, hop_length, n_samples):
    """The optimisation takes the map for its own transpose: <a, map b> = <map a, b>, also at the ends and in stereo."""
    shape = (2, n_samples // hop_length * hop_length)
    generator = torch.Generator().manual_seed(0)
    samples, one, two = (torch.randn(shape, generator=generator) for _ in range(3))
    change = pipeline.precondition_of(settings_of(loop=loop, K_HOP=hop_length), samples * torch.rand(shape[1]))
    left, right = ((a.double() * b.double()).sum() for a, b in ((one, change(two)), (change(one), two)))
    assert float(left) == pytest.approx(float(right), abs=1e-5 * float(one.norm() * two.norm()))
    edges = torch.zeros(shape)  # alone, the samples beside the ends
    edges[:, :3], edges[:, -3:] = 1, 1
    assert float((edges * change(one)).sum()) == pytest.approx(float((change(edges) * one).sum()), abs=1e-3)


@pytest.mark.parametrize("name", ["speech", "frogs"])
def test_a_quarter_of_the_steps_are_enough(name, load):
    """15 steps with the preconditioner end nearer to the style than 60 without, from the same reconstruction."""
    settings, recordings = settings_of(filters=48, num_steps=40, redraw=0), {"style 1": load(name, duration=2.0)}
    spectrogram, network, length = pipeline.optimise_spectrogram(settings, recordings)
    magnitude = transforms.expand(spectrogram, **settings.compression)
    start = torch.from_numpy(settings.make_transform().reconstruct(magnitude, n_iter=50, length=length))
    images = pipeline.make_images(settings, recordings)[1]
    model = pipeline.insert_losses(settings, images, network, pipeline.make_terms(settings))
    objective = functools.partial(audiocnn.evaluate, model=model, view=pipeline.view_of(settings, length))
    plain, quick = start.clone(), start.clone()
    losses = [step["total"] for step in audiocnn.optimise(plain, objective, num_steps=60)]
    how = dict(num_steps=15, precondition=preconditioner(start, **FRAMES, **POWER))
    assert list(audiocnn.optimise(quick, objective, **how))[-1]["total"] < losses[-1]
    assert sum(objective(quick)[0].values()) < losses[-1]  # of the samples themselves


def test_a_preconditioner_leaves_the_optimum_where_it_is():
    """Least squares with a known answer, moved by a matrix that stretches some directions more."""
    generator = torch.Generator().manual_seed(0)
    target, stretch = torch.randn(20, generator=generator), torch.logspace(-0.5, 0.5, 20)

    def objective(image):
        return {"distance": (image - target).square().sum()}, 2 * (image - target)

    image = torch.zeros(20)
    history = list(audiocnn.optimise(image, objective, num_steps=60, precondition=lambda point: stretch * point))
    torch.testing.assert_close(image, target, rtol=0, atol=1e-3)
    assert history[-1]["distance"] == pytest.approx(float((image - target).square().sum()), rel=1e-3, abs=1e-9)


def test_what_lbfgs_remembers_is_freed_with_the_last_step(monkeypatch):
    """Also where Python collects no cycles: the next draw's memory comes in place of this draw's."""
    made, lbfgs = [], audiocnn.lbfgs
    monkeypatch.setattr(audiocnn, "lbfgs", lambda *given, **how: made.append(lbfgs(*given, **how)) or made[-1])
    list(audiocnn.optimise(torch.ones(20), lambda image: ({"a": image.square().sum()}, 2 * image), num_steps=5))
    (optimizer,) = made
    assert not optimizer.state


# New random filters ------------------------------------------------------------------------------


def descend(settings, fire, *, stop=None, go_on=True):
    """Optimise an image, stop after some steps, and go on; return the image and the draws that were asked for."""
    images, asked = pipeline.make_images(settings, {"style 1": fire})[1], []
    make = functools.partial(pipeline.make_network, settings, images)
    model_of = pipeline.models_by_draw(settings, images, pipeline.make_terms(settings), make(seed=0), make)

    def noted(draw):
        asked.append(draw)
        return model_of(draw)

    image = torch.full_like(images["style 1"], 0.2)
    steps = pipeline.descend(image, noted, settings, num_steps=settings.num_steps)
    done = len(list(itertools.islice(steps, stop)))
    if go_on:
        done += len(list(pipeline.descend(image, noted, settings, num_steps=settings.num_steps, done=done)))
    return image, asked, done


def test_filters_are_drawn_anew_and_going_on_draws_the_same(fire):
    straight, asked, done = descend(settings_of(num_steps=8), fire, go_on=False)
    assert (asked, done) == ([0, 1, 2], 8)
    halted, asked, done = descend(settings_of(num_steps=8), fire, stop=6)
    assert (asked, done) == ([0, 1, 2], 8)
    assert torch.equal(halted, straight)  # between two draws, stopping changes nothing
    _, asked, done = descend(settings_of(num_steps=8), fire, stop=4)
    assert (asked, done) == ([0, 1, 1, 2], 8)


def test_the_losses_of_the_start_are_noted_and_cost_no_evaluation(fire, monkeypatch):
    settings, evaluations, evaluate = settings_of(num_steps=4), [], audiocnn.evaluate
    images = pipeline.make_images(settings, {"style 1": fire})[1]
    network = pipeline.make_network(settings, images, seed=0)
    model_of = pipeline.models_by_draw(settings, images, pipeline.make_terms(settings), network, None)
    expected = evaluate(torch.full_like(images["style 1"], 0.2), model_of(0))[0]
    monkeypatch.setattr(audiocnn, "evaluate", lambda *args, **how: evaluations.append(1) or evaluate(*args, **how))
    settings, numbers, start, histories = settings_of(num_steps=4, redraw=0), [], {}, []
    for how in ({}, dict(start=start), dict(start=start)):  # the third time, nothing is noted any more
        evaluations.clear()
        image = torch.full_like(images["style 1"], 0.2)
        histories.append(list(pipeline.descend(image, model_of, settings, num_steps=4, **how)))
        numbers.append(len(evaluations))
        if start:
            values = {name: float(value) for name, value in expected.items()}
            assert start == pytest.approx(values | {"total": sum(values.values())}, rel=1e-5)
    assert len(set(numbers)) == 1 and histories[0] == histories[1] == histories[2]


def test_losses_of_noise_are_those_of_the_content_and_only_in_a_start_from_the_content(fire, load):
    recordings = {"style 1": fire, "content": load("rooster", duration=2.0)}
    for start in ("content", "noise"):
        settings = settings_of(CONTENT_FILENAME="c.wav", start=start)
        images = pipeline.make_images(settings, recordings)[1]
        network = pipeline.make_network(settings, images, seed=0)
        samples = pipeline.start_samples(settings, fire, length=recordings["content"].shape[-1], seed=0)
        terms = pipeline.make_terms(settings)
        found = pipeline.losses_of_noise(settings, samples, images, network, terms)
        spectrogram = transforms.compress(settings.make_transform().magnitude(samples), **settings.compression)
        noise = transforms.to_image(spectrogram, "freq")
        expected = audiocnn.evaluate(noise, pipeline.insert_losses(settings, images, network, terms))[0]
        expected = {"content conv_2": float(expected["content conv_2"])} if start == "content" else {}
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "changes", [dict(redraw=0), dict(recipe="gatys", model_path=None, param_pkl=None, l1channels=8, num_steps=6)]
)
def test_without_redraw_and_in_other_recipes_the_network_stays(changes, fire):
    assert descend(settings_of(**changes), fire, go_on=False)[1:] == ([0], 6)


def test_every_draw_has_other_filters_and_the_samples_have_draws_of_their_own(fire, monkeypatch):
    seeds = []

    def make_network(settings, images, *, seed):
        seeds.append(seed)
        return pipeline.audiocnn.band_networks(np.linspace(0, 11025, 257), widths=[1, 8], filters=12, seed=seed)

    monkeypatch.setattr(pipeline, "make_network", make_network)
    made = pipeline.synthesise(settings_of(seed=3), {"style 1": fire})
    assert np.isfinite(made).all() and len(set(seeds)) == len(seeds) == 4  # two draws of three steps, twice
    assert seeds[0] == 3


def test_held_out_filters_are_matched_better(fire):
    """As many steps on new filters bring the sound nearer to the style for filters that no step has seen."""

    def distance(redraw):
        settings = settings_of(filters=24, num_steps=60, refine_steps=40, redraw=redraw)
        images = pipeline.make_images(settings, {"style 1": fire})[1]
        samples = torch.from_numpy(pipeline.synthesise(settings, {"style 1": fire}))
        network = pipeline.make_network(settings_of(filters=200), images, seed=12345)
        model = pipeline.insert_losses(settings, images, network, pipeline.make_terms(settings))
        view = pipeline.view_of(settings, len(samples))
        return float(sum(audiocnn.evaluate(samples, model, view=view)[0].values()))

    assert distance(redraw=20) < 0.8 * distance(redraw=0)


def test_a_network_from_outside_is_never_replaced(fire, monkeypatch):
    network = audiocnn.band_networks(np.linspace(0, 11025, 257), widths=[1], filters=6)
    monkeypatch.setattr(pipeline, "make_network", lambda *_, **__: pytest.fail("a new network was made"))
    assert np.isfinite(pipeline.synthesise(settings_of(), {"style 1": fire}, network=network)).all()
