"""Sums as LLVM IR: which of the forms one takes.

*rows* (:mod:`weft.isa.llvm_rows`) where a lane's terms lie side by side in memory and the lanes do
not, *pairs* (:mod:`weft.isa.llvm_pairs`) for other products of narrow integers over lanes, and
*plain*, one total in every lane, for everything else. Integer addition wraps, so that all give the
same bits. A sum over selections between sums, as padded convolutions have, carries its totals
through both branches.
"""

from __future__ import annotations

from .lanes import in_rows, leaves, mentions
from .llvm_ir import Value
from .llvm_loops import Term
from .llvm_pairs import WIDTH
from .llvm_rows import Rows
from .nest import I32, Nest, Sum, promote
from .traverse import walk


class Sums(Rows):
    """Accesses, and the sums over them.

    ``pairs`` says whether the target has x86's multiplication of pairs of ``i16`` that adds the
    two products.
    """

    def __init__(self, nest: Nest, checked: frozenset[str], pairs: bool):
        super().__init__(nest, checked)
        self.pairs = pairs

    def sum(self, e: Sum) -> Value:
        """The value of a sum, for all lanes."""
        lanes = self.lanes
        if lanes is None:
            return self.plain(e)
        if not mentions(e.body, lanes.steps):
            return self.first_lane(e)
        found = leaves(e, lanes.steps)
        dtype = promote(self.dtype(e.body), I32)
        if found is None or any(promote(self.dtype(x.body), I32) != dtype for x in found):
            return self.plain(e)
        products = self.pairs and all(map(self.is_product, found))
        if any(in_rows(leaf, lanes.steps, self.buffers) for leaf in found):
            return self.rows(e, dtype, products)
        width = min(WIDTH, lanes.count)
        if products and width >= 4:
            return self.in_pairs(e, width)
        return self.plain(e)

    def plain(self, e: Sum) -> Value:
        """One total."""
        dtype, lanes = promote(self.dtype(e.body), I32), self.lanes
        zero = self.constant(0, dtype)
        if not all(extent for _, extent in e.axes):
            return zero
        term: Term = lambda totals: (self.plus(totals[0], self.expr(e.body)),)  # noqa: E731
        nested = any(isinstance(node, Sum) for node in walk(e.body))
        if lanes is None:
            (total,) = self.loops(e.axes, (zero,), term)
            return total
        zero = Value("zeroinitializer", dtype, lanes.count)
        (total,) = (self.loops if nested else self.written)(e.axes, (zero,), term)
        return total
