"""What an instruction touches, from its meaning alone: ranges of scratchpads and of DRAM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ...isa.config import AcceleratorConfig
from ...isa.instructions import Instruction, InstructionSet
from ...isa.interpret import AccessError, interpret
from ...isa.memories import MemoryType
from ...isa.nest import (
    Binary,
    Block,
    Cast,
    Const,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
)
from ...isa.operations import Operation
from ...isa.traverse import walk

if TYPE_CHECKING:
    from numpy.typing import NDArray

Range = tuple[int, int]
"""The least and the greatest value."""
UNKNOWN: Range = (-(1 << 63), (1 << 63) - 1)


@dataclass(frozen=True)
class Touch:
    """Elements of a scratchpad, or bytes of ``dram``: from ``first`` to before ``end``."""

    memory: str
    first: int
    end: int
    writes: bool

    def conflicts(self, other: Touch) -> bool:
        """Whether the order of the two matters."""
        return (
            self.memory == other.memory
            and self.first < other.end
            and other.first < self.end
            and (self.writes or other.writes)
        )


PADS = ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")


@cache
def instruction_set(config: AcceleratorConfig) -> InstructionSet:
    """The one of a configuration, made once."""
    return InstructionSet(config)


@cache
def _meaning_of(operation: str, config: AcceleratorConfig) -> Nest:
    return instruction_set(config).meaning(operation)


@cache
def _writes_uops(operation: str, config: AcceleratorConfig) -> bool:
    body = _meaning_of(operation, config).body
    return any(isinstance(node, Store) and node.buffer == "uop" for node in walk(body))


class Footprints:
    """What the instructions of a program touch, one after another.

    Parameters
    ----------
    config : AcceleratorConfig
        Whose program it is.
    image : array
        DRAM, for the micro-ops that are loaded from it.
    uops : array, optional
        The micro-ops that are there from the start; they change with what is executed.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        image: NDArray[np.uint8],
        uops: NDArray[np.uint32] | None = None,
    ):
        self.config, self.image = config, image
        self.instructions = instruction_set(config)
        self.uops = np.zeros(config.uop_depth, np.uint32) if uops is None else uops

    def of(self, instruction: Instruction) -> list[Touch]:
        """What an instruction would touch now, in and beyond the memories.

        A range for each place of the meaning that accesses a memory, in the meaning's order.
        """
        operation = self.instructions.operations[instruction.operation]
        nest = _meaning_of(operation.name, self.config)
        operands = {p: (v, v) for p in nest.params for v in (instruction.operands.get(p, 0),)}
        found: dict[tuple[str, int, bool], Range] = {}
        walker = _Walker(nest, self.uops, operation.moved is None)
        for buffer, index, (least, most), writes in walker.stmt(nest.body, operands):
            key = buffer.partition(".")[0], id(index), writes
            before = found.get(key, (least, most))
            found[key] = min(before[0], least), max(before[1], most)
        touches = [
            Touch(memory, low, high + 1, writes)
            for (memory, _, writes), (low, high) in found.items()
            if memory != "dram"
        ]
        dram = self._dram(operation, instruction.operands)
        return [*touches, *([dram] if dram else [])]

    def execute(self, instruction: Instruction) -> None:
        """Let an instruction change the micro-ops, if it does."""
        if not _writes_uops(instruction.operation, self.config):
            return
        nest = _meaning_of(instruction.operation, self.config)
        arrays = {"uop": self.uops} | {
            b.name: self.image for b in nest.buffers if b.name.startswith("dram.")
        }
        operands = {p: instruction.operands.get(p, 0) for p in nest.params}
        try:
            interpret(nest, operands, arrays)
        except AccessError:
            return  # a fault, and nothing after it counts

    def beyond(self, touches: list[Touch]) -> list[Touch]:
        """Those of ``touches`` that leave their memory."""
        return [t for t in touches if t.first < 0 or t.end > self.size(t.memory)]

    def size(self, memory: str) -> int:
        """Elements of a scratchpad; bytes of DRAM."""
        return self.image.size if memory == "dram" else int(getattr(self.config, f"{memory}_depth"))

    def _dram(self, operation: Operation, operands: Mapping[str, int]) -> Touch | None:
        memory = operation.moved
        if memory is None:
            return None
        count = reach(operands)
        if not count:
            return None
        size = memory.element_bytes(self.config)
        first = operands.get("dram_base", 0) * size
        return Touch("dram", first, first + count * size, memory.type is MemoryType.OUT)


def reach(box: Mapping[str, int]) -> int:
    """Elements of DRAM from the first of a box to one past the last."""
    rows, columns = box.get("y_size", 0), box.get("x_size", 0)
    return (rows - 1) * box.get("x_stride", 0) + columns if rows and columns else 0


_Access = tuple[str, Expr, Range, bool]
"""Buffer, first index with its range, and whether the buffer is written."""


