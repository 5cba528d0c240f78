"""Losses as parts: of which kinds they may be, what they may return, their names, and their sum."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import audiocnn
from support import losses
from support.bands import band_networks
from support.rhythm import RhythmLoss
from support.sound.analysis import Analysis
from support.sound.masks import Where
from support.sound.transforms import STFT


@pytest.fixture(scope="module")
def bands():
    return band_networks(np.linspace(0, 8000, 20), widths=[4, 8], filters=6)


def sound(seed, n_frames=64):
    return torch.rand(1, 20, 1, n_frames, generator=torch.Generator().manual_seed(seed))


def first_layer(network, image):
    """The features of conv_1, by a product."""
    return torch.einsum("fb,bt->ft", network[0].weight[:, :, 0, 0], image[0, :, 0])


def distance_of_means(features, target):
    return (features.mean() - target.mean()).square()


@dataclass
class Peak(audiocnn.Loss):
    """A loss of one's own, with a parameter of its own; it sees whole images."""

    power: float = 1.0
    kind, compares = "peak", "style"

    def target(self, *styles, blend):
        return max(style.max() for style in styles)

    def distance(self, features, target):
        return (features.max() - target).abs() ** self.power


def test_a_loss_may_be_of_any_kind(bands):
    """An instance, a class, a partial class, a function, a lambda, a module: each gives what it computes."""
    style, start, network = sound(1), sound(2), bands["width_4"]
    x, y = first_layer(network, start), first_layer(network, style)
    means = float((x.mean() - y.mean()).square())
    peaks = float((x.max() - y.max()).abs())
    cases = {
        "peak conv_1": (Peak(power=3.0), peaks**3),
        "style conv_1": (audiocnn.DistributionLoss(balance=0.0), None),
        "diversity conv_1": (functools.partial(losses.DiversityLoss, length=16), None),
        "rhythm conv_1": (RhythmLoss, None),
        "distance_of_means conv_1": (distance_of_means, means),
        "lambda conv_1": (lambda features, target: 5 * distance_of_means(features, target), 5 * means),
        "mseloss conv_1": (nn.MSELoss(), float((x - y).square().mean())),
        "l1loss conv_1": (nn.L1Loss, float((x - y).abs().mean())),
        "partial conv_1": (functools.partial(nn.functional.huber_loss, delta=1e3), float((x - y).square().mean()) / 2),
    }
    terms = [(loss, "conv_1", 2.0) for loss, _ in cases.values()]
    found, gradient = audiocnn.Objective(network, terms, style=style).evaluate(start)
    assert list(found) == list(cases)
    for name, (_, expected) in cases.items():
        if expected is not None:
            assert float(found[name]) == pytest.approx(2 * expected, rel=1e-4), name
    assert torch.isfinite(gradient).all() and gradient.any()
    alone, _ = audiocnn.Objective(network, [(losses.DiversityLoss(length=16), "conv_1", 2.0)], style=style).evaluate(
        start
    )
    assert float(found["diversity conv_1"]) == pytest.approx(float(alone["diversity conv_1"]))


def test_a_parameter_of_a_partial_class_counts(bands):
    style, start = sound(1), sound(2)
    values = [
        float(audiocnn.Objective(bands, [(loss, "conv_1", 1.0)], style=style).evaluate(start)[0]["peak conv_1"])
        for loss in (Peak, functools.partial(Peak, power=1.0), Peak(1.0), functools.partial(Peak, power=2.0))
    ]
    assert values[0] == values[1] == values[2] != values[3]


def test_a_function_compares_with_what_its_term_says(bands):
    """The style without a word; the content, or nothing."""
    style, content, start, network = sound(1), sound(3), sound(2), bands["width_4"]

    def quietness(features, target):
        assert target is None
        return features.square().mean()

    terms = [audiocnn.Term(distance_of_means, "conv_1", 1.0, "content"), (quietness, "conv_1", 1.0, None)]
    found, _ = audiocnn.Objective(network, terms, style=style, content=content).evaluate(start)
    x, y = first_layer(network, start), first_layer(network, content)
    expected = float((x.mean() - y.mean()).square()), float(x.square().mean())
    assert [float(loss) for loss in found.values()] == pytest.approx(expected, rel=1e-4)


