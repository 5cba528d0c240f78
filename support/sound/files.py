"""Sound files, and checks of samples.

Conventions
  samples  float32 numpy array [shape=(n,), or (2, n) in stereo], full scale is -1 to 1
  units    times in seconds, rates in Hz
"""

import warnings
from pathlib import Path

import librosa
import numpy as np
import soundfile


def load_audio(
    path: str | Path,
    *,
    sample_rate: int,
    offset: float = 0.0,
    duration: float | None = None,
    mono: bool = True,
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

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, not audio, or empty, silent or non-finite sound.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of a sound file, relative to {Path.cwd()}")
    if offset < 0 or (duration is not None and duration <= 0):
        raise ValueError(f"{offset=} must be at least 0 and {duration=} positive or None")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            file.seek(min(round(offset * rate), file.frames))
            frames = -1 if duration is None else round(duration * rate)
            samples = file.read(frames, dtype="float32", always_2d=True).T
            if "(should be" in file.extra_info:  # libsndfile's words on a wav or aiff header
                warnings.warn(f"{path} is cut off: its header promises more samples than there are", stacklevel=2)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is not a sound file that libsndfile can read ({error}); convert it to wav") from error
    if not mono and len(samples) == 1:
        warnings.warn(f"{path} has one channel: stereo makes both channels the same; set stereo=False", stacklevel=2)
    samples = samples.mean(axis=0) if mono else samples[[0, min(1, len(samples) - 1)]]
    check_samples(samples, f"{path} ({offset=}, {duration=})")
    return librosa.resample(samples, orig_sr=rate, target_sr=sample_rate)


def check_samples(samples: np.ndarray, name: str) -> None:
    """Raise ValueError if samples are none, silent or not finite."""
    if samples.size == 0:
        raise ValueError(f"{name}: no samples; give a longer sound, or a smaller offset")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds NaN or infinite samples; repair or re-export the file")
    if not samples.any():
        raise ValueError(f"{name} is silent; choose another file or excerpt")


def fit_full_scale(samples: np.ndarray) -> np.ndarray:
    """Scale samples down if they would clip (peak above 0.99), and return them unchanged otherwise.

    >>> fit_full_scale(np.array([0.5, -1.98])).round(3).tolist()
    [0.25, -0.99]
    >>> fit_full_scale(np.array([0.5, -0.9])).tolist()
    [0.5, -0.9]
    """
    return samples * min(1.0, 0.99 / max(np.abs(samples).max(), 1e-10))
