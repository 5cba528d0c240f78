"""A result in the making: its image, its samples, and the losses on the way.

Conventions
  history  the losses of every step, a list of dicts from name to number
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

import audiocnn
from support.descent import goes_on


@dataclass
class Result:
    """One result in the making: the image, then the samples, and the losses on the way."""

    run: int  # from 0; its seed is that of the settings plus this number
    image: torch.Tensor
    start: dict = field(default_factory=dict)  # losses before the first step
    noise: dict = field(default_factory=dict)  # the content's losses of noise, where those of the start are 0
    history: list = field(default_factory=list)
    reconstruction: torch.Tensor | None = None  # samples that the image gave
    samples: torch.Tensor | None = None
    refinement: list = field(default_factory=list)  # the history of the samples
    begun: list = field(default_factory=list)  # steps of history after which the optimiser began again
    begun_to_refine: list = field(default_factory=list)  # the same, of refinement
    changed: list = field(default_factory=list)  # what a cell of one's own changed, in words
    descents: list = field(default_factory=list)  # how the image was changed, in words by name, see truth.noted
    sample_descents: list = field(default_factory=list)  # how the samples were changed
    settings: object = None  # that the result was made with
    memory: dict | None = None  # of the optimiser of the image, see audiocnn.Descent
    sample_memory: dict | None = None  # the same, of the samples
    draft: Path | None = None  # stem of the files that hold a draft of the samples
    saved: tuple = ()  # of the files that hold the samples: their stem, and how many steps they have
    long: tuple = ()  # of the file of a long result: the same, of its first section
    loaded: bool = False  # samples of an earlier process, which go on where the same image gives the same sound again
    first: torch.Tensor | None = None  # the image as it was made; None: as it is
    objective: audiocnn.Objective | None = None  # of run: the image's losses; its network is that of the last draw

    def __post_init__(self):
        self.first = self.image.clone() if self.first is None else self.first

    def measure(self, objective, noise):
        """Note the losses of the start; where the content's are 0, those of noise, an image, count as 100 %."""
        self.start = measured(objective, self.image)
        contents = [name for name in self.start if name.startswith("content ")]
        if any(self.start[name] <= 1e-6 * self.start["total"] for name in contents if self.start["total"]):
            of_noise = measured(objective, noise)
            self.noise = {name: of_noise[name] for name in contents}

    def begin(self, num_steps):
        """Return how many steps of the image are done; note where the optimiser begins again, without a memory.

        Samples of an earlier image go.
        """
        if not self.loaded or len(self.history) < num_steps:
            self.samples, self.refinement, self.begun_to_refine, self.sample_memory = None, [], [], None
        if not self.history and not torch.equal(self.image, self.first):
            self.note_change("the image before its optimisation")
        if self.memory is not None and not goes_on(self.memory, self.image):
            self.note_change("the image between two parts of its optimisation")
        if len(self.history) < num_steps and not goes_on(self.memory, self.image):
            self.note_begun()
        return len(self.history)

    def begin_to_refine(self, num_steps):
        """Return how many steps of the samples are done, and note the same."""
        if not self.refinement and not torch.equal(self.samples, self.reconstruction):
            self.note_change("the samples before their refinement")
        if self.sample_memory is not None and not goes_on(self.sample_memory, self.samples):
            self.note_change("the samples between two parts of their refinement")
        if len(self.refinement) < num_steps and not goes_on(self.sample_memory, self.samples):
            self.note_begun()
        return len(self.refinement)

    def remember(self, memory):
        """Take what the optimiser knows after a whole step, see audiocnn.Descent.

        None after the last step: if num_steps is raised then, the optimiser begins again.
        """
        if self.samples is None:
            self.memory = memory
        else:
            self.sample_memory = memory

    def note_change(self, what):
        """Note what a cell of one's own changed, in words."""
        if what not in self.changed:
            self.changed = [*self.changed, what]

    def note_begun(self):
        """Note that the optimiser began without what an earlier one knew."""
        begun, history = (self.begun, self.history) if self.samples is None else (self.begun_to_refine, self.refinement)
        if len(history) not in begun:
            begun.append(len(history))

    def reconstructed(self, samples):
        """Take the samples that the image gave; their refinement begins again, and so do their files."""
        if self.loaded and torch.equal(samples, self.reconstruction):
            self.loaded = False
            return
        self.reconstruction, self.samples = samples, samples.clone()
        self.refinement, self.begun_to_refine, self.sample_descents, self.sample_memory = [], [], [], None
        self.draft, self.saved, self.long = None, (), ()

    def whole_of(self, name):
        """Return the value of a loss that counts as 100 %: that of the start, or of noise where the start has none.

        0 where neither has this loss, as for the bound.
        """
        value = self.noise.get(name, self.start.get(name, 0))
        return value if value > 1e-6 * self.start.get("total", 0) else 0

    @property
    def whole(self):
        """The values that count as 100 %, by name: of whole_of, or the total of the start."""
        return {name: self.whole_of(name) or self.start["total"] for name in self.start}

    def shares(self, losses):
        """Return losses, by name, as shares of whole; those that the start lacks are shares of its total.

        All are 1 where nothing is known of the start.
        """
        total = self.start.get("total")
        return {name: loss / (self.whole.get(name) or total or loss or 1) for name, loss in losses.items()}


def measured(objective: audiocnn.Objective, image: torch.Tensor) -> dict[str, float]:
    """Return the losses of an image by name, and "total"."""
    values = {name: float(loss) for name, loss in objective.evaluate(image)[0].items()}
    return values | {"total": sum(values.values())}
