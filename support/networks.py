"""Networks from files, and whether they fit a sound.

A network's files are a pair with one name: params/NAME.pkl, a pickled dict of the parameters of audiocnn.CNN, and
models/NAME.pth, a saved state_dict. Nothing in either file is ever run as code.
"""

import functools
import io
from collections.abc import Mapping
from pathlib import Path

import torch

from audiocnn import CNN
from support.checks import PARAMETERS, check_cnn, is_file, printable
from support.frontend import musicnn_vgg
from support.sound.transforms import STFT
from support.weights import LONGEST, Decoder, made_network, reason_of

MUSICNN = "musicnn_vgg.pth"  # the file whose network is not a CNN of audiocnn.py
SIDES = ("in_channels", "in_height", "in_width")  # of an image [shape=(planes, channels, height, width)]


def load_parameters(path):
    """Read the parameters of a CNN from a pickle file, named with or without .pkl; never runs code from the file."""
    path = Path(path)
    path = path if is_file(path) else path.with_name(path.name + ".pkl")
    name = printable(path)
    if not is_file(path):
        raise FileNotFoundError(f"no parameter file {name}; give one of params/, or None to type the parameters")
    try:
        with open(path, "rb") as file:
            parameters = Decoder(io.BytesIO(file.read(LONGEST))).load()
        pairs = parameters.items() if isinstance(parameters, dict) else [(None, None)]
        if not all(isinstance(key, str) and isinstance(value, int | float | str) for key, value in pairs):
            raise ValueError("only a flat dict of numbers and strings is allowed")
        check_cnn(parameters)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"{name} is not a parameter file: {reason_of(error)}; give a pickled dict of the parameters of a CNN"
        ) from error
    return parameters


def build_network(parameters, *, model_path=None, seed=0):
    """Make a CNN with loaded or random weights, frozen and in eval mode.

    Parameters
    ----------
    parameters : dict
        As CNN takes them.
    model_path, seed : see weights.made_network
    """
    advice = "give one of models/ and the parameters of the same name, or None: random weights"
    return made_network(functools.partial(CNN, parameters), model_path, advice, seed=seed)


def network_of_files(model_path, given, images: list, analysis, *, seed: int = 0) -> torch.nn.Module:
    """Make the network of a file for images of an analysis: musicnn's VGG, or a CNN.

    Parameters
    ----------
    model_path : str, Path or None
        models/musicnn_vgg.pth, or a state dict of a CNN; None: random weights of a CNN.
    given : str, Path or dict
        The CNN's parameters, see fitting_parameters.
    """
    if model_path is None or Path(model_path).name != MUSICNN:
        parameters = fitting_parameters(given, images, analysis.layout)
        return build_network(parameters, model_path=model_path, seed=seed)
    if not isinstance(analysis.transform, STFT) or analysis.layout != "freq":
        raise ValueError(
            f"{printable(model_path)} takes an STFT in the layout 'freq', not {analysis}; change one of them"
        )
    return musicnn_vgg(
        analysis.expand,
        sample_rate=analysis.transform.sample_rate,
        n_fft=analysis.transform.n_fft,
        model_path=model_path,
    )


def fitting_parameters(given, images: list, layout: str) -> dict:
    """Return the parameters of a CNN that takes images in a layout.

    Parameters
    ----------
    given : str, Path or dict
        A parameter file, or parameters as typed: those that are missing or None are filled in from the images.
    images : list of torch.Tensor [shape=(1, channels, height, width)]

    Raises
    ------
    ValueError
        The network was made for another layout, or for images of another shape.
    """
    if not isinstance(given, Mapping):
        parameters = load_parameters(given)
    else:
        shape = dict(zip(SIDES, images[0].shape[1:], strict=True))
        typed = {name: value for name, value in given.items() if value is not None}
        parameters = dict(n_classes=50, orientation=layout) | shape | typed
        if unknown := set(parameters) - set(PARAMETERS):
            raise ValueError(f"parameters have {', '.join(unknown)}; they may have {', '.join(PARAMETERS)}")
        check_cnn(parameters)
    for image in images:
        check_fit(parameters, layout, image)
    return parameters


def check_fit(parameters, which_channel, image):
    """Raise ValueError unless a CNN with these parameters takes this image in this orientation."""
    if parameters["orientation"] != which_channel:
        raise ValueError(
            f"the network's orientation is {parameters['orientation']!r} but whichChannel={which_channel!r}; "
            "change one of them"
        )
    sides = dict(zip(SIDES, image.shape[1:], strict=True))
    if which_channel != "time":
        del sides["in_width"]  # time frames: the blocks before the classifier take any number
    for name, size in sides.items():
        if parameters[name] != size:
            side = "time frames" if (which_channel, name) == ("time", "in_channels") else "frequency bins or layout"
            raise ValueError(
                f"the network was made for {name}={parameters[name]} but the spectrogram gives {size} ({side}); "
                "change the transform or the duration, or take another network "
                "(param_pkl and model_path None: a random network that fits)"
            )
