from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from tests.hw.axi_bench import Dram, WriteChannels
from tests.hw.box_bench import CONFIGS as BOX_CONFIGS
from tests.hw.box_bench import TINY, Scratch, element_address, lanes_to_bytes
from tests.hw.stream_bench import Monitor, Pulses, Source, simulate
from weft.hw.interfaces import Activity
from weft.hw.parameters import store_parts
from weft.hw.store import StoreEngine
from weft.hw.write_port import WritePort
from weft.isa import AcceleratorConfig
from weft.isa.config import PAGE_BYTES, QNT_LANE_BYTES
from weft.isa.faults import FaultCode
from weft.isa.instructions import Instruction, InstructionSet
from weft.isa.memories import MEMORIES, QNT_LANE, MemoryType
from weft.isa.requantize import rescale_int

OUT = MEMORIES[MemoryType.OUT]
CONFIGS = BOX_CONFIGS | {
    "two turns": replace(TINY, rescale_cycles=2),
    "four turns": replace(BOX_CONFIGS["batch"], rescale_cycles=4),
}


class Contents:
    """What a scratchpad that is only read holds; an address beyond it fails the test."""

    def __init__(self, port, elements: np.ndarray):
        self.port = port
        self.words = [int.from_bytes(row.tobytes(), "little") for row in elements]
        self.width = 8 * elements.shape[1]

    async def process(self, ctx):
        port, banks = self.port, len(self.port.data) // self.width
        async for _, _, enable, address in ctx.tick().sample(port.enable, port.address):
            if enable:
                assert address < len(self.words)
                found = [*self.words, *[0] * banks][address : address + banks]
                data = sum(
                    word << (address + n) % banks * self.width for n, word in enumerate(found)
                )
                ctx.set(port.data, data)


def in_parts(config: AcceleratorConfig, elements: np.ndarray) -> np.ndarray:
    """The first parts of all elements, the second ones, and so on, as the store engine reads."""
    parts = store_parts(config)
    split = elements.reshape(len(elements), parts, -1)
    return split.swapaxes(0, 1).reshape(len(elements) * parts, -1)


