"""The accelerator between a host and DRAM, which know it by its pins alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import cycle
from random import Random
from typing import Any

import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from tests.programs import DRAM_BYTES, Program
from weft.isa.faults import ENGINE_NAMES, FaultCode, device_fault
from weft.isa.golden import TIMELESS_COUNTERS
from weft.isa.registers import register
from weft.sim.fuzz.outcome import Outcome

LAUNCH, CLEAR = 1, 2
"""Bits of CONTROL."""
DONE, FAULT = 2, 4
"""Bits of STATUS."""
LONGEST_RUN = 300
"""Microseconds, a hundred cycles each."""


class Bench:
    """``stall`` is the fraction of the cycles in which a channel of either bus rests."""

    def __init__(self, dut: Any, stall: float = 0.0, seed: int = 0):
        self.dut = dut
        logging.getLogger("cocotb.weft").setLevel(logging.ERROR)  # errors of the bus are wanted
        self.memory = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=DRAM_BYTES)
        self.memory.write_if._write = self._within(self.memory.write_if.write)
        self.memory.read_if._read = self._within(self.memory.read_if.read)
        bus = AxiLiteBus.from_prefix(dut, "s_axil")
        self._host = AxiLiteMaster(bus, dut.clk, dut.rst)
        if stall:
            for number, channel in enumerate(self._channels()):
                channel.set_pause_generator(_rests(stall, seed << 8 | number))

    async def reset(self, cycles: int = 3) -> None:
        """Starts the clock when it does not run yet."""
        self.dut.rst.value = 1
        if not hasattr(self, "_clock"):
            self._clock = Clock(self.dut.clk, 10, "ns")
            self._clock.start(start_high=False)
        await ClockCycles(self.dut.clk, cycles)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)

    async def run(self, program: Program) -> Outcome:
        """A program on the memory that it comes with, as the device is."""
        await self.launch(program)
        await with_timeout(RisingEdge(self.dut.irq), LONGEST_RUN, "us")
        status = await self.get("STATUS")
        if status == FAULT:
            value = await self.get("FAULT")
            code, engine = FaultCode(value & 0xFF), ENGINE_NAMES[value >> 8]
            waiting = await self.get("WAITING")
            fault = device_fault(code, engine, await self.get("FAULT_INDEX"), waiting)
            return Outcome((code, engine, fault.index, fault.waiting))
        assert status == DONE
        counters = {name: await self.get(name.upper()) for name in TIMELESS_COUNTERS}
        image = np.frombuffer(self.memory.read(0, DRAM_BYTES), np.uint8)
        return Outcome(None, image, counters)

    async def launch(self, program: Program) -> None:
        """Does not wait for the end."""
        self.memory.write(0, program.image.tobytes())
        await self.put("CONTROL", CLEAR)
        assert not self.dut.irq.value
        await self.put("ADDRESS", program.address)
        await self.put("COUNT", program.count)
        await self.put("CONTROL", LAUNCH)

    async def get(self, name: str) -> int:
        """A register, all its words."""
        entry = register(name)
        data = (await self._host.read(entry.offset, 4 * entry.words)).data
        return int.from_bytes(data, "little")

    async def put(self, name: str, value: int) -> None:
        """A register of one word."""
        await self._host.write(register(name).offset, value.to_bytes(4, "little"))

    def _channels(self) -> list[Any]:
        return [
            getattr(half, f"{channel}_channel")
            for side in (self.memory, self._host)
            for half, channels in ((side.read_if, ("ar", "r")), (side.write_if, ("aw", "w", "b")))
            for channel in channels
        ]

    @staticmethod
    def _within(access: Any) -> Any:
        """The memory, but an exception beyond it, which becomes an error on the bus."""

        async def checked(address: int, what: Any) -> Any:
            if address >= DRAM_BYTES:
                raise IndexError(f"{address:#x} is beyond DRAM")
            return access(address, what)

        return checked


def _rests(stall: float, seed: int) -> Iterator[bool]:
    random = Random(seed)
    return cycle([random.random() < stall for _ in range(997)])
