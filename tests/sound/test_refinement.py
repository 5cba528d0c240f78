"""The refinement's preconditioner, and new random filters after every few steps."""

import functools
import itertools

import numpy as np
import pytest
import torch

import audiocnn
from support import losses, pipeline
from support.bands import band_networks
from support.desk.settings import Settings
from support.sound import transforms
from support.sound.analysis import Analysis
from support.sound.frames import BLOCK
from support.start import matched_noise

LENGTH = 30000


@pytest.fixture(scope="module")
def fire(load):
    return load("fire", duration=2.0)


def settings_of(**changes):
    return Settings(**dict(filters=12, widths=[1, 8], num_steps=6, refine_steps=6, redraw=3, device="cpu") | changes)


def analysis_of(*, hop_length=128, **changes):
    """An analysis by an STFT of 512 samples; half a window is the longest hop that can be inverted."""
    return Analysis(transform=transforms.STFT(sample_rate=22050, n_fft=512, hop_length=hop_length), **changes)


def objective_of(made, networks=None):
    return pipeline.make_objective(made.images, networks or made.networks, made.terms)


# The preconditioner ------------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "exponent"), [(0.3, 0.7), ("log1p", 1.0)])
def test_places_are_weighted_by_one_over_the_slope_of_the_compression(power, exponent):
    """A tone ten times as loud in its second half: a soft noise added to it counts by the slopes' known ratio."""
    times = np.arange(LENGTH) / 22050
    tone = torch.from_numpy(np.sin(2 * np.pi * 1000 * times) * np.where(times < times[-1] / 2, 0.1, 1)).float()
    changed = analysis_of(power=power).preconditioner(tone)(tone)
    soft, loud = (changed[part].std() / tone[part].std() for part in (slice(4000, 11000), slice(19000, 26000)))
    assert float(loud / soft) == pytest.approx(10**exponent, rel=0.15)


