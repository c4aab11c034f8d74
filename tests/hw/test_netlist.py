"""Netlists before they are placed: they compute what yosys's do."""

from __future__ import annotations

import pytest

from weft.hw.netlist import (
    BEL,
    LEAST,
    LOCKED,
    MANY,
    MULTIPLIER,
    OPERAND,
    PRODUCT,
    REGISTER,
    TABLE,
    TABLES,
    WIDE,
    copy_far,
    free_room,
    keep_room,
    shape_multipliers,
)


def multiplier(a: list, b: list, signed: str, product: int) -> dict:
    """A cell whose operands are these nets and whose product begins at net 100."""
    bits = {"A": a, "B": b, "P": range(100, 100 + product)}
    pins = {f"{side}{n}": [bit] for side, nets in bits.items() for n, bit in enumerate(nets)}
    pins |= {"SIGNEDA": [signed], "SIGNEDB": [signed]}
    ways = {name: "output" if name[0] == "P" else "input" for name in pins}
    return {
        "type": MULTIPLIER, "parameters": {}, "connections": pins, "port_directions": ways,
    }  # fmt: skip


def narrow(first: int, bits: int) -> list:
    """An operand of so many bits, extended by its sign."""
    return [first + min(n, bits - 1) for n in range(OPERAND)]


def of_pins(pins: dict, side: str, bits: int, nets: dict) -> int:
    """The number at a port, from the values of the nets, two's complement if ``SIGNED``."""
    values = [nets.get(bit, int(bit == "1")) for n in range(bits) for bit in pins[f"{side}{n}"]]
    number = sum(value << n for n, value in enumerate(values))
    return number - (values[-1] << bits) * (pins[f"SIGNED{side}"] == ["1"])


@pytest.mark.parametrize(("a", "b", "used"), [(8, 8, 16), (4, 8, 12), (8, 18, 26), (5, 9, 36)])
def test_narrow_operands_go_to_the_upper_bits_and_the_product_stays(a, b, used):
    """Where their signs are looked at beyond the product, what has no place there stays."""
    before = multiplier(narrow(2, a), narrow(50, b), "1", PRODUCT)
    names = [f"R{n}" for n in range(used)]
    reader = {
        "type": "R",
        "connections": {name: [100 + n] for n, name in enumerate(names)},
        "port_directions": dict.fromkeys(names, "input"),
    }
    cell = {**before, "connections": dict(before["connections"])}
    shape_multipliers({"modules": {"top": {"ports": {}, "cells": {"m": cell, "r": reader}}}})
    pins = cell["connections"]
    if used < PRODUCT:
        assert sum(pins[f"A{n}"] == ["0"] for n in range(OPERAND)) == OPERAND - a
        assert sum(pins[f"B{n}"] == ["0"] for n in range(OPERAND)) == OPERAND - b
    else:
        assert pins == before["connections"]
    for x, y in ((-(1 << (a - 1)), -(1 << (b - 1))), (-3, 5), (7, -1), ((1 << (a - 1)) - 1, 6)):
        nets = {2 + n: x >> n & 1 for n in range(a)} | {50 + n: y >> n & 1 for n in range(b)}
        product = of_pins(pins, "A", OPERAND, nets) * of_pins(pins, "B", OPERAND, nets)
        at = {bit: n for n in range(PRODUCT) for bit in pins[f"P{n}"]}
        assert [product >> at[100 + n] & 1 for n in range(used)] == [
            x * y >> n & 1 for n in range(used)
        ]


def test_what_is_not_extended_by_a_sign_stays_where_it_is():
    zeros = [*range(2, 10), *["0"] * (OPERAND - 8)]
    for a, signed in ((zeros, "0"), (zeros, "1"), (narrow(2, 8), "0"), (narrow(2, 18), "1")):
        cell = multiplier(a, a, signed, 16)
        before = dict(cell["connections"])
        shape_multipliers({"modules": {"top": {"ports": {}, "cells": {"m": cell}}}})
        pins = cell["connections"]
        assert {name: pins[name] for name in before} == before


def registers(bits: int, **parameters: str) -> dict[str, dict]:
    """Cells that hold a product that begins at net 100; what they hold begins at net 200."""
    ways = {"CLK": "input", "DI": "input", "LSR": "input", "Q": "output"}
    given = {"CEMUX": "1 ", "CLKMUX": "CLK", "REGSET": "RESET", **parameters}
    return {
        f"ff{n}": {
            "type": REGISTER, "parameters": given, "port_directions": ways,
            "connections": {"CLK": [1], "DI": [100 + n], "LSR": ["0"], "Q": [200 + n]},
        }
        for n in range(bits)
    }  # fmt: skip


def test_registers_of_a_product_become_the_multipliers():
    cell = multiplier(narrow(2, 8), narrow(50, 8), "1", PRODUCT)
    ports = {"o": {"bits": [*range(200, 216)]}}
    cells = {"m": cell, **registers(16)}
    shape_multipliers({"modules": {"top": {"ports": ports, "cells": cells}}})
    assert cells == {"m": cell}
    pins = cell["connections"]
    assert [pins[f"P{n}"] for n in range(PRODUCT - 16, PRODUCT)] == [[200 + n] for n in range(16)]
    assert (pins["CLK0"], pins["CE0"], pins["RST0"]) == ([1], ["1"], ["0"])
    assert cell["parameters"] == {
        "REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0",
    }  # fmt: skip


