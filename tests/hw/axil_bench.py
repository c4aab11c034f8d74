"""A master of AXI4-Lite for the simulator, and the registers by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from weft.isa.registers import register


@dataclass
class Bus:
    """Reads and writes from a testbench; ``stall`` of the cycles of every channel are idle.

    Address and data of a write start in random order.
    """

    axil: object
    stall: float = 0.0
    seed: int = 0
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)

    async def _idle(self, ctx) -> None:
        while self._random.random() < self.stall:
            await ctx.tick()

    async def _send(self, ctx, channels: Sequence[str]) -> None:
        """Holds VALID of every channel until its READY, starting each at its own time."""
        waits = dict.fromkeys(channels, 0)
        if self.stall:
            waits = {channel: self._random.randrange(4) for channel in channels}
        while waits:
            for channel, wait in waits.items():
                ctx.set(getattr(self.axil, f"{channel}valid"), wait <= 0)
            taken = [
                channel
                for channel, wait in waits.items()
                if wait <= 0 and ctx.get(getattr(self.axil, f"{channel}ready"))
            ]
            await ctx.tick()
            waits = {channel: wait - 1 for channel, wait in waits.items() if channel not in taken}
            for channel in taken:
                ctx.set(getattr(self.axil, f"{channel}valid"), 0)

    async def _receive(self, ctx, channel: str, data: str | None = None) -> int:
        axil = self.axil
        valid = getattr(axil, f"{channel}valid")
        held = None
        while True:
            ready = self._random.random() >= self.stall
            ctx.set(getattr(axil, f"{channel}ready"), ready)
            now = (ctx.get(valid), ctx.get(getattr(axil, data)) if data else 0)
            if held is not None:
                assert now == held, f"{channel} changed before READY"
            held = now if now[0] else None
            assert ctx.get(getattr(axil, f"{channel}resp")) == 0
            await ctx.tick()
            if now[0] and ready:
                ctx.set(getattr(axil, f"{channel}ready"), 0)
                return now[1]

    async def write(self, ctx, address: int, value: int, strobe: int = 0xF) -> None:
        await self._idle(ctx)
        ctx.set(self.axil.awaddr, address)
        ctx.set(self.axil.wdata, value)
        ctx.set(self.axil.wstrb, strobe)
        await self._send(ctx, ("aw", "w"))
        await self._receive(ctx, "b")

    async def read(self, ctx, address: int) -> int:
        await self._idle(ctx)
        ctx.set(self.axil.araddr, address)
        await self._send(ctx, ("ar",))
        return await self._receive(ctx, "r", "rdata")

    async def put(self, ctx, name: str, value: int) -> None:
        """Write the register of that name."""
        await self.write(ctx, register(name).offset, value)

    async def get(self, ctx, name: str) -> int:
        """Read the register of that name, all its words."""
        words = range(register(name).words)
        values = [await self.read(ctx, register(name).offset + 4 * k) for k in words]
        return sum(value << 32 * k for k, value in enumerate(values))

    async def launch(self, ctx, address: int, count: int) -> None:
        """Start the program of ``count`` instructions at ``address``."""
        await self.put(ctx, "ADDRESS", address)
        await self.put(ctx, "COUNT", count)
        await self.put(ctx, "CONTROL", 1)
