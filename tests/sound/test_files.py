"""Sound files as people have them: formats, headers, offsets, channels, names."""

import io
import os
import struct
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from support.sound import files
from support.sound.files import load_audio

ROOT = Path(__file__).parents[2]
RATE = 22050
NOISE = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)


def load(path, **options):
    """Load a file; every warning is an error."""
    with warnings.catch_warnings(action="error"):
        return load_audio(path, sample_rate=RATE, **options)


def patched(path, changes):
    """Overwrite bytes of a file, given by their position."""
    content = bytearray(path.read_bytes())
    for start, new in changes.items():
        content[start : start + len(new)] = new
    path.write_bytes(content)
    return path


@pytest.fixture
def wav(tmp_path):
    """Path of two seconds of noise with 16 bits: bytes 4 to 8 and 40 to 44 of this file hold its lengths."""
    soundfile.write(tmp_path / "noise.wav", NOISE, RATE)
    return tmp_path / "noise.wav"


# Offsets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(ROOT.glob("samples/*.flac")), ids=lambda path: path.stem)
def test_recordings_without_an_offset_stay_as_they_are_bit_for_bit(path):
    for first, seconds in ((0, None), (0.5, 5.0), (1, 1)):
        rate = soundfile.info(path).samplerate
        stop = None if seconds is None else round((first + seconds) * rate)
        plain, _ = soundfile.read(path, start=round(first * rate), stop=stop, dtype="float32", always_2d=True)
        expected = librosa.resample(plain.T.mean(axis=0), orig_sr=rate, target_sr=RATE)
        np.testing.assert_array_equal(load(path, offset=first, duration=seconds), expected)


@pytest.mark.parametrize("offset", [0.02, -0.1, 0.3])
def test_noise_plus_a_constant_is_the_noise(offset, tmp_path):
    noise = NOISE / 10
    soundfile.write(tmp_path / "noise.wav", np.stack([noise, noise + offset], axis=1), RATE, subtype="FLOAT")
    alone, shifted = load(tmp_path / "noise.wav", mono=False)
    np.testing.assert_allclose(shifted, alone - noise.mean(), atol=1e-7)
    assert 20 * np.log10(abs(alone.mean()) / alone.std()) < -40  # the noise itself has no offset


