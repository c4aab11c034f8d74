"""The executors of a program side by side: what the fuzzer asks of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ...isa.config import AcceleratorConfig
from ...isa.golden import GoldenModel
from ...isa.instructions import Instruction
from ...isa.memories import MemoryType
from ..device import Device
from ..functional import FunctionalDevice
from ..library import library
from ..rtl import RtlDevice
from .footprint import Footprints
from .outcome import Outcome, on_device, on_golden
from .program import BLANK, DRAM_BYTES, Program, program_of

if TYPE_CHECKING:
    from ...hw.form import Form

MOST_CYCLES = 20_000_000
"""Of one program; the longest takes far fewer."""


class Executor(ABC):
    """Runs programs one after another; scratchpads stay from one to the next."""

    @abstractmethod
    def run(self, program: Program) -> Outcome:
        """What becomes of a program."""

    @abstractmethod
    def reset(self) -> None:
        """Scratchpads to zero, faults cleared."""

    def break_off(self, program: Program, cycles: int) -> None:
        """A program, ended by ``rst`` after so many cycles; scratchpads to zero."""
        self.reset()

    def close(self) -> None:  # noqa: B027  # most have nothing to give back
        """Give back what it holds."""


class GoldenExecutor(Executor):
    """The golden model."""

    def __init__(self, config: AcceleratorConfig):
        self.model = GoldenModel(config, DRAM_BYTES)

    def run(self, program: Program) -> Outcome:
        """What the golden model makes of a program."""
        return on_golden(program, self.model)

    def reset(self) -> None:
        """Scratchpads to zero."""
        self.model.reset()


class DeviceExecutor(Executor):
    """A device."""

    def __init__(self, device: Device):
        self.device = device

    def run(self, program: Program) -> Outcome:
        """What the device makes of a program."""
        return on_device(program, self.device, reset=False)

    def reset(self) -> None:
        """Scratchpads to zero, faults cleared."""
        self.device.reset()

    def close(self) -> None:
        """Close the device."""
        self.device.close()


class RtlExecutor(DeviceExecutor):
    """The RTL, whose ``rst`` may come at any time.

    Of a device that is ``kept`` for others, scratchpads are zeroed by a program, which takes a
    moment; one's own is powered off and on.
    """

    device: RtlDevice

    def __init__(self, device: RtlDevice, *, kept: bool = False):
        super().__init__(device)
        self.kept = kept
        if kept:
            self.reset()

    def reset(self) -> None:
        """Scratchpads to zero, faults cleared."""
        if not self.kept:
            return super().reset()
        self.device.break_off(0, 0, 0)
        self._wipe()

    def close(self) -> None:
        """Close the device, if it is this executor's own."""
        if not self.kept:
            super().close()

    def break_off(self, program: Program, cycles: int) -> None:
        """Launch it, pulse ``rst``, then load zeros everywhere."""
        self.device.write(0, program.image)
        self.device.break_off(program.address, program.count, cycles)
        self._wipe()

    def _wipe(self) -> None:
        wiping = wiping_program(self.device.config)
        self.device.write(0, wiping.image)
        self.device.run(wiping.address, wiping.count)


@lru_cache(maxsize=4)
def wiping_program(config: AcceleratorConfig) -> Program:
    """Loads zeros into every scratchpad."""
    footprints, wiped = Footprints(config, program_of(config, []).image), set[str]()
    words: list[int] = []
    for operation in footprints.instructions.operations.values():
        memory = operation.moved
        if memory is None or memory.type is MemoryType.OUT or memory.scratchpad in wiped:
            continue
        wiped.add(memory.scratchpad)
        zeros = {"dram_base": -(-BLANK // memory.element_bytes(config)), "x_size": 1}
        done, depth = 0, memory.depth(config)
        most = footprints.instructions.layouts[operation.format.opcode].by_name["y_size"].greatest
        while done < depth:
            rows = min(most, depth - done)
            box = {**zeros, "y_size": rows, "sram_base": done}
            words.append(footprints.instructions.encode(Instruction(operation.name, box)))
            done += rows
    # FINISH waits for every engine, so that nothing needs tokens.
    words.append(footprints.instructions.encode(Instruction("finish")))
    return program_of(config, words)


@dataclass(frozen=True)
class Setup:
    """A machine, its memory's latency and stalls; or a device of the RTL that has its own."""

    config: AcceleratorConfig
    latency: int = 1
    stall_seed: int | None = None
    device: RtlDevice | None = None


def _functional(setup: Setup) -> Executor:
    return DeviceExecutor(FunctionalDevice(setup.config, dram_bytes=DRAM_BYTES))


def _rtl(setup: Setup, form: Form = "simulation") -> Executor:
    if setup.device is not None:
        return RtlExecutor(setup.device, kept=True)
    device = RtlDevice(
        setup.config,
        dram_bytes=DRAM_BYTES,
        dram_latency=setup.latency,
        stall_seed=setup.stall_seed,
        timeout_cycles=MOST_CYCLES,
        built=library(setup.config, form=form),
    )
    return RtlExecutor(device)


COMPARED = ("golden", "functional", "rtl")
"""Which are, if nothing else is said."""
EXECUTORS: dict[str, Callable[[Setup], Executor]] = {
    "golden": lambda setup: GoldenExecutor(setup.config),
    "functional": _functional,
    "rtl": _rtl,
    "circuit": lambda setup: _rtl(setup, "synthesis"),
}
"""How each executor is made; ``circuit`` is the RTL in the form for synthesis.

The first of those that are compared is the oracle of the others.
"""
