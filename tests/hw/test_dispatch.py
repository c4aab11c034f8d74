from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hw.stream_bench import Sink, Source, simulate
from weft.hw.dispatch import Decoder, Dispatch
from weft.isa import PRESETS, Engine, FaultCode, Instruction, InstructionSet
from weft.isa.faults import ENGINE_NAMES, static_fault
from weft.isa.ordering import DISPATCHED

TINY = PRESETS["tiny"]
CONFIGS = {
    **PRESETS,
    "vta only": replace(TINY, requantize=False, pad_value=False, overwrite=False),
    "int4": replace(TINY, inp_width=4, wgt_width=4, batch=2),
    "no requantize": replace(TINY, requantize=False),
    "no overwrite": replace(TINY, overwrite=False),
}


def near_legal_word(instructions: InstructionSet, random: Random) -> int:
    """A word of any operation with random operands, then a few fields spoilt."""
    operation = random.choice(list(instructions.operations.values()))
    layout = instructions.layouts[operation.format.opcode]
    values = {slot.name: random.randint(slot.least, slot.greatest) for slot in layout.slots}
    for name in ("reserved", "pop_prev", "pop_next", "push_prev", "push_next", "x_size"):
        if name in values and random.random() < 0.7:
            values[name] = 0
    for name in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"):
        if name in values and random.random() < 0.9:
            values[name] = 0
    values |= {name: int(value) for name, value in operation.fixed.items()}
    word = layout.encode(values | {"opcode": operation.format.opcode})
    if random.random() < 0.2:
        word ^= 1 << random.randrange(128)
    return word


def decoded(config, words):
    """What the hardware says of each word: engine and code."""
    dut = Decoder(config)
    results = []

    async def drive(ctx):
        for word in words:
            ctx.set(dut.word, word)
            await ctx.delay(1e-6)
            results.append((ctx.get(dut.engine), ctx.get(dut.code)))

    simulator = Simulator(dut)
    simulator.add_testbench(drive)
    simulator.run()
    return results


def expected(config, words):
    instructions = InstructionSet(config)
    for word in words:
        operation, code = static_fault(instructions, word)
        engine = "fetch" if operation is None else operation.engine.value
        yield ENGINE_NAMES.index(engine), code


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_agrees_with_the_tables_on_words_that_are_almost_legal(name):
    config = CONFIGS[name]
    instructions = InstructionSet(config)
    random = Random(name)
    words = [near_legal_word(instructions, random) for _ in range(1000)]
    words += [random.getrandbits(128) for _ in range(500)]
    results = decoded(config, words)
    assert results == list(expected(config, words))
    codes = {code for _, code in results}
    assert codes == {
        FaultCode.NONE, FaultCode.RESERVED, FaultCode.STORE_PAD, FaultCode.TOKEN_ROUTE
    }  # fmt: skip


@settings(deadline=None, max_examples=10)
@given(words=st.lists(st.integers(0, (1 << 128) - 1), min_size=50, max_size=200))
def test_decoding_agrees_with_the_tables_on_any_word(words):
    assert decoded(TINY, words) == list(expected(TINY, words))


def instruction_stream(random: Random, count: int, instructions: InstructionSet):
    """Words of legal instructions of all engines, FINISH not among them."""
    names = [name for name in instructions.operations if name != "finish"]
    return [instructions.encode(Instruction(random.choice(names))) for _ in range(count)]


class Bench:
    """A dispatcher with a source before it and a sink behind each queue."""

    def __init__(self, words, *, stall=0.0, stalls=None, config=TINY):
        self.dut = Dispatch(config)
        issues = [{"word": word, "index": index} for index, word in enumerate(words)]
        self.source = Source(self.dut.i, issues, stall=stall)
        stalls = stalls or {}
        self.sinks = {
            e.value: Sink(getattr(self.dut, e.value), stall=stalls.get(e.value, stall), seed=k)
            for k, e in enumerate(Engine)
        }
        self.state = {}

    async def process(self, ctx):
        names = ("code", "engine", "index", "idle", "blocked")
        members = [getattr(self.dut, name) for name in names]
        async for _, _, *values in ctx.tick().sample(*members):
            self.state = dict(zip(names, values, strict=True))

    def run(self, until, extra=3):
        return simulate(self.dut, self.source, self, *self.sinks.values(), until=until, extra=extra)

    def came(self, name):
        return [(payload["index"], payload["word"]) for payload in self.sinks[name].values]

    @property
    def total(self):
        return sum(len(sink.values) for sink in self.sinks.values())


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_every_engine_gets_its_instructions_in_program_order(stall):
    instructions = InstructionSet(TINY)
    words = instruction_stream(Random(1), 300, instructions)
    bench = Bench(words, stall=stall)
    cycles = bench.run(lambda: bench.total == len(words))
    for engine in Engine:
        mine = [(index, word) for index, word in enumerate(words)
                if instructions.operation_of(word).engine is engine]  # fmt: skip
        assert bench.came(engine.value) == mine
    if not stall:
        assert cycles <= len(words) + 6


def test_a_full_queue_blocks_the_stream_and_nothing_is_lost():
    instructions = InstructionSet(TINY)
    load = instructions.encode(Instruction("load.inp"))
    store = instructions.encode(Instruction("store.nop"))
    words = [load] * (DISPATCHED + 2) + [store]
    bench = Bench(words, stalls={"load": 1.0})
    bench.run(lambda: bench.state.get("blocked"), extra=10)
    assert bench.total == 0
    assert not bench.state["idle"]
    bench = Bench(words, stalls={"load": 0.8})
    bench.run(lambda: bench.total == len(words))
    assert len(bench.came("load")) == DISPATCHED + 2
    assert bench.came("store") == [(DISPATCHED + 2, store)]


def test_an_illegal_instruction_stays_and_shows_what_is_wrong_with_it():
    instructions = InstructionSet(TINY)
    load = instructions.encode(Instruction("load.inp"))
    bad = instructions.layouts[1].encode({"opcode": 1, "memory_type": 4, "x_size": 1, "x_pad_1": 2})
    bench = Bench([load, load, bad, load])
    bench.run(lambda: bench.state.get("code"), extra=10)
    assert bench.state["code"] == FaultCode.STORE_PAD
    assert bench.state["engine"] == ENGINE_NAMES.index("store")
    assert bench.state["index"] == 2
    assert not bench.state["idle"]
    assert bench.total == 2


def test_what_follows_finish_is_dropped_even_if_it_is_illegal():
    instructions = InstructionSet(TINY)
    load = instructions.encode(Instruction("load.inp"))
    finish = instructions.encode(Instruction("finish"))
    words = [load, finish, load, (1 << 128) - 1, load]
    bench = Bench(words)
    bench.run(lambda: len(bench.source.taken) == len(words), extra=10)
    assert bench.came("load") == [(0, load)]
    assert bench.came("compute") == [(1, finish)]
    assert bench.state["idle"]
    assert not bench.state["code"]
