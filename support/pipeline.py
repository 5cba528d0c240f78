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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import librosa
import numpy as np
import torch

import audiocnn
from support.curves import is_curve
from support.rhythm import Rhythm, chosen_rhythm
from support.sound import stereo
from support.sound.analysis import Analysis
from support.sound.files import fit_full_scale, load_audio
from support.sound.masks import Where, where_of
from support.sound.sections import KEPT, Section, audible, ends_of, in_16_bits, section_after
from support.start import STARTS, matched_noise, start_image


@dataclass
class Result:
    """One result in the making: the image, then the samples, and the losses on the way."""

    run: int  # from 0; its seed is that of the settings plus this number
    image: torch.Tensor
    start: dict = field(default_factory=dict)  # losses before the first step
    noise: dict = field(default_factory=dict)  # the content's losses of noise, where those of the start are 0
    history: list = field(default_factory=list)
    reconstruction: torch.Tensor | None = None  # samples that the image gave
    samples: torch.Tensor | None = None
    refinement: list = field(default_factory=list)  # the history of the samples
    begun: list = field(default_factory=list)  # steps of history after which the optimiser began again
    begun_to_refine: list = field(default_factory=list)  # the same, of refinement
    changed: list = field(default_factory=list)  # what a cell of one's own changed, in words
    descents: list = field(default_factory=list)  # how the image was changed, in words by name, see truth.noted
    sample_descents: list = field(default_factory=list)  # how the samples were changed
    settings: object = None  # that the result was made with
    draft: Path | None = None  # stem of the files that hold a draft of the samples
    saved: tuple = ()  # of the files that hold the samples: their stem, and how many steps they have
    first: torch.Tensor | None = None  # the image as it was made; None: as it is
    objective: audiocnn.Objective | None = None  # of run: the image's losses; its network is that of the last draw

    def __post_init__(self):
        self.first = self.image.clone() if self.first is None else self.first

    def measure(self, objective, noise):
        """Note the losses of the start; where the content's are 0, those of noise, an image, count as 100 %."""
        self.start = measured(objective, self.image)
        contents = [name for name in self.start if name.startswith("content ")]
        if any(self.start[name] <= 1e-6 * self.start["total"] for name in contents if self.start["total"]):
            of_noise = measured(objective, noise)
            self.noise = {name: of_noise[name] for name in contents}

    def begin(self, num_steps):
        """Return how many steps of the image are done; note that the optimiser begins again if num_steps are more.

        Samples of an earlier image go.
        """
        self.samples, self.refinement, self.begun_to_refine = None, [], []
        if not self.history and not torch.equal(self.image, self.first):
            self.changed = [*self.changed, "the image before its optimisation"]
        return _begin(self.begun, self.history, num_steps)

    def begin_to_refine(self, num_steps):
        """Return how many steps of the samples are done, and note the same."""
        if not self.refinement and not torch.equal(self.samples, self.reconstruction):
            self.changed = [*self.changed, "the samples before their refinement"]
        return _begin(self.begun_to_refine, self.refinement, num_steps)

    def reconstructed(self, samples):
        """Take the samples that the image gave; their refinement begins again, and so do their files."""
        self.reconstruction, self.samples = samples, samples.clone()
        self.refinement, self.begun_to_refine, self.sample_descents, self.draft, self.saved = [], [], [], None, ()

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
        """Return losses, by name, as shares of whole; those that the start lacks are shares of its total.

        All are 1 where nothing is known of the start.
        """
        total = self.start.get("total")
        return {name: loss / (self.whole.get(name) or total or loss or 1) for name, loss in losses.items()}


def _begin(begun, history, num_steps):
    if len(history) < num_steps and len(history) not in begun:
        begun.append(len(history))
    return len(history)


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


def parts(settings, recordings: dict | None = None, *, analysis: Analysis | None = None) -> Parts:
    """Make the parts that the notebooks' cells make of the same settings.

    recordings : dict or None
        None: the settings' files are loaded.
    analysis : Analysis or None
        None: that of the settings; another one makes other images, and networks that take these.
    """
    recordings = recordings or settings.load()
    analysis = analysis or settings.make_analysis()
    settings.check_transform(analysis.transform)
    spectrograms = {name: analysis.spectrogram(samples) for name, samples in recordings.items()}
    images = {name: analysis.to_image(each, settings.device) for name, each in spectrograms.items()}
    networks = functools.partial(settings.make_network, images, analysis)
    rhythm = chosen_rhythm(settings.rhythm_weight, spectrograms["style 1"], analysis.transform)
    return Parts(recordings, analysis, spectrograms, images, networks, settings.make_terms(rhythm), rhythm)


