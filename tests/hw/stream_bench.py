"""Both ends of streams for the simulator, with random stalls and a check of the stream rules."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random

from amaranth.hdl import Value
from amaranth.sim import Simulator


class Source:
    """Offers ``values`` on a stream; in a fraction ``stall`` of the free cycles it offers nothing.

    Attributes
    ----------
    values : deque
        What is still to be offered; may grow while the simulation runs.
    taken : list of int
        The cycle in which each value was taken.
    """

    def __init__(self, stream, values: Iterable = (), *, stall: float = 0.0, seed: int = 0):
        self.stream, self.values, self.stall = stream, deque(values), stall
        self.taken: list[int] = []
        self._random = Random(seed)

    async def process(self, ctx):
        stream, cycle, valid = self.stream, 0, False
        async for _, _, ready in ctx.tick().sample(stream.ready):
            if valid and ready:
                self.taken.append(cycle)
                valid = False
            if not valid and self.values and self._random.random() >= self.stall:
                ctx.set(stream.payload, self.values.popleft())
                valid = True
            ctx.set(stream.valid, valid)
            cycle += 1


class Sink:
    """Takes what a stream offers, ready in all but a fraction ``stall`` of the cycles.

    A stream that withdraws or changes what it offered before it was taken fails the test.

    Attributes
    ----------
    values : list
        What came, and ``cycles``, when.
    """

    def __init__(self, stream, *, stall: float = 0.0, seed: int = 0):
        self.stream, self.stall = stream, stall
        self.values: list = []
        self.cycles: list[int] = []
        self._random = Random(seed)

    async def process(self, ctx):
        stream, cycle, ready, offered = self.stream, 0, False, None
        raw = Value.cast(stream.payload)
        trigger = ctx.tick().sample(stream.valid, raw, stream.payload)
        async for _, _, valid, bits, payload in trigger:
            if offered is not None:
                assert valid, f"a stream withdrew its offer in cycle {cycle}"
                assert bits == offered, f"a stream changed its offer in cycle {cycle}"
            offered = bits if valid and not ready else None
            if valid and ready:
                self.values.append(payload)
                self.cycles.append(cycle)
            ready = self._random.random() >= self.stall
            ctx.set(stream.ready, ready)
            cycle += 1


class Monitor:
    """Watches a stream inside a design: what is offered must stay until it is taken."""

    def __init__(self, stream, name: str):
        self.stream, self.name = stream, name

    async def process(self, ctx):
        stream, cycle, offered = self.stream, 0, None
        trigger = ctx.tick().sample(stream.valid, stream.ready, Value.cast(stream.payload))
        async for _, _, valid, ready, bits in trigger:
            if offered is not None:
                assert valid, f"{self.name} withdrew its offer in cycle {cycle}"
                assert bits == offered, f"{self.name} changed its offer in cycle {cycle}"
            offered = bits if valid and not ready else None
            cycle += 1


class Pulses:
    """Notes the cycles in which a bit is 1."""

    def __init__(self, bit):
        self.bit = bit
        self.cycles: list[int] = []

    async def process(self, ctx):
        cycle = 0
        async for _, _, value in ctx.tick().sample(self.bit):
            if value:
                self.cycles.append(cycle)
            cycle += 1


def simulate(dut, *actors, until: Callable[[], bool], timeout: int = 20_000, extra: int = 0) -> int:
    """Runs ``dut`` with the actors' processes until a condition holds; the cycles that it took.

    ``extra`` cycles follow, in which nothing unexpected may happen.
    """
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for actor in actors:
        simulator.add_process(actor.process)
    cycles = 0

    async def main(ctx):
        nonlocal cycles
        while not until():
            assert cycles < timeout, f"not done after {timeout} cycles"
            await ctx.tick()
            cycles += 1
        for _ in range(extra):
            await ctx.tick()

    simulator.add_testbench(main)
    simulator.run()
    return cycles
