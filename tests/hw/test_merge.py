from __future__ import annotations

from random import Random

import pytest
from amaranth.hdl import Module

from tests.hw.stream_bench import Source, simulate
from weft.hw.merge import LONG_BITS, Merge
from weft.isa import AcceleratorConfig


class Taker:
    """Takes requests, ready in all but a fraction ``stall`` of the cycles."""

    def __init__(self, stream, stall: float):
        self.stream, self.stall = stream, stall
        self.values: list[tuple[int, int]] = []
        self.cycles: list[int] = []

    async def process(self, ctx):
        random, ready, cycle = Random(5), False, 0
        async for _, _, valid, payload in ctx.tick().sample(self.stream.valid, self.stream.payload):
            if valid and ready:
                self.values.append((payload.address, payload.beats))
                self.cycles.append(cycle)
            cycle += 1
            ready = random.random() >= self.stall
            ctx.set(self.stream.ready, ready)


def beats_of(requests, bus: int) -> list[int]:
    return [(a + i * bus) % (1 << 32) for a, beats in requests for i in range(beats)]


def merged(requests, bus: int, stall: float, source_stall: float = 0.0, scarce: int = 0) -> Taker:
    """What comes out for these requests, after a check that they are the same beats."""
    merge = Merge(AcceleratorConfig(bus_bytes=bus))
    top = Module()
    top.submodules.merge = merge
    top.d.comb += merge.scarce.eq(scarce)
    values = [{"address": a, "beats": beats} for a, beats in requests]
    source, taker = Source(merge.i, values, stall=source_stall), Taker(merge.o, stall)
    wanted = beats_of(requests, bus)
    simulate(
        top,
        source,
        taker,
        until=lambda: sum(beats for _, beats in taker.values) >= len(wanted),
        extra=20,
    )
    assert beats_of(taker.values, bus) == wanted
    return taker


@pytest.mark.parametrize("bus", [8, 64])
@pytest.mark.parametrize(("stall", "source_stall"), [(0.0, 0.5), (0.5, 0.0), (0.9, 0.4)])
@pytest.mark.parametrize("scarce", [0, 1])
def test_the_same_beats_are_asked_for_in_the_same_order(bus, stall, source_stall, scarce):
    random = Random(f"{bus} {stall}")
    requests, address = [], (1 << 32) - 50 * bus
    for _ in range(300):
        beats = random.choice((1, 2, 3, 17, 300))
        requests.append((address, beats))
        address = (address + (beats + random.choice((0, 0, 0, 1, -1))) * bus) % (1 << 32)
    merged(requests, bus, stall, source_stall, scarce)


def test_what_waits_grows_by_what_goes_on_where_it_ends():
    requests = [(8 * i, 1) for i in range(100)]
    assert len(merged(requests, 8, stall=0.9).values) < 30


def test_what_does_not_go_on_there_passes_at_once():
    requests = [(800 * i, 9) for i in range(50)]
    taker = merged(requests, 8, stall=0.0)
    assert taker.values == requests
    assert taker.cycles[-2] - taker.cycles[0] <= 49


def test_a_short_request_waits_while_the_bus_is_busy_with_those_before():
    taker = merged([(0, 12), (800, 1)], 8, stall=0.0)
    assert taker.cycles[1] - taker.cycles[0] == 12


def test_short_requests_leave_as_fast_as_the_bus_can_answer_them_and_no_faster():
    taker = merged([(16 * i, 2) for i in range(128)], 8, stall=0.0)
    assert [beats for _, beats in taker.values][:5] == [2, 2, 4, 8, 16]
    assert taker.cycles[-1] - taker.cycles[0] <= 128 + 8


def test_where_bursts_are_scarce_single_beats_are_collected():
    taker = merged([(8 * i, 1) for i in range(128)], 8, stall=0.0, scarce=1)
    assert len(taker.values) <= 33


def test_long_requests_are_left_as_they_are():
    long = 1 << LONG_BITS
    requests = [(0, 1), (8, long), (8 + 8 * long, 1), (16 + 8 * long, long)]
    assert merged(requests, 8, stall=0.95).values == requests
