"""Which lines of the RTL simulations have executed, told by the units of ``hw/``.

Verilator counts blocks and branches of the generated Verilog, and the changes of its signals'
bits. Amaranth says for every module and operator where in ``hw/`` it was written, so that a
branch is told by the line that its condition comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

from ..isa.config import AcceleratorConfig
from .library import library
from .unreached import reason

_POINT = re.compile(r"^C '(.*)' (\d+)$", re.MULTILINE)
_SOURCE = re.compile(r'src = "([^"]+)"')
_CONDITION = re.compile(r"^\s*(?:\}?\s*else )?if \(!?\s*(\\\S+|\w+)\s*\)|^\s*casez? \((\\\S+|\w+)")
_DRIVER = re.compile(r"^\s*assign (\\\S+|\w+)\s*=")
_ALWAYS = re.compile(r"^\s*assign (\\\S+|\w+)\s*= 1'h1;")
ALWAYS = " of the constant 1"
"""What is said of a branch besides, if its condition is that."""
ELSEWHERE = "amaranth"
"""The unit of the modules that are not ours."""


@dataclass(frozen=True)
class Point:
    """Something that is counted: a block or branch of the Verilog, or a bit that changes."""

    page: str
    line: int
    column: int
    comment: str

    @property
    def toggles(self) -> bool:
        """Whether it is about a bit."""
        return self.page.startswith("v_toggle")

    @property
    def module(self) -> str:
        """The Verilog module."""
        return self.page.partition("/")[2]


@dataclass
class Share:
    """How much of a unit was executed: lines and, apart, bits that changed."""

    lines: int = 0
    covered_lines: int = 0
    bits: int = 0
    covered_bits: int = 0

    def count(self, point: Point, covered: bool) -> None:
        """Take a point into account."""
        if point.toggles:
            self.bits += 1
            self.covered_bits += covered
        else:
            self.lines += 1
            self.covered_lines += covered

    def add(self, other: Share) -> None:
        """Take in another share."""
        self.lines += other.lines
        self.covered_lines += other.covered_lines
        self.bits += other.bits
        self.covered_bits += other.covered_bits

    @property
    def of_lines(self) -> float:
        """The covered fraction of the lines."""
        return self.covered_lines / self.lines if self.lines else 1.0

    @property
    def of_bits(self) -> float:
        """The covered fraction of the bits."""
        return self.covered_bits / self.bits if self.bits else 1.0


@dataclass(frozen=True, order=True)
class Missed:
    """A line that was not executed: of which unit, written where, and what the Verilog says."""

    unit: str
    source: str
    module: str
    verilog: str

    @property
    def reason(self) -> str | None:
        """Why that is no gap, as :data:`weft.sim.unreached.REASONS` has it; None if it is one."""
        return reason(self.unit, self.source, f"{self.module}: {self.verilog}")

    def __str__(self) -> str:
        return f"{self.unit:14} {self.source:24} {self.module}: {self.verilog}"


@dataclass
class Coverage:
    """What all simulations of one configuration have executed."""

    config: AcceleratorConfig
    counts: dict[Point, int] = field(default_factory=dict[Point, int])

    def add(self, text: str) -> None:
        """Take in what Verilator wrote, of a simulation of this configuration."""
        for keys, count in _POINT.findall(text):
            values = dict(part.split("\x02", 1) for part in keys.split("\x01") if part)
            page = values.get("page", "")
            if values["f"].endswith("weft.v"):
                point = Point(page, int(values["l"]), int(values["n"]), values.get("o", ""))
                self.counts[point] = self.counts.get(point, 0) + int(count)

    @cached_property
    def _verilog(self) -> _Verilog:
        built = library(self.config, coverage=True)
        return _Verilog(built.with_suffix(".v").read_text())

    def shares(self) -> Mapping[str, Share]:
        """What was executed of each unit, by its file in ``hw/``; the whole under ``""``."""
        shares: dict[str, Share] = {"": Share()}
        for point, count in self.counts.items():
            unit = self._verilog.unit(point.module)
            for name in (unit, ""):
                shares.setdefault(name, Share()).count(point, count > 0)
        return dict(sorted(shares.items()))

    def to_mapping(self) -> dict[str, dict[str, int]]:
        """The shares as plain data, the whole under ``all``."""
        return {unit or "all": asdict(share) for unit, share in self.shares().items()}

    def missed(self) -> list[Missed]:
        """Every line that was not executed."""
        return sorted(
            Missed(
                self._verilog.unit(point.module),
                self._verilog.source(point),
                point.module,
                self._verilog.said(point),
            )
            for point, count in self.counts.items()
            if not count and not point.toggles
        )


class _Verilog:
    """The text that was simulated, and where its parts come from."""

    def __init__(self, text: str):
        self.lines = text.splitlines()
        self._units: dict[str, str] = {}
        self._drivers: dict[tuple[str, str], str] = {}
        self._always: set[tuple[str, str]] = set()
        module, last = "", ""
        for line in self.lines:
            sources = _SOURCE.findall(line)
            if line.startswith("module "):
                module = line.split()[1].partition("(")[0]
                self._units[module] = last
            elif sources and (driven := _DRIVER.match(line)):
                self._drivers[module, driven[1]] = sources[-1]
            elif always := _ALWAYS.match(line):
                self._always.add((module, always[1]))
            last = sources[-1] if sources else last

    def unit(self, module: str) -> str:
        """The file in ``hw/`` of a module, without its ending."""
        source = self._units.get(module, "")
        return source[3:].partition(".")[0] if source.startswith("hw/") else ELSEWHERE

    def said(self, point: Point) -> str:
        """A point's line; and whether its condition is always true."""
        line = self.lines[point.line - 1]
        condition = _CONDITION.match(line)
        always = condition is not None and (point.module, condition[1]) in self._always
        return line.strip() + ALWAYS * always

    def source(self, point: Point) -> str:
        """The line of ``hw/`` that a point comes from, as well as that is known."""
        for line in self._around(point):
            if found := _SOURCE.findall(line):
                return found[-1]
            if condition := _CONDITION.match(line):
                known = self._drivers.get((point.module, condition[1] or condition[2]))
                if known:
                    return known
        return self._units.get(point.module, "")

    def _around(self, point: Point) -> Iterator[str]:
        """A point's line, and those before it in its block."""
        for at in range(point.line - 1, max(-1, point.line - 40), -1):
            yield self.lines[at]
            if self.lines[at].lstrip().startswith(("always", "module")):
                return
