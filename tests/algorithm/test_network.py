"""The network, its files, and the names of its layers."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

import audiocnn
from support import layers, networks
from support.bands import band_networks

KINDS = ("conv", "batchnorm", "relu", "pool")
NAMES = [f"{kind}_{block}" for block in (1, 2, 3) for kind in KINDS] + ["flatten_1", "linear_1"]


@pytest.mark.parametrize(
    ("orientation", "image", "pooled"),
    [("freq", (1, 513, 1, 100), (1, 12)), ("time", (1, 100, 1, 513), (1, 64)), ("2D", (1, 1, 65, 100), (8, 12))],
)
def test_shapes_in_every_orientation(orientation, image, pooled, parameters):
    parameters |= dict(orientation=orientation, in_channels=image[1], in_height=image[2], in_width=image[3])
    network = networks.build_network(parameters)
    shapes = layers.layer_shapes(network, torch.rand(image))
    assert list(shapes) == list(layers.named_layers(network)) == NAMES
    assert shapes["relu_1"] == (1, 12, *image[2:])
    assert shapes["pool_3"] == (1, 6, *pooled) and shapes["linear_1"] == (1, 5)
    assert network(torch.rand(image)).shape == (1, 5)
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())


def test_state_dict_keys_are_those_of_existing_files(parameters):
    """The keys and shapes that a network with four Sequential(conv, batchnorm, relu, pool) blocks saves."""
    shapes = {name: tuple(value.shape) for name, value in audiocnn.CNN(parameters).state_dict().items()}
    assert shapes["layer1.0.weight"] == (12, 20, 1, 11) and shapes["layer3.0.bias"] == (6,)
    assert shapes["layer2.1.running_mean"] == (8,) and shapes["fc.weight"] == (5, 6 * 8)
    assert {name.split(".")[0] for name in shapes} == {"layer1", "layer2", "layer3", "fc"}


def test_the_first_block_is_its_formula(parameters, image):
    network = networks.build_network(parameters)
    network.layer1[1].running_mean += 0.1
    x, weight, bias = image[0, :, 0].numpy(), network.layer1[0].weight[:, :, 0].numpy(), network.layer1[0].bias.numpy()
    padded = np.pad(x, ((0, 0), (5, 5)))
    conv = np.stack([np.tensordot(weight, padded[:, t : t + 11]) for t in range(64)], axis=1) + bias[:, None]
    expected = np.maximum((conv - 0.1) / np.sqrt(1 + 1e-5), 0).reshape(12, 32, 2).max(axis=2)
    np.testing.assert_allclose(network.layer1(image)[0, :, 0], expected, rtol=1e-4, atol=1e-5)


def test_seed_of_random_weights(parameters):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    weights = [networks.build_network(parameters, seed=seed).layer1[0].weight for seed in (3, 3, 4)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(state, torch.get_rng_state())


def test_pair_of_files_loads(tmp_path, parameters, image):
    saved = audiocnn.CNN(parameters)
    saved.layer2[1].running_var *= 3
    torch.save(saved.state_dict(), tmp_path / "net.pth")
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(parameters, protocol=2))
    for name in ("net", "net.pkl"):
        loaded = networks.load_parameters(tmp_path / name)
        assert loaded == parameters
        network = networks.build_network(loaded, model_path=tmp_path / "net.pth", seed=5)
        torch.testing.assert_close(network(image), saved.eval()(image))


def test_parameter_files_never_run_code(tmp_path, parameters):
    marker = tmp_path / "was-here"
    call = (eval, (f"open({str(marker)!r}, 'w').close()",))
    evil = type("Evil", (), {"__reduce__": lambda self: call})()
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(parameters | {"extra": evil}))
    with pytest.raises(
        ValueError, match=r"evil.pkl is not a parameter file: it asks for builtins.eval; give a pickled"
    ):
        networks.load_parameters(tmp_path / "evil")
    assert not marker.exists()


def test_bad_parameter_files(tmp_path, parameters):
    with pytest.raises(FileNotFoundError, match=r"no parameter file .*gone.pkl; give one of params/, or None"):
        networks.load_parameters(tmp_path / "gone")
    cases = {
        "text.pkl": (b"not a pickle", "is not a parameter file"),
        "array.pkl": (pickle.dumps(np.ones(3)), "give a pickled dict"),
        "list.pkl": (pickle.dumps([1, 2]), "only a flat dict"),
        "nested.pkl": (pickle.dumps(parameters | {"kernelsize": [1, 11]}), "only a flat dict"),
        "short.pkl": (pickle.dumps({"l1channels": 3}), "parameters lack l2channels, l3channels, kernelsize"),
        "zero.pkl": (pickle.dumps(parameters | {"kernelsize": 0}), "kernelsize=0 must be a positive whole number"),
        "wrong.pkl": (pickle.dumps(parameters | {"orientation": "2d"}), "orientation='2d' is unknown; choose one of"),
        "tiny.pkl": (pickle.dumps(parameters | {"in_width": 7}), "in_width=7 must be at least 8"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            networks.load_parameters(tmp_path / name)


def test_bad_weights(tmp_path, parameters):
    with pytest.raises(FileNotFoundError, match=r"no weights file .*gone.pth; give one of models/"):
        networks.build_network(parameters, model_path=tmp_path / "gone.pth")
    torch.save(audiocnn.CNN(parameters | {"l1channels": 13}).state_dict(), tmp_path / "other.pth")
    message = r"other.pth holds no weights .* layer1.0.weight has the shape \[13, 20, 1, 11\] and not \[12, 20, 1, 11\]"
    with pytest.raises(ValueError, match=message):
        networks.build_network(parameters, model_path=tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("change", "which_channel", "shape", "message"),
    [
        ({}, "time", (1, 20, 1, 64), "orientation is 'freq' but whichChannel='time'"),
        ({}, "freq", (1, 21, 1, 64), "made for in_channels=20 but the spectrogram gives 21 .frequency bins"),
        ({"orientation": "time"}, "time", (1, 31, 1, 64), "in_channels=20 but the spectrogram gives 31 .time frames"),
        ({"orientation": "time"}, "time", (1, 20, 1, 65), "in_width=64 but the spectrogram gives 65 .frequency bins"),
        ({"orientation": "2D", "in_channels": 1, "in_height": 9}, "2D", (1, 1, 8, 64), "in_height=9 but .* gives 8"),
    ],
)
def test_networks_that_do_not_fit(change, which_channel, shape, message, parameters):
    with pytest.raises(ValueError, match=message):
        networks.check_fit(parameters | change, which_channel, torch.ones(shape))


def test_any_length_fits_but_time_as_channels(parameters):
    networks.check_fit(parameters, "freq", torch.ones(1, 20, 1, 999))
    networks.check_fit(parameters | {"orientation": "time"}, "time", torch.ones(1, 20, 1, 64))


class Custom(nn.Module):
    """Nested, out of order, with a layer used twice, and steps that are functions."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.act = nn.ReLU(inplace=True)
        self.inner = nn.Sequential(nn.Conv2d(4, 3, (1, 3), padding="same"), nn.AvgPool2d((1, 2)))
        self.first = nn.Conv2d(20, 4, (1, 5), padding="same")
        self.norm = nn.InstanceNorm2d(4)

    def forward(self, x):
        x = self.act(self.inner(self.norm(self.act(self.first(x)))))
        return self.head(x.mean(dim=(2, 3)))


