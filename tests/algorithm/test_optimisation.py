"""Starts, the objective in segments, L-BFGS, interrupts, and GPUs."""

import dataclasses
import functools
import itertools
import threading

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch

import audiocnn
from support import fast, losses, networks
from support.bands import band_networks
from support.rhythm import RhythmLoss
from support.sound import stereo, transforms
from support.sound.analysis import Analysis
from support.start import matched_noise, start_image

LIKE = torch.zeros(1, 100, 1, 300)
NOISE = dict(lower=0.05, upper=0.3, mu=0.1, sigma=0.1)
DISTRIBUTIONS = {
    "samples": scipy.stats.truncnorm((0.05 - 0.1) / 0.1, (0.3 - 0.1) / 0.1, loc=0.1, scale=0.1),
    "rand": scipy.stats.uniform(0, 0.1),
    "randn": scipy.stats.norm(0, 1),
}


@pytest.mark.parametrize("start", DISTRIBUTIONS)
def test_start_distributions(start):
    values = start_image(start, like=LIKE, seed=1, **NOISE).numpy().ravel()
    assert scipy.stats.kstest(values, DISTRIBUTIONS[start].cdf).pvalue > 0.01
    again = start_image(start, like=LIKE, seed=1, **NOISE).numpy().ravel()
    other = start_image(start, like=LIKE, seed=2, **NOISE).numpy().ravel()
    np.testing.assert_array_equal(values, again)
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.05


def test_start_from_the_content(image):
    start = start_image("content", like=image, content=image)
    assert torch.equal(start, image)
    start += 1
    assert not torch.equal(start, image)


def test_bad_starts(image):
    with pytest.raises(ValueError, match="start='pink' is unknown; choose one of samples, rand, randn, content, noise"):
        start_image("pink", like=image)
    with pytest.raises(ValueError, match="'noise' needs a noise image"):
        start_image("noise", like=image)
    message = r"'noise' needs a noise image of the result's shape, \(1, 20, 1, 64\), not \(1, 20, 1, 9\)"
    with pytest.raises(ValueError, match=message):
        start_image("noise", like=image, noise=image[..., :9])
    with pytest.raises(ValueError, match="'content' needs a content"):
        start_image("content", like=image)
    with pytest.raises(ValueError, match=r"lower=0.5 must be below upper=0.2"):
        start_image("samples", like=image, lower=0.5, upper=0.2)


@pytest.mark.parametrize("name", ["rain", "piano"])
def test_matched_noise_has_the_level_and_the_spectrum(name, load):
    samples = load(name, duration=5.0)
    noise = matched_noise(samples, length=7 * 22050, seed=1)
    assert noise.shape == (7 * 22050,) and noise.dtype == np.float32
    assert np.std(noise) == pytest.approx(np.std(samples), rel=0.01)
    levels = [10 * np.log10(scipy.signal.welch(y, 22050, nperseg=1024)[1] + 1e-10) for y in (noise, samples)]
    assert np.mean(np.abs(levels[0] - levels[1])) < 1.5
    frames = np.square(noise[: 150 * 1000].reshape(150, -1)).mean(axis=1)
    assert frames.std() < 0.8 * frames.mean()  # stationary
    np.testing.assert_array_equal(noise, matched_noise(samples, length=7 * 22050, seed=1))
    other = matched_noise(samples, length=7 * 22050, seed=2)
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.1


@pytest.mark.parametrize("planes", [1, 4])
@pytest.mark.parametrize("in_rows", [True, False])
def test_gradients_through_networks_side_by_side(planes, in_rows):
    """Against products and sorting written out, for both layouts in memory, of mono and of stereo.

    In float64, since rounding may swap two values that are nearly equal, and their gradients.
    """
    bands = band_networks(np.linspace(0, 8000, 30), widths=[3, 5, 3], filters=6).double()
    style, content, start = (torch.rand(planes, 1024, 30).double().mT[:, :, None] for _ in range(3))
    start = start.contiguous() if in_rows else start
    terms = [(audiocnn.DistributionLoss(), "conv_1", 2.0 * 0.7), (audiocnn.ContentLoss(), "conv_2", 5.0)]
    found, gradient = audiocnn.Objective(bands, terms, style=style, content=content).evaluate(start)

    def features(chain, image):
        summed = torch.einsum("fb,pbt->pft", chain[0].weight[:, :, 0, 0], image[:, :, 0])
        windows = summed.unfold(2, chain[1].kernel_size[1], 1)
        return summed, (windows * chain[1].weight[:, 0, 0][:, None]).sum(dim=3)

    image, total = start.clone().requires_grad_(), 0
    for chain in bands.values():
        summed, filtered = features(chain, image)
        target, values = (each.flatten(0, 1).sort(dim=1).values for each in (features(chain, style)[0], summed))
        total = total + 2 * 0.7 * (values - target).square().mean() / target.var(dim=1).mean()
        total = total + 5 * (filtered - features(chain, content)[1]).square().mean()
    total.backward()
    assert sum(found.values()).item() == pytest.approx(total.item(), rel=1e-6)
    assert (gradient - image.grad).norm() < 1e-6 * image.grad.norm()


