"""Verilog into a shared library that simulates it, kept by its content.

The library is Verilator's C++ of the module ``weft`` in its bench, ``driver.cpp``, and Verilator's
runtime, which is compiled once for every compiler and kept too.
"""

from __future__ import annotations

import fcntl
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..isa.errors import DeviceError
from .objects import (
    COMMON_FLAGS,
    PACKING,
    RUNTIME_FLAGS,
    Runtime,
    building,
    first_error,
    folder,
    key_of,
    kill,
    start_compiler,
    wait,
)
from .toolchain import (
    Compiler,
    Tool,
    Verilator,
    find_compiler,
    find_tools,
    find_verilator,
)

Progress = Callable[[str, float], None]
"""Told of a build's phases: the name, and the fraction of the whole build that is done."""

DRIVER = tuple(
    Path(__file__).parent / name for name in ("driver.cpp", "dram.h", "handshake.h", "bench.v")
)  # fmt: skip
VERILATOR_FLAGS = (
    *("--cc", "--top-module", "bench", "--prefix", "Vweft", "-O3", "--noassert", "-Wno-lint"),
    *("--x-assign", "fast", "--x-initial", "fast"),
)
MODEL_FLAGS = ("-O3",)
COVERAGE_MODEL_FLAGS = ("-O1",)
"""Four times as much C++, of which nobody asks that it be fast."""
ONCE_FLAGS = ("-O0",)
"""For the half of Verilator's C++ that runs at power-up only."""
LARGE_BYTES = 1 << 17
"""C++ files from this size on are compiled each for itself, at the same time."""
GENERATED, VERILATED = 0.3, 0.35
"""Fractions of a build's time after these phases; the rest is compiling."""
COMPILE_SECONDS = 15.0
"""What progress is shown by while the compiler says nothing."""

NOTING_FLAGS = (
    *("-fprofile-update=single", "-fno-tree-pre", "-fno-gcse", "-fno-gcse-after-reload"),
    *("-fno-schedule-insns2", "-fno-tree-slp-vectorize", "-fno-tree-loop-vectorize"),
)
"""For a library in training, which one thread runs for a moment only: without what takes long and
comes after the counters. What comes before must be as in the second compilation, or the profile
does not fit."""
TRAINED = ("-fprofile-partial-training", "-Wno-missing-profile")
"""What has not run in training is compiled for speed nevertheless."""
COVERAGE_FLAGS = ("--coverage-line", "--coverage-toggle", "-Wno-UNOPTFLAT")
"""What is counted stands between a signal and its driver, so that some of them look circular."""


def toolchain_key(*, trace: bool, coverage: bool = False) -> str:
    """A hash of everything but the Verilog that decides what a library contains."""
    verilator, compiler = find_verilator(), find_compiler()
    return key_of(
        verilator.identity,
        compiler.identity,
        repr((VERILATOR_FLAGS, COMMON_FLAGS, MODEL_FLAGS, ONCE_FLAGS, RUNTIME_FLAGS, trace)),
        repr((COVERAGE_FLAGS, COVERAGE_MODEL_FLAGS)) if coverage else repr((NOTING_FLAGS, TRAINED)),
        *(path.read_text() for path in (*DRIVER, *PACKING)),
    )


