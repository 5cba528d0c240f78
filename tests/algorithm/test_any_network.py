"""Networks of any kind, with random weights: each layer has a name, and its features are those of the network."""

import functools
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import audiocnn
from support import fast
from support.layers import Tap, features, layer_shapes, named_layers

CLOSE = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Vgg(nn.Sequential):
    """Two blocks of VGG-19: square filters, padding, in-place ReLU, max-pool."""

    def __init__(self):
        def conv(before, after):
            return nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)

        blocks = [
            (*conv(before, after), *conv(after, after), nn.MaxPool2d(2, 2)) for before, after in ((1, 8), (8, 12))
        ]
        super().__init__(*(layer for block in blocks for layer in block))


class Residual(nn.Module):
    """Two residual blocks, one with a projection, as in ResNet-18: functional ReLU, and sums in place."""

    def __init__(self):
        super().__init__()
        self.first, self.bn = nn.Conv2d(1, 8, (7, 3), stride=(2, 1), padding=(3, 1), bias=False), nn.BatchNorm2d(8)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in ((8, 8), (8, 8), (8, 12), (12, 12)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(each.out_channels) for each in self.convs)
        self.shortcut = nn.Conv2d(8, 12, 1)

    def forward(self, x):
        x = F.relu(self.bn(self.first(x)))
        y = self.norms[1](self.convs[1](F.relu(self.norms[0](self.convs[0](x)), inplace=True)))
        y += x
        x = F.relu(y, inplace=True)
        y = self.norms[3](self.convs[3](F.relu(self.norms[2](self.convs[2](x)), inplace=True)))
        return torch.relu_(y + self.shortcut(x))


class ConvBlock(nn.Module):
    """As in Cnn14: the way to pool is an argument."""

    def __init__(self, before, after):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)

    def forward(self, x, pool_size=(2, 2), pool_type="avg"):
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        if pool_type == "max":
            return F.max_pool2d(x, kernel_size=pool_size)
        return F.avg_pool2d(x, kernel_size=pool_size)


class Cnn14(nn.Module):
    """Two blocks of PANNs' Cnn14 and its head: functional dropout that looks at the mode, means and maxima."""

    def __init__(self):
        super().__init__()
        self.bn0, self.block1, self.block2 = nn.BatchNorm2d(24), ConvBlock(1, 8), ConvBlock(8, 12)
        self.fc1, self.fc = nn.Linear(12, 10), nn.Linear(10, 5)

    def forward(self, x, pool_size=(2, 2), mixup=None):
        x = self.bn0(x.transpose(1, 2)).transpose(1, 2)
        if self.training and mixup is not None:
            x = mixup * x
        x = self.block1(x, pool_size=pool_size, pool_type="avg")
        x = F.dropout(x, p=0.2, training=self.training)
        x = self.block2(x, pool_size=pool_size, pool_type="max")
        x = torch.mean(x, dim=2)
        x = torch.max(x, dim=2)[0] + torch.mean(x, dim=2)
        return torch.sigmoid(self.fc(F.relu_(self.fc1(F.dropout(x, p=0.5, training=self.training)))))


class Attention(nn.Module):
    """Patches, two layers of a transformer, and a linear head."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, (24, 4), stride=(24, 4))
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 6)

    def forward(self, x):
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)))


class Untraceable(Attention):
    """What it does depends on the numbers that it gets, which no graph can show."""

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        if x.abs().amax() > 1e3:
            x = x / x.abs().amax()
        x = self.encoder(x)
        x += 1.0  # overwrites what the encoder gave
        return self.head(x)


class Loudness(nn.Module):
    """A front end of one's own, without modules in it."""

    def forward(self, x):
        weights = torch.linspace(0.5, 2, x.shape[2], device=x.device, dtype=x.dtype)
        return (x.clamp_min(0) * weights[:, None] + 1e-3) ** 0.3


