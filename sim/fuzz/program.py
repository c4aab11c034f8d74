"""A program with the memory that it starts from, and how that memory is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ...isa.assembly import disassemble
from ...isa.config import QNT_LANE_BYTES, AcceleratorConfig
from ...isa.formats import INSTRUCTION_BYTES, UOP_BYTES, uop_layout
from ...isa.memories import MEMORIES, QNT_LANE, MemoryType

if TYPE_CHECKING:
    from numpy.typing import NDArray

STREAM = 0x1000
TABLES = 0x4000
"""Of micro-ops, which no store touches."""
TABLE_UOPS = 512
ZERO_UOP = TABLES + (TABLE_UOPS - 1) * UOP_BYTES
DATA, DATA_END = 0x5000, 0x14000
"""What loads read; the upper part is also what stores write."""
STORED = 0xC000
BLANK = 0x14000
"""A page of zeros that nothing touches."""
POISONED, POISONED_END = 0x15800, 0x16800
"""Where the bus may be told to answer errors: no legal program goes there."""
DRAM_BYTES = 0x18000


@dataclass(frozen=True)
class Program:
    """Memory with an instruction stream in it.

    ``seed`` is the image's, where it comes from :func:`image_for`; None if it does not. The bus
    answers an error where an access touches a byte from ``bad[0]`` to before ``bad[1]``.
    """

    config: AcceleratorConfig
    image: NDArray[np.uint8] = field(compare=False)
    words: tuple[int, ...]
    address: int = STREAM
    seed: int | None = None
    bad: tuple[int, int] = (0, 0)

    @property
    def count(self) -> int:
        """Instructions in the stream."""
        return len(self.words)

    @cached_property
    def text(self) -> str:
        """The stream as assembly."""
        return f"; {self.config}\n{disassemble(self.words, self.config)}"

    def with_words(self, words: Sequence[int], bad: tuple[int, int] | None = None) -> Program:
        """Another stream in the same memory."""
        image = self.image if self.seed is None else None
        bad = self.bad if bad is None else bad
        return program_of(self.config, words, image, seed=self.seed, bad=bad)

    def __repr__(self) -> str:
        return f"Program(\n{self.text})"


def program_of(
    config: AcceleratorConfig,
    words: Sequence[int],
    image: NDArray[np.uint8] | None = None,
    *,
    seed: int | None = None,
    bad: tuple[int, int] = (0, 0),
) -> Program:
    """A stream in otherwise empty memory, in a copy of ``image``, or in that of a seed."""
    if image is None:
        image = np.zeros(DRAM_BYTES, np.uint8) if seed is None else image_for(config, seed)
    image = image.copy()
    stream = b"".join(word.to_bytes(INSTRUCTION_BYTES, "little") for word in words)
    image[STREAM : STREAM + len(stream)] = np.frombuffer(stream, np.uint8)
    return Program(config, image, tuple(words), STREAM, seed, bad)


@lru_cache(maxsize=32)
def image_for(config: AcceleratorConfig, seed: int) -> NDArray[np.uint8]:
    """Random memory; micro-ops point low or near the ends, parameters are legal ones."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, DRAM_BYTES, dtype=np.uint8)
    layout = uop_layout(config)
    depths = {
        "dst": config.acc_depth,
        "src": min(config.inp_depth, config.acc_depth),
        "wgt": config.wgt_depth,
    }
    if config.requantize:
        depths["src"] = min(depths["src"], config.qnt_depth)
    words = np.zeros(TABLE_UOPS - 1, np.uint32)
    for name, depth in depths.items():
        low = rng.integers(0, min(6, depth), words.size)
        index = np.where(rng.random(words.size) < 0.1, depth - 1 - low, low)
        words |= index.astype(np.uint32) << np.uint32(layout.by_name[name].lsb)
    image[TABLES : TABLES + 4 * words.size] = words.astype("<u4").view(np.uint8)
    image[ZERO_UOP : ZERO_UOP + UOP_BYTES] = 0
    image[BLANK:POISONED] = 0
    records = image[DATA:DATA_END].reshape(-1, QNT_LANE_BYTES)
    multiplier = next(record for record in QNT_LANE if record.name == "multiplier")
    records[:, multiplier.offset + 3] &= 0x7F  # they are not negative
    image.flags.writeable = False
    return image


def region(memory: MemoryType) -> tuple[int, int]:
    """The bytes of DRAM that a legal program moves from or to that memory."""
    if memory is MemoryType.UOP:
        return TABLES, TABLES + TABLE_UOPS * UOP_BYTES
    if memory is MemoryType.OUT:
        return STORED, DATA_END
    if memory is MemoryType.QNT:
        return DATA, STORED  # what stores write need not be legal parameters
    return DATA, DATA_END


def memory_named(name: str) -> MemoryType:
    """The memory of an operation's second name: ``acc8`` of ``loadx.acc8``."""
    return next(memory.type for memory in MEMORIES.values() if memory.name == name)
