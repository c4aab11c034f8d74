"""Running the C++ compiler, and the objects of Verilator's runtime, compiled once and kept."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ..isa.errors import DeviceError
from .paths import cache_directory
from .toolchain import Compiler, Verilator, wave_flags

COMMON_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", "-DVL_USER_FATAL")
"""Hidden, because several libraries with the same names live in one process."""
RUNTIME_FLAGS = ("-O1",)
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
WAVE_RUNTIME = ("verilated_fst_c.cpp",)
COVERAGE_RUNTIME = ("verilated_cov.cpp",)
PACKING = tuple(Path(__file__).parent / name for name in ("lz4.h", "zlib.h"))


def folder() -> Path:
    """Where the libraries are kept; made if it does not exist."""
    path = cache_directory() / "rtl"
    path.mkdir(parents=True, exist_ok=True)
    return path


def building() -> tempfile.TemporaryDirectory[str]:
    """A place for what is not whole yet.

    Whatever a compiler that was broken off still writes goes with it or finds it gone.
    """
    return tempfile.TemporaryDirectory(prefix=".build-", dir=folder(), ignore_cleanup_errors=True)


def key_of(*parts: str) -> str:
    """A file name's worth of hash, of everything that decides what the file contains."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Runtime:
    """Verilator's runtime as object files, compiling in the background from the start."""

    def __init__(
        self, verilator: Verilator, compiler: Compiler, *, trace: bool, coverage: bool = False
    ):
        key = key_of(
            verilator.identity,
            compiler.identity,
            repr((COMMON_FLAGS, RUNTIME_FLAGS)),
            *(path.read_text() for path in PACKING),
        )
        compiling, self.libraries = wave_flags(verilator, compiler) if trace else ((), ())
        self._objects: list[Path] = []
        self._jobs: list[tuple[subprocess.Popen[str], Path, Path]] = []
        self._work = building()
        wanted = (*RUNTIME, *(WAVE_RUNTIME if trace else ()))
        for name in (*wanted, *(COVERAGE_RUNTIME if coverage else ())):
            target = folder() / f"{key}-{name}.o"
            self._objects.append(target)
            if not target.exists():
                partial = Path(self._work.name) / target.name
                source = verilator.root / "include" / name
                flags = (*RUNTIME_FLAGS, *compiling)
                job = start_compiler(verilator, compiler, source, partial, flags)
                self._jobs.append((job, partial, target))

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: object) -> None:
        kill([job for job, _, _ in self._jobs])
        self._work.cleanup()

    def objects(self, tick: Callable[[], None]) -> list[Path]:
        """The object files, once they are there."""
        while self._jobs:
            job, partial, target = self._jobs[0]
            wait(job, tick)
            os.replace(partial, target)
            self._jobs.pop(0)
        return self._objects


def start_compiler(
    verilator: Verilator, compiler: Compiler, source: Path, target: Path, flags: tuple[str, ...]
) -> subprocess.Popen[str]:
    """Begin to compile a C++ file, with Verilator's headers; see :func:`wait`."""
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
        process_group=0,
    )


def wait(job: subprocess.Popen[str], tick: Callable[[], None]) -> None:
    """Until a compiler is done, calling ``tick`` now and then; :class:`DeviceError` if it fails."""
    while True:
        try:
            _, errors = job.communicate(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            tick()
    if job.returncode:
        raise DeviceError(f"the C++ compiler fails: {first_error(errors)}")


def kill(jobs: Iterable[subprocess.Popen[str]]) -> None:
    """End what has not ended by itself, because the build was broken off.

    A compiler is a group of processes: its driver does not take the others with it.
    """
    for job in jobs:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        if job.stderr is not None:
            job.stderr.close()


def first_error(text: str) -> str:
    """The line of a tool's output that says what is wrong."""
    lines = text.strip().splitlines() or ["it says nothing"]
    return next((line for line in lines if "error" in line.lower()), lines[-1]).strip()