class Waveform(nn.Module):
    """Three axes: a network for rows of samples, here of spectrogram bins."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(24, 10, 5), nn.BatchNorm1d(10)
        self.down = nn.Conv1d(10, 12, 4, stride=2)

    def forward(self, x):
        return F.gelu(self.down(F.relu(self.norm(self.conv(x[:, 0])))))


NETWORKS = {
    Vgg: "conv_1 relu_1 conv_2 relu_2 pool_1 conv_3 relu_3 conv_4 relu_4 pool_2",
    Residual: "conv_1 batchnorm_1 relu_1 conv_2 batchnorm_2 relu_2 conv_3 batchnorm_3 add_1 relu_3 conv_4 batchnorm_4 "
    "relu_4 conv_5 batchnorm_5 conv_6 add_2 relu_5",
    Cnn14: "transpose_1 batchnorm_1 transpose_2 conv_1 batchnorm_2 relu_1 conv_2 batchnorm_3 relu_2 pool_1 dropout_1 "
    "conv_3 batchnorm_4 relu_3 conv_4 batchnorm_5 relu_4 pool_2 mean_1 max_1 mean_2 add_1 dropout_2 linear_1 relu_5 "
    "linear_2 sigmoid_1",
    Attention: "conv_1 flatten_1 transpose_1 transformerencoder_1 linear_1",
    Waveform: "conv_1 batchnorm_1 relu_1 conv_2 gelu_1",
}


def spectrogram(seed=0, n_frames=40):
    return torch.rand(1, 1, 24, n_frames, generator=torch.Generator().manual_seed(seed))


def check_gradient(network, layer, image):
    """A style loss at the layer gives a positive number, and a gradient that is finite and not zero."""
    objective = audiocnn.Objective(network, [(audiocnn.StyleLoss(), layer, 1.0)], style=image)
    found, gradient = objective.evaluate(image + 0.2 * torch.rand_like(image))
    assert list(found) == [f"style {layer}"] and float(found[f"style {layer}"]) > 0
    assert torch.isfinite(gradient).all() and gradient.any()


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_layer_has_a_name_and_gives_a_gradient(kind):
    network = kind()
    names = NETWORKS[kind].split()
    assert list(named_layers(network)) == names
    for name in names:
        check_gradient(network, name, spectrogram())


@pytest.mark.parametrize("kind", NETWORKS)
def test_features_are_those_of_the_network(kind):
    """The last layer is the network's output, and a layer alone gives the same as all layers at once."""
    network, image = kind().eval(), spectrogram()
    before, names = image.clone(), NETWORKS[kind].split()
    together = features(network, image, names)
    output = network(image.clone())
    last = together[names[-1]][:, :, 0]  # (planes, channels, positions)
    output = output.mT if kind is Attention else output
    torch.testing.assert_close(together[names[-1]] if output.ndim == 4 else last.reshape(output.shape), output, **CLOSE)
    assert torch.equal(image, before)
    shapes = layer_shapes(network, image)
    for name in names:
        alone = features(network, image, [name])[name]
        torch.testing.assert_close(alone, together[name], **CLOSE)
        assert alone.ndim == 4 and (name == "max_1" or sorted(alone.shape) == sorted(fill(shapes[name])))


def fill(shape):  # up to four axes
    return (*shape, *(1 for _ in range(4 - len(shape))))


def test_a_residual_network_by_hand():
    """Branches, sums in place and functional in-place ReLU: every tapped feature is what its step gave."""
    network, image = Residual().eval(), spectrogram()
    for norm in (network.bn, *network.norms):
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    found = features(network, image, NETWORKS[Residual].split())
    hand = {"conv_1": network.first(image)}
    hand["batchnorm_1"] = network.bn(hand["conv_1"])
    hand["relu_1"] = hand["batchnorm_1"].clamp_min(0)
    hand["batchnorm_2"] = network.norms[0](network.convs[0](hand["relu_1"]))
    hand["batchnorm_3"] = network.norms[1](network.convs[1](hand["batchnorm_2"].clamp_min(0)))
    hand["add_1"] = hand["batchnorm_3"] + hand["relu_1"]
    hand["relu_3"] = hand["add_1"].clamp_min(0)
    hand["batchnorm_5"] = network.norms[3](network.convs[3](network.norms[2](network.convs[2](hand["relu_3"])).relu()))
    hand["add_2"] = hand["batchnorm_5"] + network.shortcut(hand["relu_3"])
    hand["relu_5"] = hand["add_2"].clamp_min(0)
    for name, expected in hand.items():
        torch.testing.assert_close(found[name], expected, **CLOSE)