def test_the_mean_of_a_low_tone_is_not_an_offset(tmp_path):
    """A quarter of a period of 2 Hz has a mean of 2 / pi, and is heard as a move of the loudspeaker."""
    tone = np.sin(2 * np.pi * 2 * np.arange(RATE // 8) / RATE).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", tone, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(load(tmp_path / "tone.wav"), tone)


@pytest.mark.parametrize(
    ("level", "options"),
    [(-1 / 128, {"subtype": "PCM_U8"}), (0.5, {}), (0.1, {"subtype": "FLOAT"}), (1e-12, {"subtype": "FLOAT"})],
)
@pytest.mark.parametrize("length", [500, 2 * RATE])
def test_a_constant_is_silence(level, options, length, tmp_path):
    soundfile.write(tmp_path / "mute.wav", np.full((length, 2), level), RATE, **options)
    for mono in (True, False):
        with pytest.raises(ValueError, match=r"mute.wav .* is silent or constant; choose another file"):
            load(tmp_path / "mute.wav", mono=mono)


# Channels ----------------------------------------------------------------------------------------


def test_channels_that_cancel(tmp_path):
    path = tmp_path / "karaoke.wav"
    soundfile.write(path, np.stack([NOISE, -NOISE], axis=1), RATE)
    for mono in (True, False):
        with pytest.raises(ValueError, match=r"karaoke.wav .* channels cancel each other, .*stereo=True needs too"):
            load(path, mono=mono)
    soundfile.write(path, np.stack([NOISE, -0.97 * NOISE], axis=1), RATE)
    with pytest.warns(UserWarning, match=r"karaoke.wav .* their mean is 36 dB below them; set stereo=True"):
        load_audio(path, sample_rate=RATE)
    assert load(path, mono=False).shape == (2, len(NOISE))


@pytest.mark.parametrize("channels", [2, 8, 200])
def test_channels_that_have_nothing_in_common_do_not_cancel(channels, tmp_path):
    noise = np.random.default_rng(1).standard_normal((RATE // 4, channels))
    soundfile.write(tmp_path / "many.wav", 0.1 * noise, RATE)
    soundfile.write(tmp_path / "one.wav", 0.1 * noise * (np.arange(channels) == 0), RATE)
    assert load(tmp_path / "many.wav").std() == pytest.approx(0.1 / channels**0.5, rel=0.1)
    assert load(tmp_path / "one.wav").std() == pytest.approx(0.1 / channels, rel=0.1)


# Formats and headers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "GSM610"), ("W64", "GSM610"), ("AIFF", "GSM610"), ("WAV", "G721_32"), ("AU", "G721_32")]
    + [("WAV", f"NMS_ADPCM_{bits}") for bits in (16, 24, 32)]
    + [("XI", "DPCM_16")],
)
def test_files_that_can_only_be_read_from_the_front(kind, subtype, tmp_path):
    path = tmp_path / "phone.snd"
    tone = 0.3 * np.sin(np.arange(16000) / 10)
    soundfile.write(path, tone, 8000, format=kind, subtype=subtype)
    rate = soundfile.info(path).samplerate  # xi files have none
    whole = load_audio(path, sample_rate=rate)
    assert np.corrcoef(whole[:16000], tone)[0, 1] > 0.95
    part = load_audio(path, sample_rate=rate, offset=2000 / rate, duration=3000 / rate)
    np.testing.assert_array_equal(part, whole[2000:5000])


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF])
def test_headers_that_were_written_to_a_pipe(length, wav):
    """Of ffmpeg and sox, which can't go back to write the length."""
    expected = load(wav)
    patched(wav, {4: struct.pack("<I", min(length + 36, 0xFFFFFFFF)), 40: struct.pack("<I", length)})
    np.testing.assert_array_equal(load(wav), expected)
    np.testing.assert_array_equal(load(wav, offset=0.5, duration=1), expected[RATE // 2 : RATE * 3 // 2])


def written(form):
    """Noise of 2 s as the bytes of a file, and as load_audio reads the whole file; at its full length."""
    stream, sound = io.BytesIO(), np.random.default_rng(0).uniform(-0.5, 0.5, 2 * 22050)
    soundfile.write(stream, sound, 22050, format=form)
    return bytearray(stream.getvalue())


def loaded(folder, form, content):
    """What load_audio gives of bytes, and whether it says that they are cut off."""
    path = folder / f"x.{form.lower()}"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = load_audio(path, sample_rate=22050)
    return samples, ["is cut off" in str(each.message) for each in caught]


@pytest.mark.parametrize(
    ("form", "name", "first", "last"), [("AU", b".snd", 8, 12), ("RF64", b"ds64", 8, 32), ("AIFF", b"SSND", 4, 8)]
)
def test_a_length_of_0_in_a_header_means_all_that_is_there(form, name, first, last, tmp_path):
    """As programs write it that don't know the length yet; nothing is missing, and nothing says so."""
    content = written(form)
    place = content.index(name)
    expected, _ = loaded(tmp_path, form, content)
    content[place + first : place + last] = bytes(last - first)
    samples, told = loaded(tmp_path, form, content)
    assert len(samples) == 2 * 22050 and told == []
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("form", ["WAV", "AU", "RF64", "AIFF", "W64", "OGG", "MP3"])
def test_a_file_that_is_cut_off_says_so(form, tmp_path):
    content = written(form) if form != "OGG" else Path(ROOT / "samples/brook.flac")
    if form == "OGG":  # a longer one: libsndfile reads only what stands before the last whole page
        stream = io.BytesIO()
        soundfile.write(stream, soundfile.read(content, frames=300_000)[0], 22050, format="OGG")
        content = stream.getvalue()
    whole, told = loaded(tmp_path, form, content)
    assert told == []
    samples, told = loaded(tmp_path, form, content[: 2 * len(content) // 3])
    assert told == [True] and 0.3 * len(whole) < len(samples) < 0.8 * len(whole)


def test_a_flac_of_unknown_length(tmp_path, monkeypatch):
    path = tmp_path / "streamed.flac"
    soundfile.write(path, NOISE, RATE)
    expected = load(path)
    before = path.read_bytes()[21]  # the length is 4 bits of this byte and 4 bytes more
    patched(path, {21: bytes([before & 0xF0, 0, 0, 0, 0])})
    np.testing.assert_array_equal(load(path, offset=0.5, duration=1), expected[RATE // 2 : RATE * 3 // 2])
    for excerpt in (dict(), dict(offset=1.0), dict(duration=3600)):
        np.testing.assert_array_equal(load(path, **excerpt), expected[round(RATE * excerpt.get("offset", 0)) :])
    with monkeypatch.context() as patch:  # the last block is full, has one sample, or lacks one
        for block in (len(expected), len(expected) // 4, len(expected) - 1, len(expected) + 1):
            patch.setattr("support.sound.files.BLOCK", block)
            np.testing.assert_array_equal(load(path), expected)
    with pytest.raises(ValueError, match=r"streamed.flac .*; set a smaller offset, or convert it by: ffmpeg -i .*flac"):
        load(path, offset=3600)


@pytest.mark.parametrize(("rate", "reason"), [(1, "a sample rate of 1 Hz .* at least 1000 Hz"), (999, "999 Hz")])
def test_rates_that_no_sound_has(rate, reason, wav):
    patched(wav, {24: struct.pack("<I", rate)})
    with pytest.raises(ValueError, match=rf"noise.wav has .*{reason}"):
        load(wav)


def test_more_than_the_memory_that_is_stated(tmp_path, monkeypatch):
    """With a bound of 1,000 values: the same for what is read and for what is resampled to more."""
    monkeypatch.setattr("support.sound.files.MOST_VALUES", 1000)
    for rate, channels, most in ((RATE, 1, 1000), (RATE, 2, 500), (RATE // 2, 1, 500)):
        for length in (most, most + 1):
            soundfile.write(tmp_path / "long.wav", NOISE[: length * channels].reshape(length, channels), rate)
            if length == most:
                assert len(load(tmp_path / "long.wav")) > 499
            else:
                with pytest.raises(ValueError, match=r"long.wav gives more than 0 minutes .*; set a shorter duration"):
                    load(tmp_path / "long.wav")
                assert len(load(tmp_path / "long.wav", offset=0.01, duration=0.005)) > 99


def test_formats_of_phones_and_without_a_header_name_the_line_that_converts_them(tmp_path):
    phone, raw = tmp_path / "my memo.m4a", tmp_path / "tape.RAW"
    phone.write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0" + bytes(range(256)) * 20)
    raw.write_bytes(bytes(2000))
    with pytest.raises(ValueError, match=r"my memo.m4a is not .*ffmpeg -i '.*/my memo.m4a' converted.wav$"):
        load(phone)
    with pytest.raises(ValueError, match=r"tape.RAW has no header .*ffmpeg -f s16le -ar 44100 -ac 1 -i .*tape.RAW"):
        load(raw)


def test_a_page_of_html_that_was_saved_as_mp3_is_not_called_missing(tmp_path):
    path = tmp_path / "song.mp3"
    path.write_text("<!DOCTYPE html><html>404 Not Found</html>")
    with pytest.raises(ValueError, match=r"song.mp3 is not a sound file .*\(it holds no mp3\); convert it by: ffmpeg"):
        load(path)


def test_several_oggs_one_after_another_are_refused_and_not_cut(tmp_path):
    """As radio stations send them; libsndfile would read the first one alone, without a word."""
    path, sound = tmp_path / "radio.ogg", 0.1 * np.random.default_rng(0).standard_normal(22050)
    first, second = (files.encoded(each.astype(np.float32), 22050, "ogg") for each in (sound, sound[::-1]))
    path.write_bytes(first)
    assert len(load(path)) == 22050 and files.seconds_of(path) == 1.0
    path.write_bytes(first + second)
    with pytest.raises(ValueError, match=r"is an ogg with several streams, of which only the first .* ffmpeg -i "):
        load(path)
    assert files.seconds_of(path) is None


def test_an_ogg_with_gigabytes_of_zeros_behind_it_is_refused_without_reading_them(tmp_path, monkeypatch):
    path = tmp_path / "holes.ogg"
    path.write_bytes(files.encoded(np.full(22050, 0.1, np.float32), 22050, "ogg"))
    os.truncate(path, 2**33)
    monkeypatch.setattr(soundfile, "SoundFile", None)  # libsndfile would look through all of them
    monkeypatch.setattr(soundfile, "info", None)
    with pytest.raises(ValueError, match=r"is an ogg with no page at its end; convert it by: ffmpeg -i "):
        load(path)
    assert files.seconds_of(path) is None


def test_a_smaller_offset_is_not_the_advice_where_there_is_none(tmp_path):
    """DWVW can't be read through Python's soundfile, wherever the excerpt begins."""
    soundfile.write(tmp_path / "old.aiff", NOISE, RATE, subtype="DWVW_16")
    with pytest.raises(ValueError, match=r"old.aiff is not a sound file .*failed.*\); convert it by: ffmpeg"):
        load(tmp_path / "old.aiff")


@pytest.mark.parametrize("excerpt", [dict(offset=1e308), dict(offset=10**400), dict(offset=float("nan"))])
def test_excerpts_that_no_file_has(excerpt, wav):
    with pytest.raises(ValueError, match=r"offset="):
        load(wav, **excerpt)


@pytest.mark.parametrize("duration", [1e308, 10**400, float("inf"), 3.0])
def test_a_duration_beyond_the_end_reads_to_the_end(duration, wav):
    np.testing.assert_array_equal(load(wav, duration=duration), load(wav))


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_not_text(wav):
    expected, name = load(wav), os.path.join(os.fsencode(wav.parent), b"\xe9t\xe9.wav")
    try:
        os.rename(wav, name)
    except OSError:
        pytest.skip("this file system takes no such names")
    np.testing.assert_array_equal(load(os.fsdecode(name)), expected)
    os.remove(name)
    with pytest.raises(FileNotFoundError, match=r"t.\.wav is not a file") as error:
        load(os.fsdecode(name))
    str(error.value).encode()  # can be shown


# Encoded -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ogg", "mp3", "flac", "wav"])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_encoded_sound_is_in_its_place_and_near_to_the_original(kind, channels):
    """Not shifted, so that players switch at the same place; and the error is as far below the sound as is said."""
    both = [load(ROOT / f"samples/{name}.flac", duration=5.0) for name in ("brook", "speech")]
    sound = np.stack(both)[:channels].squeeze()
    data = files.encoded(sound, 22050, kind)
    found, rate = soundfile.read(io.BytesIO(data))
    assert rate == 22050 and found.T.shape == sound.shape
    error = 10 * np.log10(1e-10 + np.square(found.T - sound).sum() / np.square(sound).sum())
    assert error < {"ogg": -11, "mp3": -11}.get(kind, -60)  # the stream is a noise, and compressed least
    spectra = np.conj(np.fft.rfft(sound)) * np.fft.rfft(found.T)
    assert not np.fft.irfft(spectra).argmax(axis=-1).any()
    assert len(data) < len(files.encoded(sound, 22050, "wav")) / {"ogg": 3, "mp3": 3, "flac": 1.1, "wav": 0.99}[kind]


def test_more_loss_takes_fewer_bytes_and_a_kind_that_lacks_the_rate_is_refused():
    sound = load(ROOT / "samples/birds.flac", duration=5.0)
    sizes = [len(files.encoded(sound, 22050, loss=loss)) for loss in (0.1, 0.4, 0.7)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    assert np.abs(soundfile.read(io.BytesIO(files.encoded(4 * sound / sound.max(), 22050, "flac")))[0]).max() < 1
    with pytest.raises(ValueError, match=r"no mp3 at 96000 Hz .*; choose another kind: ogg, mp3, flac, wav"):
        files.encoded(sound, 96000, "mp3")
    with pytest.raises(ValueError, match=r"no ogg at 200001 Hz, only up to 200000 Hz; choose another kind: flac, wav"):
        files.encoded(sound, 200_001)
    assert soundfile.info(io.BytesIO(files.encoded(sound, 200_000))).samplerate == 200_000
    with pytest.raises(ValueError, match="kind='m4a' is unknown; choose one of ogg"):
        files.encoded(sound, 22050, "m4a")
    assert len(files.encoded(sound[:0], 22050))  # an empty one is a file too
