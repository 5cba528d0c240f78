"""How good the sound is: python benchmarks/quality.py textures | tuning | constant-q | transfers | pictures.

Textures: for the recordings of samples/ on which the networks were not chosen, 5 s made from one take of at most
5 s, by the Gatys recipe and by the default, beside another take of the recording and noise with the same spectrum.
Tuning: the same for the recordings on which the networks were chosen.
Constant-q: the same by the default of the constant-Q notebook.
Transfers: how much of the content is kept and how close the style is, over the weight of content or style,
and for mosaicing.
Pictures: the sounds of three textures, and their spectrograms in benchmarks/.
The sounds are saved under outputs/benchmarks/, where gallery.py finds them.
"""

import argparse
import itertools
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import librosa
import numpy as np
import soundfile
import torch

import metrics
from report import ROOT, SEEDED, write_section

# isort: split
import audiocnn
import mosaic
from support import pipeline
from support.desk import pictures
from support.desk.settings import DEFAULTS, Settings
from support.sound.analysis import Analysis
from support.sound.files import fit_full_scale, load_audio
from support.sound.transforms import STFT

RATE, SECONDS = 22050, 5.0
PAIRS = (
    ("speech", "tabla"),
    ("piano", "water_stream"),
    ("orchestra_1936", "fire"),
    ("rooster", "frogs"),
    ("speech", "water_stream"),
    ("orchestra_1936", "tabla"),
)
STYLE_WEIGHTS = (1e2, 1e4, 1e6)
CONTENT_WEIGHTS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
MOSAICS = (dict(continuity=30), dict(continuity=3), dict(continuity=1, polyphony=10, semitones=6))
LEVELS = (0.8, 0.7, 0.6, 0.5, 0.4)  # content kept at which the curves are compared


# 1. The two recipes ------------------------------------------------------------------------------


def prepare(style, content=None, *, length=None, sample_rate=RATE, **changes):
    """Return the settings and the recordings of a transfer, or of a texture.

    Parameters
    ----------
    style, content : np.ndarray [shape=(n,), or (2, n) in stereo]
    length : int or None [samples]
        Of a texture; None: as long as the style.
    sample_rate : int [Hz]
    changes : values of other settings
    """
    if content is None:
        recordings, source = {"style 1": style}, dict(result_duration=length and length / sample_rate)
    else:
        recordings, source = {"style 1": style, "content": content}, dict(CONTENT_FILENAME="content")
    return Settings(sample_rate=sample_rate, stereo=style.ndim == 2, **source, **changes), recordings


def default(style, content=None, *, losses=None, networks=None, precondition=True, **changes):
    """Return the samples that a notebook makes with its defaults and some changes.

    Parameters
    ----------
    losses : dict or None
        Losses that take the place of the notebook's, by their kind: {"style": audiocnn.StyleLoss()}.
    networks : function or None
        From the settings and a seed to an nn.Module.
    precondition : bool
        See pipeline.run.
    changes : see prepare
    """
    settings, recordings = prepare(style, content, **changes)
    made = dict(terms=terms_of(pipeline.parts(settings, recordings), losses)) if losses else {}
    made |= dict(networks=lambda draw: networks(settings, settings.seed + 10**6 * draw)) if networks else {}
    return pipeline.synthesise(settings, recordings, precondition=precondition, **made)


def terms_of(parts, losses):
    """Return the terms of pipeline.parts with other losses, a dict by their kind."""
    return [(losses.get(loss.kind, loss), layer, weight) for loss, layer, weight, *_ in parts.terms]


def gatys(style, content=None, *, filters=4096, **changes):
    """Return the settings and the recordings of the Gatys recipe with random filters, see prepare."""
    parameters = DEFAULTS["parameters"] | dict(l1channels=filters)
    return prepare(style, content, recipe="gatys", parameters=parameters, **changes)


def baseline(style, content=None, *, num_steps=200, losses=None, **changes):
    """Return the samples that the Gatys recipe makes with random filters and librosa's Griffin-Lim."""
    return Descent(*gatys(style, content, num_steps=num_steps, **changes), losses=losses).finish().by_librosa()


