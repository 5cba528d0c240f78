"""What the benchmarks measure is what the notebooks do, but for what a benchmark changes."""

import numpy as np
import pytest
import torch

import audiocnn
import gpu
import metrics
import quality
import race
import speed
import variants
from support import fast, pipeline
from support.bands import band_networks
from support.desk.settings import Settings
from support.start import start_image

RATE = 22050


def test_the_benchmark_measures_the_notebooks_recipe():
    """Short runs of both recipes, with and without a content, have the right length and level."""
    style, _ = metrics.takes("rain", RATE)
    content = quality.excerpt("rooster")
    few = dict(num_steps=6, refine_steps=2, filters=16)
    for samples, length in (
        (quality.default(style, length=30000, **few), 30000),
        (quality.default(style, content, **few), len(content)),
        (quality.baseline(style, length=30000, filters=16, num_steps=5), 30000),
        (quality.baseline(style, content, filters=16, num_steps=5), len(content)),
    ):
        assert len(samples) == length and np.isfinite(samples).all() and 0.01 < np.abs(samples).max() < 3
    (texture, _), (transfer, _) = quality.prepare(style), quality.prepare(style, content)
    assert texture == Settings()
    assert texture.start == "noise" and transfer.start == "content"
    assert texture.recipe == transfer.recipe == "bands"


@pytest.mark.parametrize("prepare", [quality.prepare, quality.gatys], ids=["default", "Gatys recipe"])
@pytest.mark.parametrize("is_transfer", [False, True], ids=["texture", "transfer"])
def test_a_benchmarks_descent_is_that_of_the_notebooks(prepare, is_transfer):
    """The image is the same after every step, with the losses of the notebooks and with equal ones in their place."""
    style, _ = metrics.takes("rain", RATE, longest=2.0)
    content = quality.excerpt("rooster") if is_transfer else None
    few = dict(num_steps=4, refine_steps=1, filters=16) | (dict(redraw=2) if prepare is quality.prepare else {})
    settings, recordings = prepare(style, content, **few)
    expected = pipeline.run(settings, recordings).image
    kinds = {loss.kind: loss for loss, *_ in pipeline.parts(settings, recordings).terms}
    for losses in (None, kinds):
        assert torch.equal(quality.Descent(settings, recordings, losses=losses).finish().image, expected)


def test_other_losses_networks_and_no_preconditioner_change_the_sound():
    style, _ = metrics.takes("rain", RATE, longest=2.0)
    few = dict(num_steps=2, refine_steps=2, filters=8, widths=[1, 4])
    same = dict(losses={"style": audiocnn.DistributionLoss(balance=0.65)}, networks=bands, precondition=True)
    sound = quality.default(style, **few)
    np.testing.assert_array_equal(quality.default(style, **few, **same), sound)
    other = dict(losses={"style": audiocnn.StyleLoss()}, networks=variants.dilated_networks, precondition=False)
    for name, value in other.items():
        assert not np.array_equal(quality.default(style, **few, **{name: value}), sound)


def bands(settings, seed):
    frequencies, shares = settings.make_transform().frequencies, dict(pattern_share=settings.pattern_share)
    return band_networks(frequencies, widths=settings.widths, filters=settings.filters, seed=seed, **shares)


def test_plain_distributions_have_the_same_loss_and_gradient():
    style, noise = torch.rand(2, 1, 30, 1, 200, generator=torch.Generator().manual_seed(0))
    found = []
    for kind in (audiocnn.DistributionLoss, race.PlainDistribution):
        found.append(audiocnn.Objective(None, [(kind(balance=0.65), "input", 1.0)], style=style).evaluate(noise))
    assert found[1][0]["style input"].item() == pytest.approx(found[0][0]["style input"].item(), rel=1e-5)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-8)


def test_the_ways_to_the_faster_evaluation_have_the_same_loss_and_gradient():
    """The baseline, also where it is cut, PyTorch's convolution, which stays PyTorch's, and the faster one."""
    network, style = speed.make(64, 1, "freq")
    ways, noise = speed.ways_of(network, style), start_image("rand", like=style)
    found = [evaluate(noise) for evaluate in ways.values()]
    losses = [each["style relu_1"] if isinstance(each, dict) else each for each, _ in found]
    assert [each.item() for each in losses] == pytest.approx([losses[0].item()] * 4, rel=1e-3)
    for _, gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-3 * found[0][1].abs().max().item())
    kinds = [{type(part) for part in way.__self__.parts()} for way in list(ways.values())[2:]]
    assert [fast.OverlapSaveConv in each for each in kinds] == [False, True]


def test_an_objective_for_calls_one_by_one_is_not_recorded_and_has_the_same_losses():
    style, _ = metrics.takes("rain", RATE, longest=2.0)
    settings, recordings = quality.prepare(style, filters=8, num_steps=2)
    one_by_one, usual = (quality.Descent(settings, recordings, losses=each) for each in (gpu.ONE_BY_ONE, None))
    assert list(one_by_one.steps) == list(usual.steps)
    foreign = [
        {type(part).__module__.partition(".")[0] for part in each.objective.parts()} for each in (one_by_one, usual)
    ]
    assert [each - {"torch", "audiocnn", "support"} for each in foreign] == [{"gpu"}, set()]
