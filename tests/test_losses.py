"""Losses against computations that are written out here, and their gradients."""

import numpy as np
import pytest
import torch
from torch import nn

import audiocnn
from support import losses, networks, pipeline
from support.settings import Settings

KINDS = [audiocnn.StyleLoss, audiocnn.DistributionLoss, audiocnn.BalancedLoss, losses.RhythmLoss, losses.DiversityLoss]


def styles_at(*layers):
    """Terms of StyleLoss with weight 1."""
    return [(audiocnn.StyleLoss, layer, 1.0) for layer in layers]


def contents_at(*layers):
    """Terms of ContentLoss with weight 1."""
    return [(audiocnn.ContentLoss, layer, 1.0) for layer in layers]


def chain_of(network, terms, **images):
    """The one chain of layers and losses of a single network."""
    model = audiocnn.insert_losses(network, terms, **images)
    assert list(model) == ["network"]
    return model["network"]


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
    loss = audiocnn.StyleLoss(style)
    assert loss(x) is x
    assert float(loss.loss) == pytest.approx(written_out_style_loss(x, style), rel=1e-10)


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
    loss = audiocnn.StyleLoss(style)
    loss(x)
    (gradient,) = torch.autograd.grad(loss.loss, x)
    exact_x = x.detach().double().requires_grad_()
    grams = [torch.einsum("chw,dhw->cd", f[0], f[0]) / f[0, 0].numel() for f in (exact_x, style.double())]
    exact = (grams[0] - grams[1]).square().mean()
    (exact_gradient,) = torch.autograd.grad(exact, exact_x)
    assert float(loss.loss.detach()) == pytest.approx(float(exact.detach()), rel=2e-3)
    assert torch.norm(gradient - exact_gradient) < 5e-3 * torch.norm(exact_gradient)


@pytest.mark.parametrize(("channels", "positions", "style_positions"), [(40, 6, 8), (5, 9, 7)])
def test_gradients(channels, positions, style_positions):
    style, content = features(channels, style_positions, seed=1), features(channels, positions, seed=3)
    x = features(channels, positions).requires_grad_()

    def run(layer):
        def loss(x):
            layer(x)
            return layer.loss

        return loss

    assert torch.autograd.gradcheck(run(audiocnn.StyleLoss(style)), x)
    assert torch.autograd.gradcheck(run(audiocnn.ContentLoss(content)), x)
    assert torch.autograd.gradcheck(run(losses.FreeContentLoss(content)), x)


@pytest.mark.parametrize(("channels", "positions"), [(60, 20), (20, 60)])
def test_positions_may_be_mixed(channels, positions):
    """Any rotation of the positions leaves the Gram matrix as it is."""
    style = features(channels, positions)
    rotation = torch.linalg.qr(features(positions, positions, seed=1)[0, :, 0] - 0.5).Q
    loss = audiocnn.StyleLoss(style)
    loss(style @ rotation)
    assert float(loss.loss) < 1e-12
    loss(1.1 * style @ rotation)
    assert float(loss.loss) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_planes_count_as_channels(kind):
    """Left, right, middle and side of a stereo sound are compared one by one, as so many more channels."""
    torch.manual_seed(0)
    style = torch.rand(4, 6, 1, 50)
    x = style[..., :40] + 0.1 * torch.rand(4, 6, 1, 40)
    planes, channels = kind(style), kind(style.reshape(1, 24, 1, 50))
    planes(x)
    channels(x.reshape(1, 24, 1, 40))
    assert float(planes.loss) == pytest.approx(float(channels.loss), rel=1e-5)
    planes(x.flip(0))  # left is not right
    assert float(planes.loss) != pytest.approx(float(channels.loss), rel=1e-3)


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
    found = chain_of(nn.Sequential(conv), styles_at("conv_1"), style=image.detach())(image)
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
    found = chain_of(nn.Sequential(conv), styles_at("conv_1"), style=image.detach())(image)
    exact_image = image.detach().double().requires_grad_()
    exact = conv.requires_grad_(False).double()(exact_image)
    assert float((found - exact).detach().norm() / exact.detach().norm()) < 1e-5
    up = torch.rand_like(found)
    (gradient,) = torch.autograd.grad((up * found.square()).sum(), image)
    (exact_gradient,) = torch.autograd.grad((up * exact.square()).sum(), exact_image)
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < 1e-5