class Overwriting(nn.Module):
    """All ways to overwrite a tensor, also the image, and a step whose result is not used."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x):
        x -= 0.5
        x = self.conv(x)
        x.mul_(3.0)
        F.elu_(x)
        y = self.act(x)  # x as well
        y = y + F.hardtanh(x, -0.5, 0.5, True)  # both again
        y += 1.0
        return F.relu(y, inplace=True) - x


def test_no_step_overwrites_a_tapped_feature_or_the_image():
    network, image = Overwriting(), spectrogram()
    before, names = image.clone(), list(named_layers(network))
    assert names == [
        "sub_1",
        "conv_1",
        "mul_1",
        "elu_1",
        "leakyrelu_1",
        "hardtanh_1",
        "add_1",
        "add_2",
        "relu_1",
        "sub_2",
    ]
    found = features(network, image, names)
    assert torch.equal(image, before)
    hand = {"sub_1": image - 0.5}
    hand["conv_1"] = network.conv(hand["sub_1"])
    hand["mul_1"] = 3 * hand["conv_1"]
    hand["elu_1"] = torch.where(hand["mul_1"] > 0, hand["mul_1"], hand["mul_1"].exp() - 1)
    hand["leakyrelu_1"] = torch.where(hand["elu_1"] > 0, hand["elu_1"], 0.1 * hand["elu_1"])
    hand["hardtanh_1"] = hand["leakyrelu_1"].clamp(-0.5, 0.5)
    for name, expected in hand.items():
        torch.testing.assert_close(found[name], expected, **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(found["sub_2"], network(image.clone()), **CLOSE)
    for name in names:
        check_gradient(network, name, image)


def test_an_in_place_module_does_not_spoil_a_loss_before_it(image):
    network = nn.Sequential(nn.Conv2d(20, 6, (1, 3)), nn.ReLU(inplace=True))
    terms = [(audiocnn.StyleLoss(), "conv_1", 1.0)]
    terms += [(audiocnn.ContentLoss(), layer, 1.0) for layer in ("conv_1", "relu_1")]
    objective = audiocnn.Objective(network, terms, style=image, content=image)
    found = objective((image + 0.1).requires_grad_())
    assert list(found) == ["style conv_1", "content conv_1", "content relu_1"]
    sum(found.values()).backward()
    expected = (network[0](image + 0.1) - network[0](image)).square().mean()
    assert float(found["content conv_1"].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert network[1].inplace  # the user's network is left as it was


def test_a_network_that_no_graph_can_show_is_tapped_by_its_submodules():
    network, image = Untraceable().eval(), spectrogram()
    names = list(named_layers(network))
    with pytest.warns(UserWarning, match=r"Untraceable can't be traced .*its submodules' own names, such as patches"):
        features(network, image, ["patches"])
    assert {"patches", "encoder", "encoder.layers.0", "encoder.layers.1.linear2", "head"} < set(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("patches", "encoder.layers.0", "encoder.layers.0.linear1", "encoder", "head"):
            check_gradient(network, name, image)
        found = features(network, image, ["head", "encoder", "encoder.layers.1"])
        shapes = layer_shapes(network, image)
        with pytest.raises(ValueError, match=r"there is no layer 'conv_1'; choose among patches, encoder"):
            features(network, image, ["conv_1"])
        with pytest.raises(ValueError, match=r"layer 'encoder.layers' gives NoneType .*which the network calls"):
            features(network, image, ["encoder.layers"])
    encoded = network.encoder(network.patches(image).flatten(2).mT)
    torch.testing.assert_close(found["encoder"][:, :, 0], encoded.mT, **CLOSE)  # channels in front
    torch.testing.assert_close(found["encoder.layers.1"], found["encoder"], **CLOSE)
    torch.testing.assert_close(found["head"][:, :, 0].mT, network.head(encoded + 1), **CLOSE)
    assert shapes["patches"] == (1, 16, 1, 10) and shapes["encoder"] == (1, 10, 16) and shapes["head"] == (1, 10, 6)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_that_no_graph_can_show_may_overwrite_its_image():
    class Centred(Untraceable):
        def forward(self, x):
            x -= x.mean()
            return super().forward(x)

    image = spectrogram()
    before = image.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_gradient(Centred(), "head", image)
    assert torch.equal(image, before)


def test_an_own_module_as_the_first_layer():
    """It is a layer of its own, and the layers after it see what it gives."""
    network = nn.Sequential(Loudness(), nn.Conv2d(1, 6, (24, 3)), nn.ReLU())
    image = spectrogram()
    assert list(named_layers(network)) == ["loudness_1", "conv_1", "relu_1"]
    found = features(network, image, ["loudness_1", "relu_1"])
    weights = torch.linspace(0.5, 2, 24)[:, None]
    torch.testing.assert_close(found["loudness_1"], (weights * image + 1e-3).pow(0.3), **CLOSE)
    torch.testing.assert_close(found["relu_1"], network(image), **CLOSE)
    check_gradient(network, "loudness_1", image + 0.01)
    check_gradient(network, "relu_1", image + 0.01)
    assert layer_shapes(network, image)["loudness_1"] == (1, 1, 24, 40)


def test_the_network_alone_may_be_one_module(image):
    assert list(named_layers(Loudness())) == ["loudness_1"]
    assert list(named_layers(nn.Conv2d(20, 3, 1))) == ["conv_1"]
    check_gradient(nn.Conv2d(20, 3, 1), "conv_1", image)


def test_a_module_that_is_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, (1, 11), padding="same")  # wide, so that a faster one could take its place

        def forward(self, x):
            return self.conv(self.conv(x))

    network, image = Twice(), torch.rand(1, 4, 1, 50)
    assert list(named_layers(network)) == ["conv_1", "conv_2"]
    found = features(network, image, ["conv_2", "conv_1"])
    torch.testing.assert_close(found["conv_1"], network.conv(image), **CLOSE)
    torch.testing.assert_close(found["conv_2"], network(image), **CLOSE)
    for name in ("conv_1", "conv_2"):
        check_gradient(network, name, image)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_and_batch_norm_are_in_eval_mode_and_the_network_keeps_its_own(traced, training):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5)
            self.last = nn.ReLU()

        def forward(self, x):
            x = self.drop(self.norm(self.conv(x)))
            if not traced and x.sum() > 1e6:
                x = x / 2
            return self.last(F.dropout(x, 0.5, self.training))

    network, image = Noisy(), spectrogram()
    network.norm.running_mean += 0.3
    network.drop.train(training)
    network.norm.train(not training)  # a mixture stays a mixture
    modes = {name: module.training for name, module in network.named_modules()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = "relu_1" if traced else "last"
        tap = Tap(network, [layer], image)
        found = tap(image)[layer]
        check_gradient(network, layer, image)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(weight.requires_grad for weight in network.parameters())
    assert not any(weight.requires_grad for weight in tap.parameters())
    torch.testing.assert_close(found, network.eval()(image), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", [Vgg, Residual, Untraceable])
def test_weights_take_the_precision_of_the_image(kind, dtype):
    """Half of it would lose quiet sounds; and a network in float64 takes an image in float32."""
    network, image = kind().eval(), spectrogram()
    layer = {Vgg: "conv_4", Residual: "relu_5", Untraceable: "head"}[kind]
    rounded = {name: value.to(dtype).to(value.dtype) for name, value in network.state_dict().items()}
    network.load_state_dict(rounded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = features(network, image, [layer])[layer]
        found = features(network.to(dtype), image, [layer])[layer]
        exact = features(network, image.double(), [layer])[layer]
    assert found.dtype == torch.float32 and exact.dtype == torch.float64
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.double(), exact, **CLOSE)
    assert next(network.parameters()).dtype == dtype


class Counted(nn.Module):
    """A layer that counts its calls, also those of its copies."""

    calls = 0

    def forward(self, x):
        Counted.calls += 1
        return 2 * x


@pytest.mark.parametrize("traced", [True, False])
def test_nothing_is_computed_after_the_last_loss(traced, image, monkeypatch):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.later = nn.Conv2d(20, 4, 1), nn.ReLU(), Counted()

        def forward(self, x):
            x = self.act(self.first(x))
            if not traced and x.sum() < 0:
                return x
            return self.later(x)

    monkeypatch.setattr(Counted, "calls", 0)
    before, last = ("relu_1", "counted_1") if traced else ("act", "later")
    terms = [(audiocnn.StyleLoss(), name, 1.0) for name in ("conv_1" if traced else "first", before)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        objective = audiocnn.Objective(Network(), terms, style=image)
        objective.evaluate(image)
        assert Counted.calls == 0
        terms += [(audiocnn.StyleLoss(), last, 1.0)]
        objective = audiocnn.Objective(Network(), terms, style=image)
    seen = Counted.calls
    objective.evaluate(image)
    assert Counted.calls == seen + 1


def test_only_the_branch_of_a_loss_is_computed(monkeypatch):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.other = nn.Conv2d(1, 3, 3), Counted()

        def forward(self, x):
            y = self.other(x)
            return self.conv(x), y

    monkeypatch.setattr(Counted, "calls", 0)
    check_gradient(Branches(), "conv_1", spectrogram())
    assert Counted.calls == 0


def test_features_of_three_axes_are_channels_and_positions():
    """A Gram matrix of three axes, written out; and segments, which see the same frames as the whole."""
    network, style, start = Waveform().eval(), spectrogram(1, 300), spectrogram(2, 300)
    terms = [(audiocnn.StyleLoss(), "relu_1", 3.0), (audiocnn.ContentLoss(), "conv_1", 1.0)]
    found, _ = audiocnn.Objective(network, terms, style=style, content=style).evaluate(start)

    def layers(x):
        conv = network.conv(x[:, 0])
        return conv, network.norm(conv).relu()

    grams = [torch.einsum("act,adt->cd", relu, relu) / relu.shape[2] for _, relu in (layers(start), layers(style))]
    expected = 3 * (grams[0] - grams[1]).square().mean()
    assert float(found["style relu_1"]) == pytest.approx(expected.item(), rel=1e-3)
    expected = (layers(start)[0] - layers(style)[0]).square().mean()
    assert float(found["content conv_1"]) == pytest.approx(expected.item(), rel=1e-4)
    content = [(audiocnn.ContentLoss(), "conv_1", 1.0)]
    whole, parts = (audiocnn.Objective(network, content, content=style, segment=n).evaluate(start) for n in (None, 74))
    assert float(parts[0]["content conv_1"]) == pytest.approx(float(whole[0]["content conv_1"]), rel=1e-4)
    assert (parts[1] - whole[1]).norm() < 1e-4 * whole[1].norm()  # four segments of 74 frames


def test_circles_of_three_axes():
    """In a loop, a padded convolution sees the other end: a turned circle has the same losses."""
    network = nn.Sequential(nn.Flatten(1, 2), nn.Conv1d(24, 6, 5, padding=2), nn.ReLU())
    style, circle = spectrogram(1), spectrogram(2)
    objective = audiocnn.Objective(network, [(audiocnn.StyleLoss(), "relu_1", 1.0)], style=style, loop=True)

    def value(frames):
        return float(objective.evaluate(torch.cat([frames, frames[..., :1]], dim=3))[0]["style relu_1"])

    assert value(circle.roll(17, dims=3)) == pytest.approx(value(circle), rel=1e-4)
    assert network[1].padding_mode == "zeros"


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
def test_convolutions_whose_weight_is_computed(norm, image):
    network = nn.Sequential(norm(nn.Conv2d(20, 6, (1, 11), padding="same")), nn.ReLU())
    found = features(network, image, ["relu_1"])["relu_1"]
    check_gradient(network, "relu_1", image)
    with torch.no_grad():
        for name, weight in network[0].named_parameters():
            weight.mul_(2 if name.endswith("g") else 1)  # later changes don't reach a copy
        torch.testing.assert_close(features(network, image, ["conv_1"])["conv_1"], network.eval()[0](image), **CLOSE)
    assert found.shape == (1, 6, 1, 64)


def test_faster_layers_take_the_place_of_those_in_any_network():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = nn.ModuleList(nn.Conv2d(20, 6, (1, n), padding="same") for n in (11, 21))

        def forward(self, x):
            return functools.reduce(torch.add, (branch(x) for branch in self.branches))

    network, image = Wide(), torch.rand(1, 20, 1, 90)
    tap = Tap(network, ["add_1"], image)
    assert sum(isinstance(layer, fast.OverlapSaveConv) for layer in tap.modules()) == 2
    torch.testing.assert_close(tap(image)["add_1"], network(image), **CLOSE)


def chain(seed, *, shift=0.0, kind="plain"):
    """Convolutions, of which a kind does something between them that its printed form does not show."""
    torch.manual_seed(seed)
    first, last = nn.Conv2d(8, 6, (1, 11), padding="same"), nn.Conv2d(6, 4, (1, 3))
    if kind == "a traced module":
        first = torch.fx.symbolic_trace(first)
        node = next(node for node in first.graph.nodes if node.op == "output")
        with first.graph.inserting_before(node):
            node.args = (first.graph.call_function(torch.add, (node.args[0], shift)),)
        first.recompile()
    network = nn.Sequential(nn.Sequential(first, nn.ReLU()), last)
    if kind == "a hook":
        network[0].register_forward_hook(lambda module, inputs, output: output + shift)
    if kind == "another forward":
        network[0].forward = lambda image: torch.relu(first(image)) + shift
    return network


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("kind", ["plain", "a traced module", "a hook", "another forward"])
def test_a_new_draw_gives_what_a_new_objective_gives(kind, loop):
    """Networks that look alike, of which some do something else."""
    image, style = torch.rand(2, 1, 8, 1, 60, generator=torch.Generator().manual_seed(0))
    terms = [(audiocnn.StyleLoss(), "conv_2", 1.0), (audiocnn.DistributionLoss(), "relu_1", 1.0)]

    def networks(draw):
        return chain(draw, shift=float(draw), kind=kind)

    how = dict(style=style, loop=loop)
    objective = audiocnn.Objective(networks, terms, **how)
    for draw in (1, 2):
        objective.draw(draw)
        (losses, gradient), (expected, slope) = (
            each.evaluate(image) for each in (objective, audiocnn.Objective(networks(draw), terms, **how))
        )
        assert losses.keys() == expected.keys()
        torch.testing.assert_close(list(losses.values()), list(expected.values()), rtol=1e-4, atol=0)
        torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-3 * slope.abs().max().item())


def test_networks_whose_layers_are_functions_alone_are_drawn_again():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Identity()

        def forward(self, image):
            return image - 0.5

    image = torch.rand(1, 8, 1, 60)
    objective = audiocnn.Objective(lambda draw: Shifted(), [(audiocnn.StyleLoss(), "sub_1", 1.0)], style=image)
    objective.draw(1)
    assert float(objective(image)["style sub_1"]) == pytest.approx(0, abs=1e-6)


def test_features_of_a_network_for_images_of_one_width():
    network, image = nn.Sequential(nn.Conv2d(1, 4, 3, padding="same"), nn.Linear(20, 6)), torch.rand(1, 1, 8, 20)
    found = features(network, image, ["linear_1"])["linear_1"]
    torch.testing.assert_close(found, network(image), **CLOSE)


def test_convolutions_of_three_axes_are_drawn_again():
    """They take the place of no faster ones, which need four axes."""
    image = torch.rand(1, 1, 7, 60)

    def networks(draw):
        torch.manual_seed(draw)
        return nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(1, 4, (1, 11), padding="same"))

    objective = audiocnn.Objective(networks, [(audiocnn.StyleLoss(), "conv_1", 1.0)], style=image)
    objective.draw(1)
    expected = audiocnn.Objective(networks(1), [(audiocnn.StyleLoss(), "conv_1", 1.0)], style=image)
    assert float(objective(image + 1)["style conv_1"]) == pytest.approx(float(expected(image + 1)["style conv_1"]))


def with_norm():
    return nn.Sequential(OrderedDict(first=nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(3), act=nn.ReLU()))


def spoilt(name, value):
    """A network of which one number is another one."""
    network = with_norm()
    with torch.no_grad():
        network.state_dict()[name].view(-1)[0] = value
    return network


UNUSABLE = {
    "NaN": (lambda: spoilt("first.weight", torch.nan), "first.weight holds NaN or infinite values"),
    "infinite": (lambda: spoilt("norm.bias", -torch.inf), "norm.bias holds NaN or infinite values"),
    "mean": (lambda: spoilt("norm.running_mean", torch.nan), "norm.running_mean holds NaN"),
    "variance": (lambda: spoilt("norm.running_var", -1e-3), "norm.running_var, a variance, holds values below 0"),
    "meta": (lambda: with_norm().to("meta"), "first.weight has no values, only a shape; load its weights first"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(3, 3)), "0.weight has no shape yet; call the network with an image"),
    "compiled": (lambda: torch.jit.script(with_norm()), "compiled by torch.jit, .*; give the network that it was"),
    "traced": (lambda: torch.jit.trace(with_norm().eval(), torch.ones(1, 2, 8, 8)), "compiled by torch.jit"),
    "one of two": (
        lambda: nn.ModuleDict({"a": with_norm(), "b": spoilt("first.bias", torch.inf)}),
        "first.bias holds NaN",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_network_that_can_not_be_used_is_named_before_the_work_begins(name):
    """By its layer, when its layers are listed and when an objective is made, and not by a loss that is NaN."""
    make, reason = UNUSABLE[name]
    with warnings.catch_warnings(action="ignore"):
        network, image = make(), torch.rand(1, 2, 8, 8)
    terms = [(audiocnn.StyleLoss(), "conv_1", 1.0)]
    for use in (
        lambda: named_layers(network),
        lambda: layer_shapes(network, image),
        lambda: features(network, image, ["conv_1"]),
        lambda: audiocnn.Objective(network, terms, style=image),
    ):
        with pytest.raises(ValueError, match=reason) as error:
            use()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda net: nn.DataParallel(torch.compile(net))])
def test_a_network_in_a_wrapper_has_the_layers_inside(wrap):
    network, image = with_norm().eval(), torch.rand(1, 2, 8, 8)
    assert named_layers(wrap(network)) == named_layers(network)
    found = features(wrap(network), image, ["relu_1"])["relu_1"]
    torch.testing.assert_close(found, network(image))
    assert named_layers(nn.ModuleDict({"a": wrap(network)})) == named_layers(nn.ModuleDict({"a": network}))


def test_a_mask_of_minus_infinity_is_not_a_fault():
    network = with_norm()
    network.register_buffer("mask", torch.full((3,), -torch.inf))
    assert "conv_1" in named_layers(network)
