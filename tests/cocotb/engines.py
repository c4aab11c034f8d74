"""What happens to each engine alone; runs inside the simulator, see ``test_pins``.

An engine gets its instructions of the program in ``program.py`` in a row, and what other engines
would have put into its scratchpads stands there already: in :class:`Expected`.
"""

from __future__ import annotations

from random import Random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiRamRead, AxiRamWrite, AxiReadBus, AxiResp, AxiWriteBus

from tests.cocotb.memory import channels_of, ends, power_up, reset, rests, stall
from tests.cocotb.program import BEYOND, CONFIG, ROWS, program
from tests.programs import DRAM_BYTES, Program
from weft.isa import InstructionSet
from weft.isa.faults import FaultCode
from weft.isa.golden import GoldenModel
from weft.isa.interpret import interpret

LONGEST_RUN = 100
"""Microseconds, a hundred cycles each."""
ENGINES = ("fetch", "load", "compute", "store")
MOVED = {"fetch": "program", "load": "inp", "compute": "acc", "store": "stored"}
"""What lies beyond DRAM to give an engine an error, by the names of :func:`program`."""


class Expected:
    """What the meanings make of a program whose engines run one after another.

    Attributes
    ----------
    own : dict
        Of each engine its instructions: index and word.
    arrays : dict
        The scratchpads in the end, by name, an ``int`` for each element.
    dram : array
        What memory holds then.
    """

    def __init__(self, program: Program):
        model, instructions = GoldenModel(CONFIG, DRAM_BYTES), InstructionSet(CONFIG)
        model.dram[:] = program.image
        self.own: dict[str, list[tuple[int, int]]] = {name: [] for name in ENGINES}
        for index, word in enumerate(program.words):
            operation = instructions.operations[instructions.decode(word).operation]
            if operation.name != "finish":
                self.own[operation.engine.value].append((index, word))
        for name in ENGINES:
            for _, word in self.own[name]:
                instruction = instructions.decode(word)
                nest = instructions.meaning(instruction.operation)
                interpret(nest, instruction.operands, model.arrays)
        self.arrays = {
            name: [int.from_bytes(row.tobytes(), "little") for row in model.arrays[name]]
            for name in ("inp", "wgt", "acc", "qnt")
        }
        self.dram = model.dram


