"""What a listener network hardly hears: python benchmarks/rhythm.py rhythm | ringing | voice | beats-in-transfers.

Rhythm: textures of rhythmic styles, without rhythm and with the default's. Ringing: textures of bells, chimes, and
strings, whose partials last for seconds, beside another take. Both on styles that settings were chosen on, and on
styles that no setting was chosen on; the sounds are saved for gallery.py. Voice: a voice in a style of silences.
Beats-in-transfers: whose rhythm a transfer gets, with and without the loss of rhythm.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np

import metrics
import quality
import strokes
import truth
from report import ROOT, write_section

# isort: split
from support.desk.settings import Settings
from support.losses import FreeContentLoss
from support.rhythm import chosen_rhythm
from support.sound.files import load_audio

RATE = quality.RATE
RHYTHMIC = {  # recordings of samples/ and rendered parts; settings were chosen on the first ones
    "tuning": ("drum_loop", "clock", "bongos", "castanets", *strokes.RHYTHMIC["tuning"]),
    "reporting": ("tabla", "metronome", "congas", "shaker", "guiro", *strokes.RHYTHMIC["reporting"]),
}
RHYTHM_COLUMNS = ("peak", "its share", "correlation", "listener", "copy score", "distance", "core time [s]")
TRANSFER_COLUMNS = ("onsets of the content", "rhythm of the style", "distance to the style", "like the style")
TRANSFER_COLUMNS += ("pitch of the content",)
RINGING_COLUMNS = ("listener", "another take", "their ratio", "distance", "another take's distance", "copy score")
RINGING_COLUMNS += ("another take's copy score",)
LONGER = {  # settings that see longer events
    "the default": {},
    "widths up to 64": dict(widths=(*Settings().widths, 64)),
    "N_FFT 1024 and K_HOP 256": dict(N_FFT=1024, K_HOP=256),
}


def compare_rhythm():
    """Return rows: the rhythm of textures of rhythmic styles, without and with the rhythm of the default."""
    rows = [_row("half | style | rhythm_weight", RHYTHM_COLUMNS), "|---" * (len(RHYTHM_COLUMNS) + 3) + "|"]
    jobs = [(half, name, weight) for half, names in RHYTHMIC.items() for name in names for weight in (0.0, None)]
    found = quality.in_parallel(rhythm_figures, *zip(*jobs, strict=True))
    rows += [_row(" | ".join(map(str, job)), figures) for job, figures in zip(jobs, found, strict=True)]
    for half, weight in itertools.product(RHYTHMIC, (0.0, None)):
        chosen = [figures for job, figures in zip(jobs, found, strict=True) if job[::2] == (half, weight)]
        rows.append(_row(f"{half} | mean | {weight}", np.mean(chosen, axis=0)))
    return rows


def rhythm_figures(half, name, weight):
    """Make a texture of 5 s, save it for gallery.py, and return its figures: those in RHYTHM_COLUMNS."""
    parts = [ROOT / f"samples/{name}.flac", ROOT / f"benchmarks/parts/{name}.flac"]
    style = load_audio(next(filter(Path.exists, parts)), sample_rate=RATE, duration=5.0)
    began = time.process_time()
    made = quality.default(style, rhythm_weight=weight)
    seconds = time.process_time() - began
    peaks = [metrics.rhythm_peak(each, RATE) for each in (made, style)]
    figures = (
        peaks[0],
        peaks[0] / peaks[1],
        metrics.rhythm_kept(made, style, RATE),
        metrics.likeness(made, style, RATE),
        metrics.copy_score(made, style, RATE),
        metrics.difference(made, style, RATE),
        seconds,
    )
    title, shown = "default" if weight is None else "default without rhythm", (1, 2, 4)
    heard = {f"rhythm: {RHYTHM_COLUMNS[n]}" if n < 3 else RHYTHM_COLUMNS[n]: figures[n] for n in shown}
    quality.save_sounds(f"rhythm/{name}", {"recording": style, title: made}, {title: heard})
    return figures


def compare_ringing():
    """Return rows: textures of sounds that ring for seconds, beside another take; and the means with other settings."""
    rows = [_row("half | style", RINGING_COLUMNS), "|---" * (len(RINGING_COLUMNS) + 2) + "|"]
    sounds = [(half, name) for half, names in strokes.RINGING.items() for name in names]
    jobs = [(*sound, changes) for changes in LONGER for sound in sounds]
    found = np.array(quality.in_parallel(ringing_figures, *zip(*jobs, strict=True)))
    rows += [_row(" | ".join(sound), figures) for sound, figures in zip(sounds, found[: len(sounds)], strict=True)]
    for changes, half in itertools.product(LONGER, strokes.RINGING):
        means = found[[job[0] == half and job[2] == changes for job in jobs]].mean(axis=0)
        means[2] = means[0] / means[1]
        rows.append(_row(f"{half} | mean, {changes}" if LONGER[changes] else f"{half} | mean", means))
    return rows


def ringing_figures(half, name, changes="the default"):
    """Make a texture of 5 s with the changes of a name in LONGER; return its figures: those in RINGING_COLUMNS.

    The default's sound is saved for gallery.py.
    """
    style, other = (truth.load_part(f"{name}_{n}") for n in (1, 2))
    made = quality.default(style, **LONGER[changes])
    measures = (metrics.likeness, metrics.difference, metrics.copy_score)
    (like, distance, copied), another = ([measure(each, style, RATE) for measure in measures] for each in (made, other))
    if not LONGER[changes]:
        heard = {"listener": like, "its share": like / another[0], "copy score": copied}
        sounds = {"recording": style, "another take": other, "default": made}
        quality.save_sounds(f"ringing/{name}", sounds, {"default": heard})
    return like, another[0], like / another[0], distance, another[1], copied, another[2]


def compare_voice():
    """Return rows: how much of a voice is lost in a style of silences, over the content's weight and largest gain."""
    rows = ["| largest gain | content_weight | frames lost | distance to the style |", "|---|---|---|---|"]
    jobs = list(itertools.product((3.0, 2.1), (10.0, 30.0, 100.0)))
    for job, figures in zip(jobs, quality.in_parallel(voice_figures, *zip(*jobs, strict=True)), strict=True):
        rows.append("| {:g} | {:g} | {:.2f} | {:.2f} |".format(*job, *figures))
    return rows