def test_wide_filters_are_computed_fast_and_narrow_ones_plainly(image):
    network = nn.Sequential(nn.Conv2d(20, 6, (1, 11), padding="same"), nn.Conv2d(6, 6, (1, 3), padding="same"))
    chain = chain_of(network, styles_at("conv_2"), style=image)
    assert [isinstance(layer, nn.Conv2d) for layer in chain.children()][:2] == [False, True]


def test_content_loss():
    x, content = features(4, 9), features(4, 9, seed=1)
    loss = audiocnn.ContentLoss(content)
    assert loss(x) is x
    assert float(loss.loss) == pytest.approx(np.mean((x.numpy() - content.numpy()) ** 2), rel=1e-12)


def test_a_content_of_free_level_may_be_quieter():
    """Frame by frame: up to 3 times for nothing, beyond that as if multiplied by 3, and louder for the full price."""
    content = features(4, 9, seed=1)
    gains = torch.tensor([1.0, 1 / 2, 1 / 3, 1 / 2.9, 0.9, 1.0, 1 / 2, 1 / 3, 0.7], dtype=torch.float64)
    free, same = losses.FreeContentLoss(content), audiocnn.ContentLoss(content)
    assert float(free.distance(gains * content)) < 1e-6 < float(same.distance(gains * content))
    for gain, expected in ((1.5, 1.5), (2.0, 2.0), (0.1, 0.3), (0.2, 0.6)):
        assert float(free.distance(gain * content)) == pytest.approx(float(same.distance(expected * content)), rel=1e-2)
    x, target = features(4, 9).numpy(), content.numpy()
    x[..., :4] *= 0.4
    wanted = np.sqrt(np.sum(target**2, axis=(0, 1, 2)) / np.sum(x**2, axis=(0, 1, 2)))  # of each frame
    assert np.ptp(np.clip(wanted, 1, 3)) > 0.5
    expected = np.mean((x * np.clip(wanted, 1, 3) - target) ** 2)
    assert float(free.distance(torch.from_numpy(x))) == pytest.approx(expected, rel=1e-3)


def test_a_content_of_free_level_keeps_the_balance_of_planes_and_its_place():
    """The planes of stereo share one gain; a segment is compared with the content's frames of the same time."""
    content = torch.cat([features(4, 9, seed=seed) for seed in (1, 2)])
    loss = losses.FreeContentLoss(content)
    assert float(loss.distance(content / 2)) < 1e-6
    left_alone = content * torch.tensor([1.0, 0.5], dtype=torch.float64)[:, None, None, None]
    assert float(loss.distance(left_alone)) > 1e-2
    loss.first_frame = 3
    assert float(loss.distance(content[..., 3:7] / 2)) < 1e-6 < float(loss.distance(content[..., 2:6] / 2))


def test_the_ends_of_a_content_of_free_level_count_as_much_as_its_middle():
    """A frame that is too loud costs the same at both ends and in the middle, for filters of equal taps."""
    network = nn.Sequential(nn.Conv2d(4, 3, (1, 8), bias=False)).double()
    network[0].weight.data[:] = torch.arange(1.0, 4.0)[:, None, None, None]
    content = features(4, 60, seed=1)
    settings = Settings(CONTENT_FILENAME="a.wav")
    terms = [(losses.FreeContentLoss, "conv_1", 1.0)]
    model = pipeline.insert_losses(settings, {"style 1": content, "content": content}, network, terms)
    costs = []
    for frame in (0, 30, 59):
        louder = content.clone()
        louder[..., frame] += 2.0
        costs.append(float(audiocnn.evaluate(louder, model)[0]["content conv_1"]))
    assert costs == pytest.approx([costs[1]] * 3, rel=1e-6) and costs[1] > 1
    padded = nn.Sequential(nn.Conv2d(4, 3, (1, 8), padding="same", bias=False))
    model = pipeline.insert_losses(settings, {"style 1": content.float(), "content": content.float()}, padded, terms)
    (loss,) = [each for each in model["network"].children() if isinstance(each, losses.FreeContentLoss)]
    assert (loss.counts == 1).all()


