"""Each experiment's networks and losses do what their names say, on tiny sounds and by independent computations."""

import numpy as np
import pytest
import torch

import audiocnn
import experiments
import metrics
import quality
from support import frontend, pipeline, results
from support.layers import features

RATE = 22050


@pytest.fixture(scope="module")
def given():
    """Settings of 8 filters, and their parts."""
    style, _ = metrics.takes("rain", RATE, longest=2.0)
    settings, recordings = quality.prepare(style, filters=8, widths=[1, 4], num_steps=4, refine_steps=2, redraw=2)
    return settings, pipeline.parts(settings, recordings)


def random_image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def last_layer(network, image):
    return features(network, image, ["conv_2"])["conv_2"]


def test_pairs_of_frames_see_two_frames_so_many_hops_apart(given):
    networks, image = experiments.lags(*given, filters=8)["networks"](0), torch.zeros(1, 257, 1, 200)
    image[..., 100] = 1.0
    for lag in (2, 4, 8, 16, 32, 64):
        seen = last_layer(networks[f"lag_{lag}"], image)[0, :, 0].abs().amax(dim=0)
        assert seen.nonzero().ravel().tolist() == [100 - lag, 100]
    assert set(networks) - {f"lag_{lag}" for lag in experiments.LAGS} == {"width_1", "width_4"}


def test_the_second_order_filters_the_modulus_over_time_and_neighbours(given):
    settings, parts = given
    first = experiments.bands_of(settings, parts, 0, widths=[3], filters=8, pattern_share=1.0)["width_3"]
    again, image = experiments.filtered_again(first, 5, neighbours=4), random_image(1, 257, 1, 30) - 0.5
    moduli = np.abs(last_layer(first, image)[0, :, 0].numpy())  # (8, 28)
    found, kernel = last_layer(again, image)[0, :, 0].numpy(), again[2].weight[:, :, 0].numpy()
    for channel, frame in ((0, 0), (3, 23), (4, 7), (7, 11)):
        group = slice(0, 4) if channel < 4 else slice(4, 8)
        expected = np.sum(kernel[channel] * moduli[group, frame : frame + 5])
        assert found[channel, frame] == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(last_layer(again, -image), last_layer(again, image))
    assert set(experiments.second_order(*given)["networks"](0)) == {"width_1", "width_4", "again_8", "again_32"}


def test_coarse_networks_see_means_of_frames(given):
    usual, image = experiments.bands_of(*given, 0), random_image(1, 257, 1, 80)
    means = image.reshape(1, 257, 1, 20, 4).mean(dim=4)
    networks = experiments.coarse_to_fine(*given)["networks"]
    torch.testing.assert_close(last_layer(networks(0)["width_4"], image), last_layer(usual["width_4"], means))
    for draw, length in ((0, 17), (1, 37), (2, 77), (1000, 77)):
        assert last_layer(networks(draw)["width_4"], image).shape[3] == length
    beside = experiments.coarse_beside(*given)["networks"](0)
    assert last_layer(beside["coarse_width_8"], image).shape[3] == 13


def test_trained_blocks_see_a_third_of_the_frames_and_weigh_as_half_of_the_patterns(given):
    parts = given[1]
    changes, few = experiments.trained(*given), random_image(1, 257, 1, 40)
    network = changes["networks"](0)["trained"]
    found = features(network, few.repeat_interleave(3, dim=3), ["pool_2", "pool_3"])  # pool_1 takes the means
    vgg = frontend.musicnn_vgg(parts.analysis.expand, sample_rate=RATE, n_fft=512)
    expected = features(vgg, few, ["pool_1", "pool_2"])
    torch.testing.assert_close(list(found.values()), list(expected.values()), rtol=1e-3, atol=1e-4)
    weights = {term[1]: term[2] for term in changes["terms"] if isinstance(term[0], audiocnn.DistributionLoss)}
    assert weights == pytest.approx(
        {"width_1.conv_2": 5 / 8, "width_4.conv_2": 5 / 8, "trained.pool_2": 1.2, "trained.pool_3": 1.2}
    )
    audiocnn.Objective(changes["networks"], changes["terms"], style=parts.images["style 1"])


def test_chosen_directions_are_differences_of_the_result_and_the_style():
    """The nearest product of a sum and of taps is the largest part of a singular value decomposition."""
    erb, generator = torch.zeros(30), torch.Generator().manual_seed(0)  # all bins in one place: no neighbourhoods
    result, style = random_image(2, 1, 30, 1, 6)
    sums, taps = experiments.differences(result, style, 6, 5, erb, generator)
    u, _, v = np.linalg.svd((result - style)[0, :, 0].numpy())
    for one, other in zip(sums.numpy(), taps.numpy(), strict=True):
        np.testing.assert_allclose(np.outer(one, other), np.outer(u[:, 0], v[0]), atol=1e-5)


