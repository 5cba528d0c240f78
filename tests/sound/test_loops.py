"""Textures without a seam: the sound is played twice, and the place where the second time begins is measured."""

import librosa
import numpy as np
import pytest
import torch

from support import pipeline
from support.desk.settings import Settings
from support.sound import loops, transforms
from support.sound.analysis import Analysis

BANDS = dict(filters=24, num_steps=15, refine_steps=15)
GATYS = dict(
    recipe="gatys",
    num_steps=30,
    refine_steps=0,
    parameters=dict(l1channels=64, l2channels=32, l3channels=16, kernelsize=11),
)
CQT = dict(BANDS, transform="cqt", K_HOP=256, phase_iterations=20)


def texture(name, load, **changes):
    settings = Settings(**dict(device="cpu", result_duration=2.0, loop=True, seed=1) | changes)
    return pipeline.synthesise(settings, {"style 1": load(name, duration=3.0)})


def click(samples, near=32):
    """How far the seam can't be predicted from the samples before it, as a share of the worst of 100 other places."""
    predictor = librosa.lpc(samples.astype(np.float64), order=16)
    error = np.abs(np.convolve(np.concatenate([samples, samples]), predictor)[: 2 * len(samples)])
    places = np.arange(4 * near, len(samples) - 4 * near, near)
    elsewhere = [error[place - near : place + near].max() for place in places]
    return error[len(samples) - near : len(samples) + near].max() / np.percentile(elsewhere, 99)


def level_at_seam(textures, near=2048):
    """Level of the samples around the seam against that of the whole, mean of several textures [dB]."""
    seams = [np.concatenate([samples[-near:], samples[:near]]) for samples in textures]
    shares = [(seam**2).mean() / (samples**2).mean() for seam, samples in zip(seams, textures, strict=True)]
    return 10 * np.log10(np.mean(shares))


@pytest.mark.parametrize("recipe", [BANDS, GATYS], ids=["bands", "gatys"])
@pytest.mark.parametrize("name", ["water_stream", "fire", "speech", "singing"])
def test_the_seam_of_a_loop_is_not_a_click(name, recipe, load):
    samples = texture(name, load, **recipe)
    assert len(samples) % (128 if recipe is BANDS else 256) == 0
    assert click(samples) < 1.2


def test_a_sound_without_loop_clicks(load):
    """The measure sees the jump of a sound that was not made to be repeated: speech that begins in a word."""
    assert click(texture("speech", load, loop=False, **BANDS)) > 2
    tone = np.sin(2 * np.pi * 440.5 * np.arange(22050) / 22050) + 0.001 * np.random.default_rng(0).normal(size=22050)
    assert click(tone) > 5  # half a period is missing
    assert click(np.roll(tone, 5000)[: 22050 - 5000]) > 1.2


@pytest.mark.parametrize("recipe", [BANDS, GATYS], ids=["bands", "gatys"])
@pytest.mark.parametrize("name", ["rain", "water_stream"])
def test_the_seam_is_as_loud_as_the_rest(name, recipe, load):
    """Frames that filters saw twice became 12 dB softer in water_stream, and 2 dB louder with the Gatys recipe."""
    textures = [texture(name, load, **recipe | dict(seed=seed, result_duration=1.5)) for seed in range(6)]
    assert abs(level_at_seam(textures)) < 1.5


def test_a_constant_q_texture_has_no_seam_either(load):
    samples = texture("water_stream", load, **CQT)
    assert len(samples) % 256 == 0
    assert click(samples) < 1.2


def test_in_stereo_both_channels_have_no_seam(load):
    mono = load("water_stream", duration=3.0)
    recordings = {"style 1": np.stack([mono, 0.5 * np.roll(mono, 7)])}
    settings = Settings(**BANDS, device="cpu", result_duration=2.0, loop=True, stereo=True, seed=1)
    for channel in pipeline.synthesise(settings, recordings):
        assert click(channel) < 1.2


# The circle --------------------------------------------------------------------------------------


def circle_analysis(**changes):
    stft = transforms.STFT(sample_rate=22050, n_fft=512, hop_length=128)
    return Analysis(**dict(transform=stft, loop=True) | changes)


