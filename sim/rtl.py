"""The generated Verilog as a device: Verilator, a native clock loop, DRAM beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from pathlib import Path
from tempfile import NamedTemporaryFile

from ..isa.config import AcceleratorConfig
from ..isa.errors import DataError, DeviceError, DeviceTimeout
from ..isa.faults import ENGINE_NAMES, FAULT_TEXT, FaultCode, device_fault
from ..isa.formats import INSTRUCTION_BYTES
from ..isa.registers import COUNTERS, IDENTITY, VERSION, misattributed, register
from ..isa.spec import spec_hash
from .coverage import Coverage
from .device import (
    DEFAULT_DRAM_BYTES,
    DEFAULT_DRAM_LATENCY,
    DEFAULT_TIMEOUT_CYCLES,
    Device,
    Mark,
    RunResult,
    check_options,
    empty_dram,
)
from .driver import NEVER, Driver
from .library import library

SLICE_CYCLES = 1 << 18
"""Between two looks at Ctrl-C: a fraction of a second, and a call costs nothing against it."""
LAUNCH, CLEAR = 1, 2
"""Bits of CONTROL."""
DONE, FAULT = 2, 4
"""Bits of STATUS."""
COUNTER_NAMES = tuple(counter.name for counter in COUNTERS)


class RtlDevice(Device):
    """The RTL of ``config``, cycle by cycle; its buses' rules are checked in every cycle.

    The DRAM answers a read after ``dram_latency`` cycles and then sends a beat a cycle, with 16
    requests outstanding; a write's response comes 10 cycles after its last beat. Addresses
    beyond DRAM answer an error, which the device reports as a fault.

    Parameters
    ----------
    config : AcceleratorConfig
        What to simulate; built at the first connection, which takes some ten seconds.
    dram_bytes : int
        Rounded up to whole pages of 4096 bytes; at most 4 GiB. What is never touched costs
        nothing.
    dram_latency : int
        1 or more.
    stall_seed : int, optional
        Random stalls on every AXI channel, read beats interleaved between ids; the same for the
        same seed after every :meth:`reset`.
    timeout_cycles : int
        What a run may take.
    progress : callable, optional
        Told of a build's phases: name, fraction of the whole.
    wave : path, optional
        An FST file with the waves of everything until :meth:`reset` or :meth:`close`; the
        simulation is then slower by orders of magnitude.
    coverage : Coverage, optional
        Takes what the RTL executes, at every :meth:`reset` and :meth:`close`; the simulation is
        then slower.
    built : path, optional
        A library of this configuration to take instead of the cached one.

    Raises
    ------
    ConfigError
        If an option is out of range.
    DataError
        If ``wave`` cannot be written.
    MissingToolError
        If Verilator or a C++ compiler is missing.
    DeviceError
        If the build fails, or the library simulates something else than ``config``; from every
        method, if the device breaks a rule of AXI; from :meth:`run`, if the counters do not
        attribute every cycle of every engine.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        dram_bytes: int = DEFAULT_DRAM_BYTES,
        dram_latency: int = DEFAULT_DRAM_LATENCY,
        stall_seed: int | None = None,
        timeout_cycles: int = DEFAULT_TIMEOUT_CYCLES,
        progress: Callable[[str, float], None] | None = None,
        wave: str | PathLike[str] | None = None,
        coverage: Coverage | None = None,
        built: Path | None = None,
    ):
        check_options(dram_bytes, dram_latency, timeout_cycles)
        if wave is not None:
            _check_writable(Path(wave))
        self.config = config
        self.timeout_cycles = timeout_cycles
        self._stopped: str | None = None
        self._coverage = coverage
        path = built or library(
            config, trace=wave is not None, coverage=coverage is not None, progress=progress
        )
        self.dram = empty_dram(dram_bytes)
        self._driver = Driver(path, self.dram, dram_latency, stall_seed)
        self._check_identity()
        if wave is not None:
            self._driver.trace(Path(wave))

    def _run(self, address: int, count: int, marks: tuple[int, ...]) -> RunResult:
        if self._stopped is not None:
            raise DeviceError(f"{self._stopped}; only reset() makes it run again")
        self._stopped = "the device's last run was broken off"
        started = time.perf_counter()
        before = self._driver.completed
        self._launch(address, count)
        left = self.timeout_cycles
        made: list[Mark] = []
        interrupted = False
        while not interrupted:
            if len(made) < len(marks) and self._driver.completed - before >= marks[len(made)]:
                made.append(self._mark(time.perf_counter() - started))
                left -= 1
                continue
            if left == 0:
                self._stopped = f"the device was still running after {self.timeout_cycles} cycles"
                raise DeviceTimeout(
                    f"FINISH was not reached in {self.timeout_cycles} cycles "
                    f"({count} instructions at {address:#x})"
                )
            target = before + marks[len(made)] if len(made) < len(marks) else NEVER
            cycles, interrupted = self._driver.run(min(left, SLICE_CYCLES), target)
            left -= cycles
        writing = self._driver.writing
        status = self._read("STATUS")
        if status & FAULT:
            self._raise_fault()
        if not status & DONE:
            raise DeviceError(f"an interrupt, but STATUS is {status:#x}: neither done nor fault")
        if writing:
            raise DeviceError("the device says done before its last write was answered")
        self._stopped = None
        counters = self._counters()
        seconds = time.perf_counter() - started
        made += [Mark(counters, seconds)] * (len(marks) - len(made))
        return RunResult(counters["cycles"], counters, tuple(made), seconds)

    def _mark(self, seconds: float) -> Mark:
        values = self._driver.mark(len(COUNTER_NAMES))
        return Mark(_attributed(dict(zip(COUNTER_NAMES, values, strict=True))), seconds)

    def _counters(self) -> dict[str, int]:
        """All counters of a run that has ended."""
        return _attributed({name: self._read(name.upper()) for name in COUNTER_NAMES})

    def reset(self) -> None:
        """Scratchpads to zero, queues empty, faults cleared; DRAM stays. Waves end here."""
        self._cover()
        self._driver.renew()
        self._stopped = None

    def break_down(self, first: int, end: int) -> None:
        """Let the bus answer errors there; see :meth:`Device.break_down`."""
        self._driver.break_down(first, end)

    def break_off(self, address: int, count: int, cycles: int) -> None:
        """Launch a program, let that many cycles pass, and pulse the ``rst`` pin.

        Unlike :meth:`reset` this leaves the scratchpads as they are. Without cycles nothing is
        launched.
        """
        if cycles:
            self._check(address, count * INSTRUCTION_BYTES)
            self._launch(address, count)
            self._driver.run(cycles)
        self._driver.reset()
        self._stopped = None

    def close(self) -> None:
        """Give back what the simulation holds; may be called twice."""
        self._cover()
        self._driver.close()
        self._stopped = "the device is closed"

    def _cover(self) -> None:
        """Hand over what was executed, unless the device is closed or broken."""
        if self._coverage is None:
            return
        with NamedTemporaryFile(suffix=".dat") as file, suppress(DeviceError):
            self._driver.cover(Path(file.name))
            self._coverage.add(Path(file.name).read_text())

    def _launch(self, address: int, count: int) -> None:
        self._write("CONTROL", CLEAR)
        status = self._read("STATUS")
        if status:
            raise DeviceError(f"STATUS is {status:#x} before a launch, not 0")
        self._write("ADDRESS", address)
        self._write("COUNT", count)
        self._write("CONTROL", LAUNCH)

    def _raise_fault(self) -> None:
        self._counters()
        fault = self._read("FAULT")
        code, engine = fault & 0xFF, ENGINE_NAMES[fault >> 8 & 3]
        if code not in FAULT_TEXT:
            raise DeviceError(f"a fault of unknown code {code} from {engine}")
        error = device_fault(
            FaultCode(code), engine, self._read("FAULT_INDEX"), self._read("WAITING")
        )
        self._stopped = f"the device stopped with a fault: {error}"
        raise error

    def _check_identity(self) -> None:
        for name, expected in (
            ("ID", IDENTITY),
            ("VERSION", VERSION),
            ("SPEC", int(spec_hash(self.config), 16)),
        ):
            found = self._read(name)
            if found != expected:
                width = 2 + 8 * register(name).words
                raise DeviceError(
                    f"the device's {name} is {found:#0{width}x}, not {expected:#0{width}x}"
                )

    def _read(self, name: str) -> int:
        """A register's value, of both words if it has two."""
        entry = register(name)
        return sum(
            self._driver.read_register(entry.offset + 4 * word) << 32 * word
            for word in range(entry.words)
        )

    def _write(self, name: str, value: int) -> None:
        self._driver.write_register(register(name).offset, value)


def _attributed(counters: dict[str, int]) -> dict[str, int]:
    """The same counters; :class:`DeviceError` if they do not account for every cycle."""
    if wrong := misattributed(counters):
        raise DeviceError(f"the counters are wrong: {wrong}")
    return counters


def _check_writable(path: Path) -> None:
    try:
        path.open("ab").close()
    except OSError as error:
        raise DataError(f"cannot write waves to {path}: {error.strerror}") from None
