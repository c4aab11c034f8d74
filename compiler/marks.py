"""A machine that computes with marks: numbers that stand for whole elements.

Every element of DRAM has a random mark of 64 bits, drawn from what lies at which address. Products
of marks stand for products of elements, sums for sums, and whatever else an instruction does mixes
the marks of what it reads. So an accumulator's mark tells what it was made of: two that were made
of the same products, in whatever order, have the same mark, and others, but for a chance of one in
2**64, have not. Nothing here knows what a layer means; :mod:`.meaning` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.formats import UOP_BYTES, uop_layout
from ..isa.instructions import Instruction, InstructionSet, Operation
from ..isa.memories import MEMORIES, Engine, MemoryType
from ..isa.nest import Load, walk
from .affine import affine
from .artifact import Segment
from .unify import Pattern, patterns

Marks = np.ndarray
"""``uint64``; arithmetic wraps."""


def mark(*parts: object) -> Marks:
    """A mark for each combination of integers or marks, which broadcast; order matters."""
    state: Marks = np.uint64(0x9E3779B97F4A7C15)  # type: ignore[assignment]
    with np.errstate(over="ignore"):
        for piece in parts:
            value = np.asarray(piece)
            if value.dtype != np.uint64:
                value = value.astype(np.int64).view(np.uint64)
            state = (state ^ value) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(0x632BE59BD9B4E019)
            state = (state ^ (state >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


CONSTANT, GRANULE, PAD, STORED, STEP = range(5)
"""What a mark is drawn for, its first part."""


def weight_marks(data: np.ndarray, address: int) -> Marks:
    """Of elements of weights [..., rows, lanes] that lie from ``address`` on: a mark for each row;
    one that holds only zeros has the mark 0."""
    rows = data.reshape(-1, *data.shape[-2:])
    at = address + np.arange(rows.shape[0] * rows.shape[1]) * rows.shape[2]
    marks = mark(CONSTANT, at.reshape(rows.shape[:2])) * rows.any(axis=2)
    return marks.reshape(data.shape[:-1])


def combined(rows: Marks) -> Marks:
    """The mark of an element of weights, given those of its rows."""
    return (rows * mark(STEP, np.arange(rows.shape[-1]))).sum(axis=-1, dtype=np.uint64)


def run_marks(elements: Marks, lanes: np.ndarray, block: int) -> Marks:
    """Of as many lanes as an element has, from each of ``lanes`` of ``elements`` [..., elements]
    on; where those are the lanes of one element, its own."""
    if block == 1:
        return elements[..., lanes]
    at, within = lanes // block, lanes % block
    first, last = elements[..., at], elements[..., np.minimum(at + 1, elements.shape[-1] - 1)]
    return np.where(within == 0, first, mark(STEP, within, first, last))


@dataclass(frozen=True)
class Form:
    """What the meaning of a step on weights says of its operands.

    Attributes
    ----------
    products : bool
        Whether there are any; without, the accumulator is cleared.
    adds : bool
        Whether they are added to what is there.
    taps : int
        Neighbouring elements, each times its own row of weights; 0 for one element times all rows.
    lanes : int
        What ``src`` counts in the inner loop: lanes of so many to an element, 1 for elements.
    """

    products: bool
    adds: bool
    taps: int
    lanes: int


@lru_cache(maxsize=256)
def forms(config: AcceleratorConfig) -> Mapping[str, Form]:
    """The form of every operation that writes accumulators, by name."""
    return {
        pattern.operation.name: _form(pattern, config)
        for pattern in patterns(config)
        if pattern.target.buffer == "acc"
    }


def _form(pattern: Pattern, config: AcceleratorConfig) -> Form:
    inputs = [n for n in walk(pattern.value) if isinstance(n, Load) and n.buffer == "inp"]
    adds = pattern.target in walk(pattern.value)
    if not inputs:
        return Form(False, adds, 0, 1)
    element = affine(inputs[0].indices[0])
    if element is None:  # a division: a lane of a run that begins anywhere
        return Form(True, adds, 0, config.block)
    along = [name for name in element.indices if name in pattern.lanes]
    return Form(True, adds, pattern.lanes[along[0]] if along else 0, 1)


class Machine:
    """Scratchpads and DRAM that hold marks.

    Parameters
    ----------
    config : AcceleratorConfig
        The hardware.
    segments : sequence of Segment
        Constant DRAM.
    end : int
        Where activations end. Their elements have the marks of their addresses until they are
        stored.
    """

    def __init__(self, config: AcceleratorConfig, segments: Sequence[Segment], end: int):
        self.config, self.segments = config, segments
        self.operations = InstructionSet(config).operations
        self.slots = uop_layout(config).by_name
        self.element = config.out_element_bytes
        self.memory = mark(GRANULE, np.arange(-(-end // self.element)) * self.element)
        pads = ("inp", "acc", "qnt")
        self.pads: dict[str, Marks] = {
            name: mark(PAD, np.full(getattr(config, f"{name}_depth"), -999)) for name in pads
        }
        self.rows = np.zeros((config.wgt_depth, config.block), np.uint64)
        self.uops = np.zeros(config.uop_depth, np.uint32)

    def run(self, instruction: Instruction) -> tuple[np.ndarray, Marks] | None:
        """Execute one; for a store the addresses of the elements that it wrote, and their marks."""
        operation = self.operations[instruction.operation]
        kind = operation.format.name
        if kind in ("LOAD", "LOADX"):
            self._load(operation, instruction.operands)
        elif kind in ("STORE", "STOREX") and operation.fixed["memory_type"] == MemoryType.OUT:
            return self._store(operation, instruction.operands)
        elif operation.engine is Engine.COMPUTE and kind != "FINISH":
            self._steps(operation, instruction.operands)
        return None

    # --- moves -------------------------------------------------------------------------------

    def _load(self, operation: Operation, operands: Mapping[str, int]) -> None:
        if not operands.get("x_size", 0):
            return
        get = operands.get
        memory = MEMORIES[MemoryType(operation.fixed["memory_type"])]
        y = np.arange(get("y_pad_0", 0) + get("y_size", 0) + get("y_pad_1", 0)) - get("y_pad_0", 0)
        x = np.arange(get("x_pad_0", 0) + get("x_size", 0) + get("x_pad_1", 0)) - get("x_pad_0", 0)
        inside = ((y >= 0) & (y < get("y_size", 0)))[:, None] & ((x >= 0) & (x < get("x_size", 0)))
        size = memory.element_bytes(self.config)
        source = get("dram_base", 0) + y[:, None] * get("x_stride", 0) + x
        to = slice(get("sram_base", 0), get("sram_base", 0) + inside.size)
        at, within = (source * size).reshape(-1), inside.reshape(-1)
        if memory.scratchpad == "uop":
            self.uops[to] = self._words(at, within)
        elif memory.scratchpad == "wgt":
            self.rows[to] = 0
            self.rows[to, : memory.lanes(self.config)[0]] = self._weights(at, within, size)
        elif memory.type in (MemoryType.INP, MemoryType.ACC8):
            index = at // self.element
            known = index < len(self.memory)
            values = np.where(known, self.memory[np.where(known, index, 0)], mark(GRANULE, at))
            self.pads[memory.scratchpad][to] = np.where(
                within, values, mark(PAD, get("pad_value", 0))
            )
        else:
            self.pads[memory.scratchpad][to] = np.where(within, mark(CONSTANT, at), mark(PAD, 0))

    def _words(self, at: np.ndarray, within: np.ndarray) -> np.ndarray:
        """Micro-ops from these addresses; 0 where there are none."""
        words = np.zeros(len(at), np.uint32)
        for segment in self.segments:
            first = at - segment.address
            here = within & (first >= 0) & (first <= segment.data.nbytes - UOP_BYTES)
            if here.any():
                index = first[here][:, None] + np.arange(UOP_BYTES)
                words[here] = segment.data[index].view(np.uint32)[:, 0]
        return words

    def _weights(self, at: np.ndarray, within: np.ndarray, size: int) -> Marks:
        """Marks of rows; of an element that is no constant, those of its addresses."""
        start, stop = int(at[0]), int(at[-1]) + size
        lanes = self.config.block * self.config.wgt_width // 8
        rows = mark(CONSTANT, at[:, None] + np.arange(size // lanes) * lanes)
        for segment in self.segments:
            if segment.address <= start and stop <= segment.address + segment.data.nbytes:
                index = (at - segment.address)[:, None] + np.arange(size)
                data = segment.data[index.reshape(-1)].reshape(len(at), -1, lanes)
                rows *= data.any(axis=2)
        return rows * within[:, None]

    def _store(self, operation: Operation, operands: Mapping[str, int]) -> tuple[np.ndarray, Marks]:
        get = operands.get
        y, x = np.arange(get("y_size", 0))[:, None], np.arange(get("x_size", 0))
        values = self.pads["acc"][get("sram_base", 0) + y * get("x_size", 0) + x]
        record: Marks | int = 0
        if operation.format.name == "STOREX" and values.size:
            record = self.pads["qnt"][get("qnt_base", 0) + y * get("qnt_step", 0)]
        values = mark(STORED, values, record)
        index = (get("dram_base", 0) + y * get("x_stride", 0) + x).reshape(-1)
        values = values.reshape(-1)
        known = index < len(self.memory)
        self.memory[index[known]] = values[known]
        return index * self.element, values

    # --- steps -------------------------------------------------------------------------------

    def _steps(self, operation: Operation, operands: Mapping[str, int]) -> None:
        words = self.uops[operands.get("uop_bgn", 0) : operands.get("uop_end", 0)].astype(np.int64)
        if not words.size:
            return
        acc, form = self.pads["acc"], forms(self.config)[operation.name]
        dst, wgt = (self._walk(words, name, operands) for name in ("dst", "wgt"))
        src = self._walk(words, "src", operands, form.lanes)
        if operation.format.name == "ALU":
            self._alu(operation, operands, dst, src)
        elif not form.products:
            acc[dst] = 0
        else:
            if form.taps:
                taps = np.arange(form.taps)
                values = (self.pads["inp"][src[:, None] + taps] * self.rows[wgt][:, taps]).sum(
                    axis=1, dtype=np.uint64
                )
            else:
                used = np.unique(wgt)
                whole = np.zeros(int(used[-1]) + 1, np.uint64)
                whole[used] = combined(self.rows[used])
                values = run_marks(self.pads["inp"], src, form.lanes) * whole[wgt]
            if form.adds:
                np.add.at(acc, dst, values)
            else:
                acc[dst] = values

    def _alu(
        self, operation: Operation, operands: Mapping[str, int], dst: np.ndarray, src: np.ndarray
    ) -> None:
        acc, name = self.pads["acc"], operation.name
        if operation.fixed["use_imm"]:
            source, src = mark(STEP, operands.get("imm", 0))[None], np.zeros_like(src)
        elif name in ("alu.scale", "alu.requantize"):
            source = self.pads["qnt"]
        else:
            source = acc
        apart = source is not acc or not np.intersect1d(dst, src).size
        if apart and name in SUMS:
            np.add.at(acc, dst, addend(name, source[src]))
        elif apart and len(np.unique(dst)) == len(dst):
            acc[dst] = alu(name, acc[dst], source[src])
        else:  # a step sees what those before it wrote
            for to, at in zip(dst[:, None], src[:, None], strict=True):
                acc[to] = alu(name, acc[to], source[at])

    def _walk(
        self, words: np.ndarray, operand: str, operands: Mapping[str, int], lanes: int = 1
    ) -> np.ndarray:
        """Where an operand stands, step by step; in ``lanes`` of an element, which the inner loop
        goes by."""
        slot = self.slots[operand]
        first = ((words >> slot.lsb) & ((1 << slot.width) - 1)) * lanes
        i, j = (np.arange(operands.get(f"iter_{loop}", 0)) for loop in ("out", "in"))
        outer, inner = (operands.get(f"{operand}_factor_{loop}", 0) for loop in ("out", "in"))
        return ((i * outer * lanes)[:, None, None] + (j * inner)[:, None] + first).reshape(-1)


SUMS = ("alu.add", "alu.max", "alu.min")
"""Operations on two accumulators whose order does not matter; their marks are sums. So nothing is
seen of the order in which one of them stands beside another."""


def addend(name: str, value: Marks) -> Marks:
    """What the second operand of one of :data:`SUMS` adds to the first one's mark."""
    return value if name == "alu.add" else mark(STEP, *name.encode(), value)


def alu(name: str, first: Marks, second: Marks) -> Marks:
    """The mark of what any other operation of the ALU makes."""
    if name in SUMS:
        return first + addend(name, second)
    return mark(STEP, *name.encode(), first, second)