def build(
    verilog: str | Callable[[], str],
    bus_bytes: int,
    *,
    counters: Sequence[str] = (),
    trace: bool = False,
    coverage: bool = False,
    train: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """The shared library for a design, from the cache if it was built before.

    Any number of processes may build at once; what is under construction is never seen.

    Parameters
    ----------
    verilog : str or callable
        The design, whose top is the module ``weft``; a function that makes it is called while
        the runtime already compiles.
    bus_bytes : int
        Bytes of its AXI beats.
    counters : sequence of str
        The names of the counters that a run can be marked with; they are in the instance
        ``counters`` of the design. Without them there are no marks.
    trace : bool
        With waves: a slower library of its own, which can write FST files.
    coverage : bool
        Counts what is executed: a library of its own, too.
    train : callable, optional
        Runs a library as it will be used. With GCC the library is then compiled again, for what
        has run, which makes it about a fourth faster.
    progress : callable, optional
        Called with ``generate``, ``verilate`` or ``compile`` and the fraction done.

    Raises
    ------
    MissingToolError
        If there is no Verilator, no C++ compiler, or, with ``trace``, no zlib where it is needed.
    DeviceError
        If Verilator or the compiler refuse the design.
    """
    report = progress or (lambda phase, fraction: None)
    verilator, compiler = find_verilator(), find_compiler()
    report("generate", 0.0)
    key = toolchain_key(trace=trace, coverage=coverage)
    with Runtime(verilator, compiler, trace=trace, coverage=coverage) as runtime:
        text = verilog if isinstance(verilog, str) else verilog()
        path = folder() / f"{key_of(text, repr((bus_bytes, *counters, train is not None)), key)}.so"
        with _lock(path):
            if path.exists():
                return path
            with building() as name:
                work = Path(name)
                report("verilate", GENERATED)
                kind = _Kind(trace, coverage, COVERAGE_MODEL_FLAGS if coverage else MODEL_FLAGS)
                _verilate(verilator, text, bus_bytes, counters, work, kind)
                tick = _ticker(report)
                if train is not None and compiler.is_gcc:
                    noting = replace(
                        kind, level=(*kind.level, f"-fprofile-generate={work}", *NOTING_FLAGS)
                    )
                    _compile(verilator, compiler, work, runtime, tick, noting)
                    train(work / "weft.so")
                    kind = replace(kind, level=(*kind.level, f"-fprofile-use={work}", *TRAINED))
                _compile(verilator, compiler, work, runtime, tick, kind)
                os.replace(work / "weft.so", path)
    report("compile", 1.0)
    return path


@dataclass(frozen=True)
class _Kind:
    """Which library it is to be."""

    trace: bool
    coverage: bool
    level: tuple[str, ...]
    """The compiler's options for what runs in every cycle, and the linker's."""

    @property
    def options(self) -> tuple[str, ...]:
        """Verilator's."""
        waves = ("--trace-fst",) if self.trace else ()
        return (*waves, *(COVERAGE_FLAGS if self.coverage else ()))

    @property
    def defines(self) -> tuple[str, ...]:
        """The compiler's for all of the C++."""
        waves = (f"-DVM_TRACE={self.trace:d}", f"-DVM_TRACE_FST={self.trace:d}")
        return (*waves, f"-DVM_COVERAGE={self.coverage:d}")


def _verilate(
    verilator: Verilator,
    text: str,
    bus_bytes: int,
    counters: Sequence[str],
    work: Path,
    kind: _Kind,
) -> None:
    defines = {"WEFT_BUS": str(bus_bytes), "WEFT_COUNTERS": str(max(1, len(counters)))}
    if counters:
        names = (f"weft.counters.counts__{name}" for name in reversed(counters))
        defines["WEFT_COUNTS"] = f"{{{', '.join(names)}}}"
    source = work / "weft.v"
    source.write_text(text)
    done = subprocess.run(
        [
            str(verilator.command),
            *VERILATOR_FLAGS,
            *kind.options,
            *(f"-D{name}={value}" for name, value in defines.items()),
            *("--Mdir", str(work), str(DRIVER[-1]), str(source)),
        ],
        env=verilator.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DeviceError(f"Verilator refuses the design: {first_error(done.stderr)}")


def _compile(
    verilator: Verilator,
    compiler: Compiler,
    work: Path,
    runtime: Runtime,
    tick: Callable[[], None],
    kind: _Kind,
) -> None:
    generated = {path for path in work.glob("Vweft*.cpp") if not path.stem.endswith("_whole")}
    once = {path for path in generated if path.stem.endswith("__Slow")}
    large = {path for path in generated - once if path.stat().st_size > LARGE_BYTES}
    flags = (f"-I{work}", *kind.defines)
    objects: list[Path] = []
    jobs: list[subprocess.Popen[str]] = []
    for name, sources, level in (
        *((path.stem, [path], kind.level) for path in sorted(large)),
        ("rest", [*sorted(generated - once - large), DRIVER[0]], kind.level),
        ("once", sorted(once), ONCE_FLAGS),
    ):
        whole, target = work / f"{name}_whole.cpp", work / f"{name}_whole.o"
        objects.append(target)
        if level is ONCE_FLAGS and target.exists():
            continue  # the first compilation's serves the second
        whole.write_text("".join(f'#include "{path}"\n' for path in sources))
        jobs.append(start_compiler(verilator, compiler, whole, target, (*level, *flags)))
    try:
        for job in jobs:
            wait(job, tick)
        objects += runtime.objects(tick)
    finally:
        kill(jobs)
    done = subprocess.run(
        [
            *compiler.command,
            *("-shared", "-Wl,-z,defs", "-pthread", "-o", str(work / "weft.so"), *kind.level),
            *map(str, objects),
            *runtime.libraries,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DeviceError(f"the linker fails: {first_error(done.stderr)}")


def _ticker(report: Progress) -> Callable[[], None]:
    """Says ``compile`` with a fraction that time alone drives."""
    started = time.monotonic()

    def tick() -> None:
        part = 1 - math.exp((started - time.monotonic()) / COMPILE_SECONDS)
        report("compile", VERILATED + (0.99 - VERILATED) * part)

    tick()
    return tick


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time builds a file; the others then find it built."""
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


__all__ = ["Progress", "Tool", "build", "find_tools", "toolchain_key"]
