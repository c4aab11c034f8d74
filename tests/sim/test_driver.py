"""The DRAM model, its stalls and the bus rules, around a machine that a test commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.sim import dut
from weft.isa.errors import DeviceError
from weft.isa.registers import register
from weft.sim.driver import Driver
from weft.sim.verilate import build

DRAM_BYTES = 1 << 17
STREAM = 0x1000
OUTSTANDING = 16
DONE, BUS_FAULT_READ, BUS_FAULT_WRITE = 2, 5, 6


@pytest.fixture(scope="module", params=[8, 16])
def bus(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def library(bus: int) -> Path:
    return build(dut.verilog(bus), bus)


Machine = Callable[..., tuple[Driver, np.ndarray]]


@pytest.fixture
def machine(library: Path) -> Iterator[Machine]:
    """Makes drivers, on random DRAM, and closes them."""
    drivers: list[Driver] = []

    def make(latency: int = 40, stall_seed: int | None = None) -> tuple[Driver, np.ndarray]:
        dram = np.random.default_rng(1).integers(0, 256, DRAM_BYTES, np.uint8)
        drivers.append(Driver(library, dram, latency, stall_seed))
        return drivers[-1], dram

    yield make
    for driver in drivers:
        driver.close()


def read(driver: Driver, name: str) -> int:
    return driver.read_register(register(name).offset)


def execute(driver: Driver, dram: np.ndarray, *words: bytes) -> int:
    """Run instructions and FINISH; the cycles by the machine's own counter."""
    stream = np.frombuffer(b"".join((*words, dut.FINISH)), np.uint8)
    dram[STREAM : STREAM + stream.size] = stream
    driver.write_register(register("CONTROL").offset, 2)
    driver.write_register(register("ADDRESS").offset, STREAM)
    driver.write_register(register("COUNT").offset, len(words) + 1)
    driver.write_register(register("CONTROL").offset, 1)
    _, interrupt = driver.run(1_000_000)
    assert interrupt
    return read(driver, "CYCLES")


def expected_read_cycles(latency: int, bursts: int, beats: int) -> int:
    """From the first request to the last beat: a request and a beat a cycle, 16 outstanding."""
    requests: list[int] = []
    ends: list[int] = []
    for k in range(bursts):
        request = max(
            requests[-1] + 1 if requests else 0,
            ends[k - OUTSTANDING] + 1 if k >= OUTSTANDING else 0,
        )
        first = max(request + latency, ends[-1] + 1 if ends else 0)
        requests.append(request)
        ends.append(first + beats - 1)
    return ends[-1]


@pytest.mark.parametrize("latency", [1, 2, 40, 60])
@pytest.mark.parametrize(("bursts", "beats"), [(1, 1), (1, 256), (16, 1), (17, 1), (50, 4)])
def test_a_read_takes_the_latency_and_a_cycle_for_every_beat(
    machine: Machine, latency: int, bursts: int, beats: int
):
    driver, dram = machine(latency)
    execute(driver, dram, dut.read(0x2000, beats, bursts))
    assert read(driver, "ALU_STEPS") == expected_read_cycles(latency, bursts, beats)


def test_a_write_is_answered_ten_cycles_after_its_last_beat(machine: Machine):
    driver, dram = machine()
    execute(driver, dram, dut.write(0x2000, 8, 3))
    assert read(driver, "ALU_STEPS") == 10


def test_reads_and_writes_do_not_disturb_each_other(machine: Machine):
    driver, dram = machine(latency=1)
    only_read = execute(driver, dram, dut.read(0x2000, 16, 40))
    only_write = execute(driver, dram, dut.write(0x10000, 16, 40))
    together = execute(driver, dram, dut.both(0x2000, 0x10000, 16, 40))
    assert together == max(only_read, only_write)


@pytest.mark.parametrize("stall_seed", [None, *range(12)])
def test_a_copy_through_the_machine_is_exact(machine: Machine, bus: int, stall_seed: int | None):
    driver, dram = machine(stall_seed=stall_seed)
    source, target, size = 0x4000, 0x9000, 12 * 8 * bus
    before = dram.copy()
    execute(driver, dram, dut.read(source, 8, 12), dut.write(target, 8, 12))
    assert read(driver, "STATUS") == DONE
    assert np.array_equal(dram[target : target + size], before[source : source + size])
    words = before[source : source + size].view("<u4")
    assert read(driver, "GEMM_STEPS") == int(words.sum(dtype=np.uint64)) & 0xFFFFFFFF
    before[target : target + size] = before[source : source + size]
    before[STREAM : STREAM + 48] = dram[STREAM : STREAM + 48]
    assert np.array_equal(dram, before)


def test_strobes_choose_the_bytes_that_a_write_changes(machine: Machine, bus: int):
    driver, dram = machine()
    before = dram.copy()
    execute(driver, dram, dut.read(0x4000, 4), dut.write(0x9000, 4, strobe=0b10100110))
    chosen = np.tile(np.isin(np.arange(bus), [1, 2, 5, 7]), 4)
    expected = np.where(chosen, before[0x4000 : 0x4000 + 4 * bus], before[0x9000:][: 4 * bus])
    assert np.array_equal(dram[0x9000 : 0x9000 + 4 * bus], expected)


def test_stalls_are_the_same_for_the_same_seed_and_cost_time(machine: Machine):
    words = (dut.read(0x4000, 8, 20), dut.write(0x9000, 8, 20))
    driver, dram = machine(stall_seed=7)
    first = execute(driver, dram, *words)
    driver.renew()
    assert execute(driver, dram, *words) == first
    other, dram = machine(stall_seed=8)
    assert execute(other, dram, *words) != first
    free, dram = machine()
    assert execute(free, dram, *words) < first


