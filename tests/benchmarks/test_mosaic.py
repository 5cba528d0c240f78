"""Audio mosaicing on contents whose mosaic is known: the style itself, and the style in pieces."""

import librosa
import numpy as np
import pytest
from sklearn.decomposition import non_negative_factorization

import mosaic

RATE = 22050
FRAMES = dict(n_fft=2048, hop_length=512)


@pytest.fixture(scope="module")
def style(load):
    return load("fire", offset=0.5, duration=3.0)


def error(samples, reference):
    """Spectral convergence: the error of the magnitudes by their norm."""
    magnitudes = [np.abs(librosa.stft(sound, n_fft=1024)) for sound in (samples, reference)]
    return np.linalg.norm(magnitudes[0] - magnitudes[1]) / np.linalg.norm(magnitudes[1])


def rms(samples):
    return np.sqrt(np.mean(samples**2))


@pytest.mark.parametrize("settings", [{}, dict(continuity=0, polyphony=1), dict(continuity=10, polyphony=10)])
def test_the_style_itself_comes_back(style, settings):
    samples = mosaic.mosaic(style, style, sample_rate=RATE, **settings)
    assert np.corrcoef(samples, style)[0, 1] > 0.99 and error(samples, style) < 0.1


def test_pieces_of_the_style_are_found_again(style):
    """The loudest grain is the one that an exhaustive search by correlation finds, where a frame lies in one piece."""
    pieces = style[: 120 * 512].reshape(6, 20 * 512)
    content = pieces[[3, 0, 5, 2, 4, 1]].ravel()
    grains = np.abs(mosaic.make_grains(style, semitones=0, **FRAMES))
    target = np.abs(librosa.stft(content, **FRAMES))
    rules = dict(continuity=3, polyphony=3, repetition=3, iterations=50)
    found = mosaic.find_gains(target, grains, **rules).argmax(axis=0)
    sought = ((grains / np.linalg.norm(grains, axis=0)).T @ target).argmax(axis=0)
    inside = [20 * piece + frame for piece in range(6) for frame in range(2, 19)]
    moved = [20 * [3, 0, 5, 2, 4, 1][index // 20] + index % 20 for index in inside]
    assert (sought[inside] == moved).all()
    assert np.mean(found[inside] == moved) > 0.9
    samples = mosaic.mosaic(content, style, sample_rate=RATE)
    assert np.corrcoef(samples, content)[0, 1] > 0.85
    stranger = mosaic.mosaic(content, mosaic_of_noise(style), sample_rate=RATE)
    assert error(samples, content) < 0.3 < error(stranger, content)


def mosaic_of_noise(style):
    return np.random.default_rng(0).standard_normal(len(style)).astype(np.float32)


def test_gains_are_those_of_plain_multiplicative_updates(style):
    """Without the rules, the divergence falls as in scikit-learn's factorisation with the same grains."""
    grains = np.abs(mosaic.make_grains(style, semitones=0, **FRAMES))[:, ::4]
    target = np.abs(librosa.stft(mosaic_of_noise(style)[:20000], **FRAMES))
    gains = mosaic.find_gains(target, grains, continuity=0, polyphony=grains.shape[1], repetition=0, iterations=100)
    settings = dict(n_components=grains.shape[1], update_H=False, solver="mu", max_iter=100, tol=0)
    settings |= dict(beta_loss="kullback-leibler", H=grains.T)
    expected, *_ = non_negative_factorization(target.T, **settings)
    np.testing.assert_allclose(grains @ gains, grains @ expected.T, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 6.0])
def test_level_length_and_repetition_of_a_run(load, style, seconds):
    """The level follows the content, where the style is shorter, longer, or shorter than a grain."""
    content = load("speech", offset=0.25, duration=2.0)
    style = np.resize(style, round(seconds * RATE))
    samples = mosaic.mosaic(content, style, sample_rate=RATE)
    assert samples.shape == content.shape and samples.dtype == np.float32 and np.isfinite(samples).all()
    assert rms(samples) == pytest.approx(rms(content), rel=0.2)
    levels = [librosa.feature.rms(y=sound, frame_length=4096)[0] for sound in (samples, content)]
    assert np.corrcoef(*levels)[0, 1] > 0.9
    np.testing.assert_array_equal(samples, mosaic.mosaic(content, style, sample_rate=RATE))
    quiet = mosaic.mosaic(0.1 * content, style, sample_rate=RATE)
    np.testing.assert_allclose(quiet, 0.1 * samples, atol=2e-3 * np.abs(samples).max())


def test_silence_in_the_content_stays_silent(style):
    content = np.concatenate([style[:20000], np.zeros(20000, np.float32)])
    samples = mosaic.mosaic(content, style, sample_rate=RATE)
    assert np.isfinite(samples).all() and rms(samples[24000:]) < 1e-3 * rms(samples[:20000])


def test_continuity_keeps_grains_of_the_style_together(load, style):
    content = load("speech", offset=0.25, duration=2.0)
    shares = []
    for continuity in (0, 3, 10):
        grains = np.abs(mosaic.make_grains(style, semitones=0, **FRAMES))
        target = np.abs(librosa.stft(content, **FRAMES))
        rules = dict(continuity=continuity, polyphony=1, repetition=3, iterations=50)
        best = mosaic.find_gains(target, grains, **rules).argmax(axis=0)
        shares.append(np.mean(np.diff(best) == 1))
    assert shares[0] + 0.2 < shares[1] < shares[2]


def test_semitones_bring_pitches_that_the_style_lacks():
    times = np.arange(RATE) / RATE
    style, content = (np.sin(2 * np.pi * hertz * times).astype(np.float32) for hertz in (440, 440 * 2 ** (3 / 12)))
    settings = dict(sample_rate=RATE, polyphony=1)
    assert error(mosaic.mosaic(content, style, semitones=3, **settings), content) < 0.5
    assert error(mosaic.mosaic(content, style, **settings), content) > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(style=np.zeros(9000, np.float32)), "style is silent"),
        (dict(style=np.ones((2, 9000), np.float32)), r"\(2, 9000\); give the one channel"),
        (dict(content=np.zeros(0, np.float32)), "content: no samples"),
        (dict(continuity=-1), "continuity=-1 must be an integer of at least 0"),
        (dict(polyphony=0), "polyphony=0 must be an integer of at least 1"),
        (dict(semitones=1.5), "semitones=1.5 must be an integer"),
    ],
)
def test_errors_say_what_to_do(style, changes, message):
    with pytest.raises(ValueError, match=message):
        mosaic.mosaic(**(dict(content=style, style=style, sample_rate=RATE) | changes))