@pytest.mark.parametrize("planes", [1, 4])
def test_segments_are_compared_each_on_its_own(planes):
    """Losses and gradient are the means of those of the four segments, cut out with what their filters reach over."""
    bands = band_networks(np.linspace(0, 8000, 30), widths=[5], filters=6).double()
    style, content, start = (torch.rand(planes, 30, 1, 804).double() for _ in range(3))
    terms = [(audiocnn.DistributionLoss(), layer, 2.0) for layer in ("conv_1", "conv_2")]
    terms += [(audiocnn.ContentLoss(), "conv_1", 5.0), (losses.DiversityLoss(), "conv_2", 0.1)]
    cuts = [slice(None), *(slice(first, first + 204) for first in (0, 200, 400, 600))]
    gradients, values = [], []
    for cut, segment in zip(cuts, (220, None, None, None, None), strict=True):
        objective = audiocnn.Objective(bands, terms, style=style[..., :300], content=content[..., cut], segment=segment)
        found, gradient = objective.evaluate(start[..., cut])
        values.append({name: float(loss) for name, loss in found.items()})
        gradients.append(gradient)
    expected = torch.zeros_like(start)
    for cut, gradient in zip(cuts[1:], gradients[1:], strict=True):
        expected[..., cut] += gradient / 4
    assert (gradients[0] - expected).norm() < 1e-9 * expected.norm()
    assert len(values[0]) == 4
    for name, found in values[0].items():
        assert found == pytest.approx(np.mean([each[name] for each in values[1:]]), rel=1e-9) and found > 0


def test_the_rhythm_of_segments_is_that_of_the_whole():
    bands = band_networks(np.linspace(0, 8000, 30), widths=[5], filters=6).double()
    style, start = (torch.rand(1, 30, 1, length).double() for length in (300, 804))
    terms = [(RhythmLoss(), "conv_1", 0.5), (audiocnn.DistributionLoss(), "conv_1", 1.0)]
    found = [audiocnn.Objective(bands, terms, style=style, segment=each).evaluate(start)[0] for each in (100, None)]
    assert float(found[0]["rhythm conv_1"]) == pytest.approx(float(found[1]["rhythm conv_1"]), rel=1e-9)
    assert float(found[0]["style conv_1"]) != pytest.approx(float(found[1]["style conv_1"]), rel=1e-3)


def test_layers_that_pad_see_the_whole(make_objective, image):
    """Segments of a padded network would have ends that the whole has not, so it has none."""
    start = start_image("rand", like=image)
    first, second = (make_objective(segment=segment).evaluate(start) for segment in (None, 16))
    assert first[0] == second[0] and torch.equal(first[1], second[1])
    with pytest.raises(ValueError, match="segment=0 must be a positive whole number"):
        make_objective(segment=0)


