"""Arithmetic that a simulator computes only in the cycles in which its result is used.

A simulator of Verilog evaluates every ``assign`` in every cycle. In a combinational module whose
output is 0 unless a condition holds, all that only the output depends on may as well stand within
the branch: the same function, and nothing to do while the unit is idle.
"""

from __future__ import annotations

import re

NAME = "arithmetic"
"""Submodules of this name are rewritten. Their one output is 0 or, in one branch, a value."""

OPAQUE = "/*verilator public_flat_rw*/"
"""On the output; without it Verilator makes an expression of the branch again."""

_PART = r"(?:\[\d+(?::\d+)?\])"
_IDENTIFIER = r"(?:\\\S+|[A-Za-z_]\w*)"
_MODULE = re.compile(rf"^module [^\n]*_{NAME} ?\(.*?^endmodule\n", re.MULTILINE | re.DOTALL)
_ASSIGN = re.compile(
    rf"^  assign ({_IDENTIFIER}) ?({_PART}?) ?= (.*?);\n", re.MULTILINE | re.DOTALL
)
_WIRE = re.compile(rf"^  wire ({_PART}? ?)({_IDENTIFIER}) ?;\n", re.MULTILINE)
_REG = re.compile(rf"^(  reg {_PART}? ?{_IDENTIFIER} ?);\n", re.MULTILINE)
_BRANCH = re.compile(
    r"^  always_comb begin\n"
    r"    (?P<clear>.*?;)\n"
    r"    if \((?P<condition>.*?)\) begin\n"
    r"      (?P<result>.*?;)\n"
    r"    end\n"
    r"  end\n",
    re.MULTILINE | re.DOTALL,
)
_NAMES = re.compile(rf"\d+'s?[bdh][\da-f]+|\$[a-z]+|({_IDENTIFIER})")

Assigns = dict[str, list[tuple[str, str]]]
"""By the name on the left: the parts that are assigned and their values."""


def sink(verilog: str) -> str:
    """Verilog as yosys writes it, with the modules called :data:`NAME` rewritten."""
    return _MODULE.sub(lambda match: _sunk(match[0]), verilog)


def _sunk(module: str) -> str:
    (branch,) = _BRANCH.finditer(module)
    assigns: Assigns = {}
    for name, part, value in _ASSIGN.findall(module):
        assigns.setdefault(name, []).append((part, value))
    widths = {name: width for width, name in _WIRE.findall(module)}

    outside = _needed(branch["condition"], assigns, ())
    inside = _needed(branch["result"], assigns, outside)
    gone = set(assigns) - set(outside)

    rest = _BRANCH.sub("", _ASSIGN.sub("", module)).removesuffix("endmodule\n")
    rest = _WIRE.sub(lambda wire: "" if wire[2] in gone else wire[0], rest)
    rest = _REG.sub(lambda reg: f"{reg[1]} {OPAQUE};\n", rest)
    return "".join(
        [
            rest,
            *_statements("  assign ", outside, assigns),
            f"  always_comb begin\n    {branch['clear']}\n",
            f"    if ({branch['condition']}) begin : used\n",
            *(f"      automatic logic {widths[name]}{name} ;\n" for name in inside),
            *_statements("      ", inside, assigns),
            f"      {branch['result']}\n    end\n  end\nendmodule\n",
        ]
    )


def _statements(before: str, names: list[str], assigns: Assigns) -> list[str]:
    return [
        f"{before}{name} {part} = {value};\n" for name in names for part, value in assigns[name]
    ]


def _needed(text: str, assigns: Assigns, known: list[str] | tuple[()]) -> list[str]:
    """The assigned names behind ``text``, but for the known, each after those behind itself."""
    seen, order = set(known), []
    pending = [(name, False) for name in _names_in(text)]
    while pending:
        name, complete = pending.pop()
        if complete:
            order.append(name)
        elif name in assigns and name not in seen:
            seen.add(name)
            pending.append((name, True))
            pending += [(n, False) for _, value in assigns[name] for n in _names_in(value)]
    return order


def _names_in(text: str) -> list[str]:
    return [name for name in _NAMES.findall(text) if name]