class Descent:
    """The descent of pipeline.run on a mono spectrogram, to be stopped, timed, and heard in other ways.

    Parameters
    ----------
    settings, recordings : see prepare
    losses : dict or None
        See default.
    networks : nn.Module or None
        In place of those of the settings.

    Attributes
    ----------
    steps : iterator of dict
        The steps that change the image, see audiocnn.optimise.
    """

    def __init__(self, settings, recordings, *, losses=None, networks=None):
        made = pipeline.parts(settings, recordings)
        self.analysis, self.images = made.analysis, made.images
        self.loudest = max(spectrogram.max() for spectrogram in made.spectrograms.values())
        segment = made.analysis.frames(settings.segment_duration)
        networks = made.networks if networks is None else networks
        self.objective = pipeline.make_objective(made.images, networks, terms_of(made, losses or {}), segment=segment)
        self.length = settings.length_of(recordings)
        start = dict(length=self.length, seed=settings.seed, rhythm=made.rhythm, **settings.start_values)
        self.image = pipeline.make_start(settings.start, made.analysis, recordings["style 1"], made.images, **start)[1]
        redraw = settings.steps_of_draw
        self.steps = audiocnn.optimise(self.image, self.objective, num_steps=settings.num_steps, redraw=redraw)

    def finish(self):
        """Take all steps; return the descent."""
        for _ in self.steps:
            pass
        return self

    def magnitude(self):
        """Return the image's magnitudes, at most as loud as the recordings."""
        return self.analysis.expand(self.analysis.from_image(self.image).clip(0, self.loudest))

    def by_librosa(self):
        """Return the samples that librosa's Griffin-Lim finds."""
        transform = self.analysis.transform
        frames = dict(n_fft=transform.n_fft, hop_length=transform.hop_length, length=self.length)
        return librosa.griffinlim(self.magnitude(), n_iter=100, **SEEDED, **frames)


# 2. Textures -------------------------------------------------------------------------------------

TEXTURE_METHODS = {"Gatys recipe": {}, "default": {}}
PICTURED = ("water_stream", "birds", "babble")
CONSTANT_Q = {"constant-Q": dict(transform="cqt")}
COLUMNS = ("distance ratio", "listener", "its share", "kernel distance", "copy score", "spectrum [dB]", "core time [s]")


def in_parallel(function, *arguments):
    """Return the list of what function returns for each argument; one process with one thread for each core."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(function, *arguments))


def make_textures(texture, methods):
    """Make a texture by all methods, save the sounds for gallery.py, and return rows of cells by method."""
    style, other = metrics.takes(texture, RATE)
    made, seconds = {"another take": other, "matched noise": metrics.matched_noise(style)}, {}
    for method, changes in methods.items():
        began = time.process_time()
        function = baseline if method == "Gatys recipe" else default
        made[method] = function(style, length=int(SECONDS * RATE), **changes)
        seconds[method] = time.process_time() - began
    figures = {method: score_texture(samples, style, other) for method, samples in made.items()}
    save_sounds(f"textures/{texture}", {"recording": style} | made, figures)
    cells = {method: [*values.values(), seconds.get(method, np.nan)] for method, values in figures.items()}
    for method, values in cells.items():
        print(_row(texture, method, values), flush=True)
    return cells


def compare_textures(names, methods):
    """Return the rows of the table; the sounds and their figures are saved for gallery.py."""
    rows = [f"| texture | method | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    made = in_parallel(make_textures, names, [methods] * len(names))
    rows += [_row(name, method, row) for name, cells in zip(names, made, strict=True) for method, row in cells.items()]
    return [*rows, *mean_rows(names, {method: [cells[method] for cells in made] for method in made[0]})]


def score_texture(samples, style, other):
    """Return the figures of one texture, a dict by the names in COLUMNS."""
    heard = metrics.likeness(samples, style, RATE)
    values = (
        metrics.statistics_distance(samples, style, other, RATE),
        heard,
        heard / metrics.likeness(other, style, RATE),
        metrics.kernel_distance(samples, style, RATE),
        metrics.copy_score(samples, style, RATE),
        metrics.log_spectral_distance(samples, style, RATE),
    )
    return dict(zip(COLUMNS, values, strict=False))


def mean_rows(names, scores):
    """Return rows of means; the listener's share is that of the means."""
    groups = {"**mean**": list(names)}
    groups["**voices and calls**"] = [name for name in names if name in metrics.VOICES_AND_CALLS]
    rows = []
    for title, chosen in groups.items():
        for method, values in scores.items() if chosen else ():
            means, takes = (
                np.mean([table[list(names).index(name)] for name in chosen], axis=0)
                for table in (values, scores["another take"])
            )
            means[2] = means[1] / takes[1]
            rows.append(_row(title, method, means))
    return rows