def test_gradients_through_pointwise_filters_of_2d_images():
    """Also where the image lies across memory, as a torch.stft does."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1, bias=False), torch.nn.ReLU())
    style, start = torch.randn(1, 1, 40, 30), torch.randn(1, 1, 30, 40).mT
    objective = audiocnn.Objective(network, [(audiocnn.StyleLoss(), "relu_1", 1.0)], style=style)
    image = start.clone().requires_grad_()
    grams = []
    for values in (style, image):
        rows = torch.relu(network[0].weight.detach()[:, :, 0, 0] @ values.reshape(1, -1))
        grams.append(rows @ rows.T / 1200)
    (grams[0] - grams[1]).square().mean().backward()
    _, gradient = objective.evaluate(start)
    torch.testing.assert_close(gradient, image.grad, rtol=1e-4, atol=1e-7)


def spatial(samples):
    """Level difference in dB and coherence of two channels, in thirds of octaves from 200 Hz up."""
    frequencies, cross = scipy.signal.csd(*samples, fs=22050, nperseg=2048)
    powers = [scipy.signal.welch(channel, fs=22050, nperseg=2048)[1] for channel in samples]
    edges = np.searchsorted(frequencies, 200 * 2 ** np.arange(0, 5.34, 1 / 3))
    left, right = (np.add.reduceat(power, edges[:-1]) for power in powers)
    return 10 * np.log10(left / right), np.abs(np.add.reduceat(cross, edges[:-1])) / np.sqrt(left * right)


@pytest.mark.parametrize("softer", [1.0, 0.3])
def test_widening_places_and_spreads_like_another_sound(softer, load):
    """Two recordings share a third; a third recording gets their level difference and coherence."""
    first, second, shared = (load(name)[20000:100000] for name in ("fire", "furnace", "vinyl_crackle"))
    like = np.stack([first + shared, softer * (second + shared)])
    wide = stereo.widen(load("rain"), like=like)
    assert wide.shape == (2, len(load("rain"))) and wide.dtype == np.float32
    levels, coherence = spatial(like)
    levels_found, coherence_found = spatial(wide)
    assert np.abs(levels - levels_found).mean() < 1.5
    assert np.abs(coherence - coherence_found).mean() < 0.15
    np.testing.assert_allclose(wide.mean(axis=0), load("rain"), atol=1e-6)  # the middle stays


def test_widening_like_mono_changes_nothing(load):
    wide = stereo.widen(load("tabla"), like=np.stack([load("fire"), load("fire")]))
    np.testing.assert_allclose(wide, np.stack([load("tabla")] * 2), atol=1e-5)


def test_samples_can_be_refined(load, stft):
    """Through a view, optimise changes samples, in place, and the sound's own statistics come nearer."""
    style, analysis = load("fire", duration=2.0), Analysis(transform=stft)

    def image_of(samples):
        return analysis.to_image(analysis.spectrogram(samples))

    bands = band_networks(stft.frequencies, widths=[1, 8], filters=24)
    objective = audiocnn.Objective(bands, [(audiocnn.DistributionLoss(), "conv_2", 1.0)], style=image_of(style))
    samples = torch.from_numpy(matched_noise(style, length=40000))
    before, view = samples.clone(), analysis.view(40000)
    totals = [found["total"] for found in audiocnn.optimise(samples, objective, num_steps=25, through=view)]
    assert totals[-1] < 0.2 * totals[0] and not torch.equal(samples, before)
    found, _ = objective.evaluate(image_of(samples.numpy()))
    assert float(sum(found.values())) == pytest.approx(totals[-1], rel=1e-3)


def test_weights_of_zero_switch_losses_off(image, parameters):
    network, start = networks.build_network(parameters), image + torch.rand_like(image)

    def names(style, rhythm, diversity):
        terms = [(audiocnn.StyleLoss(), "relu_1", style), (RhythmLoss(), "relu_1", rhythm)]
        terms += [(losses.DiversityLoss(), "relu_1", diversity), (audiocnn.BoundLoss(), "input", 0.0)]
        objective = audiocnn.Objective(network, terms, style=image)
        return set(next(audiocnn.optimise(start.clone(), objective, num_steps=1)))

    assert names(1.0, 0, 0) == {"style relu_1", "total"}
    assert names(0, 1.0, 0.1) == {"rhythm relu_1", "diversity relu_1", "total"}
    with pytest.raises(ValueError, match="no loss with a weight above 0"):
        names(0, 0.0, 0)


@pytest.fixture
def make_objective(parameters, image):
    """Return a function from weights to an objective of a style, a content and a bound."""

    def make(style=1e5, content=1.0, bound=1e-3, more=(), **how):
        terms = [(audiocnn.StyleLoss(), "relu_1", style), (audiocnn.ContentLoss(), "relu_2", content)]
        terms += [(audiocnn.BoundLoss(), "input", bound), *more]
        network = networks.build_network(parameters)
        return audiocnn.Objective(network, terms, style=image.flip(1), content=image, **how)

    return make


@pytest.fixture
def objective(make_objective):
    return make_objective()


