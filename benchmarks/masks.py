"""What masks keep, gaps that are filled, blends over time: python benchmarks/masks.py TABLE, see below.

kept: transfers of 5 s of which only a part changes: how far beyond the interval a sample differs, and how much bands
that are kept differ. shares: two noises, in bands apart, of which one becomes the other: the share in each second.

gaps: ten recordings lose 0.2, 0.8 and 1.5 s in the middle of 6 s, and ten longer ones 3 s of 7, behind 3.7 s. The gap
is filled by the default, by noise of the recording's spectrum, and by the passage of the rest whose surroundings fit
best, faded in and out; beside the recording's own missing part.

cost: processor time and memory of masks, curves and folders against a plain texture.

sounds: no table, but the sounds that gallery.py shows: two filled gaps, rain that becomes fire, and a voice of which
only what lies above 2 kHz becomes rain. They are saved under outputs/benchmarks/only_a_part/.
"""

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import librosa
import numpy as np
import scipy.signal
import soundfile
import torch

import metrics
import quality
from report import ROOT, write_section

# isort: split
from support import pipeline
from support.desk.settings import Settings
from support.sound.files import load_audio

RATE = quality.RATE
RECORDINGS = (
    "brook",
    "rain",
    "fire",
    "applause",
    "frogs",
    "furnace",
    "babble",
    "birdsong",
    "vinyl_crackle",
    "laughter",
)
LONGER = (  # of more than 7 s, because a copy of 3 s needs a passage as long
    "bells",
    "singing",
    "birdsong",
    "choir",
    "fire",
    "furnace",
    "guitar_classical",
    "piano",
    "orchestra_1936",
    "vinyl_crackle",
)
# By the seconds of a gap: the recordings, their length and the middle of the gap [s].
GAPS = dict.fromkeys((0.2, 0.8, 1.5), (RECORDINGS, 6.0, 3.0)) | {3.0: (LONGER, 7.0, 5.2)}
FADE = 0.02  # s
METHODS = ("own missing part", "default", "noise", "copy")


def filled(recording, gap, method):
    """Return a recording [shape=(n,)] whose gap, a slice, is filled by a method, and what counts as its rest."""
    rest = np.concatenate([recording[: gap.start], recording[gap.stop :]])
    if method == "own missing part":
        return recording, rest
    silent = recording.copy()
    silent[gap] = 0
    if method == "default":
        seconds = [gap.start / RATE, gap.stop / RATE]
        settings = Settings(where={"change": {"seconds": [seconds]}}, threads=1)
        return pipeline.synthesise(settings, {"style 1": silent}), rest
    fade, length = round(FADE * RATE), gap.stop - gap.start
    if method == "noise":
        new = metrics.matched_noise(rest)[: length + 2 * fade]
    else:
        first = best_place(recording, gap)
        new = recording[first - fade : first + length + fade]
    rise = np.sqrt(np.linspace(0, 1, fade))
    gains = np.concatenate([rise, np.ones(length), rise[::-1]])
    around = slice(gap.start - fade, gap.stop + fade)
    made = silent.copy()
    made[around] = gains * new + np.sqrt(1 - gains**2) * silent[around]
    return made, rest


def best_place(recording, gap, context=0.1):
    """Return where the passage begins whose surroundings are most like those of the gap, by log spectrograms."""
    hop, length = 256, gap.stop - gap.start
    spectrogram = librosa.amplitude_to_db(np.abs(librosa.stft(recording, n_fft=1024, hop_length=hop)), top_db=80)
    near, long = round(context * RATE / hop), round(length / hop)
    first = round(gap.start / hop)

    def surroundings(start):
        before, behind = spectrogram[:, start - near : start], spectrogram[:, start + long : start + long + near]
        return np.concatenate([before, behind], axis=1)

    wanted, last = surroundings(first), spectrogram.shape[1] - long - near - 1
    places = [start for start in range(near + 2, last) if abs(start - first) >= long + near]
    return hop * min(places, key=lambda start: np.abs(surroundings(start) - wanted).mean())


