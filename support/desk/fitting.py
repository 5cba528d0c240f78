"""Checks of the settings together, before a sound is loaded: what can't stand together, and what has no effect."""

import contextlib
import inspect
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import torch

from audiocnn import AS_GIVEN, HISTORY, MEMORY
from support import networks
from support.checks import printable, shown
from support.curves import check_end, is_curve, largest
from support.desk.checks import CHANNELS, CURVES
from support.layers import named_layers
from support.sound.excerpts import files_of
from support.sound.files import check_file, seconds_of
from support.sound.masks import check_gap, check_inside, silence

TRAINED = dict(sample_rate=16000, N_FFT=512, K_HOP=256)  # settings that musicnn was trained with
CONTAINER = (  # files with the limit of a container, and with what it uses: of version 2 and of version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class Fitting:
    """Checks of settings together, for the class Settings."""

    def check_together(self):
        """Raise ValueError for settings that can't stand together, and warn of those without effect."""
        self._check_networks()
        self._check_start()
        self._check_losses()
        self.check_recordings(self._promised())
        self._warn_of_settings_without_effect()
        self._warn_of_other_sounds_than_in_the_training()

    def check_files(self):
        """Raise an error where a recording, also one of the sweep, is missing or is not a sound, by its header.

        The same where the files of the network are missing, damaged or not a pair, or where the network lacks a layer.
        """
        for name in ("STYLE_FILENAME", "CONTENT_FILENAME"):
            for value in (getattr(self, name), *self.sweep.get(name, ())):
                for path in value if isinstance(value, tuple) else [value]:
                    if name == "STYLE_FILENAME" and os.path.isdir(path):
                        files_of(path)
                    elif path is not None:
                        check_file(path)
        self._check_network_files()

    def check_transform(self, transform):
        """Raise ValueError where a transform takes another sample rate than that of the recordings."""
        if transform.sample_rate != self.sample_rate:
            raise ValueError(
                f"the transform has sample_rate={transform.sample_rate}, but the recordings {self.sample_rate} Hz; "
                "make the transform with sample_rate=settings.sample_rate, and change sample_rate in the settings cell"
            )

    def check_recordings(self, recordings):
        """Raise ValueError where recordings, by name, are too short for the filters, or too long for the memory."""
        with warnings.catch_warnings(action="ignore"):  # of the hop, which was shown with the settings
            transform = self.make_transform()
        for name, each in recordings.items():
            if each.ndim == 2 and not self.stereo:
                raise ValueError(f"{name} has the shape {each.shape}, but stereo=False; set it, or give one channel")
        lengths = {name: each.shape[-1] for name, each in recordings.items()}
        lengths["result"] = self.length_of(recordings)
        for reason, shortest, advice in self._shortest(transform):
            for name, length in lengths.items():
                if length < shortest:
                    raise ValueError(
                        f"{self._origin(name)}: {length / self.sample_rate:.3f} s are too short for {reason}; give at "
                        f"least {shortest / self.sample_rate + 5e-4:.3f} s, or {advice}"
                    )
        seconds = lengths["result"] / self.sample_rate
        styles = [length / self.sample_rate for name, length in lengths.items() if name.startswith("style")]
        check_inside(self.where, result=seconds, style=min(styles), highest=self.sample_rate / 2)
        if not self.is_transfer:
            check_gap(self.where, styles[0])
        kept = lengths.get("content", lengths["style 1"]) / self.sample_rate
        if silent := silence(self.where, kept, seconds):
            _warn(
                f"where keeps what does not change, but the kept sound ends at {kept:.2f} s: from "
                f"{silent[0]:.2f} to {silent[1]:.2f} s, what is kept is silent; let more change, or lower "
                "result_duration"
            )
        for name in CURVES:
            check_end(name, getattr(self, name), seconds)
        self._check_memory(lengths, len(transform.frequencies))

    def _shortest(self, transform):
        # Yields for what a sound may be too short, how many samples are enough, and what else helps.
        names = dict(stft=f"N_FFT={self.N_FFT}", cqt=f"the filter of lowest_frequency={self.lowest_frequency}")
        advice = dict(stft="lower N_FFT", cqt="raise lowest_frequency, or lower bins_per_octave")
        yield names[self.transform], 2 * transform.reach, advice[self.transform]
        if self.kind_of_network == "bands" and "conv_2" in {**self.style_layers_default, **self.content_layers}:
            # Two places of the longest filter: one value has no variance, so that the loss would be NaN.
            yield f"widths={list(self.widths)}", max(self.widths) * self.K_HOP, "leave out the longest widths"
        elif self.kind_of_network == "gatys" and self.whichChannel != "time":
            yield "three max-pools, which need 8 frames", 7 * self.K_HOP, "lower K_HOP"

    def _check_memory(self, lengths, n_bins):
        # By the bytes that a run takes. Measured in processes of their own, with 5 to 150 s and 20 to 3000 filters or
        # 256 to 4096 channels: 32 peaks of 0.6 to 2 GB lie within 20 % of these sums.
        frames = {name: 1 + length // self.K_HOP for name, length in lengths.items()}
        result, longest, planes = frames["result"], max(frames.values()), 4 if self.stereo else 1
        weights = features = 0  # numbers; of networks from files and of one's own they are not known here
        if self.kind_of_network == "bands":
            segment = 1.5 * (self.segment_duration or 1e6) * self.sample_rate / self.K_HOP
            weights = self.filters * (2 * n_bins * len(self.widths) + sum(self.widths))
            features = self.filters * (planes * min(result, segment) + longest)
        elif self.kind_of_network == "gatys" and self.param_pkl is None and self.model_path is None:
            given = {name: value for name, value in self.parameters.items() if value is not None}
            first, second, third, size = ((CHANNELS | given)[name] for name in CHANNELS)
            before, positions = {"freq": (n_bins, 1), "time": (longest, n_bins / longest), "2D": (1, n_bins)}[
                self.whichChannel
            ]
            taps = size**2 if self.whichChannel == "2D" else size
            weights = taps * (first * before + second * first + third * second) + first**2  # with a Gram matrix
            features = first * positions * (result + longest)
        image = 4 * planes * n_bins * result
        history = min(2 * HISTORY * image, max(MEMORY, 10 * image))
        parts = {  # by what makes them smaller
            "a shorter duration or result_duration": 6.5e8 + (28 if self.transform == "stft" else 44) * image + history,
            "fewer filters, l1channels or runs, or a shorter segment_duration": 10 * self.runs * (weights + features),
        }
        needed, there = sum(parts.values()), available_memory(self.device)
        message = (
            f"these sounds and settings need about {needed / 1e9:.1f} GB of memory, and there are {there / 1e9:.1f} "
            f"GB; set {max(parts, key=parts.get)}"
        )
        if needed > 1.25 * there:
            raise ValueError(message)
        if needed > 0.8 * there:
            _warn(message)

    def _origin(self, name):
        if name == "result" and self.result_duration is not None and not self.is_transfer:
            return f"result_duration={self.result_duration}"
        path = printable(self.files.get(name, self.styles[0]))
        return f"{path} with offset={self.offset} and duration={self.duration}"

    def _promised(self):
        # Recordings without memory, as long as headers say; warns where a file ends within its excerpt.
        recordings = {}
        for name, path in self.files.items():
            rest = seconds_of(path, offset=self.offset or 0.0, duration=self.duration)
            if rest == 0 and self.offset:
                whole = seconds_of(path) or 0.0
                raise ValueError(
                    f"offset={self.offset} is beyond the end of {printable(path)}, which has {whole:.2f} s; lower it"
                )
            if self.duration is not None and rest and rest < self.duration:
                _warn(
                    f"duration={self.duration} is longer than {printable(path)}, of which offset={self.offset} leaves "
                    f"{rest:.2f} s"
                )
            seconds = self.duration or 5.0 if rest is None else min(rest, self.duration_of(name) or rest)
            recordings[name] = np.broadcast_to(np.float32(0), math.ceil(seconds * self.sample_rate))
        return recordings

    def _check_start(self):
        start = self.start
        if start == "content" and not self.is_transfer:
            raise ValueError("the start 'content' needs a content; set CONTENT_FILENAME, or start='noise'")
        of_file = self.kind_of_network == "gatys" and self.model_path is not None
        if self.runs > 1 and of_file and start not in ("noise", "rand", "randn", "samples"):
            raise ValueError(
                f"runs={self.runs} would make the same sound {self.runs} times, because neither the network nor "
                f"start={start!r} is random; set runs=1, or start='noise'"
            )
        self._check_drawn()
        if self.loop and self.is_transfer:
            raise ValueError("loop=True makes textures alone; set CONTENT_FILENAME to None, or loop to False")
        if self.loop and self.whichChannel == "time":
            raise ValueError(
                "loop=True can't close frames that are channels; set whichChannel to 'freq', or loop to False"
            )
        if self.where and (self.loop or self.whichChannel == "time"):
            raise ValueError("where needs loop=False and whichChannel='freq' or '2D'; change these, or set where={}")
        if "content" in self.where and not self.is_transfer:
            _warn("where['content'] has no effect, because there is no content")
        if self.is_transfer and self.result_duration is not None:
            _warn(f"result_duration={self.result_duration} has no effect: in a transfer the content gives the length")

    def _check_drawn(self):
        drawn = ", ".join(self.drawn.values())
        if not drawn:
            return
        if self.duration is None or self.runs > 1:
            raise ValueError(
                f"excerpts of {drawn} are drawn: duration={self.duration} must be a number, and runs={self.runs} must "
                "be 1; sweep the seed for more results"
            )
        if self.where and not self.is_transfer:
            raise ValueError(
                f"where keeps the style, but excerpts of {drawn} are drawn; give one file and a number for offset"
            )
        if self.offset and all(map(os.path.isdir, self.files.values())):
            _warn(f"offset={self.offset} has no effect, because excerpts of {drawn} are drawn")
        if not self.steps_of_draw:
            _warn(f"{drawn}: one excerpt is drawn and stays, because no random networks are drawn again")

    def _check_losses(self):
        blend = self.style_blend
        for shares in dict(blend).values() if is_curve(blend) else [blend]:
            if blend is not None and (len(shares) != len(self.styles) or not sum(shares)):
                raise ValueError(f"style_blend={blend!r} must hold one share for each of the {len(self.styles)} styles")
        aims = dict(style=self.style_layers_default, rhythm={"conv_1": 1.0}, content=self.content_layers)
        weights = {kind: largest(getattr(self, f"{kind}_weight")) for kind in aims}
        if not any(weights[kind] * weight for kind, layers in aims.items() for weight in layers.values()):
            given = ", ".join(f"{kind}_weight={weights[kind]}" for kind in aims if aims[kind])
            raise ValueError(f"nothing to optimise: no loss has both a layer and a weight above 0 ({given})")
        if self.boundopt and self.reg_weight and not self.use01scale:
            _warn("boundopt pulls the values into [0, 1], but with use01scale=False they reach 7; set boundopt=False")

    def without_effect(self):
        """Return the settings that nothing reads beside the others, a dict from the reason to their names."""
        other = {"stft": ("bins_per_octave", "lowest_frequency", "n_octaves"), "cqt": ("N_FFT",)}[self.transform]
        kind = "a network of your own (use_style_net)" if self.use_style_net else f"recipe={self.recipe!r}"
        bands = () if kind == "recipe='bands'" else ("filters", "widths", "pattern_share", "redraw")
        untyped = () if kind == "recipe='gatys'" else ("parameters",)
        of_content = ("content_weight", "content_layers_default", "content_level", "pitch_weight")
        return {
            f"the transform is {self.transform!r}": other,
            f"{kind} has no band networks": bands,
            f"{kind} takes no parameters": untyped,
            "param_pkl is a file of them": () if self.param_pkl is None or untyped else ("parameters",),
            "there is no content": () if self.is_transfer else of_content,
            'start is not "samples"': () if self.start == "samples" else ("start_values",),
            "boundopt is False": () if self.boundopt else ("reg_weight",),
            "refine_steps is 0": () if self.refine_steps else ("pitch_weight",),
            "there is one style": () if len(self.styles) > 1 else ("style_blend",),
        }

    def _warn_of_settings_without_effect(self):
        defaults = {each.name: each.default_factory() for each in fields(self)}
        for reason, names in self.without_effect().items():
            given = {name: self.given[name] for name in names if self.given[name] != defaults[name]}
            given = {name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items()}
            changed = [f"{name}={shown(value)}" for name, value in given.items()]
            if changed:
                _warn(f"{', '.join(changed)} {'have' if len(changed) > 1 else 'has'} no effect, because {reason}")

    @property
    def _has_musicnn(self):
        return self.kind_of_network == "gatys" and Path(self.model_path or "").name == networks.MUSICNN

    def _check_networks(self):
        if self.kind_of_network == "bands" and self.whichChannel != "freq":
            raise ValueError(
                f"whichChannel={self.whichChannel!r} needs recipe='gatys', because the networks of recipe='bands' "
                "take whichChannel='freq' only"
            )
        alone = self.model_path is not None and self.param_pkl is None and not self._has_musicnn
        if self.kind_of_network == "gatys" and alone:
            raise ValueError(
                f"model_path={shown(self.model_path)} needs its parameters: set param_pkl to the file of the same "
                "name, or set model_path to None too, for random weights with the typed parameters"
            )

    def _check_network_files(self):
        # The files, and the names of the layers. A network of one's own is known only when its cell is run.
        if self.use_style_net:
            return
        names = named_layers(self._named_network())
        choice = dict.fromkeys(name.rpartition(".")[2] for name in names)  # "conv_1" stands for every "width_1.conv_1"
        for kind, layers in {"style": self.style_layers_default, "content": self.content_layers}.items():
            counting = [layer for layer, share in layers.items() if share * largest(getattr(self, f"{kind}_weight"))]
            for layer in counting:
                if layer not in {*names, *choice, *AS_GIVEN}:
                    raise ValueError(
                        f"{kind}_layers_default: there is no layer {shown(layer)}; choose among {', '.join(choice)}; "
                        "or 'input', the image itself"
                    )

    def _warn_of_other_sounds_than_in_the_training(self):
        other = {name: getattr(self, name) for name in TRAINED if getattr(self, name) != TRAINED[name]}
        if self._has_musicnn and other and self.transform == "stft":
            given, trained = (", ".join(f"{name}={each[name]}" for name in other) for each in (other, TRAINED))
            _warn(
                f"{printable(self.model_path)} was trained with {trained}, but the settings say {given}; set these "
                "values"
            )

    def _named_network(self):
        # A network with the layers of the settings' network, but few filters; of one from files, the network itself.
        few = {name: 1 for name in CHANNELS if self.parameters.get(name)}
        small, known = self.of_run(0, filters=1, parameters={**self.parameters, **few}, device="cpu"), self.parameters
        if self.recipe == "gatys" and self.param_pkl is not None and not self._has_musicnn:
            known = networks.load_parameters(self.param_pkl)
        # What an image has is known with the sounds and the transform.
        image = SimpleNamespace(shape=(1, *(known.get(name) or 8 for name in networks.SIDES)))
        with warnings.catch_warnings(action="ignore"):  # of the transform, which were shown with the settings
            return small.make_network({"style 1": image}, small.make_analysis())


def _warn(message):
    # At the line that makes the settings, in the notebook or script: the first one that is neither in this folder nor
    # in the code that dataclass writes.
    files = [frame.filename for frame in inspect.stack(0)]
    own = ("<string>", str(Path(__file__).parent))
    level = next((level for level, file in enumerate(files, start=1) if not file.startswith(own)), 1)
    warnings.warn(message, stacklevel=level)


def available_memory(device="cpu"):
    """Return how many bytes this process may have: what it has, and what the machine, the container or limits leave."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[1]
    process = psutil.Process()
    left = [psutil.virtual_memory().available]
    for limit, used in CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # there is no container, or its limit is "max"
            left.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    if hasattr(psutil, "RLIMIT_AS") and process.rlimit(psutil.RLIMIT_AS)[0] > 0:
        left.append(process.rlimit(psutil.RLIMIT_AS)[0] - process.memory_info().vms)
    return max(0, min(left)) + process.memory_info().rss
