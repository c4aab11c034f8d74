"""What loads and stores must do, in numpy straight from the definition, and scratchpads for it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np

from tests.hw.axi_bench import Dram
from weft.isa import AcceleratorConfig
from weft.isa.memories import MEMORIES, Memory, MemoryType

TINY = AcceleratorConfig.preset("tiny")
CONFIGS = {
    "tiny": TINY,
    "narrow elements": replace(TINY, bus_bytes=64),
    "wide elements": replace(
        TINY, block=16, inp_bytes=4096, wgt_bytes=16384, acc_bytes=8192, qnt_bytes=4096
    ),
    "half an element": replace(
        TINY, block=8, bus_bytes=64, inp_bytes=2048, wgt_bytes=4096, acc_bytes=4096
    ),
    "int4": replace(TINY, inp_width=4, wgt_width=4, bus_bytes=16, inp_bytes=1024, wgt_bytes=2048),
    "batch": replace(TINY, batch=2, bus_bytes=16),
    "one byte": replace(
        TINY, block=2, inp_width=4, wgt_width=4, bus_bytes=16, inp_bytes=64, acc_bytes=2048
    ),
}
"""Elements narrower than the bus, as wide, and wider, for every memory type."""


class Scratch:
    """A scratchpad behind a write port: ``bytes`` of [depth, element bytes], ``cycles``.

    In a fraction ``stall`` of the cycles it accepts nothing.
    """

    def __init__(self, port, depth: int, element: int, seed: int = 0, stall: float = 0.0):
        self.port, self.stall = port, stall
        self._random = Random(seed)
        self.bytes = np.random.default_rng(seed).integers(0, 256, (depth, element), dtype=np.uint8)
        self.cycles: list[int] = []

    async def process(self, ctx):
        port, cycle = self.port, 0
        banks = len(port.data) // 8 // self.bytes.shape[1]
        parts = self.bytes.reshape(len(self.bytes), len(port.mask) // banks, -1)
        trigger = ctx.tick().sample(port.valid & port.ready, port.address, port.mask, port.data)
        async for _, _, written, address, mask, data in trigger:
            if written:
                new = np.frombuffer(data.to_bytes(len(port.data) // 8, "little"), np.uint8)
                new = new.reshape(banks, *parts.shape[1:])
                bits = [mask >> bit & 1 for bit in range(len(port.mask))]
                for bank, chosen in enumerate(np.reshape(bits, (banks, -1)).astype(bool)):
                    if chosen.any():
                        parts[address + (bank - address) % banks, chosen] = new[bank, chosen]
                self.cycles.append(cycle)
            if self.stall:
                ctx.set(port.ready, self._random.random() >= self.stall)
            cycle += 1


def lanes_to_bytes(lanes: np.ndarray, bits: int) -> np.ndarray:
    """Lanes as they lie in memory: 32-bit, 8-bit, or two nibbles a byte, low first."""
    if bits == 4:
        pairs = (lanes & 15).astype(np.uint8).reshape(-1, 2)
        return pairs[:, 0] | pairs[:, 1] << 4
    return lanes.reshape(-1).astype(f"<i{bits // 8}").view(np.uint8)


def element_address(config: AcceleratorConfig, memory: Memory, box, y: int, x: int) -> int:
    """Byte address of an element of a box, the padding not counted."""
    element = box["dram_base"] + y * box["x_stride"] + x
    return element * memory.element_bytes(config) % (1 << 32)


def load(config: AcceleratorConfig, box, dram: Dram, sram: np.ndarray) -> None:
    """What a LOAD or LOADX does to the bytes of a scratchpad."""
    memory = MEMORIES[box["memory_type"]]
    size = memory.element_bytes(config)
    if box["x_size"] == 0:
        return
    target = box["sram_base"]
    for y in range(-box["y_pad_0"], box["y_size"] + box["y_pad_1"]):
        for x in range(-box["x_pad_0"], box["x_size"] + box["x_pad_1"]):
            if 0 <= y < box["y_size"] and 0 <= x < box["x_size"]:
                address = element_address(config, memory, box, y, x) % dram.size
                element = dram.bytes[address : address + size]
                if memory.type is MemoryType.ACC8:
                    element = lanes_to_bytes(element.view(np.int8), 32)
            else:
                lanes = int(np.prod(memory.lanes(config), dtype=int))
                bits = memory.dram_dtype(config).bits
                if memory.type is MemoryType.ACC8:
                    bits = 32
                element = lanes_to_bytes(np.full(lanes, box["pad_value"], np.int32), bits)
            sram[target][: element.size] = element  # of weights' taps, the first rows
            target += 1


def random_box(random: Random, config: AcceleratorConfig, memory: Memory, index: int):
    """A box within its scratchpad, small, and all its corners likely."""
    depth = memory.depth(config)
    pad = lambda: random.choice((0, 0, 0, 1, 2))  # noqa: E731
    box = {
        "memory_type": int(memory.type),
        "y_size": random.choice((0, 1, 1, 2, 3, 4)),
        "x_size": random.choice((0, 1, 1, 2, 3, 5, 8, 9)),
        "y_pad_0": pad(),
        "y_pad_1": pad(),
        "x_pad_0": pad(),
        "x_pad_1": pad(),
        "dram_base": random.choice((random.randrange(1 << 32), random.randrange(256))),
        "pad_value": 0,
        "index": index,
    }
    while elements_of(box) > depth:
        box["x_size"] //= 2
        box["y_pad_0"] = box["y_pad_1"] = 0
        box["y_size"] //= 2
    box["x_stride"] = random.choice((0, 1, box["x_size"], box["x_size"] + 1, random.randrange(99)))
    room = depth - elements_of(box)
    box["sram_base"] = random.choice((0, room, random.randint(0, room)))
    if config.pad_value:
        half = 1 << config.inp_width - 1
        box["pad_value"] = random.randrange(-half, half)
    return box


def random_boxes(random: Random, config: AcceleratorConfig, types, *, cycles: int):
    """Boxes of these memory types that keep a box reader busy for about so many cycles."""
    boxes = []
    while cycles > 0:
        memory = MEMORIES[random.choice(types)]
        boxes.append(random_box(random, config, memory, len(boxes)))
        beats = max(1, memory.element_bytes(config) // config.bus_bytes)
        cycles -= 1 + beats * elements_of(boxes[-1])
    return boxes


def elements_of(box) -> int:
    """Elements that a box writes."""
    rows = box["y_pad_0"] + box["y_size"] + box["y_pad_1"]
    return rows * (box["x_pad_0"] + box["x_size"] + box["x_pad_1"]) if box["x_size"] else 0
