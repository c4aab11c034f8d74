"""The device's contract, around a machine that a test commands, with the registers of Weft."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sim import dut
from weft.isa.config import PRESETS, TINY
from weft.isa.errors import (
    ConfigError,
    DataError,
    DeviceError,
    DeviceFault,
    DeviceTimeout,
)
from weft.isa.faults import FaultCode
from weft.isa.registers import COUNTERS
from weft.isa.spec import spec_hash
from weft.sim import library as library_module
from weft.sim import rtl
from weft.sim.exercise import STREAM as EXERCISE
from weft.sim.exercise import Exercise
from weft.sim.rtl import RtlDevice
from weft.sim.verilate import build

STREAM = 0x1000
DESIGN = dut.verilog(8, int(spec_hash(TINY), 16))

Connect = Callable[..., RtlDevice]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Connects to the machine in place of the accelerator, and closes the devices."""
    monkeypatch.setattr(
        rtl, "library", lambda config, trace, **_: build(DESIGN, TINY.bus_bytes, trace=trace)
    )
    devices: list[RtlDevice] = []

    def make(**options: Any) -> RtlDevice:
        devices.append(RtlDevice(TINY, **{"dram_bytes": 1 << 17, **options}))
        return devices[-1]

    yield make
    for device in devices:
        device.close()


def run(device: RtlDevice, *words: bytes):
    device.write(STREAM, b"".join((*words, dut.FINISH)))
    return device.run(STREAM, len(words) + 1)


def test_a_program_works_on_dram(connect: Connect):
    device = connect()
    data = np.arange(64, dtype=np.uint8)
    device.write(0x4000, data)
    result = run(device, dut.read(0x4000, 8), dut.write(0x9000, 8))
    assert np.array_equal(device.read(0x9000, 64), data)
    assert result.cycles == result.counters["cycles"] > 100
    assert set(result.counters) == {counter.name for counter in COUNTERS}
    again = run(device, dut.read(0x4000, 8), dut.write(0x9000, 8))
    assert again.cycles == result.cycles


def test_sixty_four_bits_of_a_counter_are_read(connect: Connect, monkeypatch: pytest.MonkeyPatch):
    device = connect()
    values = {0x100: 0x89ABCDEF, 0x104: 0x01234567}
    monkeypatch.setattr(device._driver, "read_register", lambda offset: values[offset])
    assert device._read("CYCLES") == 0x0123456789ABCDEF


def test_a_fault_says_which_why_and_where_until_reset(connect: Connect):
    device = connect()
    with pytest.raises(DeviceFault, match=r"index out of range \(instruction 1 ") as caught:
        run(device, dut.read(0x4000, 1), dut.fault(FaultCode.SRAM_RANGE))
    assert (caught.value.code, caught.value.engine, caught.value.index) == (4, "compute", 1)
    with pytest.raises(DeviceError, match=r"stopped with a fault: .* only reset"):
        run(device)
    device.reset()
    run(device)


def test_a_deadlock_says_who_waits_for_what(connect: Connect):
    device = connect()
    with pytest.raises(DeviceFault, match="deadlock: ") as caught:
        run(device, dut.fault(FaultCode.DEADLOCK, 0b1001))
    assert caught.value.waiting == (
        "load waits for a token from compute",
        "store waits for a token from compute",
    )


@pytest.mark.parametrize("stall_seed", [None, 3])
def test_an_address_beyond_dram_is_a_fault(connect: Connect, stall_seed: int | None):
    device = connect(stall_seed=stall_seed)
    with pytest.raises(DeviceFault) as caught:
        run(device, dut.read(device.dram.size, 1))
    assert caught.value.code == FaultCode.BUS_READ
    device.reset()
    with pytest.raises(DeviceFault) as caught:
        run(device, dut.write(0xFFFFF000, 1))
    assert caught.value.code == FaultCode.BUS_WRITE


def test_a_run_ends_at_its_timeout_until_reset(connect: Connect):
    device = connect(timeout_cycles=rtl.SLICE_CYCLES + 5000)
    with pytest.raises(DeviceTimeout, match=rf"in {rtl.SLICE_CYCLES + 5000} cycles"):
        run(device, dut.spin(0xFFFFFFFF))
    with pytest.raises(DeviceError, match=r"still running .* only reset"):
        run(device)
    device.reset()
    run(device)


