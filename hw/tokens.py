"""The queues of dependence tokens between neighbouring engines."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .interfaces import Token


class TokenQueue(wiring.Component):
    """A count of tokens on their way from one engine to a neighbour.

    The pusher takes a place and fills it later, when its instruction has completed, so that a
    completion need not wait.

    A token is there for the popper in the cycle after its push, a place for the pusher in the
    cycle after a pop. One of each a cycle.

    Parameters
    ----------
    depth : int
        Places.

    Members
    -------
    clear : :py:`In(1)`
        Empties the queue and gives all places back.
    place : :py:`In(Token)`
        A place is taken; ``ready`` while one is free.
    push : :py:`In(1)`
        A token goes into a place that was taken before.
    pop : :py:`Out(Token)`
        A token goes out; ``valid`` while one is there.
    """

    clear: In(1)
    place: In(Token)
    push: In(1)
    pop: Out(Token)

    def __init__(self, depth: int):
        self._depth = depth
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        taken = Signal(range(self._depth + 1))
        tokens = Signal(range(self._depth + 1))
        m.d.comb += [
            self.place.ready.eq(taken != self._depth),
            self.pop.valid.eq(tokens != 0),
        ]
        places = self.place.valid & self.place.ready
        pops = self.pop.valid & self.pop.ready
        for count, up in ((taken, places), (tokens, self.push)):
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            with m.Elif(up & ~pops):
                m.d.sync += count.eq(count + 1)
            with m.Elif(pops & ~up):
                m.d.sync += count.eq(count - 1)
        return m
