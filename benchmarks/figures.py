"""The figures of the project's README.md again: python benchmarks/figures.py [PART ...].

Each part measures some figures and prints them beside those that README.md shows. A figure that moved by more than its
spread is named, and the script then exits with 1. All parts take less than half an hour on two idle cores.
README.md is read, never written. The spreads allow for another number of threads, and of times for another machine.
"""

import argparse
import functools
import re
import sys
import time
from dataclasses import dataclass
from typing import NamedTuple

import librosa
import numpy as np

import metrics
import quality
import race
import rhythm
import speed
import truth
from report import ROOT

RATE = quality.RATE
NUMBER = r"(\d+(?:\.\d+)?)"
# The pairs of quality.PAIRS in which both recipes keep 0.8 of the content, and the weights around this level.
PAIRS, LEVEL = [quality.PAIRS[n] for n in (0, 1, 3, 5)], 0.8
WEIGHTS = {"default": ("content_weight", (10.0, 30.0, 100.0)), "gatys": ("style_weight", (1e2, 1e4))}


@dataclass(frozen=True)
class Claim:
    """A piece of README.md.

    Attributes
    ----------
    text : str
        "{}" stands for each figure.
    spreads : tuple of float
        By how much each figure may move.
    """

    text: str
    spreads: tuple

    def figures(self, readme):
        """Return the figures that a text shows in this piece, a list of strings."""
        found = re.findall(re.escape(self.text).replace(r"\{\}", NUMBER), readme)
        if len(found) != 1:
            raise ValueError(
                f"README.md has {self.text!r} {len(found)} times, and must once; change figures.py with it"
            )
        return list(found[0] if isinstance(found[0], tuple) else found)


# 1. What is measured -----------------------------------------------------------------------------


def recording(name):
    """Return the distance, the listener and the copying of the default for one recording, and of another take."""
    style, other = metrics.takes(name, RATE)
    made = quality.default(style, length=int(quality.SECONDS * RATE))
    scores = [quality.score_texture(sound, style, other) for sound in (made, other)]
    found = [[each[column] for column in race.COLUMNS] for each in scores]
    print(name, np.round(found, 3).tolist(), flush=True)
    return found


def recordings():
    """Return the means over twelve recordings."""
    default, take = np.mean(quality.in_parallel(recording, metrics.REPORTING), axis=0)
    return [[*default, *take[1:]]]


def transfer(pair):
    """Return by how many percent the default is nearer to the style than the Gatys recipe is, in one transfer."""
    content, style = (quality.excerpt(name) for name in pair)
    found = {}
    for recipe, (setting, weights) in WEIGHTS.items():
        make = quality.default if recipe == "default" else functools.partial(quality.baseline, filters=1024)
        for weight in weights:
            made = make(style, content, **{setting: weight})
            found[f"{recipe}, {weight}"] = quality.score_transfer(made, content, style)
    curves = quality.curves_of(found)
    default, gatys = (quality.at_level(curves[recipe], LEVEL)[0] for recipe in WEIGHTS)
    print(pair, 100 * (1 - default / gatys), flush=True)
    return 100 * (1 - default / gatys)


def transfers():
    """Return the mean over the transfers."""
    return [[np.mean(quality.in_parallel(transfer, PAIRS))]]


def usual():
    """Return how many times as fast the Gatys recipe is as its usual implementation."""
    baseline, here = speed.compare_one(4096, "freq", 10, np.array([True, True]), repeats=2)
    return [[baseline / here]]


def beats():
    """Return the least and the highest share of the rhythm's peak, with and without rhythm, and the listeners."""
    columns, names = rhythm.RHYTHM_COLUMNS, rhythm.RHYTHMIC["reporting"]
    rows = [("reporting", name, weight) for weight in (None, 0.0) for name in names]
    found = np.array(quality.in_parallel(rhythm.rhythm_figures, *zip(*rows, strict=True)))
    print(found.round(3), flush=True)
    with_rhythm, without = found[: len(names)], found[len(names) :]
    shares = [each[:, columns.index("its share")] for each in (with_rhythm, without)]
    listeners = [each[:, columns.index("listener")].mean() for each in (without, with_rhythm)]
    return [[shares[0].min(), shares[0].max(), shares[1].min(), shares[1].max(), *listeners]]


