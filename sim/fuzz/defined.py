"""How much of what a program does is defined, for programs that nobody made with care."""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING

from ...isa.golden import readable, stepped
from ...isa.ordering import ENGINES, QUEUES, Ordering
from .footprint import Footprints, Touch, instruction_set
from .program import STREAM, Program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Defined(IntEnum):
    """What every executor must agree on; each includes those before it."""

    NOTHING = 0
    """Engines race for what decides how the program ends."""
    ENDING = 1
    """How it ends: the fault, or the counters that do not depend on time."""
    MEMORY = 2
    """DRAM too."""


def defined(program: Program, uops: NDArray[np.uint32] | None = None) -> Defined:
    """What of a program's outcome is defined.

    ``uops`` are the micro-ops before it and become those after it; None for zeros.

    Two instructions of different engines race if they touch the same elements, one of them
    writes, and no tokens order them. An instruction that cannot be read stops the machine as soon
    as fetch comes to it: whatever else would stop the machine races with that.
    """
    return _Analysis(program, uops).result


class _Analysis:
    """Executes the order of a program, with what each engine knows to be complete."""

    def __init__(self, program: Program, uops: NDArray[np.uint32] | None):
        instructions = instruction_set(program.config)
        read = readable(program.config, program.address, program.count, program.bad)
        steps, illegal = stepped(instructions, program.words[:read])
        unread, bus = read < program.count, program.config.bus_bytes
        bad = Touch("dram", program.bad[0] - bus, program.bad[1] + bus, True)
        self.footprints = Footprints(program.config, program.image, uops)
        self.stream = Touch("dram", STREAM, STREAM + 16 * program.count, False)
        self.knows = [[0] * len(ENGINES) for _ in ENGINES]
        self.done: list[list[list[Touch]]] = [[] for _ in ENGINES]
        self.tokens: list[deque[list[int]]] = [deque() for _ in QUEUES]
        self.result = Defined.MEMORY
        faults = int(illegal is not None and unread)
        ordering = Ordering(steps, program.config.token_depth)
        while ready := ordering.ready():
            engine = ready[0]
            step = ordering.next(engine)
            for queue in step.pops:
                self._learn(engine, self.tokens[queue].popleft())
            instruction = instructions.decode(program.words[step.index])
            touches = self.footprints.of(instruction)
            if unread and any(bad.conflicts(touch) for touch in touches):
                faults += 1
            self._check(engine, touches)  # one that others race for may be no fault at all
            if self.footprints.beyond(touches):
                faults += 1
            else:
                self.footprints.execute(instruction)
            self.done[engine].append(touches)
            self.knows[engine][engine] = len(self.done[engine])
            for queue in step.pushes:
                self.tokens[queue].append(list(self.knows[engine]))
            ordering.complete(engine)
        if faults > 1 or (unread and (faults or ordering.blocked)):
            self.result = Defined.NOTHING

    def _learn(self, engine: int, known: list[int]) -> None:
        self.knows[engine] = [max(a, b) for a, b in zip(self.knows[engine], known, strict=True)]

    def _check(self, engine: int, touches: list[Touch]) -> None:
        for other in range(len(ENGINES)):
            unknown = self.done[other][self.knows[engine][other] :] if other != engine else []
            for rivals in unknown:
                for a in touches:
                    for b in rivals:
                        if a.conflicts(b):
                            self._race(a)
        if any(touch.conflicts(self.stream) for touch in touches):
            self.result = Defined.NOTHING

    def _race(self, touch: Touch) -> None:
        found = Defined.NOTHING if touch.memory == "uop" else Defined.ENDING
        self.result = min(self.result, found)
