"""What a step does, decoded."""

from __future__ import annotations

from amaranth import signed
from amaranth.lib import data

OPERATION = data.StructLayout(
    {
        "multiply": 1,
        "accumulate": 1,
        "depthwise": 1,
        "alu": 1,
        "alu_opcode": 3,
        "use_imm": 1,
        "imm": signed(16),
    }
)
"""``multiply``: the matrix unit's sums, added to ``acc[dst]`` if ``accumulate``, channel by channel
over neighbouring elements if ``depthwise``. ``alu``: the ALU's operation. Neither: zeros."""
