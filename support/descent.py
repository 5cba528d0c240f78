"""The steps of an optimiser, over draws of the networks and over pauses.

Conventions
  memory  dict with what an optimiser knows after a whole step: the tensor, the point, the slope, and its own state

Sources
  Berahas, Nocedal, Takac 2016, A multi-batch L-BFGS method for machine learning
"""

import functools
import math
from collections.abc import Callable, Iterator

import torch

from support import fast

MOST_EVALUATIONS = 7  # of a step of one iteration that is not the first one of an optimiser, whose length is a guess
MEMORY = {"tensor", "begin", "point", "slope", "scale", "state", "optimizer"}  # the keys of a memory
SHORTEST_RECORDED = 10  # steps; of shorter draws, a recording for a GPU would take longer than it saves


def goes_on(memory: dict | None, tensor: torch.Tensor) -> bool:
    """Whether a memory belongs to the tensor as it is."""
    return memory is not None and torch.equal(memory["tensor"].to(tensor.device), tensor)


def check_whole(memory: object) -> None:
    """Raise ValueError for what is neither None nor a whole memory."""
    if memory is not None and not (isinstance(memory, dict) and memory.keys() == MEMORY):
        raise ValueError("what the optimiser knew is not whole")


def made_optimizer(make_optimizer: Callable, point: torch.Tensor) -> torch.optim.Optimizer:
    """Return the optimiser of a point; TypeError for what is not a function to an optimiser."""
    optimizer = make_optimizer([point]) if callable(make_optimizer) else None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"the optimiser {make_optimizer!r} must be a function from a list of tensors to a torch.optim.Optimizer; "
            "write, for example, functools.partial(torch.optim.Adam, lr=0.02)"
        )
    return optimizer


