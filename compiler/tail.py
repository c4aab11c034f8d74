"""What becomes of sums before they are stored: instructions on accumulators, tile by tile.

The other regions of a tile lie behind that of its sums or before it, each of the same size and in
the same order of positions, so that one place in a tile has the same place in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..isa.nest import Expr
from .emit import Action, Span, Uops
from .image import Image
from .schedule import part
from .work import Act, Contraction


class TailSteps:
    """Makes the steps of a contraction behind its products.

    Parameters
    ----------
    work : Contraction
        One that has a tail.
    parameters : sequence
        The records of all its instructions but the first one.
    first_record : int
        The element of ``qnt`` that the first of them lies in; the others follow.
    size : int
        Elements of a region of a whole tile.

    Attributes
    ----------
    sums : int
        Where in a tile the region of sums begins.
    images : mapping
        What is loaded, by region.
    """

    def __init__(
        self,
        work: Contraction,
        parameters: Sequence[Mapping[str, Expr]],
        first_record: int,
        size: int,
    ):
        assert work.tail is not None
        assert work.tail.sums is not None
        self.first, self.work = work.ending, work.tail
        self.parameters, self.first_record = list(parameters), first_record
        self.places = {region: n * size for n, region in enumerate(work.tail.regions)}
        self.sums = self.places[work.tail.sums]
        self.images: Mapping[int, Image] = work.tail.images

    def of(self, sums: Span, region: int) -> Span:
        """The part of a region that belongs to these sums."""
        apart = self.places[region] - self.sums
        return Span(sums.memory, sums.start + apart, sums.stop + apart)

    def steps(
        self, sums: Span, size: tuple[int, int, int], record: Span, record_step: int
    ) -> list[Action]:
        """All that is done with sums of ``size`` (planes, rows, columns), dense; ``record`` is
        what they are requantized with, one of every plane if ``record_step`` is 1."""
        planes, positions = size[0], size[1] * size[2]
        record = part(record, 0, 1 + (planes - 1) * record_step)
        loops = {
            "iter_out": planes,
            "iter_in": positions,
            "dst_factor_out": positions if planes > 1 else 0,
            "dst_factor_in": 1,
            "src_factor_out": record_step if planes > 1 else 0,
        }
        first = Action(
            self.first.operation, loops, (record, sums), (sums,),
            Uops([(sums.start, record.start, 0)]), (0, 1),
        )  # fmt: skip
        return [first, *(self._act(act, sums) for act in self.work.acts)]

    def result(self, sums: Span) -> tuple[Span, Span | None]:
        """What is stored of them, and with which parameters."""
        return self.of(sums, self.work.result), self._record(self.work.ending.record)

    def _act(self, act: Act, sums: Span) -> Action:
        """An instruction on one region, and on a second one or with parameters."""
        target = self.of(sums, act.dst)
        operands = {"iter_out": 1, "iter_in": target.stop - target.start, "dst_factor_in": 1}
        reads, src = [target], 0
        second = None if act.src is None else self.of(sums, act.src)
        if second is not None:
            operands["src_factor_in"] = 1
        second = second or self._record(act.record)
        if second is not None:
            reads, src = [second, target], second.start
        if act.imm is not None:
            operands["imm"] = act.imm
        uops = Uops([(target.start, src, 0)])
        return Action(act.operation, operands, tuple(reads), (target,), uops, (0, 1))

    def _record(self, record: Mapping[str, Expr] | None) -> Span | None:
        if not record:
            return None
        at = self.first_record + self.parameters.index(record)
        return Span("qnt", at, at + 1)
