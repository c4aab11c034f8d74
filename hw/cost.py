"""What a configuration costs before any technology: bits of registers, adders, multiplexers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from ..isa.config import AcceleratorConfig
from .accelerator import Accelerator
from .verilog import TOP, rtlil_of, run_yosys

KINDS = ("multipliers", "adder_bits", "mux_bits", "logic_bits", "register_bits", "memory_bits")
"""What is counted. A multiplier of one bit is none; an adder has the bits of its result."""

_KIND_OF = {
    **dict.fromkeys(("$add", "$sub", "$neg", "$lt", "$le", "$ge", "$gt"), "adder_bits"),
    **dict.fromkeys(("$mux", "$pmux", "$bmux", "$shiftx", "$shl", "$shr", "$sshr"), "mux_bits"),
}


def cost(config: AcceleratorConfig) -> dict[str, dict[str, int]]:
    """:data:`KINDS` of every part of the accelerator, and of all as ``total``.

    Made from the netlist that the Verilog is made from, with constants folded.
    """
    netlist = rtlil_of(Accelerator(config), TOP)
    script = "proc; opt_expr; opt_merge; opt_clean; memory_collect; opt_clean; write_json"
    text = run_yosys(f"read_rtlil <<rtlil\n{netlist}\nrtlil\n{script}")
    modules = json.loads(text[text.index("{") :])["modules"]
    parts: dict[str, Counter[str]] = {"total": Counter()}
    for name, module in modules.items():
        part = name.removeprefix(TOP).strip("_") or "(top)"
        above = [p for p in _parts(modules) if part == p or part.startswith(f"{p}_")]
        counts = Counter[str]()
        for cell in module["cells"].values():
            _count(cell, counts)
        for one in ("total", max(above, key=len) if above else part):
            parts.setdefault(one, Counter()).update(counts)
    return {
        part: {kind: counts[kind] for kind in KINDS}
        for part, counts in sorted(parts.items(), key=lambda row: (row[0] != "total", row[0]))
        if counts
    }


def _parts(modules: Mapping[str, Mapping]) -> set[str]:
    """The submodules of the top."""
    types = (cell["type"] for cell in modules[TOP]["cells"].values())
    return {kind.removeprefix(f"{TOP}_") for kind in types if kind.startswith(f"{TOP}_")}


def _count(cell: Mapping, counts: Counter[str]) -> None:
    kind, numbers = cell["type"], {k: _int(v) for k, v in cell["parameters"].items()}
    width = numbers.get("Y_WIDTH", numbers.get("WIDTH", 0))
    if not kind.startswith("$"):
        return
    if kind == "$mul":
        counts["multipliers"] += min(numbers["A_WIDTH"], numbers["B_WIDTH"]) > 1
    elif kind.startswith("$mem"):
        counts["memory_bits"] += numbers["SIZE"] * numbers["WIDTH"]
    elif "dff" in kind or kind == "$ff":
        counts["register_bits"] += width
    elif kind in _KIND_OF:
        counts[_KIND_OF[kind]] += max(width, numbers.get("A_WIDTH", 0) * (width == 1))
    else:
        counts["logic_bits"] += width


def _int(parameter: str | int) -> int:
    if isinstance(parameter, int):
        return parameter
    return int(parameter, 2) if parameter and set(parameter) <= {"0", "1"} else 0