def test_a_content_without_a_style(bands):
    content, start = sound(3), sound(2)
    terms = [(audiocnn.ContentLoss(), "conv_2", 2.0), (nn.MSELoss(), "input", 1.0, "content")]
    found, gradient = audiocnn.Objective(bands, terms, content=content).evaluate(start)
    assert list(found) == ["content conv_2", "mseloss input"] and torch.isfinite(gradient).all()
    assert float(found["mseloss input"]) == pytest.approx(float((start - content).square().mean()), rel=1e-5)
    alone, _ = audiocnn.Objective(bands, terms, style=sound(1), content=content).evaluate(start)
    assert float(found["content conv_2"]) == pytest.approx(float(alone["content conv_2"]))


def test_a_loss_without_segments_sees_the_whole_image_next_to_one_with_segments(bands):
    """400 frames in segments of 40: each loss equals itself alone, and the own one equals its whole-image value."""
    style, start, segment = sound(1, 400), sound(2, 400), 40
    own, by_segments = (
        [(Peak(), "conv_2", 2.0), (distance_of_means, "conv_1", 1.0)],
        (audiocnn.StyleLoss(), "conv_2", 3),
    )
    seen = []

    def watching(features, target):
        seen.append(features.shape[3])
        return features.mean()

    both = audiocnn.Objective(bands, [*own, by_segments, (watching, "conv_1", 1.0)], style=style, segment=segment)
    found, gradient = both.evaluate(start)
    assert set(seen) == {400}  # never a part, though a style loss sees ten of them
    whole, whole_gradient = audiocnn.Objective(bands, [*own, (watching, "conv_1", 1.0)], style=style).evaluate(start)
    parts, parts_gradient = audiocnn.Objective(bands, [by_segments], style=style, segment=segment).evaluate(start)
    for name, loss in (whole | parts).items():
        assert float(found[name]) == pytest.approx(float(loss), rel=1e-5), name
    assert set(found) == set(whole) | set(parts)
    assert (gradient - whole_gradient - parts_gradient).norm() < 1e-5 * gradient.norm()
    complete, _ = audiocnn.Objective(bands, [by_segments], style=style).evaluate(start)
    assert float(parts["style conv_2"]) > 1.01 * float(complete["style conv_2"])  # ten comparisons, not one


def test_a_loss_with_segments_may_cut_its_target(bands):
    """Frame by frame, each segment with its own frames: the mean of the segments is that of the whole."""

    @dataclass
    class Frames(audiocnn.Loss):
        kind, compares, segments = "frames", "content", True

        def cut(self, target, part):
            return target[..., part]

        def distance(self, features, target):
            return (features - target).abs().mean()

    content, start = sound(3, 407), sound(2, 407)
    terms = [(Frames(), "conv_2", 1.0)]
    whole, parts = (
        audiocnn.Objective(bands["width_8"], terms, content=content, segment=segment).evaluate(start)
        for segment in (None, 40)
    )
    assert float(parts[0]["frames conv_2"]) == pytest.approx(float(whole[0]["frames conv_2"]), rel=1e-4)
    assert (parts[1] - whole[1]).norm() < 1e-4 * whole[1].norm()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda features, target: features.mean(dim=(0, 2, 3)), r"gives a tensor of shape \(6,\); its distance"),
        (lambda features, target: features.mean().reshape(1), r"gives a tensor of shape \(1,\); its distance"),
        (lambda features, target: features.mean().item(), r"gives a float; its distance must be one number"),
        (lambda features, target: None, r"gives a NoneType; its distance must be one number"),
        (
            lambda features, target: features.mean().detach(),
            r"gives a tensor of shape \(\), without a gradient; its distance",
        ),
    ],
)
def test_a_wrong_return_names_the_loss(wrong, message, bands):
    wrong.__name__ = "mine"
    terms = [(audiocnn.StyleLoss(), "conv_1", 1.0), (wrong, "conv_2", 1.0)]
    objective = audiocnn.Objective(bands, terms, style=sound(1))
    with pytest.raises(ValueError, match=rf"the loss 'mine conv_2' {message}"):
        objective.evaluate(sound(2))
    with pytest.raises(ValueError, match=rf"the loss 'mine conv_2' {message}"):
        objective(sound(2).requires_grad_())


