"""Transfers whose right answer is known: python benchmarks/truth.py tuning | reporting | render PATH_OF_SF2.

The content is a melody played by instrument A, the style is another melody by B, and the truth is the content's melody
by B. Every instrument of a half meets every other one of this half; no instrument and no melody is in both halves.
Each pair is made by the default, the Gatys recipe and mosaicing; the sounds are saved for gallery.py.

Render makes the sounds in benchmarks/parts/ again, also patterns of percussion and bells, from the notes in this file:
`pip install --no-deps tinysoundfont==0.3.7`, and FluidR3_GM.sf2 of the Debian package fluid-soundfont-gm, see
benchmarks/parts/SOURCES.md.
"""

import argparse
import functools
import itertools

import librosa
import numpy as np
import soundfile

import metrics
import quality
from report import ROOT, write_section

# isort: split
import mosaic
from support.sound.files import load_audio

RATE, SECONDS = quality.RATE, 5.0
PARTS, FILE_RATE, FILE_BITS = ROOT / "benchmarks/parts", 16000, 13  # with the files of strokes.py less than 6 MB
SYNTH_RATE = 48000  # Hz; TinySoundFont would alias at the rate of the files

# 1. Parts: what is played, and by what -----------------------------------------------------------

# Programs of General MIDI, counted from 0; in each half two that ring and three that hold their notes, or the reverse.
INSTRUMENTS = {
    "tuning": dict(piano=0, violin=40, clarinet=71, marimba=12, organ=16),
    "reporting": dict(flute=73, trumpet=56, guitar=24, cello=42, vibraphone=11),
}
# Each note has its length in beats after a colon, or 1 beat; "+" joins the notes of a chord, "-" is a rest.
MELODIES = {
    "tuning": {
        "ode_to_joy": "C4+E4 C4+E4 D4+F4 B3+G4 B3+G4 D4+F4 C4+E4 B3+D4 C4 C4 B3+D4 C4+E4 C4+E4:1.5 B3+D4:.5 B3+D4:2",
        "minuet": "D5 G4:.5 A4:.5 B4:.5 C5:.5 D5 G4 G4 E5 C5:.5 D5:.5 E5:.5 F#5:.5 G5 G4 G4",
        "frere_jacques": "C4 D4 E4 C4 C4 D4 E4 C4 E4 F4 G4:2 G4:.5 A4:.5 G4:.5 F4:.5 E4 C4",
        "greensleeves": "A4 C5:2 D5 E5:1.5 F5:.5 E5 D5:2 B4 G4:1.5 A4:.5 B4 C5:2 A4 A4:1.5 G#4:.5 A4 B4:2 G#4 E4:2",
    },
    "reporting": {
        "twinkle": "E4+C5 E4+C5 C5+G5 C5+G5 C5+A5 C5+A5 C5+G5:2 A4+F5 A4+F5 G4+E5 G4+E5 F4+D5 F4+D5 E4+C5:2",
        "jesu": "G4 A4 B4 D5 C5 C5 E5 D5 D5 G5 F#5 G5 D5 B4 G4 A4 B4 C5 D5 E5 D5 C5 B4 A4 B4 G4",
        "scarborough_fair": "D4:2 D4 A4:2 A4 E4:1.5 F4:.5 E4 D4:3 - A4 C5 D5:2 C5 A4 B4 G4 A4:3",
        "elise": "E5 D#5 E5 D#5 E5 B4 D5 C5 A4:2 - C4 E4 A4 B4:2 - E4 G#4 B4 C5:2",
    },
}
# A row for each time of a pattern, one after another: the key of the drum in General MIDI, and how hard it is struck.
PERCUSSION = {
    "tuning": {
        "clock": (0.5, "76/100 77/90"),
        "bongos": (0.15, "60/110 - 60/70 61/100 60/90 - 61/110 61/60"),
        "castanets": (0.17, "85/110 85/60 85/60 85/90 - 85/70"),
    },
    "reporting": {
        "metronome": (0.45, "33/110 34/80 34/80"),
        "congas": (0.16, "62/100 - 64/90 - 63/100 63/70 64/100 -"),
        "shaker": (0.13, "70/120 70/50 70/70 70/50"),
        "guiro": (0.19, "74/110 - - 73/90 73/90 -"),
    },
}
# Program and notes; each rings until the end.
BELLS = {
    "tuning": {
        "tubular_bells": (14, "E5 C5 D5 G4:2 G4 D5 E5 C5:2"),
        "church_bells": (14, "G3 F3 D#3 C3 G3 F3 C3 D#3 G3 F3 D#3 C3"),
    },
    "reporting": {
        "vibraphone_chords": (11, "C4+E4+G4+B4:2 A4 G4 D4+F4+A4+C5:2 B4 A4"),
        "glockenspiel": (9, "C6 E6 G6 C7 B6 G6 E6 D6 F6 A6 G6 E6 C6:2"),
    },
}


