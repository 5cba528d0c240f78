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

from support.checks import check_choice, check_positive_int
from support.weights import made_network

# 1. Layers ---------------------------------------------------------------------------------------


class Apply(nn.Module):
    """A function of torch as a layer.

    Apply(analysis.expand) turns an image into magnitudes, Apply(torch.square) magnitudes into powers, and
    Apply(lambda bands: (torch.log(bands + 1e-6) - mean) / deviation) bands into standardised logarithms.
    """

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, values):
        """Apply the function."""
        return self.function(values)


class MelBands(nn.Module):
    """Bins added up to mel bands: (planes, n_fft // 2 + 1, 1, n_frames) to (planes, n_mels, 1, n_frames).

    Parameters
    ----------
    sample_rate, n_fft, n_mels : int > 0 [Hz, samples, bands]
    fmin, fmax : float [Hz]
        The lowest and the highest edge of a band; None: half the sample rate.
    htk, norm : as librosa.filters.mel takes them
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
        check_choice("order", order, ("bands_frames", "frames_bands"))
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
    model_path, seed : see weights.made_network
        models/convert_musicnn.py writes the weights.
    """
    advice = "give models/musicnn_vgg.pth; models/convert_musicnn.py makes it again"
    network = made_network(musicnn_layers, model_path, advice, seed=seed)
    mel = MelBands(sample_rate=sample_rate, n_fft=n_fft, n_mels=96, fmax=8000)
    logarithm = Apply(lambda power: torch.log(10000 * power + 1) / math.log(10))  # musicnn's log10(10000 x + 1)
    front = [Apply(undo), Apply(torch.square), mel, logarithm, Axes("bands_frames")]
    return nn.Sequential(*front, *network).eval()
