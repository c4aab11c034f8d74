from __future__ import annotations

from dataclasses import replace

import pytest

from tests.hw.compute_bench import SMALL
from weft.hw.alu import alu_values, multiplies, slow_latency, slow_values
from weft.hw.lower import stored
from weft.isa import AluOpcode, InstructionSet
from weft.isa.nest import Cast, Index, Load, rewrite

PLAIN = replace(SMALL, requantize=False)


@pytest.mark.parametrize("config", [SMALL, PLAIN], ids=["small", "plain"])
def test_every_alu_operation_of_the_instruction_set_is_built(config):
    built = set(alu_values(config))
    operations = InstructionSet(config).operations.values()
    assert built == {AluOpcode(o.fixed["alu_opcode"]) for o in operations if o.format.name == "ALU"}


def test_an_immediate_is_only_another_second_operand():
    """What lets the hardware choose the operand and build each operation once."""

    def with_second(node):
        is_imm = isinstance(node, Cast) and node.a == Index("imm")
        return Load("second", ()) if is_imm else None

    instructions = InstructionSet(SMALL)
    values = alu_values(SMALL)
    with_immediate = [o for o in instructions.operations.values() if o.fixed.get("use_imm")]
    assert len(with_immediate) == 5
    for operation in with_immediate:
        value = rewrite(stored(instructions.meaning(operation.name)).value, with_second)
        assert value == values[AluOpcode(operation.fixed["alu_opcode"])]


def test_only_what_multiplies_takes_more_than_the_last_cycle():
    assert set(slow_values(SMALL)) == {AluOpcode.MUL, AluOpcode.SCALE, AluOpcode.REQUANTIZE}
    assert set(slow_values(PLAIN)) == {AluOpcode.MUL}
    assert not multiplies(alu_values(SMALL)[AluOpcode.SHR])
    assert 1 <= slow_latency(PLAIN) <= slow_latency(SMALL)
