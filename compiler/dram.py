"""Which bytes of DRAM an instruction reads or writes, in granules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import MEMORIES, MemoryType


class Box(NamedTuple):
    """``rows`` of ``row_bytes`` each, ``stride`` bytes apart, from ``address`` on."""

    address: int
    rows: int
    row_bytes: int
    stride: int

    @property
    def end(self) -> int:
        """The first byte after all of it."""
        return self.address + max(self.rows - 1, 0) * self.stride + self.row_bytes


def scratchpads(config: AcceleratorConfig) -> dict[str, int]:
    """Elements of each scratchpad, by name."""
    return {memory.scratchpad: memory.depth(config) for memory in MEMORIES.values()}


def granule(config: AcceleratorConfig) -> int:
    """Bytes that are told apart: what activations are aligned to, whoever moves them."""
    types = (MemoryType.INP, MemoryType.OUT, MemoryType.ACC8)
    return math.gcd(*(MEMORIES[t].element_bytes(config) for t in types))


class Boxes:
    """What instructions move, on one configuration."""

    def __init__(self, config: AcceleratorConfig):
        # Of each operation that moves: bytes of an element, and whether it stores.
        self._moves = {
            name: (memory.element_bytes(config), memory.type is MemoryType.OUT)
            for name, operation in InstructionSet(config).operations.items()
            if (memory := operation.moved) is not None
        }

    def of(self, operation: str, operands: Mapping[str, int]) -> tuple[Box | None, Box | None]:
        """What an instruction reads of DRAM and what it writes; None for nothing."""
        move = self._moves.get(operation)
        if move is None or "dram_base" not in operands or not operands.get("x_size", 0):
            return None, None
        size, stores = move
        box = Box(
            operands["dram_base"] * size,
            operands.get("y_size", 0),
            operands["x_size"] * size,
            operands.get("x_stride", 0) * size,
        )
        return (None, box) if stores else (box, None)
