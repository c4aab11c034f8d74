"""The contract that every simulator keeps, and later every board."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ..isa.config import PAGE_BYTES, AcceleratorConfig
from ..isa.errors import ConfigError, DataError, DeviceError
from ..isa.formats import INSTRUCTION_BYTES

DEFAULT_DRAM_BYTES = 256 << 20
DEFAULT_DRAM_LATENCY = 40
"""Cycles from a read request to its first beat in every figure that the project publishes."""
DEFAULT_TIMEOUT_CYCLES = 10_000_000_000
LARGEST_DRAM = 1 << 32
"""Bytes that 32 address bits reach."""


def check_options(dram_bytes: int, dram_latency: int, timeout_cycles: int) -> None:
    """:class:`ConfigError` if an option that every simulator takes is out of range."""
    for name, value, most in (
        ("dram_bytes", dram_bytes, LARGEST_DRAM),
        ("dram_latency", dram_latency, 1 << 20),
        ("timeout_cycles", timeout_cycles, 1 << 62),
    ):
        if not 1 <= value <= most:
            raise ConfigError(f"{name} must be from 1 to {most}, not {value}")


def empty_dram(size: int) -> np.ndarray:
    """``size`` bytes of zeros, rounded up to whole pages; untouched ones take no memory."""
    return np.zeros(-(-size // PAGE_BYTES) * PAGE_BYTES, np.uint8)


@dataclass(frozen=True)
class Mark:
    """A moment of a program's run.

    Attributes
    ----------
    counters : mapping
        As in :class:`RunResult`, up to here; empty where there is no time.
    seconds : float
        Wall time since the launch.
    """

    counters: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class RunResult:
    """What a program's run cost.

    Attributes
    ----------
    cycles : int
        From the launch to the completion of FINISH. The functional simulator does not model
        time and says 0.
    counters : mapping
        Values by the names of :data:`weft.isa.registers.COUNTERS`; the functional simulator has
        those that do not depend on time: instructions, steps and bytes.
    marks : tuple of Mark
        Those that were asked for.
    seconds : float
        Wall time.
    """

    cycles: int
    counters: Mapping[str, int] = field(default_factory=dict[str, int])
    marks: tuple[Mark, ...] = ()
    seconds: float = 0.0


class Device(ABC):
    """An accelerator with its DRAM, addresses from 0; a context manager.

    Scratchpads are zero after construction and after :meth:`reset`. They keep their contents
    from one program to the next.
    """

    config: AcceleratorConfig
    dram: np.ndarray
    """All of DRAM, ``uint8``, shared with the simulation."""

    def write(self, address: int, data: bytes | bytearray | memoryview | np.ndarray) -> None:
        """Copy bytes, or the bytes of a C-contiguous array, to DRAM.

        Raises
        ------
        DataError
            If they do not lie within DRAM, or the array is not C-contiguous.
        """
        if isinstance(data, np.ndarray):
            if not data.flags.c_contiguous:
                raise DataError("device.write takes a C-contiguous array")
            flat = data.reshape(-1).view(np.uint8)
        else:
            flat = np.frombuffer(data, np.uint8)
        self._check(address, flat.size)
        self.dram[address : address + flat.size] = flat

    def read(self, address: int, size: int) -> np.ndarray:
        """A copy of ``size`` bytes of DRAM, ``uint8``; :class:`DataError` if outside."""
        self._check(address, size)
        return self.dram[address : address + size].copy()

    def run(self, address: int, count: int, marks: Sequence[int] = ()) -> RunResult:
        """Execute ``count`` instructions at a byte address and wait for FINISH.

        Parameters
        ----------
        address, count : int
            The stream.
        marks : sequence of int
            Ascending: when the compute engine has completed so many of its instructions, a
            :class:`Mark` is made.

        Raises
        ------
        DataError
            If the stream does not lie within DRAM, or not at a multiple of 16.
        DeviceFault
            If the device stopped; only :meth:`reset` makes it run again.
        DeviceTimeout
            If ``timeout_cycles`` went by.
        """
        self._check(address, count * INSTRUCTION_BYTES)
        if address % INSTRUCTION_BYTES:
            raise DataError(
                f"an instruction stream starts at a multiple of {INSTRUCTION_BYTES}, "
                f"not at {address:#x}"
            )
        return self._run(address, count, tuple(marks))

    @abstractmethod
    def _run(self, address: int, count: int, marks: tuple[int, ...]) -> RunResult:
        """As :meth:`run`, with arguments that have been checked."""

    @abstractmethod
    def reset(self) -> None:
        """Scratchpads to zero, queues empty, faults cleared; DRAM keeps its contents."""

    def break_down(self, first: int, end: int) -> None:
        """Let the bus answer errors where a beat has bytes from ``first`` to before ``end``.

        Nothing of such beats is written. It lasts until the next call, whatever is reset; equal
        numbers mend it.

        Raises
        ------
        DeviceError
            If the device's memory cannot be told to.
        """
        raise DeviceError(f"the memory of a {type(self).__name__} does not break down on demand")

    @abstractmethod
    def close(self) -> None:
        """Give back what the simulation holds; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self, address: int, size: int) -> None:
        if address < 0 or size < 0 or address + size > self.dram.size:
            raise DataError(
                f"{size} bytes at {address:#x} are outside of DRAM, which has {self.dram.size}"
            )
