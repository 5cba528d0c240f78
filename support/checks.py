"""Checks of the settings: every message names the setting, its value, what is allowed and what to do.

An impossible setting raises ValueError. A setting that is legal but has no effect, or an unlikely one, warns.
"""

import inspect
import math
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import soundfile
import torch

from audiocnn import ORIENTATIONS, STARTS, STYLE_LOSSES
from support.losses import CONTENT_LOSSES
from support.transforms import check_power
from support.values import check_choice, check_number, check_positive_int

FREQUENCY_AXES = ("linear", "log", "mel")
OF_TRANSFORM = {"stft": ("N_FFT",), "cqt": ("bins_per_octave", "lowest_frequency", "n_octaves")}  # of this one alone
POSITIVE_INTS = (
    *("sample_rate", "K_HOP", "bins_per_octave", "n_octaves", "runs", "filters", "dilation", "l1channels"),
    *("l2channels", "l3channels", "kernelsize", "n_classes", "phase_iterations"),
)
NOT_NEGATIVE = (
    *("offset", "refresh", "style_weight", "content_weight", "rhythm_weight", "diversity_weight", "reg_weight"),
    *("lowest_frequency", "sigma"),
)


def check_settings(settings, *, sweepable):
    """Raise ValueError for impossible settings, and warn of those without effect; sweepable names may be swept."""
    _check_numbers(settings)
    _check_choices(settings)
    _check_files(settings)
    _check_device(settings.device)
    _check_networks(settings)
    _check_start(settings)
    _check_losses(settings)
    _warn_of_settings_without_effect(settings)
    if not isinstance(settings.sweep, Mapping):
        raise ValueError(f"sweep={settings.sweep!r} must map names of settings to lists of values")
    for name, values in settings.sweep.items():
        if name not in sweepable:
            raise ValueError(
                f"sweep: {name!r} is no setting that can be swept; choose among {', '.join(sorted(sweepable))}"
            )
        if not isinstance(values, tuple) or not values:
            raise ValueError(
                f"sweep={{{name!r}: {values!r}}} must map names of settings to lists of values, such as [1, 2]"
            )
    if settings.sweep and not (_is_path(settings.notebook) and Path(settings.notebook).is_file()):
        raise ValueError(
            f"notebook={settings.notebook!r} is not a file in {Path.cwd()}; give the notebook that is swept"
        )


def _check_numbers(settings):
    check_positive_int(**{name: getattr(settings, name) for name in POSITIVE_INTS})
    for name in ("N_FFT", "in_channels", "in_height", "in_width", "history_size"):
        if getattr(settings, name) is not None:
            check_positive_int(**{name: getattr(settings, name)})
    for name in ("seed", "redraw", "num_steps", "refine_steps"):
        check_number(name, getattr(settings, name), 0, whole=True)
    if settings.seed >= 2**63:
        raise ValueError(f"seed={settings.seed} must be below 2**63")
    for name in NOT_NEGATIVE:
        check_number(name, getattr(settings, name), 0)
    for name in ("duration", "result_duration", "segment_duration"):
        if getattr(settings, name) is not None:
            check_number(name, getattr(settings, name), 0, beyond=True)
    check_number("pattern_share", settings.pattern_share, 0, most=1)
    for name in ("lower", "upper", "mu"):
        check_number(name, getattr(settings, name), -math.inf)
    if not (isinstance(settings.n_jobs, int) and (settings.n_jobs == -1 or settings.n_jobs >= 1)):
        raise ValueError(f"n_jobs={settings.n_jobs!r} must be a positive whole number, or -1 for one run on each core")
    if not isinstance(settings.widths, tuple) or not settings.widths:
        raise ValueError(f"widths={settings.widths!r} must be a list of lengths in frames, such as [8]")
    check_positive_int(**{f"widths[{number}]": width for number, width in enumerate(settings.widths)})


