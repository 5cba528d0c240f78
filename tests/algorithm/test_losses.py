"""Losses against computations that are written out here, and their gradients."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import audiocnn
from support import fast, losses, networks
from support.bands import band_networks
from support.layers import Tap, named_layers
from support.rhythm import RhythmLoss

BALANCED = audiocnn.DistributionLoss(balance=0.65)
KINDS = [audiocnn.StyleLoss(), audiocnn.DistributionLoss(), BALANCED, RhythmLoss(), losses.DiversityLoss()]


def distance_of(loss, x, *sounds, blend=(1.0,)):
    """The distance of features from the target that a loss makes of the features of sounds."""
    return loss.distance(x, loss.target(*sounds, blend=blend))


def styles_at(*layers):
    """Terms of StyleLoss with weight 1."""
    return [(audiocnn.StyleLoss(), layer, 1.0) for layer in layers]


def contents_at(*layers):
    """Terms of ContentLoss with weight 1."""
    return [(audiocnn.ContentLoss(), layer, 1.0) for layer in layers]


def features(channels, positions, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, channels, 1, positions, generator=generator, dtype=dtype)


def written_out_style_loss(x, style):
    grams = [np.einsum("chw,dhw->cd", f, f) / f[0].size for f in (x[0].numpy(), style[0].numpy())]
    return np.mean((grams[0] - grams[1]) ** 2)


@pytest.mark.parametrize("shape", [(1, 7, 1, 30), (1, 5, 6, 4), (1, 3, 1, 1)])
def test_gram_matrix(shape):
    x = torch.rand(shape, dtype=torch.float64)
    expected = np.einsum("chw,dhw->cd", x[0].numpy(), x[0].numpy()) / (shape[2] * shape[3])
    np.testing.assert_allclose(audiocnn.gram_matrix(x), expected, rtol=1e-12)


# On both sides of the switch between the two ways to compute the style loss, with equal and other lengths.
SIZES = [
    (200, 20, 20),
    (200, 20, 60),
    (200, 50, 50),
    (81, 20, 20),
    (80, 20, 20),
    (81, 10, 30),
    (30, 90, 40),
    (64, 64, 64),
    (8, 300, 300),
]


@pytest.mark.parametrize(("channels", "positions", "style_positions"), SIZES)
def test_style_loss(channels, positions, style_positions):
    x, style = features(channels, positions), features(channels, style_positions, seed=1)
    found = distance_of(audiocnn.StyleLoss(), x, style)
    assert float(found) == pytest.approx(written_out_style_loss(x, style), rel=1e-10)


@pytest.mark.parametrize(("channels", "positions", "style_positions"), SIZES)
@pytest.mark.parametrize("distance", [1.0, 1e-3, 1e-5])
def test_style_loss_in_float32_and_near_the_optimum(channels, positions, style_positions, distance):
    """Loss and gradient in float32 against plain autograd in float64, from far away to nearly solved."""
    repeats = -(-positions // style_positions)
    style = features(channels, style_positions, dtype=torch.float32)
    near = style.repeat(1, 1, 1, repeats)[..., :positions]
    if positions % style_positions:
        style = near
    x = (near + distance * features(channels, positions, seed=2, dtype=torch.float32)).requires_grad_()
    found = distance_of(audiocnn.StyleLoss(), x, style)
    (gradient,) = torch.autograd.grad(found, x)
    exact_x = x.detach().double().requires_grad_()
    grams = [torch.einsum("chw,dhw->cd", f[0], f[0]) / f[0, 0].numel() for f in (exact_x, style.double())]
    exact = (grams[0] - grams[1]).square().mean()
    (exact_gradient,) = torch.autograd.grad(exact, exact_x)
    assert float(found.detach()) == pytest.approx(float(exact.detach()), rel=2e-3)
    assert torch.norm(gradient - exact_gradient) < 5e-3 * torch.norm(exact_gradient)


@pytest.mark.parametrize(("channels", "positions", "style_positions"), [(40, 6, 8), (5, 9, 7)])
def test_gradients(channels, positions, style_positions):
    style, content = features(channels, style_positions, seed=1), features(channels, positions, seed=3)
    x = features(channels, positions).requires_grad_()

    for loss, sound in (
        (audiocnn.StyleLoss(), style),
        (audiocnn.ContentLoss(), content),
        (losses.FreeContentLoss(), content),
    ):
        target = loss.target(sound, blend=(1.0,))
        assert torch.autograd.gradcheck(functools.partial(loss.distance, target=target), x)


@pytest.mark.parametrize(("channels", "positions"), [(60, 20), (20, 60)])
def test_positions_may_be_mixed(channels, positions):
    """Any rotation of the positions leaves the Gram matrix as it is."""
    style = features(channels, positions)
    rotation = torch.linalg.qr(features(positions, positions, seed=1)[0, :, 0] - 0.5).Q
    assert float(distance_of(audiocnn.StyleLoss(), style @ rotation, style)) < 1e-12
    assert float(distance_of(audiocnn.StyleLoss(), 1.1 * style @ rotation, style)) > 1e-4


@pytest.mark.parametrize("loss", KINDS)
def test_planes_count_as_channels(loss):
    """Left, right, middle and side of a stereo sound are compared one by one, as so many more channels."""
    torch.manual_seed(0)
    style = torch.rand(4, 6, 1, 50)
    x = style[..., :40] + 0.1 * torch.rand(4, 6, 1, 40)
    channels = float(distance_of(loss, x.reshape(1, 24, 1, 40), style.reshape(1, 24, 1, 50)))
    assert float(distance_of(loss, x, style)) == pytest.approx(channels, rel=1e-5)
    assert float(distance_of(loss, x.flip(0), style)) != pytest.approx(channels, rel=1e-3)  # left is not right


GROUPS = 16
CONVOLUTIONS = [
    dict(kernel_size=(1, 4), padding="same"),
    dict(kernel_size=(1, 11), padding="same"),
    dict(kernel_size=(1, 11), padding="same", bias=False),
    dict(kernel_size=(1, 64), padding="same"),
    dict(kernel_size=(1, 11), padding="same", dilation=2),
    dict(kernel_size=(1, 11), padding="same", groups=2),
    dict(kernel_size=(1, 11), padding="same", padding_mode="circular"),
    dict(kernel_size=(1, 11), padding=(0, 5)),
    dict(kernel_size=(1, 11), stride=2),
    dict(kernel_size=1, groups=GROUPS, bias=False),
    dict(kernel_size=1, groups=GROUPS),
    dict(kernel_size=1, groups=GROUPS, bias=False, stride=2),
    dict(kernel_size=1, groups=GROUPS, bias=False, padding=(0, 1)),
    dict(kernel_size=1, groups=GROUPS // 2, bias=False),
]


@pytest.mark.parametrize("settings", CONVOLUTIONS)
@pytest.mark.parametrize("width", [66, 67, 500])
def test_convolutions_stay_what_they_are(settings, width):
    """However a convolution is computed, features and gradient equal PyTorch's in float64."""
    torch.manual_seed(width)
    conv = nn.Conv2d(16, GROUPS if "groups" in settings else 12, **settings)
    image, up = torch.rand(1, 16, 1, width, requires_grad=True), torch.rand(conv.out_channels, 1)
    found = Tap(nn.Sequential(conv), ["conv_1"], image.detach())(image)["conv_1"]
    conv.requires_grad_(False)
    exact_image = image.detach().double().requires_grad_()
    exact = conv.double()(exact_image)
    assert float((found - exact).detach().norm() / exact.detach().norm()) < 1e-5
    (gradient,) = torch.autograd.grad((up * found[0, :, 0].square()).sum(), image)
    (exact_gradient,) = torch.autograd.grad((up * exact[0, :, 0].square()).sum(), exact_image)
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < 1e-5


