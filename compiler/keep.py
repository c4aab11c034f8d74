"""Which results stay on chip for the layers that read them, and where.

Only layers of one program have the scratchpads to themselves; only sums of products read ``inp``.
Tensor after tensor, in the order of the program, is kept if there is room, and if the layers that
run meanwhile are estimated to take no more cycles together, whatever of ``inp`` it takes from their
tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..isa.config import AcceleratorConfig
from .jobs import ContractionJob, Job
from .kernel import Refusal
from .layout import blocks
from .lives import Lives
from .module import Module
from .partition import Placement
from .programs import ends, job_in, programs_of
from .stays import Stay, border_of


def keep(module: Module) -> Module:
    """``module`` with what stays on chip."""
    if not module.config.keeping:
        return module
    groups: list[tuple[Placement, ...]] = []
    for run in programs_of(module.groups):
        if run[0][0].job is None:
            groups += run
        else:
            kept = Keeper(module, [group[0] for group in run]).run()
            groups += [(placed,) for placed in kept]
    return replace(module, groups=tuple(groups))


class Keeper:
    """One program, and what of it stays on chip."""

    def __init__(self, module: Module, run: Sequence[Placement]):
        self.module, self.config, self.placements = module, module.config, run
        self.jobs = [job_in(placed) for placed in run]
        self.stays: dict[str, Stay] = {}
        self.lives = Lives(self.jobs, self.stays, self.config)

    def run(self) -> list[Placement]:
        """The placements, with what stays."""
        elsewhere = read_elsewhere(self.module, self.placements)
        for job in self.jobs:
            stay = self._candidate(job, job.output in elsewhere)
            if stay is not None:
                self._try(job.output, stay)
        return [replace(p, stay=self.stays.get(job_in(p).output)) for p in self.placements]

    def _candidate(self, job: Job, stored: bool) -> Stay | None:
        """How the output of a layer would lie; None if it cannot stay."""
        others, on_chip = (which(job.output) for which in (self.lives.readers, self.lives.on_chip))
        rest = [self.jobs[i] for i in others if i not in on_chip]
        if not on_chip or job.ending.keep is None:
            return None
        if any(isinstance(other, ContractionJob) for other in rest):
            return None
        stay = stay_of(job, [self.jobs[i] for i in on_chip], self.config)
        if stay is None:
            return None
        stay = replace(stay, stored=stored or bool(rest))
        start = self._room(job.output, stay.size)
        return None if start is None else replace(stay, start=start)

    def _room(self, name: str, size: int) -> int | None:
        """The highest start where nothing else stays at the same time."""
        life = self.lives.of(name)
        others = [s for n, s in self.stays.items() if _meet(self.lives.of(n), life)]
        ends = sorted({self.config.inp_depth, *(s.start for s in others)}, reverse=True)
        for end in ends:
            start = end - size
            if start >= 0 and all(s.stop <= start or end <= s.start for s in others):
                return start
        return None

    def _try(self, name: str, stay: Stay) -> None:
        """Let a tensor stay if that pays."""
        life = self.lives.of(name)
        before = sum(self.jobs[i].estimate for i in life)
        self.stays[name] = stay
        try:
            for i in life:
                self.lives.settle(i)
            pays = sum(self.jobs[i].estimate for i in life) <= before
        except Refusal:
            pays = False
        if not pays:
            del self.stays[name]
            for i in life:
                self.lives.settle(i)


def stay_of(job: Job, on_chip: Sequence[Job], config: AcceleratorConfig) -> Stay | None:
    """How the output of ``job`` must lie for layers that read it on chip; from element 0 on.

    None if they do not expect the same around it.
    """
    n, height, width, channels = job.kernel.shapes[job.output]
    layers = [reader.layer for reader in on_chip if isinstance(reader, ContractionJob)]
    images = [layer.image for layer in layers]
    pads = {image.pad for image in images if image.padded}
    if len(pads) > 1:
        return None
    borders = zip(*map(border_of, images), strict=True)
    top, bottom, left, right = map(max, borders)
    return Stay(
        0,
        blocks(n, config.batch) * blocks(channels, config.block),
        (height, width),
        (top, bottom, left, right),
        max(layer.overhang for layer in layers),
        min(pads, default=0),
    )


def read_elsewhere(module: Module, run: Sequence[Placement]) -> set[str]:
    """Tensors that somebody reads outside of a program."""
    graph = module.graph
    own = {placed.node.name for placed in run}
    found = {*graph.outputs, *graph.carried.values()}
    for group in module.groups:
        if group[0].node.name not in own:
            found |= {*ends(graph, group)[0]}
    return found


def _meet(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop
