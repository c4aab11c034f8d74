"""Registers that a simulator touches only where they change.

yosys writes a register as a combinational block that computes its next value and a clocked one
that takes it: a simulator then moves every register in every cycle, twice. Here the first block is
clocked itself. It assigns the register, and nothing where that keeps its value.
"""

from __future__ import annotations

import re

_NAME = r"(?:\\\S+ ?|[A-Za-z_]\w*)"
_MODULE = re.compile(r"^module .*?^endmodule\n", re.MULTILINE | re.DOTALL)
_TAKES = re.compile(rf"^  always_ff @\(posedge clk\)\n    ({_NAME}) <= \\(\$\d+) ;\n", re.MULTILINE)
_COMPUTES = re.compile(r"^  always_comb begin\n((?:    .*\n)*?)  end\n", re.MULTILINE)
_ASSIGNS = re.compile(r"^( +)\\(\$\d+)  ((?:\[[\d:]+\] )?)= (.*);\n", re.MULTILINE)
_NEXT = re.compile(r"\\(\$\d+) ")


def clock(verilog: str) -> str:
    """Verilog as yosys writes it, its registers assigned where their next values are computed."""
    return _MODULE.sub(lambda match: _clocked(match[0]), verilog)


def _clocked(module: str) -> str:
    uses: dict[str, int] = {}
    for name in _NEXT.findall(module):
        uses[name] = uses.get(name, 0) + 1
    registers = {name: register for register, name in _TAKES.findall(module)}
    gone = set()

    def computes(block: re.Match[str]) -> str:
        body = block[1]
        assigned = [name for _, name, _, _ in _ASSIGNS.findall(body)]
        name = assigned[0] if assigned else None
        # Beside the assignments: its declaration, and where the register takes it.
        if name not in registers or {*assigned} != {name} or uses[name] != len(assigned) + 2:
            return block[0]
        gone.add(name)
        register = registers[name].strip()
        register += " " * register.startswith("\\")

        def assign(found: re.Match[str]) -> str:
            indent, _, part, value = found.groups()
            if not part and value.strip() == register.strip() and indent == "    ":
                return ""
            return f"{indent}{register}{part} <= {value};\n"

        return f"  always_ff @(posedge clk) begin\n{_ASSIGNS.sub(assign, body)}  end\n"

    module = _COMPUTES.sub(computes, module)
    module = _TAKES.sub(lambda takes: "" if takes[2] in gone else takes[0], module)
    return re.sub(
        r"^  reg (?:\[\d+:0\] )?\\(\$\d+) ;\n",
        lambda reg: "" if reg[1] in gone else reg[0],
        module,
        flags=re.MULTILINE,
    )
