"""Sound files, and checks of samples.

Conventions
  samples  float32 numpy array [shape=(n,), or (2, n) in stereo], full scale is -1 to 1
  units    times in seconds, rates in Hz
"""

import contextlib
import io
import math
import os
import re
import shlex
import struct
import warnings
from pathlib import Path

import librosa
import numpy as np
import soundfile

from support.checks import check_choice, is_file, printable

MOST_VALUES = 2**28  # of all channels, 1 GB: 50 minutes of stereo at 44.1 kHz; reading takes at most 4 GB
STREAMED = 0x7FFF0000  # bytes; more than that says "not known": ffmpeg or sox wrote to a pipe
UNKNOWN = 2**62  # samples; the length that libsndfile gives a flac that was written to a pipe
BLOCK = 2**20  # samples that are read at once where the length is not known
SILENT = 1e-9  # -180 dB; the smallest step of 32 bits is 5e-10
KINDS = ("ogg", "mp3", "flac", "wav")
MOST_OGG = 200_000  # Hz; libsndfile's encoder ends the process above


def load_audio(
    path: str | Path,
    *,
    sample_rate: int,
    offset: float = 0.0,
    duration: float | None = None,
    mono: bool = True,
    may_be_silent: bool = False,
) -> np.ndarray:
    """Read and resample a sound file: samples [shape=(n,)], or [shape=(2, n)] where mono is False.

    Parameters
    ----------
    path : str or Path
        Any format that libsndfile reads (wav, flac, ogg, mp3 ...), any rate, any number of channels.
    sample_rate : int > 0 [Hz]
    offset, duration : float >= 0 [s]
        The excerpt to read; a duration of None reads to the end.
    mono : bool
        Mix down to one channel, or take the first two (or the only one twice).
    may_be_silent : bool
        Whether an excerpt of a longer sound may be silent.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, not audio, or empty, silent or non-finite sound.
    """
    name = check_file(path)
    if not offset >= 0 or (duration is not None and not duration > 0):
        raise ValueError(f"{offset=} must be at least 0 and {duration=} positive or None")
    with _explained(name, "set a smaller offset, or " if offset else ""):
        samples, rate = _excerpt(path, name, offset, duration or math.inf, sample_rate)
    if not mono and len(samples) == 1:
        warnings.warn(f"{name} has one channel: stereo makes both channels the same; set stereo=False", stacklevel=2)
    if may_be_silent and samples.size and np.abs(samples).max() < SILENT:
        samples = np.zeros_like(samples[0] if mono else samples[[0, min(1, len(samples) - 1)]])
    else:
        samples = _mixed(samples, rate, mono, f"{name} ({offset=}, {duration=})")
    if rate == sample_rate:
        return samples  # the first call of librosa.resample loads modules for a second: the first sound is heard sooner
    return librosa.resample(samples, orig_sr=rate, target_sr=sample_rate)


def check_file(path: str | Path) -> str:
    """Raise FileNotFoundError or ValueError unless a path is a sound file, by its header; return its name as text."""
    path = Path(path)
    name = printable(path)
    if not is_file(path):
        raise FileNotFoundError(f"{name} is not a file; give the path of a sound file, relative to {Path.cwd()}")
    if path.suffix.lower() == ".raw":
        line = f"ffmpeg -f s16le -ar 44100 -ac 1 -i {shlex.quote(name)} converted.wav"
        raise ValueError(f"{name} has no header with its rate; if that is 44100 Hz, at 16 bits, convert it by: {line}")
    _check_ogg(path, name)
    with _explained(name), soundfile.SoundFile(_as_opened(path)) as file:
        rate = file.samplerate
    if rate < 1000:
        raise ValueError(f"{name} has a sample rate of {rate} Hz in its header; give a file of at least 1000 Hz")
    return name


def _check_ogg(path, name):
    # libsndfile looks for the last page through all that stands behind it, 8 GB of zeros in 25 s, and reads the first
    # of several streams alone. A page has at most 65307 bytes, and its bytes 14 to 17 say to which stream it belongs.
    with open(path, "rb") as stream:
        first = stream.read(18)
        stream.seek(max(0, os.path.getsize(path) - 2**17))
        last = stream.read()
    if first.startswith(b"OggS") and first[14:] != last[last.rfind(b"OggS") :][14:18]:
        reason = "several streams, of which only the first would be read" if b"OggS" in last else "no page at its end"
        raise ValueError(f"{name} is an ogg with {reason}; convert it by: ffmpeg -i {shlex.quote(name)} converted.wav")


def seconds_of(path: str | Path, *, offset: float = 0.0, duration: float | None = None) -> float | None:
    """Return how long an excerpt is by the header of its file [s]; None where the header or the path says nothing."""
    with contextlib.suppress(RuntimeError, TypeError, OSError, ValueError):
        if not is_file(path):
            return None
        _check_ogg(path, path)
        header = soundfile.info(_as_opened(path))
        if 0 < header.frames < 2**40:  # streams say 0, or the largest number
            rest = max(0.0, header.frames / header.samplerate - offset)
            return min(rest, duration or rest)
    return None


