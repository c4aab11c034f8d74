from __future__ import annotations

from random import Random

import numpy as np
import pytest

from tests.hw.axi_bench import Dram
from tests.hw.box_bench import CONFIGS, lanes_to_bytes, load, random_box
from weft.isa.instructions import InstructionSet
from weft.isa.interpret import interpret
from weft.isa.memories import MEMORIES, MemoryType
from weft.isa.storage import numpy_dtype


@pytest.mark.parametrize("memory_type", [t for t in MEMORIES if t is not MemoryType.OUT])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_of_a_load_is_the_meaning_of_the_instruction(name, memory_type):
    config, memory = CONFIGS[name], MEMORIES[memory_type]
    random, dram = Random(name), Dram(size=1 << 20)
    buffer = memory.sram(config)
    bits = min(memory.dram_dtype(config).bits, 8) if buffer.dtype.bits == 8 else 32
    operation = f"loadx.{memory.name}"
    if operation not in InstructionSet(config).operations:
        operation = f"load.{memory.name}"
    nest = InstructionSet(config).meaning(operation)
    for index in range(8):
        box = random_box(random, config, memory, index)
        box["dram_base"] %= 256
        if operation.startswith("load."):
            box["pad_value"] = 0  # LOAD has no other
        lanes = np.zeros(buffer.shape, numpy_dtype(buffer.dtype))
        expected = np.zeros((memory.depth(config), lanes_to_bytes(lanes[0], bits).size), np.uint8)
        load(config, box, dram, expected)
        interpret(nest, box, {buffer.name: lanes, memory.dram(config).name: dram.bytes})
        np.testing.assert_array_equal(lanes_to_bytes(lanes, bits), expected.reshape(-1))