@pytest.mark.parametrize("planes", [1, 4])
@pytest.mark.parametrize(
    "settings",
    [
        dict(kernel_size=11, padding="same"),
        dict(kernel_size=(4, 6), padding="same"),
        dict(kernel_size=(3, 1), padding="same", bias=False),
        dict(kernel_size=5, padding="same", dilation=2),
        dict(kernel_size=5, padding="same", padding_mode="reflect"),
        dict(kernel_size=5, padding=2, stride=2),
    ],
)
def test_square_filters_stay_what_they_are(settings, planes):
    """However filters over a single plane are computed, features and gradient equal PyTorch's in float64."""
    torch.manual_seed(planes)
    conv = nn.Conv2d(1, 12, **settings)
    image = torch.rand(planes, 1, 31, 40, requires_grad=True)
    found = Tap(nn.Sequential(conv), ["conv_1"], image.detach())(image)["conv_1"]
    exact_image = image.detach().double().requires_grad_()
    exact = conv.requires_grad_(False).double()(exact_image)
    assert float((found - exact).detach().norm() / exact.detach().norm()) < 1e-5
    up = torch.rand_like(found)
    (gradient,) = torch.autograd.grad((up * found.square()).sum(), image)
    (exact_gradient,) = torch.autograd.grad((up * exact.square()).sum(), exact_image)
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < 1e-5


