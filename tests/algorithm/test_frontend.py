"""Front ends of trained audio networks, and musicnn's VGG behind one."""

import librosa
import numpy as np
import pytest
import scipy
import torch
from kernel import ROOT, sample
from numpy.lib.stride_tricks import sliding_window_view

import convert_musicnn
from support import frontend
from support.sound import analysis, files, transforms

MODEL = ROOT / "models/musicnn_vgg.pth"
POWER = 0.3  # of the image's compression


def undo(image):
    """The inverse of Analysis.compress with POWER, as a torch function."""
    knee = analysis.KNEE
    return (image.clamp_min(0) + knee**POWER) ** (1 / POWER) - knee


@pytest.fixture(scope="module")
def recording():
    """Three seconds of a piano as musicnn's extractor takes them: 187 frames."""
    return files.load_audio(sample("piano"), sample_rate=16000, duration=3.0)[: 186 * 256]


@pytest.fixture(scope="module")
def image(recording):
    # Every second frame: transforms.STFT warns of musicnn's hop, which is too long to find a good phase.
    transform = transforms.STFT(sample_rate=16000, n_fft=512, hop_length=128)
    seen = analysis.Analysis(transform=transform, power=POWER, scaled=False)
    return seen.to_image(seen.compress(transform.magnitude(recording)[:, ::2]))


@pytest.fixture(scope="module")
def network():
    return frontend.musicnn_vgg(undo, model_path=MODEL)


def after(network, image, kind):
    """Features [list of np.ndarray] after each layer of a kind."""
    found = []
    for layer in network:
        image = layer(image)
        found += [image.numpy()] if isinstance(layer, kind) else []
    return found


# musicnn's VGG -----------------------------------------------------------------------------------


def test_every_block_is_its_formula(recording, image, network):
    """By numpy in float64, from a sound by librosa as in musicnn/extractor.py, with axes as in musicnn/models.py."""
    state = {name: value.double().numpy() for name, value in torch.load(MODEL, weights_only=True).items()}

    def norm(name, features):
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        gain = state[f"{name}.weight"] / np.sqrt(variance + 0.001)
        return (features - mean) * gain + state[f"{name}.bias"]

    mel = librosa.feature.melspectrogram(y=recording, sr=16000, hop_length=256, n_fft=512, n_mels=96).T
    features = norm("input", np.log10(10000 * mel.astype(float) + 1)[:, :, None])  # (frames, bands, channels)
    assert features.shape == (187, 96, 1)
    sizes = [((4, 1), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4)]
    pooled = after(network, image, torch.nn.MaxPool2d)
    for number, ((size, step), found) in enumerate(zip(sizes, pooled, strict=True), start=1):
        kernel = state[f"conv_{number}.weight"].transpose(3, 2, 1, 0)  # TensorFlow's (frames, bands, inputs, filters)
        windows = sliding_window_view(np.pad(features, ((1, 1), (1, 1), (0, 0))), (3, 3), axis=(0, 1))
        features = np.einsum("tbihw,hwio->tbo", windows, kernel, optimize=True) + state[f"conv_{number}.bias"]
        features = norm(f"norm_{number}", np.maximum(features, 0))
        features = sliding_window_view(features, size, axis=(0, 1))[::step, ::step].max(axis=(3, 4))
        difference = np.abs(found[0].transpose(2, 1, 0) - features).max() / np.abs(features).max()
        assert difference < 1e-5, (number, difference)
    assert features.shape == (2, 1, 128)


def test_first_filters_by_scipy(image, network):
    """Input batch norm, convolution and ReLU of a few filters on a patch away from the edges."""
    state = {name: value.double().numpy() for name, value in torch.load(MODEL, weights_only=True).items()}
    x = after(network, image, frontend.Axes)[0][0, 0].astype(float)
    x = (x - state["input.running_mean"]) / np.sqrt(state["input.running_var"] + 0.001)
    x = (x * state["input.weight"] + state["input.bias"])[20:40, 50:90]
    found = after(network, image, torch.nn.ReLU)[0][0, :, 21:39, 51:89]
    for number in (0, 17, 127):
        filtered = scipy.signal.correlate2d(x, state["conv_1.weight"][number, 0], "valid")
        expected = np.maximum(filtered + state["conv_1.bias"][number], 0)
        np.testing.assert_allclose(found[number], expected, rtol=1e-3, atol=1e-3)
    assert found.max() > 1


