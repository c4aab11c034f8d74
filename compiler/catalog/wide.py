"""Products of bytes whose exact 32-bit sums leave a machine that stores bytes.

A sum ``256 * k + low`` of less than 16 bits is two bytes: its low one, and one from which ``k``
follows (``wide.high``, which is the sum divided by 256 in a requantization's two roundings).
Longer sums are those of the weights' digits: ``w = d0 + d1 * 2**shift + ...``. Both products are
loop nests that instructions match; ``wide.join`` puts their bytes together, on the host.
"""

from __future__ import annotations

import math

import numpy as np

from ...isa.nest import I8, I32, Expr, Index, Load
from ...isa.requantize import requantize
from .site import Code, Kernel, Site, Types, define
from .terms import buffer, code, loops, store, total

LARGEST_SUM = 32512
"""Of a product of the weights of one row with bytes: ``k`` is within [-127, 127]."""
DIGITS = ((8, 1), (4, 2), (3, 3), (2, 4))
"""Bits of a digit, and how many digits make a byte; the last one takes what is left."""


def digits_of(weights: np.ndarray) -> tuple[np.ndarray, int, int] | None:
    """Weights ``int8`` [rows, depth] as digits, [parts * rows, depth], with parts and shift.

    None if even the smallest digits could make too large sums.
    """
    for shift, parts in DIGITS:
        rest, found = weights.astype(np.int64), list[np.ndarray]()
        for part in range(parts):
            half = 1 << (shift - 1)
            digit = rest if part == parts - 1 else ((rest + half) & (2 * half - 1)) - half
            found.append(digit)
            rest = (rest - digit) >> shift
        whole = np.concatenate(found)
        if (np.abs(whole).sum(1) * -I8.min).max() <= LARGEST_SUM:
            return whole.astype(np.int8), parts, shift
    return None


def _infer(site: Site) -> Types:
    x, weights = site.x, site.input(1)
    site.expect(x, (I8,))
    site.expect(weights, (I8,))
    if not x.shape or len(weights.shape) != 2 or x.shape[-1:] != weights.shape[1:]:
        site.fail(f"the product of {list(x.shape)} and {list(weights.shape)}")
    return [(I8, (*x.shape[:-1], weights.shape[0]))]


@define("wide.high", "wide.low", infer=_infer, native=True)
def product(site: Site) -> Code:
    """One byte of each sum of the products of rows, of which ``parts`` are digits of one."""
    x, weights, out = site.x, site.input(1), site.out
    channels, depth = weights.shape
    rows = math.prod(x.shape[:-1])
    n, o, c = map(Index, "noc")
    value: Expr = total((("c", depth),), Load(x.name, (n, c)) * Load(weights.name, (o, c)))
    if site.kind == "wide.high":
        value = requantize(value, 1 << 30, 0, 7, 0, I8.min, I8.max)
    body = loops((("n", rows), ("o", channels)), store(out, (n, o), value, I32))
    buffers = (buffer(x, (rows, depth)), buffer(weights), buffer(out, (rows, channels)))
    return code(site, buffers, body)


def _join_infer(site: Site) -> Types:
    high, low, parts = site.x, site.input(1), site.integer("parts", 1)
    site.expect(high, (I8,))
    site.expect(low, (I8,))
    if high.shape != low.shape or not high.shape or parts < 1 or high.shape[-1] % parts:
        site.fail(f"bytes {list(high.shape)} and {list(low.shape)} of {parts} digits")
    return [(I32, (*high.shape[:-1], high.shape[-1] // parts))]


@define("wide.join", infer=_join_infer, native=False)
def join(site: Site) -> Kernel:
    """The sums that two products' bytes came from."""
    parts, shift = site.integer("parts", 1), site.integer("shift", 0)

    def compute(high: np.ndarray, low: np.ndarray) -> np.ndarray:
        k, l_ = high.astype(np.int32), low.astype(np.int32)
        # Half a unit above k, ties go away from zero.
        k = k - ((l_ == I8.max) & (k > 0)) + ((l_ == I8.min) & (k < 0))
        sums = (k * 256 + l_).reshape(*high.shape[:-1], parts, -1)
        weights = (1 << (shift * np.arange(parts, dtype=np.int32)))[:, None]
        return (sums * weights).sum(-2, dtype=np.int32)

    return Kernel(compute)
