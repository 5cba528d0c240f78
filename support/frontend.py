"""Front ends: layers that turn this project's image into what audio networks trained by others take.

A front end stands in front of a network in one chain, so that losses may be put after any layer, and gradients
reach the image. musicnn_vgg is such a chain, with a network that was trained on music tags.

Conventions
  image     torch tensor [shape=(planes, n_bins, 1, n_frames)], compressed magnitudes of an STFT, orientation "freq"
  bands     mel bands in the place of the bins [shape=(planes, n_mels, 1, n_frames)]
  features  what a two-dimensional network takes and gives [shape=(planes, channels, height, width)]
  units     frequencies in Hz, n_fft and hop_length in samples

Sources
  McFee et al. 2015, librosa: audio and music signal analysis in Python, for the mel bands
  Pons, Serra 2019, musicnn: pre-trained convolutional neural networks for music audio tagging, arXiv:1909.06654
"""

import math
from collections import OrderedDict

import librosa
import torch
from torch import nn

from support.checks import check_choice, check_number, check_positive_int
from support.weights import load_weights

ORDERS = ("bands_frames", "frames_bands")


# 1. Layers ---------------------------------------------------------------------------------------


class Undo(nn.Module):
    """Image to magnitudes of the same shape, by a function of torch: the inverse of the image's compression."""

    def __init__(self, undo):
        super().__init__()
        self.undo = undo

    def forward(self, image):
        """Apply the function."""
        return self.undo(image)


class Power(nn.Module):
    """Magnitudes to a power; 2 gives what librosa calls a power spectrogram."""

    def __init__(self, exponent):
        super().__init__()
        check_number("exponent", exponent, 0, beyond=True)
        self.exponent = exponent

    def forward(self, magnitudes):
        """Take values of at least 0."""
        return magnitudes**self.exponent


class MelBands(nn.Module):
    """Bins added up to mel bands: (planes, n_fft // 2 + 1, 1, n_frames) to (planes, n_mels, 1, n_frames).

    Parameters
    ----------
    sample_rate, n_fft, n_mels : int > 0 [Hz, samples, bands]
    fmin, fmax : float [Hz]
        The lowest and the highest edge of a band; None: half the sample rate.
    htk, norm
        As librosa.filters.mel takes them.
    """

    def __init__(self, *, sample_rate, n_fft, n_mels, fmin=0.0, fmax=None, htk=False, norm="slaney"):
        super().__init__()
        check_positive_int(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels)
        matrix = librosa.filters.mel(
            sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm
        )
        self.register_buffer("matrix", torch.from_numpy(matrix)[:, :, None, None])  # as a convolution's kernel

    def forward(self, power):
        """Take as many bins as the matrix has."""
        return nn.functional.conv2d(power, self.matrix)


class Logarithm(nn.Module):
    """log(gain * values + offset) to a base: gain=10000, offset=1, base=10 is musicnn's log10(10000 x + 1)."""

    def __init__(self, *, gain=1.0, offset=1.0, base=math.e):
        super().__init__()
        check_number("gain", gain, 0, beyond=True)
        check_number("offset", offset, 0, beyond=True)  # otherwise silence has no logarithm
        check_number("base", base, 1, beyond=True)
        self.gain, self.offset, self.base = gain, offset, base

    def forward(self, values):
        """Take values of at least 0."""
        return torch.log(self.gain * values + self.offset) / math.log(self.base)


class Standardise(nn.Module):
    """(values - mean) / deviation, each one number or one for every band [shape=(n_mels,)]; stands before Axes."""

    def __init__(self, mean, deviation):
        super().__init__()
        for name, value in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1))
        if not (self.deviation > 0).all():
            raise ValueError(f"{deviation=} must be above 0 in every band")

    def forward(self, bands):
        """Keep the shape."""
        return (bands - self.mean) / self.deviation


class Axes(nn.Module):
    """Bands as the height or the width of an image for a two-dimensional network.

    Parameters
    ----------
    order : str
        "bands_frames": to (planes, copies, n_mels, n_frames); "frames_bands": to (planes, copies, n_frames, n_mels).
    copies : int
        1, or 3 equal channels for networks that were made for pictures in colour.
    """

    def __init__(self, order, *, copies=1):
        super().__init__()
        check_choice("order", order, ORDERS)
        check_choice("copies", copies, (1, 3))
        self.order, self.copies = order, copies

    def forward(self, bands):
        """Take (planes, n_mels, 1, n_frames)."""
        features = bands.transpose(1, 2)
        features = features if self.order == "bands_frames" else features.transpose(2, 3)
        return features if self.copies == 1 else features.repeat(1, self.copies, 1, 1)


# 2. Networks -------------------------------------------------------------------------------------


def musicnn_layers():
    """Make musicnn's VGG without its front end and its dense layer, from (planes, 1, bands, frames); random weights.

    Blocks of convolution, ReLU, batch norm and max-pool, in this order. The first pool takes 4 frames of every
    second band: that is how the network was trained.
    """
    pools = [((1, 4), 2), (2, 2), (2, 2), (2, 2), (4, 4)]  # (bands, frames) and stride
    layers = OrderedDict(input=nn.BatchNorm2d(1, eps=1e-3))  # 1e-3 is TensorFlow's default
    for number, (size, stride) in enumerate(pools, start=1):
        layers[f"conv_{number}"] = nn.Conv2d(1 if number == 1 else 128, 128, 3, padding=1)
        layers[f"relu_{number}"] = nn.ReLU()
        layers[f"norm_{number}"] = nn.BatchNorm2d(128, eps=1e-3)
        layers[f"pool_{number}"] = nn.MaxPool2d(size, stride)
    return nn.Sequential(layers)


def musicnn_vgg(undo, *, sample_rate=16000, n_fft=512, model_path="models/musicnn_vgg.pth", seed=0):
    """Make musicnn's VGG with its front end, frozen and in eval mode: an nn.Sequential from image to features.

    The features are (planes, 128, bands, frames). The mel bands end at 8 kHz, as in the training.

    Parameters
    ----------
    undo : function
        From the image to magnitudes, both torch tensors of one shape, see Analysis.expand.
    sample_rate, n_fft : int > 0 [Hz, samples]
        Of the image's STFT; the network was trained with 16000, 512 and a hop_length of 256.
    model_path : str, Path or None
        Weights as models/convert_musicnn.py writes them; None draws PyTorch's default random weights.
    seed : int
        Of the random weights; PyTorch's global generator keeps its state.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = musicnn_layers()
    if model_path is not None:
        load_weights(network, model_path, "give models/musicnn_vgg.pth; models/convert_musicnn.py makes it again")
    mel = MelBands(sample_rate=sample_rate, n_fft=n_fft, n_mels=96, fmax=8000)
    front = [Undo(undo), Power(2), mel, Logarithm(gain=10000, offset=1, base=10), Axes("bands_frames")]
    return nn.Sequential(*front, *network).requires_grad_(False).eval()
