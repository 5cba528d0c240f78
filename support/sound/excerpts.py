"""Many files, or an hour, as one style: an excerpt is made of pieces from random places, again for every draw.

The memory and the time are those of one excerpt, whatever the files hold. The statistics of a draw are those of its
pieces; over the draws, an optimisation sees more and more of the files.

Conventions
  draw   number of a set of random networks, see audiocnn.py; each has an excerpt of its own
  piece  (path, offset, duration) of PIECE seconds, or of a whole file that is shorter
"""

import os
import shlex
import warnings
from pathlib import Path

import numpy as np
import soundfile

from support.checks import printable
from support.sound.files import check_file, load_audio, seconds_of

PIECE = 1.0  # s; the default's longest filter sees 0.19 s, so that most of its features see one piece
FADE = 0.01  # s, from one piece to the next
TRIES = 50  # places that may be silent, before a file counts as silent


def excerpt(
    path: str | Path, draw: int, *, seed: int = 0, sample_rate: int, duration: float, mono: bool = True
) -> tuple[list[tuple[str, float, float]], np.ndarray]:
    """Return the pieces of a draw, of a file or of a folder and its folders, and their samples [shape=(n,) or (2, n)].

    A place is as likely as any other, so that long files have more pieces.

    Parameters
    ----------
    duration : float [s]
        Of the excerpt.
    sample_rate, mono : see files.load_audio
    """
    random, pieces, joined, faulty = np.random.default_rng([seed, draw]), [], None, {}
    files = files_of(path)
    paths, seconds = list(files), np.array(list(files.values()))
    length, fade = round(duration * sample_rate), round(FADE * sample_rate)
    for _ in range(TRIES + round(10 * duration / PIECE)):
        number = random.choice(len(paths), p=seconds / seconds.sum())
        offset = round(random.uniform(0, max(0.0, seconds[number] - PIECE)), 3)
        piece = (paths[number], offset, float(min(PIECE, seconds[number])))
        try:
            samples = load_audio(
                paths[number],
                sample_rate=sample_rate,
                offset=offset,
                duration=piece[2],
                mono=mono,
                may_be_silent=True,
            )
        except ValueError as error:  # a file that is damaged in its middle takes no others with it
            faulty.setdefault(paths[number], str(error))
            continue
        if not samples.any():
            continue
        pieces.append(piece)
        joined = samples if joined is None else _joined(joined, samples, fade)
        if joined.shape[-1] >= length:
            _warn_of(faulty.values())
            return pieces, joined[..., :length]
    for reason in faulty.values():
        raise ValueError(reason)
    raise ValueError(f"{printable(path)} is nearly silent, or its files are nearly empty; choose another folder")


def files_of(path: str | Path) -> dict[str, float]:
    """Return the seconds of a file, or of every sound file in a folder and its folders, by path, in their order.

    Of a folder, a warning names the files that can't be read. Hidden files are left out: "._NAME.wav", which macOS
    puts beside NAME.wav on other disks, is not a sound.
    """
    path, kinds, files, faulty = Path(path), soundfile.available_formats(), {}, []
    if not path.is_dir():
        return {str(path): _seconds(path)}
    for each in sorted(path.rglob("*")):
        is_hidden = any(part.startswith(".") for part in each.relative_to(path).parts)
        if each.suffix[1:].upper() in kinds and not is_hidden and each.is_file():
            try:
                files[str(each)] = _seconds(each)
            except (ValueError, OSError) as error:
                faulty.append(str(error))
    if not files:
        reason = f" that can be read ({faulty[0]})" if faulty else ""
        raise ValueError(
            f"the folder {printable(path)} has no sound file{reason}; put wav, flac, ogg or mp3 files into this folder"
        )
    _warn_of(faulty)
    return files


def _seconds(path):
    name, seconds = check_file(path), seconds_of(path)
    if not seconds:
        line = f"ffmpeg -i {shlex.quote(name)} converted.wav"
        raise ValueError(f"{name} says no length in its header; convert it by: {line}")
    return seconds


def _warn_of(reasons):
    reasons = list(reasons)
    if reasons:
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        warnings.warn(f"left out of the style: {'; '.join(reasons[:3])}{more}", stacklevel=2)


def _joined(one, two, fade):
    fade = min(fade, one.shape[-1], two.shape[-1])
    rise = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    middle = one[..., one.shape[-1] - fade :] * rise[::-1] + two[..., :fade] * rise
    return np.concatenate([one[..., : one.shape[-1] - fade], middle, two[..., fade:]], axis=-1)


def is_drawn(path: str | Path, offset: float | None) -> bool:
    """Whether excerpts are drawn: of a folder, and of a file with an offset of None."""
    return offset is None or os.path.isdir(path)  # Path.is_dir raises OSError where no path can be so long


def load(
    path: str | Path,
    *,
    draw: int = 0,
    seed: int = 0,
    sample_rate: int,
    offset: float | None = 0.0,
    duration: float | None = None,
    mono: bool = True,
    may_be_silent: bool = False,
) -> np.ndarray:
    """Load an excerpt of a file, or that of a draw of a folder, or with an offset of None of a whole file.

    See files.load_audio; a folder, or an offset of None, needs a duration.
    """
    if is_drawn(path, offset):
        return excerpt(path, draw, seed=seed, sample_rate=sample_rate, duration=duration, mono=mono)[1]
    return load_audio(
        path,
        sample_rate=sample_rate,
        offset=offset,
        duration=duration,
        mono=mono,
        may_be_silent=may_be_silent,
    )
