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
        taken, has_room = Signal(range(self._depth + 1)), Signal(init=1)
        tokens, has_tokens = Signal(range(self._depth + 1)), Signal()
        m.d.comb += [self.place.ready.eq(has_room), self.pop.valid.eq(has_tokens)]
        places = self.place.valid & self.place.ready
        pops = self.pop.valid & self.pop.ready
        # With each count goes a flag, so that nothing has to be compared before it is known.
        for count, flag, up, after_up, after_down in (
            (taken, has_room, places, taken != self._depth - 1, 1),
            (tokens, has_tokens, self.push, 1, tokens != 1),
        ):
            with m.If(self.clear):
                m.d.sync += [count.eq(0), flag.eq(flag.init)]
            with m.Elif(up & ~pops):
                m.d.sync += [count.eq(count + 1), flag.eq(after_up)]
            with m.Elif(pops & ~up):
                m.d.sync += [count.eq(count - 1), flag.eq(after_down)]
        return m
