from __future__ import annotations

from dataclasses import replace
from itertools import chain
from random import Random

import pytest

from tests.hw.engine_bench import FakeEngine, check_order, outcome, random_program
from tests.hw.stream_bench import Source, simulate
from weft.hw.scheduler import Scheduler
from weft.isa import PRESETS, Engine, FaultCode, Instruction, InstructionSet
from weft.isa.faults import ENGINE_NAMES
from weft.isa.ordering import DISPATCHED

TINY = PRESETS["tiny"]


class Bench:
    """A scheduler with fake engines; ``words`` come without fetch."""

    def __init__(self, config, words, *, seed=0, stall=0.2):
        self.dut = Scheduler(config)
        issues = [{"word": word, "index": index} for index, word in enumerate(words)]
        self.source = Source(self.dut.i, issues, stall=stall, seed=seed)
        self.count = len(words)
        self.engines = {
            e: FakeEngine(getattr(self.dut, e.value), seed=seed + k) for k, e in enumerate(Engine)
        }
        self.finished = False
        self.fault = {"code": 0}
        self.waiting = 0

    async def process(self, ctx):
        dut = self.dut
        ctx.set(dut.count, self.count)
        trigger = ctx.tick().sample(dut.finished, dut.fault, dut.waiting, dut.halt)
        async for _, _, finished, rest, waiting, halt in trigger:
            assert not (finished and rest["code"])
            if not halt:
                self.finished |= bool(finished)
                if rest["code"]:
                    self.fault, self.waiting = rest, waiting
                    ctx.set(dut.halt, 1)
            # What Source has handed over last is taken one cycle later.
            ctx.set(dut.fetch_idle, len(self.source.taken) == self.count)

    def run(self):
        simulate(
            self.dut, self.source, self, *self.engines.values(),
            until=lambda: self.finished or self.fault["code"], extra=4,
        )  # fmt: skip

    def completed(self):
        return {e: [index for index, _ in engine.completed] for e, engine in self.engines.items()}


@pytest.mark.parametrize("depth", [1, 3, 255])
@pytest.mark.parametrize("mistakes", [0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_program_comes_to_what_its_tokens_say_in_any_timing(depth, mistakes, seed):
    config = replace(TINY, token_depth=depth)
    instructions = InstructionSet(config)
    random = Random(f"{depth} {mistakes} {seed}")
    program = random_program(random, 60, mistakes)
    if seed == 3:
        program.pop()
    bench = Bench(config, [instructions.encode(i) for i in program], seed=seed)
    bench.run()
    expected = outcome(instructions, program, depth)
    check_order(program, bench.engines)
    if expected.ending == "done":
        assert bench.finished
        done = bench.completed()
        done[Engine.COMPUTE].append(len(program) - 1)
        assert done == expected.completed
        return
    assert not bench.finished
    assert bench.completed() == expected.completed
    if expected.ending == "deadlock":
        assert bench.fault["code"] == FaultCode.DEADLOCK
        assert bench.waiting == expected.waiting
        assert bench.fault["engine"] == ENGINE_NAMES.index(expected.engine)
        assert bench.fault["index"] == expected.index
    else:
        assert bench.fault["code"] == FaultCode.NO_FINISH
        assert bench.fault["index"] == len(program)


def test_an_illegal_instruction_faults_when_all_before_it_is_complete():
    instructions = InstructionSet(TINY)
    legal = [Instruction("load.inp"), Instruction("gemm"), Instruction("store.nop")] * 5
    words = [instructions.encode(i) for i in legal]
    bad = instructions.layouts[0].encode({"memory_type": 2, "push_prev": 1})
    bench = Bench(TINY, [*words, bad, *words])
    bench.run()
    assert bench.fault["code"] == FaultCode.TOKEN_ROUTE
    assert bench.fault["engine"] == ENGINE_NAMES.index("load")
    assert bench.fault["index"] == len(words)
    assert sorted(chain(*bench.completed().values())) == list(range(len(words)))


def test_an_illegal_instruction_counts_before_engines_that_wait():
    instructions = InstructionSet(TINY)
    waits = instructions.encode(Instruction("store.nop", pop_prev=True))
    bench = Bench(TINY, [waits, (1 << 128) - 1])
    bench.run()
    assert bench.fault["code"] == FaultCode.RESERVED
    assert bench.fault["index"] == 1


def test_a_queue_full_of_instructions_that_wait_for_later_ones_is_a_deadlock():
    instructions = InstructionSet(TINY)
    load = instructions.encode(Instruction("load.inp", pop_next=True))
    gemm = instructions.encode(Instruction("gemm", push_prev=True))
    finish = instructions.encode(Instruction("finish"))
    most = DISPATCHED
    bench = Bench(TINY, [load] * most + [gemm] * most + [finish], stall=0)
    bench.run()
    assert bench.finished
    bench = Bench(TINY, [load] * (most + 1) + [gemm] * (most + 1) + [finish], stall=0)
    bench.run()
    assert bench.fault["code"] == FaultCode.DEADLOCK
    assert bench.fault["index"] == 0


def test_finish_is_last_even_when_the_store_engine_is_slow():
    instructions = InstructionSet(TINY)
    program = [Instruction("store.nop")] * 6 + [Instruction("finish")]
    bench = Bench(TINY, [instructions.encode(i) for i in program])
    bench.engines[Engine.STORE].slowest = 60
    bench.run()
    assert bench.finished
    assert len(bench.completed()[Engine.STORE]) == 6