def _check_choices(settings):
    check_choice("statistic", settings.statistic, STYLE_LOSSES)
    check_choice("content_level", settings.content_level, CONTENT_LOSSES)
    check_choice("whichChannel", settings.whichChannel, ORIENTATIONS)
    check_choice("frequency_axis", settings.frequency_axis, FREQUENCY_AXES)
    if settings.orientation is not None:
        check_choice("orientation", settings.orientation, ORIENTATIONS)
    check_power(settings.power)
    for name in ("stereo", "use01scale", "boundopt", "use_style_net", "loop", "draft_sound"):
        if not isinstance(getattr(settings, name), bool):
            raise ValueError(f"{name}={getattr(settings, name)!r} must be True or False")


def _is_path(value):
    return isinstance(value, str | Path) and bool(str(value))


def _check_files(settings):
    styles, content, outname = settings.STYLE_FILENAME, settings.CONTENT_FILENAME, settings.outname
    if not _is_path(styles) and not (isinstance(styles, tuple) and styles and all(map(_is_path, styles))):
        raise ValueError(f"STYLE_FILENAME={styles!r} must be the path of a sound file, or a list of such paths")
    if content is not None and not _is_path(content):
        raise ValueError(f"CONTENT_FILENAME={content!r} must be the path of a sound file, or None for a texture")
    plain = isinstance(outname, str) and 0 < len(outname) <= 150 and outname.isprintable()
    if not plain or Path(outname).name != outname or outname.startswith("."):
        raise ValueError(
            f"outname={outname!r} must be a file name of at most 150 characters without folders, like 'rain'"
        )
    for name in ("model_path", "param_pkl"):
        if getattr(settings, name) is not None and not _is_path(getattr(settings, name)):
            raise ValueError(f"{name}={getattr(settings, name)!r} must be the path of a file, or None")


def device_is_present(device):
    """Whether tensors can be made on a device: "cpu", "cuda", "cuda:1" or "mps", if this machine has one."""
    try:
        return isinstance(device, str) and torch.empty(1, device=device).cpu() is not None
    except (RuntimeError, AssertionError, NotImplementedError):
        return False


def _check_device(device):
    if not device_is_present(device):
        raise ValueError(
            f"device={device!r} is not present here; choose 'cpu', 'cuda' or 'mps', or None for the best one"
        )


def _check_networks(settings):
    if settings.use_style_net:
        return
    if settings.recipe == "bands" and settings.whichChannel != "freq":
        raise ValueError(
            f"whichChannel={settings.whichChannel!r} needs recipe='gatys', because the networks of recipe='bands' "
            "take whichChannel='freq' only"
        )
    if settings.recipe == "gatys" and settings.model_path is not None and settings.param_pkl is None:
        raise ValueError(
            f"model_path={settings.model_path!r} needs its parameters: set param_pkl to the file of the same name, or "
            "set model_path to None too, for random weights with the typed parameters"
        )


def _check_start(settings):
    start = settings.start
    if start not in STARTS and not (_is_path(start) and Path(start).is_file()):
        raise ValueError(f"start={start!r} is neither a file in {Path.cwd()} nor one of {', '.join(STARTS)}")
    if start not in STARTS:
        try:
            soundfile.info(start)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"start={start!r} is no sound file that can be read ({error}); give a wav file") from error
    if start == "content" and not settings.is_transfer:
        raise ValueError("the start 'content' needs a content; set CONTENT_FILENAME, or start='noise'")
    if start == "samples" and not (settings.lower < settings.upper and settings.sigma > 0):
        limits = f"lower={settings.lower} must be below upper={settings.upper}"
        raise ValueError(f"{limits}, and sigma={settings.sigma} above 0")
    random_network = settings.use_style_net or settings.recipe == "bands" or settings.model_path is None
    if settings.runs > 1 and not random_network and start not in ("noise", "rand", "randn", "samples"):
        raise ValueError(
            f"runs={settings.runs} would make the same sound {settings.runs} times, because neither the network nor "
            f"start={start!r} is random; set runs=1, or start='noise'"
        )
    if settings.loop and settings.is_transfer:
        raise ValueError("loop=True makes textures alone; set CONTENT_FILENAME to None, or loop to False")
    if settings.loop and settings.whichChannel == "time":
        raise ValueError("loop=True can't close frames that are channels; set whichChannel to 'freq', or loop to False")
    if settings.is_transfer and settings.result_duration is not None:
        _warn(f"result_duration={settings.result_duration} has no effect: in a transfer the content gives the length")


