"""Sound to features and back, on real recordings."""

import re
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from report import SEEDED
from support.sound import files, frames, stereo, transforms
from support.sound.analysis import Analysis

SAMPLES = sorted(path.stem for path in Path(__file__).parents[2].glob("samples/*.flac"))


def convergence(target, samples):
    """Spectral convergence in dB, in an STFT that is not the one under test."""
    spectra = [np.abs(librosa.stft(y, n_fft=2048, hop_length=300)) for y in (target, samples)]
    return 20 * np.log10(np.linalg.norm(spectra[0] - spectra[1]) / np.linalg.norm(spectra[0]))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_loads(name, load):
    samples = load(name)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert 2 * 22050 < len(samples) < 11 * 22050
    assert 0.1 < np.abs(samples).max() <= 1.0


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_formats_rates_and_stereo(tmp_path, ending):
    """A stereo tone at another rate keeps its length and pitch, and the channels are averaged."""
    rate = 48000
    time = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 1000 * time)
    soundfile.write(tmp_path / f"tone.{ending}", np.stack([0.5 * tone, 0.1 * tone], axis=1), rate)
    samples = files.load_audio(tmp_path / f"tone.{ending}", sample_rate=22050)
    assert abs(len(samples) - 22050) < 0.06 * 22050  # mp3 pads
    middle = samples[5000:16000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.03)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.fft.rfftfreq(len(middle), 1 / 22050)[spectrum.argmax()] == pytest.approx(1000, abs=3)


def test_two_channels_are_kept_where_asked(tmp_path):
    channels = np.random.default_rng(0).normal(0, 0.1, (22050, 8)).astype(np.float32)
    for number in (1, 2, 8):
        soundfile.write(tmp_path / "noise.wav", channels[:, :number], 22050, subtype="FLOAT")
        with warnings.catch_warnings(record=True) as caught:
            both = files.load_audio(tmp_path / "noise.wav", sample_rate=22050, mono=False)
        expected = ["noise.wav has one channel: stereo makes both channels the same; set stereo=False"]
        assert [str(warning.message).rpartition("/")[2] for warning in caught] == (expected if number == 1 else [])
        np.testing.assert_array_equal(both, channels[:, [0, min(1, number - 1)]].T)
        middle = files.load_audio(tmp_path / "noise.wav", sample_rate=22050)
        np.testing.assert_allclose(middle, channels[:, :number].mean(axis=1), atol=1e-6)


def test_offset_and_duration(load):
    whole = load("tabla")
    part = load("tabla", offset=1.0, duration=2.0)
    np.testing.assert_array_equal(part, whole[22050 : 3 * 22050])


def test_stft_magnitude_is_the_definition(load, stft):
    samples = load("piano", duration=1.0)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frame = samples[40 * 256 - 512 : 40 * 256 + 512]
    np.testing.assert_allclose(
        stft.magnitude(samples)[:, 40], np.abs(np.fft.rfft(window * frame)), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "bound"), [("speech", -22), ("piano", -28), ("tabla", -30), ("water_stream", -17), ("orchestra_1936", -21)]
)
def test_stft_round_trip(name, bound, load, stft):
    samples = load(name, offset=1.0, duration=3.0)
    magnitude = stft.magnitude(samples)
    back = stft.reconstruct(magnitude, length=len(samples))
    assert len(back) == len(samples) and np.isfinite(back).all()
    ours = convergence(samples, back)
    theirs = librosa.griffinlim(magnitude, n_iter=100, hop_length=256, n_fft=1024, length=len(samples), **SEEDED)
    assert ours < bound and ours < convergence(samples, theirs) - 0.3


def test_lengths_and_seeds(load, stft):
    samples = load("fire", duration=1.0)
    magnitude = stft.magnitude(samples)
    assert len(stft.reconstruct(magnitude)) == 256 * (magnitude.shape[1] - 1)
    for length in (22050, 20000):
        assert len(stft.reconstruct(magnitude, length=length)) == length
    sounds = [stft.reconstruct(magnitude, seed=seed) for seed in (1, 1)]
    np.testing.assert_array_equal(*sounds)
    assert not stft.reconstruct(np.zeros((513, 40), dtype=np.float32)).any()


