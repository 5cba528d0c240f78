"""Textures of strokes: what is written, what the files sound like, and the rows of the tables that use the textures."""

import librosa
import numpy as np
import pytest

import metrics
import quality
import rhythm
import strokes
import truth

HALVES = ["tuning", "reporting"]


def test_six_rhythmic_and_six_ringing_textures_in_each_half_without_a_common_instrument():
    for table in (rhythm.RHYTHMIC, strokes.RINGING):
        assert min(len(table[half]) for half in HALVES) >= 6 and not set(table["tuning"]) & set(table["reporting"])
    keys = [
        {(program, *((key,) if program is None else ())) for program, struck, _ in table.values() for key in struck}
        for table in (strokes.RINGING[half] for half in HALVES)
    ]
    drums = [
        {int(row.split("/")[0]) for _, pattern in table.values() for row in pattern.split() if row != "-"}
        for table in (strokes.RHYTHMIC[half] | truth.PERCUSSION[half] for half in HALVES)
    ]
    assert not keys[0] & keys[1] and not drums[0] & drums[1]


def test_two_takes_have_the_same_notes_equally_often_at_other_times():
    first, second = (strokes.ringing((60, 64, 67), 4.0, seed=seed) for seed in (1, 2))
    assert first == strokes.ringing((60, 64, 67), 4.0, seed=1) != second
    for take in (first, second):
        times, _, keys, velocities = zip(*take, strict=True)
        assert list(times) == sorted(times) and max(times) < 7 and min(velocities) > 0 and max(velocities) < 128
        counts = [keys.count(key) for key in (60, 64, 67)]
        assert max(counts) - min(counts) <= 1 and 4.0 * 7 * 0.75 < len(take) < 4.0 * 7 * 1.25
    assert not set(np.round([stroke[0] for stroke in first[1:]], 3)) & {round(stroke[0], 3) for stroke in second[1:]}


def read(track):
    """Events of a MIDI track as tuples (ticks, bytes), read by the format's rules."""
    at, now, found = 0, 0, []
    while at < len(track):
        delta = 0
        while True:
            delta, more, at = delta << 7 | track[at] & 0x7F, track[at] & 0x80, at + 1
            if not more:
                break
        now += delta
        size = {0xC0: 2, 0x90: 3, 0x80: 3, 0xF0: 3}[track[at] & 0xF0]
        found.append((now, track[at : at + size]))
        at += size
    return found


@pytest.mark.parametrize(("program", "channel"), [(14, 0), (None, 9)])
def test_a_midi_file_holds_the_notes_that_are_written(program, channel):
    data = strokes.midi(program, [(0.25, 7.0, 60, 100), (3.0, 3.5, 64, 80)], 7.0)
    assert data[:14] == b"MThd\0\0\0\x06\0\0\0\x01" + (480).to_bytes(2, "big") and data[14:18] == b"MTrk"
    assert int.from_bytes(data[18:22], "big") == len(data) - 22
    expected = [
        (0, bytes([0xC0 + channel, program or 0])),
        (240, bytes([0x90 + channel, 60, 100])),
        (2880, bytes([0x90 + channel, 64, 80])),
        (3360, bytes([0x80 + channel, 64, 0])),
        (6720, bytes([0x80 + channel, 60, 0])),
        (6720, b"\xff\x2f\x00"),
    ]
    assert read(data[22:]) == expected  # 960 ticks a second at the usual tempo of 120


@pytest.mark.parametrize("half", HALVES)
def test_ringing_textures_sound_their_notes_and_are_two_takes_of_one_texture(half):
    """The takes are much more like each other than like any other texture of the half, and are not copies."""
    sounds = {name: [truth.load_part(f"{name}_{n}") for n in (1, 2)] for name in strokes.RINGING[half]}
    for name, (program, keys, _) in strokes.RINGING[half].items():
        one, other = sounds[name]
        like = metrics.likeness(other, one, truth.RATE)
        others = [metrics.likeness(takes[1], one, truth.RATE) for title, takes in sounds.items() if title != name]
        assert like > 0.9 and like > max(others) + 0.05, name
        assert metrics.copy_score(other, one, truth.RATE) < 0.9
        if program is not None and name != "church_bell":  # a bell's strike tone is not a partial
            chroma = librosa.feature.chroma_cqt(y=one, sr=truth.RATE, tuning=0).mean(axis=1)
            struck = {key % 12 for key in keys}
            assert min(chroma[n] for n in struck) > np.median([chroma[n] for n in set(range(12)) - struck]), name


@pytest.mark.parametrize("half", HALVES)
def test_rhythmic_textures_repeat_with_the_period_that_is_written(half):
    for name, (unit, pattern) in strokes.RHYTHMIC[half].items():
        curve = metrics.rhythm_curve(truth.load_part(name), truth.RATE)
        lag = round(100 * unit * len(pattern.split())) - 8
        assert curve[lag - 2 : lag + 3].max() > 0.5 * max(curve.max(), 0.8), name


def test_rows_of_the_tables_have_the_means_of_each_half(monkeypatch):
    """The ratio in a row of means is the ratio of the means."""
    monkeypatch.setattr(quality, "in_parallel", lambda function, *columns: list(map(function, *columns)))
    likes = {name: 0.5 + 0.05 * n for n, name in enumerate([*strokes.RINGING["tuning"], *strokes.RINGING["reporting"]])}
    monkeypatch.setattr(
        rhythm,
        "ringing_figures",
        lambda half, name, changes: (
            *(likes[name] + 0.25 * [*rhythm.LONGER].index(changes), 0.9 if half == "tuning" else 1.0),
            *(0, 1, 2, 3, 4),
        ),
    )
    rows = rhythm.compare_ringing()
    assert len(rows) == 2 + 12 + 6 and {row.count("|") for row in rows} == {rows[0].count("|")}
    assert rows[14].startswith(f"| tuning | mean | 0.62 | 0.90 | {0.625 / 0.9:.2f} | 1.00 | 2.00 |")
    assert rows[-2].startswith(f"| tuning | mean, N_FFT 1024 and K_HOP 256 | 1.12 | 0.90 | {1.125 / 0.9:.2f} | 1.00 |")
    monkeypatch.setattr(
        rhythm, "rhythm_figures", lambda half, name, weight: [float(half == "tuning") + (weight is None)] * 7
    )
    rows = rhythm.compare_rhythm()
    assert {row.count("|") for row in rows} == {rows[0].count("|")}
    assert [row.split("|")[4].strip() for row in rows[-4:]] == ["1.00", "2.00", "0.00", "1.00"]


def test_figures_of_a_texture_and_its_sounds_for_the_gallery(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "ROOT", tmp_path)
    short = dict(num_steps=2, refine_steps=1, filters=8)
    whole = quality.default
    monkeypatch.setattr(quality, "default", lambda style, **changes: whole(style, **(short | changes)))
    figures = rhythm.ringing_figures("tuning", "triangle")
    assert len(figures) == len(rhythm.RINGING_COLUMNS) and np.isfinite(figures).all()
    assert figures[2] == pytest.approx(figures[0] / figures[1]) and figures[0] < figures[1]
    assert len(rhythm.rhythm_figures("tuning", "agogo", None)) == len(rhythm.RHYTHM_COLUMNS)
    saved = {str(path.relative_to(tmp_path / "outputs/benchmarks")) for path in tmp_path.glob("outputs/**/*.flac")}
    assert saved == {
        *(f"ringing/triangle/{title}.flac" for title in ("recording", "another take", "default")),
        *(f"rhythm/agogo/{title}.flac" for title in ("recording", "default")),
    }