@pytest.mark.parametrize("height", [1, 3])
@pytest.mark.parametrize("filters", [5, 32, 75])
def test_banded_filters_stay_what_they_are(filters, height):
    """Features and gradient of filters that see a band, all channels or none equal PyTorch's in float64."""
    conv = band_networks(np.linspace(0, 11025, 120), widths=[1], filters=filters, pattern_share=1)["width_1"][0]
    conv.weight.data[-1] = 0
    conv.weight.data[:2, -1] = 1  # bands that end with the last channel
    image = torch.rand(1, 120, height, 40, generator=torch.Generator().manual_seed(filters)).requires_grad_()
    found, exact_image = fast.BandedConv(conv)(image), image.detach().double().requires_grad_()
    exact = conv.double()(exact_image)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(found.pow(3).sum(), image)
    (exact_gradient,) = torch.autograd.grad(exact.pow(3).sum(), exact_image)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-4, atol=1e-4)


def test_the_filters_of_the_default_are_banded_and_dense_ones_are_not():
    image = torch.rand(1, 257, 1, 80)
    bands = band_networks(np.linspace(0, 11025, 257), widths=[8], filters=160, pattern_share=0.8)["width_8"]
    for network, banded in [(bands, True), (nn.Sequential(nn.Conv2d(257, 160, 1, bias=False)), False)]:
        assert any(isinstance(layer, fast.BandedConv) for layer in Tap(network, ["conv_1"], image).modules()) is banded


def test_wide_filters_are_computed_fast_and_narrow_ones_plainly(image):
    network = nn.Sequential(nn.Conv2d(20, 6, (1, 11), padding="same"), nn.Conv2d(6, 6, (1, 3), padding="same"))
    kinds = [type(layer) for layer in Tap(network, ["conv_2"], image).modules()]
    assert fast.OverlapSaveConv in kinds and kinds.count(nn.Conv2d) == 1


def test_content_loss():
    x, content = features(4, 9), features(4, 9, seed=1)
    assert float(distance_of(audiocnn.ContentLoss(), x, content)) == pytest.approx(
        np.mean((x.numpy() - content.numpy()) ** 2), rel=1e-12
    )