def test_cqt_peak_is_where_the_tone_is():
    cqt = transforms.CQT(sample_rate=22050, hop_length=96, bins_per_octave=36, fmin=41.2, n_octaves=8)
    for frequency in (110.0, 1000.0, 8000.0):
        tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(2 * 22050) / 22050).astype(np.float32)
        peak = cqt.frequencies[cqt.magnitude(tone)[:, 150].argmax()]
        assert abs(np.log2(peak / frequency)) < 1 / 24


def test_cqt_reaches_close_to_nyquist_and_is_as_loud_as_the_stft(stft, cqt):
    assert cqt.frequencies[-1] > 0.94 * 11025
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * 22050).astype(np.float32)
    middle = cqt.magnitude(noise)[200:, 100:-100]
    ratio = np.sqrt(np.mean(middle**2) / np.mean(stft.magnitude(noise)[50:-50, 5:-5] ** 2))
    assert ratio == pytest.approx(1, abs=0.1)


@pytest.fixture(scope="module")
def cqt():
    return transforms.CQT(sample_rate=22050, hop_length=128, bins_per_octave=48, fmin=41.2, n_octaves=8)


@pytest.mark.parametrize(("name", "bound"), [("speech", -14), ("piano", -17), ("tabla", -18)])
def test_cqt_round_trip(name, bound, load, cqt):
    """Well above what librosa's griffinlim_cqt reaches; benchmarks/README.md has both."""
    samples = load(name, duration=2.5)
    back = cqt.reconstruct(cqt.magnitude(samples), length=len(samples))
    assert len(back) == len(samples) and np.isfinite(back).all()
    assert convergence(samples, back) < bound


def test_the_filter_bank_is_librosas_transform(load, cqt):
    samples = load("orchestra_1936", duration=4.0)
    expected = np.abs(librosa.cqt(samples, sr=22050, hop_length=128, fmin=41.2, n_bins=384, bins_per_octave=48))
    bank = cqt.filter_bank(len(samples), expected.shape[1])
    coefficients = bank.transform(torch.from_numpy(samples))
    assert np.linalg.norm(coefficients.abs().numpy() - expected) < 10 ** (-26 / 20) * np.linalg.norm(expected)
    assert convergence(samples, bank.inverse(coefficients).numpy()) < -16


def test_short_sounds_give_no_warning_of_librosa(load, cqt):
    """The windows of librosa 0.11 are longer than the lowest octaves of 2 s; a notebook would show a red box."""
    samples = load("rain", offset=1.0, duration=2.0)
    with warnings.catch_warnings(action="error"):
        cqt.magnitude(samples)


@pytest.mark.parametrize("scaled", [True, False])
def test_compression_inverts(scaled, load, stft):
    magnitude = stft.magnitude(load("fire", duration=1.0))
    analysis = Analysis(transform=stft, power="log1p", scaled=scaled)
    spectrogram = analysis.compress(magnitude)
    assert spectrogram.min() >= 0
    assert spectrogram.max() == pytest.approx(np.log1p(magnitude.max()) / (7 if scaled else 1), rel=1e-5)
    np.testing.assert_allclose(analysis.expand(spectrogram), magnitude, rtol=1e-4, atol=1e-5)
    assert analysis.expand(np.full((2, 2), -0.3)).max() == 0


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("power", [0.3, 0.5])
def test_a_power_inverts_and_takes_tensors(scaled, power, load, stft):
    magnitude = stft.magnitude(load("birds", duration=1.0))
    analysis = Analysis(transform=stft, power=power, scaled=scaled)
    spectrogram = analysis.compress(magnitude)
    assert spectrogram.min() >= 0 and spectrogram.max() > 0.1
    np.testing.assert_allclose(analysis.expand(spectrogram), magnitude, rtol=1e-3, atol=1e-4)
    loudest = Analysis(transform=stft, power=power).compress(np.full((1, 1), np.expm1(7.0)))
    assert loudest.item() == pytest.approx(1, abs=1e-6)
    tensor = torch.from_numpy(magnitude).requires_grad_()
    same = analysis.compress(tensor)
    np.testing.assert_allclose(same.detach().numpy(), spectrogram, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(analysis.expand(same), tensor, rtol=1e-3, atol=1e-4)
    same.sum().backward()
    assert torch.isfinite(tensor.grad).all()
    silence = torch.zeros(3, 3, requires_grad=True)
    analysis.compress(silence).sum().backward()
    assert torch.isfinite(silence.grad).all()


@pytest.mark.parametrize(("kind", "bound"), [("stft", -100), ("cqt", -26)])
def test_the_magnitude_function_is_the_magnitude_with_gradients(kind, bound, load, request):
    transform = request.getfixturevalue(kind)
    samples = load("speech", duration=2.0)
    target = transform.magnitude(samples)
    magnitude_of = transform.magnitude_function(len(samples))
    tensor = torch.from_numpy(samples).requires_grad_()
    found = magnitude_of(tensor)
    error = np.linalg.norm(found.detach().numpy() - target) / np.linalg.norm(target)
    assert found.shape == target.shape and 20 * np.log10(error) < bound
    direction = torch.from_numpy(np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32))
    energy = magnitude_of(tensor).square().mean()
    (gradient,) = torch.autograd.grad(energy, tensor)
    with torch.no_grad():
        slope = (
            magnitude_of(tensor + 1e-2 * direction).square().mean()
            - magnitude_of(tensor - 1e-2 * direction).square().mean()
        )
    assert float(gradient @ direction) == pytest.approx(float(slope) / 2e-2, rel=0.02)


