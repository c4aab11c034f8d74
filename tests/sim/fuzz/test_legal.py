"""The generators: what they make is legal, defined, varied, and what they break is broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from weft.isa import PRESETS, InstructionSet
from weft.isa.assembly import assemble
from weft.sim.fuzz.choices import RandomChoices
from weft.sim.fuzz.defined import Defined, defined
from weft.sim.fuzz.illegal import WRONGS, illegal_program, poisoned_program
from weft.sim.fuzz.legal import legal_program
from weft.sim.fuzz.outcome import assert_same, golden
from weft.sim.fuzz.program import program_of
from weft.sim.fuzz.sessions import POOL, pooled_config

TINY = PRESETS["tiny"]


@pytest.mark.parametrize("number", range(POOL))
def test_a_legal_program_ends_well_in_any_order(number: int):
    config = pooled_config(number)
    program = legal_program(config, RandomChoices(number), 12)
    assert defined(program) is Defined.MEMORY
    wanted = golden(program)
    assert wanted.fault is None
    assert_same(golden(program, number), wanted)


def test_all_operations_come_up():
    seen: Counter[str] = Counter()
    instructions = InstructionSet(TINY)
    for seed in range(40):
        for word in legal_program(TINY, RandomChoices(seed), 24).words:
            seen[instructions.decode(word).operation] += 1
    assert set(seen) == set(instructions.operations)


def test_the_same_seed_makes_the_same_program():
    one, other = (legal_program(TINY, RandomChoices("a"), 8) for _ in range(2))
    assert one.words == other.words
    assert (one.image == other.image).all()


def test_every_kind_of_wrong_is_found_by_the_golden_model():
    endings: dict[str, set[str]] = {}
    for name in WRONGS:
        endings[name] = set()
        for seed in range(12):
            choices = _Picking(name, seed)
            program = illegal_program(legal_program(TINY, choices, 5), choices)
            if defined(program) is not Defined.NOTHING:
                fault = golden(program).fault
                endings[name].add("FINISH" if fault is None else fault[0].name)
    assert endings["reserved"] == {"RESERVED"}
    assert endings["forbidden"] >= {"STORE_PAD", "TOKEN_ROUTE"}
    assert endings["index"] >= {"SRAM_RANGE"}
    assert endings["far"] >= {"BUS_READ", "BUS_WRITE"}
    assert endings["flag"] >= {"DEADLOCK", "FINISH"}
    assert endings["cut"] >= {"NO_FINISH"}
    assert endings["follow"] == {"FINISH"}


def test_a_poisoned_program_meets_errors_of_the_bus():
    endings: Counter[str] = Counter()
    for seed in range(40):
        choices = RandomChoices(seed)
        fault = golden(poisoned_program(legal_program(TINY, choices, 8), choices)).fault
        endings["FINISH" if fault is None else fault[0].name] += 1
    assert {"BUS_READ", "BUS_WRITE"} <= set(endings)


def test_engines_that_race_leave_only_the_ending_defined():
    load = "load.inp y_size=1 x_size=4"
    step = "gemm uop_end=1 iter_out=1 iter_in=1"
    racing = program_of(TINY, assemble(f"{load}\n{step}\nfinish", TINY))
    assert defined(racing) is Defined.ENDING
    ordered = f"{load} | push_next\n{step} | pop_prev\nfinish"
    assert defined(program_of(TINY, assemble(ordered, TINY))) is Defined.MEMORY
    for base, kind in ((0, Defined.ENDING), (4, Defined.MEMORY)):
        beside = f"{load}\nstorex.inp dram_base={base} y_size=1 x_size=2\nfinish"
        assert defined(program_of(TINY, assemble(beside, TINY))) is kind


def test_a_step_whose_micro_ops_others_write_meanwhile_may_end_in_any_way():
    """Whether it leaves a scratchpad depends on who comes first."""
    config = replace(PRESETS["vta"], depthwise_taps=3)
    taken = """
        load.uop         | push_prev
        loadx.uop        pad_value=-1 x_size=1 y_pad_0=1 | pop_next
        depthwise.set    uop_end=1 iter_out=1 iter_in=1
    """
    assert defined(program_of(config, assemble(taken, config))) is Defined.NOTHING


class _Picking(RandomChoices):
    """Chooses one kind of wrong."""

    def __init__(self, wrong: str, seed: int):
        super().__init__(f"{wrong} {seed}")
        self.wrong = wrong

    def one_of(self, options):
        return self.wrong if self.wrong in options else super().one_of(options)
