"""What happens to the accelerator; runs inside the simulator, see ``test_pins``."""

from __future__ import annotations

from random import Random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp

from tests.cocotb.bench import Bench
from tests.cocotb.program import BEYOND, CONFIG, program
from weft.isa.faults import FaultCode
from weft.isa.registers import IDENTITY
from weft.isa.spec import spec_hash
from weft.sim.fuzz.outcome import Outcome, assert_same, golden

STALL = 0.4
FETCH_FAULT = (FaultCode.BUS_READ, "fetch", 0, ())


@cocotb.test()
async def a_program_does_what_it_means_and_so_does_the_next(dut: Any) -> None:
    bench = Bench(dut)
    await bench.reset()
    assert await bench.get("ID") == IDENTITY
    assert await bench.get("SPEC") == int(spec_hash(CONFIG), 16)
    for seed in range(2):
        assert_same(await bench.run(program(seed)), golden(program(seed)))


@cocotb.test()
async def stalls_on_every_channel_change_nothing(dut: Any) -> None:
    bench = Bench(dut, STALL, seed=1)
    await bench.reset()
    for seed in range(2, 4):
        assert_same(await bench.run(program(seed)), golden(program(seed)))


@cocotb.test()
@cocotb.parametrize(error=[AxiResp.SLVERR, AxiResp.DECERR])
async def an_error_of_the_bus_is_a_fault_until_reset(dut: Any, error: AxiResp) -> None:
    bench = Bench(dut, STALL / 4, seed=2, error=error)
    for seed, what in enumerate(("inp", "acc", "stored", "program")):
        await bench.reset()
        faulty = program(seed, **{what: BEYOND})
        outcome = await bench.run(faulty)
        assert outcome.fault is not None
        expected = Outcome(FETCH_FAULT) if what == "program" else golden(faulty)
        assert_same(outcome, expected)
        again = await bench.run(program(seed))
        assert again.fault == outcome.fault, "no program starts before the reset"
    await bench.reset()
    assert await bench.get("STATUS") == 0
    assert_same(await bench.run(program(4)), golden(program(4)))


@cocotb.test()
async def a_reset_in_flight_leaves_nothing_behind(dut: Any) -> None:
    bench, random = Bench(dut, STALL / 2, seed=3), Random(3)
    await bench.reset()
    assert_same(await bench.run(program(5)), golden(program(5)))
    cycles = await bench.get("CYCLES")
    for sixth in range(1, 6):
        await bench.launch(program(sixth))
        await ClockCycles(dut.clk, sixth * cycles // 6)
        assert not dut.irq.value, "it still runs"
        await bench.reset(random.randrange(1, 4))
        assert await bench.get("STATUS") == 0
    assert_same(await bench.run(program(6)), golden(program(6)))
