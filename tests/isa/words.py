"""Random instructions, encodable but otherwise arbitrary."""

from __future__ import annotations

from hypothesis import strategies as st

from weft.isa import AcceleratorConfig, Instruction, InstructionSet
from weft.isa.operations import params_of


@st.composite
def instructions_of(draw: st.DrawFn, config: AcceleratorConfig) -> Instruction:
    """An instruction of ``config`` with any operands that its fields hold."""
    instructions = InstructionSet(config)
    operation = instructions.operations[draw(st.sampled_from(sorted(instructions.operations)))]
    slots = instructions.layouts[operation.format.opcode].by_name
    operands = {
        name: draw(st.integers(slots[name].least, slots[name].greatest))
        for name in params_of(operation.format, config)
    }
    flags = draw(st.tuples(*[st.booleans()] * 4))
    return Instruction(operation.name, operands, *flags)
