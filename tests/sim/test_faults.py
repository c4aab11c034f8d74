"""Illegal programs and broken memory: every executor stops at the same instruction for the same
reason, and runs again after a reset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.programs import DRAM_BYTES, STREAM, program_of
from tests.sim.conftest import KINDS
from tests.sim.illegal import CASES, READ, TINY, WRITE, Case
from weft.isa import DeviceError, DeviceFault, DeviceTimeout, FaultCode, InstructionSet
from weft.isa.assembly import assemble
from weft.isa.faults import WAITS, ZERO_RULES
from weft.isa.golden import access_fault
from weft.isa.memories import Engine
from weft.sim import connect
from weft.sim.fuzz.choices import RandomChoices
from weft.sim.fuzz.executors import wiping_program
from weft.sim.fuzz.legal import legal_program
from weft.sim.fuzz.outcome import assert_same, golden, on_device
from weft.sim.rtl import RtlDevice

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cases
def test_the_golden_model_stops_there(case: Case):
    assert golden(case.program).fault == case.stop


@cases
def test_a_device_stops_there(case: Case, devices):
    assert on_device(case.program, devices(case.config, DRAM_BYTES)).fault == case.stop


def test_the_cases_have_every_fault_of_every_engine_and_every_wait():
    """Whatever the tables of the instruction set admit: none may be added without a case."""
    operations = InstructionSet(TINY).operations.values()
    engines = {engine.value for engine in Engine}
    wanted = {
        (FaultCode.RESERVED, "fetch"),
        (FaultCode.NO_FINISH, "fetch"),
        (FaultCode.BUS_READ, "fetch"),
        *(
            (rule.code, o.engine.value)
            for rule in ZERO_RULES
            for o in operations
            if rule.applies(o)
        ),
        *((FaultCode.SRAM_RANGE, engine) for engine in engines),
        *((access_fault(o, "dram."), o.engine.value) for o in operations if o.moved is not None),
        *((FaultCode.DEADLOCK, engine) for engine, _, _ in WAITS),
    }
    assert {code for code, _ in wanted} == set(FaultCode) - {FaultCode.NONE}
    assert {case.fault[:2] for case in CASES.values() if case.fault is not None} == wanted
    waits = [set(case.waiting) for case in CASES.values()]
    assert set[int]().union(*waits) == set(range(len(WAITS)))


def test_a_device_that_has_stopped_runs_again_after_a_reset(devices):
    device = devices(TINY, DRAM_BYTES)
    device.reset()
    with pytest.raises(DeviceFault, match="ended without FINISH"):
        device.run(STREAM, 0)
    device.write(STREAM, assemble("finish", TINY)[0].to_bytes(16, "little"))
    with pytest.raises(DeviceError, match="reset"):
        device.run(STREAM, 1)
    device.reset()
    assert device.run(STREAM, 1).counters["instructions"] == 1


# --- a bus that breaks down within DRAM

STREAM_CONFIGS = {
    "narrow bus": TINY,
    "wide bus": replace(TINY, bus_bytes=32),
    "one beat": replace(TINY, bus_bytes=16),
}
BROKEN = 0x8000
CLIENTS = {
    "load.inp": ("load", READ),
    "load.wgt": ("load", READ),
    "load.uop": ("compute", READ),
    "load.acc": ("compute", READ),
    "load.acc8": ("compute", READ),
    "load.qnt": ("compute", READ),
    "loadx.inp": ("load", READ),
    "store.out": ("store", WRITE),
    "storex.out": ("store", WRITE),
}


@pytest.mark.parametrize("part", [0.0, 0.4, 1.0], ids=["first", "middle", "last"])
@pytest.mark.parametrize("name", CLIENTS)
def test_an_error_of_any_beat_stops_its_instruction(name: str, part: float, devices):
    device = devices(TINY, DRAM_BYTES)
    instructions = InstructionSet(TINY)
    operation = instructions.operations[name]
    memory = operation.moved
    assert memory is not None
    size = memory.element_bytes(TINY)
    box = f"dram_base={BROKEN // size} y_size=2 x_size=12 x_stride=12"
    text = f"gemm\nload.inp\n{name} {box}\nstore.nop\nfinish"
    program = program_of(TINY, assemble(text, TINY))
    last = BROKEN + 24 * size - 1
    at = int(BROKEN + part * (last - BROKEN))
    engine, code = operation.engine.value, CLIENTS[name][1]
    assert engine == CLIENTS[name][0] or name.startswith("load")
    broken = replace(program, bad=(at, at + 1))
    assert golden(broken).fault == (code, engine, 2, ())
    assert on_device(broken, device).fault == (code, engine, 2, ())
    beside = replace(program, bad=(last + TINY.bus_bytes, last + 2 * TINY.bus_bytes))
    assert on_device(beside, device).fault is None


@pytest.mark.parametrize("bus", STREAM_CONFIGS)
def test_an_error_in_the_stream_is_a_fault_of_fetch(bus: str, devices):
    config = STREAM_CONFIGS[bus]
    device = devices(config, DRAM_BYTES)
    program = program_of(config, assemble("load.inp\n" * 9 + "finish", config))
    for index in (0, 5, 9):
        at = STREAM + 16 * index + 3
        broken = replace(program, bad=(at, at + 1))
        hit = min(index, (at // config.bus_bytes * config.bus_bytes - STREAM) // 16)
        assert golden(broken).fault == (READ, "fetch", hit, ())
        assert on_device(broken, device).fault == (READ, "fetch", hit, ())
    assert on_device(program, device).fault is None


# --- the reset pin


@pytest.fixture
def rtl(devices) -> RtlDevice:
    """The RTL, which has such a pin."""
    found = devices(TINY, DRAM_BYTES)
    if not isinstance(found, RtlDevice):
        pytest.skip("only the RTL has a reset pin")
    found.reset()
    return found


@pytest.mark.parametrize("cycles", [1, 9, 25, 60, 61, 62, 150, 400, 1500])
def test_a_reset_in_the_middle_of_a_program_leaves_nothing_behind(cycles: int, rtl: RtlDevice):
    choices = RandomChoices(cycles)
    broken, wiping = legal_program(TINY, choices, 24, long=1), wiping_program(TINY)
    program = legal_program(TINY, choices, 12)
    rtl.write(0, broken.image)
    rtl.break_off(broken.address, broken.count, cycles)
    assert on_device(wiping, rtl, reset=False).fault is None
    assert_same(on_device(program, rtl, reset=False), golden(program))


@pytest.mark.parametrize("name", ["fetch", "static", "range", "bus", "stuck"])
def test_the_reset_pin_makes_a_faulted_device_run_again(name: str, rtl: RtlDevice):
    text = {
        "fetch": "finish",
        "static": ".word 0x387",
        "range": "load.wgt sram_base=65535 y_size=1 x_size=1\nfinish",
        "bus": "store.out dram_base=0xfffffff y_size=1 x_size=1\nfinish",
        "stuck": "load.inp | push_next\ngemm | pop_prev pop_next\nfinish",
    }[name]
    bad = (STREAM, STREAM + 1) if name == "fetch" else (0, 0)
    stops = program_of(TINY, assemble(text, TINY), bad=bad)
    assert on_device(stops, rtl, reset=False).fault
    rtl.break_off(0, 0, 0)
    # A token or an error that stayed behind would show here.
    wiping, program = wiping_program(TINY), legal_program(TINY, RandomChoices(name), 12)
    assert on_device(wiping, rtl, reset=False).fault is None
    assert_same(on_device(program, rtl, reset=False), golden(program))


# --- the watchdog

LONG = "gemm.reset uop_end=1 iter_out=4000 iter_in=16\nfinish"


def test_a_program_that_takes_too_long_is_broken_off_and_a_reset_mends_it(devices):
    kind, options = KINDS[devices.variant]
    with connect(kind, TINY, dram_bytes=DRAM_BYTES, timeout_cycles=5000, **options) as device:
        program = program_of(TINY, assemble(LONG, TINY))
        device.write(0, program.image)
        with pytest.raises(DeviceTimeout, match="5000 cycles"):
            device.run(program.address, program.count)
        device.reset()
        short = program_of(
            TINY, assemble("gemm.reset uop_end=1 iter_out=9 iter_in=1\nfinish", TINY)
        )
        assert on_device(short, device).fault is None
