"""Textures of strokes, rhythmic and ringing: python benchmarks/strokes.py PATH_OF_SF2 writes them to benchmarks/parts/.

Rhythmic: a pattern of a drum, repeated with the small errors of a player. Ringing: strokes at random times on a few
notes of an instrument whose partials ring for seconds. Every ringing texture has two takes, NAME_1 and NAME_2: the same
instrument and notes with other random numbers. No instrument is in both halves.

Rendering needs FluidSynth and FluidR3_GM.sf2, the Debian packages fluidsynth and fluid-soundfont-gm, see
benchmarks/parts/SOURCES.md.
"""

import argparse
import struct
import subprocess
import tempfile
from pathlib import Path

import librosa
import numpy as np
import soundfile

import truth

SECONDS, FILE_RATE, FILE_BITS = truth.SECONDS, 22050, 12
WARM_UP = 2.0  # s before the sound begins, so that strokes ring from its first sample on
TICKS = 960  # of MIDI, a second: 480 a beat, at the tempo of 120 beats a minute that holds where none is set

# As truth.PERCUSSION.
RHYTHMIC = {
    "tuning": {
        "agogo": (0.14, "67/110 - 68/90 68/80 - 67/100 68/90 -"),
        "timbales": (0.16, "65/110 66/70 - 66/100 65/80 -"),
    },
    "reporting": {
        "claves": (0.18, "75/115 - - 75/100 - - 75/110 - 75/90 -"),
    },
}
# Program of General MIDI from 0, or None: drums; the keys that are struck; and strokes a second.
RINGING = {
    "tuning": {
        "church_bell": (14, (48, 51, 55, 60), 2.0),
        "celesta": (8, (72, 74, 76, 79, 81, 84), 5.0),
        "kalimba": (108, (60, 62, 64, 67, 69, 72), 5.0),
        "triangle": (None, (81,), 2.5),
        "dulcimer": (15, (55, 57, 62, 64, 67), 4.0),
        "harp": (46, (48, 52, 55, 59, 62, 67), 4.0),
    },
    "reporting": {
        "vibraphone_chimes": (11, (57, 60, 64, 67, 71), 3.0),
        "glockenspiel_chimes": (9, (84, 86, 88, 91, 93), 4.0),
        "music_box": (10, (72, 76, 79, 83, 86, 91), 5.0),
        "steel_drums": (114, (60, 62, 65, 67, 70), 4.0),
        "tinkle_bells": (112, (72, 75, 79, 82), 3.0),
        "cymbals": (None, (49, 52, 57), 2.0),
    },
}


def ringing(keys, speed, *, seed):
    """Return random strokes as tuples (begin [s], end [s], key of MIDI, velocity), WARM_UP included.

    The keys come in random order, each of them once before one comes again, and every gap is a random share of two
    mean gaps: two takes have the same notes equally often.
    """
    generator, found, time, end = np.random.default_rng(seed), [], 0.0, WARM_UP + SECONDS
    while time < end:
        for key in generator.permutation(keys):
            found.append((time, end, int(key), int(generator.integers(64, 112))))
            time += generator.uniform(0.3, 1.7) / speed
    return [stroke for stroke in found if stroke[0] < end]


def all_textures():
    """Return the notes of all textures, a dict from the name to (program or None: drums, notes, seconds to cut)."""
    found = {}
    for half in RINGING:
        found |= {name: (None, truth.strokes(*pattern), 0.0) for name, pattern in RHYTHMIC[half].items()}
        for name, (program, keys, speed) in RINGING[half].items():
            found |= {f"{name}_{n}": (program, ringing(keys, speed, seed=n), WARM_UP) for n in (1, 2)}
    return found


def midi(program, played, seconds):
    """Return notes as the bytes of a MIDI file that ends after some seconds."""
    channel = 9 if program is None else 0
    events = [(begin, 0x90, key, velocity) for begin, _, key, velocity in played]
    events += [(end, 0x80, key, 0) for _, end, key, _ in played]
    track, now = bytearray([0, 0xC0 | channel, program or 0]), 0
    for time, kind, key, velocity in sorted(events):
        track += _length(round(time * TICKS) - now) + bytes([kind | channel, key, velocity])
        now = round(time * TICKS)
    track += _length(max(round(seconds * TICKS) - now, 0)) + b"\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS // 2) + b"MTrk" + struct.pack(">I", len(track)) + track


def _length(ticks):
    # A time of MIDI: seven bits a byte, the highest ones first.
    found = [ticks & 0x7F]
    while ticks := ticks >> 7:
        found.insert(0, 0x80 | ticks & 0x7F)
    return bytes(found)


def play(soundfont, program, played, seconds):
    """Return notes as FluidSynth plays them without reverberation and chorus, at truth.SYNTH_RATE."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "score.mid"), Path(folder, "sound.wav")
        score.write_bytes(midi(program, played, seconds))
        options = ["-ni", "-q", "-R", "0", "-C", "0", "-g", "0.3", "-r", str(truth.SYNTH_RATE), "-O", "s24"]
        subprocess.run(["fluidsynth", *options, "-F", sound, soundfont, score], check=True)
        samples, _ = soundfile.read(sound)
    return samples[: round(seconds * truth.SYNTH_RATE)].mean(axis=1)


def render(soundfont):
    """Write all textures to benchmarks/parts/."""
    for name, (program, played, cut) in all_textures().items():
        samples = play(soundfont, program, played, cut + SECONDS)[round(cut * truth.SYNTH_RATE) :]
        samples = librosa.resample(samples, orig_sr=truth.SYNTH_RATE, target_sr=FILE_RATE)
        truth.write_part(name, samples, FILE_RATE, bits=FILE_BITS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("soundfont", metavar="PATH_OF_SF2")
    render(parser.parse_args().soundfont)
