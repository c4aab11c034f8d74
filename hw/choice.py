"""One of several values."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_

from amaranth import Value


def one_of(flags: Iterable[Value], values: Iterable[Value]) -> Value:
    """The value whose flag is 1, zeros if none is; at most one may be, and all are equally wide."""
    pairs = zip(flags, values, strict=True)
    return reduce(or_, (flag.replicate(len(value)) & value for flag, value in pairs))