@pytest.mark.parametrize("why", ["enabled", "set", "falling", "reset", "seen", "missing", "out"])
def test_a_product_that_is_not_just_registered_stays_as_it_is(why):
    parameters = {
        "enabled": {"CEMUX": "CE"},
        "set": {"REGSET": "SET"},
        "falling": {"CLKMUX": "INV"},
    }
    cell = multiplier(narrow(2, 8), narrow(50, 8), "1", 16)
    cells = {"m": cell, **registers(16, **parameters.get(why, {}))}
    if why == "reset":
        cells["ff3"]["connections"]["LSR"] = [7]
    if why == "missing":
        cells["ff3"]["type"] = "LUT4"
    if why == "seen":
        cells["r"] = {"type": "R", "connections": {"D": [103]}, "port_directions": {"D": "input"}}
    ports = {"o": {"bits": [103] if why == "out" else []}}
    shape_multipliers({"modules": {"top": {"ports": ports, "cells": cells}}})
    assert "ff3" in cells
    assert "ff4" in cells
    assert not cell["parameters"]
    assert "CLK0" not in cell["connections"]


@pytest.mark.parametrize(
    ("count", "most", "every"),
    [
        (0, 9, TABLES),
        (1, 9, TABLES),
        (4, 9, TABLES),
        (7, 9, TABLES),
        (9, 2, 5),
        (9, 0, 10),
        (9, -3, 10),
    ],
)
def test_cells_that_keep_room_read_tables_and_are_taken_away_again(count, most, every):
    tables = {
        f"t{n}": {
            "type": TABLE, "connections": {"A": [2], "Z": [10 + n]},
            "port_directions": {"A": "input", "Z": "output"},
        }
        for n in range(count)
    }  # fmt: skip
    ff = {
        "type": REGISTER, "connections": {"M": [10], "Q": [2]},
        "port_directions": {"M": "input", "Q": "output"},
    }  # fmt: skip
    module = {"netnames": {"n": {"bits": [900, "0"]}}, "cells": {**tables, "ff": ff}}
    before = dict(module["cells"])
    keep_room({"modules": {"top": module}}, most)
    added = {name: cell for name, cell in module["cells"].items() if name not in before}
    assert len(added) == count // every <= max(most, 0)
    read = [cell["connections"]["A"][0] for cell in added.values()]
    assert read == list(range(9 + every, 10 + count, every))
    made = [cell["connections"]["Z"][0] for cell in added.values()]
    assert len(set(made)) == len(made)
    assert all(wire > 900 for wire in made)
    free_room({"modules": {"top": module}})
    assert module["cells"] == before


def placed(count: int, apart: int, *, pin: str = "DI") -> dict:
    """A register, wire 200, behind a table, and tables that read it, each so many columns from the
    one before; and a register that it enables."""

    def table(reads: int, makes: int, column: int) -> dict:
        return {
            "type": "TRELLIS_COMB", "parameters": {}, "attributes": at(column),
            "port_directions": {"A": "input", "F": "output"},
            "connections": {"A": [reads], "F": [makes]},
        }  # fmt: skip

    def at(column: int) -> dict:
        return {BEL: f"X{column}/Y1/SLICEA.K0", "BEL_STRENGTH": f"{1:032b}"}

    def register(**pins: int) -> dict:
        ways = {pin: "output" if pin == "Q" else "input" for pin in pins}
        return {
            "type": REGISTER, "parameters": {"SD": "1 "}, "attributes": at(1),
            "port_directions": ways, "connections": {pin: [bit] for pin, bit in pins.items()},
        }  # fmt: skip

    cells = {f"lut{n}": table(200, 300 + n, n * apart) for n in range(count)}
    cells["before"] = table(100, 101, 1)
    cells["ff"] = register(**{pin: 101}, CLK=7, Q=200)
    cells["enabled"] = register(M=300, CE=200, CLK=7, Q=1000)
    return {"ports": {"o": {"bits": [3]}}, "netnames": {"n": {"bits": [5000]}}, "cells": cells}


@pytest.mark.parametrize("pin", ["DI", "M"])
def test_registers_whose_readers_are_far_apart_are_copied(pin: str) -> None:
    module = placed(64, 4, pin=pin)
    copy_far({"modules": {"top": module}})
    cells = module["cells"]
    copies = {n: cell for n, cell in cells.items() if BEL not in cell["attributes"]}
    assert 3 <= len(copies) <= 64 // LEAST
    for copy in copies.values():
        pins = copy["connections"]
        assert {k: v for k, v in pins.items() if k != "Q"} == {"M": [101], "CLK": [7]}
        assert copy["port_directions"] == {"M": "input", "CLK": "input", "Q": "output"}
        assert copy["type"] == REGISTER
        assert pin == "M" or copy["parameters"]["SD"] == "0"
    assert cells["ff"]["connections"] == {pin: [101], "CLK": [7], "Q": [200]}
    assert cells["enabled"]["connections"]["CE"] == [200]
    columns: dict[int, list[int]] = {}
    for n in range(64):
        columns.setdefault(cells[f"lut{n}"]["connections"]["A"][0], []).append(4 * n)
    outputs = {copy["connections"]["Q"][0] for copy in copies.values()}
    assert set(columns) == {200} | outputs
    assert not outputs & {3, 7, 100, 101, 1000, 5000, *range(300, 400)}
    assert all(max(c) - min(c) <= WIDE or len(c) < 2 * LEAST for c in columns.values())
    assert min(map(len, columns.values())) >= LEAST
    assert 0 in columns[200]  # what is nearest stays
    strengths = {c["attributes"]["BEL_STRENGTH"] for c in cells.values() if BEL in c["attributes"]}
    assert strengths == {f"{LOCKED:032b}"}


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (placed(MANY - 1, 8), "few readers"),
        (placed(64, 0), "all near one another"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_registers_stay_alone(module: dict, why: str) -> None:
    before = {name: {**cell["connections"]} for name, cell in module["cells"].items()}
    copy_far({"modules": {"top": module}})
    assert {name: cell["connections"] for name, cell in module["cells"].items()} == before, why