class Bench:
    """A store engine with random accumulators and parameters, on a port of its own."""

    def __init__(self, config: AcceleratorConfig, dram: Dram, seed: int = 0, held: float = 0.0):
        self.config, self.dram = config, dram
        self.engine, self.port = StoreEngine(config, "simulation"), WritePort(config)
        self.top = Module()
        self.top.submodules.engine, self.top.submodules.port = self.engine, self.port
        wiring.connect(self.top, self.engine.bus, self.port.client)
        random = np.random.default_rng(seed)
        shape = (config.acc_depth, config.batch, config.block)
        self.acc = random.integers(-(1 << 31), 1 << 31, shape) >> random.integers(0, 24, shape)
        self.channels = WriteChannels(self.port.axi, dram)
        image = self.acc.astype("<i4").reshape(config.acc_depth, -1).view(np.uint8)
        self.actors = [self.channels, Contents(self.engine.acc, image)]
        if config.requantize:
            self.qnt = self._parameters(random)
            self.actors.append(Contents(self.engine.qnt, in_parts(config, self.qnt)))
        self.done, self.faults = Pulses(self.engine.done), Pulses(self.engine.fault.valid)
        self.expected = dram.bytes.copy()
        if config.keeping:
            depth, size = config.inp_depth, config.inp_element_bytes
            self.inp = Scratch(self.engine.inp, depth, size, seed, held)
            self.inputs = self.inp.bytes.copy()
            self.actors.append(self.inp)
        self.activities: list[Activity] = []
        streams = {"request": self.engine.bus.request, "data": self.engine.bus.data}
        self.actors += [Monitor(stream, name) for name, stream in streams.items()]

    def _parameters(self, random) -> np.ndarray:
        ranges = {
            "bias": (-(1 << 20), 1 << 20),
            "multiplier": (1 << 30, 1 << 31),
            "left": (0, 4),
            "right": (0, 16),
            "zero_point": (-128, 128),
            "low": (-128, 0),
            "high": (1, 128),
            "even": (0, 256),
        }
        lanes = self.config.qnt_depth * self.config.block
        element = random.integers(0, 256, (lanes, QNT_LANE_BYTES), dtype=np.uint8)
        self.records = {}
        for record in QNT_LANE:
            values = random.integers(*ranges[record.name], lanes)
            self.records[record.name] = values.reshape(-1, self.config.block)
            raw = lanes_to_bytes(values, record.dtype.bits).reshape(lanes, -1)
            element[:, record.offset : record.offset + raw.shape[1]] = raw
        return element.reshape(self.config.qnt_depth, -1)

    def _requantized(self, acc: np.ndarray, index: int) -> np.ndarray:
        out = np.empty_like(acc)
        for (b, lane), value in np.ndenumerate(acc):
            p = {name: int(values[index, lane]) for name, values in self.records.items()}
            x = (int(value) + p["bias"] + (1 << 31)) % (1 << 32) - (1 << 31)
            even = bool(p["even"] & self.config.to_even)
            y = rescale_int(x, p["multiplier"], p["left"], p["right"], even) + p["zero_point"]
            out[b, lane] = min(max(y, p["low"]), p["high"])
        return out

    def store(self, box) -> None:
        """What the instruction does to DRAM."""
        for y in range(box["y_size"]):
            for x in range(box["x_size"]):
                acc = self.acc[box["sram_base"] + y * box["x_size"] + x]
                if "qnt_base" in box:
                    acc = self._requantized(acc, box["qnt_base"] + y * box["qnt_step"])
                raw = lanes_to_bytes(acc, self.config.out_width)
                if box.get("kept"):
                    self.inputs[box["dram_base"] + y * box["x_stride"] + x] = raw
                    continue
                at = element_address(self.config, OUT, box, y, x) % self.dram.size
                self.expected[at : at + len(raw)] = raw

    def run(self, boxes, *, stall: float = 0.0, fault: bool = False, **options) -> None:
        """Until all are done or there is a fault."""
        self.source = Source(
            self.engine.i, [issue(self.config, box, n) for n, box in enumerate(boxes)], stall=stall
        )
        simulate(
            self.top,
            *self.actors,
            self.source,
            self.done,
            self.faults,
            self,
            until=lambda: len(self.done.cycles) >= len(boxes) or bool(self.faults.cycles),
            **{"extra": 30, **options},
        )
        assert bool(self.faults.cycles) == fault
        if not fault:
            assert len(self.done.cycles) == len(boxes)

    async def process(self, ctx):
        engine = self.engine
        async for _, _, activity, idle in ctx.tick().sample(engine.activity, engine.idle):
            self.activities.append(Activity(activity))
            assert (Activity(activity) is Activity.IDLE) == bool(idle)

    def check(self, boxes) -> None:
        """DRAM holds what these instructions put there, and nothing else has changed."""
        for box in boxes:
            self.store(box)
        np.testing.assert_array_equal(self.dram.bytes, self.expected)
        if self.config.keeping:
            np.testing.assert_array_equal(self.inp.bytes, self.inputs)
        elements = sum(box["y_size"] * box["x_size"] for box in boxes if not box.get("kept"))
        assert self.channels.written == elements * self.config.out_element_bytes


def issue(config: AcceleratorConfig, box, index: int):
    name = "storex.out" if "qnt_base" in box else "store.out"
    if "kept" in box:
        name, box = "storex.inp", {k: v for k, v in box.items() if k != "kept"}
    if box.get("nop"):
        name, box = "store.nop", {}
    word = InstructionSet(config).encode(Instruction(name, box, push_prev=True))
    return {"word": word, "index": index}


def box_of(**values: int):
    names = ("sram_base", "dram_base", "y_size", "x_size", "x_stride")
    return {**dict.fromkeys(names, 0), **values}


def random_box(random: Random, config: AcceleratorConfig):
    box = box_of(y_size=random.choice((0, 1, 1, 2, 3)), x_size=random.choice((0, 1, 2, 3, 7, 16)))
    size = box["y_size"] * box["x_size"]
    box["sram_base"] = random.choice((0, config.acc_depth - size, random.randint(0, 40)))
    box["dram_base"] = random.choice((random.randrange(1 << 32), random.randrange(512)))
    box["x_stride"] = random.choice((0, 1, box["x_size"], random.randrange(60)))
    if config.requantize and random.random() < 0.5:
        box["qnt_step"] = random.randrange(2)
        box["qnt_base"] = random.randrange(config.qnt_depth - 2)
        if config.keeping and random.random() < 0.5:
            box["kept"] = 1
            far = max(0, (box["y_size"] - 1) * box["x_stride"] + box["x_size"])
            last = config.inp_depth - far
            box["dram_base"] = random.choice((last, random.randint(0, last)))
    return box