def test_an_interrupted_run_needs_a_reset(connect: Connect, monkeypatch: pytest.MonkeyPatch):
    device = connect()
    simulate = device._driver.run

    def interrupted(cycles: int, completed: int) -> tuple[int, bool]:
        simulate(100)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(device._driver, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(device, dut.spin(1000))
    with pytest.raises(DeviceError, match="broken off"):
        run(device)
    device.reset()
    run(device)


def test_reset_keeps_dram(connect: Connect):
    device = connect()
    device.write(0x4000, b"kept")
    device.reset()
    assert device.read(0x4000, 4).tobytes() == b"kept"


def test_a_broken_bus_rule_is_an_error(connect: Connect):
    device = connect()
    with pytest.raises(DeviceError, match="AR asks for another burst than INCR"):
        run(device, dut.break_rule("FIXED"))
    device.reset()
    run(device)


def test_finishing_before_the_last_write_is_answered_is_an_error(connect: Connect):
    device = connect(dram_latency=1)
    with pytest.raises(DeviceError, match="done before its last write"):
        run(device, dut.break_rule("FINISH_EARLY"), dut.write(0x4000, 1))


@pytest.mark.parametrize("end", [(), (dut.fault(FaultCode.SRAM_RANGE),)], ids=["done", "fault"])
def test_a_cycle_that_no_counter_has_is_an_error(end: tuple[bytes, ...], connect: Connect):
    device = connect()
    with pytest.raises(DeviceError, match=r"\d+ cycles of store are attributed, of \d+"):
        run(device, dut.break_rule("LOSES_A_CYCLE"), *end)


def test_devices_live_side_by_side(connect: Connect):
    one, two = connect(), connect(stall_seed=1)
    one.write(0x4000, b"11111111")
    two.write(0x4000, b"22222222")
    for device in (one, two):
        run(device, dut.read(0x4000, 1), dut.write(0x5000, 1))
    assert one.read(0x5000, 8).tobytes() == b"11111111"
    assert two.read(0x5000, 8).tobytes() == b"22222222"


def test_another_configuration_than_the_libraries_is_refused(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rtl, "library", lambda config, **_: build(DESIGN, TINY.bus_bytes))
    found, asked = spec_hash(TINY), spec_hash(replace(TINY, acc_bytes=4096))
    with pytest.raises(DeviceError, match=f"SPEC is 0x{found}, not 0x{asked}"):
        RtlDevice(replace(TINY, acc_bytes=4096))


@pytest.mark.parametrize(
    "option",
    [{"dram_latency": 0}, {"dram_bytes": 0}, {"dram_bytes": 1 << 33}, {"timeout_cycles": 0}],
)
def test_an_option_out_of_range_is_refused(connect: Connect, option: dict[str, int]):
    (name,) = option
    with pytest.raises(ConfigError, match=f"{name} must be from 1 to"):
        connect(**option)


def test_what_is_closed_stays_closed(connect: Connect):
    device = connect()
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        run(device)
    with pytest.raises(DeviceError, match="closed"):
        device.reset()


def test_a_wave_file_that_cannot_be_written_is_refused(connect: Connect, tmp_path: Path):
    with pytest.raises(DataError, match="cannot write waves"):
        connect(wave=tmp_path / "missing" / "waves.fst")


@pytest.mark.slow
def test_waves_are_an_fst_file(connect: Connect, tmp_path: Path):
    wave = tmp_path / "waves.fst"
    device = connect(wave=wave)
    result = run(device, dut.read(0x4000, 8), dut.write(0x9000, 8))
    device.close()
    content = wave.read_bytes()
    assert content[0] == 0, "an FST file starts with the block of its header"
    started, ended = (int.from_bytes(content[at : at + 8], "big") for at in (9, 17))
    assert ended - started > 10 * result.cycles, "ten nanoseconds a cycle"


def test_a_library_is_found_without_generating_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    builds: list[bool] = []

    def fake(verilog: object, bus_bytes: int, *, trace: bool, **_: object) -> Path:
        builds.append(trace)
        path = tmp_path / "rtl" / f"{trace}.so"
        path.touch()
        return path

    monkeypatch.setattr(library_module.verilate, "build", fake)
    first = library_module.library(TINY)
    assert library_module.library(TINY) == first
    assert library_module.library(TINY, trace=True) != first
    assert builds == [False, True]
    assert library_module.library(replace(TINY, acc_bytes=4096)) == first
    assert builds == [False, True, False]
    first.unlink()
    assert library_module.library(TINY) == first
    assert builds == [False, True, False, False]


def test_only_large_models_that_nobody_looks_into_are_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    trained: list[bool] = []

    def fake(verilog: object, bus_bytes: int, *, train: object, **_: object) -> Path:
        trained.append(train is not None)
        path = tmp_path / "rtl" / f"{len(trained)}.so"
        path.touch()
        return path

    monkeypatch.setattr(library_module.verilate, "build", fake)
    monkeypatch.setattr(library_module, "TRAINED_LANES", PRESETS["base"].block ** 2)
    library_module.library(PRESETS["base"])
    library_module.library(PRESETS["base"], trace=True)
    library_module.library(TINY)
    assert trained == [True, False, False]


def test_a_model_is_trained_by_running_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(library_module, "TRAINED_LANES", TINY.block**2)
    with RtlDevice(TINY) as device:
        exercise = Exercise(device)
        result = device.run(EXERCISE, exercise.tiles(4))
    assert result.counters["gemm_steps"] == 4 * exercise.rows * exercise.taps
