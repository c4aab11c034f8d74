"""Which results stay on chip for the layers that read them, and where.

Only layers of one program have the scratchpads to themselves; only sums of products read ``inp``.
Tensor after tensor, in the order of the program, is kept if there is room, and if the layers that
run meanwhile are estimated to take no more cycles together, whatever of ``inp`` it takes from their
tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..isa.config import AcceleratorConfig
from .jobs import ContractionJob, Job
from .kernel import Refusal
from .layout import blocks
from .lives import TURNS, Lives
from .module import Module
from .partition import Placement
from .programs import ends, job_in, programs_of
from .stays import Stay, border_of
from .tiling import parts


def keep(module: Module) -> Module:
    """``module`` with what stays on chip, unless somebody else has decided."""
    jobs = [group[0].job for group in module.groups if group[0].job is not None]
    if not module.config.keeping or any(job.decided for job in jobs):
        return module
    groups: list[tuple[Placement, ...]] = []
    for run in programs_of(module.groups):
        if run[0][0].job is None:
            groups += run
        else:
            kept = Keeper(module, [group[0] for group in run]).run()
            groups += [(placed,) for placed in kept]
    return replace(module, groups=tuple(groups))


def kept_at(module: Module, decided: Mapping[str, tuple[int, int]]) -> Module:
    """``module`` with tensors that stay where somebody else has decided: by name the first element
    of ``inp``, and the rows that lie there at once, 0 for all.

    Raises
    ------
    Refusal
        If one cannot stay there; the message begins with its name.
    """
    groups: list[tuple[Placement, ...]] = []
    for run in programs_of(module.groups):
        if run[0][0].job is None:
            groups += run
        else:
            kept = Keeper(module, [group[0] for group in run]).restored(decided)
            groups += [(placed,) for placed in kept]
    return replace(module, groups=tuple(groups))


class Keeper:
    """One program, and what of it stays on chip."""

    def __init__(self, module: Module, run: Sequence[Placement]):
        self.module, self.config, self.placements = module, module.config, run
        self.jobs = [job_in(placed) for placed in run]
        self.stays: dict[str, Stay] = {}
        self.lives = Lives(self.jobs, self.stays, self.config)
        self.elsewhere = read_elsewhere(module, run)

    def run(self) -> list[Placement]:
        """The placements, with what stays."""
        for number in range(len(self.jobs)):
            self.lives.settle(number)
        for number, job in enumerate(self.jobs):
            stay = self._candidate(job)
            if stay is None:
                continue
            start = self._room(job.output, stay.size)
            if start is None or not self._try(job.output, replace(stay, start=start)):
                self._try_turns(number, stay)
        return self._placed()

    def _try_turns(self, number: int, stay: Stay) -> None:
        """Let the output of a layer stay row by row, if that pays: the next layer takes turns."""
        job = self.jobs[number]
        if not self._takes_turns(number):
            return
        best: tuple[int, Stay] | None = None
        for rows in parts(stay.shape[0])[1:]:
            some = replace(stay, window=TURNS * rows)
            start = self._room(job.output, some.size)
            if start is None:
                continue
            some = replace(some, start=start)
            cycles = self._with(job.output, some)
            if cycles is not None and (best is None or cycles < best[0]):
                best = cycles, some
        self._without(job.output)
        if best is not None:
            self._try(job.output, best[1])

    def _takes_turns(self, number: int) -> bool:
        """Whether a layer and the next one, its only reader on chip, could go tile by tile."""
        job = self.jobs[number]
        if self.lives.on_chip(job.output) != [number + 1] or not isinstance(job, ContractionJob):
            return False
        reader = self.jobs[number + 1]
        assert isinstance(reader, ContractionJob)
        if max(job.layer.taken_of, reader.layer.taken_of) > 1:
            return False  # rows of tiles are those of products, not of what is stored
        walks = reader.layer.rows, reader.layer.columns
        alone = job.layer.batches == 1 and not self.lives.in_turn(number)
        return alone and all(w.taps == w.stride == 1 and not w.origin for w in walks)

    def restored(self, decided: Mapping[str, tuple[int, int]]) -> list[Placement]:
        """The placements, with tensors that stay from these elements on, so many rows at once."""
        for number, job in enumerate(self.jobs):
            if job.output in decided:
                stay, (start, window) = self._candidate(job), decided[job.output]
                turns = self._takes_turns(number) and window % TURNS == 0
                stay = None if stay is None else replace(stay, start=start, window=window)
                if (
                    stay is None
                    or (window and not (turns and window < TURNS * stay.shape[0]))
                    or not self._free(job.output, start, stay.stop)
                ):
                    raise Refusal(f"{job.output!r} cannot stay from inp {start} on")
                self.stays[job.output] = stay
        for number, job in enumerate(self.jobs):
            try:
                self.lives.settle(number)
            except Refusal as refusal:
                raise Refusal(f"{job.output!r}: {refusal}") from None
        return self._placed()

    def _placed(self) -> list[Placement]:
        return [replace(p, stay=self.stays.get(job_in(p).output)) for p in self.placements]

    def _candidate(self, job: Job) -> Stay | None:
        """How the output of a layer would lie, from element 0 on; None if it cannot stay."""
        others, on_chip = (which(job.output) for which in (self.lives.readers, self.lives.on_chip))
        rest = [self.jobs[i] for i in others if i not in on_chip]
        if not on_chip or job.ending.keep is None:
            return None
        if any(job.output not in other.loaded for other in rest):
            return None
        loaded = [i for i in others if job.output in self.jobs[i].loaded]
        stay = stay_of(job, [self.jobs[i] for i in on_chip], self.config)
        if stay is None:
            return None
        return replace(stay, stored=job.output in self.elsewhere or bool(loaded))

    def _room(self, name: str, size: int) -> int | None:
        """The highest start where nothing else stays at the same time."""
        ends = {self.config.inp_depth, *(stay.start for stay in self._beside(name))}
        starts = (end - size for end in sorted(ends, reverse=True))
        return next((start for start in starts if self._free(name, start, start + size)), None)

    def _free(self, name: str, start: int, stop: int) -> bool:
        """Whether nothing else stays there while a tensor would."""
        apart = (s.stop <= start or stop <= s.start for s in self._beside(name))
        return start >= 0 and stop <= self.config.inp_depth and all(apart)

    def _beside(self, name: str) -> list[Stay]:
        life = self.lives.of(name)
        return [s for n, s in self.stays.items() if _meet(self.lives.of(n), life)]

    def _try(self, name: str, stay: Stay) -> bool:
        """Let a tensor stay if that pays; whether it does."""
        before = sum(self.jobs[i].estimate for i in self.lives.of(name))
        cycles = self._with(name, stay)
        if cycles is None or cycles > before:
            self._without(name)
            return False
        return True

    def _with(self, name: str, stay: Stay) -> int | None:
        """Cycles of the layers while which a tensor stays; None if there is no room for them."""
        life = self.lives.of(name)
        self.stays[name] = stay
        try:
            for i in life:
                self.lives.settle(i)
        except Refusal:
            return None
        return sum(self.jobs[i].estimate for i in life)

    def _without(self, name: str) -> None:
        self.stays.pop(name, None)
        for i in self.lives.of(name):
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