def test_nan_names_the_loss_and_keeps_the_image(bands):
    def mine(features, target):
        return (features.mean() - features.mean()).sqrt() / 0

    objective = audiocnn.Objective(
        bands, [(audiocnn.StyleLoss(), "conv_1", 1.0), (mine, "conv_2", 1.0)], style=sound(1)
    )
    image = sound(2)
    with pytest.raises(FloatingPointError, match=r"step 1: the loss 'mine conv_2' is nan; .*step 0 is kept"):
        next(audiocnn.optimise(image, objective, num_steps=2))
    assert torch.equal(image, sound(2))


def test_a_loss_without_a_distance_says_so(bands):
    class Empty(audiocnn.Loss):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty has no distance\(features, target\); write one"):
        audiocnn.Objective(bands, [(Empty, "conv_1", 1.0)], style=sound(1)).evaluate(sound(2))


def test_networks_need_an_image_also_where_a_loss_compares_with_nothing(bands):
    with pytest.raises(
        ValueError, match=r"the mseloss loss at 'conv_1' compares with nothing.*give a style or a conten"
    ):
        audiocnn.Objective(bands, [(nn.MSELoss(), "conv_1", 1.0, None)])
    audiocnn.Objective(bands, [(audiocnn.BoundLoss(), "input", 1.0)])


def test_the_losses_of_an_image_have_full_names_and_the_gradient_of_their_sum(bands):
    """Of all networks side by side, weighted and not; evaluate adds them up under the layer's name."""
    style, content, image = sound(1), sound(3), sound(2)
    terms = [(audiocnn.StyleLoss(), "conv_1", 3.0), (audiocnn.ContentLoss(), "conv_2", 0.5)]
    terms += [(audiocnn.BoundLoss(), "input", 0.25)]
    objective = audiocnn.Objective(bands, terms, style=style, content=content)
    changed = (2 * image - 0.5).requires_grad_()
    found = objective(changed)
    plain = audiocnn.Objective(bands, [term[:2] for term in terms], style=style, content=content)(changed)
    names = ["style width_4.conv_1", "content width_4.conv_2", "style width_8.conv_1", "content width_8.conv_2"]
    assert list(found) == list(plain) == [*names, "bound input"]
    for name, weight in zip(found, (3, 0.5, 3, 0.5, 0.25), strict=True):
        assert found[name].item() == pytest.approx(weight * plain[name].item(), rel=1e-6) and plain[name].item() > 0
    (gradient,) = torch.autograd.grad(sum(found.values()), changed)
    losses_of_layers, expected = objective.evaluate(changed)
    assert list(losses_of_layers) == ["style conv_1", "content conv_2", "bound input"]
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)
    assert sum(map(float, losses_of_layers.values())) == pytest.approx(sum(found.values()).item(), rel=1e-6)
    both = found["style width_4.conv_1"] + found["style width_8.conv_1"]
    assert float(losses_of_layers["style conv_1"]) == pytest.approx(both.item(), rel=1e-6)
    grams = [each @ each.T / 64 for each in (first_layer(bands["width_8"], x[0][None]) for x in (changed, style))]
    expected = (grams[0] - grams[1]).square().mean().item()
    assert plain["style width_8.conv_1"].item() == pytest.approx(expected, rel=1e-4)
    without = objective(changed.detach())  # for a look alone, no gradient is needed
    assert [loss.item() for loss in without.values()] == pytest.approx([loss.item() for loss in found.values()])


def test_the_losses_of_one_network_and_of_a_circle(bands):
    """One network has no name in front; a circle has the same losses and gradient both ways."""
    image = sound(2)
    terms = [(audiocnn.DistributionLoss(), "conv_2", 1.0), (audiocnn.StyleLoss(), "conv_1", 1.0)]
    objective = audiocnn.Objective(bands["width_8"], terms, style=sound(1), loop=True)
    changed = image.clone().requires_grad_()
    found = objective(changed)
    assert list(found) == ["style conv_1", "style conv_2"]
    losses_of_layers, expected = objective.evaluate(image)
    (gradient,) = torch.autograd.grad(sum(found.values()), changed)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-8)
    assert [float(x) for x in losses_of_layers.values()] == pytest.approx([x.item() for x in found.values()], rel=1e-5)


