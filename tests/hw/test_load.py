from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from tests.hw.axi_bench import Dram, ReadChannels
from tests.hw.box_bench import CONFIGS, TINY, Scratch, load, random_boxes
from tests.hw.stream_bench import Pulses, Source, simulate
from weft.hw.interfaces import Activity
from weft.hw.load import LoadEngine
from weft.hw.read_port import ReadPort
from weft.isa.instructions import Instruction, InstructionSet
from weft.isa.memories import MEMORIES, Engine, MemoryType


def issue(instructions: InstructionSet, box, extended: bool):
    """The instruction that moves a box, as it comes to the engine."""
    operands = {name: value for name, value in box.items() if name not in ("memory_type", "index")}
    if not extended:
        operands.pop("pad_value")
    name = ("loadx." if extended else "load.") + MemoryType(box["memory_type"]).name.lower()
    word = instructions.encode(Instruction(name, operands, push_next=True))
    return {"word": word, "index": box["index"]}


class Watch:
    """The engine's activity in every cycle."""

    def __init__(self, engine):
        self.engine, self.seen = engine, []

    async def process(self, ctx):
        async for _, _, activity, idle in ctx.tick().sample(self.engine.activity, self.engine.idle):
            self.seen.append(Activity(activity))
            assert (Activity(activity) is Activity.IDLE) == bool(idle)


@pytest.mark.parametrize("name", ["tiny", "narrow elements", "int4", "plain"])
def test_random_loads_do_what_the_instructions_say(name):
    config = replace(TINY, pad_value=False) if name == "plain" else CONFIGS[name]
    dram = Dram(latency=7, stall=0.2)
    instructions = InstructionSet(config)
    random = Random(name)
    own = (MemoryType.INP, MemoryType.WGT)
    memories, _ = instructions.loads(Engine.LOAD)
    assert len(memories) == (6 if config.pad_value else 2)
    boxes = random_boxes(random, config, [memory.type for memory in memories], cycles=800)
    issues = []
    for box in boxes:
        extended = box["memory_type"] not in own or (config.pad_value and random.random() < 0.5)
        if not extended:
            box["pad_value"] = 0
        issues.append(issue(instructions, box, extended))

    engine, port = LoadEngine(config), ReadPort(config, 1)
    top = Module()
    top.submodules.engine, top.submodules.port = engine, port
    wiring.connect(top, engine.bus, port.client[0])
    scratch = {
        memory.scratchpad: Scratch(
            getattr(engine, memory.scratchpad),
            memory.depth(config),
            getattr(config, f"{memory.scratchpad}_element_bytes"),
        )
        for memory in memories
    }
    for shared in {"acc", "uop", "qnt"} & set(scratch):
        scratch[shared].stall = 0.3
    expected = {name: s.bytes.copy() for name, s in scratch.items()}
    for box in boxes:
        load(config, box, dram, expected[MEMORIES[box["memory_type"]].scratchpad])

    done, watch = Pulses(engine.done), Watch(engine)
    source = Source(engine.i, issues, stall=0.3)
    simulate(
        top,
        ReadChannels(port.axi, dram),
        source,
        done,
        watch,
        *scratch.values(),
        until=lambda: len(done.cycles) == len(boxes),
        extra=50,
    )
    assert len(done.cycles) == len(boxes)
    for filled, image in scratch.items():
        np.testing.assert_array_equal(image.bytes, expected[filled])
    writes = sum(len(image.cycles) for image in scratch.values())
    assert watch.seen.count(Activity.BUSY) == writes
    assert watch.seen[-1] is Activity.IDLE


def test_an_index_out_of_range_is_a_fault_of_the_instruction():
    engine, port = LoadEngine(TINY), ReadPort(TINY, 1)
    top = Module()
    top.submodules.engine, top.submodules.port = engine, port
    wiring.connect(top, engine.bus, port.client[0])
    word = InstructionSet(TINY).encode(
        Instruction("load.wgt", {"sram_base": TINY.wgt_depth, "y_size": 1, "x_size": 1})
    )
    source = Source(engine.i, [{"word": word, "index": 41}])
    faults = Pulses((engine.fault.valid == 1) & (engine.fault.index == 41))
    done = Pulses(engine.done)
    actors = (ReadChannels(port.axi, Dram()), source, faults, done)
    simulate(top, *actors, until=lambda: bool(faults.cycles), extra=20)
    assert not done.cycles
