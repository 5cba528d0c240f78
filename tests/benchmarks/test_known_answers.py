"""Transfers whose right answer is known: parts that sound as they are written, pairs, distances, and a short run."""

import itertools

import librosa
import numpy as np
import pytest
import soundfile

import metrics
import mosaic
import quality
import strokes
import truth


def test_halves_share_nothing_and_all_parts_are_there():
    for table in (truth.INSTRUMENTS, truth.MELODIES, truth.PERCUSSION, truth.BELLS, strokes.RHYTHMIC, strokes.RINGING):
        assert not set(table["tuning"]) & set(table["reporting"])
    files = list(truth.PARTS.glob("*.flac"))
    assert {path.stem for path in files} == set(truth.all_parts()) | set(strokes.all_textures())
    assert sum(path.stat().st_size for path in files) < 6e6
    sources = (truth.PARTS / "SOURCES.md").read_text()
    for table in (truth.INSTRUMENTS, truth.MELODIES, truth.PERCUSSION, truth.BELLS, strokes.RHYTHMIC, strokes.RINGING):
        assert all(name in sources for half in table.values() for name in half)
    for path in files:
        info = soundfile.info(path)
        rate = 22050 if path.stem in strokes.all_textures() else 16000
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (rate, 1, 5 * rate, "PCM_16")


@pytest.mark.parametrize("half", ["tuning", "reporting"])
def test_pairs_are_different_and_every_instrument_plays_as_often(half):
    pairs = truth.pairs(half)
    assert len(pairs) == len(set(pairs)) == 30
    assert all(a != b and content != style for a, b, content, style in pairs)
    assert {pair[:2] for pair in pairs} == set(itertools.permutations(truth.INSTRUMENTS[half], 2))
    for place, names in ((0, truth.INSTRUMENTS), (1, truth.INSTRUMENTS), (2, truth.MELODIES), (3, truth.MELODIES)):
        counts = [[pair[place] for pair in pairs].count(name) for name in names[half]]
        assert max(counts) - min(counts) <= 1 or (place > 1 and min(counts) >= 5)


def test_notes_have_the_length_of_their_beats():
    found = truth.notes("C4 E4+G4:.5 -:2 A4:1.5")
    assert [note[2] for note in found] == [60, 64, 67, 69]
    assert [note[0] for note in found] == pytest.approx([0, 1, 1, 3.5])
    assert [note[1] for note in found] == pytest.approx([0.95, 1.475, 1.475, 4.925])
    assert {note[1] for note in truth.notes("C4 D4", ring=True)} == {5.0}


def roll(played, frames):
    """What is written, as chroma [shape=(12, frames)]."""
    chroma = np.zeros((12, frames))
    for begin, end, key, _ in played:
        chroma[key % 12, round(begin / truth.SECONDS * frames) : round(end / truth.SECONDS * frames)] = 1
    return chroma


def test_parts_sound_the_notes_that_are_written():
    """The chroma of a part is most like that of its own notes, among the notes of all parts and a semitone higher."""
    parts = {name: played for name, (program, played) in truth.all_parts().items() if program is not None}
    for name in parts:
        chroma = librosa.feature.chroma_cqt(y=truth.load_part(name), sr=truth.RATE, tuning=0)
        written = {other: roll(played, chroma.shape[1]) for other, played in parts.items()}
        written["higher"] = np.roll(written[name], 1, axis=0)
        like = {other: np.corrcoef(chroma.ravel(), each.ravel())[0, 1] for other, each in written.items()}
        others = [like[other] for other in like if other == "higher" or parts[other] != parts[name]]
        assert like[name] > max(others) + 0.05, name


@pytest.mark.parametrize("half", ["tuning", "reporting"])
def test_percussion_has_the_rhythm_that_is_written(half):
    for name, (unit, pattern) in truth.PERCUSSION[half].items():
        curve = metrics.rhythm_curve(truth.load_part(name), truth.RATE)
        period = unit * len(pattern.split())
        assert curve.max() > 0.5, name
        lag = round(100 * min(period, 2.0)) - 8
        assert curve[lag - 2 : lag + 3].max() > 0.4, name