@pytest.mark.parametrize("hop_length", [64, 128, 256])
@pytest.mark.filterwarnings("ignore:hop_length=256 is more than a quarter")
@pytest.mark.parametrize("shape", [(LENGTH,), (2, LENGTH + 77)])
def test_the_map_is_linear_and_stays_small_at_the_ends(hop_length, shape):
    generator = torch.Generator().manual_seed(0)
    samples, one, two = (torch.randn(shape, generator=generator) for _ in range(3))
    change = analysis_of(hop_length=hop_length).preconditioner(samples)
    torch.testing.assert_close(change(2 * one - two), 2 * change(one) - change(two), rtol=1e-4, atol=1e-4)
    changed = change(one)
    assert changed.shape == shape
    assert changed[..., -600:].abs().max() < 2 * changed[..., 2000:-2000].abs().max()
    assert float(changed.std() / one.std()) == pytest.approx(1, rel=0.3)  # the mean weight is 1


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("hop_length", [64, 128, 100])
@pytest.mark.parametrize("n_samples", [LENGTH, 3 * BLOCK * 100])  # the second in blocks
def test_the_map_is_symmetric(loop, hop_length, n_samples):
    """The optimisation takes the map for its own transpose: <a, map b> = <map a, b>, also at the ends and in stereo."""
    shape = (2, n_samples // hop_length * hop_length)
    generator = torch.Generator().manual_seed(0)
    samples, one, two = (torch.randn(shape, generator=generator) for _ in range(3))
    change = analysis_of(hop_length=hop_length, loop=loop).preconditioner(
        samples * torch.rand(shape[1], generator=generator)
    )
    left, right = ((a.double() * b.double()).sum() for a, b in ((one, change(two)), (change(one), two)))
    assert float(left) == pytest.approx(float(right), abs=1e-5 * float(one.norm() * two.norm()))
    edges = torch.zeros(shape)  # alone, the samples beside the ends
    edges[:, :3], edges[:, -3:] = 1, 1
    assert float((edges * change(one)).sum()) == pytest.approx(float((change(edges) * one).sum()), abs=1e-3)


@pytest.mark.parametrize("name", ["speech", "frogs"])
def test_a_quarter_of_the_steps_are_enough(name, load):
    """15 steps with the preconditioner end nearer to the style than 60 without, from the same reconstruction."""
    settings = settings_of(filters=48, num_steps=40, refine_steps=0, redraw=0, phase_iterations=50)
    made = pipeline.parts(settings, {"style 1": load(name, duration=2.0)})
    start = pipeline.run(settings, made.recordings).samples
    objective, view = objective_of(made), made.analysis.view(len(start))
    plain, quick = start.clone(), start.clone()
    losses = [step["total"] for step in audiocnn.optimise(plain, objective, num_steps=60, through=view)]
    how = dict(num_steps=15, through=view, precondition=made.analysis.preconditioner)
    assert list(audiocnn.optimise(quick, objective, **how))[-1]["total"] < losses[-1]
    assert sum(objective.evaluate(quick, through=view)[0].values()) < losses[-1]  # of the samples themselves


def far(features, target):
    return (features - target).square().sum()


def test_a_preconditioner_leaves_the_optimum_where_it_is():
    """Least squares with a known answer, moved by a matrix that stretches some directions more."""
    target = torch.randn(1, 1, 1, 20, generator=torch.Generator().manual_seed(0))
    stretch = torch.logspace(-0.5, 0.5, 20)
    image, objective = torch.zeros(1, 1, 1, 20), audiocnn.Objective(None, [(far, "input")], style=target)
    how = dict(num_steps=60, precondition=lambda image: lambda point: stretch * point)
    history = list(audiocnn.optimise(image, objective, **how))
    torch.testing.assert_close(image, target, rtol=0, atol=1e-3)
    assert history[-1]["total"] == pytest.approx(float((image - target).square().sum()), rel=1e-3, abs=1e-9)


def test_what_lbfgs_remembers_is_freed_with_the_last_step():
    """Also where Python collects no cycles: the next draw's memory comes in place of this draw's."""
    made, image = [], torch.ones(1, 1, 1, 20)
    objective = audiocnn.Objective(None, [(far, "input")], style=torch.zeros_like(image))

    def noted(tensors):
        made.append(audiocnn.lbfgs(tensors))
        return made[-1]

    steps = audiocnn.optimise(image, objective, num_steps=5, optimizer=noted)
    next(steps)
    (optimizer,) = made
    assert optimizer.state
    list(steps)
    assert not optimizer.state


# New random filters ------------------------------------------------------------------------------


def noted_networks(made, asked):
    def networks(draw):
        asked.append(draw)
        return made.networks(draw)

    return networks


def descend(settings, fire, *, stop=None, again=None):
    """Optimise an image, stop after some steps, and go on; return the image, the draws asked for, and the steps.

    again : None to stay there, or "same" or "new" to go on with the same objective or with a new one.
    """
    made, asked = pipeline.parts(settings, {"style 1": fire}), []
    objective = objective_of(made, noted_networks(made, asked))
    image = torch.full_like(made.images["style 1"], 0.2)
    optimise = functools.partial(audiocnn.optimise, image, num_steps=settings.num_steps, redraw=settings.steps_of_draw)
    steps = optimise(objective)
    done = len(list(itertools.islice(steps, stop)))
    if again:
        objective = objective_of(made, noted_networks(made, asked)) if again == "new" else objective
        done += len(list(optimise(objective, done=done, memory=steps.memory)))
    return image, asked, done


def test_filters_are_drawn_again_and_going_on_draws_the_same(fire):
    settings = settings_of(num_steps=8)
    straight, asked, done = descend(settings, fire)
    assert (asked, done) == ([0, 1, 2], 8)
    halted, asked, done = descend(settings, fire, stop=6, again="same")
    assert (asked, done) == ([0, 1, 2], 8)
    assert torch.equal(halted, straight)
    halted, asked, done = descend(settings, fire, stop=6, again="new")
    assert asked[-1] == 2 and done == 8
    assert torch.equal(halted, straight)
    halted, asked, done = descend(settings, fire, stop=4, again="same")
    assert (asked, done) == ([0, 1, 2], 8) and torch.equal(halted, straight)
    halted, asked, done = descend(settings, fire, stop=4, again="new")
    assert (asked, done) == ([0, 1, 0, 1, 2], 8) and torch.equal(halted, straight)


def test_the_losses_of_the_start_are_noted(fire):
    settings = settings_of(num_steps=2, refine_steps=0)
    made, result = pipeline.parts(settings, {"style 1": fire}), pipeline.run(settings, {"style 1": fire})
    expected = {name: float(value) for name, value in objective_of(made).evaluate(result.first)[0].items()}
    assert result.start == pytest.approx(expected | {"total": sum(expected.values())}, rel=1e-5)
    assert result.history[0]["total"] < result.start["total"]


@pytest.mark.parametrize("start", ["content", "noise"])
def test_losses_of_noise_are_those_of_the_content_and_only_in_a_start_from_the_content(start, fire, load):
    recordings = {"style 1": fire, "content": load("rooster", duration=2.0)}
    settings = settings_of(CONTENT_FILENAME="c.wav", start=start, num_steps=0, refine_steps=0, phase_iterations=1)
    made, found = pipeline.parts(settings, recordings), pipeline.run(settings, recordings).noise
    noise = matched_noise(fire, length=len(recordings["content"]), seed=0)
    expected = objective_of(made).evaluate(made.analysis.image(torch.from_numpy(noise)))[0]
    assert float(expected["content conv_2"]) > 0
    expected = {"content conv_2": float(expected["content conv_2"])} if start == "content" else {}
    assert found == pytest.approx(expected, rel=1e-4)


SMALL_CNN = dict(l1channels=8, l2channels=8, l3channels=8, kernelsize=11)


@pytest.mark.filterwarnings("ignore:filters=12, widths=")
@pytest.mark.parametrize("changes", [dict(redraw=0), dict(recipe="gatys", parameters=SMALL_CNN, redraw=20)])
def test_without_redraw_and_in_other_recipes_the_network_stays(changes, fire):
    settings = settings_of(**changes, num_steps=21)
    assert descend(settings, fire)[1:] == ([0], 21)


def test_every_draw_has_other_filters_and_the_samples_have_draws_of_their_own(fire):
    settings, drawn = settings_of(seed=3), {}
    made = pipeline.parts(settings, {"style 1": fire})

    def networks(draw):
        drawn[draw] = made.networks(draw)
        return drawn[draw]

    assert np.isfinite(pipeline.synthesise(settings, {"style 1": fire}, networks=networks)).all()
    assert list(drawn) == [0, 1, audiocnn.SAMPLES_DRAW, audiocnn.SAMPLES_DRAW + 1]  # two draws of three steps, twice
    weights = [network["width_8"][1].weight for network in drawn.values()]
    assert not any(torch.equal(one, two) for one, two in itertools.combinations(weights, 2))
    again = band_networks(np.linspace(0, 11025, 257), widths=[1, 8], filters=12, pattern_share=0.8, seed=3)
    assert torch.equal(again["width_8"][1].weight, weights[0])


def test_held_out_filters_are_matched_better(fire):
    """As many steps on new filters bring the sound nearer to the style for filters that no step has seen."""

    def distance(redraw):
        settings = settings_of(filters=24, num_steps=60, refine_steps=40, redraw=redraw)
        samples = torch.from_numpy(pipeline.synthesise(settings, {"style 1": fire}))
        held_out = pipeline.parts(settings_of(filters=200, seed=12345), {"style 1": fire})
        objective, view = objective_of(held_out), held_out.analysis.view(len(samples))
        return float(sum(objective.evaluate(samples, through=view)[0].values()))

    assert distance(redraw=20) < 0.8 * distance(redraw=0)


def test_a_network_from_outside_is_never_replaced(fire, monkeypatch):
    network = band_networks(np.linspace(0, 11025, 257), widths=[1], filters=6)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    monkeypatch.setattr(Settings, "make_network", lambda *_, **__: pytest.fail("a new network was made"))
    result = pipeline.run(settings_of(), {"style 1": fire}, networks=network)
    assert (len(result.history), len(result.refinement)) == (6, 6)
    assert np.isfinite(result.samples.numpy()).all()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def lost_frames(samples, content):
    """Share of the frames of 50 ms within 30 dB of the content's loudest that are more than 20 dB below the content."""
    levels = [np.square(each[: len(each) // 1100 * 1100]).reshape(-1, 1100).mean(axis=1) for each in (samples, content)]
    active = levels[1] > 1e-3 * levels[1].max()
    return np.mean(levels[0][active] < 1e-2 * levels[1][active])


def test_a_voice_is_heard_in_a_style_of_silences(load):
    """Frames may be quieter than the content's, and not gone; more weight brings more content."""
    recordings = {"style 1": load("tabla", duration=4.0), "content": load("speech", offset=0.25, duration=4.0)}
    settings = Settings(CONTENT_FILENAME="c.wav", device="cpu", filters=80, num_steps=20, refine_steps=20, redraw=10)
    lost = {}
    for weight in (10.0, 100.0):
        made = pipeline.synthesise(settings.changed(content_weight=weight), recordings)
        lost[weight] = lost_frames(made, recordings["content"])
    assert lost[100.0] <= lost[10.0] < 0.15 and lost[100.0] < 0.05
    loss = losses.FreeContentLoss(largest_gain=10.0)  # nearly any level is free: otherwise this test shows nothing
    terms = [
        (loss if each.kind == "content" else each, *more) for each, *more in pipeline.parts(settings, recordings).terms
    ]
    made = pipeline.synthesise(settings, recordings, terms=terms)
    assert lost_frames(made, recordings["content"]) > 0.2
