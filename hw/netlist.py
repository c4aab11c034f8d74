"""What is done to yosys's netlist of an ECP5 before it is placed: fewer wires, and shorter ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

CELLS = {"lut": "LUT4", "carry": "CCU2C", "ff": "TRELLIS_FF", "dsp": "MULT18X18D",
         "block_ram": "DP16KD", "lut_ram": "TRELLIS_DPR16X4"}  # fmt: skip
"""What is counted, and its cell."""
MULTIPLIER, OPERAND, PRODUCT = CELLS["dsp"], 18, 36
"""The cell, and the bits of its operands and of its product."""
REGISTER = CELLS["ff"]
READERS = 64
"""Of a register at most; one with more is copied."""

Reader = tuple[str, str, int]
"""A cell, its pin, and which bit of it; names are empty for a port of the module."""


def _readers(module: Mapping[str, Any]) -> dict[int | str, list[Reader]]:
    """Who reads each wire."""
    readers: dict[int | str, list[Reader]] = {}
    for name, cell in module["cells"].items():
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "input":
                for n, bit in enumerate(bits):
                    readers.setdefault(bit, []).append((name, pin, n))
    for bits in (port["bits"] for port in module["ports"].values()):
        for n, bit in enumerate(bits):
            readers.setdefault(bit, []).append(("", "", n))
    return readers


def copy_registers(netlist: Mapping[str, Any]) -> None:
    """Gives registers that many read copies of themselves, so that each has few readers; changes
    what yosys has written.

    Readers whose names follow one another, as those of neighbouring bits do, share a copy, which
    the placer can put near them.
    """
    for module in netlist["modules"].values():
        cells, readers = module["cells"], _readers(module)
        wires = [bit for net in module["netnames"].values() for bit in net["bits"]]
        unused = 1 + max((bit for bit in (*readers, *wires) if isinstance(bit, int)), default=1)
        for name, cell in [(n, c) for n, c in cells.items() if c["type"] == REGISTER]:
            for found in _groups(readers.get(cell["connections"]["Q"][0], []))[1:]:
                copied = f"{name}_COPY_{unused}"
                cells[copied] = {**cell, "connections": {**cell["connections"], "Q": [unused]}}
                module["netnames"][copied] = {
                    "hide_name": 1, "bits": [unused], "attributes": {},
                }  # fmt: skip
                for reader, pin, n in found:
                    bits = cells[reader]["connections"][pin]
                    cells[reader]["connections"][pin] = [*bits[:n], unused, *bits[n + 1 :]]
                unused += 1


def _groups(readers: list[Reader]) -> list[list[Reader]]:
    """Groups of at most :data:`READERS`, as even as can be; ports are in the first one."""
    ordered = sorted(readers, key=lambda reader: [_numbered(reader[0]), *reader[1:]])
    count = -(-len(readers) // READERS)
    ends = [len(readers) * k // count for k in range(count + 1)] if count else []
    return [ordered[a:b] for a, b in pairwise(ends)]


def _numbered(name: str) -> list[str | int]:
    """A name such that numbers in it are in order."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


def shape_multipliers(netlist: Mapping[str, Any]) -> None:
    """Makes yosys's multipliers such that they take fewer wires; changes what it has written.

    Narrow operands go to the upper bits, and so does what is used of their products. Yosys extends
    them by their signs, and each copy is a wire to a row of multipliers that is full of wires; the
    zeros below an operand that has been moved are none: constants are set within the block.
    Registers that take all of a product, and are only that, become the block's own.
    """
    for module in netlist["modules"].values():
        cells, readers = module["cells"], _readers(module)
        for cell in [cell for cell in cells.values() if cell["type"] == MULTIPLIER]:
            _align(cell["connections"], readers)
            _register(cell, cells, readers)


def _align(pins: dict[str, list], readers: Mapping) -> None:
    """Moves the operands of a multiplier, whose pins these are, as far as its product can."""
    product = [pins.get(f"P{n}", []) for n in range(PRODUCT)]
    for side in "AB":
        bits = [pins[f"{side}{n}"] for n in range(OPERAND)]
        copies = next((n for n in range(OPERAND) if bits[OPERAND - 2 - n] != bits[-1]), 0)
        if pins[f"SIGNED{side}"] != ["1"] or not isinstance(bits[-1][0], int) or not copies:
            continue
        if any(bit in readers for bits in product[PRODUCT - copies :] for bit in bits):
            continue
        bits = [["0"]] * copies + bits[: OPERAND - copies]
        product = [[]] * copies + product[: PRODUCT - copies]
        pins |= {f"{side}{n}": bit for n, bit in enumerate(bits)}
    pins |= {f"P{n}": bit for n, bit in enumerate(product)}


def _register(multiplier: dict, cells: dict[str, dict], readers: Mapping) -> None:
    """Takes the registers of a product into its multiplier, if all that is used has one."""
    pins = multiplier["connections"]
    used = {n: readers[bit] for n in range(PRODUCT) for bit in pins[f"P{n}"] if bit in readers}
    names = {n: found[0][0] for n, found in used.items() if len(found) == 1}
    registers = {n: cells[name] for n, name in names.items() if name and _is_plain(cells[name])}
    if not used or len(registers) < len(used):
        return
    (clock,) = {register["connections"]["CLK"][0] for register in registers.values()}
    pins |= {f"P{n}": register["connections"]["Q"] for n, register in registers.items()}
    for pin, value in {"CLK0": clock, "CE0": "1", "RST0": "0"}.items():
        pins[pin] = [value]
        multiplier["port_directions"][pin] = "input"
        multiplier["parameters"][f"REG_OUTPUT_{pin[:-1]}"] = pin
    for name in names.values():
        del cells[name]


def _is_plain(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is a register that follows its input in every cycle."""
    parameters, pins = cell.get("parameters", {}), cell["connections"]
    return (
        cell["type"] == REGISTER
        and parameters.get("CEMUX", "CE").strip() == "1"
        and parameters.get("CLKMUX", "CLK") == "CLK"
        and parameters.get("REGSET", "RESET") == "RESET"
        and pins.get("LSR", ["0"]) == ["0"]
        and len(pins.get("DI", [])) == 1
    )