def test_a_silent_content_of_free_level_gives_finite_losses():
    silence = torch.zeros(1, 4, 1, 9)
    for content, result in ((silence, silence), (silence, silence + 1), (silence + 1, silence)):
        changed = result.clone().requires_grad_()
        distance = losses.FreeContentLoss(content).distance(changed)
        assert torch.isfinite(torch.autograd.grad(distance, changed)[0]).all() and torch.isfinite(distance)


def test_every_layer_of_the_network_can_be_tapped(parameters, image):
    network = networks.build_network(parameters)
    style = image.flip(3)[..., :48]
    layers = [layer for block in (network.layer1, network.layer2, network.layer3) for layer in block]
    x, y = image, style
    for number, (name, layer) in enumerate(zip(audiocnn.named_layers(network), layers, strict=True), start=1):
        x, y = layer(x), layer(y)
        terms = styles_at(name) + contents_at(name)
        chain = chain_of(network, terms, style=style, content=image + 0.1)
        chain(image)
        parts = dict(chain.named_children())
        assert list(parts)[-3:] == [name, f"style {name}", f"content {name}"] and len(parts) == number + 2
        assert float(parts[f"style {name}"].loss) == pytest.approx(written_out_style_loss(x, y), rel=1e-3, abs=1e-12)
    assert not hasattr(network, "loss") and len(list(network.layer1.children())) == 4


def test_losses_are_transparent_and_the_rest_is_cut_off(parameters, image):
    network = networks.build_network(parameters)
    terms = styles_at("relu_1", "pool_2") + contents_at("conv_2")
    chain = chain_of(network, terms, style=image, content=image)
    assert list(dict(chain.named_children()))[-1] == "style pool_2"
    assert "conv_3" not in dict(chain.named_children())
    torch.testing.assert_close(chain(image), network.layer2(network.layer1(image)), rtol=1e-4, atol=1e-6)
    found = [layer.loss for layer in chain.children() if isinstance(layer, audiocnn.Loss)]
    assert len(found) == 3 and all(float(loss) < 1e-10 for loss in found)


