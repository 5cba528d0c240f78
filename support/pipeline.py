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
from dataclasses import dataclass

import librosa
import numpy as np
import torch

import audiocnn
from support.curves import is_curve
from support.results import Result
from support.rhythm import Rhythm, chosen_rhythm
from support.sound import stereo
from support.sound.analysis import Analysis
from support.sound.files import load_audio
from support.sound.masks import Where, where_of
from support.sound.sections import Section, audible, begun, go_on
from support.start import STARTS, matched_noise, start_image


@dataclass
class Parts:
    """What settings stand for: recordings, their analysis and images, networks by draw, terms, and rhythm."""

    recordings: dict
    analysis: Analysis
    spectrograms: dict
    images: dict
    networks: Callable
    terms: list
    rhythm: Rhythm


def parts(
    settings,
    recordings: dict | None = None,
    *,
    analysis: Analysis | None = None,
    networks: Callable | None = None,
    terms: list | None = None,
    rhythm: Rhythm | None = None,
) -> Parts:
    """Make the parts that the notebooks' cells make of the same settings, but for those that are given.

    recordings : dict or None
        None: the settings' files are loaded.
    analysis : Analysis or None
        Another one than that of the settings makes other images, and networks that take these.
    """
    recordings = recordings or settings.load()
    if "style 1" not in recordings:
        raise ValueError(f"recordings has {', '.join(recordings)}; give the samples of 'style 1' too")
    analysis = settings.make_analysis() if analysis is None else analysis
    settings.check_transform(analysis.transform)
    spectrograms = {name: analysis.spectrogram(samples) for name, samples in recordings.items()}
    images = {name: analysis.to_image(each, settings.device) for name, each in spectrograms.items()}
    networks = functools.partial(settings.make_network, images, analysis) if networks is None else networks
    rhythm = rhythm or chosen_rhythm(settings.rhythm_weight, spectrograms["style 1"], analysis.transform)
    terms = settings.make_terms(rhythm) if terms is None else terms
    return Parts(recordings, analysis, spectrograms, images, networks, terms, rhythm)


def run(
    settings,
    recordings: dict | None = None,
    *,
    analysis: Analysis | None = None,
    networks: Callable | None = None,
    terms: list | None = None,
    rhythm: Rhythm | None = None,
    optimizer: Callable = audiocnn.lbfgs,
    sample_optimizer: Callable = audiocnn.lbfgs,
    watch: Callable | None = None,
    precondition: bool = True,
    section: Section | None = None,
    objective_of: Callable | None = None,
    pairs_of: Callable | None = None,
) -> Result:
    """Return one result of the settings, with its samples, image, losses and objective: of runs > 1 the first.

    Parameters
    ----------
    analysis, networks, terms, rhythm
        Take the place of what the settings stand for, see Parts; a network that is not a function keeps its filters to
        the end.
    optimizer, sample_optimizer : function
        Of the image, and of the samples, see audiocnn.optimise.
    watch : function or None
        Called after every step with the title of the descent, the steps that are done, and the losses.
    precondition : bool
        Whether the descent on samples is made short, see Analysis.preconditioner.
    section : Section or None
        Of a long result, which goes on from the samples before, see sections.py; None: the first section, or all.
    objective_of, pairs_of : function or None
        Make the objective of the image, and the pairs of the samples, as the notebooks' functions of these names.
    """
    audiocnn.check_optimizers(optimizer, sample_optimizer)
    torch.set_num_threads(settings.threads)
    given = settings.load(section=section) if recordings is None else recordings
    if section is not None and "content" in given:
        given = given | {"content": audible(librosa.util.fix_length(given["content"], size=section.length))}
    made = parts(settings, given, analysis=analysis, networks=networks, terms=terms, rhythm=rhythm)
    if section is None and all(each is None for each in (analysis, networks, terms, rhythm)):
        settings.check_recordings(made.recordings)
    analysis = dataclasses.replace(made.analysis, loop=settings.loop)  # of the result
    length, style = analysis.length_of(settings.length_of(made.recordings)), made.recordings["style 1"]
    where = where_of(settings.where, analysis, made.recordings, length=length)
    if section is not None:
        length, where = section.length, section.where(analysis)

    redrawn = functools.partial(images_of_draw, settings.load, made.analysis, settings.device)
    objective_of = objective_of or functools.partial(
        make_objective,
        networks=made.networks,
        terms=made.terms,
        redrawn=redrawn if settings.drawn and recordings is None else None,
        blend=None if is_curve(settings.style_blend) else settings.style_blend,
        segment=analysis.frames(settings.segment_duration),
        loop=settings.loop,
    )

    def own_pairs(objective, recordings, length, where):
        more = on_samples(objective.all_terms, recordings, settings.device, where)
        if recordings["style 1"].ndim == 2:
            both = stereo_images(made.analysis, recordings, settings.device)
            objective = objective_of(both, stereo=True, where=where)
        return [(analysis.view(length, settings.device), objective), *more]

    redraw = 0 if isinstance(made.networks, torch.nn.Module) else settings.steps_of_draw
    objective = objective_of(made.images, where=where)
    noise, image = make_start(
        settings.start,
        analysis,
        style,
        made.images,
        length=length,
        seed=settings.seed,
        rhythm=made.rhythm,
        first=section.first if section else 0,
        **settings.start_values,
    )
    image = where.mixed_image(image) if where else image
    result = Result(0, image, settings=settings, objective=objective)
    result.measure(objective, noise)
    steps = audiocnn.optimise(
        image,
        objective,
        num_steps=settings.num_steps,
        optimizer=optimizer,
        redraw=redraw,
        precondition=where and where.in_image,
    )
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
    samples = where.mixed(samples) if where else samples
    result.reconstructed(torch.tensor(samples, device=settings.device))
    steps = audiocnn.optimise(
        result.samples,
        (pairs_of or own_pairs)(objective, made.recordings, length, where),
        num_steps=settings.refine_steps,
        optimizer=sample_optimizer,
        redraw=redraw,
        precondition=(where.in_samples if where else analysis.preconditioner) if precondition else None,
    )
    _follow(steps, result.refinement, watch, "refine")
    return result


