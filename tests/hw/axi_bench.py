"""DRAM behind AXI4 for the simulator: latency, random stalls, any order between ids, and checks.

Every burst is checked against the protocol and what Weft promises (full-width INCR beats, at most
``BURST_BEATS``, no page crossed); every VALID must stay with its payload until READY.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

import numpy as np

from weft.hw.axi import BURST_BEATS, BURST_INCR, Response
from weft.isa.config import PAGE_BYTES

READ_CHANNEL = ("arvalid", "araddr", "arid", "arlen", "arsize", "arburst", "arcache", "arprot")
ADDRESS_CHANNEL = tuple("aw" + name[2:] for name in READ_CHANNEL)
DATA_CHANNEL = ("wvalid", "wdata", "wstrb", "wlast")


@dataclass
class Burst:
    """A burst under way: the addresses of its beats still to come."""

    id: int
    addresses: deque[int]
    due: int


@dataclass
class Dram:
    """Bytes, and how slow and unreliable they are.

    Parameters
    ----------
    size : int
        Bytes, a power of two; memory repeats at its multiples.
    latency : int
        Cycles from a read request to its first beat.
    write_latency : int
        Cycles from the last beat of a write to its response.
    stall : float
        Fraction of the cycles in which a channel rests, each channel for itself.
    outstanding : int
        Bursts that it takes before the first has ended.
    mixed : bool
        Whether beats of different ids come in random order.
    bad : set of int
        Pages (address // PAGE_BYTES) that answer with an error.
    """

    size: int = 1 << 16
    latency: int = 1
    write_latency: int = 1
    stall: float = 0.0
    outstanding: int = 16
    mixed: bool = False
    bad: set[int] = field(default_factory=set)
    seed: int = 0

    def __post_init__(self) -> None:
        self.bytes = np.random.default_rng(self.seed).integers(0, 256, self.size, dtype=np.uint8)

    def response(self, address: int) -> int:
        """``rresp`` or ``bresp`` for an address."""
        return Response.SLVERR if address // PAGE_BYTES in self.bad else Response.OKAY

    def word(self, address: int, size: int) -> int:
        """``size`` bytes, little-endian."""
        start = address % self.size
        return int.from_bytes(self.bytes[start : start + size].tobytes(), "little")


class _Channel:
    """Watches a channel that the design drives."""

    def __init__(self, name: str):
        self.name, self.held = name, None

    def sees(self, cycle: int, ready: bool, values: tuple[int, ...]) -> bool:
        """Whether a transfer happens, having checked that VALID and payload stay till then."""
        if self.held is not None:
            assert values == self.held, f"{self.name} changed before READY in cycle {cycle}"
        self.held = values if values[0] and not ready else None
        return bool(values[0] and ready)


def burst_addresses(size_field: int, kind: int, address: int, length: int, bus: int) -> deque[int]:
    """The beats of a burst, which is checked."""
    assert bus == 1 << size_field, "not full-width"
    assert kind == BURST_INCR
    assert address % bus == 0
    assert length < BURST_BEATS
    end = address + length * bus
    assert address // PAGE_BYTES == end // PAGE_BYTES, f"{address:#x}..{end:#x} crosses a page"
    return deque(range(address, end + bus, bus))


class ReadChannels:
    """The slave of AR and R.

    Attributes
    ----------
    beats : list of int
        The cycle of each beat.
    requests : list of (int, int, int)
        Cycle, id and address of each burst.
    """

    def __init__(self, axi, dram: Dram):
        self.axi, self.dram, self.bus = axi, dram, len(axi.rdata) // 8
        self.beats: list[int] = []
        self.requests: list[tuple[int, int, int]] = []
        self._random = Random(dram.seed + 1)

    def _stalls(self) -> bool:
        return self._random.random() < self.dram.stall

    def _next(self, bursts: list[Burst], cycle: int) -> Burst | None:
        """Whose beat comes in ``cycle``; within an id always the oldest burst's."""
        oldest = {burst.id: burst for burst in reversed(bursts)}
        candidates = list(oldest.values()) if self.dram.mixed else bursts[:1]
        candidates = [burst for burst in candidates if burst.due <= cycle]
        return self._random.choice(candidates) if candidates and not self._stalls() else None

    async def process(self, ctx):
        axi, dram, cycle = self.axi, self.dram, 0
        bursts: list[Burst] = []
        channel, ready, valid = _Channel("AR"), False, False
        watched = [getattr(axi, name) for name in READ_CHANNEL]
        async for _, _, rready, *values in ctx.tick().sample(axi.rready, *watched):
            if channel.sees(cycle, ready, tuple(values)):
                _, address, id, length, size, kind, _, _ = values
                addresses = burst_addresses(size, kind, address, length, self.bus)
                bursts.append(Burst(id, addresses, cycle + dram.latency))
                self.requests.append((cycle, id, address))
            if valid and rready:
                self.beats.append(cycle)
                valid = False
            if not valid and (burst := self._next(bursts, cycle + 1)):
                address = burst.addresses.popleft()
                if not burst.addresses:
                    bursts.remove(burst)
                ctx.set(axi.rdata, dram.word(address, self.bus))
                ctx.set(axi.rid, burst.id)
                ctx.set(axi.rresp, dram.response(address))
                ctx.set(axi.rlast, not burst.addresses)
                valid = True
            ctx.set(axi.rvalid, valid)
            ready = len(bursts) < dram.outstanding and not self._stalls()
            ctx.set(axi.arready, ready)
            cycle += 1


class WriteChannels:
    """The slave of AW, W and B; bytes are written as their beat comes.

    Attributes
    ----------
    beats : list of int
        The cycle of each beat.
    written : int
        Bytes, by their strobes.
    responses : list of int
        The cycle of each response.
    """

    def __init__(self, axi, dram: Dram):
        self.axi, self.dram, self.bus = axi, dram, len(axi.wdata) // 8
        self.beats: list[int] = []
        self.responses: list[int] = []
        self.written = 0
        self._random = Random(dram.seed + 2)

    def _stalls(self) -> bool:
        return self._random.random() < self.dram.stall

    def _write(self, address: int, data: int, strobe: int) -> None:
        for byte in range(self.bus):
            if strobe >> byte & 1:
                self.dram.bytes[(address + byte) % self.dram.size] = data >> 8 * byte & 0xFF
                self.written += 1

    async def process(self, ctx):
        axi, dram, cycle = self.axi, self.dram, 0
        bursts: deque[deque[int]] = deque()  # addresses whose data have not come
        data: deque[tuple[int, ...]] = deque()  # beats whose addresses have not come
        answers: deque[tuple[int, int]] = deque()  # due cycle, response
        aw, w, b = _Channel("AW"), _Channel("W"), False
        awready, wready, response = False, False, int(Response.OKAY)
        watched = [getattr(axi, name) for name in (*ADDRESS_CHANNEL, *DATA_CHANNEL)]
        async for _, _, bready, *values in ctx.tick().sample(axi.bready, *watched):
            address_values, data_values = tuple(values[:8]), tuple(values[8:])
            if aw.sees(cycle, awready, address_values):
                _, address, _, length, size, kind, _, _ = address_values
                bursts.append(burst_addresses(size, kind, address, length, self.bus))
            if w.sees(cycle, wready, data_values):
                self.beats.append(cycle)
                data.append(data_values[1:])
            while bursts and data:
                word, strobe, last = data.popleft()
                address = bursts[0].popleft()
                self._write(address, word, strobe)
                response = max(response, dram.response(address))
                assert bool(last) == (not bursts[0]), f"wlast wrong in cycle {cycle}"
                if last:
                    bursts.popleft()
                    answers.append((cycle + dram.write_latency, response))
                    response = int(Response.OKAY)
            if b and bready:
                self.responses.append(cycle)
                b = False
            if not b and answers and answers[0][0] <= cycle + 1 and not self._stalls():
                ctx.set(axi.bresp, answers.popleft()[1])
                b = True
            ctx.set(axi.bvalid, b)
            awready = len(bursts) + len(answers) < dram.outstanding and not self._stalls()
            wready = len(data) < BURST_BEATS and not self._stalls()
            ctx.set(axi.awready, awready)
            ctx.set(axi.wready, wready)
            cycle += 1
