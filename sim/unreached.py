"""Lines of the RTL that no program executes, and why that is no gap: all of them, in one table.

``python -m tests.coverage`` fails on a line that is neither executed nor in here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """``text`` is why lines of ``unit`` are not executed whose Verilog ``pattern`` finds.

    ``pattern`` is looked for in the line's source, module and text.
    """

    unit: str
    pattern: str
    text: str


REASONS = (
    Reason(
        "dispatch",
        r"decoder: .* of the constant 1$",
        "FINISH is chosen by its opcode alone",
    ),
    Reason(
        "queue",
        r"weft_read_port_merged_0_fifo:",
        "fetch asks for 2^16 beats at once, so that its requests never fill a queue",
    ),
)
"""The first that fits counts."""


def reason(unit: str, source: str, verilog: str) -> str | None:
    """Why a line need not be executed; None if nobody has said."""
    for candidate in REASONS:
        if candidate.unit == unit and re.search(candidate.pattern, f"{source} {verilog}"):
            return candidate.text
    return None