def test_losses_fall_and_have_names(objective, image, parameters):
    """The losses of the last step are those of the image that is left, written out on the network itself."""
    style, content, result = image.flip(1), image, start_image("rand", like=image)
    history = list(audiocnn.optimise(result, objective, num_steps=40))
    assert len(history) == 40
    assert list(history[0]) == ["style relu_1", "content relu_2", "bound input", "total"]
    totals = [found["total"] for found in history]
    assert all(late <= early for early, late in itertools.pairwise(totals))
    assert totals[-1] < 0.02 * totals[0]
    network = networks.build_network(parameters)
    first = [network.layer1[:3](x) for x in (result, style)]
    grams = [torch.einsum("chw,dhw->cd", f[0].double(), f[0].double()) / 64 for f in first]
    second = [network.layer2[:3](network.layer1(x)) for x in (result, content)]
    bound = 1e-3 * float(torch.relu(-result).square().sum() + torch.relu(result - 1).square().sum())
    last = history[-1]
    assert last["style relu_1"] == pytest.approx(1e5 * float((grams[0] - grams[1]).square().mean()), rel=1e-3)
    assert last["content relu_2"] == pytest.approx(float((second[0] - second[1]).square().mean()), rel=1e-4)
    assert last["bound input"] == pytest.approx(bound, rel=1e-3, abs=1e-9)
    assert last["total"] == pytest.approx(sum(list(last.values())[:-1]), rel=1e-5)


def test_only_ratios_of_weights_count():
    """Small weights give the same descent, times a power of two to the last bit; L-BFGS alone would stay at 94 %."""
    bands = band_networks(np.linspace(0, 8000, 30), widths=[2, 8], filters=20)
    style = torch.rand(1, 30, 1, 200, generator=torch.Generator().manual_seed(0)).square()
    results, shares = [], []
    for factor in (1.0, 1e-9, 2.0**-40, 2.0**-50):
        terms = [(audiocnn.DistributionLoss(), "conv_2", factor), (audiocnn.BoundLoss(), "input", 0.1 * factor)]
        objective, result = audiocnn.Objective(bands, terms, style=style), start_image("rand", like=style)
        totals = [found["total"] for found in audiocnn.optimise(result, objective, num_steps=30)]
        results.append(result), shares.append(totals[-1] / totals[0])
    assert max(shares) < 0.01  # 0.0003 to 0.0007: after 30 steps, rounding alone makes this difference
    assert torch.equal(results[2], results[3])


class Watched(audiocnn.Loss):
    """A loss of 0 that counts its calls, and can interrupt them, or be NaN."""

    kind, calls, trouble = "watched", 0, None

    def distance(self, features, target):
        Watched.calls += 1
        if isinstance(Watched.trouble, BaseException):
            raise Watched.trouble
        return (Watched.trouble or 0.0) * features.sum()


@pytest.fixture
def watched(make_objective, monkeypatch):
    monkeypatch.setattr(Watched, "calls", 0)
    monkeypatch.setattr(Watched, "trouble", None)
    return make_objective(more=[(Watched(), "relu_2", 1.0)])


def test_a_step_costs_little_more_than_an_evaluation(watched, image):
    """Strong Wolfe needs about one evaluation a step; none may be spent on a point seen before."""
    list(audiocnn.optimise(start_image("rand", like=image), watched, num_steps=40))
    assert 40 <= Watched.calls < 60


def test_bound_holds_the_result(make_objective, image):
    def outside(weight):
        result = start_image("randn", like=image)
        history = list(audiocnn.optimise(result, make_objective(bound=weight), num_steps=60))
        assert ("bound input" in history[-1]) == (weight > 0)
        return float((result - result.clamp(0, 1)).abs().max())

    assert outside(10.0) < 0.3 * outside(0)


def test_the_optimum_is_the_known_one(image):
    """A quadratic problem with a known answer: content loss alone on the convolution's output."""
    network = torch.nn.Sequential(torch.nn.Conv2d(20, 20, 1, bias=False)).requires_grad_(False)
    network[0].weight.copy_(torch.eye(20)[:, :, None, None] * 2)
    objective = audiocnn.Objective(network, [(audiocnn.ContentLoss(), "conv_1", 1.0)], content=image)
    result = torch.zeros_like(image)
    list(audiocnn.optimise(result, objective, num_steps=20))
    torch.testing.assert_close(result, image, rtol=0, atol=1e-4)


def test_same_seed_same_image(objective, image):
    results = []
    for _ in range(2):
        results.append(start_image("samples", like=image, seed=3))
        list(audiocnn.optimise(results[-1], objective, num_steps=5))
    assert torch.equal(*results)


