"""Verilog into a shared library that simulates it, kept by its content.

The library is Verilator's C++ of the module ``weft`` in its bench, ``driver.cpp``, and Verilator's
runtime, which is compiled once for every compiler and kept too.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..isa.errors import DeviceError
from .paths import cache_directory
from .toolchain import (
    Compiler,
    Tool,
    Verilator,
    find_compiler,
    find_tools,
    find_verilator,
    wave_flags,
)

Progress = Callable[[str, float], None]
"""Told of a build's phases: the name, and the fraction of the whole build that is done."""

DRIVER = tuple(
    Path(__file__).parent / name for name in ("driver.cpp", "dram.h", "handshake.h", "bench.v")
)  # fmt: skip
PACKING = tuple(Path(__file__).parent / name for name in ("lz4.h", "zlib.h"))
VERILATOR_FLAGS = (
    *("--cc", "--top-module", "bench", "--prefix", "Vweft", "-O3", "--noassert", "-Wno-lint"),
    *("--x-assign", "fast", "--x-initial", "fast"),
)
COMMON_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", "-DVL_USER_FATAL")
"""Hidden, because several libraries with the same names live in one process."""
MODEL_FLAGS = ("-O3",)
ONCE_FLAGS = ("-O0",)
"""For the half of Verilator's C++ that runs at power-up only."""
LARGE_BYTES = 1 << 17
"""C++ files from this size on are compiled each for itself, at the same time."""
RUNTIME_FLAGS = ("-O1",)
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
WAVE_RUNTIME = ("verilated_fst_c.cpp",)
GENERATED, VERILATED = 0.3, 0.35
"""Fractions of a build's time after these phases; the rest is compiling."""
COMPILE_SECONDS = 15.0
"""What progress is shown by while the compiler says nothing."""


def folder() -> Path:
    """Where the libraries are kept; made if it does not exist."""
    path = cache_directory() / "rtl"
    path.mkdir(parents=True, exist_ok=True)
    return path


def toolchain_key(*, trace: bool) -> str:
    """A hash of everything but the Verilog that decides what a library contains."""
    verilator, compiler = find_verilator(), find_compiler()
    return _hash(
        verilator.identity,
        compiler.identity,
        repr((VERILATOR_FLAGS, COMMON_FLAGS, MODEL_FLAGS, ONCE_FLAGS, RUNTIME_FLAGS, trace)),
        *(path.read_text() for path in (*DRIVER, *PACKING)),
    )


