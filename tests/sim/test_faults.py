"""Illegal programs and broken memory: every executor stops at the same instruction for the same
reason, and runs again after a reset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.programs import DRAM_BYTES, STREAM, program_of
from tests.sim.conftest import KINDS
from tests.sim.illegal import CASES, READ, TINY, WRITE, Case
from weft.isa import DeviceError, DeviceFault, DeviceTimeout, InstructionSet
from weft.isa.assembly import assemble
from weft.sim import connect
from weft.sim.fuzz.choices import RandomChoices
from weft.sim.fuzz.executors import wiping_program
from weft.sim.fuzz.footprint import moved
from weft.sim.fuzz.legal import legal_program
from weft.sim.fuzz.outcome import assert_same, golden, on_device
from weft.sim.rtl import RtlDevice

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cases
def test_the_golden_model_stops_there(case: Case):
    program = program_of(case.config, assemble(case.text, case.config))
    assert golden(program).fault == case.stop


@cases
def test_a_device_stops_there(case: Case, devices):
    program = program_of(case.config, assemble(case.text, case.config))
    assert on_device(program, devices(case.config, DRAM_BYTES)).fault == case.stop


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


# --- a bus that breaks down within DRAM, which only the RTL has

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


@pytest.fixture
def breakable(devices):
    """Devices of the RTL, mended afterwards."""
    made: list[RtlDevice] = []

    def device(config) -> RtlDevice:
        found = devices(config, DRAM_BYTES)
        if not isinstance(found, RtlDevice):
            pytest.skip("only the RTL has a bus that breaks down")
        made.append(found)
        found.reset()
        return found

    yield device
    for each in made:
        each.break_down(0, 0)


@pytest.mark.parametrize("part", [0.0, 0.4, 1.0], ids=["first", "middle", "last"])
@pytest.mark.parametrize("name", CLIENTS)
def test_an_error_of_any_beat_stops_its_instruction(name: str, part: float, breakable):
    device = breakable(TINY)
    instructions = InstructionSet(TINY)
    operation = instructions.operations[name]
    memory = moved(operation)
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
    device.break_down(at, at + 1)
    assert on_device(program, device).fault == (code, engine, 2, ())
    device.break_down(last + TINY.bus_bytes, last + 2 * TINY.bus_bytes)
    assert on_device(program, device).fault is None


@pytest.mark.parametrize("bus", STREAM_CONFIGS)
def test_an_error_in_the_stream_is_a_fault_of_fetch(bus: str, breakable):
    config = STREAM_CONFIGS[bus]
    device = breakable(config)
    program = program_of(config, assemble("load.inp\n" * 9 + "finish", config))
    for index in (0, 5, 9):
        at = STREAM + 16 * index + 3
        device.break_down(at, at + 1)
        hit = min(index, (at // config.bus_bytes * config.bus_bytes - STREAM) // 16)
        assert on_device(program, device).fault == (READ, "fetch", hit, ())
    device.break_down(0, 0)
    assert on_device(program, device).fault is None


@pytest.mark.parametrize("cycles", [1, 9, 25, 60, 61, 62, 150, 400, 1500])
def test_a_reset_in_the_middle_of_a_program_leaves_nothing_behind(cycles: int, breakable):
    choices = RandomChoices(cycles)
    broken, wiping = legal_program(TINY, choices, 24, long=1), wiping_program(TINY)
    program = legal_program(TINY, choices, 12)
    device = breakable(TINY)
    device.write(0, broken.image)
    device.break_off(broken.address, broken.count, cycles)
    assert on_device(wiping, device, reset=False).fault is None
    assert_same(on_device(program, device, reset=False), golden(program))


@pytest.mark.parametrize("name", ["fetch", "static", "range", "bus", "stuck"])
def test_the_reset_pin_makes_a_faulted_device_run_again(name: str, breakable):
    text = {
        "fetch": "finish",
        "static": ".word 0x387",
        "range": "load.wgt sram_base=65535 y_size=1 x_size=1\nfinish",
        "bus": "store.out dram_base=0xfffffff y_size=1 x_size=1\nfinish",
        "stuck": "load.inp | push_next\ngemm | pop_prev pop_next\nfinish",
    }[name]
    device = breakable(TINY)
    if name == "fetch":
        device.break_down(STREAM, STREAM + 1)
    assert on_device(program_of(TINY, assemble(text, TINY)), device, reset=False).fault
    device.break_down(0, 0)
    device.break_off(0, 0, 0)
    # A token or an error that stayed behind would show here.
    wiping, program = wiping_program(TINY), legal_program(TINY, RandomChoices(name), 12)
    assert on_device(wiping, device, reset=False).fault is None
    assert_same(on_device(program, device, reset=False), golden(program))


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
