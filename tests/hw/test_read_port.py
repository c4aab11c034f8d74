from __future__ import annotations

from random import Random

import pytest

from tests.hw.axi_bench import Dram, ReadChannels
from tests.hw.stream_bench import Sink, Source, simulate
from weft.hw.axi import BURST_BEATS
from weft.hw.read_port import BUFFER_BEATS, OUTSTANDING, ReadPort
from weft.isa import AcceleratorConfig
from weft.isa.config import PAGE_BYTES


def config_with(bus: int) -> AcceleratorConfig:
    return AcceleratorConfig(bus_bytes=bus)


class Clients:
    """Requests of each client, what must come back, and what came."""

    def __init__(self, port: ReadPort, requests, *, stalls, seed=0):
        self.requests = requests
        self.sources = [
            Source(client.request, map(request, mine), seed=seed + number, stall=0.3 * stall)
            for number, (client, mine, stall) in enumerate(
                zip(port.client, requests, stalls, strict=True)
            )
        ]
        self.sinks = [
            Sink(client.beat, stall=stall, seed=seed + 10 + number)
            for number, (client, stall) in enumerate(zip(port.client, stalls, strict=True))
        ]
        self.totals = [sum(beats for _, beats in mine) for mine in requests]

    def done(self) -> bool:
        return all(len(s.values) >= n for s, n in zip(self.sinks, self.totals, strict=True))

    def check(self, dram: Dram, bus: int) -> None:
        for mine, sink in zip(self.requests, self.sinks, strict=True):
            addresses = [a + bus * i for a, beats in mine for i in range(beats)]
            expected = [(dram.word(a, bus), int(dram.response(a) != 0)) for a in addresses]
            assert [(beat.data, beat.error) for beat in sink.values] == expected


def request(pair: tuple[int, int]) -> dict[str, int]:
    return {"address": pair[0], "beats": pair[1]}


def random_requests(random: Random, bus: int, count: int) -> list[tuple[int, int]]:
    lengths = [random.choice((1, 2, random.randint(1, 16), random.randint(1, 80)))] * 2
    return [
        (random.randrange(0, 1 << 15, bus), random.choice((*lengths, random.randint(1, 8))))
        for _ in range(count)
    ]


@pytest.mark.parametrize("bus", [8, 64])
@pytest.mark.parametrize("seed", range(4))
def test_every_client_gets_its_beats_in_order_under_any_stalls(bus, seed):
    random = Random(seed)
    port = ReadPort(config_with(bus), 3)
    dram = Dram(
        latency=random.choice((1, 40)), stall=random.choice((0.0, 0.4)), mixed=True, seed=seed
    )
    channels = ReadChannels(port.axi, dram)
    requests = [random_requests(random, bus, 8) for _ in range(3)]
    clients = Clients(port, requests, stalls=[0.0, 0.3, 0.7], seed=seed)
    simulate(port, channels, *clients.sources, *clients.sinks, until=clients.done, extra=100)
    clients.check(dram, bus)


@pytest.mark.parametrize("latency", [1, 60])
def test_a_long_request_runs_at_a_beat_a_cycle(latency):
    port = ReadPort(config_with(16), 1)
    dram = Dram(latency=latency)
    channels = ReadChannels(port.axi, dram)
    clients = Clients(port, [[(16, 400)]], stalls=[0.0])
    simulate(port, channels, *clients.sources, *clients.sinks, until=clients.done)
    clients.check(dram, 16)
    first, last = channels.beats[0], channels.beats[-1]
    assert last - first + 1 == 400


def test_one_beat_requests_follow_each_other_in_every_cycle():
    port = ReadPort(config_with(16), 2)
    channels = ReadChannels(port.axi, Dram(latency=1))
    clients = Clients(port, [[(32 * i, 1) for i in range(50)], [(0, 1)] * 50], stalls=[0.0, 0.0])
    simulate(port, channels, *clients.sources, *clients.sinks, until=clients.done)
    cycles = [cycle for cycle, _, _ in channels.requests]
    assert cycles[-1] - cycles[0] + 1 == 100


def test_sixteen_bursts_are_under_way():
    port = ReadPort(config_with(8), 1)
    channels = ReadChannels(port.axi, Dram(latency=60, outstanding=64))
    clients = Clients(port, [[(PAGE_BYTES * i, 1) for i in range(64)]], stalls=[0.0])
    simulate(port, channels, *clients.sources, *clients.sinks, until=clients.done)
    first_beat = channels.beats[0]
    assert sum(cycle < first_beat for cycle, _, _ in channels.requests) == OUTSTANDING
    assert len(channels.requests) == 64


def test_bursts_end_at_their_own_alignment():
    port = ReadPort(config_with(16), 1)
    channels = ReadChannels(port.axi, Dram())
    clients = Clients(port, [[(PAGE_BYTES - 48, 21)]], stalls=[0.0])
    simulate(port, channels, *clients.sources, *clients.sinks, until=clients.done)
    starts = [address for _, _, address in channels.requests]
    assert starts == [PAGE_BYTES - 48, PAGE_BYTES, PAGE_BYTES + BURST_BEATS * 16]


def test_addresses_wrap_at_the_end_of_the_address_space():
    port = ReadPort(config_with(16), 1)
    channels = ReadChannels(port.axi, Dram())
    clients = Clients(port, [[((1 << 32) - 32, 4)]], stalls=[0.0])
    simulate(port, channels, *clients.sources, *clients.sinks, until=clients.done)
    assert [address for _, _, address in channels.requests] == [(1 << 32) - 32, 0]


def test_a_client_that_takes_nothing_does_not_hold_up_another():
    port = ReadPort(config_with(16), 2)
    dram = Dram(latency=40)
    channels = ReadChannels(port.axi, dram)
    clients = Clients(port, [[(0, 4000)], [(0, 300)]], stalls=[1.0, 0.0])

    def second_done():
        return len(clients.sinks[1].values) == 300

    simulate(port, channels, *clients.sources, *clients.sinks, until=second_done)
    assert not clients.sinks[0].values
    assert sum(id == 0 for _, id, _ in channels.requests) == BUFFER_BEATS // BURST_BEATS


def test_two_greedy_clients_share_the_bus_evenly():
    port = ReadPort(config_with(16), 2)
    channels = ReadChannels(port.axi, Dram(latency=40))
    clients = Clients(port, [[(0, 2000)], [(0, 2000)]], stalls=[0.0, 0.0])
    sinks = clients.sinks
    simulate(
        port,
        channels,
        *clients.sources,
        *sinks,
        until=lambda: sum(len(s.values) for s in sinks) >= 600,
    )
    assert abs(len(sinks[0].values) - len(sinks[1].values)) <= 2 * BURST_BEATS


def test_a_bus_error_comes_with_its_beat():
    port = ReadPort(config_with(16), 1)
    dram = Dram(bad={1})
    channels = ReadChannels(port.axi, dram)
    clients = Clients(port, [[(PAGE_BYTES - 64, 10), (0, 3)]], stalls=[0.0])
    simulate(port, channels, *clients.sources, *clients.sinks, until=clients.done)
    clients.check(dram, 16)
    assert [beat.error for beat in clients.sinks[0].values] == [0] * 4 + [1] * 6 + [0] * 3