def run(
    settings,
    recordings: dict | None = None,
    *,
    analysis: Analysis | None = None,
    optimizer: Callable = audiocnn.lbfgs,
    sample_optimizer: Callable = audiocnn.lbfgs,
    watch: Callable | None = None,
    precondition: bool = True,
    section: Section | None = None,
    objective_of: Callable | None = None,
    pairs_of: Callable | None = None,
    **changes,
) -> Result:
    """Return one result of the settings, with its samples, image, losses and objective: of runs > 1 the first.

    Parameters
    ----------
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
    changes : networks, terms, rhythm
        Take the place of what the settings stand for, as `analysis` does, see Parts: a fixed network keeps its
        filters to the end.
    """
    torch.set_num_threads(settings.threads)
    check = analysis is None and not changes and section is None
    given = settings.load(section=section) if recordings is None else recordings
    if section is not None and "content" in given:
        content = librosa.util.fix_length(given["content"], size=section.length)
        given = given | {"content": audible(content)}
    made = dataclasses.replace(parts(settings, given, analysis=analysis), **changes)
    if check:
        settings.check_recordings(made.recordings)
    analysis = dataclasses.replace(made.analysis, loop=settings.loop)  # of the result
    length, style = analysis.length_of(settings.length_of(made.recordings)), made.recordings["style 1"]
    where = where_of(settings.where, analysis, made.recordings, length=length)
    if section is not None:
        length, where = section.length, section.where(analysis)

    def own_objective(images, *, stereo=False, where=None):
        redrawn = functools.partial(images_of_draw, settings.load, made.analysis, settings.device, stereo=stereo)
        return make_objective(
            images,
            made.networks,
            made.terms,
            redrawn=redrawn if settings.drawn and recordings is None else None,
            blend=None if is_curve(settings.style_blend) else settings.style_blend,
            segment=analysis.frames(settings.segment_duration),
            loop=settings.loop,
            where=where,
        )

    def own_pairs(objective, recordings, *, length, where=None):
        terms, seen = objective.all_terms, objective
        if settings.stereo:
            images = stereo_images(made.analysis, recordings, settings.device)
            seen = objective_of(images, stereo=True, where=where)
        view = analysis.view(length, settings.device)
        return [(view, seen), *on_samples(terms, recordings, settings.device, where)]

    objective_of, pairs_of = objective_of or own_objective, pairs_of or own_pairs
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
        pairs_of(objective, made.recordings, length=length, where=where),
        num_steps=settings.refine_steps,
        optimizer=sample_optimizer,
        redraw=redraw,
        precondition=(where.in_samples if where else analysis.preconditioner) if precondition else None,
    )
    _follow(steps, result.refinement, watch, "refine")
    return result


def synthesise(settings, recordings: dict | None = None, **parts_of_run) -> np.ndarray:
    """Return the samples that a notebook makes with these settings [shape=(n,), or (2, n) in stereo], see run.

    A long result is made section by section, see stream.
    """
    result = run(settings, recordings, **parts_of_run)
    if settings.length_of_long is None:
        return result.samples.cpu().numpy()
    sound, recordings_of = begun(result), None if recordings is None else lambda draw, section: recordings
    for place, samples in stream(settings, sound, sound.shape[-1], recordings_of=recordings_of, **parts_of_run):
        sound = np.concatenate([sound[..., :place], samples], axis=-1)
    return sound


def begun(result: Result) -> np.ndarray:
    """Return the samples of a long result's first section, as the file of the sound keeps them."""
    samples = result.samples.cpu().numpy()
    return in_16_bits(fit_full_scale(samples, kept=np.zeros_like(samples)))


def stream(
    settings, before: np.ndarray, done: int, *, recordings_of: Callable | None = None, **parts_of_run
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (place, samples) of every further section of a long result: the samples from a place on.

    Parameters
    ----------
    before, done : the last samples that are there, KEPT seconds or more, and how many are there in all
    recordings_of : function or None
        From the number of a draw and a section to the recordings; None: those of the settings.
    parts_of_run : see run
    """
    rate, kept = settings.sample_rate, round(KEPT * settings.sample_rate)
    for end in ends_of(settings.length_of_long, rate):
        if end < done + kept:
            continue
        section = section_after(before[..., -kept:], done, end)
        recordings = recordings_of and recordings_of(0, section)
        result = run(settings, recordings, section=section, **parts_of_run)
        samples = result.samples.cpu().numpy()
        samples = in_16_bits(fit_full_scale(samples, kept=librosa.util.fix_length(section.before, size=section.length)))
        yield section.first, samples
        before, done = samples, end


def _follow(steps, history, watch, title):
    for values in steps:
        history.append(values)
        if watch is not None:
            watch(title, len(history), values)


def make_objective(
    images: dict, networks, terms: list, *, redrawn: Callable | None = None, **how
) -> audiocnn.Objective:
    """Return the objective of images by name; how: blend, segment, loop and where, see audiocnn.Objective.

    redrawn : function from the number of a draw to images by name, whose styles then take the place of the first ones
    """

    def styles_of(images):
        return [image for name, image in images.items() if name.startswith("style")]

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
    images = {name: _samples_image(torch.from_numpy(samples).to(device)) for name, samples in recordings.items()}
    return [(_samples_image, make_objective(images, None, terms))] if terms else []


def _samples_image(samples):
    return samples.reshape(-1, 1, 1, samples.shape[-1])


def measured(objective: audiocnn.Objective, image: torch.Tensor) -> dict[str, float]:
    """Return the losses of an image by name, and "total"."""
    values = {name: float(loss) for name, loss in objective.evaluate(image)[0].items()}
    return values | {"total": sum(values.values())}


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
    return {name: analysis.image(torch.from_numpy(samples).to(device)) for name, samples in recordings.items()}