def test_interrupt_keeps_the_last_step_and_goes_on(watched, image):
    result = start_image("rand", like=image)
    steps = audiocnn.optimise(result, watched, num_steps=30)
    before = [next(steps) for _ in range(5)][-1]
    kept = result.clone()
    Watched.trouble = KeyboardInterrupt()  # in the middle of a line search
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    Watched.trouble = None
    assert torch.equal(result, kept)
    more = list(audiocnn.optimise(result, watched, num_steps=10))
    assert more[0]["total"] < before["total"] and more[-1]["total"] < 0.7 * before["total"]


def test_infinite_losses_stop_the_run(watched, make_objective, image):
    result = start_image("rand", like=image)
    steps = audiocnn.optimise(result, watched, num_steps=30)
    next(steps), next(steps)
    kept = result.clone()
    Watched.trouble = float("nan")
    with pytest.raises(FloatingPointError, match=r"step 3: the loss 'watched relu_2' is nan.*step 2 is kept"):
        list(steps)
    assert torch.equal(result, kept)
    with pytest.raises(FloatingPointError, match=r"step 1: the loss 'style relu_1' is nan"):
        list(audiocnn.optimise(result * float("nan"), make_objective(), num_steps=3))
    with pytest.raises(FloatingPointError, match=r"step 1: the loss 'style relu_1' is inf"):
        list(audiocnn.optimise(result, make_objective(style=1e45), num_steps=3))


GPU = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None


@pytest.mark.skipif(GPU is None, reason="no GPU here")
def test_a_gpu_gives_the_same_losses(parameters, image):
    histories = []
    terms = [(audiocnn.StyleLoss(), layer, 1e5) for layer in ("relu_1", "relu_2")]
    terms += [(audiocnn.BoundLoss(), "input", 1e-3)]
    for device in ("cpu", GPU):
        network, style = networks.build_network(parameters).to(device), image.flip(1).to(device)
        objective = audiocnn.Objective(network, terms, style=style)
        result = start_image("rand", like=style)
        histories.append(list(audiocnn.optimise(result, objective, num_steps=5)))
        assert result.device.type == device
    for here, there in zip(*histories, strict=True):
        assert there["total"] == pytest.approx(here["total"], rel=1e-2)


class Halting(audiocnn.StyleLoss):
    """A loss that looks at its own number; this project's to the eyes of fast.recorded."""

    __module__ = "audiocnn"

    def distance(self, features, target):
        distance = super().distance(features, target)
        return distance if distance > 1 else 2 * distance


class Own(audiocnn.StyleLoss):
    """A loss that a notebook defines."""


def a_function(features, target):
    """A loss that a notebook defines as a function."""
    return (features.mean() - target.mean()).square()


