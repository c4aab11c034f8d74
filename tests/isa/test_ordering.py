"""In which order tokens let instructions execute."""

from __future__ import annotations

import random
import time

from hypothesis import given
from hypothesis import strategies as st

from weft.isa import PRESETS, FaultCode, InstructionSet
from weft.isa.assembly import assemble
from weft.isa.golden import stepped
from weft.isa.ordering import DISPATCHED, QUEUES, Ordering, Step, Stop

TINY = PRESETS["tiny"]
LOAD, COMPUTE, STORE = range(3)


def ordering_of(text: str, depth: int = 255) -> Ordering:
    steps, illegal = stepped(InstructionSet(TINY), assemble(text, TINY))
    assert illegal is None
    return Ordering(steps, depth)


def test_each_engine_keeps_its_own_order():
    order = [s.index for s in ordering_of("gemm\nload.inp\ngemm\nload.inp\nfinish").run()]
    assert [i for i in order if i in (0, 2, 4)] == [0, 2, 4]
    assert [i for i in order if i in (1, 3)] == [1, 3]
    assert order[-1] == 4


def test_an_instruction_waits_for_its_token_wherever_the_sender_stands():
    order = [s.index for s in ordering_of("gemm | pop_prev\nload.inp | push_next\nfinish").run()]
    assert order == [1, 0, 2]


def test_finish_waits_for_everything_else():
    ordering = ordering_of("finish")
    assert [s.index for s in ordering.run()] == [0]
    text = "store.nop | pop_prev\nload.inp | push_next\ngemm | pop_prev push_next\nfinish"
    ordering = ordering_of(text)
    assert [s.index for s in ordering.run()] == [1, 2, 0, 3]
    assert ordering.finished


def test_a_full_queue_holds_its_engine_back():
    ordering = ordering_of("load.inp | push_next\n" * 3 + "finish", depth=2)
    assert len(list(ordering.run())) == 3  # the third has executed; its token has no room
    stop = ordering.stopped(4)
    assert (stop.code, stop.engine, stop.index, stop.waiting) == (
        FaultCode.DEADLOCK, "load", 2, 1 << 4,
    )  # fmt: skip


def test_tokens_that_are_there_are_taken_while_others_are_missing():
    text = "load.inp | push_next\n" * 3 + "gemm | pop_prev pop_next\nfinish"
    ordering = ordering_of(text, depth=2)
    list(ordering.run())
    assert ordering.stopped(5).waiting == 1 << 2


def test_a_sender_too_far_behind_in_the_stream_is_not_there():
    near = "load.inp | pop_next\n" + "load.inp\n" * (DISPATCHED - 1) + "gemm | push_prev\nfinish"
    assert len(list(ordering_of(near).run())) == DISPATCHED + 2
    ordering = ordering_of(f"load.inp\nload.inp | pop_next\nload.inp\n{near}")
    assert [s.index for s in ordering.run()] == [0]
    stop = ordering.stopped(DISPATCHED + 5)
    assert (stop.code, stop.engine, stop.index, stop.waiting) == (FaultCode.DEADLOCK, "load", 1, 1)


def test_an_illegal_instruction_counts_only_once_it_is_the_next():
    illegal = Stop(FaultCode.RESERVED, "fetch", 99)
    for lag, code in ((DISPATCHED, FaultCode.RESERVED), (DISPATCHED + 1, FaultCode.DEADLOCK)):
        ordering = ordering_of("gemm | pop_prev\n" * lag)
        assert not list(ordering.run())
        assert ordering.stopped(99, illegal).code is code


@st.composite
def streams(draw: st.DrawFn) -> list[Step]:
    """Steps with any tokens that the engines' queues allow; some wait in long rows."""
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 12))):
        engine = draw(st.integers(LOAD, STORE))
        name = ("load", "compute", "store")[engine]
        pops = [q for q, (_, to) in enumerate(QUEUES) if to == name and draw(st.booleans())]
        pushes = [q for q, (by, _) in enumerate(QUEUES) if by == name and draw(st.booleans())]
        steps.append(Step(len(steps), engine, tuple(pops), tuple(pushes)))
        for _ in range(draw(st.sampled_from((0, 0, DISPATCHED - 2, DISPATCHED)))):
            steps.append(Step(len(steps), engine, (), ()))
    return [*steps, Step(len(steps), COMPUTE, (), (), finish=True)]


@given(streams(), st.integers(1, 3), st.integers(0, 1000))
def test_how_a_program_ends_does_not_depend_on_who_goes_first(steps, depth: int, seed: int):
    one, other = Ordering(steps, depth), Ordering(steps, depth)
    first = {s.index for s in one.run()}
    rng, second = random.Random(seed), set[int]()
    while ready := other.ready():
        engine = rng.choice(ready)
        second.add(other.next(engine).index)
        other.complete(engine)
    assert first == second
    assert one.finished == other.finished == (len(first) == len(steps))
    if not one.finished:
        assert one.stopped(len(steps)) == other.stopped(len(steps))


def test_a_long_stream_takes_linear_time():
    count = 20_000
    steps = [Step(i, LOAD, (), ()) for i in range(count)]
    steps.append(Step(count, COMPUTE, (), (), finish=True))
    start = time.process_time()
    assert sum(1 for _ in Ordering(steps, 8).run()) == count + 1
    assert time.process_time() - start < 5