def _check_losses(settings):
    blend = settings.style_blend
    if blend is not None and (not isinstance(blend, tuple) or len(blend) != len(settings.styles)):
        raise ValueError(f"style_blend={blend!r} must hold one share for each of the {len(settings.styles)} styles")
    for number, share in enumerate(blend or ()):
        check_number(f"style_blend[{number}]", share, 0, beyond=True)
    layers = dict(style=settings.style_layers_default, rhythm=settings.rhythm_layers)
    layers |= dict(diversity=settings.diversity_layers, content=settings.content_layers)
    weights = {kind: getattr(settings, f"{kind}_weight") for kind in layers}
    given = ", ".join(f"{kind}_weight={weights[kind]}" for kind in layers if layers[kind])
    aims = ("style", "rhythm", "content")  # the diversity only limits how they are reached
    if not any(weights[kind] * weight for kind in aims for weight in layers[kind].values()):
        raise ValueError(f"nothing to optimise: no loss has both a layer and a weight above 0 ({given})")
    if bool(layers["rhythm"]) != bool(weights["rhythm"]):
        both = f"rhythm_layers={list(layers['rhythm'])} with rhythm_weight={weights['rhythm']}"
        _warn(f"{both} has no effect; set both")
    if settings.boundopt and settings.reg_weight and not settings.use01scale:
        _warn("boundopt pulls the values into [0, 1], but with use01scale=False they reach 7; set boundopt=False")


def of_other_transforms(transform):
    """Return the names of the settings that this transform does not have."""
    return tuple(name for other, names in OF_TRANSFORM.items() if other != transform for name in names)


def without_effect(settings):
    """Return the settings that nothing reads beside the others, a dict from the reason to their names."""
    bands = ("filters", "widths", "pattern_share", "dilation", "redraw")
    typed = ("l1channels", "l2channels", "l3channels", "kernelsize", "n_classes", "orientation")
    typed += ("in_channels", "in_height", "in_width")
    cnn = settings.recipe == "gatys" and not settings.use_style_net
    of_content = ("content_weight", "content_layers_default", "content_level")
    return {
        f"the transform is {settings.transform!r}": of_other_transforms(settings.transform),
        "the recipe has no band networks": () if settings.recipe == "bands" and not settings.use_style_net else bands,
        "the network is no CNN with typed parameters": () if cnn and settings.param_pkl is None else typed,
        "there is no content": () if settings.is_transfer else of_content,
        "diversity_weight is 0": () if settings.diversity_weight else ("diversity_layers",),
        "diversity_layers is empty": () if settings.diversity_layers else ("diversity_weight",),
        'start is not "samples"': () if settings.start == "samples" else ("mu", "sigma", "lower", "upper"),
        "boundopt is False": () if settings.boundopt else ("reg_weight",),
        "there is one style": () if len(settings.styles) > 1 else ("style_blend",),
    }


def _warn_of_settings_without_effect(settings):
    defaults = {each.name: each.default for each in fields(settings)}
    for reason, names in without_effect(settings).items():
        changed = [f"{name}={settings.given[name]!r}" for name in names if settings.given[name] != defaults[name]]
        if changed:
            _warn(f"{', '.join(changed)} has no effect, because {reason}")


def _warn(message):
    # At the line that makes the settings, in the notebook or script: the first one that is neither in this folder nor
    # in the code that dataclass writes.
    files = [frame.filename for frame in inspect.stack(0)]
    own = ("<string>", str(Path(__file__).parent))
    level = next((level for level, file in enumerate(files, start=1) if not file.startswith(own)), 1)
    warnings.warn(message, stacklevel=level)
