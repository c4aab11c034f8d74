"""While which layers of a program tensors stay on chip, and what that leaves to each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..isa.config import AcceleratorConfig
from .jobs import ContractionJob, Job
from .stays import Stay


def reads_on_chip(job: Job, producer: Job) -> bool:
    """Whether a layer could take its input from where ``producer`` left it in ``inp``."""
    if not isinstance(job, ContractionJob) or producer.output in job.unfold:
        return False
    image = job.work.image
    shape = producer.kernel.shapes[producer.output]
    return image.tensor == producer.output and image.columns.lanes == 1 and image.shape == shape


TURNS = 2
"""Tiles of rows that lie in ``inp`` where two layers take turns: one is made, one is read."""


class Lives:
    """The layers of a program, and what stays on chip between them.

    Parameters
    ----------
    jobs : sequence of Job
        Its layers, in order.
    stays : mapping
        Where tensors lie that stay, by name; may be changed.
    config : AcceleratorConfig
        The hardware.
    """

    def __init__(self, jobs: Sequence[Job], stays: Mapping[str, Stay], config: AcceleratorConfig):
        self.jobs, self.stays, self.config = jobs, stays, config
        self._numbers = {job.output: number for number, job in enumerate(jobs)}
        self._readers: dict[str, list[int]] = {}
        for number, job in enumerate(jobs):
            for name in job.inputs:
                self._readers.setdefault(name, []).append(number)

    def readers(self, name: str) -> list[int]:
        """The layers that read a tensor."""
        return self._readers.get(name, [])

    def on_chip(self, name: str) -> list[int]:
        """Those of them that could read it on chip."""
        producer = self.jobs[self._numbers[name]]
        return [i for i in self.readers(name) if reads_on_chip(self.jobs[i], producer)]

    def of(self, name: str) -> range:
        """The layers while which a tensor must stay, if it does; both of two that take turns."""
        first = self._numbers[name]
        last = max([first, *self.on_chip(name)])
        before = self.jobs[first].inputs[0]
        begins = self._turns(before) and first == self._numbers[before] + 1
        return range(first - begins, last + self._turns(self.jobs[last].output) + 1)

    def _turns(self, name: str) -> bool:
        """Whether the layer that makes a tensor takes turns with the next one."""
        return name in self.stays and self.stays[name].window > 0

    def taken(self, number: int) -> int:
        """Elements of ``inp``, from its end, that a layer must leave alone."""
        depth = self.config.inp_depth
        here = (stay.start for name, stay in self.stays.items() if number in self.of(name))
        return depth - min(here, default=depth)

    def settle(self, number: int) -> None:
        """Find a layer's tile anew; :class:`.kernel.Refusal` if there is no room."""
        job = self.jobs[number]
        if isinstance(job, ContractionJob):
            job.settle(job.inputs[0] in self.stays, self.taken(number), self.in_turn(number))

    def in_turn(self, number: int) -> int:
        """Rows of a layer's tiles, if it takes turns with the one before or after it."""
        job = self.jobs[number]
        for name in (job.inputs[0], job.output):
            if self._turns(name):
                return self.stays[name].window // TURNS
        return 0
