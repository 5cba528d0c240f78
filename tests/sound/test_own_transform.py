"""A transform of one's own: a filter bank that has only what Transform asks for."""

import numpy as np
import pytest
import torch

import audiocnn
from support.sound.analysis import Analysis
from support.sound.transforms import Transform
from support.start import matched_noise

SECOND = 22050


class Bank(Transform):
    """Twenty-four filters of 512 samples by torch's convolution, a third of an octave apart."""

    sample_rate, hop_length = 22050, 128
    frequencies = 50 * 2 ** (np.arange(1, 25) / 3)

    def magnitude_function(self, length, *, device="cpu", then=lambda magnitude: magnitude):
        turns = torch.from_numpy(self.frequencies / 22050)[:, None] * torch.arange(512) * 2 * torch.pi
        filters = (torch.polar(torch.hann_window(512, dtype=turns.dtype), turns)[:, None] / 128).cfloat().to(device)

        def spectrogram(samples):
            rows = samples.reshape(-1, 1, length).cfloat()
            bands = torch.nn.functional.conv1d(rows, filters, stride=128, padding=256).abs()
            return then(bands.reshape(*samples.shape[:-1], *bands.shape[1:]))

        return spectrogram


@pytest.fixture(scope="module")
def samples(load):
    return load("tabla")[: SECOND // 128 * 128]


def distance(target, found):
    return 20 * np.log10(np.linalg.norm(found - target) / np.linalg.norm(target))


def test_a_tone_gives_its_known_magnitude():
    """A filter's gain at its centre is half the sum of its window over 128: 256 / 128 / 2 times the amplitude."""
    tone = 0.5 * np.sin(2 * np.pi * Bank.frequencies[15] * np.arange(SECOND) / SECOND).astype(np.float32)
    magnitude = Bank().magnitude(tone)
    assert magnitude.shape == (24, 1 + SECOND // 128) and magnitude[:, 50].argmax() == 15
    assert magnitude[15, 50] == pytest.approx(0.5, rel=0.01)
    with pytest.raises(ValueError, match="samples is silent"):
        Bank().magnitude(0 * tone)


@pytest.mark.parametrize("layout", ["freq", "time", "2D"])
def test_image_and_view_are_the_spectrogram(layout, samples):
    analysis = Analysis(transform=Bank(), layout=layout)
    spectrogram = analysis.spectrogram(samples)
    assert spectrogram.shape == (24, 1 + len(samples) // 128) and spectrogram.min() >= 0 and spectrogram.max() <= 1
    tensor = torch.from_numpy(samples).requires_grad_()
    for image in (analysis.image(tensor), analysis.view(len(samples))(tensor)):
        np.testing.assert_allclose(analysis.from_image(image), spectrogram, rtol=1e-4, atol=1e-5)
    assert torch.autograd.grad(image.sum(), tensor)[0].isfinite().all()
    both = analysis.image(torch.stack([tensor, -tensor]))
    assert len(both) == 4 and both[2].abs().max() < 1e-6  # the middle of opposite channels is silent


def test_a_sound_comes_back_from_its_image(samples):
    """By L-BFGS from noise; its compressed magnitudes came back at -31 dB in 80 steps."""
    analysis = Analysis(transform=Bank())
    image = analysis.image(torch.from_numpy(samples))
    made = analysis.sound(image, length=len(samples), n_iter=80)
    assert made.shape == samples.shape and np.isfinite(made).all()
    assert distance(analysis.spectrogram(samples), analysis.spectrogram(made)) < -20
    with pytest.raises(ValueError, match="n_iter=0 must be a positive whole number"):
        analysis.sound(image, length=len(samples), n_iter=0)


@pytest.mark.parametrize("loop", [False, True])
def test_samples_descend_with_the_preconditioner(loop, samples):
    """From noise to the spectrogram of a recording, in a few steps."""
    analysis = Analysis(transform=Bank(), loop=loop)
    target = analysis.image(torch.from_numpy(samples))
    assert target.shape[-1] == len(samples) // 128 + 1
    made = torch.from_numpy(matched_noise(samples, length=len(samples)))
    change = analysis.preconditioner(made)
    one, two = torch.randn(2, len(samples), generator=torch.Generator().manual_seed(0))
    assert float(one @ change(two)) == pytest.approx(float(change(one) @ two), abs=1e-5 * float(one @ one))
    objective = audiocnn.Objective(None, [(audiocnn.ContentLoss, "input")], content=target, loop=loop)
    how = dict(num_steps=15, through=analysis.view(len(samples)), precondition=analysis.preconditioner)
    losses = [step["total"] for step in audiocnn.optimise(made, objective, **how)]
    assert losses[-1] < 0.2 * losses[0]


def test_turning_a_circle_turns_the_image(samples):
    view = Analysis(transform=Bank(), loop=True).view(len(samples))
    image, turned = view(torch.from_numpy(samples)), view(torch.from_numpy(np.roll(samples, -7 * 128)))
    torch.testing.assert_close(turned[..., :-1], image[..., :-1].roll(-7, dims=-1), rtol=1e-4, atol=1e-5)


def test_magnitudes_of_a_transform_with_parameters_have_no_gradient(samples):
    """As of a layer of a trained front end, whose weights are parameters."""

    class Weighted(Bank):
        gain = torch.nn.Parameter(torch.ones(24, 1))

        def magnitude_function(self, length, *, device="cpu", then=lambda magnitude: magnitude):
            return super().magnitude_function(length, device=device, then=lambda bands: then(self.gain * bands))

    np.testing.assert_array_equal(Weighted().magnitude(samples), Bank().magnitude(samples))


def test_a_transform_without_a_magnitude_says_what_is_missing(samples):
    class Empty(Transform):
        sample_rate, hop_length, frequencies = 22050, 128, np.arange(4)

    with pytest.raises(NotImplementedError, match="Empty has no magnitude_function; write one"):
        Analysis(transform=Empty()).spectrogram(samples)
