"""A compiled network written by hand: what packages hold, without the compiler."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tests.networks import NetworkBuilder
from weft.compiler.artifact import (
    AcceleratorStep,
    CompiledModel,
    DramTensor,
    HostStep,
    Program,
    Segment,
)
from weft.isa import AcceleratorConfig, Instruction, InstructionSet

PROGRAM_AT, WEIGHTS_AT, TENSORS_AT = 0x1000, 0x2000, 0x3000


@lru_cache(maxsize=1)
def hand_made() -> CompiledModel:
    """A convolution whose program does nothing but finish, and a reshape on the host."""
    config = AcceleratorConfig.preset("tiny")
    n = NetworkBuilder("hand_made", seed=3)
    x = n.input(1, 2, 2, 3)
    y = n.conv(x, 5, 1)
    z = n.reshape(y, 1, 20)
    graph = n.graph(z)
    program = (Instruction("finish"),)
    words = b"".join(InstructionSet(config).encode(i).to_bytes(16, "little") for i in program)
    return CompiledModel(
        graph,
        config,
        (
            AcceleratorStep(
                y,
                "Conv2D",
                (y,),
                (x,),
                (y,),
                Program("program", PROGRAM_AT, program, (0,)),
                0,
                60,
                60,
                100,
                80,
                {"tile": 2, "by": "x"},
            ),
            HostStep(z, "Reshape", (z,), (y,), (z,), "it only renames", 0),
        ),
        {
            x: DramTensor(x, TENSORS_AT, (1, 2, 2, 3), -5),
            y: DramTensor(y, TENSORS_AT + 64, (1, 2, 2, 5), 0),
        },
        (
            Segment("program", PROGRAM_AT, np.frombuffer(words, np.uint8)),
            Segment("weights", WEIGHTS_AT, np.arange(60, dtype=np.uint8)),
        ),
        0x4000,
    )