@contextlib.contextmanager
def _explained(name, beyond=""):
    # An error of libsndfile says what to do; what to do against a failed seek comes first.
    try:
        yield
    except soundfile.LibsndfileError as error:
        hint = beyond if "seek" in error.error_string else ""
        line = f"ffmpeg -i {shlex.quote(name)} converted.wav"
        # libsndfile says of a page of html that is named .mp3 that it does not exist.
        reason = "it holds no mp3" if "does not exist" in error.error_string else error.error_string
        raise ValueError(
            f"{name} is not a sound file that libsndfile can read ({reason}); {hint}convert it by: {line}"
        ) from error


def _excerpt(path, name, offset, duration, sample_rate):
    """Read samples [shape=(channels, n)] and their rate: at most MOST_VALUES, also after they are resampled."""
    with _opened(path) as file:
        rate = file.samplerate
        first, count = (round(min(rate * seconds, file.frames)) for seconds in (offset, duration))
        most = min(MOST_VALUES // file.channels, MOST_VALUES * rate // sample_rate)
        before = 0 if file.seekable() else first  # GSM 6.10, G.721 and some others are read from the front
        if file.seekable():
            file.seek(first)
        samples = _read(file, min(before + count, most + 1))[before:].T
        cut = _is_cut(file, path, min(before + count, most + 1) - before - samples.shape[1])
    if samples.shape[1] > most:
        raise ValueError(f"{name} gives more than {most / rate / 60:.0f} minutes (1 GB); set a shorter duration")
    if cut:
        warnings.warn(f"{name} is cut off: its header promises more samples than there are", stacklevel=3)
    return samples, rate


def _is_cut(file, path, missing):
    """Whether a header promises more than there is; missing: samples that it promised and that could not be read."""
    kinds = "riff|riff size" if file.format in ("W64", "RF64") else "data|data size|ssnd"
    sizes = re.search(rf"(?i)\b(?:{kinds}) +: (\d+) \(should be (\d+)", file.extra_info)
    if sizes and int(sizes[2]) < int(sizes[1]) < STREAMED:
        return True
    if file.format == "MP3" and missing > 0.05 * file.samplerate:  # without such a tag, the length is a guess
        with open(path, "rb") as stream:
            return re.search(rb"\xff[\xe0-\xff].{2}\0{9,32}(?:Xing|Info)", stream.read(2**22), re.DOTALL) is not None
    return "lacks an end-of-stream bit" in file.extra_info  # of ogg


def _read(file, count):
    """Read at most count samples [shape=(n, channels)]: of a streamed flac in blocks, as its header has no length."""
    if file.frames < UNKNOWN:
        return file.read(count, dtype="float32", always_2d=True)
    blocks, ended = [np.empty((0, file.channels), np.float32)], False
    while count > 0 and not ended:
        asked = np.full((min(count, BLOCK), file.channels), np.nan, np.float32)
        try:
            block = file.read(out=asked)
        except soundfile.LibsndfileError:  # at the end it can't seek; the last samples are there
            block = asked[~np.isnan(asked[:, 0])]
        blocks.append(block)
        ended, count = len(block) < len(asked), count - len(block)
    return np.concatenate(blocks)


def _opened(path):
    """Open a sound file; where the header of a streamed one says 0 bytes of samples, take all bytes that follow."""
    file = soundfile.SoundFile(_as_opened(path))
    if file.frames or file.format not in ("WAV", "WAVEX", "RF64", "AU"):
        return file
    with file, open(path, "rb") as stream:
        content = bytearray(stream.read(4 * MOST_VALUES))
    if file.format == "AU":
        content[8:12] = b"\xff" * 4
    elif file.format == "RF64":
        sizes, data = content.find(b"ds64") + 8, content.find(b"data") + 8
        content[sizes : sizes + 16] = struct.pack("<QQ", len(content) - 8, len(content) - data)
    else:
        size = content.find(b"data\0\0\0\0") + 4
        if size > 4 and not content[size + 4 : size + 8].isalpha():  # otherwise the name of another part follows
            content[size : size + 4] = b"\xff" * 4
    return soundfile.SoundFile(io.BytesIO(content))


def _as_opened(path):
    return str(path) if os.name == "nt" else os.fsencode(path)  # Windows has no names that need bytes


def _mixed(samples, rate, mono, name):
    """One channel, or two, of samples [shape=(channels, n)], without offsets."""
    samples = samples if mono else samples[[0, min(1, len(samples) - 1)]]
    check_samples(samples, name)
    samples = _without_offset(samples, rate)
    check_samples(samples, name)
    middle = samples.mean(axis=0)
    # n channels that have nothing in common lose 10 log10(n) dB; 2 that cancel in 16 bits lose 70 dB.
    lost = 10 * np.log10(_power(samples).mean() / max(_power(middle), 1e-30) / (len(samples) / 2))
    if lost > 60:
        raise ValueError(
            f"{name}: the channels cancel each other, and their mean, which stereo=True needs too, is silent; turn one "
            "of them round: ffmpeg -i FILE -af 'pan=stereo|c0=c0|c1=-1*c1' converted.wav"
        )
    if mono and lost > 20:
        warnings.warn(
            f"{name}: the channels cancel each other, and their mean is {lost:.0f} dB below them; set stereo=True, or "
            "give a file of one channel",
            stacklevel=3,
        )
    return middle if mono else samples


def _without_offset(samples, rate):
    """Subtract the mean of each channel [shape=(channels, n)] where it is the offset of a cheap converter.

    An offset is a mean above a tenth of the deviation (-20 dB) in 1 s or more: in every excerpt of 1 s of samples/,
    the mean is at most 0.083 of the deviation. Less than 1 s may have a mean because of low tones.
    """
    mean = samples.mean(axis=1, keepdims=True, dtype=np.float64)
    has_offset = (mean**2 > 0.01 * (_power(samples)[:, None] - mean**2)) & (samples.shape[1] >= rate)
    if samples.shape[1] > 1:
        has_offset |= samples.max(axis=1, keepdims=True) == samples.min(axis=1, keepdims=True)  # constant
    return samples - np.where(has_offset, mean, 0).astype(np.float32) if has_offset.any() else samples


def _power(samples):
    return np.einsum("...n,...n->...", samples, samples, dtype=np.float64) / samples.shape[-1]


def check_samples(samples: np.ndarray, name: str) -> None:
    """Raise ValueError if samples are none, silent or not finite."""
    if samples.size == 0:
        raise ValueError(f"{name}: no samples; give a longer sound, or a smaller offset")
    peak = np.abs(samples).max()
    if not peak < 1e12:
        raise ValueError(f"{name} holds NaN or infinite samples, or some above 1e12; repair or re-export the file")
    if peak < SILENT:
        raise ValueError(f"{name} is silent or constant; choose another file or excerpt")


def fit_full_scale(samples: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """Scale samples down if they would clip (peak above 0.99), and return them unchanged otherwise.

    kept : np.ndarray or None
        Samples that must stay: where others than these are above 0.9, they are bent below 0.99 instead.

    >>> fit_full_scale(np.array([0.5, -1.98])).round(3).tolist()
    [0.25, -0.99]
    >>> fit_full_scale(np.array([0.5, -0.9])).tolist()
    [0.5, -0.9]
    >>> fit_full_scale(np.array([1.0, 1.2, 0.9]), kept=np.array([1.0, 0.1, 0.9])).round(3).tolist()
    [1.0, 0.99, 0.9]
    """
    if kept is not None:
        bent = np.sign(samples) * (0.9 + 0.09 * np.tanh((np.abs(samples) - 0.9) / 0.09))
        return np.where((samples == kept) | (np.abs(samples) <= 0.9), samples, bent)
    return samples * min(1.0, 0.99 / np.abs(samples).max(initial=1e-10))


def encoded(samples: np.ndarray, sample_rate: int, kind: str = "ogg", *, loss: float = 0.4) -> bytes:
    """Return samples as the bytes of a sound file; they are scaled down if they would clip.

    Parameters
    ----------
    kind : str
        "ogg" and "mp3" lose a part of the sound; "flac" and "wav" keep 16 bits of it.
    loss : float from 0 to 1
        More: fewer bytes. With 0.4, "ogg" makes 41 kB of 5 s at 22,050 Hz (wav: 221 kB). The levels in 64 mel bands are
        then off by 0.5 dB on average, and the error is 23 dB below the sound (0.7: 29 kB, 1.0 dB and 18 dB).
    """
    check_choice("kind", kind, KINDS)
    if kind == "ogg" and sample_rate > MOST_OGG:
        raise ValueError(f"no ogg at {sample_rate} Hz, only up to {MOST_OGG} Hz; choose another kind: flac, wav")
    file, samples = io.BytesIO(), fit_full_scale(samples).T
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    try:
        with soundfile.SoundFile(
            file,
            "w",
            sample_rate,
            channels,
            format=kind.upper(),
            compression_level=loss if kind in ("ogg", "mp3") else None,
            bitrate_mode="CONSTANT" if kind == "mp3" else None,
        ) as target:
            for begin in range(0, len(samples), 2**14):  # libsndfile's ogg needs the stack for each block
                target.write(samples[begin : begin + 2**14])
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"no {kind} at {sample_rate} Hz ({error.error_string}); choose another kind: {', '.join(KINDS)}"
        ) from error
    return file.getvalue()
