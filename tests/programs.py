"""Random programs as a strategy of hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

from weft.isa import AcceleratorConfig
from weft.sim.fuzz.choices import Choices
from weft.sim.fuzz.illegal import token_program
from weft.sim.fuzz.legal import legal_program
from weft.sim.fuzz.program import DRAM_BYTES, STREAM, Program, program_of

T = TypeVar("T")


class DrawnChoices(Choices):
    """Hypothesis decides, and can shrink what it decided."""

    def __init__(self, draw: st.DrawFn):
        self.draw = draw

    def integer(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def one_of(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))


@st.composite
def programs(draw: st.DrawFn, config: AcceleratorConfig, most: int = 16) -> Program:
    """A legal program of up to ``most`` instructions, not counting those that only wait."""
    return legal_program(config, DrawnChoices(draw), most)


@st.composite
def token_programs(draw: st.DrawFn, config: AcceleratorConfig) -> Program:
    """Instructions that do nothing but take and send tokens, right or wrong, some in long rows.

    Rows are about as long as what may wait at an engine. In the end there may be something
    illegal.
    """
    return token_program(config, DrawnChoices(draw))


__all__ = [
    "DRAM_BYTES",
    "STREAM",
    "DrawnChoices",
    "Program",
    "program_of",
    "programs",
    "token_programs",
]