def click(samples, place, near=64):
    """Return how far samples around a place can't be predicted, as a share of the worst of 100 places elsewhere."""
    error = np.abs(np.convolve(samples, librosa.lpc(samples.astype(np.float64), order=16))[: len(samples)])
    elsewhere = [error[k - near : k + near].max() for k in range(4 * near, len(samples) - 4 * near, near)]
    return error[place - near : place + near].max() / np.percentile(elsewhere, 99)


def recording_with_gap(name, seconds):
    """Return the beginning of a sample, and the slice that is missing."""
    _, length, middle = GAPS[seconds]
    recording = load_audio(ROOT / f"samples/{name}.flac", sample_rate=RATE, offset=0.25, duration=length)
    middle, half = round(middle * RATE), round(seconds * RATE / 2)
    return recording, slice(middle - half, middle + half)


def gap_figures(name, seconds):
    """Return the figures of each method: distance, likeness and copy score of the gap, level [dB], worst click."""
    recording, gap = recording_with_gap(name, seconds)
    around = RATE // 4
    seen = slice(gap.start - around, gap.stop + around)
    rows = {}
    for method in METHODS:
        made, rest = filled(recording, gap, method)
        level = 20 * np.log10(made[gap].std() / recording[gap].std())
        clicks = max(click(made, gap.start), click(made, gap.stop))
        rows[method] = (
            metrics.difference(made[seen], rest, RATE),
            metrics.likeness(made[seen], rest, RATE),
            metrics.copy_score(made[seen], rest, RATE),
            abs(level),
            clicks,
        )
        print(name, seconds, method, np.round(rows[method], 2), flush=True)
    return rows


def compare_gaps():
    """Return the rows of the table: means over the recordings."""
    rows = ["| gap | filled by | distance | listener | copy score | level | click |", "|---|---|---|---|---|---|---|"]
    jobs = [(name, seconds) for seconds, (names, *_) in GAPS.items() for name in names]
    found = dict(zip(jobs, quality.in_parallel(gap_figures, *zip(*jobs, strict=True)), strict=True))
    for seconds, method in itertools.product(GAPS, METHODS):
        mean = np.mean([found[name, seconds][method] for name in GAPS[seconds][0]], axis=0)
        rows.append("| {:g} s | {} | {:.2f} | {:.2f} | {:.2f} | {:.1f} dB | {:.2f} |".format(seconds, method, *mean))
    return rows


CHANGES = {
    "seconds 2 to 3": {"seconds": [[2.0, 3.0]]},
    "above 2 kHz": {"hertz": [[2000, 11025]]},
    "seconds 2 to 3, from 500 to 2000 Hz": {"seconds": [[2.0, 3.0]], "hertz": [[500, 2000]]},
}
PAIRS = (("speech", "rain"), ("piano", "fire"), ("guitar", "applause"))


def kept_figures(content, style, change):
    """Return how far samples differ before and behind the interval [ms], and the difference of kept bands [dB]."""
    settings = Settings(
        CONTENT_FILENAME=ROOT / f"samples/{content}.flac",
        STYLE_FILENAME=ROOT / f"samples/{style}.flac",
        where={"change": CHANGES[change]},
        threads=1,
    )
    recordings = settings.load()
    made, kept = pipeline.synthesise(settings, recordings), recordings["content"]
    places = np.flatnonzero(made != kept) / RATE
    first, last = CHANGES[change].get("seconds", [[0.0, len(kept) / RATE]])[0]
    low, high = CHANGES[change].get("hertz", [[0.0, RATE / 2]])[0]
    frequencies, power = scipy.signal.welch(np.stack([made - kept, kept]), RATE, nperseg=2048)
    beyond = (frequencies < 0.9 * low - 100) | (frequencies > 1.1 * high + 100)
    leak = 10 * np.log10(power[0, beyond].sum() / power[1, beyond].sum()) if beyond.any() else np.nan
    inside = 10 * np.log10(power[0, ~beyond].sum() / power[1, ~beyond].sum())
    clicks = [click(made, round(second * RATE)) for second in (first, last) if 0.1 < second < len(kept) / RATE - 0.1]
    return 1e3 * (first - places.min()), 1e3 * (places.max() - last), leak, inside, max(clicks, default=np.nan)