def melody(a, b, notes, other):
    """Return the chroma that is kept and the listener, of each method for one pair of truth.py, and of the truth."""
    content, style, answer = (truth.load_part(name) for name in (f"{a}_{notes}", f"{b}_{other}", f"{b}_{notes}"))
    made = [truth.METHODS[name](style, content) for name in list(truth.METHODS)[:3]] + [answer]
    chroma = [metrics.chroma_kept(sound, content, RATE, feature=librosa.feature.chroma_cqt) for sound in made]
    found = [[kept, metrics.likeness(sound, style, RATE)] for kept, sound in zip(chroma, made, strict=True)]
    print(a, b, np.round(found, 3).tolist(), flush=True)
    return found


def pitch():
    """Return the chroma that is kept in every third pair of truth.py, and the listener without and with pitch."""
    found = quality.in_parallel(melody, *zip(*truth.pairs("reporting")[::3], strict=True))
    default, without, gatys, answer = np.mean(found, axis=0)  # in the order of truth.METHODS
    return [[default[0], without[0], gatys[0], answer[0]], [without[1], default[1]]]


def voice():
    """Return the percents of the frames of a voice that are lost with three content weights."""
    return [[100 * rhythm.voice_figures(2.1, weight)[0] for weight in (100.0, 30.0, 10.0)]]


# 2. Where README.md shows it ---------------------------------------------------------------------


class Part(NamedTuple):
    """What measures some figures, and the pieces of README.md that show them, in the same order."""

    measure: object
    claims: tuple


SOUND = 0.06, 0.02, 0.02  # spreads of distance, listener and copying, as means over textures
PARTS = {
    "recordings": Part(
        recordings,
        (
            Claim(
                "the default has a distance of {}, a listener of {} and a copying of {} (another take 1, {} and {})",
                (*SOUND, *SOUND[1:]),
            ),
        ),
    ),
    "transfers": Part(transfers, (Claim("the default is {} % nearer to the style than the Gatys recipe", (5,)),)),
    "usual": Part(usual, (Claim("the Gatys recipe itself runs {} times as fast here", (3,)),)),
    "beats": Part(
        beats,
        (
            Claim(
                "is {} to {} of the recording's (with `rhythm_weight = 0`: {} to {}), and the listener rises from {} "
                "to {}",
                (0.1, 0.1, 0.1, 0.1, 0.02, 0.02),
            ),
        ),
    ),
    "pitch": Part(
        pitch,
        (
            Claim(
                "with the content's of {} (with `pitch_weight = 0`: {}, Gatys recipe {}, the same melody played by the "
                "other instrument {})",
                (0.02, 0.02, 0.03, 0.005),
            ),
            Claim("the listener goes from {} to {}", (0.02, 0.02)),
        ),
    ),
    "voice": Part(
        voice, (Claim("{} % of the frames with 100, {} % with 30 (the default), and {} % with 10", (1, 1, 2)),)
    ),
}


def compare(claim, measured, readme):
    """Return the rows of the table of one claim, and the rows of its figures that moved by more than their spread."""
    rows = []
    for shown, value, spread in zip(claim.figures(readme), measured, claim.spreads, strict=True):
        moved = abs(value - float(shown)) > spread + 0.5 * 10.0 ** -len(shown.partition(".")[2])  # and its last digit
        where = claim.text.replace("|", "")[:60]
        rows.append((f"| {shown} | {value:.2f} | {spread:g} | {'moved' if moved else ''} | {where} |", moved))
    return [row for row, _ in rows], [row for row, moved in rows if moved]


def main():
    """Measure, and print each figure beside the one in README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without any")
    chosen = parser.parse_args().parts or list(PARTS)
    if set(chosen) - set(PARTS):
        parser.error(f"{', '.join(sorted(set(chosen) - set(PARTS)))}: choose of {', '.join(PARTS)}")
    metrics.listener_network()  # a missing package stops the script here
    readme, began = (ROOT / "README.md").read_text(), time.perf_counter()
    for claim in [claim for name in chosen for claim in PARTS[name].claims]:
        claim.figures(readme)  # a piece that README.md lacks stops the script here
    table, moved = ["| README.md | measured | spread | | where |", "|---|---|---|---|---|"], []
    for name in chosen:
        measure, claims = PARTS[name]
        for claim, measured in zip(claims, measure(), strict=True):
            rows, away = compare(claim, measured, readme)
            table, moved = table + rows, moved + away
    print(*table, "", f"{len(table) - 2} figures in {(time.perf_counter() - began) / 60:.0f} minutes", sep="\n")
    print(
        *(["moved by more than their spread:", *moved] if moved else ["none moved by more than its spread"]), sep="\n"
    )
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main())
