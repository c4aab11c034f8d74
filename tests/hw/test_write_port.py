from __future__ import annotations

from random import Random

import numpy as np
import pytest

from tests.hw.axi_bench import Dram, WriteChannels
from tests.hw.stream_bench import Pulses, Sink, Source, simulate
from weft.hw.write_port import OUTSTANDING, WritePort
from weft.isa import AcceleratorConfig
from weft.isa.config import PAGE_BYTES


class Bench:
    """A write port with its client and DRAM."""

    def __init__(self, bus: int, dram: Dram, requests, *, stalls=(0.0, 0.0, 0.0), seed: int = 0):
        self.port, self.dram, self.requests = (
            WritePort(AcceleratorConfig(bus_bytes=bus)),
            dram,
            requests,
        )
        self.channels = WriteChannels(self.port.axi, dram)
        random = Random(seed)
        self.expected, self.strobes = dram.bytes.copy(), 0
        beats = []
        for address, length in requests:
            for at in range(address, address + bus * length, bus):
                word, strobe = random.randbytes(bus), random.getrandbits(bus)
                for byte in range(bus):
                    if strobe >> byte & 1:
                        self.expected[(at + byte) % dram.size] = word[byte]
                self.strobes += strobe.bit_count()
                beats.append({"data": int.from_bytes(word, "little"), "strobe": strobe})
        client = self.port.client
        asked = [{"address": address, "beats": length} for address, length in requests]
        self.request = Source(client.request, asked, stall=stalls[0], seed=seed)
        self.data = Source(client.data, beats, stall=stalls[1], seed=seed + 1)
        self.response = Sink(client.response, stall=stalls[2], seed=seed + 2)

    def run(self, *actors, **options) -> int:
        return simulate(
            self.port,
            self.channels,
            self.request,
            self.data,
            self.response,
            *actors,
            **{"until": lambda: len(self.response.values) == len(self.requests), **options},
        )

    def check(self) -> None:
        np.testing.assert_array_equal(self.dram.bytes, self.expected)
        assert self.channels.written == self.strobes


@pytest.mark.parametrize("bus", [8, 64])
@pytest.mark.parametrize("seed", range(4))
def test_every_byte_arrives_under_any_stalls(bus, seed):
    random = Random(seed)
    requests = [
        (random.randrange(0, 1 << 15, bus), random.choice((1, 1, 2, 5, 16, 17, 40)))
        for _ in range(30)
    ]
    dram = Dram(write_latency=random.choice((1, 10)), stall=random.choice((0.0, 0.5)), seed=seed)
    bench = Bench(
        bus, dram, requests, stalls=[random.choice((0.0, 0.5)) for _ in range(3)], seed=seed
    )
    bench.run(extra=100)
    bench.check()
    assert len(bench.response.values) == len(requests)


def test_a_long_request_runs_at_a_beat_a_cycle():
    bench = Bench(16, Dram(write_latency=10), [(32, 400)])
    bench.run()
    bench.check()
    assert bench.channels.beats[-1] - bench.channels.beats[0] == 399


def test_one_beat_requests_run_at_a_beat_a_cycle():
    bench = Bench(16, Dram(write_latency=10), [(32 * i, 1) for i in range(100)])
    bench.run()
    bench.check()
    assert bench.channels.beats[-1] - bench.channels.beats[0] == 99


def test_addresses_run_ahead_of_data():
    bench = Bench(
        16, Dram(), [(256 * i, 16) for i in range(OUTSTANDING + 4)], stalls=(0.0, 1.0, 0.0)
    )
    addresses = Pulses(bench.port.axi.awvalid & bench.port.axi.awready)
    bench.run(addresses, until=lambda: len(addresses.cycles) >= OUTSTANDING, extra=50)
    assert len(addresses.cycles) == OUTSTANDING
    assert not bench.channels.beats


def test_a_response_comes_after_the_last_burst_of_its_request():
    bench = Bench(16, Dram(write_latency=50), [(0, 40), (1024, 1)])
    bench.run()
    assert bench.response.cycles[0] >= bench.channels.responses[2]
    assert len(bench.channels.responses) == 4


def test_an_error_of_any_burst_is_an_error_of_its_request():
    requests = [(0, 3), (PAGE_BYTES - 32, 40), (16, 2), (2 * PAGE_BYTES - 32, 3), (0, 1)]
    bench = Bench(16, Dram(bad={1}), requests)
    bench.run()
    assert [answer.error for answer in bench.response.values] == [0, 1, 0, 1, 0]


def test_a_client_that_takes_no_responses_loses_none():
    bench = Bench(16, Dram(), [(16 * i, 1) for i in range(40)], stalls=(0.0, 0.0, 0.9))
    bench.run(extra=50)
    bench.check()
    assert len(bench.response.values) == 40


def test_written_bytes_are_counted():
    bench = Bench(16, Dram(stall=0.3), [(16, 40)])
    total = 0

    class Counter:
        async def process(self, ctx):
            nonlocal total
            async for _, _, written in ctx.tick().sample(bench.port.written):
                total += written

    bench.run(Counter())
    assert total == bench.strobes