def build(
    verilog: str | Callable[[], str],
    bus_bytes: int,
    *,
    trace: bool = False,
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
    trace : bool
        With waves: a slower library of its own, which can write FST files.
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
    with _Runtime(verilator, compiler, trace=trace) as runtime:
        text = verilog if isinstance(verilog, str) else verilog()
        path = folder() / f"{_hash(text, str(bus_bytes), toolchain_key(trace=trace))}.so"
        with _lock(path):
            if path.exists():
                return path
            with tempfile.TemporaryDirectory(prefix=".build-", dir=folder()) as name:
                work = Path(name)
                report("verilate", GENERATED)
                _verilate(verilator, text, bus_bytes, work, trace=trace)
                _compile(verilator, compiler, work, runtime, _ticker(report), trace=trace)
                os.replace(work / "weft.so", path)
    report("compile", 1.0)
    return path


def _verilate(verilator: Verilator, text: str, bus_bytes: int, work: Path, *, trace: bool) -> None:
    source = work / "weft.v"
    source.write_text(text)
    done = subprocess.run(
        [
            str(verilator.command),
            *VERILATOR_FLAGS,
            *(["--trace-fst"] if trace else []),
            *(f"-DWEFT_BUS={bus_bytes}", "--Mdir", str(work), str(DRIVER[-1]), str(source)),
        ],
        env=verilator.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DeviceError(f"Verilator refuses the design: {_first_error(done.stderr)}")


def _compile(
    verilator: Verilator,
    compiler: Compiler,
    work: Path,
    runtime: _Runtime,
    tick: Callable[[], None],
    *,
    trace: bool,
) -> None:
    generated = set(work.glob("Vweft*.cpp"))
    once = {path for path in generated if path.stem.endswith("__Slow")}
    large = {path for path in generated - once if path.stat().st_size > LARGE_BYTES}
    flags = (f"-I{work}", f"-DVM_TRACE={trace:d}", f"-DVM_TRACE_FST={trace:d}")
    objects: list[Path] = []
    jobs: list[subprocess.Popen[str]] = []
    for name, sources, level in (
        *((path.stem, [path], MODEL_FLAGS) for path in sorted(large)),
        ("rest", [*sorted(generated - once - large), DRIVER[0]], MODEL_FLAGS),
        ("once", sorted(once), ONCE_FLAGS),
    ):
        whole, target = work / f"{name}_whole.cpp", work / f"{name}_whole.o"
        whole.write_text("".join(f'#include "{path}"\n' for path in sources))
        jobs.append(_start_compiler(verilator, compiler, whole, target, (*level, *flags)))
        objects.append(target)
    try:
        for job in jobs:
            _wait(job, tick)
        objects += runtime.objects(tick)
    finally:
        _kill(jobs)
    done = subprocess.run(
        [
            *compiler.command,
            *("-shared", "-Wl,-z,defs", "-pthread", "-o", str(work / "weft.so")),
            *map(str, objects),
            *runtime.libraries,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DeviceError(f"the linker fails: {_first_error(done.stderr)}")


class _Runtime:
    """Verilator's runtime as object files, compiling in the background from the start."""

    def __init__(self, verilator: Verilator, compiler: Compiler, *, trace: bool):
        key = _hash(
            verilator.identity,
            compiler.identity,
            repr((COMMON_FLAGS, RUNTIME_FLAGS)),
            *(path.read_text() for path in PACKING),
        )
        compiling, self.libraries = wave_flags(verilator, compiler) if trace else ((), ())
        self._objects: list[Path] = []
        self._jobs: list[tuple[subprocess.Popen[str], Path, Path]] = []
        for name in (*RUNTIME, *WAVE_RUNTIME) if trace else RUNTIME:
            target = folder() / f"{key}-{name}.o"
            self._objects.append(target)
            if not target.exists():
                partial = target.with_suffix(f".{os.getpid()}-{threading.get_ident()}.o")
                source = verilator.root / "include" / name
                flags = (*RUNTIME_FLAGS, *compiling)
                job = _start_compiler(verilator, compiler, source, partial, flags)
                self._jobs.append((job, partial, target))

    def __enter__(self) -> _Runtime:
        return self

    def __exit__(self, *exception: object) -> None:
        _kill([job for job, _, _ in self._jobs])
        for _, partial, _ in self._jobs:
            partial.unlink(missing_ok=True)

    def objects(self, tick: Callable[[], None]) -> list[Path]:
        """The object files, once they are there."""
        while self._jobs:
            job, partial, target = self._jobs[0]
            _wait(job, tick)
            os.replace(partial, target)
            self._jobs.pop(0)
        return self._objects


def _start_compiler(
    verilator: Verilator, compiler: Compiler, source: Path, target: Path, flags: tuple[str, ...]
) -> subprocess.Popen[str]:
    include = verilator.root / "include"
    return subprocess.Popen(
        [
            *compiler.command,
            *(*COMMON_FLAGS, *compiler.machine_flags, *flags),
            *(f"-I{include}", f"-I{include / 'vltstd'}"),
            *("-c", str(source), "-o", str(target)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )


def _ticker(report: Progress) -> Callable[[], None]:
    """Says ``compile`` with a fraction that time alone drives."""
    started = time.monotonic()

    def tick() -> None:
        part = 1 - math.exp((started - time.monotonic()) / COMPILE_SECONDS)
        report("compile", VERILATED + (0.99 - VERILATED) * part)

    tick()
    return tick


def _wait(job: subprocess.Popen[str], tick: Callable[[], None]) -> None:
    """Until a compiler is done."""
    while True:
        try:
            _, errors = job.communicate(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            tick()
    if job.returncode:
        raise DeviceError(f"the C++ compiler fails: {_first_error(errors)}")


def _kill(jobs: Iterable[subprocess.Popen[str]]) -> None:
    """End what has not ended by itself, because the build was broken off."""
    for job in jobs:
        job.kill()
        job.wait()
        if job.stderr is not None:
            job.stderr.close()


def _first_error(text: str) -> str:
    lines = text.strip().splitlines() or ["it says nothing"]
    return next((line for line in lines if "error" in line.lower()), lines[-1]).strip()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time builds a file; the others then find it built."""
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


__all__ = ["Progress", "Tool", "build", "find_tools", "toolchain_key"]
