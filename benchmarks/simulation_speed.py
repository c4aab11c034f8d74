"""How fast the RTL simulates, and what it costs to start: run it on a quiet machine.

Three figures in cycles per second of CPU time, taken in turns within one run, of which the best and
the median count. A model is as much code as a core's nearest cache holds, so that who shares the
core halves the speed at times: the best round is the least disturbed.

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

from weft.isa import AcceleratorConfig
from weft.sim import connect
from weft.sim.exercise import ROWS, STREAM, TAPS, Exercise
from weft.sim.library import library
from weft.sim.rtl import RtlDevice
from weft.sim.verilate import find_tools


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def simulation(config: AcceleratorConfig, cycles: int, rounds: int) -> dict[str, float]:
    """The three speeds, best and median of ``rounds``, and how busy the array was."""
    speeds: dict[str, list[float]] = {"whole": [], "array": [], "bare": []}
    with RtlDevice(config) as whole, RtlDevice(config) as alone:
        count = Exercise(whole).tiles(max(4, cycles // (ROWS * TAPS)))
        result = whole.run(STREAM, count)  # warms the caches
        alone._launch(STREAM, Exercise(alone).endless())
        alone._driver.run(5000)
        for _ in range(rounds):
            for name, work in (
                ("whole", lambda: whole.run(STREAM, count)),
                ("array", lambda: alone._driver.run(cycles)),
                ("bare", lambda: alone._driver.bare(cycles)),
            ):
                simulated = result.cycles if name == "whole" else cycles
                speeds[name].append(simulated / cpu_seconds(work))
    best = {f"{name}_cycles_per_second": max(s) for name, s in speeds.items()}
    median = {f"{name}_median": statistics.median(s) for name, s in speeds.items()}
    return best | median | {"array_busy": result.counters["gemm_steps"] / result.cycles}


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
    """Speed, the best of ``rounds``, and the start of a process without a cache and with one."""
    with connect("functional", config) as device:
        count, macs = Exercise(device).gemm((1 << 14) - 1)
        device.run(STREAM, count)
        speeds = [macs / cpu_seconds(lambda: device.run(STREAM, count)) for _ in range(rounds)]
    program = (
        "import json, sys, time; from weft.sim.exercise import STREAM, Exercise;"
        " from weft.isa import AcceleratorConfig; from weft.sim import connect;"
        " config = AcceleratorConfig.from_mapping(json.loads(sys.argv[1]));"
        " started = time.process_time(); device = connect('functional', config);"
        " device.run(STREAM, Exercise(device).gemm(1)[0]); print(time.process_time() - started)"
    )
    figures = {"functional_macs_per_second": max(speeds)}
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
    parser.add_argument("--cycles", type=int, default=300_000, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=15, help="of which the best counts")
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
        best, median = figures[f"{name}_cycles_per_second"], figures[f"{name}_median"]
        print(f"  {name:12} {best / 1e6:8.2f} million cycles per CPU second  "
              f"(median {median / 1e6:.2f}; {what.format(**figures)})")  # fmt: skip
    print(f"  functional   {figures['functional_macs_per_second'] / 1e9:8.1f} GMAC per CPU second"
          "  (starts in {functional_warm_seconds:.2f} s of CPU time, {functional_cold_seconds:.2f} "
          "without a cache)".format(**figures))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