class _Walker:
    """Intervals of every index of a meaning; micro-ops one by one, where ``unrolls``."""

    def __init__(self, nest: Nest, uops: NDArray[np.uint32], unrolls: bool):
        self.nest, self.uops, self.unrolls = nest, uops, unrolls

    def stmt(self, stmt: Stmt, env: dict[str, Range]) -> Iterator[_Access]:
        """Every access, the micro-ops' in front of those that their fields decide."""
        match stmt:
            case Block(stmts):
                for one in stmts:
                    yield from self.stmt(one, env)
            case For(index, start, stop, body):
                yield from self.expr(start, env)
                yield from self.expr(stop, env)
                low, high = self.value(start, env)[0], self.value(stop, env)[1] - 1
                if self.unrolls and _selects_uop(body, index):
                    if low <= high:  # the micro-ops themselves, also those beyond the end
                        yield "uop", start, (low, high), False
                    for u in range(low, min(high + 1, self.uops.size)):
                        yield from self.stmt(body, {**env, index: (u, u)})
                elif low <= high:
                    yield from self.stmt(body, {**env, index: (low, high)})
            case Let(name, value, body):
                yield from self.expr(value, env)
                yield from self.stmt(body, {**env, name: self.value(value, env)})
            case If(cond, body):
                yield from self.expr(cond, env)
                if self.value(cond, env) != (0, 0):
                    yield from self.stmt(body, env)
            case Store(buffer, indices, value):
                yield from self.expr(value, env)
                yield buffer, indices[0], self.value(indices[0], env), True
            case _:
                raise TypeError(f"an unknown statement {type(stmt).__name__}")

    def expr(self, expr: Expr, env: dict[str, Range]) -> Iterator[_Access]:
        """The loads within an expression."""
        match expr:
            case Load(buffer, indices):
                for index in indices:
                    yield from self.expr(index, env)
                if buffer != "uop" or not self.unrolls:
                    yield buffer, indices[0], self.value(indices[0], env), False
            case Binary(_, a, b):
                yield from self.expr(a, env)
                yield from self.expr(b, env)
            case Cast(_, a):
                yield from self.expr(a, env)
            case Select(cond, a, b):
                for part in (cond, a, b):
                    yield from self.expr(part, env)
            case Sum(axes, body):
                yield from self.expr(body, env | {n: (0, extent - 1) for n, extent in axes})
            case _:
                pass

    def value(self, expr: Expr, env: dict[str, Range]) -> Range:
        """The values that an expression may have."""
        match expr:
            case Const(value):
                return int(value), int(value)
            case Index(name):
                return env[name]
            case Cast(dtype, a):
                low, high = self.value(a, env)
                return (low, high) if dtype.min <= low and high <= dtype.max else UNKNOWN
            case Load("uop", (index,)):
                at, last = self.value(index, env)
                if at == last and 0 <= at < self.uops.size:
                    return (word := int(self.uops[at])), word
                return 0, (1 << 32) - 1
            case Select(_, a, b):
                ranges = self.value(a, env), self.value(b, env)
                return min(r[0] for r in ranges), max(r[1] for r in ranges)
            case Binary(op, a, b):
                return _combined(op, self.value(a, env), self.value(b, env))
        return UNKNOWN


def _selects_uop(body: Stmt, index: str) -> bool:
    known = _selecting.get(id(body))
    if known is None:
        known = _selecting[id(body)] = any(
            isinstance(node, Load) and node.buffer == "uop" and Index(index) in node.indices
            for node in walk(body)
        )
    return known


_selecting: dict[int, bool] = {}
"""By the identity of loops' bodies, all of which :func:`_meaning_of` keeps alive."""


def _combined(op: str, a: Range, b: Range) -> Range:
    (low, high), (least, most) = a, b
    match op:
        case "add":
            return low + least, high + most
        case "sub":
            return low - most, high - least
        case "mul":
            products = [x * y for x in a for y in b]
            return min(products), max(products)
        case "min":
            return min(low, least), min(high, most)
        case "max":
            return max(low, least), max(high, most)
        case "shr" | "shl" | "and" | "or" | "div" | "mod" if low == high and least == most:
            return (value := _EXACT[op](low, least)), value
        case "shr" if 0 <= least == most:
            return low >> least, high >> least
        case "shl" if 0 <= least == most:
            return low << least, high << least
        case "div" if 0 < least == most:
            return low // least, high // least
        case "and" | "mod" if least == most > 0 <= low:
            return 0, min(high, most)
        case "ne" if high < least or most < low:
            return 1, 1
        case "ne" | "eq" if low == high == least == most:
            return (same := int(op == "eq")), same
        case "eq" | "ne" | "lt" | "le":
            return 0, 1
    return UNKNOWN


_EXACT = {
    "shr": lambda x, y: x >> y,
    "shl": lambda x, y: x << y,
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "div": lambda x, y: x // y if y else 0,
    "mod": lambda x, y: x % y if y else 0,
}
