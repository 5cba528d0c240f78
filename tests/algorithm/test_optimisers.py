"""Optimisers of any kind in both descents, several objectives at once, interrupts, and resuming."""

import functools

import numpy as np
import pytest
import torch

import audiocnn
from support import pipeline
from support.bands import band_networks
from support.desk.settings import Settings
from support.sound.analysis import Analysis
from support.sound.transforms import STFT
from support.weights import KNOWN, read_weights

LENGTH = 6000
STYLE = (0.1 * np.random.default_rng(1).standard_normal(LENGTH)).cumsum().astype(np.float32) % 0.5 - 0.25


class Signs(torch.optim.Optimizer):
    """An optimiser of one's own: a step against the signs of the gradient, shorter each time."""

    def __init__(self, tensors, lr):
        super().__init__(tensors, dict(lr=lr))

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for tensor in group["params"]:
                state = self.state[tensor]
                state["steps"] = state.get("steps", 0) + 1
                tensor.sub_(tensor.grad.sign(), alpha=group["lr"] / state["steps"] ** 0.5)
        return loss


OPTIMISERS = {
    "lbfgs": (audiocnn.lbfgs, audiocnn.lbfgs),
    "lbfgs of few": (functools.partial(audiocnn.lbfgs, history_size=2),) * 2,
    "adam": tuple(functools.partial(torch.optim.Adam, lr=lr) for lr in (0.02, 2e-3)),
    "sgd": tuple(functools.partial(torch.optim.SGD, lr=lr, momentum=0.5) for lr in (0.01, 1e-3)),
    "signs": tuple(functools.partial(Signs, lr=lr) for lr in (0.02, 1e-3)),
}  # for an image, and for samples


def analysis_of(n_fft=128, **how):
    return Analysis(transform=STFT(sample_rate=8000, n_fft=n_fft, hop_length=n_fft // 4), **how)


def objective_of(analysis, draws=None, more=(), **how):
    """The distribution and the Gram matrices of a sound, seen by random networks that are drawn again."""

    def networks(draw):
        if draws is not None:
            draws.append(draw)
        return band_networks(analysis.transform.frequencies, widths=[1, 4], filters=8, seed=draw)

    terms = [(audiocnn.DistributionLoss(), "conv_2", 1.0), (audiocnn.StyleLoss(), "conv_1", 0.5), *more]
    return audiocnn.Objective(networks, terms, style=analysis.to_image(analysis.spectrogram(STYLE)), **how)


def noise(seed=0):
    return 0.05 * torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed))


def total_of(objective, tensor, draw, through=None):
    """The sum of the losses of a tensor for the networks of a draw."""
    objective.draw(draw)
    return float(sum(objective.evaluate(tensor, through=through)[0].values()))


@pytest.mark.parametrize("of_samples", [False, True])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_any_optimiser_lowers_the_losses_of_networks_drawn_again(name, of_samples):
    """Of networks that the descent has seen, and of one that it never saw."""
    analysis, draws = analysis_of(), []
    objective, view = objective_of(analysis, draws), analysis.view(LENGTH)
    tensor = noise() if of_samples else view(noise()).detach()
    how = dict(through=view, precondition=analysis.preconditioner) if of_samples else {}
    first = audiocnn.SAMPLES_DRAW if of_samples else 0
    before = [total_of(objective, tensor, draw, how.get("through")) for draw in (first, first + 2, 77)]
    steps = audiocnn.optimise(tensor, objective, num_steps=30, redraw=10, optimizer=OPTIMISERS[name][of_samples], **how)
    history = list(steps)
    assert draws[-3:] == [first, first + 1, first + 2] and len(history) == 30
    assert objective.drawn == first + 2
    after = [total_of(objective, tensor, draw, how.get("through")) for draw in (first, first + 2, 77)]
    assert after[1] == pytest.approx(history[-1]["total"], rel=1e-4)  # the tensor is that of the last step
    assert all(late < 0.9 * early for early, late in zip(before, after, strict=True))


