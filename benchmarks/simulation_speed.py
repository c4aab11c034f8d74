"""How fast the RTL simulates, and what it costs to start: run it on a quiet machine.

Three figures in cycles per second of CPU time, taken in turns within one run:

whole
    A program that keeps the array busy while tiles are loaded and stored, as a convolution does.
array
    The array alone, in one long GEMM, with the driver: DRAM, stalls and the rules of the buses.
bare
    The same GEMM in the same library with nothing of ours around it: Verilator's own speed.

And in seconds: a cold build, and a warm start of a new process until the device is connected.

Of the functional simulator: multiplications and additions a second of CPU time, in one long GEMM,
and the CPU seconds of a new process from connecting to the end of a first short program, with
nothing in its cache and with everything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from weft.isa import AcceleratorConfig, Instruction, InstructionSet
from weft.isa.formats import INSTRUCTION_BYTES, uop_layout
from weft.sim import Device, connect
from weft.sim.library import library
from weft.sim.rtl import RtlDevice
from weft.sim.verilate import find_tools

STREAM, UOPS, INP, WGT, OUT = 0x10_0000, 0x1000, 0x40_0000, 0x80_0000, 0xC0_0000
ROWS, TAPS = 256, 16
"""A tile: accumulators, and the weights that each is multiplied by."""


class Programs:
    """The two programs for one configuration, on a device."""

    def __init__(self, device: Device):
        self.device = device
        self.config = config = device.config
        self.instructions = InstructionSet(config)
        generator = np.random.default_rng(1)
        for address in (INP, WGT):
            device.write(address, generator.integers(0, 256, 1 << 20, np.uint8))
        self.half = half = [
            depth // 2 for depth in (config.acc_depth, config.inp_depth, config.wgt_depth)
        ]
        layout = uop_layout(config)
        uops = [
            layout.encode({"dst": side * half[0], "src": side * half[1] + tap,
                           "wgt": side * half[2] + tap})
            for side in range(2)
            for tap in range(TAPS)
        ]  # fmt: skip
        device.write(UOPS, np.array(uops, np.uint32))

    def tiles(self, count: int) -> int:
        """Write the program of ``count`` tiles, loads and stores beside GEMMs; its length."""
        words = [self._load_uops()]
        for tile in range(count):
            side, first, last = tile % 2, tile < 2, tile >= count - 2
            words += [
                self._move("load.inp", side * self.half[1], INP, ROWS + TAPS, pop_next=not first),
                self._move("load.wgt", side * self.half[2], WGT, TAPS, push_next=True),
                self._gemm(side, ROWS, 1, 1, pop_prev=True, pop_next=not first,
                           push_prev=not last, push_next=True),
                self._move("store.out", side * self.half[0], OUT, ROWS,
                           pop_prev=True, push_prev=not last),
            ]  # fmt: skip
        return self._write(words)

    def endless(self) -> int:
        """Write a program of one GEMM that outlasts every measurement; its length."""
        trips = (1 << 14) - 1
        return self._write([self._load_uops(), self._gemm(0, trips, trips, 0)])

    def gemm(self, trips: int) -> tuple[int, int]:
        """Write a program of one GEMM of ``16 * TAPS * trips`` steps; its length, its MACs."""
        steps = 16 * TAPS * trips
        macs = steps * self.config.batch * self.config.block**2
        return self._write([self._load_uops(), self._gemm(0, trips, 16, 0)]), macs

    def _load_uops(self) -> Instruction:
        return self._move("load.uop", 0, UOPS, 2 * TAPS)

    def _move(
        self, operation: str, base: int, address: int, size: int, **flags: bool
    ) -> Instruction:
        memory = operation.partition(".")[2]
        element = getattr(self.config, f"{memory}_element_bytes")
        operands = {"sram_base": base, "dram_base": address // element, "y_size": 1,
                    "x_size": size, "x_stride": size}  # fmt: skip
        return Instruction(operation, operands, **flags)

    def _gemm(
        self, side: int, iter_out: int, iter_in: int, factor: int, **flags: bool
    ) -> Instruction:
        operands = {"uop_bgn": side * TAPS, "uop_end": (side + 1) * TAPS,
                    "iter_out": iter_out, "iter_in": iter_in,
                    "dst_factor_out": factor, "src_factor_out": factor}  # fmt: skip
        return Instruction("gemm", operands, **flags)

    def _write(self, words: list[Instruction]) -> int:
        words = [*words, Instruction("finish")]
        stream = b"".join(
            self.instructions.encode(word).to_bytes(INSTRUCTION_BYTES, "little") for word in words
        )
        self.device.write(STREAM, stream)
        return len(words)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def simulation(config: AcceleratorConfig, cycles: int, rounds: int) -> dict[str, float]:
    """The three speeds, medians of ``rounds``, and how busy the array was."""
    speeds: dict[str, list[float]] = {"whole": [], "array": [], "bare": []}
    with RtlDevice(config) as whole, RtlDevice(config) as alone:
        count = Programs(whole).tiles(max(4, cycles // (ROWS * TAPS)))
        result = whole.run(STREAM, count)  # warms the caches
        alone._launch(STREAM, Programs(alone).endless())
        alone._driver.run(5000)
        for _ in range(rounds):
            for name, work in (
                ("whole", lambda: whole.run(STREAM, count)),
                ("array", lambda: alone._driver.run(cycles)),
                ("bare", lambda: alone._driver.bare(cycles)),
            ):
                simulated = result.cycles if name == "whole" else cycles
                speeds[name].append(simulated / cpu_seconds(work))
    figures = {f"{name}_cycles_per_second": statistics.median(s) for name, s in speeds.items()}
    return figures | {"array_busy": result.counters["gemm_steps"] / result.cycles}


def cold_build(config: AcceleratorConfig) -> dict[str, float]:
    """Seconds of each phase of a build into an empty cache, and in all."""
    times: dict[str, float] = {}
    started = time.monotonic()

    def progress(phase: str, fraction: float) -> None:
        times.setdefault(phase, time.monotonic() - started)

    with tempfile.TemporaryDirectory() as cache:
        before = os.environ.get("WEFT_CACHE")
        os.environ["WEFT_CACHE"] = cache
        try:
            library(config, progress=progress)
        finally:
            del os.environ["WEFT_CACHE"]
            if before is not None:
                os.environ["WEFT_CACHE"] = before
    total = time.monotonic() - started
    return {
        "cold_build_seconds": total,
        "generate_seconds": times["verilate"],
        "verilate_seconds": times["compile"] - times["verilate"],
        "compile_seconds": total - times["compile"],
    }


def warm_start(config: AcceleratorConfig) -> dict[str, float]:
    """Seconds of a new process, and of connecting within it, with everything built."""
    program = (
        "import json, sys, time; from weft.isa import AcceleratorConfig; from weft.sim import"
        " connect; config = AcceleratorConfig.from_mapping(json.loads(sys.argv[1]));"
        " started = time.monotonic(); connect('rtl', config).close();"
        " print(time.monotonic() - started)"
    )
    connect("rtl", config).close()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(config.to_mapping())],
        check=True,
        capture_output=True,
        text=True,
    )
    return {
        "warm_process_seconds": time.monotonic() - started,
        "warm_connect_seconds": float(done.stdout),
    }


def functional(config: AcceleratorConfig, rounds: int) -> dict[str, float]:
    """Speed, the median of ``rounds``, and the start of a process without a cache and with one."""
    with connect("functional", config) as device:
        count, macs = Programs(device).gemm((1 << 14) - 1)
        device.run(STREAM, count)
        speeds = [macs / cpu_seconds(lambda: device.run(STREAM, count)) for _ in range(rounds)]
    program = (
        "import json, sys, time; from benchmarks.simulation_speed import Programs, STREAM;"
        " from weft.isa import AcceleratorConfig; from weft.sim import connect;"
        " config = AcceleratorConfig.from_mapping(json.loads(sys.argv[1]));"
        " started = time.process_time(); device = connect('functional', config);"
        " device.run(STREAM, Programs(device).gemm(1)[0]); print(time.process_time() - started)"
    )
    figures = {"functional_macs_per_second": statistics.median(speeds)}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm"):
            done = subprocess.run(
                [sys.executable, "-c", program, json.dumps(config.to_mapping())],
                check=True,
                capture_output=True,
                text=True,
                cwd=Path(__file__).resolve().parents[1],
                env={**os.environ, "WEFT_CACHE": cache},
            )
            figures[f"functional_{name}_seconds"] = float(done.stdout)
    return figures


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="speed of the RTL simulation")
    parser.add_argument("--hw", default="base", help="a preset (default base)")
    parser.add_argument("--cycles", type=int, default=1_000_000, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    options = parser.parse_args()
    config = AcceleratorConfig.preset(options.hw)
    figures = cold_build(config) | warm_start(config)
    figures |= simulation(config, options.cycles, options.rounds)
    figures |= functional(config, options.rounds)
    tools = {tool.name: tool.version for tool in find_tools()}
    if options.json:
        print(json.dumps({"hw": config.to_mapping(), "tools": tools, **figures}, indent=2))
        return 0
    for name, version in tools.items():
        print(f"{name}: {version}")
    print(f"{options.hw}, {config.block}x{config.block}:")
    print("  cold build   {cold_build_seconds:8.1f} s  (generate {generate_seconds:.1f}, verilate "
          "{verilate_seconds:.1f}, compile {compile_seconds:.1f})".format(**figures))  # fmt: skip
    print("  warm start   {warm_connect_seconds:8.2f} s  (a whole process "
          "{warm_process_seconds:.2f})".format(**figures))  # fmt: skip
    for name, what in (
        ("whole", "array {array_busy:.0%} busy, tiles loaded and stored beside it"),
        ("array", "the array alone, with DRAM and bus rules"),
        ("bare", "the same, Verilator alone"),
    ):
        speed = figures[f"{name}_cycles_per_second"] / 1e6
        print(f"  {name:12} {speed:8.2f} million cycles per CPU second  ({what.format(**figures)})")
    print(f"  functional   {figures['functional_macs_per_second'] / 1e9:8.1f} GMAC per CPU second"
          "  (starts in {functional_warm_seconds:.2f} s of CPU time, {functional_cold_seconds:.2f} "
          "without a cache)".format(**figures))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