@pytest.mark.parametrize("how", ["segments", "a mask"])
def test_the_losses_of_an_image_are_those_of_its_parts(how, bands):
    """Called, an objective sees the same segments, and the same places that may change, as evaluate does."""
    image, given = torch.cat([sound(2), sound(3), sound(4)], dim=3), dict(segment=50)
    if how == "a mask":
        analysis = Analysis(transform=STFT(sample_rate=8000, n_fft=64, hop_length=16), scaled=False)
        kept = np.zeros((image.shape[3] - 1) * 16, dtype=np.float32)
        given = dict(where=Where(analysis=analysis, kept=kept, change=lambda times, hertz: 1.0 * (times < 0.1)))
        image = image[:, :1].expand(-1, 33, -1, -1)
    style = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv2d(image.shape[1], 7, (1, 4), bias=False))
    terms = [(audiocnn.DistributionLoss(), "conv_1", 2.0), (audiocnn.BoundLoss(), "input", 0.3)]
    objective = audiocnn.Objective(network, terms, style=style, **given)
    changed = (2 * image).requires_grad_()
    found, (losses, expected) = objective(changed), objective.evaluate(changed)
    assert {name: float(loss) for name, loss in found.items()} == pytest.approx(
        {name: float(loss) for name, loss in losses.items()}, rel=1e-6
    )
    (gradient,) = torch.autograd.grad(sum(found.values()), changed)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-9)


def test_a_layer_of_one_network_alone(bands):
    """width_8.conv_2 is tapped in that network, and nowhere else."""
    style, start = sound(1), sound(2)
    terms = [(audiocnn.StyleLoss(), "width_8.conv_2", 2.0)]
    objective = audiocnn.Objective(bands, terms, style=style)
    found, gradient = objective.evaluate(start)
    alone, expected = audiocnn.Objective(
        bands["width_8"], [(audiocnn.StyleLoss(), "conv_2", 2.0)], style=style
    ).evaluate(start)
    assert list(found) == list(objective(start)) == ["style width_8.conv_2"]
    assert float(found["style width_8.conv_2"]) == pytest.approx(float(alone["style conv_2"]), rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-9)
    mixed = audiocnn.Objective(bands, [*terms, (audiocnn.StyleLoss(), "conv_1", 1.0)], style=style)
    names = ["style width_4.conv_1", "style width_8.conv_1", "style width_8.conv_2"]
    assert list(mixed(start)) == names and set(mixed.evaluate(start)[0]) == {"style conv_1", "style width_8.conv_2"}
    with pytest.raises(
        ValueError, match=r"no layer 'width_9.conv_2'; choose among conv_1, conv_2, width_4.*; or 'input'"
    ):
        audiocnn.Objective(bands, [(audiocnn.StyleLoss(), "width_9.conv_2", 2.0)], style=style)


def test_two_losses_of_one_name_are_refused(bands):
    """Two lambdas at one layer; and a layer of all networks that is one network's as well."""
    square = (lambda features, target: features.mean().square(), "conv_1", 1.0)
    style, layer = audiocnn.StyleLoss(), "conv_2"
    for terms in ([square, square], [(style, layer, 1.0), (style, f"width_8.{layer}", 1.0)]):
        with pytest.raises(ValueError, match=r"two losses have one name .*another kind, or a function another name"):
            audiocnn.Objective(bands, terms, style=sound(1))
    audiocnn.Objective(bands, [(style, layer, 1.0), (style, "conv_1", 1.0), square], style=sound(1))


def test_a_term_of_another_sound_is_refused(bands):
    with pytest.raises(ValueError, match="the distance_of_means loss at 'conv_1' needs a content; give one"):
        audiocnn.Objective(bands, [(distance_of_means, "conv_1", 1.0, "content")], style=sound(1))


