"""A machine that computes with marks (:mod:`.marks`): scratchpads and DRAM that hold those.

It knows what an instruction does with elements, from the instruction set, and nothing of layers.
A whole program runs in one call of native code, one element after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.errors import ProgramError
from ..isa.formats import UOP_BYTES, uop_layout
from ..isa.instructions import Instruction, InstructionSet
from ..isa.interpret import AccessError
from ..isa.memories import MEMORIES, Engine, Memory, MemoryType
from ..isa.native import NativeCode
from ..isa.operations import Operation
from ..isa.paths import cache_directory
from .artifact import Segment
from .machine_nest import COLUMNS, Kind, nest
from .marks import CONSTANT, GRANULE, PAD, STEP, SUMS, Marks, forms, mark

BOX = ("sram_base", "dram_base", "y_size", "x_size", "x_stride", "y_pad_0", "y_pad_1", "x_pad_0",
       "x_pad_1", "pad_value", "qnt_base", "qnt_step")  # fmt: skip
LOOPS = ("uop_bgn", "uop_end", "iter_out", "iter_in", "dst_factor_out", "dst_factor_in",
         "src_factor_out", "src_factor_in", "wgt_factor_out", "wgt_factor_in", "imm")  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """What a run stored: the elements of instruction i are those from ``first[i]`` to
    ``first[i + 1]``; of each its address and its mark."""

    first: np.ndarray
    addresses: np.ndarray
    marks: Marks


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
        self._memories: dict[str, tuple[Memory, int, int]] = {}  # by the operations that move
        for name, operation in self.operations.items():
            if "memory_type" in operation.fixed:
                memory = MEMORIES[MemoryType(operation.fixed["memory_type"])]
                lanes = memory.lanes(config)
                size, rows = memory.element_bytes(config), lanes[0] if lanes else 1
                self._memories[name] = memory, size, rows
        self.element = config.out_element_bytes
        self.row_bytes = config.block * config.wgt_width // 8
        self.memory = mark(GRANULE, np.arange(-(-end // self.element)) * self.element)
        depths = [getattr(config, f"{name}_depth") for name in ("inp", "acc", "qnt")]
        starts = np.cumsum([0, *depths])
        self.marks = mark(PAD, np.full(starts[-1], -999))
        self.base: dict[str, int] = dict(zip(("inp", "acc", "qnt"), starts.tolist(), strict=False))
        self.pads: dict[str, Marks] = {
            name: self.marks[start : start + depth]
            for (name, start), depth in zip(self.base.items(), depths, strict=True)
        }
        self.rows = np.zeros(config.wgt_depth * config.block, np.uint64)
        self.whole = np.zeros(config.wgt_depth, np.uint64)
        self.uops = np.zeros(config.uop_depth, np.uint32)
        slots = uop_layout(config).by_name
        self.params = {
            f"{operand}_{what}": value
            for operand in ("dst", "src", "wgt")
            for what, value in (
                ("lsb", slots[operand].lsb), ("mask", (1 << slots[operand].width) - 1)
            )
        }  # fmt: skip

    def run(self, instructions: Sequence[Instruction]) -> Stored:
        """Execute them one after another.

        Raises
        ------
        ProgramError
            If one of them touches an element that its scratchpad does not have.
        """
        table = np.zeros((len(instructions), len(COLUMNS)), np.int64)
        if instructions:
            table[:] = [self._row(instruction) for instruction in instructions]
        by_name = dict(zip(COLUMNS, table.T, strict=True))
        stores = by_name["kind"] == Kind.STORE
        counts = by_name["rows"] * by_name["columns"] * stores
        first = np.concatenate([[0], np.cumsum(counts)])
        by_name["first"][:] = first[:-1]
        weights = by_name["kind"] == Kind.WEIGHTS
        uops = by_name["kind"] == Kind.UOPS
        row_table, first_row = self._weights(*_reach(by_name, weights))
        words, first_word = self._words(*_reach(by_name, uops))
        stored = Stored(first, np.zeros(first[-1], np.int64), np.zeros(first[-1], np.uint64))
        arrays = {
            "table": table, "marks": self.marks, "rows": self.rows, "whole": self.whole,
            "uops": self.uops, "memory": self.memory, "row_table": row_table, "words": words,
            "step_marks": mark(STEP, np.arange(self.config.block)),
            "addresses": stored.addresses, "values": stored.marks,
        }  # fmt: skip
        params = self.params | {
            "count": len(table),
            "block": self.config.block,
            "element": self.element,
            "row_bytes": self.row_bytes,
            "first_row": first_row,
            "row_count": len(row_table),
            "first_word": first_word,
            "word_count": len(words),
            "known": len(self.memory),
            "inp": self.base["inp"],
            "inp_last": self.base["inp"] + self.config.inp_depth - 1,
            "acc": self.base["acc"],
            "qnt": self.base["qnt"],
        }
        try:
            _code().run("machine", params, arrays)
        except AccessError as error:
            raise ProgramError(f"an instruction leaves its memory ({error})") from None
        return stored

    # --- instructions as rows of numbers

    def _row(self, instruction: Instruction) -> tuple[int, ...]:
        name, get = instruction.operation, instruction.operands.get
        if name not in self._memories:
            operation = self.operations[name]
            if operation.engine is Engine.COMPUTE and operation.format.name != "FINISH":
                return self._steps(operation, [get(field, 0) for field in LOOPS])
            return _row(Kind.NOTHING)
        return self._box(name, [get(field, 0) for field in BOX])

    def _box(self, name: str, operands: Sequence[int]) -> tuple[int, ...]:
        sram, dram, y, x, stride, top, bottom, left, right, pad, qnt, step = operands
        if not x:
            return _row(Kind.NOTHING)
        memory, size, rows = self._memories[name]
        box = (sram, dram, y, x, stride, top, left, top + y + bottom, left + x + right, size)
        if memory.type is MemoryType.OUT:
            parameters = self.operations[name].format.name == "STOREX"
            return _row(Kind.STORE, *box, qnt, step, int(parameters))
        if self.operations[name].moved is None:
            return _row(Kind.KEEP, *box, qnt, step, self.base[memory.scratchpad])
        if memory.scratchpad == "uop":
            return _row(Kind.UOPS, *box)
        if memory.scratchpad == "wgt":
            return _row(Kind.WEIGHTS, *box, rows)
        target = self.base[memory.scratchpad]
        activation = memory.type in (MemoryType.INP, MemoryType.ACC8)
        outside = _pad_mark(pad if activation else 0)
        return _row(Kind.ELEMENTS, *box, target, int(activation), outside)

    def _steps(self, operation: Operation, operands: Sequence[int]) -> tuple[int, ...]:
        *loops, imm = operands
        form = forms(self.config)[operation.name]
        loops[6] *= form.lanes
        if operation.format.name != "ALU":
            kind = Kind.PRODUCTS if form.products else Kind.CLEAR
            return _row(kind, *loops, form.lanes, form.taps, int(form.by_rows), int(form.adds))
        uses_imm = bool(operation.fixed["use_imm"])
        parameters = operation.name in ("alu.scale", "alu.requantize")
        way = 2 if operation.name not in SUMS else int(operation.name != "alu.add")
        second = int(mark(STEP, imm).view(np.int64)) if uses_imm else 0
        of_what = self.base["qnt" if parameters else "acc"]
        return _row(Kind.ALU, *loops, _seed(operation.name), way, int(uses_imm), second, of_what)

    # --- constant DRAM

    def _weights(self, start: int, stop: int) -> tuple[np.ndarray, int]:
        """The marks of rows of weights in that part of constant DRAM, and the first one's number;
        0 for a row that is known to hold only zeros."""
        first, last = self._within(start, stop, self.row_bytes)
        numbers = np.arange(first, last)
        nonzero = np.ones(len(numbers), bool)
        for segment in self.segments:
            bgn = max(first, -(-segment.address // self.row_bytes))
            end = min(last, (segment.address + segment.data.nbytes) // self.row_bytes)
            if bgn < end:
                at = bgn * self.row_bytes - segment.address
                data = segment.data.reshape(-1)[at : at + (end - bgn) * self.row_bytes]
                nonzero[bgn - first : end - first] = data.reshape(-1, self.row_bytes).any(axis=1)
        return mark(CONSTANT, numbers * self.row_bytes) * nonzero, first

    def _words(self, start: int, stop: int) -> tuple[np.ndarray, int]:
        """Micro-ops in that part of constant DRAM, and the first one's number; 0 where there are
        none."""
        first, last = self._within(start, stop, UOP_BYTES)
        data = np.zeros((last - first) * UOP_BYTES, np.uint8)
        for segment in self.segments:
            bgn = max(first * UOP_BYTES, segment.address)
            end = min(last * UOP_BYTES, segment.address + segment.data.nbytes)
            if bgn < end:
                of = slice(bgn - segment.address, end - segment.address)
                data[bgn - first * UOP_BYTES : end - first * UOP_BYTES] = segment.data[of]
        return data.view(np.uint32), first

    def _within(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """Pieces of ``size`` bytes, as far as there are segments."""
        bgn = min((s.address for s in self.segments), default=0)
        end = max((s.address + s.data.nbytes for s in self.segments), default=0)
        first = max(start, bgn) // size
        return first, max(first, -(-min(stop, end) // size))


def _row(kind: Kind, *values: int) -> tuple[int, ...]:
    return (kind, 0, *values, *(0,) * (len(COLUMNS) - 2 - len(values)))


def _reach(columns: Mapping[str, np.ndarray], which: np.ndarray) -> tuple[int, int]:
    """First and last byte of DRAM, exclusive, of these loads."""
    if not which.any():
        return 0, 0
    dram, rows, width, stride, size = (
        columns[name][which] for name in ("dram", "y", "x", "stride", "size")
    )
    return int((dram * size).min()), int(((dram + (rows - 1) * stride + width) * size).max())


@lru_cache(maxsize=1024)
def _pad_mark(value: int) -> int:
    return int(mark(PAD, value).view(np.int64))


@lru_cache(maxsize=64)
def _seed(name: str) -> int:
    return int(mark(STEP, *name.encode()).view(np.int64))


@lru_cache(maxsize=1)
def _code() -> NativeCode:
    machine = nest()
    checked = {buffer.name for buffer in machine.buffers} - {"table"}
    return NativeCode([machine], checked, cache=cache_directory() / "compiler")
