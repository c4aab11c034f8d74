"""Sums and products that are no wider than what is looked at.

A simulator of Verilog computes every bit of a wire, and in 64 bits what has 33. Where only low
bits of a sum, a difference or a product are used, and the high ones would be, the wire may as well
end below them: low bits do not depend on higher ones.
"""

from __future__ import annotations

import re

_MODULE = re.compile(r"^module .*?^endmodule\n", re.MULTILINE | re.DOTALL)
_SUM = re.compile(r"^  assign \\(\$\d+)  = [^;?<>=/%&|~^]*? [-+*] [^;?<>=/%&|~^]*;$", re.MULTILINE)
_WIRE = re.compile(r"^  wire \[(\d+):0\] \\(\$\d+) ;$", re.MULTILINE)
_USE = re.compile(r"\\(\$\d+) (?:\[(\d+)(?::\d+)?\])?")


def narrow(verilog: str) -> str:
    """Verilog as yosys writes it, with wires of its own narrower where they may be."""
    return _MODULE.sub(lambda match: _narrowed(match[0]), verilog)


def _narrowed(module: str) -> str:
    widths = {name: int(high) + 1 for high, name in _WIRE.findall(module)}
    uses: dict[str, list[str]] = {}
    for name, high in _USE.findall(_WIRE.sub("", module)):
        uses.setdefault(name, []).append(high)

    def wire(found: re.Match[str]) -> str:
        # Assigned as a whole, once, and then looked at in parts.
        parts = [int(high) + 1 for high in uses.get(found[2], []) if high]
        if found[2] not in sums or not parts or len(parts) + 1 < len(uses[found[2]]):
            return found[0]
        return f"  wire [{min(max(parts), widths[found[2]]) - 1}:0] \\{found[2]} ;"

    sums = set(_SUM.findall(module))
    return _WIRE.sub(wire, module)
