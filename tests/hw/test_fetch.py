from __future__ import annotations

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from tests.hw.axi_bench import Dram, ReadChannels
from tests.hw.stream_bench import Monitor, Pulses, Sink, Source, simulate
from weft.hw.axi import Response
from weft.hw.fetch import Fetch
from weft.hw.read_port import BUFFER_BEATS, ReadPort
from weft.isa import AcceleratorConfig
from weft.isa.config import PAGE_BYTES
from weft.isa.faults import FaultCode
from weft.isa.formats import INSTRUCTION_BYTES


class Bench:
    """A fetch unit on a read port of its own."""

    def __init__(self, bus: int, dram: Dram, programs, *, stall: float = 0.0):
        config = AcceleratorConfig(bus_bytes=bus)
        self.dram, self.programs = dram, programs
        self.fetch, port = Fetch(config), ReadPort(config, 1)
        self.top = Module()
        self.top.submodules.fetch, self.top.submodules.port = self.fetch, port
        wiring.connect(self.top, self.fetch.bus, port.client[0])
        starts = [{"address": address, "count": count} for address, count in programs]
        self.channels = ReadChannels(port.axi, dram)
        self.source = Source(self.fetch.start, starts)
        self.sink = Sink(self.fetch.o, stall=stall)
        self.idle = Pulses(self.fetch.idle)

    def expected(self) -> list[tuple[int, int]]:
        return [
            (self.dram.word(address + INSTRUCTION_BYTES * index, INSTRUCTION_BYTES), index)
            for address, count in self.programs
            for index in range(count)
        ]

    def received(self) -> list[tuple[int, int]]:
        return [(issue.word, issue.index) for issue in self.sink.values]

    def run(self, *actors, **options) -> int:
        options = {"until": lambda: len(self.sink.values) == len(self.expected()), **options}
        return simulate(
            self.top,
            Monitor(self.fetch.bus.request, "request"),
            self.channels,
            self.source,
            self.sink,
            self.idle,
            *actors,
            **options,
        )


@pytest.mark.parametrize("bus", [8, 16, 64])
@pytest.mark.parametrize(("latency", "stall"), [(1, 0.5), (40, 0.0)])
def test_every_instruction_comes_in_order(bus, latency, stall):
    programs = [(16, 1), (0, 7), (PAGE_BYTES - 48, 70), (48, 0), (32, 150)]
    bench = Bench(bus, Dram(latency=latency, stall=stall), programs, stall=stall)
    bench.run(extra=200)
    assert bench.received() == bench.expected()


@pytest.mark.parametrize(("bus", "rate"), [(8, 2), (16, 1), (64, 1)])
def test_instructions_come_as_fast_as_the_bus_gives_them(bus, rate):
    bench = Bench(bus, Dram(latency=60), [(16, 200)])
    bench.run()
    cycles = bench.sink.cycles
    assert cycles[-1] - cycles[0] <= 199 * rate + 1


def test_the_first_instruction_is_quick():
    bench = Bench(16, Dram(latency=40), [(0, 5)])
    bench.run()
    assert bench.sink.cycles[0] - bench.source.taken[0] <= 40 + 6


def test_nothing_beyond_the_room_for_it_is_requested():
    bench = Bench(16, Dram(), [(0, 1000)], stall=1.0)
    bench.run(until=lambda: len(bench.channels.beats) >= BUFFER_BEATS, extra=100)
    assert len(bench.channels.beats) == BUFFER_BEATS


def test_idle_between_the_programs_only():
    bench = Bench(16, Dram(latency=9), [(0, 3), (64, 3)])
    bench.run(extra=10)
    starts, cycles = bench.source.taken, bench.sink.cycles
    assert bench.source.taken[1] > cycles[2]
    busy = {*range(starts[0] + 1, cycles[2] + 1), *range(starts[1] + 1, cycles[5] + 1)}
    assert not busy & set(bench.idle.cycles)
    assert bench.idle.cycles[-1] > cycles[5]


@pytest.mark.parametrize("bus", [8, 16, 32])
def test_a_bus_error_is_a_fault_at_its_instruction(bus):
    good = 5 if bus < 32 else 4  # a wide beat takes its first instruction with it
    count = 40
    bench = Bench(bus, Dram(bad={1}), [(PAGE_BYTES - 16 * good, count)])
    fault = bench.fetch.fault
    faults = Pulses(fault.valid & (fault.code == FaultCode.BUS_READ) & (fault.index == good))
    bench.run(faults, until=lambda: len(faults.cycles) > 50)
    assert bench.received() == bench.expected()[:good]
    assert faults.cycles == list(range(faults.cycles[0], faults.cycles[-1] + 1))


@pytest.mark.parametrize("half", [0, 8])
def test_an_error_of_either_beat_hits_the_instruction(half):
    dram = Dram()
    dram.response = lambda address: Response.DECERR if address == 48 + half else Response.OKAY
    bench = Bench(8, dram, [(0, 9)])
    faults = Pulses(bench.fetch.fault.valid & (bench.fetch.fault.index == 3))
    bench.run(faults, until=lambda: bool(faults.cycles), extra=20)
    assert bench.received() == bench.expected()[:3]
