"""The whole accelerator in Amaranth's simulator, with DRAM and a host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from tests.hw.axi_bench import Dram, ReadChannels, WriteChannels
from tests.hw.axil_bench import Bus
from weft.hw.accelerator import Accelerator
from weft.isa import AcceleratorConfig, Instruction, InstructionSet
from weft.isa.registers import COUNTERS

PROGRAM = 0x8000
"""Where programs go, by default."""
DONE, FAULT = 2, 4


@lru_cache(maxsize=4)
def machine(config: AcceleratorConfig) -> Machine:
    """The machine of a configuration; making its simulator is what takes time."""
    return Machine(config)


class Machine:
    """An accelerator, its DRAM and its registers.

    Attributes
    ----------
    dut : Accelerator
    reset : Signal
        Resets it.
    dram, reads, writes : Dram, ReadChannels, WriteChannels
        Of the current simulation, as ``bus``, the registers.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.instructions = InstructionSet(config)
        self.dut = Accelerator(config, "simulation")
        self.reset = Signal()
        self._simulator = Simulator(ResetInserter(self.reset)(self.dut))
        self._simulator.add_clock(1e-6)
        self._simulator.add_process(self._read)
        self._simulator.add_process(self._write)
        self._simulator.add_testbench(self._main)
        self._used = False

    def simulate(self, testbench, dram: Dram, stall: float = 0.0) -> None:
        """From power-up, ``testbench(ctx, self)``; ``stall`` is for the bus of the registers."""
        self.dram = dram
        self.bus = Bus(self.dut.s_axil, stall=stall)
        self.reads = ReadChannels(self.dut.m_axi, dram)
        self.writes = WriteChannels(self.dut.m_axi, dram)
        self._testbench = testbench
        if self._used:
            self._simulator.reset()
        self._used = True
        self._simulator.run()

    async def _read(self, ctx):
        await self.reads.process(ctx)

    async def _write(self, ctx):
        await self.writes.process(ctx)

    async def _main(self, ctx):
        await self._testbench(ctx, self)

    def write(self, address: int, data: np.ndarray) -> None:
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self.dram.bytes[address : address + flat.size] = flat

    def read(self, address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.dram.bytes[address : address + size].view(dtype).reshape(shape).copy()

    def put_program(self, program: Sequence[Instruction | int], address: int = PROGRAM) -> None:
        words = [i if isinstance(i, int) else self.instructions.encode(i) for i in program]
        text = b"".join(word.to_bytes(16, "little") for word in words)
        self.write(address, np.frombuffer(text, np.uint8))

    async def run(self, ctx, program: Sequence[Instruction | int], address: int = PROGRAM) -> int:
        """Launch a program and wait for the interrupt; the status."""
        self.put_program(program, address)
        await self.bus.launch(ctx, address, len(program))
        for _ in range(5000):
            if ctx.get(self.dut.irq):
                break
            await ctx.tick()
        return await self.bus.get(ctx, "STATUS")

    async def fault(self, ctx) -> tuple[int, int, int]:
        """Code, engine and index."""
        value = await self.bus.get(ctx, "FAULT")
        return value & 0xFF, value >> 8, await self.bus.get(ctx, "FAULT_INDEX")

    async def counters(self, ctx) -> dict[str, int]:
        return {c.name: await self.bus.get(ctx, c.name.upper()) for c in COUNTERS}