@pytest.mark.parametrize("kind", ["stft", "cqt"])
def test_the_magnitude_function_takes_several_channels(kind, load, request):
    transform = request.getfixturevalue(kind)
    both = torch.from_numpy(np.stack([load("fire")[:50000], load("rain")[:50000]]))
    planes = stereo.planes(both)
    np.testing.assert_array_equal(planes, stereo.planes(both.numpy()))
    torch.testing.assert_close(planes[2] + planes[3], both[0])
    magnitude_of = transform.magnitude_function(50000)
    together = magnitude_of(planes)
    assert together.shape[0] == 4
    for plane, magnitude in zip(planes, together, strict=True):
        torch.testing.assert_close(magnitude, magnitude_of(plane), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_fft", [16, 15])
@pytest.mark.parametrize("hop_length", [4, 5, 8])
@pytest.mark.parametrize("shape", [(60,), (2, 67)])
def test_spectra_of_frames_are_pytorchs(n_fft, hop_length, shape):
    """The values against torch.stft, the gradient against differences."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()
    window = torch.rand(n_fft, generator=generator, dtype=torch.float64)
    how = dict(n_fft=n_fft, hop_length=hop_length, window=window, center=False, return_complex=True)
    torch.testing.assert_close(frames.FrameSpectra.apply(samples, window, hop_length), torch.stft(samples, **how))
    assert torch.autograd.gradcheck(lambda x: frames.FrameSpectra.apply(x, window, hop_length), samples)


@pytest.mark.filterwarnings("ignore:hop_length=.* is more than a quarter")
@pytest.mark.parametrize("extra", [-1, 0, 1, 77, 3 * frames.BLOCK // 2 * 64])
@pytest.mark.parametrize(("n_fft", "hop_length"), [(256, 64), (255, 64), (256, 128)])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_long_samples_have_the_same_image_and_gradient(channels, n_fft, hop_length, extra):
    """At lengths around those where another block begins, against PyTorch's transform of the whole."""
    length = 2 * frames.BLOCK * hop_length + extra
    samples = torch.rand((*channels, length), generator=torch.Generator().manual_seed(0)).requires_grad_()
    window, direction = torch.hann_window(n_fft), torch.Generator().manual_seed(1)
    whole = torch.stft(samples, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True).abs()
    transform = transforms.STFT(sample_rate=22050, n_fft=n_fft, hop_length=hop_length)
    found = transform.magnitude_function(length, then=torch.sqrt)(samples)
    assert found.shape == whole.shape
    torch.testing.assert_close(found, whole.sqrt(), rtol=1e-4, atol=1e-4)
    direction = torch.rand(whole.shape, generator=direction)
    gradients = [torch.autograd.grad((direction * each).sum(), samples)[0] for each in (found.square(), whole)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["stft", "cqt"])
@pytest.mark.parametrize("layout", ["freq", "time", "2D"])
def test_the_image_of_samples_is_that_of_the_single_steps(kind, layout, load, request):
    """Sample by sample through numpy, and at once with gradients; the four planes of stereo one by one."""
    transform = request.getfixturevalue(kind)
    both = np.stack([load("fire")[:40000], load("rain")[:40000]])
    analysis = Analysis(transform=transform, power=0.3, layout=layout)
    view = analysis.view(40000)
    four = [both[0], both[1], (both[0] + both[1]) / 2, (both[0] - both[1]) / 2]
    for samples, planes in ((both[0], four[:1]), (both, four)):
        image = view(torch.from_numpy(samples).requires_grad_())
        assert image.requires_grad and len(image) == len(planes)
        torch.testing.assert_close(analysis.image(torch.from_numpy(samples)), image.detach())
        for found, plane in zip(image, planes, strict=True):
            expected = analysis.compress(transform.magnitude(plane))
            error = analysis.from_image(found[None]) - expected
            assert np.linalg.norm(error) < 10 ** (-26 / 20) * np.linalg.norm(expected)
    np.testing.assert_array_equal(analysis.spectrogram(both), analysis.compress(transform.magnitude(four[2])))


@pytest.mark.parametrize("power", [0, 1e-9, -0.3, 1.5, "log", None, True])
def test_bad_powers(power, stft):
    with pytest.raises(ValueError, match=re.escape(f"power={power!r} must be from 0.01 to 1")):
        Analysis(transform=stft, power=power)


@pytest.mark.parametrize("layout", ["2d", "frequency", None, ["freq"]])
def test_bad_layouts(layout, stft):
    with pytest.raises(ValueError, match=re.escape(f"layout={layout!r} is unknown; choose one of freq, time, 2D")):
        Analysis(transform=stft, layout=layout)


def test_loud_magnitudes_warn(stft):
    with pytest.warns(UserWarning, match=re.escape("reaches 9.21, above 7")):
        Analysis(transform=stft, power="log1p").compress(np.full((3, 3), 1e4))


@pytest.mark.parametrize(("layout", "shape"), [("freq", (1, 5, 1, 9)), ("time", (1, 9, 1, 5)), ("2D", (1, 1, 5, 9))])
def test_layouts(layout, shape, stft):
    analysis = Analysis(transform=stft, layout=layout)
    spectrogram = np.arange(45, dtype=np.float32).reshape(5, 9)
    image = analysis.to_image(spectrogram)
    assert tuple(image.shape) == shape and image.dtype == torch.float32
    np.testing.assert_array_equal(analysis.from_image(image), spectrogram)
    where = {"freq": (0, 2, 0, 7), "time": (0, 7, 0, 2), "2D": (0, 0, 2, 7)}[layout]
    assert image[where] == spectrogram[2, 7]


@pytest.mark.parametrize("layout", ["freq", "time", "2D"])
def test_only_one_plane_becomes_a_sound(layout, stft):
    """The planes of stereo, or a batch: none is dropped in silence."""
    analysis = Analysis(transform=stft, layout=layout)
    samples = torch.rand(2, 22050, generator=torch.Generator().manual_seed(0)) - 0.5
    image = analysis.image(samples)
    for back in (analysis.from_image, lambda image: analysis.sound(image, length=22050, n_iter=2)):
        with pytest.raises(ValueError, match=r"the image has 4 planes; give one plane at a time, such as image\[:1\]"):
            back(image)
    alone = analysis.from_image(analysis.image(samples[0]))
    np.testing.assert_allclose(analysis.from_image(image[:1]), alone, atol=1e-6)


def test_seconds_are_frames_where_frames_are_not_channels(stft):
    analysis = Analysis(transform=stft)
    assert [analysis.frames(seconds) for seconds in (None, 1e-6, 1.0, 2.5)] == [None, 1, 86, 215]
    assert Analysis(transform=stft, layout="time").frames(1.0) is None


def test_the_loudest_values_of_an_image_can_be_cut(load, stft):
    """As a result's are by those of its recordings; values below 0 become 0."""
    samples = load("piano", duration=1.0)
    analysis = Analysis(transform=stft)
    spectrogram = analysis.spectrogram(samples)
    loud = analysis.to_image(np.where(spectrogram > 0.6 * spectrogram.max(), 3, spectrogram - 1e-6))
    how = dict(length=len(samples), n_iter=20, seed=3)
    made = analysis.sound(loud, loudest=0.5 * spectrogram.max(), **how)
    expected = analysis.reconstruct(np.clip(analysis.from_image(loud), 0, 0.5 * spectrogram.max()), **how)
    np.testing.assert_array_equal(made, expected)
    assert np.abs(made).max() < np.abs(samples).max()


def write(path, samples, rate=22050):
    soundfile.write(path, np.asarray(samples, dtype=np.float32), rate, subtype="FLOAT")
    return path


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav is not a file; give the path"):
        files.load_audio(tmp_path / "nowhere.wav", sample_rate=22050)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        files.load_audio(tmp_path, sample_rate=22050)
    (tmp_path / "text.wav").write_text("this is not a sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    for name in ("text.wav", "empty.wav"):
        with pytest.raises(ValueError, match="not a sound file that libsndfile can read"):
            files.load_audio(tmp_path / name, sample_rate=22050)
    cases = {"no samples": [], "silent": np.zeros(9000), "NaN or infinite": [0.1] * 500 + [np.nan] + [0.1] * 500}
    for message, samples in cases.items():
        with pytest.raises(ValueError, match=message):
            files.load_audio(write(tmp_path / "bad.wav", samples), sample_rate=22050)


def test_bad_excerpts(tmp_path):
    path = write(tmp_path / "noise.wav", 0.1 * np.ones(22050))
    with pytest.raises(ValueError, match=r"offset=-1 must be at least 0"):
        files.load_audio(path, sample_rate=22050, offset=-1)
    with pytest.raises(ValueError, match=r"duration=0 positive or None"):
        files.load_audio(path, sample_rate=22050, duration=0)
    with pytest.raises(ValueError, match=r"offset=5.*no samples.*smaller offset"):
        files.load_audio(path, sample_rate=22050, offset=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(n_fft=1024, hop_length=1024), "hop_length=1024 can't be inverted: the hop must be at most 512"),
        (dict(n_fft=1024, hop_length=4000), "can't be inverted"),
        (dict(n_fft=1024, hop_length=0), "hop_length=0 must be a positive whole number"),
        (dict(n_fft=1024.5, hop_length=256), "n_fft=1024.5 must be a positive whole number"),
    ],
)
def test_bad_stft(settings, message):
    with pytest.raises(ValueError, match=message):
        transforms.STFT(sample_rate=22050, **settings)


