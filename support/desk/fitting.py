"""Checks of what the settings say of networks, before a sound is loaded: their files, and the names of their layers."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from audiocnn import AS_GIVEN
from support import networks
from support.bands import band_networks
from support.checks import printable, shown
from support.curves import largest
from support.layers import named_layers, side_by_side

TRAINED = dict(sample_rate=16000, N_FFT=512, K_HOP=256)  # settings that musicnn was trained with
SMALL = dict(l1channels=1, l2channels=1, l3channels=1, in_channels=1, kernelsize=1, n_classes=1)
SMALL |= dict(in_height=8, in_width=8)  # of a network of which only the names of the layers count


class Fitting:
    """Checks of files of networks and of layers, for the class Settings."""

    @property
    def has_musicnn(self):
        """Whether the network is musicnn's."""
        return self.recipe == "gatys" and not self.use_style_net and _is_musicnn(self.model_path)

    def check_networks(self):
        """Raise ValueError for settings of networks that can't stand together."""
        if self.use_style_net:
            return
        if self.recipe == "bands" and self.whichChannel != "freq":
            raise ValueError(
                f"whichChannel={self.whichChannel!r} needs recipe='gatys', because the networks of recipe='bands' "
                "take whichChannel='freq' only"
            )
        pair = self.model_path is not None and not _is_musicnn(self.model_path)
        if self.recipe == "gatys" and pair and self.param_pkl is None:
            raise ValueError(
                f"model_path={shown(self.model_path)} needs its parameters: set param_pkl to the file of the "
                "same name, or "
                "set model_path to None too, for random weights with the typed parameters"
            )

    def check_network_files(self):
        """Raise an error where the network's files are missing, damaged or no pair, or where it lacks a layer.

        A network of one's own is known only when its cell is run.
        """
        if self.use_style_net:
            return
        network, known = self._named_network(), set(AS_GIVEN)
        for prefix, each in side_by_side(network).items():
            names = named_layers(each)
            known |= {*names, *(f"{prefix}.{name}" for name in names if prefix)}
        aims = {"style": (largest(self.style_weight), self.style_layers_default)}
        aims["content"] = (largest(self.content_weight), self.content_layers)
        for kind, (weight, layers) in aims.items():
            for layer in [layer for layer, share in layers.items() if weight * share and layer not in known]:
                choice = dict.fromkeys(name.rpartition(".")[2] for name in named_layers(network))
                raise ValueError(
                    f"{kind}_layers_default: there is no layer {shown(layer)}; choose among {', '.join(choice)}; or "
                    "'input', the image itself"
                )

    def unlikely(self):
        """Return sentences about settings with which a trained network sees other sounds than in its training."""
        other = {name: getattr(self, name) for name in TRAINED if getattr(self, name) != TRAINED[name]}
        if not self.has_musicnn or not other or self.transform != "stft":
            return []
        given, trained = (", ".join(f"{name}={each[name]}" for name in other) for each in (other, TRAINED))
        return [
            f"{printable(self.model_path)} was trained with {trained}, but the settings say {given}; set these values"
        ]

    def _named_network(self):
        # A network with the layers of the settings' network; of one from files, the network itself.
        if self.recipe == "bands":
            return band_networks(np.linspace(0, 8000, 8), widths=self.widths, filters=1)  # any bins give these names
        given = self.param_pkl or self.parameters
        known = networks.load_parameters(given) if self.param_pkl and not self.has_musicnn else self.parameters
        sides = (known.get(name) or 8 for name in ("in_channels", "in_height", "in_width"))
        images = [SimpleNamespace(shape=(1, *sides))]  # what an image has is known with the sounds and the transform
        if self.model_path is None:
            networks.fitting_parameters(given, images, self.whichChannel)
            return networks.build_network(SMALL | {"orientation": self.whichChannel})
        with warnings.catch_warnings(action="ignore"):  # of the transform, which were shown with the settings
            analysis = self.make_analysis()
        return networks.network_of_files(self.model_path, given, images, analysis)


def _is_musicnn(path):
    return path is not None and Path(path).name == networks.MUSICNN
