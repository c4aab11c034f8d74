"""Why a device stops: the codes, and the faults that an instruction word alone shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from .errors import DeviceFault
from .formats import INSTRUCTION_BYTES
from .instructions import InstructionSet
from .memories import Engine
from .operations import Operation


class FaultCode(IntEnum):
    """The ``FAULT`` register's code. 0 means none."""

    NONE = 0
    RESERVED = 1
    """A reserved opcode, memory type, ALU opcode or mode, or a reserved field that is not 0."""
    STORE_PAD = 2
    """A STORE with padding."""
    TOKEN_ROUTE = 3
    """A token from or to an engine that does not exist: load has no previous, store no next."""
    SRAM_RANGE = 4
    """An index beyond its scratchpad."""
    BUS_READ = 5
    """DRAM answered a read with an error."""
    BUS_WRITE = 6
    """DRAM answered a write with an error."""
    DEADLOCK = 7
    """Every engine that has work waits for a token that nobody will send."""
    NO_FINISH = 8
    """The stream has ended, every engine is idle, and FINISH was not among its instructions."""


FAULT_TEXT = {
    FaultCode.RESERVED: "reserved encoding",
    FaultCode.STORE_PAD: "a store with padding",
    FaultCode.TOKEN_ROUTE: "a dependence flag towards an engine that does not exist",
    FaultCode.SRAM_RANGE: "a scratchpad index out of range",
    FaultCode.BUS_READ: "the bus answered a read with an error",
    FaultCode.BUS_WRITE: "the bus answered a write with an error",
    FaultCode.DEADLOCK: "deadlock",
    FaultCode.NO_FINISH: "the stream ended without FINISH",
}

ENGINE_NAMES = ("fetch", "load", "compute", "store")
"""As the ``FAULT`` register numbers them."""

WAITS = (
    ("load", "pop_next", "load waits for a token from compute"),
    ("compute", "pop_prev", "compute waits for a token from load"),
    ("compute", "pop_next", "compute waits for a token from store"),
    ("store", "pop_prev", "store waits for a token from compute"),
    ("load", "push_next", "load waits for room in the queue to compute"),
    ("compute", "push_prev", "compute waits for room in the queue to load"),
    ("compute", "push_next", "compute waits for room in the queue to store"),
    ("store", "push_prev", "store waits for room in the queue to compute"),
)
"""What an engine can wait for, by the bit of the ``WAITING`` register: engine, flag, sentence."""


@dataclass(frozen=True)
class ZeroRule:
    """``fields`` of the operations for which ``applies`` holds must be 0, else ``code``."""

    code: FaultCode
    applies: Callable[[Operation], bool]
    fields: tuple[str, ...]


ZERO_RULES = (
    ZeroRule(FaultCode.RESERVED, lambda o: o.name == "store.nop", ("x_size",)),
    ZeroRule(
        FaultCode.STORE_PAD,
        lambda o: o.format.name == "STORE",
        ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"),
    ),
    ZeroRule(FaultCode.TOKEN_ROUTE, lambda o: o.engine is Engine.LOAD, ("pop_prev", "push_prev")),
    ZeroRule(FaultCode.TOKEN_ROUTE, lambda o: o.engine is Engine.STORE, ("pop_next", "push_next")),
)
"""What an instruction word that selects an operation may still not say, in the order of checks."""


def static_fault(instructions: InstructionSet, word: int) -> tuple[Operation | None, FaultCode]:
    """The operation of a 128-bit word and the fault that decoding it raises.

    A word that selects no operation is RESERVED; otherwise the first broken rule of
    :data:`ZERO_RULES` counts.
    """
    operation = instructions.operation_of(word)
    if operation is None:
        return None, FaultCode.RESERVED
    values = instructions.layouts[operation.format.opcode].decode(word)
    for rule in ZERO_RULES:
        if rule.applies(operation) and any(values[name] for name in rule.fields):
            return operation, rule.code
    return operation, FaultCode.NONE


def device_fault(code: FaultCode, engine: str, index: int, waiting: int = 0) -> DeviceFault:
    """The exception for a fault; ``waiting`` has a bit for each of :data:`WAITS`."""
    waits = tuple(text for bit, (_, _, text) in enumerate(WAITS) if waiting >> bit & 1)
    text = FAULT_TEXT[code]
    if code is FaultCode.DEADLOCK:
        message = f"{text}: {'; '.join(waits) or 'no engine can go on'}"
    elif code is FaultCode.NO_FINISH:
        message = text
    else:
        message = f"{text} (instruction {index} at +{index * INSTRUCTION_BYTES:#x}, {engine})"
    return DeviceFault(message, code=int(code), engine=engine, index=index, waiting=waits)
