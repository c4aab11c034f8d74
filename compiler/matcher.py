"""A kernel beside the instructions of a configuration: what matches what, and with which limits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ..isa.config import AcceleratorConfig
from ..isa.memories import QNT_LANE
from ..isa.nest import Const, DType, Expr, Index, Load
from .affine import indices_of, is_index
from .kernel import Kernel
from .patterns import Pattern, patterns
from .ranges import range_of
from .unify import Match, unify

RECORDS: Mapping[str, DType] = {f"qnt.{record.name}": record.dtype for record in QNT_LANE}
"""The parameters that an instruction takes from the QNT scratchpad, and their types."""


class Matcher:
    """Matches of a configuration's instructions with expressions of a kernel; of all of them, or
    of those named in ``only``."""

    def __init__(
        self, kernel: Kernel, config: AcceleratorConfig, only: Collection[str] | None = None
    ):
        self.kernel, self.config = kernel, config
        self.patterns = patterns(config)
        if only is not None:
            self.patterns = tuple(p for p in self.patterns if p.operation.name in only)

    def matches(self, pattern: Pattern, subject: Expr) -> Iterator[Match]:
        """Ways to fill the holes of ``pattern``, with parameters that are constant and fit."""

        def admits(hole: Expr, value: Expr) -> bool:
            return self._admits(pattern, hole, value)

        return unify(pattern, subject, self.range_of, admits)

    def range_of(self, e: Expr) -> tuple[int, int] | None:
        """The least and the greatest value of an expression over constants; None where nothing is
        known."""
        return range_of(e, self.known)

    def known(self, buffer: str) -> tuple[int, int] | None:
        """The least and the greatest value of a constant; None of other buffers."""
        data = self.kernel.constants.get(buffer)
        return None if data is None else (int(data.min()), int(data.max()))

    def _admits(self, pattern: Pattern, hole: Expr, value: Expr) -> bool:
        match hole:
            case Load(buffer) if buffer in RECORDS:
                if not indices_of(value) <= {is_index(self.kernel.element[3])}:
                    return False
                dtype = RECORDS[buffer]
                limits = (0 if buffer == "qnt.multiplier" else dtype.min, dtype.max)
            case Index(name):
                slot = pattern.operation.format.layout(self.config).by_name[name]
                limits = (slot.least, slot.greatest)
            case _:
                return True
        known = self.range_of(value)
        return known is not None and limits[0] <= known[0] and known[1] <= limits[1]


def record_of(pattern: Pattern, match: Match) -> dict[str, Expr]:
    """Parameters by field: what the qnt holes stand for, and what the pattern is chosen by."""
    chosen: dict[str, Expr] = {name: Const(value) for name, value in pattern.chosen.items()}
    return chosen | {
        hole.buffer.removeprefix("qnt."): value
        for hole, value in match.holes.items()
        if isinstance(hole, Load) and hole.buffer in RECORDS
    }


def loads(e: Expr, buffer: str) -> bool:
    """Whether ``e`` is an element of that buffer."""
    return isinstance(e, Load) and e.buffer == buffer
