"""Published sounds, side by side: python benchmarks/published.py SET FOLDER.

A set is what the authors of another method published: recordings, and what their method made of them. SETS says where
each set comes from, under which licence, and which figures its authors give. The user downloads the set into FOLDER;
nothing of a set is part of this project.

The default makes 5 s from the first 5 s of each recording. The method's own output is judged over the same 5 s of
time, beside another take: the last 5 s of the recording. All sounds are at 22,050 Hz and at the level of the recording.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import metrics
import quality
from report import write_section
from texstat import texstat

# isort: split
from support.sound.files import load_audio

RATE, SECONDS = quality.RATE, quality.SECONDS
SKIPPED = 0.25  # s at either end of a recording
BEAT = 0.4  # the rhythm's peak from which a recording has a rhythm to keep: steady noise has .1 to .2


@dataclass(frozen=True)
class PublishedSet:
    """What is published of a method.

    Attributes
    ----------
    method, repository, licence : str
    recording, output : str
        Names of files in the folder, where "*" stands for the name of a sound.
    figures : dict
        From the name of a measure to the published figure of each sound.
    """

    method: str
    repository: str
    licence: str
    recording: str
    output: str
    figures: dict


NAMES = ("bubbles", "fire", "keyboard", "rain", "river", "shards", "waterfall", "wind")
SETS = {
    "texdsp": PublishedSet(
        method="TexDSP",
        repository="github.com/cordutie/tex_framework, commit e05da34, assets/audios/texdsp_resynthesis",
        licence="MIT",
        recording="*.mp3",
        output="*_resynth.mp3",
        figures={
            "TexStat": dict(zip(NAMES, (1.2, 2.9, 5.7, 0.5, 0.5, 1.0, 0.3, 0.8), strict=True)),
            "FAD": dict(zip(NAMES, (35.2, 12.1, 13.0, 11.7, 52.7, 4.6, 18.2, 9.7), strict=True)),
        },
    ),
}
COLUMNS = ("distance ratio", "listener", "copy score", "onsets followed", "rhythm", "TexStat")


def read_sounds(chosen, folder, name):
    """Return a recording's first 5 s, another take of it, and the method's output at the time of the first.

    Parameters
    ----------
    chosen : PublishedSet
    folder : Path
    name : str
        Of the sound.

    Returns
    -------
    recording, other, output : np.ndarray [shape=(n,)]
        Of one level.
    """
    paths = [folder / pattern.replace("*", name) for pattern in (chosen.recording, chosen.output)]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing; download the set from {chosen.repository} into this folder")
    whole, output = (load_audio(path, sample_rate=RATE) for path in paths)
    begin, end = round(SKIPPED * RATE), len(whole) - round(SKIPPED * RATE)
    length = min(round(SECONDS * RATE), (end - begin) // 2, len(output) - begin)
    if length <= 2 * RATE:
        raise ValueError(f"{name} is too short: 2 takes of more than 2 s are needed; take a longer recording")
    recording = whole[begin : begin + length]
    return recording, *(at_level(each, recording) for each in (whole[end - length : end], output[begin:][:length]))


def at_level(samples, reference):
    """Return samples at the reference's level as a whole."""
    return samples * (np.sqrt(np.mean(reference**2)) / max(np.sqrt(np.mean(samples**2)), 1e-9))


def score(samples, recording, other):
    """Return the figures of one sound, a dict by the names in COLUMNS; rhythm is nan where the recording has none."""
    peak = metrics.rhythm_peak(recording, RATE)
    values = (
        metrics.statistics_distance(samples, recording, other, RATE),
        metrics.likeness(samples, recording, RATE),
        metrics.copy_score(samples, recording, RATE),
        metrics.onsets_kept(samples, recording, RATE),
        metrics.rhythm_peak(samples, RATE) / peak if peak >= BEAT else np.nan,
        texstat(samples, recording, RATE),
    )
    return dict(zip(COLUMNS, values, strict=True))


def compare(chosen, folder, **changes):
    """Return the rows of the table: another take, the method's output, and the default's with some changes.

    Columns without any figure, such as the rhythm where no recording has one, are left out.
    """
    names = list(next(iter(chosen.figures.values())))
    sounds = [read_sounds(chosen, folder, name) for name in names]  # a missing file stops the script here
    methods, figures = ("another take", chosen.method, "default"), []
    for name, (recording, other, output) in zip(names, sounds, strict=True):
        made = at_level(quality.default(recording, length=len(recording), **changes), recording)
        figures.append([[*score(each, recording, other).values()] for each in (other, output, made)])
        print(name, figures[-1], flush=True)
    published = np.full((len(names), len(methods), len(chosen.figures)), np.nan)
    published[:, 1] = np.transpose([list(figure.values()) for figure in chosen.figures.values()])
    table = np.ma.masked_invalid(np.concatenate([figures, published], axis=2))
    shown = ~table.mask.all(axis=(0, 1))
    titles = np.array([*COLUMNS, *(f"published {figure}" for figure in chosen.figures)])[shown]
    rows = [f"| sound | method | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    for name, values in zip([*names, "**mean**"], [*table, table.mean(axis=0)], strict=True):
        rows += [_row(name, *each) for each in zip(methods, values[:, shown].filled(np.nan), strict=True)]
    return rows


def _row(name, method, values):
    cells = ("" if np.isnan(value) else f"{value:.2f}" for value in values)
    return f"| {name} | {method} | {' | '.join(cells)} |"


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    metrics.listener_network()  # a missing package stops the script here
    began = time.perf_counter()
    rows = compare(SETS[arguments.set], arguments.folder)
    print(f"{time.perf_counter() - began:.0f} s with {torch.get_num_threads()} threads")
    write_section(arguments.set, rows)


if __name__ == "__main__":
    main()
