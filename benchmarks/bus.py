"""How much of its bus the machine uses, on the RTL: long loads, long stores, and the shortest.

    python benchmarks/bus.py [--bus 8 16 32 64] [--block 4 8 16 32] [--json]

A figure is the part of the bus's beats that carry the data of an instruction which fills, or
stores, a whole scratchpad, in a row of them: what several more of them cost is measured, so that
the start does not count, but the fetching of the instructions does. ``storex`` requantizes. DRAM
is that of every published figure. Exit code 1 if a figure is below ``LEAST``.

The last line is of the preset ``vta`` with a latency of 60 cycles: one-element loads, back to
back and at hand when the first starts, and the cycles of each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from weft.isa import AcceleratorConfig, Instruction, InstructionSet, MemoryType
from weft.isa.formats import INSTRUCTION_BYTES
from weft.isa.memories import MEMORIES
from weft.sim import Device, connect

LEAST = 0.95
STREAM = 0x20_0000
MOVES = {
    "load.inp": MemoryType.INP,
    "load.wgt": MemoryType.WGT,
    "load.acc": MemoryType.ACC,
    "load.acc8": MemoryType.ACC8,
    "load.uop": MemoryType.UOP,
    "store.out": MemoryType.OUT,
    "storex.out": MemoryType.OUT,
}
"""What is measured, and the memory whose elements move."""
TIMES = 8


def config_of(bus_bytes: int, block: int) -> AcceleratorConfig:
    """A machine whose scratchpads are small, so that it is built soon."""
    return AcceleratorConfig(
        bus_bytes=bus_bytes,
        block=block,
        uop_bytes=1 << 13,
        inp_bytes=1024 * block,
        wgt_bytes=64 * block * block,
        acc_bytes=512 * 4 * block,
        qnt_bytes=16 * 16 * block,
    )


def run(device: Device, program: list[Instruction]) -> int:
    """The cycles of a program from reset."""
    instructions = InstructionSet(device.config)
    words = [instructions.encode(i) for i in (*program, Instruction("finish"))]
    device.reset()
    device.write(STREAM, b"".join(w.to_bytes(INSTRUCTION_BYTES, "little") for w in words))
    return device.run(STREAM, len(words)).cycles


def used(device: Device, operation: str) -> float:
    """The part of the beats that carry data while ``operation`` moves long rows."""
    config, memory = device.config, MEMORIES[MOVES[operation]]
    depth = memory.depth(config)
    move = Instruction(operation, {"y_size": 1, "x_size": depth, "x_stride": depth})
    beats = depth * memory.element_bytes(config) / config.bus_bytes
    cycles = run(device, [move] * 2 * TIMES) - run(device, [move] * TIMES)
    return TIMES * beats / cycles


def one_element_load(device: Device, most: int = 48, fewest: int = 16) -> float:
    """Cycles of each one-element load, element after element."""

    def program(count: int) -> list[Instruction]:
        where = [{"dram_base": 64 + i, "sram_base": i} for i in range(count)]
        loads = [Instruction("load.inp", {"y_size": 1, "x_size": 1, **w}) for w in where]
        loads[0] = replace(loads[0], pop_next=True)
        trips = {"uop_end": 1, "iter_out": 1000, "iter_in": 1}
        return [Instruction("gemm.reset", trips, push_prev=True), *loads]

    return (run(device, program(most)) - run(device, program(fewest))) / (most - fewest)


def measure(bus_bytes: int, block: int) -> dict[str, Any]:
    """The figures of one machine, as plain data."""
    config = config_of(bus_bytes, block)
    with connect("rtl", config, dram_bytes=1 << 22) as device:
        return {
            "bus_bits": 8 * bus_bytes,
            "block": block,
            **{operation: used(device, operation) for operation in MOVES},
        }


def rows(buses: list[int], blocks: list[int]) -> Iterator[dict[str, Any]]:
    """The table, row by row."""
    for bus_bytes in buses:
        for block in blocks:
            yield measure(bus_bytes, block)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"type": int, "nargs": "+", "metavar": "N"}
    parser.add_argument("--bus", default=[8, 16, 32, 64], help="bytes of a beat", **sizes)
    parser.add_argument("--block", default=[4, 8, 16, 32], help="lanes of an element", **sizes)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if not options.json:
        print(f"{'bus':>8}{'block':>6}" + "".join(f"{name:>12}" for name in MOVES))
    table = []
    for row in rows(options.bus, options.block):
        table.append(row)
        if not options.json:
            figures = "".join(f"{row[name]:12.1%}" for name in MOVES)
            print(f"{row['bus_bits']:3} bits{row['block']:6}{figures}", flush=True)
    vta = AcceleratorConfig.preset("vta")
    with connect("rtl", vta, dram_bytes=1 << 22, dram_latency=60) as device:
        load = one_element_load(device)
    if options.json:
        print(json.dumps({"used": table, "one_element_load": load}, indent=2))
    else:
        print(f"vta, latency 60: a one-element load takes {load:.2f} cycles")
    return int(any(row[name] < LEAST for row in table for name in MOVES))


if __name__ == "__main__":
    sys.exit(main())
