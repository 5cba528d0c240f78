"""What a layer hears: where the remaining loss lies, and which channels of a layer are farthest from the style.

Conventions
  image    torch tensor, see audiocnn.py
  channel  of a layer: one filter of the network
"""

import numpy as np
import torch

from audiocnn import Loss, Objective
from support.layers import features


def remaining_loss(objective: Objective, image: torch.Tensor) -> torch.Tensor:
    """Return how steep the losses are at every place of an image, an image too: 0 where nothing is left to change."""
    return objective.evaluate(image)[1].abs()


@torch.no_grad()
def channel_distances(
    network: torch.nn.Module, layer: str, loss: Loss, *, image: torch.Tensor, style: torch.Tensor
) -> np.ndarray:
    """Return the loss of every channel of a layer alone [shape=(channels,)].

    layer : name of layers.named_layers; of networks side by side with the network's name, "width_8.conv_2"
    loss : Loss that compares with the style
    """
    of_image, of_style = (_features(network, layer, each) for each in (image, style))
    channels = range(of_style.shape[1])
    targets = [loss.target(of_style[:, [channel]], blend=[1.0]) for channel in channels]
    return np.array([float(loss.distance(of_image[:, [channel]], targets[channel])) for channel in channels])


def seen_by(network: torch.nn.Module, layer: str, channels: list[int], image: torch.Tensor) -> torch.Tensor:
    """Return what channels of a layer see of an image: how much each place changes their power, from 0 to 1."""
    image = image.detach().requires_grad_()
    power = _features(network, layer, image)[:, channels].square().sum()
    (slope,) = torch.autograd.grad(power, image)
    return slope.abs() / slope.abs().max().clamp_min(1e-12)


def _features(network, layer, image):
    found = features(network, image, [layer])
    if len(found) > 1:
        raise ValueError(f"the layer {layer!r} stands for {', '.join(found)}; choose one of these")
    return next(iter(found.values()))