def voice_figures(largest_gain, weight):
    """Return the lost frames of speech in the style of tabla, and the distance to the style."""
    content, style = quality.excerpt("speech"), quality.excerpt("tabla")
    losses = {"content": FreeContentLoss(largest_gain=largest_gain)}
    made = quality.default(style, content, losses=losses, content_weight=weight)
    return metrics.voice_lost(made, content, RATE, same_level=False), metrics.difference(made, style, RATE)


def compare_transfers():
    """Return rows: the rhythm of transfers into rhythmic styles, without and with the style's rhythm."""
    rows = [_row("rhythm_weight", TRANSFER_COLUMNS), "|---" * (len(TRANSFER_COLUMNS) + 1) + "|"]
    jobs = list(itertools.product((0.0, None, 10.0), ("speech", "piano", "rooster"), ("tabla", "drum_loop")))
    found = quality.in_parallel(transfer_figures, *zip(*jobs, strict=True))
    for weight in (0.0, None, 10.0):
        chosen = [figures for job, figures in zip(jobs, found, strict=True) if job[0] == weight]
        rows.append(_row(str(weight), np.mean(chosen, axis=0)))
    return rows


def transfer_figures(weight, content, style):
    """Return the figures of a transfer: those in TRANSFER_COLUMNS; None: the weight that a texture of the style has."""
    content, style = quality.excerpt(content), quality.excerpt(style)
    if weight is None:
        analysis = Settings().make_analysis()
        weight = chosen_rhythm(None, analysis.spectrogram(style), analysis.transform).weight
    made = quality.default(style, content, rhythm_weight=weight)
    return (
        metrics.onsets_kept(made, content, RATE),
        metrics.rhythm_kept(made, style, RATE),
        metrics.difference(made, style, RATE),
        metrics.likeness(made, style, RATE),
        metrics.chroma_kept(made, content, RATE),
    )


def _row(title, cells):
    return f"| {title} | {' | '.join(each if isinstance(each, str) else f'{each:.2f}' for each in cells)} |"


def main():
    """Measure, and write the table."""
    tables = {"rhythm": compare_rhythm, "ringing": compare_ringing, "voice": compare_voice}
    tables["beats-in-transfers"] = compare_transfers
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tables)
    table = parser.parse_args().table
    metrics.listener_network()  # a missing package stops the script here
    write_section(table, tables[table]())


if __name__ == "__main__":
    main()