def test_a_content_of_free_level_may_be_quieter():
    """Frame by frame: up to 2.1 times for nothing, beyond it as if multiplied by 2.1, louder for the full price."""
    content = features(4, 9, seed=1)
    gains = torch.tensor([1.0, 1 / 2, 1 / 2.1, 1 / 1.9, 0.9, 1.0, 1 / 2, 1 / 2.1, 0.7], dtype=torch.float64)
    free, same = (functools.partial(distance_of, loss()) for loss in (losses.FreeContentLoss, audiocnn.ContentLoss))
    assert float(free(gains * content, content)) < 1e-6 < float(same(gains * content, content))
    for gain, expected in ((1.5, 1.5), (2.0, 2.0), (0.1, 0.21), (0.2, 0.42)):
        found = float(free(gain * content, content))
        assert found == pytest.approx(float(same(expected * content, content)), rel=1e-2)
    x, target = features(4, 9).numpy(), content.numpy()
    x[..., :4] *= 0.4
    wanted = np.sqrt(np.sum(target**2, axis=(0, 1, 2)) / np.sum(x**2, axis=(0, 1, 2)))  # of each frame
    assert np.ptp(np.clip(wanted, 1, 3)) > 0.5
    for largest in (3.0, 1.5):
        expected = np.mean((x * np.clip(wanted, 1, largest) - target) ** 2)
        found = distance_of(losses.FreeContentLoss(largest_gain=largest), torch.from_numpy(x), content)
        assert float(found) == pytest.approx(expected, rel=1e-3)


def test_a_content_of_free_level_keeps_the_balance_of_planes_and_its_place():
    """The planes of stereo share one gain; a segment is compared with the content's frames of the same time."""
    content = torch.cat([features(4, 9, seed=seed) for seed in (1, 2)])
    loss = losses.FreeContentLoss()
    target = loss.target(content, blend=(1.0,))
    assert float(loss.distance(content / 2, target)) < 1e-6
    left_alone = content * torch.tensor([1.0, 0.5], dtype=torch.float64)[:, None, None, None]
    assert float(loss.distance(left_alone, target)) > 1e-2
    part = loss.cut(target, slice(3, 7))
    right, wrong = (float(loss.distance(content[..., first : first + 4] / 2, part)) for first in (3, 2))
    assert right < 1e-6 < wrong


def test_the_ends_of_a_content_of_free_level_count_as_much_as_its_middle():
    """A frame that is too loud costs the same at both ends and in the middle, for filters of equal taps."""
    network = nn.Sequential(nn.Conv2d(4, 3, (1, 8), bias=False)).double()
    network[0].weight.data[:] = torch.arange(1.0, 4.0)[:, None, None, None]
    content = features(4, 60, seed=1)
    terms = [(losses.FreeContentLoss(), "conv_1", 1.0)]
    costs = cost_of_louder_frames(audiocnn.Objective(network, terms, content=content), content, (0, 30, 59))
    assert costs == pytest.approx([costs[1]] * 3, rel=1e-6) and costs[1] > 1
    padded = nn.Sequential(nn.Conv2d(4, 3, (1, 8), padding="same", bias=False)).double()
    padded[0].weight.data[:] = network[0].weight.data
    costs = cost_of_louder_frames(audiocnn.Objective(padded, terms, content=content), content, (0, 30, 59))
    assert max(costs[0], costs[2]) < costs[1]  # all frames of a padded layer count alike


def cost_of_louder_frames(objective, content, frames):
    costs = []
    for frame in frames:
        louder = content.clone()
        louder[..., frame] += 2.0
        costs.append(float(objective.evaluate(louder)[0]["content conv_1"]))
    return costs


def test_a_silent_content_of_free_level_gives_finite_losses():
    silence = torch.zeros(1, 4, 1, 9)
    for content, result in ((silence, silence), (silence, silence + 1), (silence + 1, silence)):
        changed = result.clone().requires_grad_()
        found = distance_of(losses.FreeContentLoss(), changed, content)
        assert torch.isfinite(torch.autograd.grad(found, changed)[0]).all() and torch.isfinite(found)


