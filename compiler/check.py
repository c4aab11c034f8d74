"""Whether a program is sound, without running it.

:func:`check` follows the dependence tokens, which say what each instruction knows to be complete,
and finds, element by element of every scratchpad, and of DRAM as far as the program writes it, what
it must come after (:mod:`.touches`). An instruction is sound if it knows all that to be complete:
because it belongs to the same engine, which works in order, or because a chain of tokens says so.
What is found does not depend on how long anything takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.errors import ProgramError
from ..isa.formats import FLAG_BITS
from ..isa.golden import step_of
from ..isa.instructions import Instruction, InstructionSet
from ..isa.memories import Engine
from ..isa.ordering import Ordering, Step
from .artifact import Segment
from .dram import Boxes
from .reach import Reach
from .touches import witness, youngest

ENGINES = (Engine.LOAD, Engine.COMPUTE, Engine.STORE)
SIDES = {kind: ((f"{kind}_prev", -1), (f"{kind}_next", 1)) for kind in ("pop", "push")}
"""The flags of an instruction, and which engine each means."""


def check(
    program: Sequence[Instruction], config: AcceleratorConfig, segments: Sequence[Segment]
) -> list[int]:
    """The positions of a sound ``program``'s instructions, in an order that its tokens allow.

    Parameters
    ----------
    program : sequence of Instruction
        Ending in FINISH.
    config : AcceleratorConfig
        The hardware.
    segments : sequence of Segment
        Constant DRAM; the micro-ops that the program loads must lie there.

    Raises
    ------
    ProgramError
        With the instruction's position: an index beyond its scratchpad, an element that is read
        before its write is known to be complete or overwritten before its last read is, a token
        that nobody takes or sends, no FINISH at the end.
    """
    return _Checker(program, config, segments).run()


class _Checker:
    def __init__(
        self,
        program: Sequence[Instruction],
        config: AcceleratorConfig,
        segments: Sequence[Segment],
    ):
        self.program, self.config = program, config
        self.operations = InstructionSet(config).operations
        self._kinds: dict[tuple[str, tuple[bool, ...]], Step] = {}
        moves = Boxes(config)
        boxes = [moves.of(i.operation, i.operands) for i in program]
        stored = max((box.end for _, box in boxes if box is not None), default=0)
        # What each engine knows to be complete: a position in the program for each engine.
        self.known = [[-1] * len(ENGINES) for _ in ENGINES]
        self.tokens: dict[tuple[int, int], deque[list[int]]] = {
            (a, b): deque() for a in range(3) for b in range(3) if abs(a - b) == 1
        }
        self.reach = Reach(config, segments, stored)

    def run(self) -> list[int]:
        """Look at everything in an order that the tokens allow, and return that."""
        program = self.program
        if not program or program[-1].operation != "finish":
            raise ProgramError("the program does not end in FINISH")
        ordering = Ordering(
            [self._step(i, instruction) for i, instruction in enumerate(program)],
            self.config.token_depth,
        )
        order: list[int] = []
        engines: list[int] = []
        knows: list[list[int]] = []
        complaint: ProgramError | None = None
        try:
            for step in ordering.run():
                knows.append(self._pass(step.engine, step.index))
                self.reach.add(program[step.index], step.index)
                order.append(step.index)
                engines.append(step.engine)
        except ProgramError as error:
            complaint = error
        complaint = self.reach.beyond() or complaint
        self._races(order[: self.reach.events], engines, knows)
        if complaint is not None:
            raise complaint
        if not ordering.finished:
            stop = ordering.stopped(len(program))
            raise ProgramError(f"deadlock: instruction {stop.index} waits for ever")
        for (a, b), queue in self.tokens.items():
            if queue:
                raise ProgramError(
                    f"{len(queue)} tokens from {ENGINES[a].value} to {ENGINES[b].value} are left"
                )
        return order

    def _step(self, position: int, instruction: Instruction) -> Step:
        flags = tuple(getattr(instruction, flag) for flag in FLAG_BITS)
        key = instruction.operation, flags
        if key not in self._kinds:
            word = sum(bit for flag, bit in zip(flags, FLAG_BITS.values(), strict=True) if flag)
            self._kinds[key] = step_of(0, self.operations[instruction.operation], word)
        kind = self._kinds[key]
        return Step(position, kind.engine, kind.pops, kind.pushes, kind.finish)

    def _others(self, engine: int, instruction: Instruction, kind: str) -> list[int]:
        """The engines that ``kind`` (pop or push) of this instruction concerns."""
        found: list[int] = []
        for side, step in SIDES[kind]:
            if getattr(instruction, side):
                other = engine + step
                if not 0 <= other < len(ENGINES):
                    raise ProgramError(
                        f"{instruction.operation} {side}: {ENGINES[engine].value} has no "
                        f"{'previous' if step < 0 else 'next'} engine"
                    )
                found.append(other)
        return found

    def _pass(self, engine: int, position: int) -> list[int]:
        """What an instruction knows to be complete when it starts; it takes and sends tokens."""
        instruction = self.program[position]
        known = self.known[engine]
        for other in self._others(engine, instruction, "pop"):
            known = [max(a, b) for a, b in zip(known, self.tokens[other, engine].popleft(),
                                               strict=True)]  # fmt: skip
        if instruction.operation == "finish":
            known = [len(self.program)] * len(ENGINES)
        at_start = known
        known = [*known[:engine], position, *known[engine + 1 :]]
        self.known[engine] = known
        for other in self._others(engine, instruction, "push"):
            self.tokens[engine, other].append(known)
        return at_start

    def _races(
        self, order: Sequence[int], engines: Sequence[int], knows: Sequence[list[int]]
    ) -> None:
        """Raise for the first of these instructions that touches something too early."""
        if not order:
            return
        count, touches = len(order), self.reach.touches()
        needed = youngest(engines[:count], order, touches)
        late = needed > np.array(knows[:count])
        late[np.arange(count), engines[:count]] = False
        if not late.any():
            return
        event = int(np.argmax(late.any(axis=1)))
        seen = event + 1
        element, other, writes = witness(engines[:seen], order[:seen], touches, knows[event])
        position = order[event]
        raise ProgramError(
            f"instruction {position} ({self.program[position].operation}) touches "
            f"{self.reach.place(element)}, which instruction {other} "
            f"({self.program[other].operation}) may not have {'written' if writes else 'read'} yet"
        )