def pairs(half):
    """Return the 30 pairs of a half, tuples (A, B, melody of the content, melody of the style).

    Each of the 20 ordered pairs of instruments once, and half of them twice.
    """
    instruments, melodies = list(INSTRUMENTS[half]), list(itertools.permutations(MELODIES[half], 2))
    return [
        (instruments[n % 5], instruments[(n + 1 + n // 5 % 4) % 5], *melodies[5 * n % len(melodies)]) for n in range(30)
    ]


def notes(text, *, ring=False):
    """Return the notes of a melody of 5 s as tuples (begin [s], end [s], key of MIDI, velocity)."""
    tokens = [(names, float(beats or 1)) for names, _, beats in (each.partition(":") for each in text.split())]
    beat, now, found = SECONDS / sum(beats for _, beats in tokens), 0.0, []
    for names, beats in tokens:
        end = SECONDS if ring else (now + 0.95 * beats) * beat
        velocity = 100 if now == int(now) else 84
        found += [(now * beat, end, librosa.note_to_midi(name), velocity) for name in names.split("+") if name != "-"]
        now += beats
    return found


def strokes(unit, pattern, *, seed=0):
    """Return the strokes of a pattern that is repeated for 5 s, with the small errors of a player (4 ms)."""
    errors, found = np.random.default_rng(seed), []
    times = np.arange(0.05, SECONDS - 0.1, unit)
    for time, row in zip(times, itertools.cycle(pattern.split()), strict=False):
        late, harder = errors.normal(0, 0.004), errors.normal(0, 5)
        if row != "-":
            key, velocity = map(int, row.split("/"))
            found.append((time + late, time + late + 0.3, key, int(np.clip(velocity + harder, 1, 127))))
    return found


def all_parts():
    """Return the notes of all parts, a dict from the name to (program of General MIDI or None: drums, notes)."""
    found = {}
    for half, instruments in INSTRUMENTS.items():
        for (instrument, program), (melody, text) in itertools.product(instruments.items(), MELODIES[half].items()):
            found[f"{instrument}_{melody}"] = program, notes(text)
        found |= {name: (None, strokes(*pattern)) for name, pattern in PERCUSSION[half].items()}
        found |= {name: (program, notes(text, ring=True)) for name, (program, text) in BELLS[half].items()}
    return found


def render(soundfont):
    """Write all parts to benchmarks/parts/."""
    PARTS.mkdir(exist_ok=True)
    for name, (program, played) in all_parts().items():
        samples = play(soundfont, program, played)
        write_part(name, librosa.resample(samples, orig_sr=SYNTH_RATE, target_sr=FILE_RATE), FILE_RATE)


def write_part(name, samples, sample_rate, *, bits=FILE_BITS):
    """Write one file to benchmarks/parts/: peak 0.9, and zeros in the lowest bits of 16."""
    steps = 2 ** (bits - 1)
    samples = np.round(0.9 * steps * samples / np.abs(samples).max()) / steps
    soundfile.write(PARTS / f"{name}.flac", samples, sample_rate, subtype="PCM_16", compression_level=1.0)


def play(soundfont, program, played):
    """Return 5 s of notes at SYNTH_RATE, played by a program of General MIDI, or by its drums if program is None."""
    import tinysoundfont  # here, because only rendering needs it

    synth = tinysoundfont.Synth(samplerate=SYNTH_RATE)
    channel, drums = (9, True) if program is None else (0, False)
    synth.program_select(channel, synth.sfload(str(soundfont)), 128 * drums, program or 0, drums)
    events = [(begin, True, key, velocity) for begin, _, key, velocity in played]
    events += [(end, False, key, 0) for _, end, key, _ in played]
    blocks, at = [], 0
    for time, begins, key, velocity in [*sorted(events), (SECONDS, False, 0, 0)]:
        if (count := min(round(time * SYNTH_RATE), round(SECONDS * SYNTH_RATE)) - at) > 0:
            blocks.append(np.frombuffer(synth.generate(count), np.float32).reshape(-1, 2).mean(axis=1))
            at += count
        if begins:
            synth.noteon(channel, key, velocity)
        else:
            synth.noteoff(channel, key)
    samples, fade = np.concatenate(blocks), SYNTH_RATE // 100
    samples[-fade:] *= np.linspace(1, 0, fade)  # a sustained note would end with a click
    return samples


# 2. The comparison -------------------------------------------------------------------------------

# The Gatys recipe with the settings of the transfers over time (speed.py --default).
METHODS = {
    "default": quality.default,
    "default without pitch": functools.partial(quality.default, pitch_weight=0.0),
    "Gatys recipe": lambda style, content: quality.baseline(style, content, filters=1024, style_weight=1e4),
    "mosaicing": lambda style, content: mosaic.mosaic(content, style, sample_rate=RATE),
}
COLUMNS = ("distance to the truth", "style left", "like B", "onsets kept", "chroma kept", "pitch error [cents]")
COLUMNS += ("within 50 cents",)


def truth_distance(samples, truth, *, sample_rate=16000):
    """Return the log spectral distance of two sounds [dB].

    As Cífka and others 2021 (arXiv:2102.05749) published it: at 16 kHz, normalised power, 128 mel bands in dB, 80 dB
    below the loudest and no further; the rms difference over time, and its mean over the bands.
    """
    levels = []
    for sound in (samples, truth):
        sound = librosa.resample(sound[: len(truth)], orig_sr=RATE, target_sr=sample_rate)
        power = librosa.feature.melspectrogram(y=sound / np.sqrt(np.mean(sound**2)), sr=sample_rate, n_mels=128)
        levels.append(librosa.power_to_db(power, top_db=80))
    return float(np.mean(np.sqrt(np.mean((levels[0] - levels[1]) ** 2, axis=1))))


def load_part(name):
    """Return the samples of a part."""
    return load_audio(PARTS / f"{name}.flac", sample_rate=RATE)


def score(samples, content, style, truth):
    """Return the figures of one transfer, a dict by the names in COLUMNS; the pitch is compared with the truth's."""
    values = (
        truth_distance(samples, truth) / truth_distance(content, truth),
        metrics.difference(samples, style, RATE) / metrics.difference(content, style, RATE),
        metrics.likeness(samples, style, RATE),
        metrics.onsets_kept(samples, content, RATE),
        metrics.chroma_kept(samples, content, RATE, feature=librosa.feature.chroma_cqt),
        *metrics.pitch_error(samples, truth, RATE),
    )
    return dict(zip(COLUMNS, values, strict=True))


def make_pair(a, b, melody, other, methods=METHODS):
    """Make a pair by all methods, save the sounds for gallery.py, and return the figures, a dict by method."""
    content, style, truth = (load_part(name) for name in (f"{a}_{melody}", f"{b}_{other}", f"{b}_{melody}"))
    made = {"truth": truth, "content": content}
    made |= {method: function(style, content) for method, function in methods.items()}
    figures = {method: score(samples, content, style, truth) for method, samples in made.items()}
    name = f"{a} {melody}, {b} {other}"
    quality.save_sounds(f"truth/{name}", {"style": style} | made, figures)
    print(*(_row(f"{name} | {method}", values.values()) for method, values in figures.items()), sep="\n", flush=True)
    return figures


def compare(half):
    """Return the rows of the table of means, and of the table that counts pairs."""
    made = quality.in_parallel(make_pair, *zip(*pairs(half), strict=True))
    return [*mean_rows(made), "", *count_rows(made)]


def mean_rows(made):
    """Return the rows of the table of means over pairs; made: a list of what make_pair returns."""
    rows = [f"| mean of {len(made)} pairs | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    tables = {method: [list(figures[method].values()) for figures in made] for method in made[0]}
    return [*rows, *(_row(method, np.nanmean(table, axis=0)) for method, table in tables.items())]


def count_rows(made):
    """Return the rows of the table that says in how many pairs the default is nearer to the truth."""
    rows = ["| the default is nearer to the truth than | in pairs |", "|---|---|"]
    for method in [method for method in made[0] if method not in ("truth", "default")]:
        nearer = sum(figures["default"][COLUMNS[0]] < figures[method][COLUMNS[0]] for figures in made)
        rows.append(f"| {method} | {nearer} of {len(made)} |")
    return rows


def _row(title, values):
    return f"| {title} | {' | '.join(f'{value:.2f}' for value in values)} |"


def main():
    """Render the parts, or measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for half in INSTRUMENTS:
        commands.add_parser(half)
    commands.add_parser("render").add_argument("soundfont", metavar="PATH_OF_SF2")
    arguments = parser.parse_args()
    if arguments.command == "render":
        render(arguments.soundfont)
    else:
        metrics.listener_network()  # a missing package stops the script here, not after an hour
        rows = compare(arguments.command)
        if arguments.command == "reporting":
            write_section("truth", rows)
        else:
            print(*rows, sep="\n")


if __name__ == "__main__":
    main()