def test_every_layer_of_the_network_can_be_tapped(parameters, image):
    network = networks.build_network(parameters)
    style = image.flip(3)[..., :48]
    layers = [layer for block in (network.layer1, network.layer2, network.layer3) for layer in block]
    x, y, content = image, style, image + 0.1
    for name, layer in zip(named_layers(network), layers, strict=False):  # without the classifier
        x, y, content = layer(x), layer(y), layer(content)
        terms = styles_at(name) + contents_at(name)
        found, gradient = audiocnn.Objective(network, terms, style=style, content=image + 0.1).evaluate(image)
        assert list(found) == [f"style {name}", f"content {name}"]
        expected = written_out_style_loss(x, y), float((x - content).square().mean())
        assert [float(loss) for loss in found.values()] == pytest.approx(expected, rel=1e-3, abs=1e-9)
        assert torch.isfinite(gradient).all() and gradient.any()
    assert not hasattr(network, "loss") and len(list(network.layer1.children())) == 4


def test_a_sound_is_at_no_distance_from_itself(parameters, image):
    terms = styles_at("relu_1", "pool_2") + contents_at("conv_2")
    found, _ = audiocnn.Objective(networks.build_network(parameters), terms, style=image, content=image).evaluate(image)
    assert list(found) == ["style relu_1", "content conv_2", "style pool_2"]  # in the order of the layers
    assert all(float(loss) < 1e-10 for loss in found.values())


def test_bad_layers(parameters, image):
    network = networks.build_network(parameters)

    def insert(terms, **images):
        return audiocnn.Objective(network, terms, style=image, **images)

    with pytest.raises(ValueError, match=r"style layers: there is no layer 'relu_4'; choose among conv_1, batchnorm_1"):
        insert(styles_at("relu_4"))
    with pytest.raises(ValueError, match=r"content layers: there is no layer 'relu1'; choose among"):
        insert(styles_at("relu_1") + contents_at("relu1"), content=image)
    with pytest.raises(ValueError, match=r"rhythm layers: there is no layer 'fc_1'; choose among"):
        insert([(RhythmLoss(), "fc_1", 1.0)])
    with pytest.raises(ValueError, match=r"the content loss at 'relu_3' needs a content; give one"):
        insert(styles_at("relu_1") + contents_at("relu_3"))
    with pytest.raises(ValueError, match=r"the style loss at 'relu_3' needs a style; give one"):
        audiocnn.Objective(network, styles_at("relu_3"), content=image)
    for twice in (styles_at("relu_1") * 2, [*styles_at("relu_1"), (audiocnn.DistributionLoss(), "relu_1", 2.0)]):
        with pytest.raises(ValueError, match="two losses have one name among style relu_1, style relu_1; give one"):
            insert(twice)
    with pytest.raises(
        ValueError, match="no variance; use a longer sound, or a layer before the one that takes the mean"
    ):
        audiocnn.Objective(torch.nn.AdaptiveAvgPool2d(1), [(audiocnn.DistributionLoss(), "pool_1")], style=image)
    for terms in ([], [(audiocnn.StyleLoss(), "relu_1", 0.0), (audiocnn.BoundLoss(), "input", 0)]):
        with pytest.raises(ValueError, match="there is no loss with a weight above 0, so nothing to optimise; give"):
            insert(terms)
    with pytest.raises(ValueError, match=r"layer pool_1.* can't take features of shape .*use a longer sound"):
        audiocnn.Objective(network, styles_at("pool_1"), style=image[..., :1])
    with pytest.raises(
        ValueError, match=r"the weight of the loss at 'relu_1'=-1 must be a finite number of at least 0"
    ):
        insert([(audiocnn.StyleLoss(), "relu_1", -1)])
    with pytest.raises(TypeError, match=r"the loss 'gram' at 'relu_1' must be a Loss, or a function of .features, tar"):
        insert([("gram", "relu_1", 1.0)])


