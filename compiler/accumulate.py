"""Expressions of elements as instructions on accumulators."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from ..isa.nest import Binary, Const, Expr, Index, Load, Select, Sum
from ..isa.traverse import walk
from .image import Image, Where, image_of
from .kernel import RUNNING, Kernel, Lack, Refusal
from .matcher import RECORDS, Matcher, loads, record_of
from .patterns import Pattern
from .unify import Match
from .work import Act, Elementwise, Ending


def elementwise(matcher: Matcher, total: Expr, ending: Ending) -> Elementwise:
    """``total`` of the matcher's kernel, region by region; one sum may be a region, too.

    Raises
    ------
    Refusal
        If a part of it is no element of an activation and no instruction computes it.
    """
    code = _Code(matcher)
    reduction = matcher.kernel.reduction
    if reduction is None:
        result = code.value(total)
    else:
        if total != RUNNING:
            raise Refusal("its running value is used in more than one way")
        code.running = result = code.value(reduction.init)
        if code.value(reduction.update) != result:
            raise Refusal("no instruction updates its running value in place")
    sums = None if code.sum is None else code.sum[1]
    return Elementwise(matcher.kernel, code.images, tuple(code.acts), result, ending, sums)


def sum_of(total: Expr) -> Sum:
    """The one sum in a value that has one."""
    return next(node for node in walk(total) if isinstance(node, Sum))


def behind_sums(work: Elementwise) -> tuple[Ending, Elementwise]:
    """What is done first with the region of sums, and the rest.

    Raises
    ------
    Refusal
        If the sums are not requantized in their place before anything else.
    """
    at = next((i for i, act in enumerate(work.acts) if work.sums in (act.dst, act.src)), None)
    first = None if at is None else work.acts[at]
    if at is None or first is None or first.dst != work.sums or not first.record:
        raise Refusal("its sums are not requantized before they are used")
    rest = replace(work, acts=(*work.acts[:at], *work.acts[at + 1 :]))
    return Ending(first.operation, first.record), rest


class _Code:
    """Accumulator instructions for an expression, one region a value; the fewest that do it."""

    def __init__(self, matcher: Matcher):
        self.matcher = matcher
        self.images: dict[int, Image] = {}
        self.acts: list[Act] = []
        self.running: int | None = None
        self.sum: tuple[Sum, int] | None = None
        """What products are added up in, and the region that has it."""
        self._regions = 0

    def value(self, e: Expr) -> int:
        """The region that holds ``e`` after the instructions so far."""
        if e == RUNNING and self.running is not None:
            return self.running
        if _is_element(e, self.matcher.kernel):
            return self._loaded(e)
        if isinstance(e, Sum):
            if self.sum is not None or self.matcher.kernel.reduction is not None:
                raise Refusal("it uses sums of products more than once")
            self.sum = e, self._region()
            return self.sum[1]
        refusal = Refusal(f"no instruction computes {_shape_of(e)} on accumulators")
        if isinstance(e, Load):
            refusal = Refusal("an operand is a constant", Lack.OPERAND)
        ways: list[tuple[_Code, int]] = []
        for pattern in self.matcher.patterns:
            if pattern.target.buffer != "acc" or not (_is_act(pattern) and pattern.aligned):
                continue
            if e == Const(0) and pattern.value != e:
                continue
            found = next(self.matcher.matches(pattern, e), None)
            if found is not None:
                way = copy(self)
                try:
                    ways.append((way, way._act(pattern, found)))
                except Refusal as reason:
                    refusal = reason
        if not ways:
            raise refusal
        best, region = min(ways, key=lambda way: way[0].cost)
        self.images, self.acts, self._regions = best.images, best.acts, best._regions
        self.sum = best.sum
        return region

    @property
    def cost(self) -> int:
        """Accumulators that are loaded or computed for each of the output."""
        return len(self.images) + len(self.acts)

    def __copy__(self) -> _Code:
        twin = _Code(self.matcher)
        twin.images, twin.acts, twin.running = dict(self.images), list(self.acts), self.running
        twin.sum, twin._regions = self.sum, self._regions
        return twin

    def _region(self) -> int:
        self._regions += 1
        return self._regions - 1

    def _loaded(self, e: Expr) -> int:
        reduction = self.matcher.kernel.reduction
        where = Where(self.matcher.kernel, reduction.axes if reduction else ())
        image = image_of(where, e, "acc", self.matcher.patterns)
        if (image.batch, image.channel) != (where.kernel.element[0], where.kernel.element[3]):
            raise Refusal("an element's batch or channel differs from its output's")
        region = self._region()
        self.images[region] = image
        return region

    def _act(self, pattern: Pattern, match: Match) -> int:
        mine = [v for hole, v in match.holes.items() if hole == pattern.target]
        others = [
            v for hole, v in match.holes.items() if loads(hole, "acc") and hole != pattern.target
        ]
        dst = self.value(mine[0]) if mine else self._region()
        src = self.value(others[0]) if others else None
        immediates = [v for hole, v in match.holes.items() if isinstance(hole, Index)]
        imm = next((int(v.value) for v in immediates if isinstance(v, Const)), None)
        record = record_of(pattern, match)
        taps = dst == self.running and src in self.images
        self.acts.append(Act(pattern.operation.name, dst, src, imm, record or None, taps))
        return dst


def _is_act(pattern: Pattern) -> bool:
    """Whether it works on accumulators and parameters alone."""
    loads = {n.buffer for n in walk(pattern.value) if isinstance(n, Load)}
    return loads <= {"acc", *RECORDS}


def _is_element(e: Expr, kernel: Kernel) -> bool:
    match e:
        case Load(buffer) | Select(_, Load(buffer), Const()):
            return buffer in kernel.shapes
    return False


def _shape_of(e: Expr) -> str:
    match e:
        case Binary(op):
            return f"such a {op!r}"
        case Const(value):
            return f"the constant {value}"
    return f"such a {type(e).__name__.lower()}"