def kept_box(**values: int):
    return box_of(qnt_base=1, qnt_step=0, kept=1, **values)


@pytest.mark.parametrize("name", [*CONFIGS, "plain"])
@pytest.mark.parametrize(("latency", "stall"), [(1, 0.5), (10, 0.0)])
def test_random_stores_write_what_the_instructions_say(name, latency, stall):
    config = replace(TINY, requantize=False) if name == "plain" else CONFIGS[name]
    random = Random(f"{name} {latency}")
    boxes = [random_box(random, config) for _ in range(30)]
    bench = Bench(config, Dram(write_latency=latency, stall=stall), held=stall)
    bench.run(boxes, stall=stall)
    bench.check(boxes)


@pytest.mark.parametrize(
    ("name", "columns"),
    [("wide elements", 64), ("batch", 100), ("tiny", 200), ("narrow elements", 240), ("int4", 240)],
)
@pytest.mark.parametrize("requantizes", [False, True])
def test_long_stores_take_a_cycle_a_beat(name, columns, requantizes):
    config = CONFIGS[name]
    box = box_of(y_size=2, x_size=columns, x_stride=columns)
    if requantizes:
        box |= {"qnt_base": 1, "qnt_step": 1}
    bench = Bench(config, Dram(write_latency=10))
    bench.run([box])
    bench.check([box])
    beats = bench.channels.beats
    cycles = beats[-1] - beats[0] + 1
    assert len(beats) == -(-2 * columns * config.out_element_bytes // config.bus_bytes)
    assert len(beats) >= 0.95 * cycles
    assert bench.done.cycles[0] - bench.source.taken[0] <= len(beats) / 0.95 + 40


@pytest.mark.parametrize("name", ["wide elements", "batch", "tiny"])
def test_what_stays_takes_a_cycle_for_the_elements_of_a_beat(name):
    config = CONFIGS[name]
    columns = min(100, config.inp_depth // 2 - 1, config.acc_depth // 2)
    box = kept_box(y_size=2, x_size=columns, x_stride=columns, dram_base=1)
    bench = Bench(config, Dram())
    bench.run([box])
    bench.check([box])
    assert not bench.channels.beats
    slots = max(1, config.bus_bytes // config.inp_element_bytes)
    firsts = 1, 1 + columns
    groups = sum(-(-(first + columns) // slots) - first // slots for first in firsts)
    cycles = bench.inp.cycles
    assert len(cycles) == groups
    assert cycles[-1] - cycles[0] == groups - 1
    assert bench.done.cycles[0] - cycles[-1] == 1
    assert bench.done.cycles[0] - bench.source.taken[0] <= groups + 20


def test_rows_that_stay_and_rows_that_leave_are_done_in_turn():
    rows = [kept_box(y_size=1, x_size=3), box_of(y_size=1, x_size=3)]
    boxes = [
        *rows,
        kept_box(y_size=2, x_size=3, x_stride=9, dram_base=7),
        kept_box(x_size=4),
        *rows,
    ]
    bench = Bench(TINY, Dram(write_latency=40))
    bench.run(boxes)
    bench.check(boxes)
    first, second = bench.channels.responses
    done = bench.done.cycles
    assert done[0] < first < done[1] == done[2] - 2 == done[3] - 3 == done[4] - 4
    assert done[5] > second
    assert max(bench.inp.cycles) < first


def test_an_engine_whose_oldest_row_stays_is_busy():
    bench = Bench(TINY, Dram())
    bench.run([kept_box(y_size=1, x_size=8)])
    start, stop = bench.source.taken[0] + 4, bench.done.cycles[0]
    assert set(bench.activities[start : stop + 1]) == {Activity.BUSY}
    assert bench.activities[stop + 1] is Activity.IDLE


def test_one_element_stores_overlap():
    config, count = CONFIGS["wide elements"], 48
    boxes = [box_of(y_size=1, x_size=1, dram_base=3 * i, sram_base=i) for i in range(count)]
    bench = Bench(config, Dram(write_latency=10))
    bench.run(boxes)
    bench.check(boxes)
    beats = config.out_element_bytes // config.bus_bytes
    assert bench.done.cycles[-1] - bench.done.cycles[0] <= (count - 1) * beats / 0.95


def test_done_follows_the_response():
    bench = Bench(TINY, Dram(write_latency=25))
    bench.run([box_of(y_size=2, x_size=3, x_stride=3)])
    assert bench.done.cycles[0] > bench.channels.responses[-1]
    assert bench.done.cycles[0] - bench.channels.responses[-1] <= 2


def test_empty_stores_and_nops_are_done_in_turn():
    full = box_of(y_size=1, x_size=3)
    boxes = [{"nop": 1}, full, {"nop": 1}, box_of(x_size=4), box_of(y_size=4), full, {"nop": 1}]
    bench = Bench(TINY, Dram(write_latency=20))
    bench.run(boxes)
    bench.check([full, full])
    first, second = bench.channels.responses
    assert bench.done.cycles[0] < first < bench.done.cycles[1] < bench.done.cycles[2]
    assert bench.done.cycles[5] > second


def fault_of(bench: Bench, boxes) -> tuple[int, int]:
    fault, seen = bench.engine.fault, []

    class Reader:
        async def process(self, ctx):
            trigger = ctx.tick().sample(fault.valid, fault.code, fault.index)
            async for _, _, valid, *values in trigger:
                if valid:
                    seen.append(tuple(values))

    bench.actors.append(Reader())
    bench.run(boxes, fault=True, extra=100)
    assert len(seen) > 100
    assert len(set(seen)) == 1
    return seen[0]


@pytest.mark.parametrize(
    "bad",
    [
        box_of(y_size=2, x_size=2, sram_base=TINY.acc_depth - 3),
        box_of(y_size=1, x_size=1, sram_base=(1 << 16) - 1),
        box_of(y_size=1, x_size=(1 << 16) - 1, sram_base=(1 << 16) - 1),
        box_of(y_size=2, x_size=1, qnt_base=TINY.qnt_depth - 1, qnt_step=1),
        kept_box(y_size=2, x_size=2, sram_base=TINY.acc_depth - 3),
        kept_box(y_size=1, x_size=2, dram_base=TINY.inp_depth - 1),
        kept_box(y_size=2, x_size=1, dram_base=TINY.inp_depth - 1, x_stride=(1 << 16) - 1),
        kept_box(y_size=1, x_size=1, dram_base=1 << 17),
        kept_box(y_size=1, x_size=1, dram_base=1 << 31),
    ],
)
def test_an_index_out_of_range_is_a_fault_and_is_not_read(bad):
    good = box_of(y_size=1, x_size=2)
    bench = Bench(TINY, Dram(write_latency=10))
    assert fault_of(bench, [good, bad, good]) == (FaultCode.SRAM_RANGE, 1)
    assert len(bench.done.cycles) == 1


def test_the_last_parameters_may_be_used_for_the_last_row():
    boxes = [
        box_of(y_size=3, x_size=2, qnt_base=TINY.qnt_depth - 3, qnt_step=1),
        box_of(y_size=3, x_size=2, qnt_base=TINY.qnt_depth - 1, qnt_step=0, dram_base=9),
    ]
    bench = Bench(TINY, Dram())
    bench.run(boxes)
    bench.check(boxes)


def test_a_bus_error_is_a_fault_of_its_instruction():
    element = TINY.out_element_bytes
    boxes = [
        box_of(y_size=2, x_size=5, x_stride=5),
        box_of(y_size=2, x_size=5, x_stride=5, dram_base=PAGE_BYTES // element - 7),
        box_of(y_size=2, x_size=5, x_stride=5),
    ]
    bench = Bench(TINY, Dram(write_latency=10, bad={1}))
    assert fault_of(bench, boxes) == (FaultCode.BUS_WRITE, 1)
    assert len(bench.done.cycles) == 1


def test_busy_covers_reads_and_beats():
    bench = Bench(TINY, Dram(write_latency=30))
    bench.run([box_of(y_size=1, x_size=8)])
    assert bench.activities.count(Activity.BUSY) >= 8
    assert bench.activities.count(Activity.WAIT_MEMORY) >= 25
    assert bench.activities[-1] is Activity.IDLE