def test_in_place_layers_do_not_spoil_a_tap(image):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(20, 6, (1, 3)), nn.ReLU(inplace=True))
    target = network[0](image).detach().clone() + 1
    terms = styles_at("conv_1") + contents_at("conv_1", "relu_1")
    chain = chain_of(network, terms, style=image, content=image)
    x = (image + 0.1).requires_grad_()
    found = chain.losses(x)
    assert set(found) == {"style conv_1", "content conv_1", "content relu_1"}
    sum(found.values()).backward()
    expected = (network[0](image + 0.1) - (target - 1)).square().mean()
    assert float(found["content conv_1"].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert network[1].inplace  # the user's network is left as it was


def test_bad_layers(parameters, image):
    network = networks.build_network(parameters)

    def insert(terms, **images):
        return audiocnn.insert_losses(network, terms, style=image, **images)

    with pytest.raises(ValueError, match=r"style layers: there is no layer 'relu_4'; choose among conv_1, batchnorm_1"):
        insert(styles_at("relu_4"))
    with pytest.raises(ValueError, match=r"content layers: there is no layer 'relu1'; choose among"):
        insert(styles_at("relu_1") + contents_at("relu1"), content=image)
    with pytest.raises(ValueError, match=r"rhythm layers: there is no layer 'fc_1'; choose among"):
        insert([(losses.RhythmLoss, "fc_1", 1.0)])
    with pytest.raises(ValueError, match=r"the content loss at 'relu_3' needs a content; give one"):
        insert(styles_at("relu_1") + contents_at("relu_3"))
    for twice in (styles_at("relu_1") * 2, [*styles_at("relu_1"), (audiocnn.DistributionLoss, "relu_1", 2.0)]):
        with pytest.raises(
            ValueError, match="two losses are called 'style relu_1'; leave one out, or give one's class"
        ):
            insert(twice)
    for terms in ([], [(audiocnn.StyleLoss, "relu_1", 0.0), (audiocnn.BoundLoss, "input", 0)]):
        with pytest.raises(ValueError, match="there is no loss with a weight above 0, so nothing to optimise; give"):
            insert(terms)
    with pytest.raises(ValueError, match=r"layer pool_1.* can't take features of shape .*use a longer sound"):
        audiocnn.insert_losses(network, styles_at("pool_1"), style=image[..., :1])


def test_losses_on_the_image_itself(parameters, image):
    """The bound and the others: they need no network, and stand beside its losses."""
    network, x = networks.build_network(parameters), 3 * image - 1
    terms = [(audiocnn.BoundLoss, "input", 0.5), (audiocnn.ContentLoss, "input", 2.0)]
    outside = np.where(x < 0, x, np.where(x > 1, x - 1, 0)).astype(float)
    expected = {"bound input": 0.5 * np.sum(outside**2), "content input": 2 * np.mean((2 * image.numpy() - 1.0) ** 2)}
    for more, chains in (([], ["input"]), (styles_at("conv_1"), ["network", "input"])):
        model = audiocnn.insert_losses(network, terms + more, style=image, content=image)
        assert list(model) == chains
        found, gradient = audiocnn.evaluate(x, model)
        assert set(found) - {"style conv_1"} == set(expected)
        for name, value in expected.items():
            assert float(found[name]) == pytest.approx(value, rel=1e-5)
        if not more:
            slopes = 2 * 0.5 * outside + 2 * 2 * (2 * image.numpy() - 1) / image.numel()
            np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6)


def test_a_loss_of_ones_own(parameters, image):
    """A subclass needs a kind and a distance; it is named, weighted and inserted as the others are."""

    class Loudness(audiocnn.Loss):
        kind, compares = "loudness", "style"

        def __init__(self, *styles, blend):
            super().__init__()
            self.target = sum(share * style.mean() for share, style in zip(blend, styles, strict=True))

        def distance(self, features):
            return (features.mean() - self.target).abs()

    network, styles = networks.build_network(parameters), [image, image + 1]
    terms = [(Loudness, "relu_1", 7.0)]
    model = audiocnn.insert_losses(network, terms, style=styles, blend=[3, 1])
    means = [float(network.layer1[:3](x).mean()) for x in (*styles, image - 1)]
    found, _ = audiocnn.evaluate(image - 1, model)
    expected = 7 * abs(means[2] - 0.75 * means[0] - 0.25 * means[1])
    assert list(found) == ["loudness relu_1"] and float(found["loudness relu_1"]) == pytest.approx(expected, rel=1e-4)


def side_by_side(n_bins=20):
    return audiocnn.band_networks(np.linspace(0, 8000, n_bins), widths=[1, 4], filters=6)