def test_names_in_a_custom_network(image):
    """In the order of the forward pass, functions and all; a layer that is used twice counts twice."""
    network = Custom().eval()
    names = ["conv_1", "relu_1", "instancenorm_1", "conv_2", "pool_1", "relu_2", "mean_1", "linear_1"]
    named = layers.named_layers(network)
    assert list(named) == names
    assert named["conv_1"] == str(network.first) and named["conv_2"] == str(network.inner[0])
    assert named["relu_1"] == named["relu_2"] == "ReLU(inplace=True)"
    before = image.clone()
    found = layers.features(network, image, names)
    by_hand = network.first(image)
    torch.testing.assert_close(found["conv_1"], by_hand, rtol=1e-4, atol=1e-5)
    by_hand = network.norm(by_hand.relu())
    torch.testing.assert_close(found["instancenorm_1"], by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["linear_1"][..., 0, 0], network(image), rtol=1e-4, atol=1e-5)
    assert layers.layer_shapes(network, image)["pool_1"] == (1, 3, 1, 32)
    assert layers.layer_shapes(nn.Sequential(nn.ReLU(inplace=True)), image - 1) == {"relu_1": (1, 20, 1, 64)}
    torch.testing.assert_close(image, before)
    assert network.act.inplace  # the user's network is left as it was


