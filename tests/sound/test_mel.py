"""Mel bands, against librosa's, and back to sound."""

import librosa
import numpy as np
import pytest
import torch

from support.sound import transforms
from support.sound.analysis import Analysis

GRID = dict(sample_rate=22050, n_fft=1024, hop_length=256)


@pytest.fixture(scope="module")
def mel():
    return transforms.Mel(**GRID, n_mels=80)


def test_the_magnitude_is_librosas_mel_spectrogram(load, mel):
    samples = load("orchestra_1936", duration=2.0)
    expected = librosa.feature.melspectrogram(
        y=samples, sr=22050, n_fft=1024, hop_length=256, n_mels=80, power=1.0, norm=np.inf
    )
    found = mel.magnitude(samples)
    assert found.shape == expected.shape == (80, 1 + len(samples) // 256)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    function = mel.magnitude_function(len(samples), then=torch.sqrt)
    np.testing.assert_allclose(function(torch.from_numpy(samples)).square(), expected, rtol=1e-3, atol=1e-3)


def test_a_tone_is_loudest_in_its_band(mel):
    assert (np.diff(mel.frequencies) > 0).all() and mel.frequencies[0] > 0 and mel.frequencies[-1] < 11025
    for band in (20, 40, 70):  # the lowest bands are narrower than the window can tell
        tone = 0.5 * np.sin(2 * np.pi * mel.frequencies[band] * np.arange(22050) / 22050).astype(np.float32)
        assert mel.magnitude(tone)[:, 40].argmax() == band


def test_gradients_flow_to_the_samples(load, mel):
    """Along a random direction the gradient is the difference; several channels give what each gives."""
    samples = torch.from_numpy(load("fire", duration=1.0)).requires_grad_()
    function = mel.magnitude_function(len(samples))
    (gradient,) = torch.autograd.grad(function(samples).square().mean(), samples)
    direction = torch.randn(len(samples), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ends = [function(samples + step * direction).square().mean() for step in (1e-3, -1e-3)]
        both = function(torch.stack([samples, -0.5 * samples]))
        torch.testing.assert_close(both[1], 0.5 * both[0], rtol=1e-4, atol=1e-4)
    assert float(gradient @ direction) == pytest.approx(float(ends[0] - ends[1]) / 2e-3, rel=0.02)


@pytest.mark.parametrize("name", ["speech", "water_stream"])
def test_a_sound_comes_back_with_its_mel_spectrogram(name, load, mel):
    """The magnitudes came back at -23 and -25 dB, the compressed ones at -28 and -32 dB."""
    samples = load(name, offset=1.0, duration=2.0)
    analysis = Analysis(transform=mel)
    spectrogram = analysis.spectrogram(samples)
    back = analysis.reconstruct(spectrogram, length=len(samples), n_iter=100)
    assert back.shape == samples.shape and np.isfinite(back).all()
    assert distance(mel.magnitude(samples), mel.magnitude(back)) < -20
    assert distance(spectrogram, analysis.spectrogram(back)) < -24
    np.testing.assert_array_equal(back, analysis.reconstruct(spectrogram, length=len(samples), n_iter=100))


def distance(target, found):
    return 20 * np.log10(np.linalg.norm(found - target) / np.linalg.norm(target))


def test_the_parts_of_an_analysis_agree(load, mel):
    samples = load("birds")[: 200 * 256]
    for loop in (False, True):
        analysis = Analysis(transform=mel, loop=loop)
        image = analysis.image(torch.from_numpy(samples))
        np.testing.assert_allclose(analysis.from_image(image), analysis.spectrogram(samples), rtol=1e-3, atol=1e-3)
        assert image.shape == (1, 80, 1, 201)
        change = analysis.preconditioner(torch.from_numpy(samples))(torch.ones(len(samples)))
        assert change.shape == samples.shape and change.isfinite().all()


def test_more_bands_than_bins_are_refused():
    with pytest.raises(ValueError, match=r"n_mels=400 leaves bands without a bin at n_fft=1024; fewer bands, or"):
        transforms.Mel(**GRID, n_mels=400)
    with pytest.raises(ValueError, match=r"this transform has 80 bins: \(80, n_frames\)"):
        transforms.Mel(**GRID, n_mels=80).reconstruct(np.ones((513, 9)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(n_mels=0), "n_mels=0 must be a positive whole number"),
        (dict(hop_length=0), "hop_length=0 must be a positive whole number"),
        (dict(n_fft=1024.5), "n_fft=1024.5 must be a positive whole number"),
        (dict(sample_rate=-1), "sample_rate=-1 must be a positive whole number"),
        (dict(hop_length=1024), "hop_length=1024 can't be inverted"),
    ],
)
def test_a_bad_grid_is_refused_at_once(wrong, message):
    """Before the first sound is analysed."""
    with pytest.raises(ValueError, match=message):
        transforms.Mel(**GRID | dict(n_mels=40) | wrong)