def synthesise(settings, recordings: dict | None = None, **parts_of_run) -> np.ndarray:
    """Return the samples that a notebook makes with these settings [shape=(n,), or (2, n) in stereo], see run.

    A long result is made section by section, see sections.go_on; the desk's Stream writes the sections to a file.
    """
    result = run(settings, recordings, **parts_of_run)
    if settings.length_of_long is None:
        return result.samples.cpu().numpy()

    def make(section):
        return run(settings, recordings, section=section, **parts_of_run).samples.cpu().numpy()

    sound, length = begun(result.samples.cpu().numpy()), settings.length_of_long
    for place, samples in go_on(make, sound, sound.shape[-1], length=length, sample_rate=settings.sample_rate):
        sound = np.concatenate([sound[..., :place], samples], axis=-1)
    return sound


def _follow(steps, history, watch, title):
    for values in steps:
        history.append(values)
        if watch is not None:
            watch(title, len(history), values)


def make_objective(
    images: dict, networks, terms: list, *, redrawn: Callable | None = None, stereo: bool = False, **how
) -> audiocnn.Objective:
    """Return the objective of images by name; how: blend, segment, loop and where, see audiocnn.Objective.

    redrawn : function from the number of a draw to images by name, whose styles then take the place of the first ones;
        in stereo, also with stereo=True
    stereo : whether the images compare left, right, middle and side
    """

    def styles_of(images):
        return [image for name, image in images.items() if name.startswith("style")]

    redrawn = functools.partial(redrawn, stereo=True) if redrawn and stereo else redrawn
    style = styles_of(images) if redrawn is None else lambda draw: styles_of(redrawn(draw))
    return audiocnn.Objective(networks, terms, style=style, content=images.get("content"), **how)


def images_of_draw(load: Callable, analysis: Analysis, device: str, draw: int, *, stereo: bool = False) -> dict:
    """Return the images of the recordings that a function loads for a draw, see Settings.load."""
    recordings = load(draw)
    if stereo:
        return stereo_images(analysis, recordings, device)
    return {name: analysis.to_image(analysis.spectrogram(each), device) for name, each in recordings.items()}


def on_samples(terms: list, recordings: dict, device: str, where: Where | None = None) -> list:
    """Return the objective of the terms at "samples" as a list of one (through, Objective); empty without such terms.

    Their features are the samples [shape=(channels, 1, 1, n)], compared with those of the recordings, of the content
    where it counts: the frames of a silent content have no notes.
    """
    terms = [audiocnn.made_term(*term) for term in terms]
    terms = [term for term in terms if term.layer == "samples" and term.weight]
    if where and "content" in recordings:
        recordings = recordings | {"content": where.counted(recordings["content"])}
    images = {name: _samples_image(each) for name, each in _tensors(recordings, device).items()}
    return [(_samples_image, make_objective(images, None, terms))] if terms else []


def _samples_image(samples):
    return samples.reshape(-1, 1, 1, samples.shape[-1])


def make_start(
    start: str,
    analysis: Analysis,
    style: np.ndarray,
    images: dict,
    *,
    length: int,
    seed: int,
    rhythm: Rhythm | None = None,
    first: int = 0,
    **values: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of noise like the style, or of an earlier result, and of the start.

    Parameters
    ----------
    start : one of start.STARTS, or the path of a sound file
    analysis : of the result
    length : of the result [samples]
    rhythm : of the noise; None: stationary noise
    first : place in a longer sound [samples]
    values : lower, upper, mu, sigma, see start.start_image
    """
    is_file = start not in STARTS
    if is_file:
        samples = load_audio(start, sample_rate=analysis.transform.sample_rate)
        samples = librosa.util.fix_length(samples, size=length)
    else:
        style = style.mean(axis=0) if style.ndim == 2 else style
        samples = matched_noise(
            style,
            length=length,
            seed=seed,
            strength=rhythm.strength if rhythm else 0.0,
            period=rhythm.period if rhythm else 1,
            first=first,
        )
    noise = analysis.to_image(analysis.spectrogram(samples), images["style 1"].device)
    content = images.get("content")
    start = "noise" if is_file else start
    return noise, start_image(start, like=noise, seed=seed, noise=noise, content=content, **values)


def stereo_images(analysis: Analysis, recordings: dict, device: str) -> dict:
    """Return the images that compare left, right, middle and side."""
    return {name: analysis.image(each) for name, each in _tensors(recordings, device).items()}


def _tensors(recordings, device):
    return {name: torch.from_numpy(np.ascontiguousarray(each)).to(device) for name, each in recordings.items()}
