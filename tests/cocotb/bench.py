"""The accelerator between a host and DRAM, which know it by its pins alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

from tests.cocotb.memory import channels_of, ends, power_up, reset, stall
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
    """``stalls`` is the fraction of the cycles in which a channel of either bus rests.

    ``error`` is what the bus answers beyond the memory.
    """

    def __init__(
        self, dut: Any, stalls: float = 0.0, seed: int = 0, error: AxiResp = AxiResp.DECERR
    ):
        self.dut = dut
        power_up(dut)
        self.memory = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=DRAM_BYTES)
        halves = [self.memory.read_if, self.memory.write_if]
        for half in halves:
            ends(half, error)
        self._host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        halves += [self._host.read_if, self._host.write_if]
        stall([channel for half in halves for channel in channels_of(half)], stalls, seed)

    async def reset(self, cycles: int = 3) -> None:
        """The pin ``rst``."""
        await reset(self.dut, cycles)

    async def run(self, program: Program) -> Outcome:
        """A program on the memory that it comes with, as the device is."""
        await self.launch(program)
        if not self.dut.irq.value:
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
