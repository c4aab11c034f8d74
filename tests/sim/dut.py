"""A machine with Weft's pins that a test commands at will; ``dut.v`` says what it does."""

from __future__ import annotations

import struct
from pathlib import Path

from weft.isa.registers import IDENTITY, REGISTERS, VERSION

OPERATIONS = ("FINISH", "READ", "WRITE", "BOTH", "SPIN", "FAULTS", "BREAK")
"""By their codes, from 0."""
BREAKS = (
    "AR_CHANGES",
    "AR_DROPS",
    "FIXED",
    "NARROW",
    "LAST_EARLY",
    "LAST_MISSING",
    "W_CHANGES",
    "ANSWERS_UNASKED",
    "NEVER_ANSWERS",
    "VALID_IN_RESET",
    "FINISH_EARLY",
    "ANSWER_IN_RESET",
    "LOSES_A_CYCLE",
)
"""The rules that it can be told to break, by their codes, from 1."""


def verilog(bus: int, spec: int = 0) -> str:
    """The machine with a bus of that many bytes, 8 or 16, and a spec hash to show."""
    macros = {register.name: f"12'h{register.offset:x}" for register in REGISTERS}
    macros |= {name: str(code) for code, name in enumerate(OPERATIONS)}
    macros |= {name: str(code) for code, name in enumerate(BREAKS, 1)}
    macros |= {
        "BUS": str(bus),
        "IDENTITY": f"32'h{IDENTITY:x}",
        "VERSION_VALUE": str(VERSION),
        "SPEC_LOW": f"32'h{spec & 0xFFFFFFFF:x}",
        "SPEC_HIGH": f"32'h{spec >> 32:x}",
    }
    lines = [f"`define {name} {value}\n" for name, value in macros.items()]
    return "".join(lines) + Path(__file__).with_name("dut.v").read_text()


def _word(
    name: str, beats: int = 1, bursts: int = 0, source: int = 0, target: int = 0, value: int = 0
) -> bytes:
    return struct.pack(
        "<BBHIII", OPERATIONS.index(name), beats - 1, bursts, source, target, value
    )  # fmt: skip


FINISH = _word("FINISH")


def read(address: int, beats: int, bursts: int = 1) -> bytes:
    """Consecutive bursts into the buffer, ids in turn."""
    return _word("READ", beats, bursts, source=address)


def write(address: int, beats: int, bursts: int = 1, strobe: int = 0) -> bytes:
    """Consecutive bursts from the buffer; ``strobe`` for every beat, 0 for all bytes."""
    return _word("WRITE", beats, bursts, target=address, value=strobe)


def both(source: int, target: int, beats: int, bursts: int = 1) -> bytes:
    """A read and a write of the buffer's old contents at the same time."""
    return _word("BOTH", beats, bursts, source, target)


def spin(cycles: int) -> bytes:
    """Do nothing for a while."""
    return _word("SPIN", value=cycles)


def fault(code: int, waiting: int = 0) -> bytes:
    """Stop with a fault."""
    return _word("FAULTS", code + 1, value=waiting)


def break_rule(name: str) -> bytes:
    """Break a rule from now on."""
    return _word("BREAK", value=BREAKS.index(name) + 1)
