"""Streams of instructions as bytes."""

from __future__ import annotations

import random

import pytest

from weft.isa import AcceleratorConfig, Instruction, InstructionSet, ProgramError
from weft.isa.formats import FLAGS


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_a_stream_encodes_as_its_instructions_do(preset):
    known = InstructionSet(AcceleratorConfig.preset(preset))
    rng = random.Random(1)
    stream: list[Instruction] = []
    for operation in known.operations.values():
        slots = known.layouts[operation.format.opcode].slots
        own = [s for s in slots if s.name not in {*operation.fixed, *FLAGS, "opcode", "unused",
                                                  "reserved"}]  # fmt: skip
        for _ in range(8):
            values = {
                s.name: rng.choice([s.least, s.greatest, rng.randint(s.least, s.greatest)])
                for s in own
                if rng.random() < 0.8
            }
            flags = [rng.random() < 0.5 for _ in range(4)]
            stream.append(Instruction(operation.name, values, *flags))
    rng.shuffle(stream)
    words = [known.encode(instruction).to_bytes(16, "little") for instruction in stream]
    assert known.encode_all(stream) == b"".join(words)
    with pytest.raises(ProgramError, match="LOAD has no field 'nope'"):
        known.encode_all([Instruction("load.inp", {"nope": 1})])
    with pytest.raises(ProgramError, match="x_size holds 0 to 65535"):
        known.encode_all([stream[0], Instruction("load.inp", {"x_size": 1 << 20})])
