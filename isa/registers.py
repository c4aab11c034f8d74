"""The control registers and the counters, as software sees them: 32-bit, at byte offsets.

64-bit values take two registers, the low half first. Counters are cleared by a launch, count
until the run has ended and hold their values afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .memories import Engine

Access = Literal["read-only", "read-write", "write-only"]


@dataclass(frozen=True)
class Register:
    """One register; ``words`` is 2 for a 64-bit value."""

    name: str
    offset: int
    access: Access
    doc: str
    words: int = 1


IDENTITY = 0x5745_4654
"""``WEFT`` in ASCII, what the ``ID`` register reads."""
VERSION = 1
"""Of the register map."""


@dataclass(frozen=True)
class Counter:
    """A 64-bit counter.

    ``group`` names the engine whose cycles the counters with ``partition`` divide among them:
    these sum to ``cycles``.
    """

    name: str
    group: str
    partition: bool
    unit: str
    doc: str


def _engine(group: str, busy: str, *stalls: tuple[str, str]) -> tuple[Counter, ...]:
    rows = (("busy", busy), *stalls)
    return tuple(Counter(f"{group}_{name}", group, True, "cycles", doc) for name, doc in rows)


_TOKEN = ("wait_token", "the next instruction waits for a dependence token, or for room to push")
_MEMORY = ("wait_memory", "the current instruction waits for DRAM: address, data or response")
_IDLE = ("idle", "no instruction is there")

# fmt: off
COUNTERS = (
    Counter("cycles", "run", False, "cycles", "from the launch to the end of the run"),
    Counter("instructions", "run", False, "instructions", "completed, FINISH included"),
    *_engine("load", "a beat, or padding, is written to a scratchpad", _TOKEN, _MEMORY, _IDLE),
    *_engine("compute", "a step of GEMM or ALU is issued",
             ("load", "an element is loaded into uop, acc or qnt"),
             ("drain", "the pipeline empties, fills or changes between instructions"),
             _TOKEN, _MEMORY, _IDLE),
    *_engine(
        "store", "accumulators are read, a beat is sent, or the oldest row goes to inp", _TOKEN,
        _MEMORY, _IDLE,
    ),
    Counter("gemm_steps", "compute", False, "steps", "steps of GEMM and MATMUL that multiply"),
    Counter("alu_steps", "compute", False, "steps", "steps of ALU"),
    Counter("read_bytes", "dram", False, "bytes", "read beats, whole bus widths"),
    Counter("write_bytes", "dram", False, "bytes", "written, by byte strobes"),
)
"""Every counter, in the order of their addresses."""

PARTITIONS = {
    engine.value: tuple(c.name for c in COUNTERS if c.partition and c.group == engine.value)
    for engine in Engine
}
"""The counters that divide an engine's cycles among them: they sum to ``cycles``."""

COUNTER_BASE = 0x100

REGISTERS = (
    Register("ID",        0x00, "read-only",  "0x57454654, WEFT"),
    Register("VERSION",   0x04, "read-only",  "of this map"),
    Register("SPEC",      0x08, "read-only",  "first 64 bits of the spec hash", 2),
    Register("CONTROL",   0x10, "write-only", "bit 0 launches; bit 1 clears done, fault, irq"),
    Register("STATUS",    0x14, "read-only",  "bit 0 running, bit 1 done, bit 2 fault"),
    Register("FAULT",     0x18, "read-only",  "code in bits 0 to 7, engine in 8 to 9 (fetch, load, "
                                              "compute, store)"),
    Register("FAULT_INDEX", 0x1C, "read-only", "position of the instruction in the stream"),
    Register("WAITING",   0x20, "read-only",  "for a deadlock: who waits for what, a bit each"),
    Register("COUNT",     0x24, "read-write", "instructions in the stream"),
    Register("ADDRESS",   0x28, "read-write", "byte address of the stream, a multiple of 16"),
    *(Register(counter.name.upper(), COUNTER_BASE + 8 * i, "read-only", counter.doc, 2)
      for i, counter in enumerate(COUNTERS)),
)
"""The whole map."""
# fmt: on


def register(name: str) -> Register:
    """The register of that name; ``KeyError`` if there is none."""
    for candidate in REGISTERS:
        if candidate.name == name:
            return candidate
    raise KeyError(name)


def misattributed(counters: Mapping[str, int]) -> str | None:
    """What is wrong if the counters do not attribute every cycle of every engine; else None."""
    for engine, names in PARTITIONS.items():
        total = sum(counters[name] for name in names)
        if total != counters["cycles"]:
            return f"{total} cycles of {engine} are attributed, of {counters['cycles']}"
    return None
