"""Fetch, loads of both engines and stores at once, on one pair of ports and one DRAM."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from tests.hw.axi_bench import Dram, ReadChannels, WriteChannels
from tests.hw.box_bench import CONFIGS, Scratch, load, random_boxes
from tests.hw.stream_bench import Pulses, Sink, Source, simulate
from weft.hw.box_reader import BoxReader
from weft.hw.fetch import Fetch
from weft.hw.read_port import ReadPort
from weft.hw.store import StoreEngine
from weft.hw.write_port import WritePort
from weft.isa.instructions import Instruction, InstructionSet
from weft.isa.memories import MEMORIES, MemoryType

LOADED = (MemoryType.INP, MemoryType.WGT)
COMPUTED = (MemoryType.UOP, MemoryType.ACC, MemoryType.ACC8, MemoryType.QNT)


@pytest.mark.parametrize("name", ["wide elements", "int4"])
def test_nothing_disturbs_anything_else(name):
    config, random = CONFIGS[name], Random(name)
    reads = Dram(latency=20, stall=0.3, mixed=True)
    writes = Dram(write_latency=10, stall=0.3)
    top, port, write_port = Module(), ReadPort(config, 3), WritePort(config)
    top.submodules += port, write_port
    actors = [ReadChannels(port.axi, reads), WriteChannels(write_port.axi, writes)]
    pulses, counts, scratches = [], [], []

    for client, types in enumerate((LOADED, COMPUTED)):
        memories = [MEMORIES[memory_type] for memory_type in types]
        reader = BoxReader(config, memories)
        top.submodules += reader
        wiring.connect(top, reader.bus, port.client[client])
        boxes = random_boxes(random, config, types, cycles=400)
        scratch = {
            m.scratchpad: Scratch(
                getattr(reader, m.scratchpad),
                m.depth(config),
                getattr(config, f"{m.scratchpad}_element_bytes"),
            )
            for m in memories
        }
        expected = {pad: s.bytes.copy() for pad, s in scratch.items()}
        for box in boxes:
            load(config, box, reads, expected[MEMORIES[box["memory_type"]].scratchpad])
        scratches.append((scratch, expected))
        pulses.append(Pulses(reader.done))
        counts.append(len(boxes))
        actors += [Source(reader.i, boxes), *scratch.values()]

    fetch = Fetch(config)
    top.submodules += fetch
    wiring.connect(top, fetch.bus, port.client[2])
    words = Sink(fetch.o, stall=0.2)
    actors += [Source(fetch.start, [{"address": 4096, "count": 200}]), words]

    store = StoreEngine(config, "simulation")
    top.submodules += store
    wiring.connect(top, store.bus, write_port.client)
    fields = {"y_size": 2, "x_size": 5, "x_stride": 5}
    issues = [
        InstructionSet(config).encode(Instruction("store.out", {**fields, "dram_base": 10 * i}))
        for i in range(10)
    ]
    pulses.append(Pulses(store.done))
    counts.append(len(issues))
    actors.append(Source(store.i, [{"word": word, "index": 0} for word in issues]))
    stored = 100 * config.out_element_bytes

    def finished() -> bool:
        done = all(len(p.cycles) == n for p, n in zip(pulses, counts, strict=True))
        return done and len(words.values) == 200

    untouched = writes.bytes[stored:].copy()
    simulate(top, *actors, *pulses, until=finished, extra=50)
    assert [word.word for word in words.values] == [
        reads.word(4096 + 16 * i, 16) for i in range(200)
    ]
    assert [len(p.cycles) for p in pulses] == counts
    for scratch, expected in scratches:
        for pad, image in scratch.items():
            np.testing.assert_array_equal(image.bytes, expected[pad], err_msg=pad)
    assert not writes.bytes[:stored].any()  # the accumulators read as 0 here
    np.testing.assert_array_equal(writes.bytes[stored:], untouched)
