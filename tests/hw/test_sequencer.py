from __future__ import annotations

import pytest
from amaranth.sim import Simulator

from weft.hw.interfaces import HEAD_STRUCT, Activity
from weft.hw.sequencer import IN_FLIGHT, NEIGHBOURS, Finish, Sequencer
from weft.isa import Engine
from weft.isa.faults import WAITS
from weft.isa.formats import FINISH


def head(opcode=0, **flags) -> int:
    """A word with these flags and nothing else."""
    return HEAD_STRUCT.const({"opcode": opcode, **flags}).as_bits()


def simulate(dut, drive):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6, if_exists=True)
    simulator.add_testbench(drive)
    simulator.run()


def wait_bit(engine: str, flag: str) -> int:
    return 1 << [(group, name) for group, name, _ in WAITS].index((engine, flag))


def test_every_engine_has_the_neighbours_that_the_waits_name():
    assert NEIGHBOURS == {
        Engine.LOAD: ("next",),
        Engine.COMPUTE: ("prev", "next"),
        Engine.STORE: ("prev",),
    }


def test_an_instruction_without_flags_passes_in_the_same_cycle():
    dut = Sequencer(Engine.LOAD)

    async def drive(ctx):
        ctx.set(dut.o.ready, 1)
        for index in range(5):
            ctx.set(dut.i.payload, {"word": head(), "index": index})
            ctx.set(dut.i.valid, 1)
            assert ctx.get(dut.o.valid)
            assert ctx.get(dut.i.ready)
            assert ctx.get(dut.o.payload.index) == index
            await ctx.tick()

    simulate(dut, drive)


def test_tokens_are_taken_one_by_one_and_once():
    dut = Sequencer(Engine.COMPUTE)

    async def drive(ctx):
        ctx.set(dut.i.payload, {"word": head(pop_prev=1, pop_next=1), "index": 7})
        ctx.set(dut.i.valid, 1)
        assert ctx.get(dut.waiting) == (
            wait_bit("compute", "pop_prev") | wait_bit("compute", "pop_next")
        )
        assert ctx.get(dut.index) == 7
        assert ctx.get(dut.resting)
        ctx.set(dut.pop_next.valid, 1)
        assert ctx.get(dut.pop_next.ready)
        await ctx.tick()
        assert not ctx.get(dut.pop_next.ready), "the token was taken already"
        assert ctx.get(dut.waiting) == wait_bit("compute", "pop_prev")
        await ctx.tick()
        assert not ctx.get(dut.o.valid)
        ctx.set(dut.pop_prev.valid, 1)
        assert ctx.get(dut.o.valid)
        assert not ctx.get(dut.i.ready)
        await ctx.tick()
        assert not ctx.get(dut.pop_prev.ready)
        assert not ctx.get(dut.waiting)
        assert ctx.get(dut.o.valid)
        ctx.set(dut.o.ready, 1)
        assert ctx.get(dut.i.ready)
        await ctx.tick()
        assert ctx.get(dut.pop_next.ready), "the next instruction takes its own tokens"
        assert ctx.get(dut.pop_prev.ready)

    simulate(dut, drive)


@pytest.mark.parametrize("completes_first", [False, True])
def test_while_a_place_is_missing_the_next_instruction_takes_no_token(completes_first):
    dut = Sequencer(Engine.COMPUTE)

    async def drive(ctx):
        ctx.set(dut.i.payload, {"word": head(push_prev=1, push_next=1, pop_prev=1), "index": 3})
        for ready in (dut.i.valid, dut.o.ready, dut.pop_prev.valid, dut.place_next.ready):
            ctx.set(ready, 1)
        assert ctx.get(dut.i.ready)
        await ctx.tick()
        ctx.set(dut.i.payload.index, 4)
        assert not ctx.get(dut.pop_prev.ready)
        assert not ctx.get(dut.i.ready)
        assert not ctx.get(dut.place_next.valid), "this place was taken"
        assert ctx.get(dut.waiting) == wait_bit("compute", "push_prev")
        assert ctx.get(dut.index) == 3
        assert not ctx.get(dut.resting)
        if completes_first:
            ctx.set(dut.done, 1)
            assert ctx.get(dut.push_next)
            assert not ctx.get(dut.push_prev)
            await ctx.tick()
            ctx.set(dut.done, 0)
            assert ctx.get(dut.resting)
            assert not ctx.get(dut.empty)
        ctx.set(dut.place_prev.ready, 1)
        assert ctx.get(dut.place_prev.valid)
        assert ctx.get(dut.push_prev) == completes_first
        await ctx.tick()
        assert not ctx.get(dut.push_prev)
        assert ctx.get(dut.empty) == completes_first
        assert ctx.get(dut.pop_prev.ready), "the next one goes on"
        if not completes_first:
            ctx.set(dut.i.valid, 0)
            ctx.set(dut.done, 1)
            assert ctx.get(dut.push_prev)
            assert ctx.get(dut.push_next)

    simulate(dut, drive)