class Bench:
    """An engine between what it would find around it.

    Attributes
    ----------
    done : int
        Instructions that it has completed; of fetch, those that it has delivered.
    written : dict
        What is in the scratchpads that it writes.
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
        bus, ram = (AxiWriteBus, AxiRamWrite) if engine == "store" else (AxiReadBus, AxiRamRead)
        pins = bus.from_prefix(dut, f"{engine}_axi")
        self.memory = ram(pins, dut.clk, dut.rst, size=DRAM_BYTES)
        ends(self.memory, error)
        stall(channels_of(self.memory), stalls, seed)
        self._rests = rests(stalls, seed << 8 | 99)
        self._tasks: list[Any] = []

    def pin(self, name: str) -> Any:
        """A pin of the engine."""
        return getattr(self.dut, f"{self.engine}_{name}")

    async def run(self, program: Program, expected: Expected) -> tuple[int, int] | None:
        """From reset to the last completion; the code and the index of the fault, if there is one.

        The results are compared with what is expected.
        """
        await self.start(program, expected)
        count = program.count if self.engine == "fetch" else len(expected.own[self.engine])
        await with_timeout(self._end(count), LONGEST_RUN, "us")
        if self.pin("fault_valid").value:
            return int(self.pin("fault_code").value), int(self.pin("fault_index").value)
        await self._compare(program, expected)
        return None

    async def start(self, program: Program, expected: Expected) -> None:
        """Resets the engine and gives it its instructions."""
        for task in self._tasks:
            task.cancel()
        self.done, self.words = 0, []
        self.written: dict[str, dict[int, int]] = {"inp": {}, "wgt": {}}
        inputs = {"fetch": ("start_valid", "o_ready"), "compute": ("i_valid", "store_acc_enable")}
        for name in (*inputs.get(self.engine, ("i_valid",)),):
            self.pin(name).value = 0
        if self.engine == "compute":
            self.pin("store_qnt_enable").value = 0
        await reset(self.dut)
        self.memory.write(0, program.image.tobytes())
        if self.engine == "fetch":
            payload = [program.count << 32 | program.address]
            self._tasks = [cocotb.start_soon(self._give("start", payload))]
            self._tasks.append(cocotb.start_soon(self._take()))
            return
        payload = [index << 128 | word for index, word in expected.own[self.engine]]
        self._tasks = [cocotb.start_soon(self._give("i", payload))]
        self._tasks.append(cocotb.start_soon(self._count()))
        reads = {"compute": ("inp", "wgt"), "store": ("acc", "qnt")}.get(self.engine, ())
        self._tasks += [cocotb.start_soon(self._hold(n, expected.arrays[n])) for n in reads]
        writes = self.written if self.engine == "load" else ()
        self._tasks += [cocotb.start_soon(self._keep(name)) for name in writes]

    async def _give(self, stream: str, payloads: list[int]) -> None:
        valid, ready = self.pin(f"{stream}_valid"), self.pin(f"{stream}_ready")
        for payload in payloads:
            while next(self._rests):
                await RisingEdge(self.dut.clk)
            self.pin(f"{stream}_payload").value = payload
            valid.value = 1
            await RisingEdge(self.dut.clk)
            while not ready.value:
                await RisingEdge(self.dut.clk)
            valid.value = 0

    async def _take(self) -> None:
        ready = self.pin("o_ready")
        while True:
            ready.value = not next(self._rests)
            await RisingEdge(self.dut.clk)
            if self.pin("o_valid").value and ready.value:
                self.words.append(int(self.pin("o_payload").value))
                self.done += 1

    async def _count(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            self.done += int(self.pin("done").value)

    async def _end(self, count: int) -> None:
        while self.done < count and not self.pin("fault_valid").value:
            await RisingEdge(self.dut.clk)

    async def _hold(self, name: str, elements: list[int]) -> None:
        """A scratchpad that the engine reads."""
        while True:
            await RisingEdge(self.dut.clk)
            if self.pin(f"{name}_enable").value:
                self.pin(f"{name}_data").value = elements[int(self.pin(f"{name}_address").value)]

    async def _keep(self, name: str) -> None:
        """A scratchpad that the engine writes."""
        parts = len(self.pin(f"{name}_mask"))
        bits = len(self.pin(f"{name}_data")) // parts
        while True:
            await RisingEdge(self.dut.clk)
            if self.pin(f"{name}_valid").value:
                address = int(self.pin(f"{name}_address").value)
                mask, data = (int(self.pin(f"{name}_{what}").value) for what in ("mask", "data"))
                chosen = sum((1 << bits) - 1 << bits * n for n in range(parts) if mask >> n & 1)
                old = self.written[name].get(address, 0)
                self.written[name][address] = (old & ~chosen) | (data & chosen)

    async def _compare(self, program: Program, expected: Expected) -> None:
        match self.engine:
            case "fetch":
                assert self.words == [i << 128 | word for i, word in enumerate(program.words)]
            case "load":
                await RisingEdge(self.dut.clk)
                for name, elements in self.written.items():
                    assert elements, name
                    assert elements == {at: expected.arrays[name][at] for at in elements}
            case "compute":
                for at in range(ROWS):
                    self.pin("store_acc_address").value = at
                    self.pin("store_acc_enable").value = 1
                    await ClockCycles(self.dut.clk, 2)
                    assert int(self.pin("store_acc_data").value) == expected.arrays["acc"][at], at
                self.pin("store_acc_enable").value = 0
            case "store":
                image = np.frombuffer(self.memory.read(0, DRAM_BYTES), np.uint8)
                assert np.array_equal(image, expected.dram)


@cocotb.test()
@cocotb.parametrize(engine=ENGINES, stalls=[0.0, 0.4])
async def an_engine_alone_does_what_its_instructions_mean(
    dut: Any, engine: str, stalls: float
) -> None:
    bench = Bench(dut, engine, stalls, seed=1)
    for seed in range(2):
        assert await bench.run(program(seed), Expected(program(seed))) is None


@cocotb.test()
@cocotb.parametrize(engine=ENGINES, error=[AxiResp.SLVERR, AxiResp.DECERR])
async def an_error_of_the_bus_is_a_fault_of_its_instruction(
    dut: Any, engine: str, error: AxiResp
) -> None:
    bench = Bench(dut, engine, 0.2, seed=2, error=error)
    good, bad = program(2), program(2, **{MOVED[engine]: BEYOND})
    expected = Expected(good)
    own = [(i, bad.words[i]) for i, _ in expected.own.get(engine, [])]
    index = next((i for i, word in own if word != good.words[i]), 0)
    expected.own[engine] = own
    code = FaultCode.BUS_WRITE if engine == "store" else FaultCode.BUS_READ
    assert await bench.run(bad, expected) == (code, index)
    assert await bench.run(good, Expected(good)) is None


@cocotb.test()
@cocotb.parametrize(engine=ENGINES)
async def a_reset_in_flight_leaves_nothing_behind_in_an_engine(dut: Any, engine: str) -> None:
    bench, random = Bench(dut, engine, 0.2, seed=3), Random(3)
    expected = Expected(program(3))
    for _ in range(4):
        await bench.start(program(3), expected)
        await ClockCycles(dut.clk, random.randrange(10, 60))
    assert await bench.run(program(3), expected) is None
