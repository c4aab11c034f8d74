"""The two elaborations that a unit full of arithmetic has."""

from __future__ import annotations

from typing import Literal

from amaranth import *
from amaranth.hdl import ValueLike

Form = Literal["simulation", "synthesis"]
"""``synthesis`` has a register wherever the clock needs one. ``simulation`` computes a result in
one expression and delays it by as many cycles, because a simulator pays for every register and
not for the length of a path. Function, latency and interface are the same."""


def delayed(m: Module, value: ValueLike, cycles: int, advance: ValueLike = 1) -> Value:
    """``value`` as it was before so many cycles in which ``advance`` was 1; not reset."""
    value = Value.cast(value)
    for n in range(cycles):
        later = Signal(value.shape(), name=f"delayed{n}", reset_less=True)
        with m.If(advance):
            m.d.sync += later.eq(value)
        value = later
    return value
