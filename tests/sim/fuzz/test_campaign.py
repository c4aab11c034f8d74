"""Searching, shrinking and reproducing: a planted bug is found, made small and written down."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from weft.isa import PRESETS, InstructionSet
from weft.isa.assembly import assemble
from weft.isa.registers import COUNTERS
from weft.sim.fuzz import EXECUTORS, Campaign, Session, play
from weft.sim.fuzz.choices import RandomChoices
from weft.sim.fuzz.executors import GoldenExecutor, wiping_program
from weft.sim.fuzz.outcome import COUNTER_KINDS, golden
from weft.sim.fuzz.program import program_of
from weft.sim.fuzz.sessions import random_session
from weft.sim.fuzz.shrink import SIMPLER, subset

TINY = PRESETS["tiny"]


class _Wrong(GoldenExecutor):
    """Takes 3 for the immediate of ALU MAX where it is greater."""

    def run(self, program):
        instructions = InstructionSet(program.config)
        words = []
        for word in program.words:
            operation = instructions.operation_of(word)
            if operation is not None and operation.name == "alu.max.imm":
                layout = instructions.layouts[operation.format.opcode]
                values = layout.decode(word)
                words.append(layout.encode({**values, "imm": min(3, values["imm"])}))
            else:
                words.append(word)
        changed = program_of(program.config, words, program.image, bad=program.bad)
        outcome = super().run(changed)
        if outcome.image is not None:
            at = slice(program.address, program.address + 16 * program.count)
            outcome.image[at] = program.image[at]
        return outcome


def test_a_planted_bug_is_found_made_small_and_written_as_a_test(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(EXECUTORS, "functional", lambda setup: _Wrong(setup.config))
    on = ("golden", "functional")
    campaign = Campaign(3, minutes=1, config=TINY, on=on, output=tmp_path, shrink_seconds=120)
    for name, value in {"campaign.MOST_FINDINGS": 1, "sessions.MOST_INSTRUCTIONS": 10}.items():
        monkeypatch.setattr(f"weft.sim.fuzz.{name}", value)
    monkeypatch.setattr("weft.sim.fuzz.legal.LONG_TRIPS", ((1, 2, 3),) * 2)
    report = campaign.run()
    assert len(report.findings) == 1
    assert "bytes differ" in report.findings[0]

    (path,) = map(Path, report.files)
    space: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    session = Session.from_toml(str(space["SESSION"]))
    instructions = InstructionSet(TINY)
    (run,) = session.runs
    names = [instructions.decode(word).operation for word in run.program.words]
    assert "alu.max.imm" in names
    assert len(names) <= 6, run.program.text

    (test,) = (f for name, f in space.items() if name.startswith("test_"))
    with pytest.raises(AssertionError, match="bytes differ"):
        test()
    monkeypatch.undo()
    test()


def test_a_campaign_without_differences_counts_what_it_did():
    on = ("golden", "functional")
    report = Campaign(5, steps=1500, config=TINY, on=on).run()
    assert report.steps >= 1500
    assert report.programs == sum(report.endings.values())
    assert report.instructions > report.programs
    assert report.findings == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_all_simulators_do_the_same(seed: int):
    report = Campaign(seed, steps=600, config=TINY).run()
    assert report.findings == []
    assert report.steps >= 600


@pytest.mark.slow
def test_what_is_synthesized_does_the_same():
    report = Campaign(11, steps=4000, config=TINY, on=("golden", "circuit")).run()
    assert report.findings == []
    assert report.steps >= 4000


@pytest.mark.parametrize("seed", range(4))
def test_a_session_survives_its_text(seed: int):
    session = random_session(TINY, RandomChoices(seed))
    again = Session.from_toml(session.to_toml())
    assert again.to_toml() == session.to_toml()
    for run, other in zip(session.runs, again.runs, strict=True):
        assert run.program.words == other.program.words
        assert (run.program.image == other.program.image).all()
        assert (run.start, run.cycles) == (other.start, other.cycles)


def test_an_executor_that_breaks_its_contract_is_a_finding(monkeypatch):
    from weft.isa import DeviceTimeout

    class Hangs(GoldenExecutor):
        def run(self, program):
            raise DeviceTimeout("FINISH was not reached")

    monkeypatch.setitem(EXECUTORS, "functional", lambda setup: Hangs(setup.config))
    session = random_session(TINY, RandomChoices(1))
    finding = play(session, ("golden", "functional"))
    assert finding is not None
    assert re.search("functional against its contract.*FINISH was not reached", str(finding))


def test_delta_debugging_keeps_what_is_needed_and_nothing_else():
    needed = {3, 17, 18}
    assert subset(range(40), lambda part: needed <= set(part)) == sorted(needed)
    assert subset([1], lambda part: True) == [1]


def test_simpler_words_are_the_same_operation_and_come_to_an_end():
    instructions = InstructionSet(TINY)
    (word,) = assemble("alu.max.imm uop_end=3 iter_out=9 imm=-31 | pop_prev push_next", TINY)
    for simpler in SIMPLER:
        changed = word
        for name in ("imm", "uop_end", "iter_out", "pop_prev", "push_next"):
            while (further := simpler(changed, name, instructions)) != changed:
                assert instructions.decode(further).operation == "alu.max.imm"
                changed = further
        assert changed == assemble("alu.max.imm", TINY)[0]


def test_every_counter_has_one_kind():
    assert set(COUNTER_KINDS) == {counter.name for counter in COUNTERS}


def test_wiping_reaches_every_element():
    program = wiping_program(TINY)
    from weft.isa.golden import GoldenModel

    model = GoldenModel(TINY, program.image.size)
    for array in model.arrays.values():
        if array.flags.writeable and array is not model.dram:
            array[...] = 1
    model.dram[:] = program.image
    model.run(program.address, program.count)
    assert not any(a.any() for name, a in model.arrays.items() if not name.startswith("dram"))
    assert golden(program).fault is None