def test_a_step_of_gradient_descent_is_its_formula():
    """Without and with a preconditioner: the tensor moves by the rate times the map, twice, of the gradient."""
    analysis = analysis_of()
    objective, view, samples = objective_of(analysis), analysis.view(LENGTH), noise()
    how = dict(through=view, num_steps=1, optimizer=functools.partial(torch.optim.SGD, lr=1e-3))
    _, gradient = objective.evaluate(samples, through=view)
    plain, mapped, change = samples.clone(), samples.clone(), analysis.preconditioner(samples)
    next(audiocnn.optimise(plain, objective, **how))
    next(audiocnn.optimise(mapped, objective, precondition=analysis.preconditioner, **how))
    torch.testing.assert_close(plain - samples, -1e-3 * gradient, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(mapped - samples, -1e-3 * change(change(gradient)), rtol=1e-3, atol=1e-7)


def test_objectives_of_two_transforms_add_up():
    """Losses and gradient are those of both, one after the other; the second's names have a number."""
    analyses = [analysis_of(64), analysis_of(256, power="log1p")]
    objectives, samples = [objective_of(each) for each in analyses], noise()
    views = [each.view(LENGTH) for each in analyses]
    pairs = list(zip(views, objectives, strict=True))
    changed, total = samples.clone().requires_grad_(), 0
    for view, objective in pairs:
        total = total + sum(objective(view(changed)).values())
    (expected,) = torch.autograd.grad(total, changed)
    moved = samples.clone()
    optimizer = functools.partial(torch.optim.SGD, lr=1.0)
    found = next(audiocnn.optimise(moved, pairs, num_steps=1, optimizer=optimizer))
    assert (samples - moved - expected).norm() < 1e-4 * expected.norm()
    names = ["style conv_1", "style conv_2", "style conv_1 (2)", "style conv_2 (2)", "total"]
    assert sorted(found) == sorted(names)
    for number, (view, objective) in enumerate(pairs):
        for name, loss in objective.evaluate(moved, through=view)[0].items():
            assert found[name + (" (2)" if number else "")] == pytest.approx(float(loss), rel=1e-5)
    assert found["total"] == pytest.approx(sum(list(found.values())[:-1]), rel=1e-5)


def test_both_objectives_of_two_transforms_fall():
    analyses = [analysis_of(64), analysis_of(256)]
    draws, samples = ([], []), noise()
    pairs = [(each.view(LENGTH), objective_of(each, seen)) for each, seen in zip(analyses, draws, strict=True)]
    before = [total_of(objective, samples, 77, view) for view, objective in pairs]
    list(audiocnn.optimise(samples, pairs, num_steps=20, redraw=10, precondition=analyses[0].preconditioner))
    assert [seen[-2:] for seen in draws] == [[audiocnn.SAMPLES_DRAW, audiocnn.SAMPLES_DRAW + 1]] * 2
    after = [total_of(objective, samples, 77, view) for view, objective in pairs]
    assert all(late < 0.5 * early for early, late in zip(before, after, strict=True))


class Interrupting(audiocnn.Loss):
    """Nothing, but for one evaluation, which the user interrupts."""

    kind, countdown = "interrupting", None

    def distance(self, features, target):
        if Interrupting.countdown is not None:
            Interrupting.countdown -= 1
            if Interrupting.countdown < 0:
                raise KeyboardInterrupt
        return 0.0 * features.sum()


@pytest.mark.parametrize("of_samples", [False, True])
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("evaluations", [0, 1, 3])
def test_an_interrupt_leaves_the_last_whole_step(name, of_samples, evaluations, monkeypatch):
    """Whichever evaluation the user interrupts."""
    monkeypatch.setattr(Interrupting, "countdown", None)
    analysis = analysis_of()
    objective = objective_of(analysis, more=[(Interrupting(), "input", 1.0)])
    view = analysis.view(LENGTH)
    tensor = noise() if of_samples else view(noise()).detach()
    how = dict(through=view, precondition=analysis.preconditioner) if of_samples else {}
    optimizer = OPTIMISERS[name][of_samples]
    steps = audiocnn.optimise(tensor, objective, num_steps=9, optimizer=optimizer, **how)
    last = [next(steps) for _ in range(3)][-1]
    kept = tensor.clone()
    Interrupting.countdown = evaluations
    with pytest.raises(KeyboardInterrupt):
        for losses in steps:
            kept, last = tensor.clone(), losses
    Interrupting.countdown = None
    found = float(sum(objective.evaluate(tensor, through=how.get("through"))[0].values()))
    assert torch.equal(tensor, kept) and found == pytest.approx(last["total"], rel=1e-5)
    more = list(audiocnn.optimise(tensor, objective, num_steps=9, done=3, optimizer=optimizer, **how))
    assert len(more) == 6 and more[-1]["total"] < last["total"]


@pytest.mark.parametrize("of_samples", [False, True])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_going_on_with_the_memory_is_as_if_never_stopped(name, of_samples):
    """Bit for bit, at a redraw and between; with new objects, as in another session."""
    results, histories = [], []
    for parts in ([9], [3, 9], [4, 9], [2, 7, 8, 9]):
        analysis = analysis_of()
        view = analysis.view(LENGTH)
        tensor = noise() if of_samples else view(noise()).detach()
        how = dict(through=view, precondition=analysis.preconditioner) if of_samples else {}
        history, done, memory = [], 0, None
        for num_steps in parts:
            steps = audiocnn.optimise(
                tensor,
                objective_of(analysis),
                num_steps=num_steps,
                done=done,
                redraw=3,
                optimizer=OPTIMISERS[name][of_samples],
                memory=memory,
                **how,
            )
            history, done, memory = [*history, *steps], num_steps, steps.memory
        results.append(tensor)
        histories.append(history)
    assert all(torch.equal(result, results[0]) for result in results[1:])
    assert all(history == histories[0] for history in histories[1:]) and len(histories[0]) == 9


def descent_of(tensor, memory=None, *, num_steps=4, **how):
    """Steps towards zeros, a mean square at the image itself."""
    objective = audiocnn.Objective(None, [(audiocnn.ContentLoss(), "input", 1.0)], content=torch.zeros_like(tensor))
    done = 0 if memory is None else 4
    return audiocnn.optimise(tensor, objective, num_steps=num_steps, done=done, memory=memory, **how)


def test_what_a_line_in_the_loop_changes_counts():
    """A projection after each step: gradient descent on a square, worked out by hand."""
    tensor, target = torch.full((1, 1, 1, 4), 4.0), torch.zeros(1, 1, 1, 4)
    objective = audiocnn.Objective(None, [(audiocnn.ContentLoss(), "input", 1.0)], content=target)
    steps = audiocnn.optimise(tensor, objective, num_steps=3, optimizer=functools.partial(torch.optim.SGD, lr=0.5))
    expected, found = torch.full((4,), 4.0), []
    for losses in steps:
        expected = 0.5 * (expected - 0.5 * 2 * expected / 4)
        found.append(losses["total"])
        tensor.mul_(0.5)
        torch.testing.assert_close(tensor.flatten(), expected)
    assert found == pytest.approx([9.0, 9.0 * 0.140625, 9.0 * 0.140625**2])
    assert steps.edited and steps.edits == 3
    untouched = descent_of(torch.ones(1, 1, 1, 4))
    assert list(untouched) and not untouched.edited


def test_an_edit_after_the_last_step_is_seen():
    tensor = torch.ones(1, 1, 1, 4)
    steps = descent_of(tensor, num_steps=1)
    next(steps)
    assert not steps.edited
    tensor.add_(1)
    assert steps.edited


def test_a_learning_rate_that_changes_on_the_way_survives_a_pause():
    """As state_dict keeps it: in the group of the parameters, and not in the state of a tensor."""

    class Slower(torch.optim.SGD):
        def step(self, closure=None):
            loss = super().step(closure)
            self.param_groups[0]["lr"] *= 0.5
            return loss

    results = []
    for parts in ([6], [2, 6]):
        tensor, memory, done = torch.full((1, 1, 1, 4), 4.0), None, 0
        for num_steps in parts:
            steps = descent_of(tensor, memory, num_steps=num_steps, optimizer=functools.partial(Slower, lr=0.5))
            steps.steps = range(done, num_steps)
            list(steps)
            memory, done = steps.memory, num_steps
        results.append(tensor)
    assert torch.equal(*results) and not torch.equal(results[0], torch.zeros(1, 1, 1, 4))


def test_losses_and_gradients_are_computed_under_no_grad_too():
    tensor = torch.ones(1, 1, 1, 4)
    terms = [(lambda features, target: features.square().mean(), "input", np.float32(1.0))]
    objective = audiocnn.Objective(None, terms, style=tensor)
    with torch.no_grad():
        losses, gradient = objective.evaluate(tensor)
    assert [float(loss) for loss in losses.values()] == [1.0] and torch.equal(gradient, 0.5 * tensor)


OTHERS = {
    "a longer history": dict(optimizer=functools.partial(audiocnn.lbfgs, history_size=9)),
    "a shorter history": dict(optimizer=functools.partial(audiocnn.lbfgs, history_size=2)),
    "adam": dict(optimizer=torch.optim.Adam),
    "another preconditioner": dict(precondition=lambda tensor: lambda change: 0.1 * change),
    "an edited image": dict(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_memory_of_something_else_is_left_out(name):
    """The descent says that the optimiser begins again, and goes on from the tensor as it is."""
    tensor = torch.randn(1, 9, 1, 50, generator=torch.Generator().manual_seed(0))
    steps = descent_of(tensor, optimizer=functools.partial(audiocnn.lbfgs, history_size=4))
    assert steps.begins
    list(steps)
    tensor += 0.5 * (name == "an edited image")
    before, how = tensor.clone(), dict(optimizer=functools.partial(audiocnn.lbfgs, history_size=4)) | OTHERS[name]
    more = descent_of(tensor, steps.memory, num_steps=6, **how)
    assert more.begins and torch.equal(tensor, before)
    assert [each["total"] for each in more][-1] <= float(before.square().mean())
    tensor = before.clone()
    steps = descent_of(tensor)
    list(steps)
    assert not descent_of(tensor, steps.memory, num_steps=6).begins  # otherwise this test shows nothing


def test_the_first_step_may_take_many_evaluations():
    """Of a million numbers it takes 8, because its length is a guess; the second one then finds the optimum."""
    tensor = torch.randn(1, 1000, 1, 1000, generator=torch.Generator().manual_seed(0))
    totals = [each["total"] for each in descent_of(tensor, num_steps=3)]
    assert totals[0] > 0.1 and totals[-1] < 1e-9


def test_the_memory_of_small_losses_is_read_again(tmp_path):
    """The scale of L-BFGS is a plain number, which a file of weights may hold."""
    tensor = 1e-4 * torch.randn(1, 9, 1, 50, generator=torch.Generator().manual_seed(0))
    steps = descent_of(tensor)
    next(steps)
    torch.save(steps.memory, tmp_path / "memory.pth")
    again = read_weights(tmp_path / "memory.pth", KNOWN)
    assert again["scale"] == steps.memory["scale"] > 1
    assert not descent_of(tensor, again, num_steps=6).begins


def test_a_draw_that_was_interrupted_is_made_again():
    analysis, draws = analysis_of(), []
    objective, image = objective_of(analysis, draws), analysis.view(LENGTH)(noise())
    expected, before = total_of(objective, image, 1), objective._insert
    objective.draw(0)
    objective._insert = lambda: raise_interrupt()
    with pytest.raises(KeyboardInterrupt):
        objective.draw(1)
    objective._insert = before
    assert total_of(objective, image, 1) == expected


def raise_interrupt():
    raise KeyboardInterrupt


def test_no_steps_change_nothing():
    analysis = analysis_of()
    samples = noise()
    for num_steps, done in ((0, 0), (5, 5), (5, 7)):
        steps = audiocnn.optimise(samples, objective_of(analysis), num_steps=num_steps, done=done)
        assert list(steps) == [] and torch.equal(samples, noise())


def test_a_drawn_objective_has_the_networks_and_targets_of_its_draw():
    """A draw and back gives the same numbers; a network that is given as it is stays."""
    analysis, draws = analysis_of(), []
    objective, image = objective_of(analysis, draws), analysis.view(LENGTH)(noise())
    values = [total_of(objective, image, draw) for draw in (0, 5, 0)]
    assert values[0] == values[2] != values[1] and draws == [0, 5, 0]
    fixed = audiocnn.Objective(objective.network, objective.terms, style=analysis.image(torch.from_numpy(STYLE)))
    assert total_of(fixed, image, 5) == pytest.approx(values[0], rel=1e-5) and fixed.drawn == 5


@pytest.mark.parametrize("wrong", [torch.optim.Adam([torch.zeros(1)]), "adam", lambda tensors: None])
def test_what_is_not_a_function_to_an_optimiser_is_refused(wrong):
    image = torch.rand(1, 3, 1, 8)
    objective = audiocnn.Objective(None, [(audiocnn.BoundLoss(), "input", 1.0)], style=image)
    with pytest.raises(TypeError, match=r"must be a function from a list of tensors to a torch.optim.Optimizer; write"):
        next(audiocnn.optimise(image, objective, num_steps=1, optimizer=wrong))


@pytest.mark.parametrize("wrong", [torch.optim.Adam([torch.zeros(1)]), "adam", lambda tensors: None])
@pytest.mark.parametrize("which", ["optimizer", "sample_optimizer"])
def test_a_wrong_optimiser_of_the_samples_is_refused_before_the_first_step(which, wrong):
    """Not after the optimisation of the image, which may take minutes; no sound is loaded either."""
    seen = []
    with pytest.raises(TypeError, match=r"must be a function from a list of tensors to a torch.optim.Optimizer; write"):
        pipeline.run(Settings(), watch=lambda *given: seen.append(given), **{which: wrong})
    assert seen == []
    audiocnn.check_optimizers(audiocnn.lbfgs, torch.optim.Adam, lambda tensors: torch.optim.SGD(tensors, lr=1.0))


def test_lbfgs_remembers_fewer_steps_of_long_sounds():
    remembered = [audiocnn.lbfgs([torch.empty(size)]).defaults["history_size"] for size in (10, 3_000_000, 10_000_000)]
    assert remembered == [20, 12, 5]  # 2 tensors of 4 bytes a number and step: 80 bytes, 24 MB, and 80 MB a step


@pytest.mark.parametrize("number", [10**12, 10**7, -1, 0, 2.5, True, "50"])
def test_a_history_that_can_not_be_kept_is_refused_at_once(number):
    with pytest.raises(ValueError, match=r"^history_size=.* must be a whole number of at least 1 and at most 1000000$"):
        audiocnn.lbfgs([torch.zeros(3)], history_size=number)
