"""What single mechanisms cost, in cycles: the RTL beside VTA's published RTL, and the goals.

    python benchmarks/microarchitecture.py [--hw vta] [--json] [NAME ...]

Programs are measured by differences, twice as many instructions minus once as many, so that the
start does not count; layers are large enough for it to vanish. DRAM is that of every published
figure (40 cycles to the first beat, a beat a cycle, 16 requests outstanding, write responses after
10 cycles) where a row does not say otherwise. Exit code 1 if a row is short of its goal. The goals
are for the preset ``vta``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weft.compiler import Graph, compile_graph
from weft.compiler.graph import Add, Conv2D, DepthwiseConv2D, Node, Op, Quant, Tensor, Window
from weft.isa import AcceleratorConfig, Engine, InstructionSet, ProgramError, UnsupportedError
from weft.isa.assembly import assemble
from weft.isa.formats import INSTRUCTION_BYTES, uop_layout
from weft.isa.nest import I8, I32
from weft.runtime.executor import Executor
from weft.runtime.hardware import hardware
from weft.sim import Device, connect

DRAM_BYTES = 8 << 20
STREAM = 0x40_0000


SIDES = 4
"""Places for tiles that are reduced and stored in turn."""
BEYOND = 300
"""Instructions of the shorter of two programs: more than can be fetched before the first one
starts, so that the longer one starts in no other way."""
UOPS = 64
"""Micro-ops at address 0 of DRAM, the same in all programs: number i has ``dst`` = i."""


class Bench:
    """Runs programs and layers on the RTL of a configuration.

    Every program starts with scratchpads that are zero, and with them the micro-ops.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.instructions = InstructionSet(config)
        self._uop = uop_layout(config)
        self._devices: dict[int, Device] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: object) -> None:
        for device in self._devices.values():
            device.close()

    def cycles(self, lines: Iterable[str], latency: int = 40) -> int:
        """Cycles of a program, as assembly without its FINISH."""
        device = self._device(latency)
        words = assemble("\n".join([*lines, "finish"]), self.config)
        stream = b"".join(word.to_bytes(INSTRUCTION_BYTES, "little") for word in words)
        device.write(0, np.array([self._uop.encode({"dst": i}) for i in range(UOPS)], np.uint32))
        device.write(STREAM, stream)
        return device.run(STREAM, len(words)).cycles

    def each(
        self, program: Callable[..., Iterable[str]], count: int, latency: int = 40, **options: Any
    ) -> float:
        """Cycles of each of the ``count`` rounds that ``program(2 * count)`` has more."""
        twice, once = program(2 * count, **options), program(count, **options)
        return (self.cycles(twice, latency) - self.cycles(once, latency)) / count

    def layer(self, graph: Graph) -> float:
        """Cycles for each element of the output, 16 lanes of a pixel."""
        model = compile_graph(graph, self.config)
        rng = np.random.default_rng(1)
        inputs = {
            name: rng.integers(-128, 128, graph.tensors[name].shape).astype(np.int8)
            for name in graph.inputs
        }
        _, profiles = Executor(model, self._device(40))(inputs)
        _, height, width, channels = graph.tensors[graph.outputs[0]].shape
        vectors = height * width * -(-channels // self.config.block)
        return sum(profile.cycles for profile in profiles) / vectors

    def _device(self, latency: int) -> Device:
        if latency not in self._devices:
            self._devices[latency] = connect(
                "rtl", self.config, dram_bytes=DRAM_BYTES, dram_latency=latency
            )
        device = self._devices[latency]
        device.reset()
        return device


# --- programs ------------------------------------------------------------------------------------

LOAD_UOPS = f"load.uop y_size=1 x_size={UOPS}"


def steps(operation: str, count: int, at: int = 0, more: str = "") -> str:
    """An instruction of ``count`` steps, on accumulators one after another from ``at``."""
    nest = f"uop_bgn={at} uop_end={at + 1} iter_out={count} iter_in=1 dst_factor_out=1"
    return f"{operation} {nest} {more}"


def beyond_steps(
    bench: Bench, *operations: str, lengths: Sequence[int] = (1, 2, 3, 4, 8, 16)
) -> float:
    """Cycles that an instruction takes beyond its steps, the most of any length."""

    def program(count: int, n: int) -> Iterator[str]:
        yield LOAD_UOPS
        for i in range(count):
            yield steps(operations[i % len(operations)], n, 16 * (i % 4))

    return max(bench.each(program, BEYOND, n=n) - n for n in lengths)


def alu_step(bench: Bench, *operations: str, two: bool) -> float:
    """Cycles of a step that reads what a step just before it wrote, the most of any distance."""
    length = 240

    def program(count: int, operation: str, distance: int) -> Iterator[str]:
        yield LOAD_UOPS
        for _ in range(count):
            if two:  # step i makes acc[i + distance] of itself and acc[i]
                yield (
                    f"{operation} uop_bgn={distance} uop_end={distance + 1} iter_out=1 "
                    f"iter_in={length} dst_factor_in=1 src_factor_in=1"
                )
            yield (
                f"{operation} uop_end=1 iter_out={length // distance} iter_in={distance} "
                "dst_factor_in=1 src_factor_in=1"
            )

    return max(
        bench.each(program, 2, operation=operation, distance=distance) / length / (1 + two)
        for operation in operations
        for distance in (1, 2, 3, 4, 5, 6, 8)
    )


def one_element_load(bench: Bench) -> float:
    """Loads that are all at hand when the first may start: a token holds them back until then."""

    def program(count: int) -> Iterator[str]:
        yield steps("gemm", 1500, more="| push_prev")
        for i in range(count):
            token = "" if i else "| pop_next"
            yield f"load.inp sram_base={i} dram_base={i} y_size=1 x_size=1 x_stride=1 {token}"

    return bench.each(program, 30, latency=60)


def stored_element(bench: Bench) -> float:
    """An element of stores that are as long as the accumulators."""
    length = bench.config.acc_depth

    def program(count: int) -> Iterator[str]:
        return (f"store.out dram_base=4096 y_size=1 x_size={length}" for _ in range(count))

    return bench.each(program, 2) / length


def kept_element(bench: Bench, beside: str = "") -> float:
    """An element of stores that stay on chip, as long as both scratchpads allow; or beside a load
    as long."""
    length = min(bench.config.acc_depth, bench.config.inp_depth)

    def program(count: int) -> Iterator[str]:
        for _ in range(count):
            if beside:
                yield f"{beside} y_size=1 x_size={length}"
            yield f"storex.inp y_size=1 x_size={length}"

    return bench.each(program, 2) / length


def loads_beside_gemm(bench: Bench, *loads: str) -> float:
    """Cycles that the array stands still for each GEMM whose operands of ``loads`` come before it.

    The next operands are loaded into the other half of the scratchpads meanwhile.
    """
    length, count = 512, 32
    by_load = [bench.instructions.operations[load].engine is Engine.LOAD for load in loads]

    def program(rounds: int) -> Iterator[str]:
        for i in range(rounds):
            side, first, last = i % 2, i < 2, i >= rounds - 2
            for at, load in enumerate(loads):
                flags = []
                if by_load[at]:
                    flags += ["pop_next"] * (not first and not any(by_load[:at]))
                    flags += ["push_next"] * (not any(by_load[at + 1 :]))
                yield f"{load} sram_base={side * 512} y_size=1 x_size={count} | {' '.join(flags)}"
            flags = ["pop_prev"] * any(by_load) + ["push_prev"] * (any(by_load) and not last)
            yield (
                f"gemm uop_bgn={side * 512} uop_end={side * 512 + count} iter_in=1 "
                f"iter_out={length // count} | {' '.join(flags)}"
            )

    return bench.each(program, BEYOND // 2) - length


def stored_tile(
    bench: Bench, vectors: int, reduction: int, store: str = "storex.out dram_base=4096"
) -> float:
    """Cycles that the array stands still for each tile that is requantized and stored.

    A tile is ``vectors`` accumulators, each the sum of ``reduction`` steps; while it is stored
    the next is reduced elsewhere in the accumulators, ``SIDES`` of them in turn.
    """

    def program(rounds: int) -> Iterator[str]:
        yield LOAD_UOPS
        for i in range(rounds):
            at = UOPS // SIDES * (i % SIDES)
            nest = f"uop_bgn={at} uop_end={at + 1} iter_out={vectors} dst_factor_out=1"
            yield f"matmul.set {nest} iter_in=1 | {'pop_next' * (i >= SIDES)}"
            yield f"gemm {nest} iter_in={reduction - 1} | push_next"
            token = "push_prev" * (i < rounds - SIDES)
            tile = f"sram_base={at} y_size=1 x_size={vectors}"
            yield f"{store} {tile} | pop_prev {token}"

    return bench.each(program, BEYOND // 3) - vectors * reduction


def loaded(bench: Bench, memory: str) -> str:
    """The load of a memory that stands least in the array's way."""
    extended = f"loadx.{memory}"
    return extended if extended in bench.instructions.operations else f"load.{memory}"


def there_and_back(bench: Bench) -> float:
    """Two steps of the array, each after a load that does nothing and waits for the other."""

    def program(rounds: int) -> Iterator[str]:
        for i in range(rounds):
            yield f"load.inp | {'pop_next' * (i > 0)} push_next"
            yield steps("gemm", 1, more=f"| pop_prev {'push_prev' * (i < rounds - 1)}")

    return bench.each(program, BEYOND // 2)


def empty_program(bench: Bench) -> float:
    """From launch to done, FINISH alone."""
    return bench.cycles([], latency=1)


# --- layers --------------------------------------------------------------------------------------


def layer(op: Op, shape: tuple[int, ...], weights: tuple[int, ...] = ()) -> Graph:
    """A graph of one operator on an image [1, H, W, C], two of them if it has no weights."""
    rng = np.random.default_rng(0)
    channels = weights[0] if isinstance(op, Conv2D) else shape[3]
    scale = Quant((0.02,), (3,))
    tensors = [Tensor("x", I8, shape, scale), Tensor("o", I8, (*shape[:3], channels), scale)]
    inputs = ("x", "y") if not weights else ("x",)
    if weights:
        axis = 0 if isinstance(op, Conv2D) else 3
        parts = tuple(0.001 * (1 + i % 3) for i in range(channels))
        values = rng.integers(-127, 128, weights).astype(np.int8)
        bias = rng.integers(-1000, 1000, channels).astype(np.int32)
        tensors += [
            Tensor("w", I8, weights, Quant(parts, (0,) * channels, axis), values),
            Tensor(
                "b",
                I32,
                (channels,),
                Quant(tuple(0.02 * p for p in parts), (0,) * channels, 0),
                bias,
            ),
        ]
    else:
        tensors.append(Tensor("y", I8, shape, Quant((0.03,), (-5,))))
    operands = (*inputs, "w", "b") if weights else inputs
    node = Node("node", op, operands, ("o",))
    return Graph("layer", {t.name: t for t in tensors}, (node,), inputs, ("o",))


SAME = Window((3, 3), pads=(1, 1, 1, 1))
SIZE = 96
"""Rows and columns of an image."""


def residual_add(bench: Bench) -> float:
    """Two tensors of 16 channels."""
    return bench.layer(layer(Add(), (1, SIZE, SIZE, 16)))


def depthwise(bench: Bench) -> float:
    """3x3 on 16 channels."""
    return bench.layer(layer(DepthwiseConv2D(SAME), (1, SIZE, SIZE, 16), (1, 3, 3, 16)))


def first_convolution(bench: Bench) -> float:
    """3x3, from 3 channels to 16."""
    return bench.layer(layer(Conv2D(SAME), (1, SIZE, SIZE, 3), (16, 3, 3, 3)))


def on_bus(bench: Bench, bus_bytes: int, measure: Callable[[Bench], float]) -> float:
    """With another width of the bus."""
    with Bench(replace(bench.config, bus_bytes=bus_bytes)) as other:
        return measure(other)


# --- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table: what VTA takes, the most that is allowed, and how to measure it."""

    name: str
    what: str
    vta: str
    most: float
    measure: Callable[[Bench], float]


QUICK = ("alu.min", "alu.max", "alu.add", "alu.shr")
"""The operations of the ALU that VTA's has."""
IMMEDIATE = tuple(f"{operation}.imm" for operation in QUICK)

# fmt: off
ROWS = (
    Row("gemm", "GEMM of 1 to 16 steps, beyond its steps", "8", 1,
        lambda b: beyond_steps(b, "gemm")),
    Row("matmul", "the same, every other one a MATMUL", "-", 1,
        lambda b: beyond_steps(b, "gemm", "matmul.set")),
    Row("turns", "the same, every other one on the ALU", "8", 1,
        lambda b: beyond_steps(b, "gemm", "alu.add.imm", "gemm.reset", "alu.max")),
    Row("turns-multiply", "GEMM of 4 to 16 steps and as many that multiply on the ALU", "hangs", 1,
        lambda b: beyond_steps(b, "gemm", "alu.mul.imm", lengths=(4, 8, 16))),
    Row("alu-immediate", "ALU step with an immediate, reads 1 to 8 after writes", "1", 1.01,
        lambda b: alu_step(b, *IMMEDIATE, two=False)),
    Row("alu-registers", "ALU step with two registers, likewise", "2", 1.01,
        lambda b: alu_step(b, *QUICK, two=True)),
    Row("load", "LOAD INP of one element, latency 60", "70", 2.5, one_element_load),
    Row("store", "STORE, each 16-byte element", "3.0 to 3.3", 2.05, stored_element),
    Row("load-uop", "GEMM beside loads of micro-ops, array stands still", "stops", 1,
        lambda b: loads_beside_gemm(b, loaded(b, "uop"))),
    Row("load-acc", "GEMM beside loads of accumulators, array stands still", "stops", 1,
        lambda b: loads_beside_gemm(b, loaded(b, "acc"))),
    Row("tile", "tile of 16 reduced in 16 steps each beside the store of the last, stands still",
        "-", 0, lambda b: stored_tile(b, 16, 16)),
    Row("vector", "the same with tiles of 1", "-", 0, lambda b: stored_tile(b, 1, 16)),
    Row("keep", "STOREX to inp, each element", "-", 1.05, kept_element),
    Row("keep-beside", "the same beside LOAD INP of as many", "-", 2.05,
        lambda b: kept_element(b, "load.inp dram_base=4096")),
    Row("kept", "tile of 16 reduced in 2 steps each beside the last that stays, stands still",
        "-", 0, lambda b: stored_tile(b, 16, 2, "storex.inp dram_base=1024")),
    Row("token", "two steps, load and GEMM waiting for one another", "-", 20, there_and_back),
    Row("add", "residual add, int8, requantized: a vector of 16", "19.6", 7, residual_add),
    Row("depthwise", "depthwise 3x3: a vector of 16", "9", 3.2, depthwise),
    Row("first", "first convolution 3x3x3: a vector of 16", "cpu", 2.3, first_convolution),
    Row("first-wide", "the same with a bus of 128 bits", "-", 2.3,
        lambda b: on_bus(b, 16, first_convolution)),
    Row("empty", "empty program, latency 1", "13 to 72", 20, empty_program),
)
# fmt: on


WIDTH = max(len(row.what) for row in ROWS) + 1


def measured(bench: Bench, row: Row) -> float | None:
    """What the row measures; None where the configuration lacks an instruction for it."""
    try:
        return row.measure(bench)
    except (ProgramError, UnsupportedError):
        return None


def main() -> int:
    """Measure the named rows, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [row.name for row in ROWS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--hw", default="vta", help="preset or TOML file (default vta)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"there are no rows {', '.join(sorted(unknown))}")
    config = hardware(options.hw)
    records: list[dict[str, Any]] = []
    if not options.json:
        print(f"{'cycles':{WIDTH}}{'VTA':>11}{'at most':>9}{'ours':>9}")
    with Bench(config) as bench:
        for row in ROWS:
            if options.names and row.name not in options.names:
                continue
            ours = measured(bench, row)
            ok = ours is not None and ours <= row.most
            records.append({"name": row.name, "what": row.what, "vta": row.vta,
                            "at_most": row.most, "ours": ours, "ok": ok})  # fmt: skip
            if not options.json:
                figure = "-" if ours is None else f"{ours:.2f}"
                print(f"{row.what:{WIDTH}}{row.vta:>11}{row.most:9}{figure:>9}"
                      f"  {'ok' if ok else 'short'}", flush=True)  # fmt: skip
    if options.json:
        print(json.dumps({"hw": config.to_mapping(), "rows": records}, indent=2))
    return int(not all(record["ok"] for record in records))


if __name__ == "__main__":
    sys.exit(main())
