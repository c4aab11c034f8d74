"""The steps that are about to be issued."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from .steps import step_layout


class StepQueue(wiring.Component):
    """Holds two steps, and knows of the first which of those under way write what it reads.

    A step is at ``o`` in the cycle after it was taken, from a register; one in and one out a cycle.
    No path leads from ``o.ready`` to ``i.ready``. Accumulators are compared when a step becomes the
    first, in a cycle of their own: while it waits, the results move on as those under way do.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths of the indices.
    stages : int
        Stages in which a step that has left at ``o`` is under way, the cycle after first.

    Members
    -------
    i, o : :py:`In(stream.Signature(step_layout(config)))`, :py:`Out(...)`
        The steps.
    under_way : array of :py:`In(1)`, ``dst``
        For each stage whether it has a step, and that step's destination.
    meets : :py:`Out(1)`
        A stage has a step whose destination is the first step's, or its source in the accumulators.
    """

    def __init__(self, config: AcceleratorConfig, stages: int):
        steps = stream.Signature(step_layout(config))
        stage = data.StructLayout({"step": 1, "dst": config.acc_index_bits})
        super().__init__(
            {
                "i": In(steps),
                "o": Out(steps),
                "under_way": In(stage).array(stages),
                "meets": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        first, second = self.o.payload, Signal(self.i.payload.shape())
        waits = Signal()
        moves, leaves = ~self.o.valid | self.o.ready, self.o.valid & self.o.ready
        following = data.View(second.shape(), Mux(waits, second, self.i.payload))
        hits = Signal(len(self.under_way))  # of the stages
        before = [(leaves & first.step, first.dst)]
        before += [(stage.step, stage.dst) for stage in self.under_way[:-1]]
        by_register = ~following.operation.use_imm & ~following.reads_qnt
        found = (
            step & ((dst == following.dst) | (by_register & (dst == following.src)))
            for step, dst in before
        )
        m.d.comb += [self.i.ready.eq(~waits), self.meets.eq(hits.any())]
        with m.If(~waits):
            m.d.sync += [second.eq(self.i.payload), waits.eq(self.i.valid & ~moves)]
        with m.If(moves):
            m.d.sync += [
                first.eq(following),
                self.o.valid.eq(waits | self.i.valid),
                waits.eq(0),
                hits.eq(Cat(found)),
            ]
        with m.Else():
            m.d.sync += hits.eq(Cat(C(0, 1), hits)[: len(hits)])
        return m
