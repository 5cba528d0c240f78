"""One call from settings to samples: what the call returns, reports, and takes in place of its parts."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

import audiocnn
from support import pipeline
from support.bands import band_networks
from support.desk.settings import Settings
from support.sound.analysis import Analysis
from support.sound.transforms import CQT, STFT

MODELS = Path(__file__).parents[2] / "models"
QUICK = dict(device="cpu", filters=6, widths=[1, 4], num_steps=5, refine_steps=3, redraw=2, phase_iterations=4)


@pytest.fixture(scope="module")
def brook():
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(22050)).astype(np.float32)


def test_the_result_holds_its_objective_and_the_networks(brook):
    """At the image, with the networks of the last draw, the objective gives the losses that the history ends with."""
    result = pipeline.run(Settings(**QUICK), {"style 1": brook})
    objective = result.objective
    assert set(objective.network.keys()) == {"width_1", "width_4"} == set(objective.first_network.keys())
    objective.draw(2)  # of steps 5 and 6
    losses, _ = objective.evaluate(result.image)
    assert float(sum(losses.values())) == pytest.approx(result.history[-1]["total"], rel=1e-5)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
        {name: loss for name, loss in result.history[-1].items() if name != "total"}, rel=1e-5
    )
    assert (len(result.history), len(result.refinement), result.samples.shape) == (5, 3, (22050,))


def test_watch_is_called_after_every_step_of_both_descents(brook):
    seen = []
    result = pipeline.run(Settings(**QUICK), {"style 1": brook}, watch=lambda *step: seen.append(step))
    steps = [("optimise", 1 + n, losses) for n, losses in enumerate(result.history)]
    assert seen == steps + [("refine", 1 + n, losses) for n, losses in enumerate(result.refinement)]
    assert len(seen) == 8


def test_a_recording_that_runs_backwards_is_taken_as_any_other(brook):
    """NumPy's view of it has steps of -1, which PyTorch does not take."""
    settings = Settings(**QUICK, CONTENT_FILENAME="content", pitch_weight=1.0)
    results = [
        pipeline.run(settings, {"style 1": brook, "content": content}).samples
        for content in (brook[::-1], brook[::-1].copy())
    ]
    assert torch.equal(*results)


def test_two_channels_in_mono_are_refused_before_any_step(brook):
    seen = []
    with pytest.raises(ValueError, match=r"^style 1 has the shape \(2, \d+\), but stereo=False; set it, or give one"):
        pipeline.run(Settings(**QUICK), {"style 1": np.stack([brook, brook])}, watch=lambda *step: seen.append(step))
    assert seen == []


def test_one_setting_chooses_the_network_of_musicnn(brook):
    """Its weights are those of the file, its layers the style's, and the losses fall."""
    settings = Settings(
        recipe="gatys",
        model_path=str(MODELS / "musicnn_vgg.pth"),
        sample_rate=16000,
        N_FFT=512,
        K_HOP=256,
        style_layers_default=["relu_1", "relu_2"],
        num_steps=4,
        phase_iterations=4,
        device="cpu",
    )
    result = pipeline.run(settings, {"style 1": brook[:16000]})
    saved = torch.load(MODELS / "musicnn_vgg.pth", weights_only=True)
    loaded = [each for each in result.objective.network.state_dict().values() if each.is_floating_point()]
    for weights in [each for each in saved.values() if each.is_floating_point()]:
        assert any(each.shape == weights.shape and torch.equal(each, weights) for each in loaded)
    assert {"style relu_1", "style relu_2"} <= result.history[-1].keys()
    assert result.history[-1]["total"] < 0.8 * result.start["total"]


def difference(features, target, power=2.0):
    return (features - target).abs().pow(power).mean()


SAMPLE_TERMS = {
    "a function": (difference, "difference samples", 2.0),
    "a partial function": (functools.partial(difference, power=3.0), "partial samples", 3.0),
    "a lambda": (lambda features, target: (features - target).abs().mean(), "lambda samples", 1.0),
    "a module": (torch.nn.MSELoss(), "mseloss samples", 2.0),
}


@pytest.mark.parametrize("kind", SAMPLE_TERMS)
@pytest.mark.parametrize("compares", ["style", "content"])
def test_any_callable_may_be_a_term_at_the_samples(kind, compares, brook):
    """Its value and its gradient are those of a sum over the samples; the objective of images leaves the term out."""
    function, name, power = SAMPLE_TERMS[kind]
    sounds = {"style 1": brook, "content": brook[::-1].copy()}
    terms = [audiocnn.Term(function, "samples", 5.0, compares), (audiocnn.StyleLoss(), "conv_1", 1.0)]
    ((through, objective),) = pipeline.on_samples(terms, sounds, "cpu")
    samples = torch.from_numpy(np.roll(brook, 7))
    losses, gradient = objective.evaluate(samples, through=through)
    target = sounds["style 1" if compares == "style" else "content"].astype(np.float64)
    apart = np.roll(brook, 7).astype(np.float64) - target
    assert {each: float(loss) for each, loss in losses.items()} == pytest.approx(
        {name: 5 * np.mean(np.abs(apart) ** power)}, rel=1e-4
    )
    expected = 5 * power * np.abs(apart) ** (power - 1) * np.sign(apart) / len(apart)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_an_stft_and_a_constant_q_transform_at_once(brook):
    """The gradient of the pair is the sum of both, and a descent on the pair lowers both."""
    transforms = [
        STFT(sample_rate=22050, n_fft=512, hop_length=128),
        CQT(sample_rate=22050, hop_length=128, bins_per_octave=12, fmin=110, n_octaves=6),
    ]
    pairs = []
    for transform in transforms:
        analysis = Analysis(transform=transform)
        network = band_networks(transform.frequencies, widths=[2], filters=6)
        style = analysis.image(torch.from_numpy(brook))
        terms = [(audiocnn.DistributionLoss(), "conv_2", 1.0)]
        pairs.append((analysis.view(len(brook)), audiocnn.Objective(network, terms, style=style)))
    samples = torch.from_numpy(0.2 * np.sin(0.3 * np.arange(len(brook), dtype=np.float32)))
    start = [float(sum(objective.evaluate(samples, through=through)[0].values())) for through, objective in pairs]
    gradient = sum(objective.evaluate(samples, through=through)[1] for through, objective in pairs)
    moved = samples.clone()
    list(audiocnn.optimise(moved, pairs, num_steps=1, optimizer=functools.partial(torch.optim.SGD, lr=1e-3)))
    torch.testing.assert_close(moved - samples, -1e-3 * gradient, rtol=1e-2, atol=1e-7)
    *_, last = audiocnn.optimise(samples, pairs, num_steps=10)
    names = [name for name in last if name != "total"]
    assert len(names) == 2 and last["total"] == pytest.approx(sum(last[name] for name in names), rel=1e-5)
    for (through, objective), before in zip(pairs, start, strict=True):
        assert float(sum(objective.evaluate(samples, through=through)[0].values())) < 0.7 * before
