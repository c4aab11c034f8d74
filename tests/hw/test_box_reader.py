from __future__ import annotations

from random import Random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from tests.hw.axi_bench import Dram, ReadChannels
from tests.hw.box_bench import CONFIGS, TINY, Scratch, load, random_boxes
from tests.hw.stream_bench import Monitor, Pulses, Source, simulate
from weft.hw.box_reader import BoxReader
from weft.hw.read_port import ReadPort
from weft.isa import AcceleratorConfig
from weft.isa.config import PAGE_BYTES
from weft.isa.faults import FaultCode
from weft.isa.memories import MEMORIES, MemoryType

LOADED = (MemoryType.INP, MemoryType.WGT, MemoryType.TAPS)
COMPUTED = (MemoryType.UOP, MemoryType.ACC, MemoryType.ACC8, MemoryType.QNT)


class Bench:
    """A box reader on a read port of its own, with scratchpads and DRAM."""

    def __init__(self, config: AcceleratorConfig, types, dram: Dram, scratch_stall: float = 0.0):
        self.config, self.dram = config, dram
        memories = [MEMORIES[memory_type] for memory_type in types]
        self.reader = BoxReader(config, memories)
        port = ReadPort(config, 1)
        self.top = Module()
        self.top.submodules.reader = self.reader
        self.top.submodules.port = port
        wiring.connect(self.top, self.reader.bus, port.client[0])
        self.channels = ReadChannels(port.axi, dram)
        self.scratch = {
            memory.scratchpad: Scratch(
                getattr(self.reader, memory.scratchpad),
                memory.depth(config),
                getattr(config, f"{memory.scratchpad}_element_bytes"),
                stall=scratch_stall,
            )
            for memory in memories
        }
        self.expected = {name: s.bytes.copy() for name, s in self.scratch.items()}
        self.done = Pulses(self.reader.done)
        self.faults = Pulses(self.reader.fault.valid)

    def run(self, boxes, *, stall: float = 0.0, fault: bool = False, **options) -> None:
        """Until all boxes are done or there is a fault."""
        self.boxes = Source(self.reader.i, boxes, stall=stall)
        requests = Monitor(self.reader.bus.request, "request")
        actors = (self.boxes, self.channels, *self.scratch.values(), self.done, self.faults)
        simulate(
            self.top,
            *actors,
            requests,
            until=lambda: len(self.done.cycles) >= len(boxes) or bool(self.faults.cycles),
            **{"extra": 20, **options},
        )
        assert bool(self.faults.cycles) == fault

    def check(self, boxes) -> None:
        """The scratchpads hold what these boxes put there, and nothing else has changed."""
        assert len(self.done.cycles) == len(boxes)
        for box in boxes:
            name = MEMORIES[box["memory_type"]].scratchpad
            load(self.config, box, self.dram, self.expected[name])
        for name, scratch in self.scratch.items():
            np.testing.assert_array_equal(scratch.bytes, self.expected[name], err_msg=name)


def box_of(memory_type: MemoryType, **values: int):
    fields = ("sram_base", "dram_base", "y_size", "x_size", "x_stride", "pad_value", "index")
    pads = ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
    return {**dict.fromkeys((*fields, *pads), 0), "memory_type": int(memory_type), **values}


