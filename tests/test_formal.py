from __future__ import annotations

import pytest
from amaranth.hdl import Const, Module, Signal

from tests.formal import NO_SOLVER, NotInductive, Refuted, keeps, prove, solver

if solver() is None:
    pytest.skip(NO_SOLVER, allow_module_level=True)


def counter() -> tuple[Module, Signal, Signal]:
    """Counts 0, 2, 4 ... while it is told to, and starts again after 8."""
    m, go, count = Module(), Signal(name="go"), Signal(8, name="count")
    with m.If(go):
        m.d.sync += count.eq(count + 2)
    with m.If(count == 8):
        m.d.sync += count.eq(0)
    return m, go, count


def test_what_implies_itself_is_proven():
    m, go, count = counter()
    prove(m, [go], {"it is even": ~count[0], "it is small": count <= 8})


def test_a_counterexample_names_the_property_and_shows_the_cycles():
    m, go, count = counter()
    with pytest.raises(Refuted) as caught:
        prove(m, [go], {"it is even": ~count[0], "it is below 4": count < 4})
    lines = str(caught.value).splitlines()
    assert lines[:3] == ["after power-up, these cycles break", "  it is below 4", "hexadecimal:"]
    values = {name: values for name, *values in map(str.split, lines[3:])}
    assert values["go"][:2] == ["1", "1"]
    assert values["count"] == ["0", "2", "4"]


def test_what_only_holds_in_the_states_that_are_reached_is_not_proven():
    m, go, count = counter()
    with pytest.raises(NotInductive, match="does not follow:\n  it is not 100\n") as caught:
        prove(m, [go], {"it is not 100": count != 100})
    assert " 62 " in str(caught.value)


def test_promises_of_the_outside_are_kept():
    m, go, count = counter()
    prove(m, [go], {"it stands still": count == 0}, given=[~go])


def test_the_first_cycle_counts():
    m, go, count = counter()
    with pytest.raises(Refuted):
        prove(m, [go], {"it is not 0": count != 0})


def test_the_first_cycles_can_be_shown_alone():
    m, go, count = counter()
    prove(m, [go], {"it is below 6": count < 6}, cycles=3)
    m, go, count = counter()
    with pytest.raises(Refuted):
        prove(m, [go], {"it is below 6": count < 6}, cycles=4)


def test_an_offer_must_stay():
    m, valid, ready, payload = Module(), Signal(), Signal(), Signal(4)
    rule = keeps(m, valid, ready, payload)
    with pytest.raises(Refuted):
        prove(m, [valid, ready, payload], {"it stays": rule})
    m, ready, payload = Module(), Signal(), Signal(4)
    with m.If(ready):
        m.d.sync += payload.eq(payload + 1)
    prove(m, [ready], {"it stays": keeps(m, Const(1), ready, payload)})
