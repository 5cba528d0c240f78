"""Audio mosaicing: a content from grains of the style; what a user would try in place of a transfer.

Driedger, Prätzlich, Müller 2015, "Let It Bee - Towards NMF-Inspired Audio Mosaicing", ISMIR. Every frame of the
content becomes a sum of a few frames of the style. The frames and their gains are found by updates of non-negative
matrix factorisation, between which three rules grow stricter: a frame of the style isn't repeated at once, few
frames sound together, and successive frames of the style stay together. The style's frames keep their phases.
At the end, the level follows the content's: in the paper, the level is lost where phases cancel.
"""

import librosa
import numpy as np
import scipy.ndimage

from support.sound.files import check_samples

GRAIN = 0.093  # s, the length of a grain, rounded to a power of 2 in samples; the paper's 2048 at 22 050 Hz
QUIET = 1e-3  # grains of the style below this share of the loudest grain aren't used; no gain is above its inverse
SMALL = 1e-9


def mosaic(content, style, *, sample_rate, continuity=3, polyphony=3, repetition=3, semitones=0, iterations=50):
    """Return a mosaic of the style's grains that follows the content [shape as content].

    Parameters
    ----------
    content, style : np.ndarray [shape=(n,)]
        Of any two lengths.
    continuity : int >= 0 [grains]
        Grains of the style that stay together, before and after each one; higher: nearer to the style.
    polyphony : int > 0
        Grains that sound at once; higher: nearer to the content.
    repetition : int >= 0 [grains]
        Between two uses of a grain.
    semitones : int >= 0
        The style is also taken faster and slower, up to so many semitones, so that more pitches are there.
    """
    check(content, style, continuity=continuity, polyphony=polyphony, repetition=repetition, semitones=semitones)
    length = 2 ** round(np.log2(GRAIN * sample_rate))
    frames = dict(n_fft=length, hop_length=length // 4)
    grains = make_grains(style, semitones=semitones, **frames)
    target = np.abs(librosa.stft(np.pad(content, (0, length)), **frames))
    rules = dict(continuity=continuity, polyphony=polyphony, repetition=repetition)
    gains = find_gains(target, np.abs(grains), iterations=iterations, **rules)
    samples = librosa.istft(grains @ gains, **frames, length=len(content))
    return follow_level(samples, content, frame_length=length, hop_length=length // 4)


def check(content, style, **numbers):
    """Raise ValueError if the sounds aren't mono or hold nothing, or if a number is not an integer or is too small."""
    for name, samples in (("content", content), ("style", style)):
        check_samples(samples, name)
        if samples.ndim != 1:
            raise ValueError(f"the {name} has shape {samples.shape}; give the one channel of a mono sound, (n,)")
    for name, number in numbers.items():
        least = 1 if name == "polyphony" else 0
        if not isinstance(number, int | np.integer) or number < least:
            raise ValueError(f"{name}={number!r} must be an integer of at least {least}, for example 3")


def make_grains(style, *, semitones, n_fft, hop_length):
    """Return the frames of the style that aren't silent, each with the sum 1 [shape=(n_bins, n_grains)]."""
    rates = 2 ** (np.arange(-semitones, semitones + 1) / 12)
    copies = [librosa.resample(style, orig_sr=1, target_sr=rate) if rate != 1 else style for rate in rates]
    padded = [np.pad(copy, (0, max(0, n_fft - len(copy)))) for copy in copies]
    grains = np.concatenate([librosa.stft(copy, n_fft=n_fft, hop_length=hop_length) for copy in padded], axis=1)
    sums = np.abs(grains).sum(axis=0)
    loud = sums > QUIET * sums.max()
    return grains[:, loud] / sums[loud]


def find_gains(target, grains, *, continuity, polyphony, repetition, iterations):
    """Return the gain of each grain in each frame of the target [shape=(n_grains, n_frames)]; grains have the sum 1."""
    gains = np.ones((grains.shape[1], target.shape[1]), np.float32)
    polyphony = min(polyphony, len(gains))
    for iteration in range(1, iterations + 1):
        softer = 1 - iteration / iterations
        nearby = scipy.ndimage.maximum_filter1d(gains, 2 * repetition + 1, axis=1)
        gains = np.where(gains < nearby, softer * gains, gains)
        least = np.partition(gains, -polyphony, axis=0)[-polyphony]
        gains = np.where(gains < least, softer * gains, gains)
        gains = sum_diagonals(gains, continuity)
        gains = gains * (grains.T @ (target / (grains @ gains + SMALL)))  # for the Kullback-Leibler divergence
    return gains


def sum_diagonals(gains, reach):
    """Return sums over the diagonal, from reach places before to reach places after each value [shape as gains]."""
    (n, m), padded = gains.shape, np.pad(gains, reach)
    return sum(padded[step : step + n, step : step + m] for step in range(2 * reach + 1))


def follow_level(samples, content, **frames):
    """Return samples with the level of the content at every time."""
    levels, wanted = (librosa.feature.rms(y=sound, **frames)[0] for sound in (samples, content))
    gain = wanted / np.maximum(levels, max(QUIET * levels.max(), SMALL))
    times = frames["hop_length"] * np.arange(len(gain))
    return (samples * np.interp(np.arange(len(samples)), times, gain)).astype(np.float32)