def test_a_term_that_compares_with_an_unknown_sound_is_refused(bands):
    with pytest.raises(ValueError, match="compares='melody' is unknown; choose one of style, content"):
        audiocnn.Objective(bands, [audiocnn.Term(lambda features, target: features.mean(), "conv_1", 1.0, "melody")])


def test_one_instance_may_stand_in_many_terms(bands):
    """Its parameters are shared, its targets are not: each place has a target of its own."""
    loss, style, start = audiocnn.DistributionLoss(balance=0.3), sound(1), sound(2)
    both, _ = audiocnn.Objective(bands, [(loss, "conv_1", 1.0), (loss, "conv_2", 1.0)], style=style).evaluate(start)
    for layer in ("conv_1", "conv_2"):
        alone, _ = audiocnn.Objective(bands, [(loss, layer, 1.0)], style=style).evaluate(start)
        assert float(both[f"style {layer}"]) == pytest.approx(float(alone[f"style {layer}"]), rel=1e-6)
    assert loss == audiocnn.DistributionLoss(balance=0.3) and loss.overlap == 0


def test_no_terms_at_samples_in_an_objective(bands):
    terms = [(audiocnn.StyleLoss(), "conv_1", 1.0), (distance_of_means, "samples", 1.0)]
    found, _ = audiocnn.Objective(bands, terms, style=sound(1)).evaluate(sound(2))
    assert list(found) == ["style conv_1"]


STYLE = [(audiocnn.StyleLoss(), "conv_1", 1.0)]


def test_sounds_of_other_numbers_of_planes_are_named(bands):
    one, four = sound(1), sound(2).repeat(4, 1, 1, 1)
    both = [*STYLE, (audiocnn.ContentLoss(), "conv_1", 1.0)]
    with pytest.raises(ValueError, match=r"the content has the shape \(4, 20, 1, 64\), but .* 1 planes, as the first"):
        audiocnn.Objective(bands, both, style=one, content=four)
    with pytest.raises(ValueError, match=r"the style has the shape \(4, 20, 1, 64\), but .* 1 planes"):
        audiocnn.Objective(bands, STYLE, style=[one, four])
    with pytest.raises(ValueError, match=r"the style has the shape \(20, 64\), but"):
        audiocnn.Objective(bands, STYLE, style=one[0, :, 0])
    objective = audiocnn.Objective(bands, STYLE, style=one)
    for call in (objective, objective.evaluate, lambda image: list(audiocnn.optimise(image, objective, num_steps=1))):
        with pytest.raises(
            ValueError, match=r"the image has the shape \(4, 20, 1, 64\), .*; give each sound an Obj"
        ) as error:
            call(four.clone())
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_images_and_samples_of_few_digits_are_refused_with_the_reason(dtype, bands):
    one, objective = sound(1), audiocnn.Objective(bands, STYLE, style=sound(1))
    reason = rf"is of {dtype}, whose squares become 0 or infinite; give its .float\(\)"
    with pytest.raises(ValueError, match=f"the style {reason}"):
        audiocnn.Objective(bands, STYLE, style=one.to(dtype))
    for call in (objective, objective.evaluate):
        with pytest.raises(ValueError, match=f"{reason}"):
            call(one.to(dtype))
    with pytest.raises(ValueError, match=f"the tensor that is optimised {reason}"):
        objective.evaluate(one[0, :, 0].to(dtype), through=lambda rows: rows.float()[None, :, None])


def test_values_are_weighted_and_the_weights_are_known(bands):
    """A loss divided by its weight is the distance that the loss alone computes."""
    style, start = sound(1), sound(2)
    terms = [(distance_of_means, "conv_1", 7.0), (losses.DiversityLoss(length=16), "input", 0.25)]
    objective = audiocnn.Objective(bands, terms, style=style)
    values = {name: float(loss) / objective.weights[name] for name, loss in objective(start).items()}
    assert objective.weights == dict.fromkeys(objective.weights, 7.0) | {"diversity input": 0.25} and len(values) == 3
    for name, network in bands.items():
        means = first_layer(network, start).mean() - first_layer(network, style).mean()
        assert values[f"distance_of_means {name}.conv_1"] == pytest.approx(float(means.square()), rel=1e-4)