def _row(texture, method, values):
    *figures, seconds = values
    cells = *(f"{value:.2f}" for value in figures[:-1]), f"{figures[-1]:.1f}"
    return f"| {texture} | {method} | {' | '.join(cells)} | {'' if np.isnan(seconds) else f'{seconds:.0f}'} |"


def save_sounds(name, sounds, figures):
    """Save sounds and their figures, dicts by title, where gallery.py finds them."""
    folder = ROOT / "outputs/benchmarks" / name
    folder.mkdir(parents=True, exist_ok=True)
    for title, samples in sounds.items():
        soundfile.write(folder / f"{title}.flac", fit_full_scale(samples), RATE)
    path = folder / "figures.json"
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(earlier | figures, indent=1))


def draw():
    """Save the spectrograms of three textures: recording, Gatys recipe, default."""
    analysis = Analysis(transform=STFT(sample_rate=RATE, n_fft=512, hop_length=128))
    for texture in PICTURED:
        spectrograms = {}
        for method in ("recording", "Gatys recipe", "default"):
            samples, _ = soundfile.read(ROOT / f"outputs/benchmarks/textures/{texture}/{method}.flac", dtype="float32")
            spectrograms[f"{texture}: {method}"] = analysis.spectrogram(samples)
        figure = pictures.plot_spectrograms(spectrograms, analysis.transform)
        figure.savefig(ROOT / f"benchmarks/texture_{texture}.png", dpi=80)


# 3. Transfers ------------------------------------------------------------------------------------


def excerpt(name):
    """Return 5 s of a sample from 0.25 s on, or less where it is shorter."""
    return load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE, offset=0.25, duration=SECONDS)


TRANSFER_COLUMNS = ("distance to the style", "like the style", "like the content", "rhythm kept", "pitch kept")
TRANSFER_COLUMNS = (*TRANSFER_COLUMNS, "copy score")


def compare_transfers():
    """Return the rows of the tables; the sounds and their figures are saved for gallery.py."""
    rows = [f"| content, style | recipe | setting | {' | '.join(TRANSFER_COLUMNS)} |"]
    rows.append("|---" * (len(TRANSFER_COLUMNS) + 3) + "|")
    curves = in_parallel(make_transfers, *zip(*PAIRS, strict=True))
    for pair, points in zip(PAIRS, curves, strict=True):
        rows += [_transfer_row(pair, title, figures) for title, figures in points.items()]
    curves = [curves_of(points) for points in curves]
    return [*rows, "", *compare_at_levels(curves), "", *compare_weights(curves)]


def make_transfers(*pair):
    """Make all transfers of a pair, save them for gallery.py, and return their figures by title."""
    content, style = (excerpt(name) for name in pair)
    sounds = {"content": content, "style": style}
    for title, samples in transfers_of(content, style):
        sounds[title] = samples
        print(_transfer_row(pair, title, score_transfer(samples, content, style)), flush=True)
    figures = {title: score_transfer(samples, content, style) for title, samples in sounds.items()}
    save_sounds(f"transfers/{', '.join(pair)}", sounds, figures)
    return figures


def _transfer_row(pair, title, figures):
    recipe, _, setting = title.partition(", ")
    return f"| {', '.join(pair)} | {recipe} | {setting} | {' | '.join(f'{value:.2f}' for value in figures.values())} |"


def curves_of(figures):
    """Return the curve of each recipe, points (content kept, distance to the style, likeness to the style)."""
    curves = {}
    for title, values in figures.items():
        kept = (values["rhythm kept"] + values["pitch kept"]) / 2
        point = kept, values["distance to the style"], values["like the style"]
        curves.setdefault(title.partition(", ")[0], []).append(point)
    return curves