def compare_kept():
    """Return the rows of the table: the worst of three transfers."""
    rows = ["| what changes | before | behind | kept bands | what changed | click |", "|---|---|---|---|---|---|"]
    jobs = [(*pair, change) for change in CHANGES for pair in PAIRS]
    found = dict(zip(jobs, quality.in_parallel(kept_figures, *zip(*jobs, strict=True)), strict=True))
    for change in CHANGES:
        before, behind, leak, inside, clicks = np.max([found[(*pair, change)] for pair in PAIRS], axis=0)
        cells = f"{before:.0f} ms | {behind:.0f} ms | {leak:.0f} dB | {inside:.0f} dB | {clicks:.2f}"
        rows.append(f"| {change} | {cells} |".replace("nan dB", "-").replace("nan", "-"))
    return rows


def compare_shares():
    """Return the rows of the table: the share of the second noise in each second, by the magnitudes of each band."""
    sounds, bands = [], ((300, 600), (3000, 6000))
    for seed, band in enumerate(bands):
        sections = scipy.signal.butter(4, band, "band", fs=RATE, output="sos")
        samples = scipy.signal.sosfilt(sections, np.random.default_rng(seed).standard_normal(5 * RATE))
        sounds.append((0.1 * samples / samples.std()).astype(np.float32))
    blend, seconds = [[0, [1, 0]], [2, [1, 0]], [8, [0, 1]], [10, [0, 1]]], range(10)
    settings = Settings(STYLE_FILENAME=["low", "high"], style_blend=blend, result_duration=10.0, threads=1)
    made = pipeline.synthesise(settings, {"style 1": sounds[0], "style 2": sounds[1]})
    analysis = settings.make_analysis()
    frequencies, hop = analysis.transform.frequencies, analysis.transform.hop_length
    rows = [f"| second | {' | '.join(map(str, seconds))} |", "|---" * 11 + "|"]
    asked = [np.interp(np.linspace(second, second + 1, 101), [2, 8], [0, 1]).mean() for second in seconds]
    rows.append(f"| asked | {' | '.join(f'{each:.2f}' for each in asked)} |")
    for number, (low, high) in enumerate(bands):
        inside = (frequencies > 1.1 * low) & (frequencies < 0.9 * high)
        first, last, found = (analysis.spectrogram(each)[inside].mean(axis=0) for each in (*sounds, made))
        parts = [found[second * RATE // hop : (second + 1) * RATE // hop].mean() for second in seconds]
        shares = (np.array(parts) - first.mean()) / (last.mean() - first.mean())
        rows.append(f"| found in band {number + 1} | {' | '.join(f'{each:.2f}' for each in shares)} |")
    return rows


GAPPED = {"birdsong with a filled gap": "birdsong", "brook with a filled gap": "brook"}
PARTS = {
    "rain becomes fire": dict(
        STYLE_FILENAME=["samples/rain.flac", "samples/fire.flac"],
        style_blend=[[0, [1, 0]], [10, [0, 1]]],
        result_duration=10.0,
    ),
    "speech with rain above 2 kHz": dict(
        CONTENT_FILENAME="samples/speech.flac",
        STYLE_FILENAME="samples/rain.flac",
        where={"change": CHANGES["above 2 kHz"]},
    ),
}


def save_parts():
    """Make sounds of which only a part changes, and save them for gallery.py."""
    for row, name in GAPPED.items():
        recording, gap = recording_with_gap(name, 0.8)
        silent = recording.copy()
        silent[gap] = 0
        sounds = {"the recording": recording, "with a gap of 0.8 s": silent}
        sounds["filled"], _ = filled(recording, gap, "default")
        quality.save_sounds(f"only_a_part/{row}", sounds, {})
    for row, changes in PARTS.items():
        settings = Settings(**changes, threads=1)
        recordings = settings.load()
        styles = [Path(file).stem for file in np.atleast_1d(changes["STYLE_FILENAME"])]
        sounds = {name: recordings[f"style {number}"] for number, name in enumerate(styles, start=1)}
        if "content" in recordings:
            sounds[Path(changes["CONTENT_FILENAME"]).stem] = recordings["content"]
        sounds[row] = pipeline.synthesise(settings, recordings)
        quality.save_sounds(f"only_a_part/{row}", sounds, {})


COSTS = {
    "a texture of 5 s": {},
    "0.8 s of it change": dict(where={"change": {"seconds": [[2.0, 2.8]]}}),
    "what lies above 2 kHz changes": dict(where={"change": {"hertz": [[2000, 11025]]}}),
    "the second half goes on from the first": dict(where={"change": {"seconds": [[2.5, 5.0]]}}),
    "a folder of 20 files of a minute": dict(STYLE_FILENAME="FOLDER"),
    "two styles, a blend": dict(STYLE_FILENAME=["samples/rain.flac", "samples/fire.flac"], style_blend=[1, 1]),
    "two styles, one becomes the other": dict(
        STYLE_FILENAME=["samples/rain.flac", "samples/fire.flac"], style_blend=[[0, [1, 0]], [5, [0, 1]]]
    ),
    "a transfer of 5 s": dict(CONTENT_FILENAME="samples/speech.flac"),
    "0.8 s of the transfer change": dict(
        CONTENT_FILENAME="samples/speech.flac", where={"change": {"seconds": [[2.0, 2.8]]}}
    ),
    "the content counts below 1 kHz": dict(
        CONTENT_FILENAME="samples/speech.flac", where={"content": {"hertz": [[0, 1000]]}}
    ),
    "the content fades out": dict(CONTENT_FILENAME="samples/speech.flac", content_weight=[[0, 30], [5, 0]]),
}


def measure_cost(name):
    """Return the processor time of a run [s] and the largest memory of its process [GB], in a process of its own."""
    command = [sys.executable, __file__, "one", name]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [float(each) for each in said[-2:]]


def run_one(name):
    """Make one row's sound, and print its processor time and memory."""
    torch.set_num_threads(1)
    changes = dict(COSTS[name])
    with tempfile.TemporaryDirectory() as folder:
        if changes.get("STYLE_FILENAME") == "FOLDER":
            recording = load_audio(ROOT / "samples/rain.flac", sample_rate=RATE)
            for number in range(20):
                minute = np.resize(np.roll(recording, 5000 * number), 60 * RATE)
                soundfile.write(Path(folder) / f"{number}.flac", minute, RATE)
            changes["STYLE_FILENAME"] = folder
        began = time.process_time()
        pipeline.run(Settings(**changes, threads=1))
    print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def main():
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("kept", "gaps", "shares", "cost", "one", "sounds"))
    parser.add_argument("name", nargs="?", help="a row of cost, which prints its time and memory alone")
    given = parser.parse_args()
    if given.table == "one":
        run_one(given.name)
    elif given.table == "sounds":
        save_parts()
    elif given.table == "gaps":
        metrics.listener_network()  # a missing package stops the script here
        write_section("gaps", compare_gaps())
    elif given.table in ("kept", "shares"):
        write_section(given.table, compare_kept() if given.table == "kept" else compare_shares())
    else:
        rows = ["| | core time [s] | memory [GB] |", "|---|---|---|"]
        rows += ["| {} | {:.1f} | {:.2f} |".format(name, *measure_cost(name)) for name in COSTS]
        write_section("masks", rows)


if __name__ == "__main__":
    main()
