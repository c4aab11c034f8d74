"""The functional simulator as a device: options, memory between runs, counters by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.programs import STREAM
from weft.isa import (
    PRESETS,
    AcceleratorConfig,
    ConfigError,
    DataError,
    DeviceError,
    DeviceFault,
    DeviceTimeout,
)
from weft.isa.assembly import assemble
from weft.sim import Device, connect
from weft.sim.functional import KEPT_STREAMS, FunctionalDevice

TINY = PRESETS["tiny"]


@pytest.fixture
def device():
    with connect("functional", TINY, dram_bytes=1 << 16) as made:
        yield made


def run(device: Device, text: str, address: int = STREAM):
    words = assemble(text, device.config)
    device.write(address, b"".join(word.to_bytes(16, "little") for word in words))
    return device.run(address, len(words))


def test_the_options_of_every_device_are_taken():
    options = {"dram_latency": 1, "stall_seed": 3, "timeout_cycles": 5, "progress": None}
    with connect("functional", TINY, dram_bytes=5000, **options) as device:
        assert device.dram.size == 8192  # whole pages
        assert run(device, "finish").cycles == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wave": "x.fst"}, "the functional simulator has no waves"),
        ({"dram_bytes": 0}, "dram_bytes must be from 1"),
        ({"dram_bytes": 1 << 33}, "dram_bytes must be from 1"),
        ({"dram_latency": 0}, "dram_latency must be from 1"),
        ({"timeout_cycles": 0}, "timeout_cycles must be from 1"),
    ],
)
def test_what_it_cannot_do_is_refused(options, message: str):
    with pytest.raises(ConfigError, match=message):
        FunctionalDevice(TINY, **options)


def test_a_program_that_would_run_for_ever_is_refused():
    endless = "gemm.reset uop_end=1024 iter_out=16383 iter_in=16383\nfinish"
    with connect("functional", TINY, dram_bytes=1 << 16) as device:
        with pytest.raises(DeviceTimeout, match="274844353536 steps"):
            run(device, endless)
        assert run(device, "finish").counters["instructions"] == 1


def test_there_are_two_kinds_of_devices():
    with pytest.raises(ConfigError, match="there is no device 'fpga'; there are functional, rtl"):
        connect("fpga", TINY)


def test_progress_is_told_of_the_compilation():
    told: list[tuple[str, float]] = []
    FunctionalDevice(TINY, dram_bytes=4096, progress=lambda *step: told.append(step)).close()
    assert told[-1][1] == 1.0


def test_scratchpads_keep_their_contents_until_a_reset(device: Device):
    device.write(0x4000, np.arange(16, dtype=np.int32))
    run(device, "load.acc dram_base=0x400 y_size=1 x_size=4 x_stride=4\nfinish")
    store = "store.out dram_base=0x1800 y_size=1 x_size=4 x_stride=4\nfinish"
    run(device, store)
    assert list(device.read(0x6000, 16)) == list(range(16))
    device.reset()
    run(device, store)
    assert not device.read(0x6000, 16).any()
    assert list(device.read(0x4000, 4)) == [0, 0, 0, 0]
    assert device.read(0x4004, 1)[0] == 1  # DRAM stays


def test_tokens_do_not_survive_a_run(device: Device):
    run(device, "load.inp | push_next\nfinish")
    with pytest.raises(DeviceFault, match="compute waits for a token from load"):
        run(device, "gemm | pop_prev\nfinish")


def test_a_stream_that_has_changed_is_read_again(device: Device):
    for value in range(2 * KEPT_STREAMS):
        run(device, f"alu.add.imm uop_end=1 iter_out=1 iter_in=1 imm={value}\nfinish")
    run(device, "store.out dram_base=0x1800 y_size=1 x_size=1\nfinish")
    total = sum(range(2 * KEPT_STREAMS))
    assert list(device.read(0x6000, 4)) == [total % 256] * 4


def test_devices_do_not_share_anything():
    with (
        connect("functional", TINY, dram_bytes=1 << 16) as one,
        connect("functional", TINY, dram_bytes=1 << 16) as other,
    ):
        run(one, "alu.add.imm uop_end=1 iter_out=1 iter_in=1 imm=7\nfinish")
        store = "store.out dram_base=0x1800 y_size=1 x_size=1\nfinish"
        run(other, store)
        run(one, store)
        assert list(one.read(0x6000, 4)) == [7] * 4
        assert list(other.read(0x6000, 4)) == [0] * 4


def test_a_closed_device_refuses_to_run(device: Device):
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        run(device, "finish")


def test_a_stream_outside_of_dram_or_askew_is_refused(device: Device):
    for address, count in ((1 << 16, 1), (0xFFF0, 2), (-16, 1), (0, -1), (8, 1)):
        with pytest.raises(DataError):
            device.run(address, count)


@pytest.mark.parametrize(
    ("bus", "text", "address", "read", "written"),
    [
        # 16 bytes a word; the stream lies at 0x1000 and, for wide buses, ends within a beat
        (8, "finish", STREAM, 16, 0),
        (64, "finish", STREAM, 64, 0),
        (64, "finish", STREAM + 0x30, 64, 0),
        (64, "load.inp\nfinish", STREAM + 0x30, 128, 0),
        # 3 elements of 4 bytes from byte 4: beats 0 and 1 of 8 bytes
        (8, "load.inp dram_base=1 y_size=1 x_size=3\nfinish", STREAM, 32 + 16, 0),
        # the same in 3 rows, 2 elements apart: each row touches two beats
        (8, "load.inp dram_base=1 y_size=3 x_size=3 x_stride=2\nfinish", STREAM, 32 + 48, 0),
        # rows 1 element apart begin in the middle of every second beat
        (8, "load.inp dram_base=0 y_size=4 x_size=2 x_stride=1\nfinish", STREAM, 32 + 48, 0),
        (8, "load.inp dram_base=0 y_size=4 x_size=1 x_stride=1\nfinish", STREAM, 32 + 32, 0),
        # padding costs nothing, nor do rows that are not there
        (8, "load.inp y_size=0 x_size=2 y_pad_0=3\nfinish", STREAM, 32, 0),
        (8, "load.inp y_size=1 x_size=2 x_pad_0=3\nfinish", STREAM, 32 + 8, 0),
        # a store writes what it writes, 4 bytes an element
        (8, "store.out y_size=3 x_size=5 x_stride=7\nfinish", STREAM, 32, 60),
        (64, "storex.out y_size=3 x_size=5 x_stride=7\nfinish", STREAM, 64, 60),
    ],
)
def test_bytes_are_counted_as_the_bus_carries_them(bus, text, address, read, written):
    config: AcceleratorConfig = replace(TINY, bus_bytes=bus)
    with connect("functional", config, dram_bytes=1 << 16) as device:
        counters = run(device, text, address).counters
    assert (counters["read_bytes"], counters["write_bytes"]) == (read, written)


def test_steps_and_instructions_are_counted(device: Device):
    text = """
        gemm uop_end=3 iter_out=2 iter_in=5
        gemm.reset uop_end=3 iter_out=2 iter_in=5
        matmul.set uop_bgn=1 uop_end=3 iter_out=2 iter_in=5
        gemm uop_bgn=3 uop_end=2 iter_out=2 iter_in=5
        alu.max uop_end=2 iter_out=1 iter_in=7
        alu.scale uop_end=2 iter_out=0 iter_in=7
        finish
        gemm uop_end=3 iter_out=2 iter_in=5
    """
    counters = run(device, text).counters
    assert counters["instructions"] == 7
    assert (counters["gemm_steps"], counters["alu_steps"]) == (30 + 20, 14)
