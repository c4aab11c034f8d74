"""Schedules compared by running them in thought, one layer after another among its neighbours.

An estimate looks at a layer alone. A rehearsal puts the actions of the layer and of those beside it
in order, as for the program, and tells when all of them would be done.
"""

from __future__ import annotations

from collections.abc import Sequence

from .allocate import Constants
from .module import Module
from .order import rehearsal
from .partition import Placement
from .programs import programs_of, staged

NEIGHBOURS = 1
"""Layers before and after the one whose schedules are compared."""


def rehearse(module: Module) -> Module:
    """With the most effort, every layer has the schedule that ends first among its neighbours."""
    if module.effort != "max":
        return module
    for groups in programs_of(module.groups):
        run = [group[0] for group in groups]
        if all(placed.job is None or placed.job.ways == 1 for placed in run):
            continue  # on the host, or nothing to choose: all was decided before, or there is one
        before = _end(module, run)
        chosen = [_choose(module, run, number) for number in range(len(run))]
        if _end(module, run) > before:  # a choice that is good among neighbours is not for all
            for placed, (_, ends) in zip(run, chosen, strict=True):
                assert placed.job is not None
                placed.job.take(0, ends)
    return module


def _choose(module: Module, run: Sequence[Placement], number: int) -> tuple[int, list[int]]:
    """Take the best way of one layer; its number, and when each of the ways ends."""
    job = run[number].job
    assert job is not None
    window = run[max(0, number - NEIGHBOURS) : number + NEIGHBOURS + 1]
    ends: list[int] = []
    for way in range(job.ways):
        job.take(way)
        ends.append(_end(module, window))
    best = ends.index(min(ends))
    job.take(best, ends)
    return best, ends


def _end(module: Module, run: Sequence[Placement]) -> int:
    """When these layers would be done, in cycles."""
    assert module.constants is not None
    stages, _ = staged(module, run, Constants(module.constants.at))
    return rehearsal(stages, module.config)