def test_each_completion_sends_the_tokens_of_the_oldest_instruction():
    dut = Sequencer(Engine.COMPUTE)
    flags = [{}, {"push_prev": 1}, {"push_next": 1}, {"push_prev": 1, "push_next": 1}] * 20

    async def drive(ctx):
        for name in ("place_prev", "place_next", "o"):
            ctx.set(getattr(dut, name).ready, 1)
        started = sent = 0
        for cycle in range(300):
            offer = started < len(flags) and cycle % 3 != 1
            if offer:
                ctx.set(dut.i.payload.word, head(**flags[started]))
            ctx.set(dut.i.valid, offer)
            passes = ctx.get(dut.o.valid)
            # Every fourth one completes in the cycle in which it starts.
            done = sent < started or (passes and started % 4 == 0)
            done = done and cycle % 5 != 2
            ctx.set(dut.done, done)
            now = flags[sent] if done else {}
            assert ctx.get(dut.push_prev) == now.get("push_prev", 0)
            assert ctx.get(dut.push_next) == now.get("push_next", 0)
            assert ctx.get(dut.empty) == (started == sent)
            started += passes
            sent += done
            await ctx.tick()
        assert sent == len(flags)

    simulate(dut, drive)


def test_an_engine_holds_no_more_than_the_sequencer_remembers():
    dut = Sequencer(Engine.STORE)

    async def drive(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for _ in range(IN_FLIGHT):
            assert ctx.get(dut.o.valid)
            await ctx.tick()
        assert not ctx.get(dut.o.valid)
        assert not ctx.get(dut.waiting)
        ctx.set(dut.done, 1)
        await ctx.tick()
        ctx.set(dut.done, 0)
        assert ctx.get(dut.o.valid)

    simulate(dut, drive)


def test_a_halted_sequencer_takes_no_token_and_passes_nothing():
    dut = Sequencer(Engine.LOAD)

    async def drive(ctx):
        ctx.set(dut.i.payload.word, head(pop_next=1, push_next=1))
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.pop_next.valid, 1)
        ctx.set(dut.halt, 1)
        for output in (dut.o.valid, dut.i.ready, dut.pop_next.ready, dut.waiting):
            assert not ctx.get(output)

    simulate(dut, drive)


@pytest.mark.parametrize(
    ("there", "own", "shown"),
    [
        (0, Activity.IDLE, Activity.IDLE),
        (1, Activity.IDLE, Activity.WAIT_TOKEN),
        (1, Activity.BUSY, Activity.BUSY),
        (1, Activity.WAIT_MEMORY, Activity.WAIT_MEMORY),
        (0, Activity.DRAIN, Activity.DRAIN),
    ],
)
def test_an_idle_engine_with_an_instruction_before_it_waits_for_a_token(there, own, shown):
    dut = Sequencer(Engine.COMPUTE)

    async def drive(ctx):
        ctx.set(dut.i.valid, there)
        ctx.set(dut.activity_in, own)
        assert ctx.get(dut.activity) == shown

    simulate(dut, drive)


def test_finish_waits_for_quiet_and_is_not_seen_by_the_engine():
    dut = Finish()

    async def drive(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.payload.word, head())
        ctx.set(dut.i.valid, 1)
        assert ctx.get(dut.o.valid)
        assert ctx.get(dut.i.ready)
        assert not ctx.get(dut.held)
        ctx.set(dut.i.payload.word, head(FINISH.opcode))
        assert not ctx.get(dut.o.valid)
        assert not ctx.get(dut.i.ready)
        assert ctx.get(dut.held)
        ctx.set(dut.done_in, 1)
        assert ctx.get(dut.done)
        assert not ctx.get(dut.finished)
        ctx.set(dut.done_in, 0)
        ctx.set(dut.quiet, 1)
        assert ctx.get(dut.finished)
        assert ctx.get(dut.done)
        assert ctx.get(dut.i.ready)

    simulate(dut, drive)
