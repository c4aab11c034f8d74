"""What is done to netlists of an ECP5 before and after they are placed: fewer, shorter wires."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CELLS = {"lut": "LUT4", "carry": "CCU2C", "ff": "TRELLIS_FF", "dsp": "MULT18X18D",
         "block_ram": "DP16KD", "lut_ram": "TRELLIS_DPR16X4"}  # fmt: skip
"""What is counted, and its cell."""
MULTIPLIER, OPERAND, PRODUCT = CELLS["dsp"], 18, 36
"""The cell, and the bits of its operands and of its product."""
REGISTER = CELLS["ff"]
CLOCKS = frozenset(("CLK", "CLK0", "CLKA", "CLKB", "WCK"))
"""Pins of the clock, which has wires of its own."""
CONTROL = CLOCKS | {"CE", "LSR", "WRE"}
"""Pins that neighbouring cells share."""
BEL, LOCKED = "NEXTPNR_BEL", 5
"""The attribute with a cell's place, and how firmly it is there."""
MANY, WIDE, LEAST = 24, 40, 8
"""Readers that a register has before it is copied, tiles around them, readers of a copy."""

TABLE = CELLS["lut"]
KEEPER, TABLES = "room_", 2
"""How the names of cells that keep room begin, and to how many tables there is one at most."""

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


def keep_room(netlist: Mapping[str, Any], most: int) -> None:
    """Adds cells that are only there to be placed; changes what yosys has written.

    The placer packs cells as closely as they go, into half of a device, where there are not wires
    enough then. Here one table in :data:`TABLES` gets another one beside it, which reads it and is
    read by nobody; fewer do if that were more than ``most``. :func:`free_room` takes them away, and
    what is left lies further apart.
    """
    for module in netlist["modules"].values():
        first = _unused(module)
        tables = [cell for cell in module["cells"].values() if cell["type"] == TABLE]
        every = max(TABLES, -(-len(tables) // most)) if most > 0 else len(tables) + 1
        for number, cell in enumerate(tables[every - 1 :: every]):
            module["cells"][f"{KEEPER}{every * (number + 1)}"] = {
                "hide_name": 0, "type": TABLE, "parameters": {"INIT": 16 * "0"},
                "attributes": {"keep": "1"}, "port_directions": {"A": "input", "Z": "output"},
                "connections": {"A": cell["connections"]["Z"], "Z": [first + number]},
            }  # fmt: skip


def free_room(placement: Mapping[str, Any]) -> None:
    """Takes the cells that kept room from a placement that nextpnr has written."""
    for module in placement["modules"].values():
        for name in [name for name in module["cells"] if name.startswith(KEEPER)]:
            del module["cells"][name]


def _unused(module: Mapping[str, Any]) -> int:
    """The first wire that there is not, nor any after it."""
    pins = (
        bit for cell in module["cells"].values() for p in cell["connections"].values() for bit in p
    )
    nets = (bit for net in module["netnames"].values() for bit in net["bits"])
    return 1 + max((bit for bit in (*pins, *nets) if isinstance(bit, int)), default=1)


def place_of(cell: Mapping[str, Any]) -> tuple[int, int] | None:
    """Column and row of a cell, if it has a place."""
    found = re.match(r"X(\d+)/Y(\d+)/", cell["attributes"].get(BEL, ""))
    return (int(found[1]), int(found[2])) if found else None


def copy_far(placement: Mapping[str, Any]) -> None:
    """Gives registers whose readers are far apart copies of themselves, each near some of them;
    changes a placement that nextpnr has written.

    What has a place keeps it; the copies have none yet. Readers are halved along the longer side
    of the box around them until it is small. A register whose value comes late is copied, too: the
    router sees to it that what it waits for reaches the copies first. Control pins read the
    register itself, since neighbours share them.
    """
    for module in placement["modules"].values():
        cells, wires = module["cells"], _Wires(module)
        for cell in cells.values():
            if BEL in cell["attributes"]:
                cell["attributes"]["BEL_STRENGTH"] = f"{LOCKED:032b}"
        for name, cell in [(n, c) for n, c in cells.items() if c["type"] == REGISTER]:
            readers = wires.readers.get(cell["connections"]["Q"][0], [])
            near = [r for r in readers if r[1] not in CONTROL]
            if len(near) < MANY or wires.spread(near) <= WIDE:
                continue
            _, *others = sorted(wires.halved(near), key=lambda g: wires.distance(name, g))
            for group in others:
                wires.copy(name, group)


class _Wires:
    """Who reads the wires of a placed module, and where."""

    def __init__(self, module: Mapping[str, Any]):
        self.module, self.cells = module, module["cells"]
        self.readers = _readers(module)
        self._unused = _unused(module)

    def place(self, name: str) -> tuple[int, int]:
        """Column and row of a cell."""
        found = place_of(self.cells[name])
        assert found, name
        return found

    def sides(self, readers: list[Reader]) -> tuple[int, int]:
        """Columns and rows of the box around some cells, less one each."""
        columns, rows = zip(*(self.place(name) for name, _, _ in readers), strict=True)
        return max(columns) - min(columns), max(rows) - min(rows)

    def spread(self, readers: list[Reader]) -> int:
        """Half of what leads around that box."""
        return sum(self.sides(readers))

    def distance(self, name: str, readers: list[Reader]) -> float:
        """Of a cell from readers, on the average."""
        column, row = self.place(name)
        places = [self.place(reader) for reader, _, _ in readers]
        return sum(abs(x - column) + abs(y - row) for x, y in places) / len(places)

    def halved(self, readers: list[Reader]) -> list[list[Reader]]:
        """Groups of readers that are near one another."""
        columns, rows = self.sides(readers)
        if columns + rows <= WIDE or len(readers) < 2 * LEAST:
            return [readers]
        axis = int(rows > columns)
        ordered = sorted(readers, key=lambda r: (self.place(r[0])[axis], r))
        half = len(ordered) // 2
        return self.halved(ordered[:half]) + self.halved(ordered[half:])

    def copy(self, name: str, readers: list[Reader]) -> None:
        """A copy of a register for some of its readers, without a place."""
        cell = self.cells[name]
        kept = {k: v for k, v in cell["attributes"].items() if k not in (BEL, "BEL_STRENGTH")}
        pins, ways = {**cell["connections"]}, {**cell["port_directions"]}
        parameters = {**cell["parameters"]}
        if "DI" in pins:  # only the table beside a register reaches this pin
            pins["M"], ways["M"], parameters["SD"] = pins.pop("DI"), ways.pop("DI"), "0"
        bit, made = self._unused, f"{name}_COPY_{self._unused}"
        self._unused += 1
        pins["Q"] = [bit]
        self.cells[made] = {
            **cell, "parameters": parameters, "attributes": kept, "port_directions": ways,
            "connections": pins,
        }  # fmt: skip
        self.module["netnames"][made] = {"hide_name": 1, "bits": [bit], "attributes": {}}
        for reader, pin, n in readers:
            self.cells[reader]["connections"][pin][n] = bit


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
