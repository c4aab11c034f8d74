"""The instruction set of one configuration: its operations, and words encoded and decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from . import formats, operations
from .errors import ProgramError
from .formats import FLAGS, Format, Layout
from .memories import MEMORIES, Engine, Memory, MemoryType
from .nest import Nest
from .operations import SELECTORS, Operation

if TYPE_CHECKING:
    from .config import AcceleratorConfig


@dataclass(frozen=True)
class Instruction:
    """One instruction of a program: an operation, its operands and its dependence flags."""

    operation: str
    operands: Mapping[str, int] = field(default_factory=dict[str, int])
    pop_prev: bool = False
    pop_next: bool = False
    push_prev: bool = False
    push_next: bool = False


class InstructionSet:
    """The operations that one configuration admits, with their encodings.

    Parameters
    ----------
    config : AcceleratorConfig
        Decides widths and extensions.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.layouts: Mapping[int, Layout] = {
            f.opcode: f.layout(config) for f in formats.enabled(config)
        }
        self.formats: Mapping[int, Format] = {f.opcode: f for f in formats.enabled(config)}
        self.operations: Mapping[str, Operation] = {
            o.name: o
            for o in operations.OPERATIONS
            if o.format.opcode in self.formats
            and (o.extension is None or getattr(config, o.extension))
        }

    @cached_property
    def _by_selectors(self) -> Mapping[tuple[int, tuple[int, ...]], Operation]:
        return {
            (o.format.opcode, tuple(int(o.fixed[s]) for s in SELECTORS.get(o.format.name, ()))): o
            for o in self.operations.values()
        }

    def operation_of(self, word: int) -> Operation | None:
        """The operation that a 128-bit instruction word selects; None for a reserved encoding."""
        layout = self.layouts.get(word & 7)
        if layout is None:
            return None
        values = layout.decode(word)
        if values.get("reserved"):
            return None
        selectors = SELECTORS.get(layout.name, ())
        return self._by_selectors.get((word & 7, tuple(values[s] for s in selectors)))

    def encode(self, instruction: Instruction) -> int:
        """The 128 bits of an instruction.

        Raises
        ------
        ProgramError
            For an unknown operation or operand, or an operand that does not fit its field.
        """
        operation = self.operations.get(instruction.operation)
        if operation is None:
            raise ProgramError(f"this configuration has no operation {instruction.operation!r}")
        flags = {name: int(getattr(instruction, name)) for name in FLAGS}
        opcode = operation.format.opcode
        values = {**instruction.operands, **operation.fixed, **flags, "opcode": opcode}
        return self.layouts[opcode].encode(values)

    def encode_all(self, instructions: Sequence[Instruction]) -> bytes:
        """The bytes of a stream, as :meth:`encode` gives them one by one, and raises."""
        words = np.zeros((len(instructions), 2), np.uint64)
        by_name: dict[str, list[int]] = {}
        for position, instruction in enumerate(instructions):
            by_name.setdefault(instruction.operation, []).append(position)
        for name, positions in by_name.items():
            some = [instructions[position] for position in positions]
            operation = self.operations.get(name)
            if operation is None:
                self.encode(some[0])
                raise AssertionError("encoded an operation that there is not")
            slots = self.layouts[operation.format.opcode].slots
            names = [slot.name for slot in slots]
            known = set(names)
            fixed = {**operation.fixed, "opcode": operation.format.opcode}
            for instruction in some:
                if not instruction.operands.keys() <= known:
                    self.encode(instruction)
            rows = [[i.operands.get(n, 0) for n in names] for i in some]
            for number, slot in enumerate(slots):
                if slot.name in fixed:
                    column = np.full(len(some), fixed[slot.name], np.int64)
                elif slot.name in FLAGS:
                    column = np.array([getattr(i, slot.name) for i in some], np.int64)
                else:
                    column = np.array([row[number] for row in rows], np.int64)
                wrong = (column < slot.least) | (column > slot.greatest)
                if wrong.any():
                    self.encode(some[int(np.argmax(wrong))])
                half, shift = divmod(slot.lsb, 64)
                bits = (column & ((1 << slot.width) - 1)).astype(np.uint64) << np.uint64(shift)
                words[positions, half] |= bits
        return words.tobytes()

    def decode(self, word: int) -> Instruction:
        """The instruction of 128 bits; :class:`ProgramError` for a reserved encoding."""
        operation = self.operation_of(word)
        if operation is None:
            raise ProgramError(f"reserved encoding {word:032x}")
        values = self.layouts[operation.format.opcode].decode(word)
        flags = {name: bool(values.pop(name)) for name in FLAGS}
        for name in ("opcode", *operation.fixed, "unused", "reserved"):
            values.pop(name, None)
        return Instruction(operation.name, values, **flags)

    def loads(self, engine: Engine) -> tuple[tuple[Memory, ...], tuple[Format, ...]]:
        """The memories that the loads of an engine fill, and those loads' formats."""
        found = [
            o
            for o in self.operations.values()
            if o.engine is engine and o.format in (formats.LOAD, formats.LOADX)
        ]
        types = sorted({int(o.fixed["memory_type"]) for o in found})
        kinds = tuple(f for f in self.formats.values() if any(o.format is f for o in found))
        return tuple(MEMORIES[MemoryType(t)] for t in types), kinds

    def load_of(self, memory: MemoryType) -> Operation:
        """The operation that fills a memory, by the load engine if that can."""
        found = [
            o
            for o in self.operations.values()
            if o.format in (formats.LOAD, formats.LOADX) and o.fixed["memory_type"] == memory
        ]
        return min(found, key=lambda o: o.engine is not Engine.LOAD)

    def meaning(self, name: str) -> Nest:
        """What the operation of that name does under this configuration."""
        return _meaning(name, self.config)


@lru_cache(maxsize=4096)
def _meaning(name: str, config: AcceleratorConfig) -> Nest:
    return next(o for o in operations.OPERATIONS if o.name == name).meaning(config)
