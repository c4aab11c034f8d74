"""What the units say to each other: layouts derived from the instruction set, and signatures.

Every layout here follows from :mod:`weft.isa`; no width is typed a second time.
"""

from __future__ import annotations

from amaranth import signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.formats import FINISH, INSTRUCTION_BITS, Layout, uop_layout
from ..isa.instructions import InstructionSet

ADDRESS_BITS = 32
"""Of a DRAM byte address on the bus."""
INDEX_BITS = 32
"""Of an instruction's position in its stream."""


def struct_of(layout: Layout) -> data.FlexibleLayout:
    """An instruction format's layout for ``data.View``: the same fields at the same bits."""
    fields = {
        slot.name: data.Field((signed if slot.signed else unsigned)(slot.width), slot.lsb)
        for slot in layout.slots
    }
    return data.FlexibleLayout(layout.bits, fields)


def format_struct(config: AcceleratorConfig, opcode: int) -> data.FlexibleLayout:
    """The layout of the format with that opcode; KeyError if ``config`` does not admit it."""
    return struct_of(InstructionSet(config).layouts[opcode])


def uop_struct(config: AcceleratorConfig) -> data.FlexibleLayout:
    """The layout of a micro-op."""
    return struct_of(uop_layout(config))


HEAD_STRUCT = struct_of(FINISH.layout(AcceleratorConfig()))
"""The head of every instruction, opcode and dependence flags; FINISH has nothing else."""


class Activity(enum.Enum, shape=3):
    """What an engine does in a cycle; each engine is in exactly one state every cycle.

    The names are the suffixes of the counters in :data:`weft.isa.registers.COUNTERS`.
    """

    IDLE = 0
    BUSY = 1
    WAIT_TOKEN = 2
    WAIT_MEMORY = 3
    LOAD = 4
    DRAIN = 5


ISSUE = data.StructLayout({"word": INSTRUCTION_BITS, "index": INDEX_BITS})
"""An instruction on its way to an engine, statically legal, with its position."""


Issue = stream.Signature(ISSUE)
"""Instructions in program order; an engine takes one when it can start it."""

BOX = data.StructLayout(
    {
        "memory_type": 3,
        "sram_base": 16,
        "dram_base": 32,
        "y_size": 16,
        "x_size": 16,
        "x_stride": 16,
        "y_pad_0": 4,
        "y_pad_1": 4,
        "x_pad_0": 4,
        "x_pad_1": 4,
        "pad_value": signed(8),
        "index": INDEX_BITS,
    }
)
"""A transfer between DRAM and a scratchpad, the union of what LOAD, LOADX, STORE, STOREX say.

Box units treat ``x_size`` = 0 as an empty box that is done at once. ``index`` is the
instruction's, for faults.
"""

Token = wiring.Signature({"valid": Out(1), "ready": In(1)})
"""One dependence token passes in a cycle in which both are 1."""

Fault = wiring.Signature({"valid": Out(1), "code": Out(8), "index": Out(INDEX_BITS)})
"""``valid`` for a cycle or longer: the engine has met ``code`` in instruction ``index``."""


def write_signature(address_bits: int, data_bits: int, lanes: int) -> wiring.Signature:
    """Writes into a scratchpad, each in a cycle in which ``valid`` and ``ready`` are 1.

    ``mask`` has a bit for each of ``lanes`` equal parts of ``data``; a part whose bit is 0 is
    left as it is. ``data`` may hold several consecutive elements: those from ``address`` on, each
    in the place that the low bits of its own index say. ``ready`` may depend on ``address`` and
    ``mask``; where nothing drives it, it is 1.
    """
    return wiring.Signature(
        {
            "valid": Out(1),
            "ready": In(1, init=1),
            "address": Out(address_bits),
            "mask": Out(lanes),
            "data": Out(data_bits),
        }
    )


def read_signature(address_bits: int, data_bits: int) -> wiring.Signature:
    """Reads from a scratchpad, as the reader sees them.

    With ``enable`` in one cycle, ``data`` holds the element in the next and keeps it until the
    next enabled read.
    """
    return wiring.Signature({"enable": Out(1), "address": Out(address_bits), "data": In(data_bits)})


def deciding_read_signature(address_bits: int, data_bits: int, choices: int) -> wiring.Signature:
    """As :func:`read_signature`, for a reader that decides late at which address it reads.

    ``address`` is the one of ``among`` whose bit of ``choose`` is 1, the only one: what has to be
    known of the address may be found out of all of them while the reader decides.
    """
    choice = {"choose": Out(choices), "among": Out(address_bits).array(choices)}
    return wiring.Signature({**read_signature(address_bits, data_bits).members, **choice})


def read_ahead(address_bits: int) -> wiring.Signature:
    """What a reader is about to read, for those who let it go first."""
    return wiring.Signature({"enable": Out(1), "address": Out(address_bits)})


def yielding_read_signature(address_bits: int, data_bits: int) -> wiring.Signature:
    """Reads from a scratchpad by someone who lets others go first.

    As :func:`read_signature`, but ``enable`` may be 1 only while ``ready`` is, which may depend on
    ``address``; where nothing drives it, it is 1.
    """
    members = read_signature(address_bits, data_bits).members
    return wiring.Signature({**members, "ready": In(1, init=1)})


def input_signature(config: AcceleratorConfig) -> wiring.Signature:
    """Reads from the INP scratchpad, as the reader sees them.

    As :func:`read_signature`; with ``following``, which is there with ``neighbours``, ``data``
    holds as many elements from ``address`` on, the first in its lowest bits. Without, its other
    elements are arbitrary.
    """
    bits = 8 * config.inp_element_bytes * config.neighbours
    more = {"following": Out(1)} if config.neighbours > 1 else {}
    one = {"enable": Out(1), "address": Out(config.inp_index_bits), "data": In(bits)}
    return wiring.Signature(one | more)


__all__ = [
    "ADDRESS_BITS",
    "BOX",
    "HEAD_STRUCT",
    "INDEX_BITS",
    "ISSUE",
    "Activity",
    "Fault",
    "In",
    "Issue",
    "Out",
    "Token",
    "deciding_read_signature",
    "format_struct",
    "input_signature",
    "read_ahead",
    "read_signature",
    "struct_of",
    "uop_struct",
    "write_signature",
    "yielding_read_signature",
]