@pytest.mark.parametrize(
    ("word", "code"),
    [
        (dut.read(DRAM_BYTES, 1), BUS_FAULT_READ),
        (dut.read(DRAM_BYTES - 64, 1, 16), BUS_FAULT_READ),
        (dut.read(0xFFFFFF00, 1), BUS_FAULT_READ),
        (dut.write(DRAM_BYTES, 2), BUS_FAULT_WRITE),
        (dut.write(0xFFFFFF00, 2), BUS_FAULT_WRITE),
    ],
)
def test_an_address_beyond_dram_answers_an_error(machine: Machine, word: bytes, code: int):
    driver, dram = machine()
    before = dram.copy()
    execute(driver, dram, word)
    assert read(driver, "FAULT") & 0xFF == code
    before[STREAM : STREAM + 32] = dram[STREAM : STREAM + 32]
    assert np.array_equal(dram, before)


def test_the_last_bytes_of_dram_are_readable_and_writable(machine: Machine, bus: int):
    driver, dram = machine()
    first = dram[0x4000 : 0x4000 + bus].copy()
    last = DRAM_BYTES - bus
    execute(driver, dram, dut.read(0x4000, 1), dut.write(last, 1), dut.read(last, 1))
    assert read(driver, "STATUS") == DONE
    assert np.array_equal(dram[last:], first)


@pytest.mark.parametrize(
    ("rule", "words", "text"),
    [
        ("AR_CHANGES", [dut.read(0x2000, 1, 20)], "AR changes its payload"),
        ("AR_DROPS", [dut.read(0x2000, 1, 20)], "AR drops VALID"),
        ("FIXED", [], "AR asks for another burst than INCR"),
        ("NARROW", [], "AR asks for beats that are not as wide as the bus"),
        ("LAST_EARLY", [dut.write(0x2000, 4)], "W has WLAST high at beat 2 of 4"),
        ("LAST_MISSING", [dut.write(0x2000, 4)], "W has WLAST low at beat 4 of 4"),
        ("W_CHANGES", [dut.read(0x2000, 16), dut.write(0x2000, 4)], "W changes its payload"),
        (None, [dut.read(0x2FC0, 16)], "AR crosses a 4 KB boundary"),
        (None, [dut.write(0x2FC0, 16)], "AW crosses a 4 KB boundary"),
        (None, [dut.read(0x2004, 1)], "AR is not aligned to the bus"),
        (None, [dut.write(0x2004, 1)], "AW is not aligned to the bus"),
        ("ANSWERS_UNASKED", [], "s_axil R is VALID without a request"),
        ("NEVER_ANSWERS", [], "s_axil R never comes"),
    ],
)
def test_a_broken_rule_is_named_with_its_cycle(
    machine: Machine, rule: str | None, words: list[bytes], text: str
):
    driver, dram = machine()
    stream = [dut.break_rule(rule), *words] if rule else words
    with pytest.raises(DeviceError, match=rf"^{text}.* in cycle \d+$"):
        execute(driver, dram, *stream)
    with pytest.raises(DeviceError, match=text):
        driver.run(1)
    driver.renew()
    execute(driver, dram, dut.read(0x2000, 1))
    assert read(driver, "STATUS") == DONE


def test_the_reset_pin_stops_the_machine(machine: Machine):
    driver, dram = machine()
    with pytest.raises(AssertionError):
        execute(driver, dram, dut.spin(0xFFFFFFFF))
    driver.reset()
    assert read(driver, "STATUS") == 0
    execute(driver, dram, dut.read(0x2000, 1))
    assert read(driver, "STATUS") == DONE


@pytest.mark.parametrize("rule", ["VALID_IN_RESET", "ANSWER_IN_RESET"])
def test_a_channel_must_not_be_valid_during_reset(machine: Machine, rule: str):
    driver, dram = machine()
    execute(driver, dram, dut.break_rule(rule))
    with pytest.raises(DeviceError, match="a channel is VALID during reset in cycle"):
        driver.reset()


def test_a_run_stops_at_its_limit_and_goes_on(machine: Machine):
    driver, dram = machine()
    whole = execute(driver, dram, dut.spin(1000))
    dram[STREAM : STREAM + 32] = np.frombuffer(dut.spin(1000) + dut.FINISH, np.uint8)
    driver.write_register(register("CONTROL").offset, 2)
    driver.write_register(register("CONTROL").offset, 1)
    assert driver.run(100) == (100, False)
    before = driver.cycle
    rest, interrupt = driver.run(10_000)
    assert interrupt
    assert driver.cycle == before + rest
    assert read(driver, "CYCLES") == whole


def test_two_devices_do_not_know_of_each_other(machine: Machine):
    one, dram_one = machine()
    two, dram_two = machine(latency=60)
    dram_two[0x4000:0x8000] = 0
    execute(one, dram_one, dut.read(0x4000, 8))
    execute(two, dram_two, dut.read(0x4000, 8))
    assert read(one, "ALU_STEPS") == 47
    assert read(two, "ALU_STEPS") == 67
    assert read(one, "GEMM_STEPS") != 0
    assert read(two, "GEMM_STEPS") == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_devices_close_in_any_order(machine: Machine, order: tuple[int, ...], last: int):
    drivers = [machine() for _ in range(3)]
    execute(*drivers[last], dut.read(0x4000, 8))
    for i in order:
        drivers[i][0].close()
    again, dram = machine()
    execute(again, dram, dut.read(0x4000, 8))
    assert read(again, "ALU_STEPS") == 47


def test_a_closed_driver_says_so(machine: Machine):
    driver, _ = machine()
    driver.close()
    driver.close()
    with pytest.raises(DeviceError, match="closed"):
        driver.run(1)