def test_the_list_of_shapes_ends_where_a_layer_takes_no_more(parameters, image):
    """A classifier for images of another length is not a reason to refuse the layers before it."""
    shapes = layers.layer_shapes(networks.build_network(parameters), image[..., :50])
    assert list(shapes) == NAMES[:-1] and shapes["flatten_1"] == (1, 36)
    with pytest.raises(ValueError, match=r"layer conv_1, Conv2d\(3, 4.*can't take features of shape \(1, 20, 1, 64\)"):
        layers.layer_shapes(nn.Sequential(nn.Conv2d(3, 4, 1)), image)


def test_shapes_of_what_no_memory_could_hold():
    """Shapes come without the features, here terabytes, so that they can be looked at before a run."""
    network = nn.Sequential(nn.Conv2d(1, 10**5, 3, padding="same"), nn.BatchNorm2d(10**5), nn.ReLU(), nn.MaxPool2d(2))
    shapes = layers.layer_shapes(network, torch.rand(1, 1, 2000, 3001))
    assert shapes["relu_1"] == (1, 10**5, 2000, 3001) and shapes["pool_1"] == (1, 10**5, 1000, 1500)
    assert network[0].weight.device.type == "cpu"


def test_band_networks_are_bands(stft):
    """The first layer adds up neighbouring bins with positive weights; the second sees each band alone."""
    side_by_side = band_networks(stft.frequencies, widths=[1, 8, 32], filters=40, dilation=2)
    assert list(side_by_side) == ["width_1", "width_8", "width_32"]
    for chain, width in zip(side_by_side.values(), (1, 8, 32), strict=True):
        bands, taps = chain[0].weight[:, :, 0, 0], chain[1].weight[:, 0, 0]
        assert (bands >= 0).all() and torch.allclose(bands.norm(dim=1), torch.ones(40))
        centres = (bands * torch.arange(513.0)).sum(dim=1) / bands.sum(dim=1)
        assert bands[0].argmax() == 0 and bands[-1].argmax() == 512  # a band at either end
        assert centres.min() < 40 and centres.max() > 250  # from the lowest to the highest bins
        assert taps.shape == (40, width) and torch.allclose(taps.norm(dim=1), torch.ones(40))
    x = torch.rand(1, 513, 1, 90)
    shapes = layers.layer_shapes(side_by_side, x)
    assert shapes["width_32.conv_1"] == (1, 40, 1, 90) and shapes["width_32.conv_2"] == (1, 40, 1, 90 - 62)
    assert layers.receptive_fields(side_by_side)["width_32.conv_2"] == 1 + 2 * 31
    changed = x.clone()
    changed[:, 300:] += 1
    difference = (side_by_side["width_8"](changed) - side_by_side["width_8"](x)).abs().amax(dim=(0, 2, 3))
    assert (difference < 1e-5).any() and (difference > 0.1).any()
    same, other = (band_networks(stft.frequencies, widths=[8], filters=40, seed=seed) for seed in (0, 1))
    assert not torch.equal(same["width_8"][1].weight, other["width_8"][1].weight)
    again = band_networks(stft.frequencies, widths=[8, 1, 8], filters=40)
    assert list(again) == ["width_8", "width_1", "width_8_2"]
    assert torch.equal(again["width_8"][1].weight, same["width_8"][1].weight)
    assert not torch.equal(again["width_8_2"][1].weight, same["width_8"][1].weight)
    with pytest.raises(ValueError, match="width 0=0 must be a positive whole number"):
        band_networks(stft.frequencies, widths=[0], filters=4)
    with pytest.raises(ValueError, match=r"pattern_share=1\.5 must be a finite number of at least 0 and at most 1"):
        band_networks(stft.frequencies, widths=[8], filters=4, pattern_share=1.5)
    short = layers.layer_shapes(side_by_side, x[..., :20])
    assert "width_8.conv_2" in short and "width_32.conv_1" in short and "width_32.conv_2" not in short
    with pytest.raises(ValueError, match=r"layer conv_2.*can't take features of shape .*use a longer sound"):
        layers.features(side_by_side, x[..., :20], ["conv_2"])