@pytest.mark.parametrize("layout", ["freq", "2D"])
@pytest.mark.parametrize("n_hops", [3, 100])  # of 3 hops the window of 4 sees more than the whole circle
def test_turning_the_circle_turns_the_image(n_hops, layout):
    """Samples that begin some hops later have the same image, beginning as many frames later; the last is the first."""
    samples = torch.randn(2, n_hops * 128, generator=torch.Generator().manual_seed(0))
    view = circle_analysis(layout=layout).view(n_hops * 128)
    for given, n_planes in ((samples, 4), (samples[0], 1)):
        image, turned = view(given), view(given.roll(-2 * 128, dims=-1))
        assert image.shape == ((n_planes, 257, 1, n_hops + 1) if layout == "freq" else (n_planes, 1, 257, n_hops + 1))
        torch.testing.assert_close(image[..., -1], image[..., 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(turned[..., :-1], image[..., :-1].roll(-2, dims=-1), rtol=1e-4, atol=1e-5)


def test_a_circles_frames_are_those_of_the_sound_played_three_times():
    samples = np.random.default_rng(0).normal(0, 0.1, 40 * 128).astype(np.float32)
    thrice = np.abs(librosa.stft(np.tile(samples, 3), n_fft=512, hop_length=128))[:, 40:81]
    analysis = circle_analysis(power="log1p", scaled=False)
    np.testing.assert_allclose(np.expm1(analysis.spectrogram(samples)), thrice, rtol=1e-3, atol=1e-4)
    image = analysis.image(torch.from_numpy(samples))
    np.testing.assert_allclose(np.expm1(image[0, :, 0].numpy()), thrice, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("transform", "bound"), [("stft", -90), ("cqt", -26)])
def test_the_view_of_a_circle_is_its_spectrogram(transform, bound, load):
    """From the same samples, by numpy, and by torch with gradients that reach every sample."""
    settings = Settings(device="cpu", transform=transform, N_FFT=None if transform == "cqt" else 512)
    analysis = circle_analysis(transform=settings.make_transform())
    samples = load("water_stream")[: 300 * 128]
    tensor = torch.from_numpy(samples).requires_grad_()
    image = analysis.view(len(samples))(tensor)
    expected = analysis.spectrogram(samples)
    error = analysis.from_image(image) - expected
    assert error.shape == (len(analysis.transform.frequencies), 301)
    assert 20 * np.log10(np.linalg.norm(error) / np.linalg.norm(expected)) < bound
    (gradient,) = torch.autograd.grad(image.square().sum(), tensor)
    assert gradient.isfinite().all() and (gradient != 0).all()


@pytest.mark.parametrize("recipe", [dict(filters=12, widths=[1, 5, 12]), GATYS], ids=["bands", "gatys"])
def test_the_losses_do_not_see_where_the_circle_begins(recipe, load):
    """Turned by a number of frames that the pooling divides, a circle has the same losses: no frame counts twice."""
    settings = Settings(**recipe | dict(device="cpu", loop=True))
    made = pipeline.parts(settings, {"style 1": load("frogs", duration=2.0)})
    objective = pipeline.make_objective(made.images, made.networks, made.terms, loop=True)
    circle = torch.rand((*made.images["style 1"].shape[:3], 160), generator=torch.Generator().manual_seed(0))
    closed = [torch.cat([each, each[..., :1]], dim=3) for each in (circle, circle.roll(-40, dims=3))]
    losses, of_turned = (objective.evaluate(each)[0] for each in closed)
    assert len(losses) > 1
    assert {name: float(loss) for name, loss in of_turned.items()} == pytest.approx(
        {name: float(loss) for name, loss in losses.items()}, rel=1e-3
    )


@pytest.mark.parametrize("alike", [True, False])
def test_the_fade_keeps_the_level(alike):
    """Two sounds that are alike, or unrelated, are mixed at the beginning of the circle at an even level."""
    noise = np.random.default_rng(0).normal(size=200 * 128).astype(np.float32)

    def part(magnitude, length):
        samples = noise[:length].copy()
        if alike:
            samples[180 * 128 :] = samples[: length - 180 * 128]
        return samples

    circle = loops.reconstruct_circle(np.zeros((3, 181)), part, hop_length=128)
    assert len(circle) == 180 * 128
    levels = (circle[: 16 * 128].reshape(8, 256) ** 2).mean(axis=1)
    np.testing.assert_allclose(levels, (noise[: 16 * 128].reshape(8, 256) ** 2).mean(axis=1), rtol=0.35)


# Settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (dict(loop=True, CONTENT_FILENAME="samples/speech.flac"), "textures alone"),
        (dict(loop=True, recipe="gatys", whichChannel="time"), "frames that are channels"),
        (dict(loop="yes"), "True or False"),
    ],
)
def test_a_loop_that_cannot_be_made_is_refused(wrong, named):
    with pytest.raises(ValueError, match=named):
        Settings(**wrong)


def test_the_length_is_a_whole_number_of_hops():
    lengths = [loops.circle_length(length, 128) for length in (1, 1000, 1023, 1024, 1100, 44100)]
    assert lengths == [128, 1024, 1024, 1024, 1152, 44160]
    analysis = circle_analysis()
    assert [analysis.length_of(length) for length in (1000, 1100)] == [1024, 1152]
    assert circle_analysis(loop=False).length_of(1000) == 1000


def test_a_circle_of_frames_that_are_channels_is_refused():
    with pytest.raises(ValueError, match="loop=True can't close frames that are channels; set layout to 'freq'"):
        circle_analysis(layout="time")


def test_a_circle_of_half_a_hop_is_refused():
    with pytest.raises(ValueError, match="length=5184 of a loop must be a whole number of hops; take 5120"):
        circle_analysis().view(40 * 128 + 64)