@pytest.mark.skipif(GPU != "cuda", reason="no CUDA GPU here")
@pytest.mark.parametrize("loss", [audiocnn.StyleLoss(), audiocnn.DistributionLoss(), Halting(), Own(), a_function])
@pytest.mark.parametrize("of_samples", [False, True])
def test_a_recorded_objective_stays_what_it_is(loss, of_samples, load, stft):
    """The same losses and gradients for three images, in segments; the next call does not change an earlier result."""
    style, analysis = load("fire", duration=2.0), Analysis(transform=stft)
    image = analysis.to_image(analysis.spectrogram(style), "cuda")
    bands = band_networks(stft.frequencies, widths=[1, 8], filters=64).to("cuda")
    terms = [(loss, "conv_1", 1.0), (audiocnn.BoundLoss(), "input", 1)]
    objective = audiocnn.Objective(bands, terms, style=image, segment=100)
    view = analysis.view(len(style), "cuda") if of_samples else None
    tensor = torch.tensor(style, device="cuda") if of_samples else image
    plain = functools.partial(objective.evaluate, through=view)
    found = fast.recorded(plain, objective.parts(), tensor)
    assert (found is plain) == (loss is a_function or isinstance(loss, Halting | Own))
    for _ in range(3):
        tensor = tensor + 0.1 * torch.rand_like(tensor)
        expected, again = plain(tensor), found(tensor)
        found(2 * tensor)
        torch.testing.assert_close(again[0], expected[0], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(again[1], expected[1], rtol=1e-2, atol=1e-3 * float(expected[1].abs().max()))


CQT = transforms.CQT(sample_rate=22050, hop_length=64, bins_per_octave=24, fmin=200.0, n_octaves=5)


@pytest.mark.skipif(GPU is None, reason="no GPU here")
@pytest.mark.parametrize("changes", [{}, dict(transform=CQT), dict(loop=True), dict(stereo=True)])
def test_a_gpu_takes_the_same_steps(changes, load, stft):
    """Two, on the spectrogram and on samples; more drift apart: 4 steps turn an error of 1e-4 into 0.2."""
    style, found = load("fire", duration=2.0), []
    style = np.stack([style, np.roll(style, 100)]) if changes.pop("stereo", False) else style
    analysis = dataclasses.replace(Analysis(transform=stft), **changes)
    bands = band_networks(analysis.transform.frequencies, widths=[1, 4], filters=16)
    length = analysis.length_of(30000)
    noise = np.random.default_rng(0).normal(0, 0.1, (*style.shape[:-1], length)).astype(np.float32)
    terms = [(audiocnn.DistributionLoss(), layer, 1.0) for layer in ("conv_1", "conv_2")]
    for device in ("cpu", GPU):
        image = dataclasses.replace(analysis, loop=False).image(torch.from_numpy(style).to(device))
        objective = audiocnn.Objective(bands.to(device), terms, style=image, loop=analysis.loop)
        view, samples = analysis.view(length, device), torch.tensor(noise, device=device)
        start = view(samples).detach().clone()
        list(audiocnn.optimise(start, objective, num_steps=2))
        how = dict(through=view, precondition=analysis.preconditioner)
        list(audiocnn.optimise(samples, objective, num_steps=2, **how))
        found.append((start.cpu(), samples.cpu()))
    for here, there in zip(*found, strict=True):
        assert (here - there).norm() < 0.02 * here.norm()


# Networks at once ---------------------------------------------------------------------------------


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def banded(terms, **how):
    frequencies = np.linspace(0, 11025, 100)
    noise = [torch.rand(1, 100, 1, n, generator=torch.Generator().manual_seed(n)) for n in (300, 400, 301)]
    networks = band_networks(frequencies, widths=[1, 2, 8], filters=12)
    return noise[0], audiocnn.Objective(networks, terms, style=noise[1], content=noise[2][..., :300], **how)


@pytest.mark.parametrize("how", [{}, dict(segment=60), dict(loop=True)], ids=["whole", "segments", "loop"])
def test_networks_at_once_give_what_they_give_one_by_one(how, two_threads, monkeypatch):
    """Losses and gradient are the same with 2 threads, whatever the order in which the networks end."""
    terms = [(audiocnn.DistributionLoss(), "conv_2", 2.0), (audiocnn.ContentLoss(), "width_8.conv_2", 3.0)]
    terms += [(RhythmLoss(), "width_1.conv_1", 1.0), (losses.DiversityLoss(), "input", 1.0)]
    image, objective = banded(terms if not how.get("loop") else terms[:1], **how)
    at_once = objective.evaluate(image, by_network=True)
    asked = []
    monkeypatch.setattr(
        fast, "in_threads", lambda function, items: [asked.append(len(items)), *map(function, items)][1:]
    )
    one_by_one = banded(objective.all_terms, **how)[1].evaluate(image, by_network=True)
    assert asked == ([3, 3] if how.get("loop") else [3, 4])  # the targets of the networks, then the losses
    assert list(at_once[0]) == list(one_by_one[0])
    for name, loss in one_by_one[0].items():
        torch.testing.assert_close(at_once[0][name], loss, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(at_once[1], one_by_one[1], rtol=1e-4, atol=1e-7)


def test_an_error_in_a_thread_is_said_and_the_threads_stay(two_threads):
    def fail(number):
        if number == 2:
            raise ValueError("number 2")
        return torch.get_num_threads()

    with pytest.raises(ValueError, match="number 2"):
        fast.in_threads(fail, [1, 2, 3])
    assert torch.get_num_threads() == 2
    assert fast.in_threads(fail, [1, 3, 4]) == [1, 1, 1]  # each of the threads leaves the other cores to the others


def test_losses_of_ones_own_are_called_one_by_one(two_threads):
    """In the thread of the notebook's cell, where their prints appear."""
    seen = []

    def own(features, target):
        seen.append(threading.current_thread() is threading.main_thread())
        return (features - target.mean()).square().mean()

    image, objective = banded([(own, "conv_2", 1.0)])
    objective.evaluate(image)
    assert seen == [True] * 3