@pytest.mark.parametrize("half", ["tuning", "reporting"])
def test_chroma_hears_the_melody_whatever_plays_it(half):
    for a, b, melody, other in truth.pairs(half)[::6]:
        content, style, right = map(truth.load_part, (f"{a}_{melody}", f"{b}_{other}", f"{b}_{melody}"))
        kept, lost = (
            metrics.chroma_kept(each, content, truth.RATE, feature=librosa.feature.chroma_cqt)
            for each in (right, style)
        )
        assert kept > 0.55 and kept > lost + 0.3


def test_the_distance_to_the_truth_is_that_of_a_known_filter():
    """Below 4 kHz 20 dB less; both sounds are brought to one power, so that the bands above rise by c dB."""
    noise = np.random.default_rng(0).standard_normal(5 * truth.RATE).astype("f4")
    spectrum, frequencies = np.fft.rfft(noise), np.fft.rfftfreq(len(noise), 1 / truth.RATE)
    filtered = np.fft.irfft(spectrum * np.where(frequencies < 4000, 0.1, 1)).astype("f4")
    centres = librosa.mel_frequencies(130, fmax=8000)[1:-1]
    low, c = np.mean(centres < 4000), -10 * np.log10(0.5 * 0.01 + 0.5)
    expected = low * (20 - c) + (1 - low) * c
    assert truth.truth_distance(filtered, noise) == pytest.approx(expected, rel=0.03)
    assert truth.truth_distance(5 * noise, noise) == pytest.approx(0, abs=1e-2)


def test_the_truth_is_right_and_a_short_run_has_all_figures(tmp_path, monkeypatch):
    """The melody by B is right in pitch and sound, the content has the distance 1."""
    monkeypatch.setattr(quality, "ROOT", tmp_path)
    methods = {
        "default": lambda style, content: quality.default(style, content, num_steps=2, refine_steps=1, filters=8),
        "mosaicing": lambda style, content: mosaic.mosaic(content, style, sample_rate=truth.RATE, iterations=2),
    }
    figures = truth.make_pair("violin", "marimba", "minuet", "frere_jacques", methods)
    assert figures["truth"]["distance to the truth"] == pytest.approx(0, abs=1e-4)
    assert figures["truth"]["pitch error [cents]"] == 0 and figures["truth"]["within 50 cents"] == 1
    assert figures["content"]["distance to the truth"] == pytest.approx(1) == figures["content"]["onsets kept"]
    assert figures["truth"]["like B"] > figures["content"]["like B"] + 0.3
    assert np.isfinite([list(each.values()) for each in figures.values()]).all()
    saved = {path.stem for path in tmp_path.glob("outputs/benchmarks/truth/*/*.flac")}
    assert saved == {"style", "content", "truth", "default", "mosaicing"}


def test_means_and_counts_of_pairs():
    first, second = (
        {method: dict(zip(truth.COLUMNS, [distance, 0.4, 1, 0, 0, 40.0, 1], strict=True)) for method, distance in each}
        for each in (
            [("truth", 0.0), ("content", 1.0), ("default", 0.8), ("mosaicing", 0.9)],
            [("truth", 0.0), ("content", 1.0), ("default", 0.7), ("mosaicing", 0.6)],
        )
    )
    first["default"]["pitch error [cents]"] = np.nan  # where pYIN finds the truth unvoiced
    rows = truth.mean_rows([first, second])
    assert rows[0].startswith("| mean of 2 pairs | distance to the truth | style left |")
    assert rows[4].startswith("| default | 0.75 | 0.40 | 1.00 | 0.00 | 0.00 | 40.00 |")
    assert truth.count_rows([first, second])[2:] == ["| content | 2 of 2 |", "| mosaicing | 1 of 2 |"]
