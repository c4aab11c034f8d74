from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from amaranth import Module, Signal, signed
from amaranth.sim import Simulator

from tests.hw.compute_bench import SMALL
from weft.hw.alu import (
    _both_ways,
    _last_cycle,
    alu_values,
    multiplies,
    shifted,
    slow_latency,
    slow_values,
)
from weft.hw.lower import stored
from weft.isa import AluOpcode, InstructionSet
from weft.isa.nest import Cast, Index, Load
from weft.isa.operations import RESCALING
from weft.isa.traverse import rewrite, walk

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
    assert set(slow_values(replace(SMALL, rescale_cycles=2))) == RESCALING
    assert not multiplies(alu_values(SMALL)[AluOpcode.SHR])
    assert 1 <= slow_latency(PLAIN) <= slow_latency(SMALL)


def test_one_shifter_shifts_both_ways():
    words = (0, 1, -1, 0x1234_5678, -0x1234_5678, 2**31 - 1, -(2**31))
    amounts = (*range(-34, 35), 63, 64, -64, 4096, -4096, 2**31 - 1, -(2**31), -(2**31) + 5)
    m, x, amount, result = Module(), Signal(signed(32)), Signal(signed(32)), Signal(signed(32))
    m.d.comb += result.eq(shifted(m, x, amount))

    async def bench(ctx):
        for a, b in product(words, amounts):
            ctx.set(x, a)
            ctx.set(amount, b)
            expected = a >> b if b >= 0 else a << min(-b, 64)
            assert ctx.get(result) == (expected + 2**31) % 2**32 - 2**31, (a, b)

    sim = Simulator(m)
    sim.add_testbench(bench)
    sim.run()


def test_the_shifter_stands_for_the_shift_of_the_instruction_set():
    assert "shifted" not in leaves(_last_cycle(SMALL))
    assert "shifted" in leaves(rewrite(_last_cycle(SMALL), _both_ways))


def leaves(e):
    return {node.buffer for node in walk(e) if isinstance(node, Load)}
