"""What happens to each engine alone; runs inside the simulator, see ``test_pins``."""

from __future__ import annotations

from random import Random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp

from tests.cocotb.course import course
from tests.cocotb.engine_bench import EngineBench
from tests.cocotb.surroundings import FetchBench
from tests.programs import DRAM_BYTES
from weft.isa.faults import FaultCode

BODIES = ("load", "compute", "store")
ERRORS = (AxiResp.SLVERR, AxiResp.DECERR)
STALLS = (0.0, 0.4)
PAGE, COUNT = 0x3000, 40
"""Where programs are fetched from: across the end of a page."""


@cocotb.test()
@cocotb.parametrize(engine=BODIES, stalls=STALLS)
async def an_engine_alone_does_what_its_instructions_mean(
    dut: Any, engine: str, stalls: float
) -> None:
    bench, plan = EngineBench(dut, engine, stalls, seed=1), course(engine, 1, 24, 24)
    await bench.start(plan)
    for stretch in plan.stretches:
        assert await bench.run(stretch) is None


@cocotb.test()
@cocotb.parametrize(engine=BODIES, error=ERRORS)
async def an_error_of_the_bus_is_a_fault_of_its_instruction(
    dut: Any, engine: str, error: AxiResp
) -> None:
    bench, plan = (
        EngineBench(dut, engine, 0.2, seed=2, error=error),
        course(engine, 2, 8, 16, refused=True),
    )
    await bench.start(plan)
    code = FaultCode.BUS_WRITE if engine == "store" else FaultCode.BUS_READ
    good, bad = plan.stretches
    assert await bench.run(good) is None
    assert await bench.run(bad) == (code, bad.fault)
    await bench.start(plan)
    assert await bench.run(good) is None


@cocotb.test()
@cocotb.parametrize(engine=BODIES)
async def a_reset_in_flight_leaves_nothing_behind_in_an_engine(dut: Any, engine: str) -> None:
    bench, random = EngineBench(dut, engine, 0.2, seed=4), Random(4)
    plan = course(engine, 1, 24, 24)
    for _ in range(3):
        await bench.start(plan)
        bench.tasks.append(cocotb.start_soon(bench.offer(plan.stretches[0])))
        await ClockCycles(dut.clk, random.randrange(10, 100))
        assert not bench.pin("idle").value, "it still works"
    await bench.start(plan)
    assert await bench.run(plan.stretches[0]) is None


@cocotb.test()
@cocotb.parametrize(stalls=STALLS)
async def fetch_delivers_program_after_program(dut: Any, stalls: float) -> None:
    bench = FetchBench(dut, "fetch", stalls, seed=1)
    await bench.start()
    for seed, count in enumerate((COUNT, 1, 0, 3, COUNT)):
        words = _words(seed)
        assert await bench.run(PAGE - 16 * seed - 16, words, count) == (
            _issued(words[:count]),
            None,
        )


@cocotb.test()
@cocotb.parametrize(error=ERRORS, stalls=STALLS)
async def an_error_of_the_bus_ends_fetch_at_the_instruction_that_it_hits(
    dut: Any, error: AxiResp, stalls: float
) -> None:
    bench = FetchBench(dut, "fetch", stalls, seed=2, error=error)
    for good in (0, 1, 21):
        await bench.start()
        words = _words(good)
        found = await bench.run(DRAM_BYTES - 16 * good, words[:good], COUNT)
        assert found == (_issued(words[:good]), good)
        assert not bench.pin("start_ready").value, "nothing starts before the reset"
    await bench.start()
    assert await bench.run(PAGE, words, COUNT) == (_issued(words), None)


@cocotb.test()
async def a_reset_in_flight_leaves_nothing_behind_in_fetch(dut: Any) -> None:
    bench, random = FetchBench(dut, "fetch", 0.2, seed=3), Random(3)
    for seed in range(4):
        await bench.start()
        await bench.launch(PAGE, _words(seed), COUNT)
        await ClockCycles(dut.clk, random.randrange(1, COUNT))
        assert not bench.pin("idle").value, "it still works"
    await bench.start()
    words = _words(9)
    assert await bench.run(PAGE, words, COUNT) == (_issued(words), None)


def _words(seed: int) -> list[int]:
    random = Random(seed)
    return [random.getrandbits(128) for _ in range(COUNT)]


def _issued(words: list[int]) -> list[int]:
    return [index << 128 | word for index, word in enumerate(words)]
