"""The scratchpads, the engines, and how each memory looks from DRAM.

A simulator keeps a scratchpad as an array of lanes; sub-byte lanes are widened to ``i8`` there.
DRAM holds an element as its lanes in row-major order, packed from the low bits up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from .nest import I8, I32, U8, U32, Buffer, DType

if TYPE_CHECKING:
    from .config import AcceleratorConfig


class Engine(Enum):
    """The concurrent engines that execute instructions, in the order of the dependence queues.

    ``prev`` and ``next`` in an instruction's flags mean the neighbours in this order.
    """

    LOAD = "load"
    COMPUTE = "compute"
    STORE = "store"


class MemoryType(IntEnum):
    """The ``memory_type`` field."""

    UOP = 0
    WGT = 1
    INP = 2
    ACC = 3
    OUT = 4
    ACC8 = 5
    QNT = 6
    TAPS = 7


@dataclass(frozen=True)
class Record:
    """A field of a QNT lane: ``dtype`` at byte ``offset`` of the lane.

    One that has ``choices`` decides what an operation means, by one of these values; so does the
    first of them where the configuration has not the ``extension`` that it belongs to.
    """

    name: str
    offset: int
    dtype: DType
    doc: str
    extension: str | None = None
    choices: tuple[int, ...] = ()


# fmt: off
QNT_LANE = (
    Record("bias",       0, I32, "added to the accumulator first"),
    Record("multiplier", 4, I32, "Q31 fraction, not negative"),
    Record("left",       8, U8,  "left shift before the multiplication, 0 to 31"),
    Record("right",      9, U8,  "rounding right shift after it, 0 to 31"),
    Record("zero_point", 10, I8, "added after the shift"),
    Record("low",        11, I8, "lower clamp"),
    Record("high",       12, I8, "upper clamp"),
    Record("even",       13, U8, "bit 0: 0 rounds as TensorFlow Lite (the left shift wraps; "
           "ties of the right shift go away from 0), 1 as ONNX (it saturates; they go to even)",
           "to_even", (0, 1)),
)
"""The parameters of one channel; the lane's other bytes (see ``QNT_LANE_BYTES``) are ignored."""
# fmt: on


@dataclass(frozen=True)
class Memory:
    """A scratchpad, or a way of filling it, as ``memory_type`` names it.

    Attributes
    ----------
    type : MemoryType
        The encoding.
    scratchpad : str
        Name of the scratchpad: ``uop``, ``wgt``, ``inp``, ``acc`` or ``qnt``.
    engine : Engine
        Which engine executes a LOAD of it (a LOADX is the load engine's), or the STORE.
    lanes : callable
        Configuration to the extents of an element.
    sram_dtype, dram_dtype : callable
        Configuration to the type of a lane in the scratchpad (of a simulator) and in DRAM.
    whole : callable or None
        The extents of the scratchpad's element where this one is only its first rows; the others
        keep what they hold.
    extension : str or None
        The configuration's switch that admits it.
    """

    type: MemoryType
    scratchpad: str
    engine: Engine
    lanes: Callable[[AcceleratorConfig], tuple[int, ...]]
    sram_dtype: DType
    dram_dtype: Callable[[AcceleratorConfig], DType]
    whole: Callable[[AcceleratorConfig], tuple[int, ...]] | None = None
    extension: str | None = None

    @property
    def name(self) -> str:
        """Lower case, as in assembly: ``acc8``."""
        return self.type.name.lower()

    def element_bytes(self, config: AcceleratorConfig) -> int:
        """Bytes of an element in DRAM; ``dram_base`` counts in these."""
        bits = self.dram_dtype(config).bits
        for extent in self.lanes(config):
            bits *= extent
        return bits // 8

    def depth(self, config: AcceleratorConfig) -> int:
        """Elements of the scratchpad."""
        return int(getattr(config, f"{self.scratchpad}_depth"))

    def sram(self, config: AcceleratorConfig) -> Buffer:
        """The scratchpad as a simulator keeps it."""
        shape = (self.depth(config), *(self.whole or self.lanes)(config))
        return Buffer(self.scratchpad, self.sram_dtype, shape)

    def dram(self, config: AcceleratorConfig) -> Buffer:
        """All of DRAM, from address 0, as elements of this memory."""
        return Buffer(f"dram.{self.name}", self.dram_dtype(config), (0, *self.lanes(config)))


def _vector(c: AcceleratorConfig) -> tuple[int, ...]:
    return (c.batch, c.block)


def _matrix(c: AcceleratorConfig) -> tuple[int, ...]:
    return (c.block, c.block)


def _tap_rows(c: AcceleratorConfig) -> tuple[int, ...]:
    """The rows that a depthwise step reads, and as many more as make a power of two."""
    return (1 << max(0, c.taps - 1).bit_length(), c.block)


# fmt: off
MEMORIES = {
    memory.type: memory for memory in (
        Memory(MemoryType.UOP,  "uop", Engine.COMPUTE, lambda c: (), U32, lambda c: U32),
        Memory(MemoryType.WGT,  "wgt", Engine.LOAD, _matrix, I8,
               lambda c: DType("i", c.wgt_width)),
        Memory(MemoryType.INP,  "inp", Engine.LOAD, _vector, I8,
               lambda c: DType("i", c.inp_width)),
        Memory(MemoryType.ACC,  "acc", Engine.COMPUTE, _vector, I32, lambda c: I32),
        Memory(MemoryType.OUT,  "acc", Engine.STORE, _vector, I32,
               lambda c: DType("i", c.out_width)),
        Memory(MemoryType.ACC8, "acc", Engine.COMPUTE, _vector, I32, lambda c: I8),
        Memory(MemoryType.QNT,  "qnt", Engine.COMPUTE, lambda c: (c.qnt_element_bytes,), U8,
               lambda c: U8, extension="requantize"),
        Memory(MemoryType.TAPS, "wgt", Engine.LOAD, _tap_rows, I8,
               lambda c: DType("i", c.wgt_width), _matrix, "taps"),
    )
}
# fmt: on


def lane_fields(config: AcceleratorConfig) -> tuple[Record, ...]:
    """The fields of a QNT lane that a configuration knows."""
    return tuple(r for r in QNT_LANE if r.extension is None or getattr(config, r.extension))


def qnt_views(config: AcceleratorConfig) -> tuple[Buffer, ...]:
    """The fields of the QNT scratchpad, ``qnt.bias`` and so on: [depth, block] within its bytes."""
    from .config import QNT_LANE_BYTES

    return tuple(
        Buffer(
            f"qnt.{record.name}",
            record.dtype,
            (config.qnt_depth, config.block),
            (config.qnt_element_bytes, QNT_LANE_BYTES),
        )
        for record in lane_fields(config)
    )
