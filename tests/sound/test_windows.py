"""The STFT with windows other than Hann's, against their formulas."""

import re

import librosa
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from support.sound import transforms

N_FFT, HOP = 1024, 256
WINDOWS = ("hamming", "blackman", ("kaiser", 8.0))
TURN = 2 * np.pi * np.arange(N_FFT) / N_FFT
FORMULAS = {
    "hamming": 0.54 - 0.46 * np.cos(TURN),
    "blackman": 0.42 - 0.5 * np.cos(TURN) + 0.08 * np.cos(2 * TURN),
    ("kaiser", 8.0): np.i0(8 * np.sqrt(1 - (TURN / np.pi - 1) ** 2)) / np.i0(8),
}


def stft_of(window):
    return transforms.STFT(sample_rate=22050, n_fft=N_FFT, hop_length=HOP, window=window)


def convergence(target, samples):
    """Spectral convergence in dB, in an STFT that is not the one under test."""
    spectra = [np.abs(librosa.stft(y, n_fft=2048, hop_length=300)) for y in (target, samples)]
    return 20 * np.log10(np.linalg.norm(spectra[0] - spectra[1]) / np.linalg.norm(spectra[0]))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_the_magnitude_is_the_formulas(window, load):
    """Every frame by numpy, of the sound between zeros; as magnitude, and as a torch function with gradients."""
    samples = load("piano", duration=1.0)
    frames = sliding_window_view(np.pad(samples.astype(np.float64), N_FFT // 2), N_FFT)[::HOP]
    expected = np.abs(np.fft.rfft(frames * FORMULAS[window])).T
    stft = stft_of(window)
    found = stft.magnitude(samples)
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    tensor = torch.from_numpy(samples).requires_grad_()
    magnitude = stft.magnitude_function(len(samples))(tensor)
    np.testing.assert_allclose(magnitude.detach().numpy(), expected, rtol=1e-3, atol=1e-4)
    assert torch.autograd.grad(magnitude.sum(), tensor)[0].isfinite().all()


@pytest.mark.parametrize("name", ["speech", "piano"])
def test_a_sound_comes_back_about_as_well_as_from_hanns_window(name, load):
    """Hann gave -29 and -35 dB, the others between -26 and -31 dB: at most 4.5 dB less."""
    samples = load(name, offset=1.0, duration=2.0)
    reached = {}
    for window in ("hann", *WINDOWS):
        stft = stft_of(window)
        reached[window] = convergence(samples, stft.reconstruct(stft.magnitude(samples), length=len(samples)))
    for window in WINDOWS:
        assert reached[window] < reached["hann"] + 6 and reached[window] < -23, reached


@pytest.mark.parametrize(
    "window", ["hannn", ("kaiser",), ("kaiser", "much"), None, 3 * [0.5], ["kaiser", 8.0]], ids=str
)
def test_bad_windows(window):
    with pytest.raises(ValueError, match=re.escape(f"window={window!r}: ") + r".*give a name such as 'hann'"):
        stft_of(window)


def test_the_hop_is_checked_with_the_window_itself():
    """A rectangle reaches to its ends: frames side by side can be inverted, while Hann's leave gaps of 0."""
    with pytest.warns(UserWarning, match="too little to find a good phase"):
        transforms.STFT(sample_rate=22050, n_fft=512, hop_length=512, window="boxcar")
    with pytest.raises(ValueError, match="can't be inverted"):
        transforms.STFT(sample_rate=22050, n_fft=512, hop_length=512, window="hann")
