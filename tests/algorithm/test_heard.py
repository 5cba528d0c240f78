"""What a layer hears, against sounds whose answer is known."""

import numpy as np
import pytest
import torch

import audiocnn
from support import heard
from support.bands import band_networks

FREQUENCIES = np.linspace(0, 8000, 40)


def noise(seed, level=1.0):
    """An image of noise; level: of the bins from 20 to 24."""
    image = torch.rand(1, 40, 1, 200, generator=torch.Generator().manual_seed(seed))
    image[:, 20:25] *= level
    return image


@pytest.fixture(scope="module")
def network():
    return band_networks(FREQUENCIES, widths=[1, 4], filters=40, pattern_share=0.0)


def test_the_remaining_loss_lies_where_the_sounds_differ(network):
    objective = audiocnn.Objective(network, [(audiocnn.DistributionLoss(), "conv_2", 1.0)], style=noise(0))
    found = heard.remaining_loss(objective, noise(1, level=0.1))[0, :, 0].mean(dim=1)
    assert found.argmax() in range(20, 25) and found[20:25].min() > 1.5 * found[:14].mean()
    same = heard.remaining_loss(objective, noise(0))
    assert same.max() < 1e-6


def test_the_distance_of_a_channel_is_that_of_its_sorted_values(network):
    """And the channels whose filters lie where the sounds differ are far."""
    image, style = noise(1, level=0.1), noise(0)
    loss = audiocnn.DistributionLoss(balance=0.65)
    found = heard.channel_distances(network, "width_4.conv_2", loss, image=image, style=style)
    weights, taps = (network["width_4"][number].weight.squeeze() for number in range(2))
    rows = [np.einsum("fb,bt->ft", weights.numpy(), each[0, :, 0].numpy()) for each in (image, style)]
    rows = [
        np.stack([np.correlate(row, tap, mode="valid") for row, tap in zip(each, taps.numpy(), strict=True)])
        for each in rows
    ]
    one, two = (np.sort(each, axis=1) for each in rows)
    np.testing.assert_allclose(found, ((one - two) ** 2).mean(axis=1) / two.var(axis=1, ddof=1), rtol=1e-3)
    share = (weights[:, 20:25].abs().sum(dim=1) / weights.abs().sum(dim=1)).numpy()
    assert np.corrcoef(found, share)[0, 1] > 0.5


def test_a_channel_sees_its_bins(network):
    weights = network["width_4"][0].weight[:, :, 0, 0]
    for channel in (0, 20, 33):
        seen = heard.seen_by(network, "width_4.conv_2", [channel], noise(1) + 1)[0, :, 0]
        profile, bins = seen.mean(dim=1).numpy(), weights[channel].abs().numpy()
        assert seen.max() == 1 and np.corrcoef(profile, bins)[0, 1] > 0.99


def test_a_layer_of_several_networks(network):
    with pytest.raises(ValueError, match=r"'conv_2' stands for width_1\.conv_2, width_4\.conv_2; choose one of these"):
        heard.seen_by(network, "conv_2", [0], noise(0))