@pytest.mark.parametrize("n", [2, 7, 900, 5000])
@pytest.mark.parametrize("n_style", [7, 900, 5000])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("kind", "balance"), [(audiocnn.DistributionLoss, 0), (audiocnn.BalancedLoss, 0.65)])
def test_distribution_loss_is_the_distance_of_quantiles(kind, balance, n, n_style, ties):
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
    loss = kind(torch.from_numpy(style)[None, :, None])
    assert loss(image) is image

    def at_ranks(ordered, count):  # the middle of rank i of count is at (i + 0.5) / count of the whole
        ranks = (np.arange(count) + 0.5) / count * ordered.shape[1] - 0.5
        return np.stack([np.interp(ranks, np.arange(ordered.shape[1]), row) for row in ordered])

    thinned = at_ranks(np.sort(style.astype(np.float64), axis=1), min(n_style, audiocnn.N_QUANTILES))
    difference = np.sort(x.astype(np.float64), axis=1) - at_ranks(thinned, n)
    own = np.var(thinned, axis=1, ddof=1, keepdims=True)
    variance = np.maximum(own, 0.01 * own.mean()) ** balance * own.mean() ** (1 - balance)
    assert float(loss.loss.detach()) == pytest.approx(np.mean(difference**2 / variance), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss.loss, image)
    expected = 2 * difference / difference.size / variance
    if not ties:
        found = np.take_along_axis(gradient.numpy()[0, :, 0], np.argsort(x, axis=1), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(gradient.numpy()[0, :, 0].sum(axis=1), expected.sum(axis=1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_distribution_loss_of_infinite_features_is_not_finite(bad):
    x, style = features(3, 20, dtype=torch.float32), features(3, 20, seed=1, dtype=torch.float32)
    loss = audiocnn.DistributionLoss(style)
    x[0, 1, 0, 5] = bad
    loss(x)
    assert not torch.isfinite(loss.loss)


def test_distribution_loss_is_scipys_wasserstein_distance_for_shifted_noise():
    """Values of one distribution are close whatever their number and order; a shift costs its square."""
    torch.manual_seed(0)
    style, same, longer = torch.randn(1, 1, 1, 4000), torch.randn(1, 1, 1, 4000), torch.randn(1, 1, 1, 9000)
    loss = audiocnn.DistributionLoss(style)
    for x, expected in ((same, 0.0), (longer, 0.0), (longer + 3, 9.0)):
        loss(x)
        assert float(loss.loss) == pytest.approx(expected, abs=0.15)
    loss(style[..., torch.randperm(4000)])
    assert float(loss.loss) < 1e-10


def test_rhythm_loss_sees_periods_but_not_phases():
    time = torch.arange(400.0)
    pulses = [
        (torch.cos(2 * np.pi * (time + shift) / period) > 0.9).float()[None, None, None]
        for period, shift in ((40, 0), (40, 13), (29, 0))
    ]
    loss = losses.RhythmLoss(pulses[0])
    values = []
    for x in pulses:
        loss(x)
        values.append(float(loss.loss))
    assert values[0] < 1e-10 and values[1] < 0.05 and values[2] > 0.5


def test_diversity_loss_finds_a_copy_at_any_shift():
    """A copy costs, whole or in a part, wherever the copy stands; another sound costs nothing, nor does the reverse."""
    style, other = features(5, 600, dtype=torch.float32), features(5, 900, seed=1, dtype=torch.float32)
    loss = losses.DiversityLoss(style)
    copies = [style, style.roll(160, dims=3), torch.cat([other[..., :300], style], dim=3), 7 * style + 3]
    assert all(float(loss.distance(copy)) > 0.1 for copy in copies)
    assert float(loss.distance(copies[0])) == pytest.approx((1 - float(loss.limit)) ** 2, rel=1e-3)
    for sound in (other, style.flip(3)):
        assert float(loss.distance(sound)) < 1e-3


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
    assert 50 * float(losses.DiversityLoss(often).distance(result)) < float(losses.DiversityLoss(once).distance(result))


def test_the_gradient_of_the_diversity():
    style = features(3, 120)
    x = (style + 0.3 * features(3, 120, seed=1)).requires_grad_()
    loss = losses.DiversityLoss(style)
    assert loss.distance(x).item() > 0.1 and torch.autograd.gradcheck(loss.distance, x)


def test_the_limit_is_the_likeness_of_passages_that_do_not_overlap():
    """Against the correlations of all pairs of passages, written out."""
    style = features(3, 200)
    loss = losses.DiversityLoss(style)
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
    assert float(loss.limit) == pytest.approx(np.mean(best), rel=1e-6)
    both = losses.DiversityLoss(style, features(3, 200, seed=4), blend=(0.25, 0.75))
    assert float(both.limit) == pytest.approx(
        0.25 * float(loss.limit) + 0.75 * float(losses.DiversityLoss(features(3, 200, seed=4)).limit)
    )


@pytest.mark.parametrize("shape", [(1, 5, 1, 3), (1, 5, 1, 30), (4, 5, 1, 100), (1, 1, 7, 100), (1, 5, 1, 9000)])
def test_diversity_of_any_shape_and_of_silence_is_finite(shape):
    style = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for target, start in ((style, style), (style, 0 * style), (0 * style, style), (style, style[..., :2])):
        loss, changed = losses.DiversityLoss(target), start.clone().requires_grad_()
        distance = loss.distance(changed)
        assert torch.isfinite(distance) and torch.isfinite(torch.autograd.grad(distance, changed)[0]).all()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_gradients_of_the_others(kind):
    style, x = features(3, 14, seed=1), features(3, 11).requires_grad_()
    layer = kind(style)

    def loss(x):
        layer(x)
        return layer.loss

    assert torch.autograd.gradcheck(loss, x)


@pytest.mark.parametrize("shape", [(3, 40), (200, 12)])
def test_a_blend_of_styles_is_the_mean_of_their_statistics(shape):
    x, *styles = (features(shape[0], shape[1] + seed, seed=seed) for seed in range(3))
    grams = [torch.einsum("chw,dhw->cd", f[0], f[0]) / f[0, 0].numel() for f in (x, *styles)]
    loss = audiocnn.StyleLoss(*styles, blend=(0.25, 0.75))
    loss(x)
    expected = (grams[0] - 0.25 * grams[1] - 0.75 * grams[2]).square().mean()
    assert float(loss.loss) == pytest.approx(float(expected), rel=1e-8)
    n = [len(f[0, 0, 0]) for f in styles]
    loss(torch.cat([(share * sum(n) / m) ** 0.5 * f for share, m, f in zip((0.25, 0.75), n, styles, strict=True)], -1))
    assert float(loss.loss) < 1e-12  # these features have the blend's Gram matrix
    loss = audiocnn.DistributionLoss(*(0 * styles[0] + value for value in (0.0, 4.0)), blend=(0.25, 0.75))
    assert all(torch.all(target == 3) for target in loss.targets.values())


def test_networks_side_by_side_and_weights_of_layers(image):
    bands = side_by_side()
    plain, weighted = (
        audiocnn.insert_losses(
            bands,
            [(audiocnn.DistributionLoss, "conv_1", 1.0), (audiocnn.DistributionLoss, "conv_2", weight)],
            style=[image, image + 1],
            blend=[1, 3],
        )
        for weight in (1.0, 10.0)
    )
    start = image + torch.rand_like(image)
    first, second = (audiocnn.evaluate(start, model)[0] for model in (plain, weighted))
    assert set(first) == set(second) == {"style conv_1", "style conv_2"}
    first, second = ({name: float(loss) for name, loss in each.items()} for each in (first, second))
    assert second["style conv_1"] == pytest.approx(first["style conv_1"])
    assert second["style conv_2"] == pytest.approx(10 * first["style conv_2"]) and first["style conv_2"] > 0
    for model, ratio in ((plain, 1), (weighted, 10)):
        parts = dict(model["width_4"].named_children())
        assert parts["style conv_2"].weight == ratio
        assert list(parts) == ["conv_1", "style conv_1", "conv_2", "style conv_2"]


def test_bad_blends(parameters, image):
    network = networks.build_network(parameters)
    for blend in ([1], [1, -1], [1, 0], [1, 1, 1]):
        with pytest.raises(ValueError, match="must hold one positive share for each of the 2 styles"):
            audiocnn.insert_losses(network, styles_at("relu_1"), style=[image, image], blend=blend)