def test_losses_on_the_image_itself(parameters, image):
    """The bound and the others: they need no network, and stand beside its losses."""
    network, x = networks.build_network(parameters), 3 * image - 1
    terms = [(audiocnn.BoundLoss(), "input", 0.5), (audiocnn.ContentLoss(), "input", 2.0)]
    outside = np.where(x < 0, x, np.where(x > 1, x - 1, 0)).astype(float)
    expected = {"bound input": 0.5 * np.sum(outside**2), "content input": 2 * np.mean((2 * image.numpy() - 1.0) ** 2)}
    for more, given in (([], network), ([], None), (styles_at("conv_1"), network)):
        found, gradient = audiocnn.Objective(given, terms + more, style=image, content=image).evaluate(x)
        assert set(found) == {*expected, *("style conv_1" for _ in more)}
        for name, value in expected.items():
            assert float(found[name]) == pytest.approx(value, rel=1e-5)
        if not more:
            slopes = 2 * 0.5 * outside + 2 * 2 * (2 * image.numpy() - 1) / image.numel()
            np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6)


def test_a_loss_of_ones_own(parameters, image):
    """A subclass needs a kind and a distance; it is named, weighted and inserted as the others are."""

    class Loudness(audiocnn.Loss):
        kind, compares = "loudness", "style"

        def target(self, *styles, blend):
            return sum(share * style.mean() for share, style in zip(blend, styles, strict=True))

        def distance(self, features, target):
            return (features.mean() - target).abs()

    network, styles = networks.build_network(parameters), [image, image + 1]
    objective = audiocnn.Objective(network, [(Loudness, "relu_1", 7.0)], style=styles, blend=[3, 1])
    means = [float(network.layer1[:3](x).mean()) for x in (*styles, image - 1)]
    found, _ = objective.evaluate(image - 1)
    expected = 7 * abs(means[2] - 0.75 * means[0] - 0.25 * means[1])
    assert list(found) == ["loudness relu_1"] and float(found["loudness relu_1"]) == pytest.approx(expected, rel=1e-4)


def side_by_side(n_bins=20):
    return band_networks(np.linspace(0, 8000, n_bins), widths=[1, 4], filters=6)