def test_chosen_directions_see_a_band_of_frequency():
    erb, generator = torch.linspace(0, 100, 200), torch.Generator().manual_seed(0)
    result, style = random_image(2, 1, 200, 1, 20)
    sums, _ = experiments.differences(result, style, 4, 11, erb, generator)
    for centre, power in zip(range(0, 101, 10), sums.square(), strict=True):
        assert float(power[(erb - centre).abs() < 12].sum()) > 0.99


def test_half_of_the_filters_follow_the_result_from_the_second_draw_on(given):
    parts = given[1]
    changes = experiments.chosen_directions(*given)
    objective = pipeline.make_objective(parts.images, changes["networks"], changes["terms"])
    plain = pipeline.make_objective(parts.images, parts.networks, parts.terms)
    image = random_image(*parts.images["style 1"].shape)
    found, expected = (results.measured(each, image) for each in (objective, plain))
    assert found.pop("seen input") == 0 and found == pytest.approx(expected, rel=1e-6)
    before, after = (each(1)["width_4"] for each in (parts.networks, changes["networks"]))
    same = (before[0].weight == after[0].weight).flatten(1).all(dim=1)
    assert same.sum() == 4
    assert torch.equal(same, (before[1].weight == after[1].weight).flatten(1).all(dim=1))


def test_channels_are_weighted_by_a_softmax_of_their_distances():
    style, first, second = random_image(3, 1, 6, 1, 50) * torch.arange(1, 7)[:, None, None]
    distances = [
        np.mean((np.sort(each[0, :, 0]) - np.sort(style[0, :, 0])) ** 2, axis=1)
        / np.var(style.numpy(), axis=3, ddof=1).mean()
        for each in (first.numpy(), second.numpy())
    ]
    loss = experiments.WeightedDistribution(temperature=0.5)
    target = loss.target(style, blend=[1.0])
    weights = np.exp(distances[0] / distances[0].mean() / 0.5)
    weights /= weights.sum()
    for image, expected in zip((first, second), distances, strict=True):  # the second, with the weights of the first
        assert float(loss.distance(image, target)) == pytest.approx(weights @ expected, rel=1e-4)


def test_places_are_shared_out():
    """Without a penalty the nearest one, with a high one each at most once."""
    distances = random_image(7, 9) + 0.1
    assert torch.equal(experiments.spread_matches(distances, 0.0), distances.argmin(dim=1))
    assert len(set(experiments.spread_matches(distances, 1e3).tolist())) == 7
    alike = torch.tensor([[1.0, 1.3, 9.0]]).repeat(4, 1)
    assert experiments.spread_matches(alike, 0.2).bincount().tolist() == [3, 1]


def test_correspondence_is_the_distance_from_chosen_passages_and_begins_late():
    style, result = random_image(2, 1, 5, 1, 40)
    loss = experiments.Correspondence(hop=2, length=3, penalty=0.0, after=1)
    early = loss.target(style, blend=[1.0])
    assert float(loss.distance(result, early)) == 0
    late = loss.target(style, blend=[1.0])
    passages = [
        np.stack([means[:, first : first + 3].ravel() for first in range(18)])
        for means in (each[0, :, 0].reshape(5, 20, 2).mean(dim=2).numpy() for each in (result, style))
    ]
    nearest = [min(np.mean((one - other) ** 2) for other in passages[1]) for one in passages[0]]
    expected = np.mean(nearest) / passages[1].var(axis=0, ddof=1).mean()
    assert float(loss.distance(result, late)) == pytest.approx(expected, rel=1e-4)
    assert float(loss.distance(style, loss.target(style, blend=[1.0]))) == pytest.approx(0, abs=1e-9)


def test_without_an_experiment_a_texture_is_the_default():
    style, _ = metrics.takes("rain", RATE, longest=2.0)
    few = dict(filters=8, widths=[1, 4], num_steps=2, refine_steps=1)
    made = experiments.make_texture(style, experiments.EXPERIMENTS["the default"], seed=1, seconds=1.0, **few)
    np.testing.assert_array_equal(made, quality.default(style, length=RATE, rhythm_weight=0.0, seed=1, **few))


@pytest.mark.parametrize("name", list(experiments.EXPERIMENTS)[1:])
def test_each_experiment_changes_the_losses(given, name):
    """In a draw where they have begun."""
    parts, image = given[1], random_image(1, 257, 1, 300)
    changed = vars(parts) | experiments.EXPERIMENTS[name](*given)
    slopes = []
    for networks, terms in ((parts.networks, parts.terms), (changed["networks"], changed["terms"])):
        objective = pipeline.make_objective(parts.images, networks, terms)
        objective.evaluate(image)
        for draw in (1, 1000) if "correspondence" in name else (1,) if "chosen" in name else ():
            objective.draw(draw)
        losses, slope = objective.evaluate(image)
        assert all(torch.isfinite(loss) for loss in losses.values())
        slopes.append(slope)
    assert torch.isfinite(slopes[1]).all() and not torch.allclose(*slopes)