@pytest.mark.parametrize("types", [LOADED, COMPUTED], ids=["load", "compute"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("latency", "stall"), [(1, 0.4), (40, 0.0)])
def test_random_boxes_land_where_they_belong(name, types, latency, stall):
    config = CONFIGS[name]
    random = Random(f"{name} {types} {latency}")
    boxes = random_boxes(random, config, types, cycles=500)
    bench = Bench(config, types, Dram(latency=latency, stall=stall), stall)
    bench.run(boxes, stall=stall)
    bench.check(boxes)


@pytest.mark.parametrize("memory_type", [*LOADED, *COMPUTED])
@pytest.mark.parametrize("name", ["wide elements", "narrow elements"])
def test_a_long_row_ends_with_the_last_entry(name, memory_type):
    config = CONFIGS[name]
    memory = MEMORIES[memory_type]
    beats = max(1, memory.element_bytes(config) // config.bus_bytes)
    depth = min(memory.depth(config), 160 // beats)
    box = box_of(
        memory_type,
        sram_base=memory.depth(config) - depth,
        dram_base=3,
        y_size=1,
        x_size=depth,
        x_stride=depth,
    )
    bench = Bench(config, (memory_type,), Dram(latency=40))
    bench.run([box])
    bench.check([box])


def test_done_follows_each_box_at_its_last_write():
    boxes = [
        box_of(MemoryType.INP, y_size=1, x_size=4, x_stride=4, sram_base=4 * i) for i in range(3)
    ]
    bench = Bench(TINY, LOADED, Dram(latency=5))
    bench.run(boxes)
    writes = bench.scratch["inp"].cycles
    ends = [writes[1], writes[3], writes[5]]  # two elements a beat
    assert bench.done.cycles == [cycle + 1 for cycle in ends]


@pytest.mark.parametrize(
    ("name", "memory_type"),
    [("tiny", MemoryType.WGT), ("tiny", MemoryType.ACC), ("wide elements", MemoryType.QNT),
     ("wide elements", MemoryType.ACC8), ("wide elements", MemoryType.INP),
     ("tiny", MemoryType.INP), ("tiny", MemoryType.ACC8), ("tiny", MemoryType.UOP),
     ("narrow elements", MemoryType.INP), ("narrow elements", MemoryType.WGT),
     ("narrow elements", MemoryType.ACC), ("narrow elements", MemoryType.UOP),
     ("narrow elements", MemoryType.ACC8), ("int4", MemoryType.INP)],
)  # fmt: skip
def test_long_loads_fill_nearly_every_beat(name, memory_type):
    config, rows, memory = CONFIGS[name], 4, MEMORIES[memory_type]
    columns = memory.depth(config) // rows
    size = rows * columns * memory.element_bytes(config)
    boxes = [
        box_of(memory_type, y_size=rows, x_size=columns, x_stride=columns)
        for _ in range(-(-160 * config.bus_bytes // size))
    ]
    bench = Bench(config, (memory_type,), Dram(latency=60))
    bench.run(boxes)
    bench.check(boxes)
    beats = bench.channels.beats
    assert len(beats) >= 128
    assert len(beats) >= 0.95 * (beats[-1] - beats[0] + 1)
    assert bench.done.cycles[-1] <= len(beats) / 0.95 + 60 + 8


@pytest.mark.parametrize(("apart", "cycles"), [(1, 2.2), (7, 4)])
def test_one_element_boxes_hide_the_latency_best_if_they_continue_one_another(apart, cycles):
    count = 192
    boxes = [
        box_of(MemoryType.INP, y_size=1, x_size=1, dram_base=apart * i, sram_base=i)
        for i in range(count)
    ]
    bench = Bench(CONFIGS["wide elements"], LOADED, Dram(latency=60))
    bench.run(boxes)
    bench.check(boxes)
    done = bench.done.cycles
    assert (done[-1] - done[0]) / (count - 1) <= cycles


@pytest.mark.parametrize(("name", "row"), [("batch", 2 * 5 + 2), ("narrow elements", 3)])
def test_padding_is_written_as_fast_as_data_while_they_are_awaited(name, row):
    box = box_of(
        MemoryType.INP, y_size=4, x_size=8, x_stride=8, y_pad_0=4, y_pad_1=2, x_pad_0=1, x_pad_1=1
    )
    bench = Bench(CONFIGS[name], LOADED, Dram(latency=40))
    bench.run([box])
    bench.check([box])
    assert bench.done.cycles[0] - bench.boxes.taken[0] <= max(4 * row, 48) + 6 * row


@pytest.mark.parametrize("base", range(4))
def test_data_that_lie_otherwise_in_beats_and_banks_take_no_longer(base):
    config = CONFIGS["narrow elements"]
    boxes = [box_of(MemoryType.INP, y_size=1, x_size=300, dram_base=5, sram_base=base)]
    bench = Bench(config, LOADED, Dram(latency=5))
    bench.run(boxes)
    bench.check(boxes)
    assert len(bench.scratch["inp"].cycles) == 20  # beats of 16, the first with 11 of them


def test_empty_boxes_are_done_in_turn():
    full = box_of(MemoryType.INP, y_size=1, x_size=3)
    no_columns = box_of(MemoryType.INP, y_size=5, x_size=0, y_pad_0=2, x_pad_0=3)
    no_rows = box_of(MemoryType.INP, y_size=0, x_size=5, x_pad_0=1)
    boxes = [no_columns, full, no_columns, no_rows, full]
    bench = Bench(TINY, LOADED, Dram(latency=9))
    bench.run(boxes)
    bench.check(boxes)


def test_a_box_without_rows_writes_its_padding():
    box = box_of(MemoryType.INP, y_size=0, x_size=3, y_pad_0=1, y_pad_1=1, x_pad_1=2, pad_value=-3)
    bench = Bench(TINY, LOADED, Dram())
    bench.run([box])
    bench.check([box])
    assert not bench.channels.beats


@pytest.mark.parametrize("memory_type", [*LOADED, *COMPUTED])
def test_an_index_beyond_the_scratchpad_is_a_fault(memory_type):
    depth = MEMORIES[memory_type].depth(TINY)
    types = LOADED if memory_type in LOADED else COMPUTED
    good = box_of(memory_type, y_size=1, x_size=2, sram_base=depth - 2, index=6)
    bad = box_of(memory_type, y_size=1, x_size=3, sram_base=depth - 2, index=7)
    bench = Bench(TINY, types, Dram(latency=3))
    bench.run([good, bad, good], fault=True)
    assert len(bench.done.cycles) == 1


def test_the_last_padding_counts_for_the_range():
    depth = MEMORIES[MemoryType.INP].depth(TINY)
    bad = box_of(MemoryType.INP, y_size=1, x_size=1, x_pad_1=1, sram_base=depth - 1, index=9)
    bench = Bench(TINY, LOADED, Dram())
    bench.run([bad], fault=True)


@pytest.mark.parametrize("base", [1 << 15, (1 << 16) - 1])
def test_a_base_far_beyond_the_scratchpad_is_a_fault(base):
    bench = Bench(TINY, LOADED, Dram())
    bench.run([box_of(MemoryType.WGT, y_size=1, x_size=1, sram_base=base)], fault=True)
    assert not bench.scratch["wgt"].cycles


def test_an_empty_box_may_have_any_base():
    bench = Bench(TINY, LOADED, Dram())
    bench.run([box_of(MemoryType.WGT, y_size=1, x_size=0, sram_base=60000)])


def fault_of(bench: Bench, boxes) -> tuple[int, int]:
    """Code and index of the fault that the boxes end in."""
    seen: list[tuple[int, int]] = []

    class Reader:
        async def process(self, ctx):
            fault = bench.reader.fault
            trigger = ctx.tick().sample(fault.valid, fault.code, fault.index)
            async for _, _, valid, code, index in trigger:
                if valid:
                    seen.append((code, index))

    bench.boxes = Source(bench.reader.i, boxes)
    actors = (bench.boxes, bench.channels, *bench.scratch.values(), bench.done, Reader())
    simulate(bench.top, *actors, until=lambda: bool(seen), extra=100)
    assert len(set(seen)) == 1
    assert len(seen) == 101
    return seen[0]


def test_a_fault_says_which_box_and_is_held():
    depth = MEMORIES[MemoryType.INP].depth(TINY)
    boxes = [
        box_of(MemoryType.INP, y_size=1, x_size=1, index=70_000),
        box_of(MemoryType.INP, y_size=1, x_size=1, sram_base=depth, index=70_001),
        box_of(MemoryType.INP, y_size=1, x_size=1, index=70_002),
    ]
    bench = Bench(TINY, LOADED, Dram(latency=9))
    assert fault_of(bench, boxes) == (FaultCode.SRAM_RANGE, 70_001)
    assert len(bench.done.cycles) == 1


def test_a_bus_error_is_a_fault_of_the_box_whose_data_it_hit():
    element = TINY.inp_element_bytes
    boxes = [
        box_of(MemoryType.INP, y_size=1, x_size=9, index=3),
        box_of(MemoryType.INP, y_size=1, x_size=9, index=4, dram_base=PAGE_BYTES // element - 4),
        box_of(MemoryType.INP, y_size=1, x_size=9, index=5),
    ]
    boxes[1]["sram_base"] = boxes[2]["sram_base"] = 16
    bench = Bench(TINY, LOADED, Dram(latency=9, bad={1}))
    assert fault_of(bench, boxes) == (FaultCode.BUS_READ, 4)
    before_the_error = {**boxes[1], "x_size": 4}
    bench.done.cycles.append(0)
    bench.check([boxes[0], before_the_error])


def test_every_cycle_of_a_box_is_writing_or_waiting():
    bench = Bench(TINY, LOADED, Dram(latency=20))
    seen: list[tuple[int, int, int]] = []

    class Watch:
        async def process(self, ctx):
            reader = bench.reader
            trigger = ctx.tick().sample(reader.writing, reader.waiting, reader.idle)
            async for _, _, *state in trigger:
                seen.append(tuple(state))

    boxes = Source(bench.reader.i, [box_of(MemoryType.WGT, y_size=1, x_size=4)])
    actors = (boxes, bench.channels, *bench.scratch.values(), bench.done, Watch())
    simulate(bench.top, *actors, until=lambda: bool(bench.done.cycles), extra=5)
    assert all(sum(state) == 1 for state in seen)
    assert sum(writing for writing, _, _ in seen) == 4 * TINY.wgt_element_bytes // TINY.bus_bytes
    start, end = boxes.taken[0], bench.done.cycles[0]
    assert [cycle for cycle, state in enumerate(seen) if not state[2]] == list(
        range(start + 1, end + 1)
    )