@pytest.mark.parametrize("n", [2, 7, 900, 5000])
@pytest.mark.parametrize("n_style", [7, 900, 5000])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("balance", [0, 0.65])
def test_distribution_loss_is_the_distance_of_quantiles(balance, n, n_style, ties):
    """Sorted values against the style's, at the same ranks; with any signs, zeros and ties. A long style is thinned.

    The variances of the channels differ by up to 10,000 times, and a channel below 1 % of the mean counts as 1 %.
    """
    rng = np.random.default_rng(n)
    values = np.array([-1e5, -1, -1e-40, -0.0, 0.0, 1e-30, 1, 2], dtype=np.float32)
    x, style = (
        rng.choice(values, (3, count))
        if ties
        else rng.permuted(np.tile(np.linspace(-3, 5, count, dtype=np.float32), (3, 1)), axis=1) ** power
        for count, power in ((n, 1), (n_style, 3))
    )
    style[:, 0] += 1
    style = style if ties else np.float32([[0.1], [1], [10]]) * style
    image = torch.from_numpy(x)[None, :, None].requires_grad_()
    loss = distance_of(audiocnn.DistributionLoss(balance=balance), image, torch.from_numpy(style)[None, :, None])

    def at_ranks(ordered, count):  # the middle of rank i of count is at (i + 0.5) / count of the whole
        ranks = (np.arange(count) + 0.5) / count * ordered.shape[1] - 0.5
        return np.stack([np.interp(ranks, np.arange(ordered.shape[1]), row) for row in ordered])

    thinned = at_ranks(np.sort(style.astype(np.float64), axis=1), min(n_style, audiocnn.N_QUANTILES))
    difference = np.sort(x.astype(np.float64), axis=1) - at_ranks(thinned, n)
    own = np.var(thinned, axis=1, ddof=1, keepdims=True)
    variance = np.maximum(own, 0.01 * own.mean()) ** balance * own.mean() ** (1 - balance)
    assert float(loss.detach()) == pytest.approx(np.mean(difference**2 / variance), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, image)
    expected = 2 * difference / difference.size / variance
    if not ties:
        found = np.take_along_axis(gradient.numpy()[0, :, 0], np.argsort(x, axis=1), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(gradient.numpy()[0, :, 0].sum(axis=1), expected.sum(axis=1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_distribution_loss_of_infinite_features_is_not_finite(bad):
    x, style = features(3, 20, dtype=torch.float32), features(3, 20, seed=1, dtype=torch.float32)
    x[0, 1, 0, 5] = bad
    assert not torch.isfinite(distance_of(audiocnn.DistributionLoss(), x, style))


def test_distribution_loss_is_scipys_wasserstein_distance_for_shifted_noise():
    """Values of one distribution are close whatever their number and order; a shift costs its square."""
    torch.manual_seed(0)
    style, same, longer = torch.randn(1, 1, 1, 4000), torch.randn(1, 1, 1, 4000), torch.randn(1, 1, 1, 9000)
    for x, expected in ((same, 0.0), (longer, 0.0), (longer + 3, 9.0)):
        assert float(distance_of(audiocnn.DistributionLoss(), x, style)) == pytest.approx(expected, abs=0.15)
    assert float(distance_of(audiocnn.DistributionLoss(), style[..., torch.randperm(4000)], style)) < 1e-10


def test_rhythm_loss_sees_periods_but_not_phases():
    time = torch.arange(400.0)
    pulses = [
        (torch.cos(2 * np.pi * (time + shift) / period) > 0.9).float()[None, None, None]
        for period, shift in ((40, 0), (40, 13), (29, 0))
    ]
    values = [float(distance_of(RhythmLoss(), x, pulses[0])) for x in pulses]
    assert values[0] < 1e-10 and values[1] < 0.05 and values[2] > 0.5


def test_diversity_loss_finds_a_copy_at_any_shift():
    """A copy costs, whole or in a part, wherever the copy stands; another sound costs nothing, nor does the reverse."""
    style, other = features(5, 600, dtype=torch.float32), features(5, 900, seed=1, dtype=torch.float32)
    loss = losses.DiversityLoss()
    target = loss.target(style, blend=(1.0,))
    copies = [style, style.roll(160, dims=3), torch.cat([other[..., :300], style], dim=3), 7 * style + 3]
    assert all(float(loss.distance(copy, target)) > 0.1 for copy in copies)
    assert float(loss.distance(copies[0], target)) == pytest.approx((1 - float(target.limit)) ** 2, rel=1e-3)
    for sound in (other, style.flip(3)):
        assert float(loss.distance(sound, target)) < 1e-3


def test_a_sound_may_repeat_as_much_as_its_style():
    """Calls at other times than the style's cost nothing; where the style has one call, more calls cost."""
    call = 20 * features(5, 60, seed=9, dtype=torch.float32)

    def with_calls(starts, seed):
        sound = features(5, 800, seed=seed, dtype=torch.float32)
        for start in starts:
            sound[..., start : start + 60] += call
        return sound

    often, once = with_calls(range(20, 700, 120), 1), with_calls([20], 1)
    result = with_calls(range(60, 700, 120), 2)
    cheap, dear = (float(distance_of(losses.DiversityLoss(), result, style)) for style in (often, once))
    assert 50 * cheap < dear


def test_the_gradient_of_the_diversity():
    style = features(3, 120)
    x = (style + 0.3 * features(3, 120, seed=1)).requires_grad_()
    loss = functools.partial(losses.DiversityLoss().distance, target=losses.DiversityLoss().target(style, blend=(1.0,)))
    assert loss(x).item() > 0.1 and torch.autograd.gradcheck(loss, x)


def test_the_limit_is_the_likeness_of_passages_that_do_not_overlap():
    """Against the correlations of all pairs of passages, written out."""
    style = features(3, 200)
    means = style.numpy()[0, :, 0].reshape(3, 50, 4).mean(axis=2)
    length = 50 // 4
    best = []
    for first in range(50 - length + 1):
        a = means[:, first : first + length]
        likeness = [0.0]
        for second in range(50 - length + 1):
            if abs(first - second) >= length:
                b = means[:, second : second + length]
                a_, b_ = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
                likeness.append((a_ * b_).sum() / np.sqrt((a_**2).sum() * (b_**2).sum()))
        best.append(max(likeness))
    make, other = losses.DiversityLoss().target, features(3, 200, seed=4)
    first, second = (float(make(sound, blend=(1.0,)).limit) for sound in (style, other))
    assert first == pytest.approx(np.mean(best), rel=1e-6)
    both = make(style, other, blend=(0.25, 0.75))
    assert float(both.limit) == pytest.approx(0.25 * first + 0.75 * second)


@pytest.mark.parametrize("shape", [(1, 5, 1, 3), (1, 5, 1, 30), (4, 5, 1, 100), (1, 1, 7, 100), (1, 5, 1, 9000)])
def test_diversity_of_any_shape_and_of_silence_is_finite(shape):
    style = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for target, start in ((style, style), (style, 0 * style), (0 * style, style), (style, style[..., :2])):
        changed = start.clone().requires_grad_()
        found = distance_of(losses.DiversityLoss(), changed, target)
        assert torch.isfinite(found) and torch.isfinite(torch.autograd.grad(found, changed)[0]).all()


@pytest.mark.parametrize("loss", KINDS[1:])
def test_gradients_of_the_others(loss):
    style, x = features(3, 14, seed=1), features(3, 11).requires_grad_()
    target = loss.target(style, blend=(1.0,))
    assert torch.autograd.gradcheck(functools.partial(loss.distance, target=target), x)


@pytest.mark.parametrize("shape", [(3, 40), (200, 12)])
def test_a_blend_of_styles_is_the_mean_of_their_statistics(shape):
    x, *styles = (features(shape[0], shape[1] + seed, seed=seed) for seed in range(3))
    grams = [torch.einsum("chw,dhw->cd", f[0], f[0]) / f[0, 0].numel() for f in (x, *styles)]
    loss = audiocnn.StyleLoss()
    target = loss.target(*styles, blend=(0.25, 0.75))
    expected = (grams[0] - 0.25 * grams[1] - 0.75 * grams[2]).square().mean()
    assert float(loss.distance(x, target)) == pytest.approx(float(expected), rel=1e-8)
    n = [len(f[0, 0, 0]) for f in styles]
    parts = [(share * sum(n) / m) ** 0.5 * f for share, m, f in zip((0.25, 0.75), n, styles, strict=True)]
    assert float(loss.distance(torch.cat(parts, -1), target)) < 1e-12  # these features have the blend's Gram matrix
    flat = [value + 1e-3 * (styles[0] - 0.5) for value in (0.0, 4.0)]
    near, far = (
        float(distance_of(audiocnn.DistributionLoss(), x, *flat, blend=(0.25, 0.75))) for x in (flat[0] + 3, flat[0])
    )
    assert near < 1e-6 * far  # the quantiles of the blend lie at 3, those of one sound at 0


def test_networks_side_by_side_and_weights_of_layers(image):
    bands, loss = side_by_side(), audiocnn.DistributionLoss()
    plain, weighted = (
        audiocnn.Objective(
            bands, [(loss, "conv_1", 1.0), (loss, "conv_2", weight)], style=[image, image + 1], blend=[1, 3]
        )
        for weight in (1.0, 10.0)
    )
    start = image + torch.rand_like(image)
    first, second = (objective.evaluate(start)[0] for objective in (plain, weighted))
    assert set(first) == set(second) == {"style conv_1", "style conv_2"}
    first, second = ({name: float(loss) for name, loss in each.items()} for each in (first, second))
    assert second["style conv_1"] == pytest.approx(first["style conv_1"])
    assert second["style conv_2"] == pytest.approx(10 * first["style conv_2"]) and first["style conv_2"] > 0


def test_bad_blends(parameters, image):
    network = networks.build_network(parameters)
    for blend in ([1], [1, -1], [1, 0], [1, 1, 1]):
        with pytest.raises(ValueError, match="must hold one positive share for each of the 2 styles"):
            audiocnn.Objective(network, styles_at("relu_1"), style=[image, image], blend=blend)