class Descent(Iterator):
    """An optimiser's steps, an iterator of the losses by name; it is over after an interrupt, see audiocnn.optimise.

    The optimiser moves a point; the tensor is where it began, plus what the preconditioner makes of the point.

    Parameters
    ----------
    tensor, pairs, redraw, precondition, memory : see audiocnn.optimise
    steps : range of the steps to do
    make_optimizer : function from a list of tensors to a torch.optim.Optimizer
    first_draw : number of the draw of step 0

    Attributes
    ----------
    memory : dict or None
        What the optimiser knows after the last whole step.
    begins : bool
        Whether the optimiser began without the memory: there is none, or it is that of another tensor, optimiser or
        preconditioner.
    edits : int
        Steps before which something else had changed the tensor, such as a line in a loop. The change counts, and the
        optimiser began again.
    """

    def __init__(
        self,
        tensor: torch.Tensor,
        pairs: list,
        steps: range,
        *,
        make_optimizer: Callable,
        redraw: int,
        first_draw: int,
        precondition: Callable | None,
        memory: dict | None,
    ):
        self.tensor, self.pairs, self.steps = tensor, pairs, steps
        self.make_optimizer, self.precondition = make_optimizer, precondition
        self.redraw, self.first_draw, self.drawn = redraw, first_draw, None
        self.memory, self.begins, self.optimizer, self.last, self.edits = None, True, None, None, 0
        if steps and goes_on(memory, tensor):
            self.begin_again(memory["begin"].to(tensor.device))
            self.begins = not self._remembers(_copied(memory, tensor.device))
        if steps and self.begins:
            self.begin_again(tensor)

    @property
    def edited(self) -> bool:
        """Whether something else changed the tensor after one of the steps."""
        return self.edits > 0 or self._is_changed()

    def _is_changed(self):
        return self.last is not None and not torch.equal(self.tensor, self.last)

    def __next__(self) -> dict[str, float]:
        if self._is_changed():
            self.edits += 1
            self.begin_again(self.tensor)
        if not self.steps:
            if self.optimizer:
                self.optimizer.state.clear()  # Python may free it late: for 5 minutes, 5 steps of 0.1 GB each
            raise StopIteration
        step, left, self.steps = self.steps[0], self.steps[1:], self.steps[:0]
        try:
            self._draw(self.first_draw + step // self.redraw if self.redraw else 0)
            self.evaluated = 0
            self.optimizer.step(self.evaluate)
            self.evaluate()  # the losses of the point where the step ended
        except FloatingPointError as error:
            raise FloatingPointError(f"step {step + 1}: {error}; step {step} is kept") from None
        losses = {name: float(loss) for name, loss in self.losses.items()}
        # One iteration takes one or two evaluations. Where a step takes many, some places have become quieter since the
        # preconditioner was made, and the losses are steeper there: the next steps would take as many.
        one_iteration = self.optimizer.defaults.get("max_iter") == 1
        if self.evaluated > MOST_EVALUATIONS and one_iteration and not self.is_first:
            self.begin_again(self.changed)
        else:
            self.is_first = False
        memory = self._remembered()
        self.tensor.copy_(self.changed)  # late: after an interrupt, tensor and losses are of the same step
        self.memory, self.last, self.steps = memory, self.changed, left
        return losses

    def begin_again(self, tensor: torch.Tensor) -> None:
        """Take another place where the tensor began: the optimiser knows nothing, and the preconditioner is new."""
        self.begin, self.point = tensor.detach().clone(), torch.zeros_like(tensor).requires_grad_()
        self.change = self.precondition(self.begin) if self.precondition else torch.clone
        self.seen, self.slope, self.scale, self.is_first, self.evaluated = None, None, None, True, 0
        self.optimizer = made_optimizer(self.make_optimizer, self.point)
        # What a state belongs to; a learning rate that changed on the way is a part of the state.
        self.kind = f"{type(self.optimizer).__qualname__} {self.optimizer.defaults}"

    def _remembers(self, memory):
        if memory["optimizer"] != self.kind:
            return False
        self.point.data.copy_(memory["point"])
        self.slope, self.scale, self.is_first = memory["slope"], memory["scale"], not memory["state"]["state"]
        self.optimizer.load_state_dict(memory["state"])
        return torch.equal(self.begin + self.change(self.point.detach()), memory["tensor"])

    def _remembered(self):
        own = {name: getattr(self, name) for name in ("begin", "point", "slope", "scale")}
        own |= {"tensor": self.changed, "state": self.optimizer.state_dict()}
        return _copied(own, self.begin.device) | {"optimizer": self.kind}

    def _draw(self, number):
        # L-BFGS compares the gradients of two points, which have to be of one draw. Therefore the gradient that it
        # remembers is moved by as much as the draw changes the gradient at the present point.
        if number == self.drawn:
            return
        for _, each in self.pairs:
            each.draw(number)
        self.functions = [functools.partial(each.evaluate, through=through) for through, each in self.pairs]
        if not 0 < self.redraw < SHORTEST_RECORDED:
            parts = [each.parts() for _, each in self.pairs]
            self.functions = [fast.recorded(*each, self.begin) for each in zip(self.functions, parts, strict=True)]
        self.seen, before, self.drawn = None, self.slope, number
        state = self.optimizer.state.get(self.point, {})
        if "prev_flat_grad" in state:
            self.evaluate()
            state["prev_flat_grad"].add_((self.slope - before).flatten(), alpha=self.scale)

    def evaluate(self) -> torch.Tensor:
        """Compute losses and gradient at the point, unless they are known: a step begins where the last one ended.

        L-BFGS forgets steps whose slope changes by less than 1e-10: with all weights times 1e-9 the losses would hardly
        fall. Losses that begin below 1e-3 are therefore multiplied by a power of two, which changes no digit.
        """
        if self.seen is None or not torch.equal(self.seen, self.point):
            losses, changed, gradient = {}, self.begin + self.change(self.point.detach()), 0
            for number, evaluate in enumerate(self.functions, start=1):
                found, added = evaluate(changed)
                gradient = gradient + added
                losses |= {f"{name} ({number})" if name in losses else name: loss for name, loss in found.items()}
            for name, loss in losses.items():
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss {name!r} is {loss}; lower its weight or change the start")
            losses["total"] = sum(losses.values())
            self.losses, self.changed = losses, changed
            self.slope = self.change(gradient).contiguous()  # a symmetric map is its own gradient
            self.seen, self.evaluated = self.point.detach().clone(), self.evaluated + 1
        if self.scale is None:
            total, is_lbfgs = float(self.losses["total"]), isinstance(self.optimizer, torch.optim.LBFGS)
            self.scale = 2.0 ** -math.floor(math.log2(total)) if is_lbfgs and 0 < total < 1e-3 else 1.0
        self.point.grad = self.scale * self.slope
        return self.scale * self.losses["total"]


def _copied(value, device):  # what optimisers change in place; the steps that L-BFGS remembers never change
    if isinstance(value, dict):
        return {name: _copied(each, device) for name, each in value.items()}
    if isinstance(value, list):
        return [each.to(device) if torch.is_tensor(each) else each for each in value]
    return value.detach().to(device, copy=True) if torch.is_tensor(value) else value
