"""Illegal programs: every executor stops at the same instruction for the same reason."""

from __future__ import annotations

import pytest

from tests.programs import DRAM_BYTES, STREAM, program_of
from tests.sim.illegal import CASES, TINY, Case
from weft.isa import DeviceError, DeviceFault
from weft.isa.assembly import assemble
from weft.sim.fuzz.outcome import golden, on_device

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