def transfers_of(content, style):
    """Yield (title, samples) for each transfer; the title has the recipe and the value of its setting."""
    contents = [dict(content_weight=weight) for weight in CONTENT_WEIGHTS]
    recipes = {
        "gatys": (baseline, [dict(style_weight=weight) for weight in STYLE_WEIGHTS], dict(filters=1024)),
        "mosaic": (mosaic.mosaic, MOSAICS, dict(sample_rate=RATE)),
        "default": (default, contents, {}),
        "constant-Q": (default, contents[2:5], dict(transform="cqt")),
    }
    for recipe, (function, settings, fixed) in recipes.items():
        for changes in settings:
            title = ", ".join([recipe, *(f"{name} {value:g}" for name, value in changes.items())])
            yield title, function(style=style, content=content, **changes, **fixed)


def score_transfer(samples, content, style):
    """Return the figures of one transfer, a dict by the names in TRANSFER_COLUMNS."""
    values = (
        metrics.difference(samples, style, RATE),
        metrics.likeness(samples, style, RATE),
        metrics.likeness(samples, content, RATE),
        *metrics.content_kept(samples, content, RATE),
        metrics.copy_score(samples, style, RATE),
    )
    return dict(zip(TRANSFER_COLUMNS, values, strict=True))


def compare_at_levels(curves):
    """Return the rows of the table that compares the methods where they keep as much of the content."""
    titles = ("style distance below the Gatys recipe's", "the least of a pair", "more like the style than its", "pairs")
    rows = [f"| content kept (mean of both) | method | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    for level, method in itertools.product(LEVELS, ("mosaic", "default", "constant-Q")):
        pairs = np.array([(at_level(points[method], level), at_level(points["gatys"], level)) for points in curves])
        pairs = pairs[np.isfinite(pairs).all(axis=(1, 2))]  # (pair, of two methods, distance and likeness)
        cells = [""] * 3
        if len(pairs):
            gains, nearer = 1 - pairs[:, 0, 0] / pairs[:, 1, 0], pairs[:, 0, 1] - pairs[:, 1, 1]
            cells = f"{gains.mean():.0%}", f"{gains.min():.0%}", f"{nearer.mean():+.2f} (least {nearer.min():+.2f})"
        rows.append(f"| {level} | {method} | {' | '.join(cells)} | {len(pairs)} |")
    return rows


def at_level(curve, level):
    """Return the style distance and the likeness where a curve passes a level of content kept, or nan."""
    kept, *values = np.array(sorted(curve)).T
    return [float(np.interp(level, kept, each, left=np.nan, right=np.nan)) for each in values]


def compare_weights(curves):
    """Return the rows of the table of mean results over content_weight, from the style alone to the content itself."""
    means = np.mean([points["default"] + points["content"] for points in curves], axis=0)
    kept, distances, likenesses = ((means - means[0]) / (means[-1] - means[0])).T
    titles = ("content kept", "distance to the style", "like the style", "below a straight line", "the same, by ear")
    rows = [f"| content_weight | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    below = np.stack([kept - distances, kept - likenesses], axis=1)
    for weight, values in zip((*CONTENT_WEIGHTS, "the content"), np.hstack([means, below]), strict=True):
        rows.append(f"| {weight} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return rows


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sounds", choices=("textures", "tuning", "constant-q", "transfers", "pictures"))
    kind = parser.parse_args().sounds
    metrics.listener_network()  # a missing package stops the script here, not after an hour
    if kind == "transfers":
        write_section(kind, compare_transfers())
    elif kind in ("tuning", "pictures"):
        print(*compare_textures(metrics.TUNING if kind == "tuning" else PICTURED, TEXTURE_METHODS), sep="\n")
    else:
        methods = CONSTANT_Q if kind == "constant-q" else TEXTURE_METHODS
        write_section(kind, compare_textures(metrics.REPORTING, methods))
    if kind in ("textures", "pictures"):
        draw()


if __name__ == "__main__":
    main()