@pytest.mark.filterwarnings("default")
def test_poor_hops_warn():
    with pytest.warns(UserWarning, match="hop_length=512 is more than a quarter of n_fft=1024"):
        transforms.STFT(sample_rate=22050, n_fft=1024, hop_length=512)
    with pytest.warns(UserWarning, match="hop_length=256 leaves gaps between the shortest filters"):
        transforms.CQT(sample_rate=22050, hop_length=256, bins_per_octave=48, fmin=41.2, n_octaves=8)


def test_bad_cqt():
    good = dict(sample_rate=22050, hop_length=128, bins_per_octave=48, fmin=41.2, n_octaves=8)
    with pytest.raises(
        ValueError, match=r"n_octaves=9 reach \d+ Hz, above the Nyquist frequency of 11025 Hz; set n_octaves=8"
    ):
        transforms.CQT(**good | dict(n_octaves=9))
    with pytest.raises(ValueError, match="lowest_frequency=0 must be a finite number above 0"):
        transforms.CQT(**good | dict(fmin=0))
    with pytest.raises(ValueError, match="bins_per_octave=-1 must be"):
        transforms.CQT(**good | dict(bins_per_octave=-1))


def test_too_short(stft, cqt):
    noise = np.random.default_rng(0).standard_normal(30000).astype(np.float32)
    with pytest.raises(ValueError, match=r"has 1000 samples \(0.045 s\), too short for n_fft=1024.*at least 1024"):
        stft.magnitude(noise[:1000])
    with pytest.raises(ValueError, match=r"too short for the lowest filter .raise lowest_frequency"):
        cqt.magnitude(noise)


def test_bad_magnitudes(stft, cqt):
    with pytest.raises(ValueError, match=r"shape \(512, 9\); this transform has 513 bins"):
        stft.reconstruct(np.ones((512, 9)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        stft.reconstruct(np.full((513, 9), np.inf))
    for transform in (stft, cqt):
        with pytest.raises(ValueError, match="n_iter=0 must be a positive whole number"):
            transform.reconstruct(np.ones((len(transform.frequencies), 9)), n_iter=0)
        longest = 9 * transform.hop_length
        for length in (0, longest + 1, 10**9):
            with pytest.raises(ValueError, match=f"length={length} samples .* 9 frames: give from 1 to {longest},"):
                transform.reconstruct(np.ones((len(transform.frequencies), 9)), length=length)
