"""The steps of an optimiser, over draws of the networks and over pauses.

Conventions
  memory  dict with what an optimiser knows after a whole step: the tensor, the point, the slope, and its own state

Sources
  Berahas, Nocedal, Takac 2016, A multi-batch L-BFGS method for machine learning
"""

import functools
from collections.abc import Callable

import torch

from support import fast

MOST_EVALUATIONS = 7  # of a step of one iteration that is not the first one of an optimiser, whose length is a guess
MEMORY = {"tensor", "begin", "point", "slope", "state", "optimizer"}  # the keys of a memory


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


class Walk:
    """An optimiser that moves a point; the tensor is where it began, plus what the preconditioner makes of the point.

    Parameters
    ----------
    tensor, pairs, precondition, memory : see audiocnn.optimise
    make_optimizer : function from a list of tensors to a torch.optim.Optimizer
    record : whether the calls of a GPU are recorded, see fast.recorded

    Attributes
    ----------
    begins : whether the optimiser began without the memory: there is none, or it is that of another tensor, optimiser
        or preconditioner
    """

    def __init__(
        self,
        tensor: torch.Tensor,
        pairs: list,
        make_optimizer: Callable,
        precondition: Callable | None,
        memory: dict | None = None,
        record: bool = True,
    ):
        self.pairs, self.make_optimizer, self.precondition = pairs, make_optimizer, precondition
        self.record, self.begins = record, not goes_on(memory, tensor)
        if not self.begins:
            self.begin_again(memory["begin"].to(tensor.device))
            self.begins = not self._remembers(_copied(memory, tensor.device))
        if self.begins:
            self.begin_again(tensor)

    def _remembers(self, memory):
        if memory["optimizer"] != repr(self.optimizer):
            return False
        self.point.data.copy_(memory["point"])
        self.slope, self.is_first = memory["slope"], not memory["state"]
        if memory["state"]:
            self.optimizer.state[self.point] = memory["state"]
        return torch.equal(self.begin + self.change(self.point.detach()), memory["tensor"])

    def begin_again(self, tensor: torch.Tensor) -> None:
        """Take another place where the tensor began: the optimiser knows nothing, and the preconditioner is new."""
        self.begin, self.point = tensor.detach().clone(), torch.zeros_like(tensor).requires_grad_()
        self.change = self.precondition(self.begin) if self.precondition else torch.clone
        self.seen, self.slope, self.is_first = None, None, True
        self.optimizer = made_optimizer(self.make_optimizer, self.point)

    def memory(self) -> dict:
        """Return what the optimiser knows at this point, for a Walk that goes on."""
        own = {name: getattr(self, name) for name in ("begin", "point", "slope")}
        own |= {"tensor": self.changed, "state": self.optimizer.state.get(self.point, {})}
        return _copied(own, self.begin.device) | {"optimizer": repr(self.optimizer)}

    def draw(self, number: int) -> None:
        """Take the networks of a draw; the optimiser keeps what it knows.

        L-BFGS compares the gradients of two points, which have to be of one draw. Therefore the gradient that it
        remembers is moved by as much as the draw changes the gradient at the present point.
        """
        for _, each in self.pairs:
            each.draw(number)
        self.functions = [functools.partial(each.evaluate, through=through) for through, each in self.pairs]
        if self.record:
            parts = [each.parts() for _, each in self.pairs]
            self.functions = [fast.recorded(*each, self.begin) for each in zip(self.functions, parts, strict=True)]
        self.seen, before, self.evaluated = None, self.slope, 0
        state = self.optimizer.state.get(self.point, {})
        if "prev_flat_grad" in state:
            self.evaluate()
            state["prev_flat_grad"].add_((self.slope - before).flatten(), alpha=state.get("scale", 1.0))

    def evaluate(self) -> torch.Tensor:
        """Compute losses and gradient at the point, unless they are known: a step begins where the last one ended."""
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
        self.point.grad = self.slope
        return self.losses["total"]

    def step(self) -> dict[str, float]:
        """Make one step; return the losses of the point where the step ended.

        A step of one iteration takes one or two evaluations. Where a step takes many, some places have become quieter
        since the preconditioner was made, and the losses are steeper there: the next steps would take as many.
        """
        self.evaluated, is_first, self.is_first = 0, self.is_first, False
        self.optimizer.step(self.evaluate)
        self.evaluate()
        one_iteration = self.optimizer.defaults.get("max_iter") == 1
        if self.evaluated > MOST_EVALUATIONS and one_iteration and not is_first:
            self.begin_again(self.changed)
        return {name: float(loss) for name, loss in self.losses.items()}


def _copied(value, device):  # what optimisers change in place; the steps that L-BFGS remembers never change
    if isinstance(value, dict):
        return {name: _copied(each, device) for name, each in value.items()}
    if isinstance(value, list):
        return [each.to(device) if torch.is_tensor(each) else each for each in value]
    return value.detach().to(device, copy=True) if torch.is_tensor(value) else value
