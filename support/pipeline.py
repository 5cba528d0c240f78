"""All steps of the notebooks in one call, from a settings object to samples: for scripts, benchmarks and tests.

The notebooks show the same steps one by one; a test holds both to the same samples.

Conventions
  recordings    dict from "style 1", "style 2" ... and "content" to samples [shape=(n,), or (2, n) in stereo]
  spectrograms  dict with the same names, see support/sound/analysis.py
  images        dict with the same names
  history       the losses of every step, a list of dicts from name to number
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import librosa
import numpy as np
import torch

import audiocnn
from support import losses, networks
from support.sound import stereo
from support.sound.analysis import Analysis
from support.sound.files import load_audio


@dataclass
class Result:
    """One result in the making: the image, then the samples, and the losses on the way."""

    run: int  # from 0; its seed is that of the settings plus this number
    image: torch.Tensor
    start: dict = field(default_factory=dict)  # losses before the first step
    noise: dict = field(default_factory=dict)  # the content's losses of noise, where those of the start are 0
    history: list = field(default_factory=list)
    samples: torch.Tensor | None = None
    refinement: list = field(default_factory=list)  # the history of the samples
    begun: list = field(default_factory=list)  # steps of history after which the optimiser began again
    begun_to_refine: list = field(default_factory=list)  # the same, of refinement

    def whole_of(self, name):
        """Return the value of a loss that counts as 100 %: that of the start, or of noise where the start has none.

        0 where neither has this loss, as for the bound.
        """
        value = self.noise.get(name, self.start.get(name, 0))
        return value if value > 1e-6 * self.start.get("total", 0) else 0

    @property
    def whole(self):
        """The values that count as 100 %, by name: of whole_of, or the total of the start."""
        return {name: self.whole_of(name) or self.start["total"] for name in self.start}

    def shares(self, losses):
        """Return losses, by name, as shares of whole; all are 1 where nothing is known of the start."""
        return {name: loss / (self.whole.get(name) or loss or 1) for name, loss in losses.items()}


@dataclass
class Parts:
    """What settings stand for: recordings, their analysis and images, networks by draw, and terms."""

    recordings: dict
    analysis: Analysis
    spectrograms: dict
    images: dict
    networks: Callable
    terms: list


def parts(settings, recordings: dict | None = None) -> Parts:
    """Make the parts that the notebooks' cells make of the same settings.

    recordings : dict or None
        None: the settings' files are loaded.
    """
    recordings = recordings or {
        name: load_audio(
            path,
            sample_rate=settings.sample_rate,
            offset=settings.offset,
            duration=settings.duration,
            mono=not settings.stereo,
        )
        for name, path in settings.files.items()
    }
    analysis = Analysis(
        transform=settings.make_transform(),
        power=settings.power,
        scaled=settings.use01scale,
        layout=settings.whichChannel,
    )
    spectrograms = {name: analysis.spectrogram(samples) for name, samples in recordings.items()}
    images = {name: analysis.to_image(each, settings.device) for name, each in spectrograms.items()}

    def make_network(draw):
        seed = settings.seed + 10**6 * draw
        if settings.use_style_net:
            raise ValueError("use_style_net=True: pass run(settings, networks=...) your network, or set it to False")
        if settings.recipe == "bands":
            return audiocnn.band_networks(
                analysis.transform.frequencies,
                widths=settings.widths,
                filters=settings.filters,
                pattern_share=settings.pattern_share,
                seed=seed,
            ).to(settings.device)
        parameters = networks.fitting_parameters(
            settings.param_pkl or settings.parameters, list(images.values()), settings.whichChannel
        )
        return networks.build_network(parameters, model_path=settings.model_path, seed=seed).to(settings.device)

    sums = [
        (audiocnn.STYLE_LOSSES[settings.statistic], settings.style_weight, settings.style_layers_default),
        (losses.CONTENT_LOSSES[settings.content_level], settings.content_weight, settings.content_layers),
        (losses.RhythmLoss(), settings.rhythm_weight, settings.rhythm_layers),
        (losses.DiversityLoss(), settings.diversity_weight, {"input": 1.0}),
        (audiocnn.BoundLoss(), settings.reg_weight * settings.boundopt, {"input": 1.0}),
    ]
    terms = [(loss, layer, weight * share) for loss, weight, layers in sums for layer, share in layers.items()]
    return Parts(recordings, analysis, spectrograms, images, make_network, terms)


def run(
    settings,
    recordings: dict | None = None,
    *,
    optimizer: Callable = audiocnn.lbfgs,
    watch: Callable | None = None,
    **changes,
) -> Result:
    """Make one result with the settings: of runs > 1 the first.

    Parameters
    ----------
    optimizer : function
        See audiocnn.optimise.
    watch : function or None
        Called after every step with the title of the descent, the steps that are done, and the losses.
    changes : analysis, networks, terms
        Take the place of what the settings stand for, see Parts: a fixed network keeps its filters to the end.
    """
    made = dataclasses.replace(parts(settings, recordings), **changes)
    if "analysis" in changes:
        made.spectrograms = {name: made.analysis.spectrogram(y) for name, y in made.recordings.items()}
        made.images = {name: made.analysis.to_image(s, settings.device) for name, s in made.spectrograms.items()}
    analysis = dataclasses.replace(made.analysis, loop=settings.loop)  # of the result
    objective_of = functools.partial(
        make_objective,
        networks=made.networks,
        terms=made.terms,
        blend=settings.style_blend,
        segment=analysis.frames(settings.segment_duration),
        loop=settings.loop,
    )
    redraw = 0 if isinstance(made.networks, torch.nn.Module) else settings.steps_of_draw
    objective, style = objective_of(made.images), made.recordings["style 1"]
    length = analysis.length_of(settings.length_of(made.recordings))
    noise = start_noise(settings.start, style, length=length, sample_rate=settings.sample_rate, seed=settings.seed)
    noise = analysis.to_image(analysis.spectrogram(noise), settings.device)
    image = audiocnn.start_image(
        settings.start if settings.start in audiocnn.STARTS else "noise",
        like=noise,
        seed=settings.seed,
        noise=noise,
        content=made.images.get("content"),
        **settings.start_values,
    )
    result = Result(0, image, start=measured(objective, image))
    steps = audiocnn.optimise(image, objective, num_steps=settings.num_steps, optimizer=optimizer, redraw=redraw)
    _follow(steps, result.history, watch, "optimise")
    samples = analysis.sound(
        image,
        length=length,
        n_iter=settings.phase_iterations,
        loudest=max(spectrogram.max() for spectrogram in made.spectrograms.values()),
        seed=settings.seed,
    )
    if settings.stereo:
        samples = stereo.widen(samples, like=made.recordings.get("content", style), seed=settings.seed)
        objective = objective_of(stereo_images(made.analysis, made.recordings, settings.device))
    result.samples = torch.tensor(samples, device=settings.device)
    steps = audiocnn.optimise(
        result.samples,
        objective,
        num_steps=settings.refine_steps,
        through=analysis.view(length, settings.device),
        optimizer=optimizer,
        redraw=redraw,
        precondition=analysis.preconditioner,
    )
    _follow(steps, result.refinement, watch, "refine")
    return result


def synthesise(settings, recordings: dict | None = None, **parts_of_run) -> np.ndarray:
    """Return the samples that a notebook makes with these settings [shape=(n,), or (2, n) in stereo], see run."""
    return run(settings, recordings, **parts_of_run).samples.cpu().numpy()


def _follow(steps, history, watch, title):
    for values in steps:
        history.append(values)
        if watch is not None:
            watch(title, len(history), values)


def make_objective(images: dict, networks, terms: list, **how) -> audiocnn.Objective:
    """Return the objective of images by name; how: blend, segment and loop, see audiocnn.Objective."""
    styles = [image for name, image in images.items() if name.startswith("style")]
    return audiocnn.Objective(networks, terms, style=styles, content=images.get("content"), **how)


def measured(objective: audiocnn.Objective, image: torch.Tensor) -> dict[str, float]:
    """Return the losses of an image by name, and "total"."""
    values = {name: float(loss) for name, loss in objective.evaluate(image)[0].items()}
    return values | {"total": sum(values.values())}


def start_noise(start: str, style: np.ndarray, *, length: int, sample_rate: int, seed: int) -> np.ndarray:
    """Return the sound [shape=(length,)] that the start is made from: noise like the style, or an earlier result."""
    if start in audiocnn.STARTS:
        return audiocnn.matched_noise(style.mean(axis=0) if style.ndim == 2 else style, length=length, seed=seed)
    return librosa.util.fix_length(load_audio(start, sample_rate=sample_rate), size=length)


def stereo_images(analysis: Analysis, recordings: dict, device: str) -> dict:
    """Return the images that compare left, right, middle and side."""
    return {name: analysis.image(torch.from_numpy(samples).to(device)) for name, samples in recordings.items()}