def test_receptive_fields_are_what_changes_an_output(parameters):
    """Counted by changing one position of the input at a time, without and with a sum of branches."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.wide = (nn.Conv2d(20, 4, (1, n), padding="same", dilation=(1, 2)) for n in (3, 9))
            self.pool, self.last = nn.AvgPool2d((1, 2)), nn.Conv2d(4, 4, (1, 5), padding="same")

        def forward(self, x):
            return self.last(self.pool(self.narrow(x) + self.wide(x)))

    x = torch.rand(1, 20, 1, 160, requires_grad=True)
    for network, names in ((networks.build_network(parameters), NAMES[:-2]), (Branches(), ["conv_2", "conv_3"])):
        fields = layers.receptive_fields(network)
        for name, features in layers.features(network, x, names).items():
            (gradient,) = torch.autograd.grad(features[0, :, 0, features.shape[3] // 2].sum(), x, retain_graph=True)
            sizes = gradient.abs().sum(dim=(0, 1, 2))
            seen = torch.nonzero(sizes > 1e-5 * sizes.max())  # more than what FFTs round
            covered = int(seen.max() - seen.min() + 1)
            assert covered <= fields[name]
            if name.startswith("conv"):
                assert covered > 0.8 * fields[name]  # pooling and ReLU hide some


def test_patterns_see_what_smooth_bands_blur(stft):
    """Patterns have both signs and few ERB; a comb and the same comb shifted by one bin differ for them alone."""
    network = band_networks(stft.frequencies, widths=[1], filters=60, pattern_share=0.5)["width_1"]
    sums = network[0].weight[:, :, 0, 0]
    signed = (sums < 0).any(dim=1)
    assert not signed[:30].any() and signed[30:].sum() >= 29  # the lowest may see one bin
    assert torch.allclose(sums.norm(dim=1), torch.ones(60))
    erb = 21.4 * np.log10(1 + 4.37e-3 * stft.frequencies)  # Glasberg & Moore 1990, as they print the scale
    energy = sums[30:].square().numpy()
    centres = (energy @ erb) / energy.sum(axis=1)
    widths = np.sqrt((energy * (erb - centres[:, None]) ** 2).sum(axis=1))
    assert widths.max() < 4.5 and centres.min() < 2 and centres.max() > erb[-1] - 3
    comb = torch.zeros(1, 513, 1, 2)
    comb[0, 100:400:3, 0, 0] = comb[0, 101:400:3, 0, 1] = 1
    features = network(comb)[0, :, 0]
    change = (features[:, 0] - features[:, 1]).abs() / features.norm(dim=1).clamp_min(1e-6)
    inside = features.norm(dim=1) > 0.1
    assert change[30:][inside[30:]].median() > 10 * change[:30][inside[:30]].median()
    only = band_networks(stft.frequencies, widths=[1], filters=8, pattern_share=1.0)["width_1"]
    assert (only[0].weight < 0).flatten(1).any(dim=1).sum() >= 7
