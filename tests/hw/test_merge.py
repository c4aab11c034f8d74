from __future__ import annotations

from random import Random

import pytest

from tests.hw.stream_bench import Source, simulate
from weft.hw.merge import LONG_BITS, Merge
from weft.isa import AcceleratorConfig


class Taker:
    """Takes requests, ready in all but a fraction ``stall`` of the cycles."""

    def __init__(self, stream, stall: float):
        self.stream, self.stall = stream, stall
        self.values: list[tuple[int, int]] = []

    async def process(self, ctx):
        random, ready = Random(5), False
        async for _, _, valid, payload in ctx.tick().sample(self.stream.valid, self.stream.payload):
            if valid and ready:
                self.values.append((payload.address, payload.beats))
            ready = random.random() >= self.stall
            ctx.set(self.stream.ready, ready)


def beats_of(requests, bus: int) -> list[int]:
    return [(a + i * bus) % (1 << 32) for a, beats in requests for i in range(beats)]


def merged(requests, bus: int, stall: float, source_stall: float = 0.0) -> list[tuple[int, int]]:
    """What comes out for these requests, after a check that they are the same beats."""
    merge = Merge(AcceleratorConfig(bus_bytes=bus))
    values = [{"address": a, "beats": beats} for a, beats in requests]
    source, taker = Source(merge.i, values, stall=source_stall), Taker(merge.o, stall)
    wanted = beats_of(requests, bus)
    simulate(
        merge,
        source,
        taker,
        until=lambda: sum(beats for _, beats in taker.values) >= len(wanted),
        extra=20,
    )
    assert beats_of(taker.values, bus) == wanted
    return taker.values


@pytest.mark.parametrize("bus", [8, 64])
@pytest.mark.parametrize(("stall", "source_stall"), [(0.0, 0.5), (0.5, 0.0), (0.9, 0.4)])
def test_the_same_beats_are_asked_for_in_the_same_order(bus, stall, source_stall):
    random = Random(f"{bus} {stall}")
    requests, address = [], (1 << 32) - 50 * bus
    for _ in range(300):
        beats = random.choice((1, 2, 3, 17, 300))
        requests.append((address, beats))
        address = (address + (beats + random.choice((0, 0, 0, 1, -1))) * bus) % (1 << 32)
    merged(requests, bus, stall, source_stall)


def test_what_waits_grows_by_what_goes_on_where_it_ends():
    requests = [(16 * i, 2) for i in range(100)]
    assert len(merged(requests, 8, stall=0.9)) < 30


def test_what_need_not_wait_is_left_as_it_is():
    requests = [(16 * i, 2) for i in range(100)]
    assert len(merged(requests, 8, stall=0.0)) >= 98  # the taker is not ready at first


def test_long_requests_are_left_as_they_are():
    long = 1 << LONG_BITS
    requests = [(0, 1), (8, long), (8 + 8 * long, 1), (16 + 8 * long, long)]
    assert merged(requests, 8, stall=0.95) == requests
