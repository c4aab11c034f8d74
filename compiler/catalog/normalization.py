"""Normalization of rows to mean 0 and variance 1, as loop nests."""

from __future__ import annotations

from ...isa.nest import F32, Block, Buffer, Cast, Const, Load, Stmt, Store, Sum
from .reductions import walk_of, without
from .site import FLOATS, Code, Site, Types, define
from .terms import ZERO, added, buffer, code, divide, function, load, loops, store


def _axes(site: Site) -> tuple[int, ...]:
    rank = len(site.x.shape)
    return tuple(range(site.axis(site.integer("axis", -1), rank), rank))


def _infer(site: Site) -> Types:
    x, axes = site.x, _axes(site)
    site.expect(x, FLOATS)
    if not x.shape:
        site.fail("a scalar")
    if site.integer("stash_type", 1) != 1:
        site.unsupported("another precision than single")
    inner = tuple(x.shape[k] for k in axes)
    for tensor in site.present()[1:]:
        site.same_type(x, tensor)
        if site.broadcast(tensor.shape, inner) != inner:
            site.fail(f"{tensor.name!r} has shape {list(tensor.shape)}, {list(inner)} is expected")
    kept = without(x.shape, axes, keep=True)
    return [(x.dtype, x.shape), (F32, kept), (F32, kept)][: max(1, site.count)]


@define("LayerNormalization", infer=_infer, native=True)
def layer_normalization(site: Site) -> Code:
    """Each row less its mean, by its standard deviation, times a scale and plus a bias."""
    x, out, axes = site.x, site.out, _axes(site)
    walk = walk_of(x.shape, axes)
    count = Const(float(walk.count), F32)
    mean, spread = (Buffer(added(site, n), F32, walk.shape or (1,)) for n in ("mean", "spread"))
    value = Cast(F32, load(x, walk.x))
    middle, factor = Load(mean.name, walk.out), Load(spread.name, walk.out)
    centred = value - middle
    variance = divide(Sum(walk.inner, centred * centred), count)
    root = function("sqrt", variance + Const(site.real("epsilon", 1e-5), F32))
    steps: list[Stmt] = [
        Store(mean.name, walk.out, divide(Sum(walk.inner, value), count)),
        Store(spread.name, walk.out, divide(Const(1.0, F32), root)),
    ]
    result = centred * factor
    for k, tensor in enumerate(site.present()[1:]):
        own = walk.x[len(x.shape) - len(tensor.shape) :]
        at = [ZERO if n == 1 else i for n, i in zip(tensor.shape, own, strict=True)]
        term = Cast(F32, load(tensor, at))
        result = result * term if k == 0 else result + term
    steps.append(loops(walk.inner, store(out, walk.x, result, F32)))
    buffers = [buffer(t) for t in (*site.present(), out)]
    for tensor, value in zip(site.outputs[1:], (middle, factor), strict=False):
        buffers.append(buffer(tensor, walk.shape))
        steps.append(store(tensor, walk.out, value, F32))
    return code(site, buffers, loops(walk.outer, Block(tuple(steps))), scratch=(mean, spread))