def test_weights_are_trained_ones(network, image):
    """The network was trained: its batch norms have seen data, and its features differ from random weights'."""
    random = [frontend.musicnn_vgg(undo, model_path=None, seed=seed) for seed in (0, 0, 1)]
    features = [each(image) for each in (network, *random)]
    assert torch.equal(features[1], features[2]) and not torch.equal(features[1], features[3])
    assert not torch.allclose(features[0], features[1])
    assert network[5].running_mean.item() == pytest.approx(1.59, abs=0.01)


def test_gradients_reach_the_image(network, image):
    changed = torch.cat([image, image.roll(5, 3)]).requires_grad_()
    features = network(changed)
    assert features.shape == (2, 128, 1, 2)
    gradient = torch.autograd.grad(features.square().sum(), changed)[0]
    assert torch.isfinite(gradient).all() and (gradient != 0).float().mean() > 0.5
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())
    silence = torch.zeros_like(image).requires_grad_()
    assert torch.isfinite(torch.autograd.grad(network(silence).sum(), silence)[0]).all()


def test_it_can_be_traced(network, image):
    torch.testing.assert_close(torch.fx.symbolic_trace(network)(image), network(image))


@pytest.mark.parametrize("content", ["damaged", "foreign"])
def test_wrong_files(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes((ROOT / "models/stft_2d.pth").read_bytes() if content == "foreign" else b"no weights")
    with pytest.raises(ValueError, match=r"other.pth holds no weights .*; give models/musicnn_vgg.pth"):
        frontend.musicnn_vgg(undo, model_path=path)
    with pytest.raises(FileNotFoundError, match=r"missing.pth; give models/musicnn_vgg.pth; models/convert"):
        frontend.musicnn_vgg(undo, model_path=tmp_path / "missing.pth")


# The layers --------------------------------------------------------------------------------------


def test_mel_is_librosas(recording, image, network):
    expected = librosa.feature.melspectrogram(y=recording, sr=16000, n_fft=512, hop_length=256, n_mels=96, power=2)
    found = network[:3](image)
    assert found.shape == (1, 96, 1, 187)
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-3, atol=1e-4 * expected.max())
    options = dict(sr=16000, n_fft=512, n_mels=64, fmin=125.0, fmax=7500.0, htk=True, norm=None)
    magnitude = np.abs(librosa.stft(recording, n_fft=512, hop_length=256))
    mel = frontend.MelBands(sample_rate=options.pop("sr"), **options)
    expected = librosa.feature.melspectrogram(S=magnitude, sr=16000, **options)
    found = mel(torch.from_numpy(magnitude)[None, :, None])
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_function_is_a_layer():
    bands = torch.rand(2, 96, 1, 7)
    decibels = frontend.Apply(lambda power: 10 * torch.log10(power + 1e-10))
    np.testing.assert_allclose(decibels(bands), 10 * np.log10(bands.numpy() + 1e-10), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.nn.Sequential(frontend.Apply(torch.sqrt))(bands), bands.sqrt())


def test_axes():
    bands = torch.rand(2, 96, 1, 7)
    assert frontend.Axes("bands_frames")(bands).shape == (2, 1, 96, 7)
    turned = frontend.Axes("frames_bands", copies=3)(bands)
    assert turned.shape == (2, 3, 7, 96)
    assert all(torch.equal(turned[:, copy].mT, bands[:, :, 0]) for copy in range(3))
    with pytest.raises(ValueError, match="order='time' is unknown; choose one of bands_frames, frames_bands"):
        frontend.Axes("time")


# The conversion ----------------------------------------------------------------------------------


def test_conversion_of_another_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give the folder MTT_vgg of the package musicnn 0.1.0"):
        convert_musicnn.read_checkpoint(tmp_path)
    for name in (".index", ".data-00000-of-00001"):
        (tmp_path / name).write_bytes(bytes(100))
    with pytest.raises(ValueError, match=r"\.index is not an index of a TensorFlow checkpoint"):
        convert_musicnn.read_checkpoint(tmp_path)


def test_a_table_by_hand():
    """Two keys of which the second shares three letters with the first, and a number of two bytes."""
    block = b"\x00\x04\x011CNNa" + b"\x03\x02\x02N2bc" + bytes(4) + (1).to_bytes(4, "little")
    found = list(convert_musicnn.read_block("x.index", b"??" + block + b"\x00", 2, len(block)))
    assert found == [(b"1CNN", b"a"), (b"1CNN2", b"bc")]
    assert list(convert_musicnn.read_fields(b"\x08\x01\x20\xac\x02\x12\x02hi")) == [(1, 1), (4, 300), (2, b"hi")]
    with pytest.raises(ValueError, match=r"x\.index is compressed"):
        list(convert_musicnn.read_block("x.index", block + b"\x01", 0, len(block)))
