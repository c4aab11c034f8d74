"""The counters of :data:`weft.isa.registers.COUNTERS`."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from ..isa.memories import Engine
from ..isa.registers import COUNTERS
from .form import delayed
from .interfaces import Activity

COUNTER_BITS = 64

Counts = wiring.Signature({counter.name: Out(COUNTER_BITS) for counter in COUNTERS})
"""All values, from the side of the counters."""


class Counters(wiring.Component):
    """Counts while ``run`` is 1 and holds afterwards.

    All that comes is registered first: the values are those of the cycle before.

    Members
    -------
    clear : :py:`In(1)`
        All to 0.
    run : :py:`In(1)`
        A program runs in this cycle.
    load_activity, compute_activity, store_activity : :py:`In(Activity)`
        What each engine does; one of the states that it has a counter for.
    load_done, compute_done, store_done : :py:`In(1)`
        An instruction completes.
    gemm_step, alu_step, read_beat : :py:`In(1)`
        One happens.
    written : :py:`In(range(bus_bytes + 1))`
        Bytes that are written.
    counts : :py:`Out(Counts)`
        The values.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        engines = {f"{e.value}_activity": In(Activity) for e in Engine}
        completions = {f"{e.value}_done": In(1) for e in Engine}
        super().__init__(
            {
                "clear": In(1),
                "run": In(1),
                **engines,
                **completions,
                "gemm_step": In(1),
                "alu_step": In(1),
                "read_beat": In(1),
                "written": In(range(config.bus_bytes + 1)),
                "counts": Out(Counts),
            }
        )

    def elaborate(self, platform):
        m = Module()
        now = {
            name: delayed(m, getattr(self, name), 1)
            for name, member in self.signature.members.items()
            if member.flow is In
        }
        completed = sum(now[f"{e.value}_done"] for e in Engine)
        events = {
            "cycles": (Const(1), 1),
            "instructions": (completed.any(), completed),
            "gemm_steps": (now["gemm_step"], 1),
            "alu_steps": (now["alu_step"], 1),
            "read_bytes": (now["read_beat"], self._config.bus_bytes),
            "write_bytes": (now["written"].any(), now["written"]),
        }
        for counter in COUNTERS:
            if counter.partition:
                state = Activity[counter.name.removeprefix(f"{counter.group}_").upper()]
                event, amount = now[f"{counter.group}_activity"] == state, 1
            else:
                event, amount = events[counter.name]
            value = getattr(self.counts, counter.name)
            with m.If(now["clear"]):
                m.d.sync += value.eq(0)
            with m.Elif(now["run"] & event):
                m.d.sync += value.eq(value + amount)
        return m
