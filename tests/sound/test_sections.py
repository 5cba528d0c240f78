"""Long results: sections of 2 s take the place of those of half a minute."""

import json

import librosa
import numpy as np
import pytest
import soundfile
from kernel import sample

from support import pipeline
from support.desk import saving, streams, truth
from support.desk import settings as settings_module
from support.desk.settings import Settings
from support.sound import sections

RATE = 22050
SMALL = dict(filters=24, widths=(1, 4, 16), num_steps=12, refine_steps=12, phase_iterations=8, device="cpu", threads=1)


@pytest.fixture(autouse=True)
def short_sections(monkeypatch):
    monkeypatch.setattr(settings_module, "LONG", 3.0)
    monkeypatch.setattr(sections, "SECTION", 2.0)


def long_settings(**changes):
    given = dict(STYLE_FILENAME=sample("water_stream"), duration=2.0, result_duration=5.5)
    return Settings(**SMALL | given | changes)


def jumps(samples, places, near=64):
    """The worst error of a linear prediction near each place, as a share of the worst 1 % elsewhere."""
    error = np.abs(np.convolve(samples.astype(np.float64), librosa.lpc(samples.astype(np.float64), order=16)))
    blocks = error[: len(error) // (2 * near) * 2 * near].reshape(-1, 2 * near).max(axis=1)
    return [error[place - near : place + near].max() / np.percentile(blocks, 99) for place in places]


def test_the_measure_sees_a_cut():
    tone = np.sin(2 * np.pi * 440.5 * np.arange(22050) / 22050) + 0.001 * np.random.default_rng(0).normal(size=22050)
    assert jumps(np.concatenate([tone[:10000], tone[10020:]]), [10000])[0] > 5


def places_of_seams(settings):
    """Where new samples begin, half a window and a fade before the end of each section."""
    ends = sections.ends_of(settings.length_of_long, RATE)[:-1]
    return [end - back for end in ends for back in (0, 256, 256 + round(0.02 * RATE))]


@pytest.mark.parametrize("name", ["water_stream", "fire", "singing"])
def test_sections_meet_without_a_jump(name):
    settings = long_settings(STYLE_FILENAME=sample(name))
    samples = pipeline.synthesise(settings)
    assert len(samples) == round(5.5 * RATE)
    assert max(jumps(samples, places_of_seams(settings))) < 1.2
    levels = [np.std(part) for part in np.array_split(samples, 6)]
    assert max(levels) < 2 * min(levels) or name == "singing"


def test_what_is_there_stays_but_for_the_last_moment():
    settings = long_settings()
    first = sections.begun(pipeline.run(settings).samples.numpy())

    def make(section):
        return pipeline.run(settings, section=section).samples.numpy()

    found = dict(sections.go_on(make, first, len(first), length=settings.length_of_long, sample_rate=RATE))
    sound, kept = first, round(0.5 * RATE)
    same = kept - 256 - round(0.02 * RATE) - 256  # a frame that may change sees half a window before its middle
    for place, samples in found.items():
        assert place == len(sound) - kept
        np.testing.assert_array_equal(samples[:same], sound[place:][:same])
        assert np.abs(samples[:kept] - sound[place:]).max() > 0
        sound = np.concatenate([sound[:place], samples])
    assert len(sound) == settings.length_of_long


def test_every_section_has_the_statistics_of_the_style():
    """No drift: the last section's loss is as small as the first one's, by an objective that neither has seen."""
    settings = long_settings(result_duration=9.5)
    sound = pipeline.synthesise(settings)
    parts = [sound[begin : begin + 2 * RATE] for begin in range(0, 8 * RATE, 2 * RATE)]
    held_out = settings.changed(seed=99, result_duration=2.0)
    made = pipeline.parts(held_out)
    objective = pipeline.make_objective(made.images, made.networks, made.terms)
    losses = [float(sum(objective(made.analysis.to_image(made.analysis.spectrogram(each))).values())) for each in parts]
    assert max(losses) < 1.3 * min(losses), losses
    assert len({each.tobytes() for each in parts}) == 4  # every section has noise of its own


def test_a_beat_goes_on_in_the_next_section():
    """Clicks every 0.31 s, which no section's length is a multiple of, are as regular across sections as within."""
    period = round(0.31 * RATE)
    style = 1e-3 * np.random.default_rng(0).standard_normal(4 * RATE)
    style[::period] += 0.5
    style = np.convolve(style, np.exp(-np.arange(400) / 80) * np.random.default_rng(1).standard_normal(400))[: 4 * RATE]
    settings = long_settings(filters=64, num_steps=30, refine_steps=30, duration=4.0, result_duration=7.5)
    assert pipeline.parts(settings, {"style 1": style.astype(np.float32)}).rhythm.strength == 1.0
    sound = pipeline.synthesise(settings, {"style 1": style.astype(np.float32)})
    onsets = librosa.onset.onset_strength(y=sound, sr=RATE, hop_length=128)
    phases = [np.angle(np.dot(part, turns)) for part, turns in _turned(onsets, period / 128)]
    assert np.abs(np.angle(np.exp(1j * np.diff(phases)))).max() < 0.6, phases  # of 2 pi, a period


def _turned(onsets, period):
    turns = np.exp(-2j * np.pi * np.arange(len(onsets)) / period)
    return zip(np.array_split(onsets, 4), np.array_split(turns, 4), strict=True)


def test_a_content_is_loaded_section_by_section(tmp_path):
    """The content's loud parts are at their places, and a section may be silent."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(round(7.3 * RATE))
    loud = np.zeros(len(noise))
    for first, last in ((0.4, 0.9), (1.2, 2.2), (5.8, 6.9)):
        loud[round(first * RATE) : round(last * RATE)] = 1
    soundfile.write(tmp_path / "content.wav", noise * loud, RATE)
    settings = long_settings(
        CONTENT_FILENAME=str(tmp_path / "content.wav"), duration=None, result_duration=None, content_level="same"
    )
    assert settings.duration_of("content") == pytest.approx(7.3 / 4, abs=1e-3)
    assert settings.load()["content"].shape[-1] == pytest.approx(7.3 / 4 * RATE, abs=1)
    sound = pipeline.synthesise(settings)
    assert len(sound) == pytest.approx(len(noise), abs=1)
    inside, outside = loud[: len(sound)] == 1, np.convolve(loud[: len(sound)], np.ones(4001), mode="same") == 0
    assert np.std(sound[inside]) > 2 * np.std(sound[outside])


def test_stereo(tmp_path):
    both = np.random.default_rng(0).normal(0, 0.1, (2, 2 * RATE)).astype(np.float32)
    soundfile.write(tmp_path / "style.wav", both.T, RATE)
    settings = long_settings(STYLE_FILENAME=str(tmp_path / "style.wav"), stereo=True, num_steps=3, refine_steps=3)
    sound = pipeline.synthesise(settings)
    assert sound.shape == (2, round(5.5 * RATE)) and np.abs(sound[0] - sound[1]).max() > 0.01
    for channel in sound:
        assert max(jumps(channel, places_of_seams(settings))) < 1.2


@pytest.mark.parametrize(
    "changes",
    [
        dict(loop=True),
        dict(runs=2),
        dict(where={"change": {"seconds": [[1, 4]]}}),
        dict(style_weight=[[0, 1.0], [5.5, 2.0]]),
        dict(result_duration=2.9),
    ],
)
def test_what_needs_the_whole_sound_is_made_at_once(changes):
    settings = long_settings(**changes)
    assert settings.length_of_long is None
    assert settings.length_of(dict.fromkeys(["style 1"], np.zeros(9))) == round(settings.result_duration * RATE)


# The file ----------------------------------------------------------------------------------------


def stream_of(settings, folder):
    result = pipeline.run(settings)
    used = {"not_in_settings": [truth.FIRST_SECTION], "layers": ["conv_1"], "style_distance": 1.0}
    return streams.Stream(result, used=used, folder=folder)


def test_the_file_is_the_sound_and_its_json_is_true(tmp_path):
    settings = long_settings(outname="long")
    stream = stream_of(settings, tmp_path)
    there, end = stream.seconds
    assert stream.sound.name == "long-001-part.wav" and 0 < there < end == 5.5
    assert sum(stream) == pytest.approx(end - there, abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long-001.json", "long-001.wav"]
    samples, rate = soundfile.read(tmp_path / "long-001.wav", dtype="float32")
    np.testing.assert_array_equal(samples, pipeline.synthesise(settings))
    report = json.loads((tmp_path / "long-001.json").read_text())
    assert report["used"]["not_in_settings"] == [] and rate == RATE
    assert report["level"] == saving.level(samples)
    again = saving.load_settings(tmp_path / "long-001.json")
    assert again.length_of_long == settings.length_of_long
    assert list(stream) == []


def test_a_whole_sound_is_not_made_again(tmp_path):
    """Where the cell is run again; with more steps, the sound is another one."""
    result = pipeline.run(long_settings(outname="long", num_steps=2, refine_steps=2))
    for _ in range(2):
        stream = streams.Stream(result, used={"not_in_settings": []}, folder=tmp_path)
        list(stream)
        assert stream.seconds == (5.5, 5.5) and stream.sound == tmp_path / "long-001.wav"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long-001.json", "long-001.wav"]
    result.refinement.append(result.refinement[-1])
    assert streams.Stream(result, used={"not_in_settings": []}, folder=tmp_path).sound.name == "long-002-part.wav"


def test_an_interrupted_sound_is_taken_up_bit_for_bit(tmp_path):
    """After a process that ended between two sections, and in the middle of one."""
    settings = long_settings(outname="long")
    next(iter(stream_of(settings, tmp_path)))
    part = tmp_path / "long-001-part.wav"
    whole = json.loads(part.with_suffix(".json").read_text())["samples"]
    assert soundfile.info(part).frames == whole
    with soundfile.SoundFile(part, "r+") as file:  # samples of a section that was not finished
        file.seek(whole)
        file.write(np.full(1000, 0.5))
    again = stream_of(settings, tmp_path)
    assert again.sound == part and again.seconds == (whole / RATE, 5.5)
    list(again)
    samples, _ = soundfile.read(tmp_path / "long-001.wav", dtype="float32")
    np.testing.assert_array_equal(samples, pipeline.synthesise(settings))


def test_a_part_of_other_settings_or_cells_or_a_damaged_one_is_left_alone(tmp_path):
    next(iter(stream_of(long_settings(outname="long"), tmp_path)))
    assert stream_of(long_settings(outname="long", seed=1), tmp_path).sound.name == "long-002-part.wav"
    result = pipeline.run(long_settings(outname="long"))
    used = {"not_in_settings": ["start"], "layers": ["conv_1"], "style_distance": 1.0}
    assert streams.Stream(result, used=used, folder=tmp_path).sound.name == "long-003-part.wav"
    (tmp_path / "long-001-part.json").write_text('{"samples": "all"}')
    assert stream_of(long_settings(outname="long"), tmp_path).sound.name == "long-004-part.wav"


def test_a_window_that_is_longer_than_what_a_section_keeps_is_refused():
    with pytest.raises(ValueError, match=r"a section keeps 0.5 s, too short for n_fft=32768"):
        pipeline.synthesise(long_settings(N_FFT=32768, duration=4.0, widths=(1,)))
