"""Whether a program is sound, without running it.

:func:`check` follows the dependence tokens and keeps, for every element of every scratchpad, and of
DRAM as far as the program writes it, who wrote and who read it last. An access is sound if
everything that it must come after is known to be complete: because it belongs to the same engine,
which works in order, or because a chain of tokens says so. What is found does not depend on how
long anything takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.errors import ProgramError
from ..isa.formats import FLAG_BITS, UOP_BYTES, uop_layout
from ..isa.golden import step_of
from ..isa.instructions import Instruction, InstructionSet, Operation
from ..isa.memories import MEMORIES, Engine, MemoryType
from ..isa.nest import Binary, Const, Expr, Load, walk
from ..isa.ordering import Ordering, Step
from .affine import affine
from .artifact import Segment
from .dram import Box, box_of, granule
from .unify import pattern_of

ENGINES = (Engine.LOAD, Engine.COMPUTE, Engine.STORE)
NEIGHBOURS = {
    "pop_prev": -1, "pop_next": 1, "push_prev": -1, "push_next": 1,
}  # fmt: skip
SCRATCHPADS = ("uop", "inp", "wgt", "acc", "qnt")
Touched = Mapping[str, np.ndarray]
"""Indices of the elements that an instruction touches, by scratchpad; of ``dram``, granules."""


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
        self.instructions = InstructionSet(config)
        self.reach = _Reach(config, segments)
        depths = {name: getattr(config, f"{name}_depth") for name in SCRATCHPADS}
        boxes = [self.reach.boxes(i)[1] for i in program if i.operation in self.reach.operations]
        stores = [box for box in boxes if box is not None]
        self.reach.stored = max((box.end for box in stores), default=0)
        depths["dram"] = -(-self.reach.stored // self.reach.granule)
        # The position of the youngest instruction that wrote or read an element, an engine each.
        self.written = {n: np.full((3, depth), -1) for n, depth in depths.items()}
        self.read = {n: np.full((3, depth), -1) for n, depth in depths.items()}
        # What each engine knows to be complete: a position in the program for each engine.
        self.known = np.full((3, 3), -1)
        self.tokens: dict[tuple[int, int], deque[np.ndarray]] = {
            (a, b): deque() for a in range(3) for b in range(3) if abs(a - b) == 1
        }

    def run(self) -> list[int]:
        """Look at everything in an order that the tokens allow, and return that."""
        if not self.program or self.program[-1].operation != "finish":
            raise ProgramError("the program does not end in FINISH")
        ordering = Ordering(
            [self._step(i, instruction) for i, instruction in enumerate(self.program)],
            self.config.token_depth,
        )
        order: list[int] = []
        for step in ordering.run():
            self._execute(step.engine, step.index)
            order.append(step.index)
        if not ordering.finished:
            stop = ordering.stopped(len(self.program))
            raise ProgramError(f"deadlock: instruction {stop.index} waits for ever")
        for (a, b), queue in self.tokens.items():
            if queue:
                raise ProgramError(
                    f"{len(queue)} tokens from {ENGINES[a].value} to {ENGINES[b].value} are left"
                )
        return order

    def _step(self, position: int, instruction: Instruction) -> Step:
        flags = sum(getattr(instruction, flag) * bit for flag, bit in FLAG_BITS.items())
        operation = self.instructions.operations[instruction.operation]
        return step_of(position, operation, flags)

    def _flags(self, engine: int, instruction: Instruction, kind: str) -> Iterator[int]:
        """The engines that ``kind`` (pop or push) of this instruction concerns."""
        for side in ("prev", "next"):
            name = f"{kind}_{side}"
            if getattr(instruction, name):
                other = engine + NEIGHBOURS[name]
                if not 0 <= other < 3:
                    raise ProgramError(
                        f"{instruction.operation} {name}: {ENGINES[engine].value} has no "
                        f"{'previous' if side == 'prev' else 'next'} engine"
                    )
                yield other

    def _execute(self, engine: int, position: int) -> None:
        instruction = self.program[position]
        known = self.known[engine]
        for other in self._flags(engine, instruction, "pop"):
            np.maximum(known, self.tokens[other, engine].popleft(), out=known)
        if instruction.operation == "finish":
            known[:] = len(self.program)
        reads, writes = self.reach.of(
            self.instructions.operations[instruction.operation], instruction, position
        )
        reads, writes = self.reach.with_dram(instruction, reads, writes)
        for name, elements in reads.items():
            self._require(engine, position, name, elements, self.written, "written")
            self.read[name][engine, elements] = position
        for name, elements in writes.items():
            self._require(engine, position, name, elements, self.written, "written")
            self._require(engine, position, name, elements, self.read, "read")
            self.written[name][engine, elements] = position
        known[engine] = position
        for other in self._flags(engine, instruction, "push"):
            self.tokens[engine, other].append(known.copy())

    def _require(
        self,
        engine: int,
        position: int,
        name: str,
        elements: np.ndarray,
        ages: Mapping[str, np.ndarray],
        what: str,
    ) -> None:
        for other in range(3):
            if other == engine or not elements.size:
                continue
            youngest = ages[name][other, elements]
            late = youngest > self.known[engine][other]
            if late.any():
                at = int(np.argmax(late))
                index = int(elements[at])
                place = (
                    f"{name}[{index}]"
                    if name != "dram"
                    else f"DRAM {index * self.reach.granule:#x}"
                )
                raise ProgramError(
                    f"instruction {position} ({self.program[position].operation}) touches "
                    f"{place}, which instruction {int(youngest[at])} "
                    f"({self.program[int(youngest[at])].operation}) may not have {what} yet"
                )


class _Reach:
    """Which elements instructions touch; follows the loads of micro-ops."""

    stored: int = 0
    """Where in DRAM the last byte ends that the program writes."""

    def __init__(self, config: AcceleratorConfig, segments: Sequence[Segment]):
        self.config = config
        self.operations = InstructionSet(config).operations
        self.granule = granule(config)
        self.uops = np.zeros(config.uop_depth, np.uint32)
        self.segments = segments
        self.slots = uop_layout(config).by_name

    def of(
        self, operation: Operation, instruction: Instruction, position: int
    ) -> tuple[Touched, Touched]:
        """What it reads and what it writes.

        The parameters of a nest's walk are the instruction's operands; of a meaning's buffers the
        target is written and the others are read.
        """
        operands = instruction.operands
        if operation.format.name in ("LOAD", "LOADX"):
            memory = MEMORIES[MemoryType(operation.fixed["memory_type"])]
            rows = sum(operands.get(n, 0) for n in ("y_pad_0", "y_size", "y_pad_1"))
            columns = sum(operands.get(n, 0) for n in ("x_pad_0", "x_size", "x_pad_1"))
            count = rows * columns if operands.get("x_size", 0) else 0
            elements = self._run(memory.scratchpad, operands.get("sram_base", 0), count, position)
            if memory.scratchpad == "uop" and count:
                self._load_uops(elements, operands["dram_base"], position)
            return {}, {memory.scratchpad: elements}
        if operation.format.name in ("STORE", "STOREX"):
            rows, columns = operands.get("y_size", 0), operands.get("x_size", 0)
            base = operands.get("sram_base", 0)
            reads = {"acc": self._run("acc", base, rows * columns, position)}
            if operation.format.name == "STOREX" and columns:
                step = operands.get("qnt_step", 0)
                count = 1 + (rows - 1) * step if rows else 0
                reads["qnt"] = self._run("qnt", operands.get("qnt_base", 0), count, position)
            return reads, {}
        if operation.format.name == "FINISH":
            return {}, {}
        return self._steps(operation, operands, position)

    def boxes(self, instruction: Instruction) -> tuple[Box | None, Box | None]:
        """What it reads of DRAM and what it writes."""
        operation = self.operations[instruction.operation]
        return box_of(operation, instruction.operands, self.config)

    def with_dram(
        self, instruction: Instruction, reads: Touched, writes: Touched
    ) -> tuple[Touched, Touched]:
        """What it touches, with granules of DRAM as far as the program writes it."""
        read, written = self.boxes(instruction)
        return self._and_dram(reads, read), self._and_dram(writes, written)

    def _and_dram(self, touched: Touched, box: Box | None) -> Touched:
        if box is None:
            return touched
        at = box.granules(self.granule)
        return {**touched, "dram": at[at * self.granule < self.stored]}

    def _run(self, name: str, base: int, count: int, position: int) -> np.ndarray:
        return self._bounded(name, np.arange(base, base + count), position)

    def _bounded(self, name: str, elements: np.ndarray, position: int) -> np.ndarray:
        depth = getattr(self.config, f"{name}_depth")
        if elements.size and int(elements.max()) >= depth:
            raise ProgramError(
                f"instruction {position} touches {name}[{int(elements.max())}]; there are {depth}"
            )
        return elements

    def _load_uops(self, elements: np.ndarray, dram_base: int, position: int) -> None:
        address = dram_base * UOP_BYTES
        for segment in self.segments:
            first = address - segment.address
            last = first + len(elements) * UOP_BYTES
            if first >= 0 and last <= segment.data.nbytes:
                self.uops[elements] = segment.data[first:last].view(np.uint32)
                return
        raise ProgramError(f"instruction {position} loads micro-ops from where there are none")

    def _steps(
        self, operation: Operation, operands: Mapping[str, int], position: int
    ) -> tuple[Touched, Touched]:
        bgn, end = operands.get("uop_bgn", 0), operands.get("uop_end", 0)
        self._run("uop", bgn, max(0, end - bgn), position)
        words = self.uops[bgn:end]
        trips = operands.get("iter_out", 0) * operands.get("iter_in", 0)
        reads: dict[str, np.ndarray] = {"uop": np.arange(bgn, end if trips else bgn)}
        if not trips or end <= bgn:
            return {}, {}
        accesses = _accesses(operation.name, self.config)
        for scratchpad, operand, offsets, lanes in accesses:
            places = self._walk(words, operand, operands, lanes)[:, None] + offsets
            elements = np.unique(places // lanes)
            elements = self._bounded(scratchpad, elements, position)
            known = reads.get(scratchpad)
            reads[scratchpad] = elements if known is None else np.union1d(known, elements)
        scratchpad, operand, _, _ = accesses[0]
        return reads, {scratchpad: self._walk(words, operand, operands)}

    def _walk(
        self, words: np.ndarray, operand: str, operands: Mapping[str, int], lanes: int = 1
    ) -> np.ndarray:
        """Indices that an operand takes over micro-ops and both loops, each once.

        In ``lanes`` of an element where the inner loop goes by these.
        """
        slot = self.slots[operand]
        found = np.unique((words.astype(np.int64) >> slot.lsb) & ((1 << slot.width) - 1)) * lanes
        for loop, unit in (("in", 1), ("out", lanes)):
            factor = operands.get(f"{operand}_factor_{loop}", 0) * unit
            trips = operands.get(f"iter_{loop}", 0) if factor else 1
            found = np.unique(found[:, None] + np.arange(trips) * factor)
        return found


@lru_cache(maxsize=1024)
def _accesses(name: str, config: AcceleratorConfig) -> tuple[tuple[str, str, np.ndarray, int], ...]:
    """(scratchpad, operand, offsets from its index, lanes that these count in) of what a step
    reads, its target first."""
    pattern = pattern_of(InstructionSet(config).operations[name], config)
    assert pattern is not None
    found: dict[tuple[str, Expr], tuple[str, str, np.ndarray, int]] = {}
    for load in (pattern.target, *(n for n in walk(pattern.value) if isinstance(n, Load))):
        index, lanes = load.indices[0], 1
        match index:  # elements and lanes beyond them
            case Binary("add", element, Binary("div", beyond, Const(value=int(lanes)))):
                form, start = affine(beyond), affine(element)
            case _:
                form = start = affine(index)
        assert form is not None
        assert start is not None
        (operand,) = start.indices - pattern.lanes.keys()
        offsets = np.zeros(1, np.int64)
        for lane in form.indices & pattern.lanes.keys():
            along = np.arange(pattern.lanes[lane]) * form.coefficient(lane)
            offsets = np.unique(offsets[:, None] + along)
        scratchpad = load.buffer.split(".")[0]
        found.setdefault((scratchpad, index), (scratchpad, operand, offsets, lanes))
    return tuple(found.values())
