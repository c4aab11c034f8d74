from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.networks import every_operator
from weft.compiler.artifact import CompiledModel, Segment
from weft.compiler.check import check
from weft.compiler.emit import CARRIER, Action, Span, finish
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig, Engine, Instruction, InstructionSet, ProgramError
from weft.isa.ordering import DISPATCHED

TINY = AcceleratorConfig.preset("tiny")
UOPS = Segment("uops", 0x1000, np.array([0, 1 << 18], np.uint32).view(np.uint8))
FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return compile_graph(every_operator(), TINY)


def load(memory: str, at: int = 0, count: int = 1, **flags: bool) -> Instruction:
    operands = {"sram_base": at, "dram_base": 0, "y_size": 1, "x_size": count}
    return Instruction(f"load.{memory}", operands, **flags)


def load_uops() -> Instruction:
    operands = {"dram_base": UOPS.address // 4, "y_size": 1, "x_size": 2}
    return Instruction("load.uop", operands)


def gemm(trips: int = 1, factor: int = 0, **flags: bool) -> Instruction:
    operands = {"uop_bgn": 0, "uop_end": 1, "iter_out": 1, "iter_in": trips,
                "dst_factor_in": factor, "src_factor_in": factor}  # fmt: skip
    return Instruction("gemm", operands, **flags)


def store(count: int = 1, at: int = 900, **flags: bool) -> Instruction:
    return Instruction("store.out", {"dram_base": at, "y_size": 1, "x_size": count}, **flags)


def keep(
    rows: int = 1, columns: int = 1, at: int = 0, stride: int = 0, **flags: bool
) -> Instruction:
    box = {"dram_base": at, "y_size": rows, "x_size": columns, "x_stride": stride}
    return Instruction("storex.inp", box, **flags)


FINISH = Instruction("finish")


def complaint(*program: Instruction, config: AcceleratorConfig = TINY) -> str:
    with pytest.raises(ProgramError) as error:
        check(program, config, [UOPS])
    return str(error.value)


def test_a_program_with_its_tokens_is_sound():
    program = [
        load_uops(),
        load("inp"),
        load("wgt", push_next=True),
        gemm(pop_prev=True, push_prev=True, push_next=True),
        load("inp", pop_next=True, push_next=True),
        store(pop_prev=True, push_prev=True),
        gemm(pop_prev=True, pop_next=True),
        FINISH,
    ]
    check(program, TINY, [UOPS])


def test_reading_before_a_load_is_known_to_be_complete():
    text = complaint(load_uops(), load("inp"), load("wgt"), gemm(), FINISH)
    assert text == (
        "instruction 3 (gemm) touches inp[0], which instruction 1 (load.inp) "
        "may not have written yet"
    )


def test_overwriting_before_a_read_is_known_to_be_complete():
    program = [
        load_uops(),
        load("inp"),
        load("wgt", push_next=True),
        gemm(pop_prev=True),
        load("inp"),
        FINISH,
    ]
    text = complaint(*program)  # of the two, the checker meets the load first
    assert "(gemm) touches inp[0], which instruction 4 (load.inp) may not have written" in text


def test_storing_before_the_accumulator_is_known_to_be_complete():
    text = complaint(load("acc"), store(), FINISH)
    assert "touches acc[0], which instruction 0 (load.acc) may not have written yet" in text


def test_tokens_of_one_engine_tell_of_another():
    program = [
        load("inp", push_next=True),
        load("acc", pop_prev=True, push_next=True),
        store(pop_prev=True, push_prev=True),
        load("acc", pop_next=True),
        FINISH,
    ]
    check(program, TINY, [])


def test_reading_dram_before_a_store_is_known_to_be_complete():
    program = [
        load("acc", push_next=True),
        store(at=0, pop_prev=True, push_prev=True),
        Instruction("gemm.reset", pop_next=True, push_prev=True),
        load("inp", pop_next=True),
        FINISH,
    ]
    check(program, TINY, [])
    program[1] = store(at=0, pop_prev=True)
    program[2] = Instruction("gemm.reset", push_prev=True)
    text = complaint(*program)
    assert text == (  # of the two, the checker meets the load first
        "instruction 1 (store.out) touches DRAM 0x0, which instruction 3 (load.inp) "
        "may not have read yet"
    )
    program[1] = store(at=1, pop_prev=True)  # the element beside it
    check(program, TINY, [])


def test_overwriting_dram_before_a_load_is_known_to_have_read_it():
    program = [load("inp"), load("acc", push_next=True), store(at=0, pop_prev=True), FINISH]
    text = complaint(*program)
    assert "(store.out) touches DRAM 0x0, which instruction 0 (load.inp) may not have read" in text


def test_a_token_that_nobody_sends():
    text = complaint(load("acc", pop_prev=True), FINISH)
    assert text == "deadlock: instruction 0 waits for ever"


def test_a_token_from_beyond_what_may_wait_at_an_engine():
    def program(lag: int) -> list[Instruction]:
        rest = [Instruction("load.inp")] * (lag - 1)
        return [load("inp", pop_next=True), *rest, load("acc", push_prev=True), FINISH]

    check(program(DISPATCHED), TINY, [])
    assert complaint(*program(DISPATCHED + 1)) == "deadlock: instruction 0 waits for ever"


def test_a_token_that_nobody_takes():
    text = complaint(load("acc", push_next=True), FINISH)
    assert text == "1 tokens from compute to store are left"


def test_more_tokens_than_a_queue_holds():
    program = [load("inp", push_next=True), load("inp", push_next=True), FINISH]
    config = replace(TINY, token_depth=1)
    assert "waits for ever" in complaint(*program, config=config)


def test_a_token_to_no_engine():
    assert "load has no previous engine" in complaint(load("inp", pop_prev=True), FINISH)
    assert "store has no next engine" in complaint(store(push_next=True), FINISH)


def test_elements_beyond_a_scratchpad():
    assert "touches inp[1024]; there are 1024" in complaint(load("inp", 1020, 5), FINISH)
    program = [load_uops(), gemm(trips=300, factor=2), FINISH]
    assert "touches acc[598]; there are 512" in complaint(*program)


def test_results_that_stay_are_written_by_the_store_engine():
    beside = [load("inp", 2), load("inp", 12, 1), keep(3, 2, at=0, stride=5)]
    check([*beside, FINISH], TINY, [])
    early = complaint(load("inp", 11), keep(3, 2, at=0, stride=5), FINISH)
    assert "instruction 1 (storex.inp) touches inp[11], which instruction 0 (load.inp)" in early
    program = [
        load_uops(), gemm(push_next=True), keep(pop_prev=True, push_prev=True),
        gemm(pop_next=True), FINISH,
    ]  # fmt: skip
    check(program, TINY, [UOPS])
    for position, flags in ((2, {"push_prev": False}), (3, {"pop_next": False})):
        program[position] = replace(program[position], **flags)
    assert "instruction 2 (storex.inp) touches acc[0]" in complaint(*program)
    assert "touches inp[1024]; there are 1024" in complaint(keep(2, 1, 24, 1000), FINISH)
    check([keep(2, 0, 24, 1000), keep(0, 2, 1 << 20), FINISH], TINY, [])
    assert "touches acc[512]; there are 512" in complaint(keep(27, 19), FINISH)


def test_micro_ops_from_nowhere():
    program = [Instruction("load.uop", {"dram_base": 4, "y_size": 1, "x_size": 1}), FINISH]
    assert "instruction 0 loads micro-ops from where there are none" in complaint(*program)


def test_a_program_without_its_end():
    assert complaint(load("inp")) == "the program does not end in FINISH"


def test_every_token_of_a_compiled_program_is_needed(compiled):
    """Without any one pair of push and pop, the checker finds a race."""
    steps = compiled.programs[0]
    segments = compiled.segments
    whole = steps[0].program.instructions
    check(whole, TINY, segments)
    pairs = list(token_pairs(whole))
    assert len(steps) > 3
    assert len(pairs) > 12
    for sender, push, taker, pop in pairs:
        program = list(whole)
        program[sender] = replace(program[sender], **{push: False})
        program[taker] = replace(program[taker], **{pop: False})
        with pytest.raises(ProgramError, match="may not have"):
            check(program, TINY, segments)


def token_pairs(program: tuple[Instruction, ...]):
    """(sender, its flag, taker, its flag) of every token, first in first out."""
    operations = InstructionSet(TINY).operations
    engines = {name: list(Engine).index(o.engine) for name, o in operations.items()}
    for push, pop, side in (("push_next", "pop_prev", 1), ("push_prev", "pop_next", -1)):
        for engine in range(3):
            of = [i for i, n in enumerate(program) if engines[n.operation] == engine]
            to = [i for i, n in enumerate(program) if engines[n.operation] == engine + side]
            senders = [i for i in of if getattr(program[i], push)]
            takers = [i for i in to if getattr(program[i], pop)]
            yield from ((s, push, t, pop) for s, t in zip(senders, takers, strict=True))


def test_random_actions_get_tokens_that_suffice_and_fit():
    """Actions on random spans: the checker, which knows nothing of the actions, is content."""
    rng = np.random.default_rng(5)
    for depth in (1, 2, 255):
        config = replace(TINY, token_depth=depth)
        for _ in range(20):
            actions = [random_action(rng) for _ in range(60)]
            check(finish(actions, config).instructions, config, [])


def test_between_load_and_store_the_compute_engine_carries_tokens_where_none_of_its_own_does():
    box = {"sram_base": 0, "dram_base": 0, "y_size": 1, "x_size": 1}
    acc = (Span("acc", 0, 1),)
    load, store = Action("loadx.acc", box, (), acc), Action("store.out", box, acc)
    step = Action("load.acc", box, acc, acc)
    straight = finish([load, store, load], TINY).instructions
    assert [i.operation for i in straight] == [
        "loadx.acc", CARRIER, "store.out", CARRIER, "loadx.acc", "finish",
    ]  # fmt: skip
    check(straight, TINY, [])
    stepped = finish([load, step, store, load], TINY).instructions
    assert [i.operation for i in stepped] == [
        "loadx.acc", "load.acc", "store.out", CARRIER, "loadx.acc", "finish",
    ]  # fmt: skip
    check(stepped, TINY, [])


def random_action(rng: np.random.Generator) -> Action:
    start, count = int(rng.integers(0, 24)), int(rng.integers(1, 9))
    where = int(rng.integers(0, 40))
    box = {"sram_base": start, "dram_base": where, "y_size": 1, "x_size": count}
    kinds = ["load.inp", "load.wgt", "load.acc", "load.qnt", "loadx.acc", "loadx.qnt", "store.out"]
    kind = rng.choice(kinds)
    span = Span(str(kind).split(".")[1], start, start + count)
    if kind == "store.out":
        return Action(str(kind), box, (Span("acc", start, start + count),))
    return Action(str(kind), box, (), (span,))
