"""What lies around an engine that stands alone: DRAM behind an AXI port, and a clock."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from cocotb import start_soon
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiRamRead, AxiRamWrite, AxiReadBus, AxiResp, AxiWriteBus

from tests.cocotb.course import ENGINES, SCRATCHPADS
from tests.cocotb.memory import channels_of, ends, power_up, reset, rests, stall
from tests.programs import DRAM_BYTES

LONGEST_RUN = 200
"""Microseconds, a hundred cycles each."""
FILLED = ("uop", "acc", "qnt")
"""Scratchpads in the compute engine, which another fills."""
INPUTS = {
    "fetch": ("start_valid", "start_payload", "o_ready"),
    "load": ("i_valid", "i_payload", *(f"{name}_ready" for name in SCRATCHPADS)),
    "compute": (
        *("i_valid", "i_payload", "inp_data", "wgt_data"),
        *(f"store_{name}_{pin}" for name in ("acc", "qnt") for pin in ("enable", "address")),
        *(f"load_{name}_{pin}" for name in FILLED for pin in ("valid", "address", "mask", "data")),
    ),
    "store": (
        "i_valid",
        "i_payload",
        "acc_data",
        "acc_ready",
        "qnt_data",
        "qnt_ready",
        "inp_ready",
    ),
}
"""Pins that are 0 until somebody drives them."""


class Surroundings:
    """Everything rests in a fraction ``stalls`` of the cycles: channels, givers, takers.

    ``error`` is what the bus answers beyond the memory.
    """

    def __init__(
        self,
        dut: Any,
        engine: str,
        stalls: float = 0.0,
        seed: int = 0,
        error: AxiResp = AxiResp.SLVERR,
    ):
        self.dut, self.engine = dut, engine
        power_up(dut)
        for other in ENGINES:
            for name in INPUTS[other]:
                getattr(dut, f"{other}_{name}").value = 0
        bus, ram = (AxiWriteBus, AxiRamWrite) if engine == "store" else (AxiReadBus, AxiRamRead)
        pins = bus.from_prefix(dut, f"{engine}_axi")
        self.memory = ram(pins, dut.clk, dut.rst, size=DRAM_BYTES)
        ends(self.memory, error)
        stall(channels_of(self.memory), stalls, seed)
        self._rests = rests(stalls, seed << 8 | 99)
        self.random = Random(seed)
        self.tasks: list[Any] = []

    def pin(self, name: str) -> Any:
        """A pin of the engine."""
        return getattr(self.dut, f"{self.engine}_{name}")

    def pins(self, prefix: str, *names: str) -> list[Any]:
        """Those of one of its interfaces."""
        return [self.pin(f"{prefix}_{name}") for name in names]

    async def reset(self) -> None:
        """Ends what goes on, inside and around."""
        for task in self.tasks:
            task.cancel()
        self.tasks = []
        for name in INPUTS[self.engine]:
            self.pin(name).value = 0
        await reset(self.dut, self.random.randrange(1, 4))

    def rests(self) -> bool:
        """Whether to rest in this cycle."""
        return next(self._rests)

    async def rest(self) -> None:
        """As many cycles as the stalls say, often none."""
        while self.rests():
            await RisingEdge(self.dut.clk)

    async def give(self, stream: str, payloads: Sequence[int]) -> None:
        """Offers values on a stream of the engine, one after the other."""
        payload, valid, ready = self.pins(stream, "payload", "valid", "ready")
        for value in payloads:
            await self.rest()
            payload.value = value
            valid.value = 1
            await RisingEdge(self.dut.clk)
            while not ready.value:
                await RisingEdge(self.dut.clk)
            valid.value = 0


class FetchBench(Surroundings):
    """Fetch, whose instructions need not mean anything."""

    async def start(self) -> None:
        """Resets it."""
        await self.reset()
        self.taken: list[int] = []
        self.tasks = [start_soon(self._take())]

    async def launch(self, address: int, words: Sequence[int], count: int) -> None:
        """Puts ``words`` into memory, has ``count`` fetched, and does not wait for them."""
        for number, word in enumerate(words):
            self.memory.write(address + 16 * number, word.to_bytes(16, "little"))
        self.taken.clear()
        await self.give("start", [count << 32 | address])

    async def run(
        self, address: int, words: Sequence[int], count: int
    ) -> tuple[list[int], int | None]:
        """What it delivers, and the place of the fault if there is one."""
        await self.launch(address, words, count)
        await with_timeout(self._end(), LONGEST_RUN, "us")
        await ClockCycles(self.dut.clk, 20)
        fault = int(self.pin("fault_index").value) if self.pin("fault_valid").value else None
        return list(self.taken), fault

    async def _end(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            if self.pin("idle").value or self.pin("fault_valid").value:
                return

    async def _take(self) -> None:
        payload, valid, ready = self.pins("o", "payload", "valid", "ready")
        while True:
            ready.value = takes = not self.rests()
            await RisingEdge(self.dut.clk)
            if takes and valid.value:
                self.taken.append(int(payload.value))
