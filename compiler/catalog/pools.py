"""Pooling over images of any rank, and normalizations by given statistics, as loop nests."""

from __future__ import annotations

import math
from itertools import product

from ...isa.nest import (
    F32,
    I8,
    I64,
    U8,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    Expr,
    If,
    Index,
    Load,
    Store,
    Sum,
    expr,
)
from .reductions import extreme, walk_of
from .site import FLOATS, Code, Site, Types, define, same
from .terms import (
    ZERO,
    added,
    axes_of,
    buffer,
    choose,
    code,
    computed,
    divide,
    function,
    indices_of,
    less,
    load,
    loops,
    number,
    store,
)
from .windows import Sliding, bordered, element, window_of


def _window(site: Site) -> Sliding:
    size = site.integers("kernel_shape")
    return window_of(site, site.x.shape[2:], size, bool(site.integer("ceil_mode", 0)))


def _pool_infer(site: Site) -> Types:
    site.expect(site.x, (*FLOATS, I8, U8) if site.kind == "MaxPool" else FLOATS)
    shape = site.sized((*site.x.shape[:2], *_window(site).counts))
    types = [(site.x.dtype, shape)]
    if site.count == 2 and site.kind == "MaxPool":
        types.append((I64, shape))
    return types


def _covered(window: Sliding, extents: tuple[int, ...], at: tuple[Expr, ...], pads: bool) -> Expr:
    """How many taps of the window lie in the image, or in it and its pads, as a product."""
    total: Expr = Const(1)
    for k, i in enumerate(at):
        taps = ((f"t{k}", window.size[k]),)
        place = i * expr(window.strides[k]) + Index(f"t{k}") * expr(window.dilations[k])
        first = 0 if pads else window.begins[k]
        last = window.begins[k] + extents[k] + (window.ends[k] if pads else 0)
        inside = (Const(first) <= place) & (place < Const(last))
        total = total * Sum(taps, Cast(I64, inside))
    return total


@define("AveragePool", infer=_pool_infer, native=True)
def average_pool(site: Site) -> Code:
    """The mean of the elements inside, or also of the zeros of the pads."""
    x, out, dtype = site.x, site.out, site.x.dtype
    window, work = _window(site), computed(site.x.dtype)
    zero = number(0, dtype)
    wide, filling = bordered(site, x, work, zero, window.begins, window.spans)
    axes = axes_of(out.shape)
    n, c, *at = indices_of(axes)
    taps = axes_of(window.size, "k")
    value: Expr = Sum(taps, element(wide, n, c, *window.place(at, indices_of(taps))))
    pads = bool(site.integer("count_include_pad", 0))
    count = _covered(window, x.shape[2:], tuple(at), pads)
    value = divide(value, Cast(work, count))
    body = Block((filling, loops(axes, store(out, (n, c, *at), value, work))))
    return code(site, (buffer(x), buffer(out)), body, scratch=(wide,))


@define("LpPool", infer=_pool_infer, native=True)
def lp_pool(site: Site) -> Code:
    """The p-norm of the elements inside."""
    x, out, dtype, p = site.x, site.out, site.x.dtype, site.integer("p", 2)
    window, work = _window(site), computed(site.x.dtype)
    wide, filling = bordered(site, x, work, number(0, dtype), window.begins, window.spans)
    axes = axes_of(out.shape)
    n, c, *at = indices_of(axes)
    taps = axes_of(window.size, "k")
    one = function("abs", element(wide, n, c, *window.place(at, indices_of(taps))))
    total = Sum(taps, function("pow", one, number(p, dtype)))
    value = function("pow", total, number(1 / p, dtype))
    body = Block((filling, loops(axes, store(out, (n, c, *at), value, work))))
    return code(site, (buffer(x), buffer(out)), body, scratch=(wide,))


TAPS_LIMIT = 32
"""Taps of a window that are written out."""


def _written_out(window: Sliding, extents: tuple[int, ...]) -> bool:
    """Whether a window is small, and the nearest pixel to one outside is one of its own."""
    return math.prod(window.size) <= TAPS_LIMIT and all(
        d == 1 and b < n and (count - 1) * s - b < extent
        for n, s, d, b, count, extent in zip(
            window.size, window.strides, window.dilations, window.begins, window.counts, extents,
            strict=True,
        )
    )  # fmt: skip


def _maximum(site: Site, window: Sliding) -> Code:
    """A maximum with its taps written out; instead of a pixel outside, the nearest one inside."""
    x, out = site.x, site.outputs[0]
    axes = axes_of(out.shape)
    n, c, *at = indices_of(axes)
    value: Expr | None = None
    for taps in product(*map(range, window.size)):
        places: list[Expr] = []
        for k, place in enumerate(window.place(at, [Const(t, I64) for t in taps])):
            inside = place - expr(window.begins[k])
            if window.begins[k] or window.spans[k] > x.shape[2 + k]:
                inside = Binary("min", Binary("max", inside, ZERO), Const(x.shape[2 + k] - 1, I64))
            places.append(inside)
        term = load(x, (n, c, *places))
        value = term if value is None else Binary("max", value, term)
    assert value is not None
    body = loops(axes, store(out, (n, c, *at), value, computed(x.dtype)))
    return code(site, (buffer(x), buffer(out)), body)


@define("MaxPool", infer=_pool_infer, native=True)
def max_pool(site: Site) -> Code:
    """The maximum of the elements inside and, as a second output, where the first one stands."""
    x, out, dtype = site.x, site.outputs[0], site.x.dtype
    window = _window(site)
    work = computed(dtype)
    if site.count == 1 and _written_out(window, x.shape[2:]):
        return _maximum(site, window)
    wide, filling = bordered(site, x, work, extreme(dtype, False), window.begins, window.spans)
    axes = axes_of(out.shape)
    n, c, *at = indices_of(axes)
    taps = axes_of(window.size, "k")
    most = Buffer(added(site, "most"), work, out.shape)
    place = (n, c, *at)
    here = element(wide, n, c, *window.place(at, indices_of(taps)))
    top = Load(most.name, place)
    first = Store(most.name, place, extreme(dtype, False))
    if site.count == 1:
        change: Store | If | Block = Store(most.name, place, Binary("max", top, here))
        steps = [first, loops(taps, change, parallel=False)]
        buffers = (buffer(x), buffer(out))
    else:
        index = site.outputs[1]
        spatial = x.shape[2:]
        own = [
            i - expr(b)
            for i, b in zip(window.place(at, indices_of(taps)), window.begins, strict=True)
        ]
        flat: Expr = n * expr(x.shape[1]) + c
        if site.integer("storage_order", 0):
            inner: Expr = ZERO
            for i, extent in zip(reversed(own), reversed(spatial), strict=True):
                inner = inner * expr(extent) + i
            flat = flat * expr(math.prod(spatial)) + inner
        else:
            for i, extent in zip(own, spatial, strict=True):
                flat = flat * expr(extent) + i
        found = Block((Store(index.name, place, flat), Store(most.name, place, here)))
        steps = [
            first,
            Store(index.name, place, Const(0, I64)),
            loops(taps, If(less(top, here), found), parallel=False),
        ]
        buffers = (buffer(x), buffer(out), buffer(index))
    steps.append(store(out, place, top, work))
    body = Block((filling, loops(axes, Block(tuple(steps)))))
    return code(site, buffers, body, scratch=(wide, most))


def _global_infer(site: Site) -> Types:
    site.expect(site.x, FLOATS)
    if len(site.x.shape) < 3 or 0 in site.x.shape[2:]:
        site.fail(f"an image of shape {list(site.x.shape)}")
    return [(site.x.dtype, (*site.x.shape[:2], *(1 for _ in site.x.shape[2:])))]


@define("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", infer=_global_infer, native=True)
def global_pool(site: Site) -> Code:
    """The mean, the maximum or the p-norm of each channel."""
    x, out, dtype = site.x, site.out, site.x.dtype
    work = computed(dtype)
    lead, inner = axes_of(x.shape[:2]), axes_of(x.shape[2:], "k")
    place = indices_of(lead)
    value = load(x, (*place, *indices_of(inner)))
    small = buffer(out, x.shape[:2])
    count = math.prod(x.shape[2:])
    if site.kind == "GlobalMaxPool":
        most = Buffer(added(site, "most"), work, x.shape[:2])
        top = Load(most.name, place)
        steps = (
            Store(most.name, place, extreme(dtype, False)),
            loops(inner, Store(most.name, place, Binary("max", top, value)), parallel=False),
            store(out, place, top, work),
        )
        return code(site, (buffer(x), small), loops(lead, Block(steps)), scratch=(most,))
    if site.kind == "GlobalAveragePool":
        mean = divide(Sum(inner, value), number(count, dtype))
    else:
        p = site.integer("p", 2)
        power = Sum(inner, function("pow", function("abs", value), number(p, dtype)))
        mean = function("pow", power, number(1 / p, dtype))
    return code(site, (buffer(x), small), loops(lead, store(out, place, mean, work)))


# --- normalizations --------------------------------------------------------------------------


def _batch_norm_infer(site: Site) -> Types:
    site.expect(site.x, FLOATS)
    if site.integer("training_mode", 0) or site.count != 1:
        site.unsupported("training")
    channels = site.x.shape[1] if len(site.x.shape) > 1 else 1
    for position in range(1, 5):
        site.expect(site.input(position), FLOATS)
        if site.input(position).shape != (channels,):
            site.fail(f"input {position} has shape {list(site.input(position).shape)}")
    return [(site.x.dtype, site.x.shape)]


@define("BatchNormalization", infer=_batch_norm_infer, native=True)
def batch_normalization(site: Site) -> Code:
    """Each channel by its mean and variance, then its scale and bias."""
    x, out, work = site.x, site.out, computed(site.x.dtype)
    axes = axes_of(x.shape)
    indices = indices_of(axes)
    channel = (indices[1],) if len(indices) > 1 else (ZERO,)
    scale, bias, mean, variance = (load(site.input(k), channel) for k in range(1, 5))
    epsilon = number(site.real("epsilon", 1e-5), x.dtype)
    factor = divide(scale, function("sqrt", variance + epsilon))
    value = (load(x, indices) - mean) * factor + bias
    dtype = work if all(t.dtype == x.dtype for t in site.present()) else F32
    body = loops(axes, store(out, indices, Cast(dtype, value), dtype))
    return code(site, [buffer(t) for t in (*site.present(), out)], body)


def _instance_infer(site: Site) -> Types:
    site.expect(site.x, FLOATS)
    if len(site.x.shape) < 3 or 0 in site.x.shape:
        site.fail(f"an image of shape {list(site.x.shape)}")
    for position in (1, 2):
        if site.input(position).shape != site.x.shape[1:2]:
            site.fail(f"input {position} has shape {list(site.input(position).shape)}")
    site.same_type(*site.present())
    return [(site.x.dtype, site.x.shape)]


@define("InstanceNormalization", infer=_instance_infer, native=True)
def instance_normalization(site: Site) -> Code:
    """Each channel of each image by its own mean and variance."""
    x, out, dtype = site.x, site.out, site.x.dtype
    work = computed(dtype)
    lead, inner = axes_of(x.shape[:2]), axes_of(x.shape[2:], "k")
    place = indices_of(lead)
    mean, share = (Buffer(added(site, what), work, x.shape[:2]) for what in ("mean", "factor"))
    at = (*place, *indices_of(inner))
    count, middle = number(math.prod(x.shape[2:]), dtype), Load(mean.name, place)
    distance = load(x, at) - middle
    epsilon = number(site.real("epsilon", 1e-5), dtype)
    variance = divide(Sum(inner, distance * distance), count)
    scale, bias = (load(site.input(k), (place[1],)) for k in (1, 2))
    factor = divide(scale, function("sqrt", variance + epsilon))
    steps = (
        Store(mean.name, place, divide(Sum(inner, load(x, at)), count)),
        Store(share.name, place, factor),
        loops(inner, store(out, at, distance * Load(share.name, place) + bias, work)),
    )
    buffers = [buffer(t) for t in (*site.present(), out)]
    return code(site, buffers, loops(lead, Block(steps)), scratch=(mean, share))


def _lrn_infer(site: Site) -> Types:
    size = site.integer("size", 1)
    if len(site.x.shape) < 2 or not 1 <= size <= 2 * site.x.shape[1] + 1:
        site.fail(f"{size} channels of {list(site.x.shape)}")
    return same(FLOATS)(site)


@define("LRN", infer=_lrn_infer, native=True)
def local_response(site: Site) -> Code:
    """Each element by the squares of its neighbours in other channels."""
    x, out, dtype = site.x, site.out, site.x.dtype
    size = site.integer("size", 1)
    axes = axes_of(x.shape)
    n, c, *rest = indices_of(axes)
    near = c + Index("k") - expr((size - 1) // 2)
    value = load(x, (n, near, *rest))
    inside = (expr(0) <= near) & (near < Const(x.shape[1]))
    total = Sum((("k", size),), choose(inside, value * value, number(0, dtype)))
    share = number(site.real("alpha", 1e-4) / size, dtype)
    base = number(site.real("bias", 1.0), dtype) + share * total
    power = function("pow", base, number(site.real("beta", 0.75), dtype))
    body = loops(axes, store(out, (n, c, *rest), divide(load(x, (n, c, *rest)), power),
                             computed(dtype)))  # fmt: skip
    return code(site, (buffer(x), buffer(out)), body)


def _lp_infer(site: Site) -> Types:
    site.axis(site.integer("axis", -1), len(site.x.shape))
    if site.integer("p", 2) not in (1, 2):
        site.unsupported(f"the norm of order {site.integer('p', 2)}")
    return same(FLOATS)(site)


@define("LpNormalization", infer=_lp_infer, native=True)
def lp_normalization(site: Site) -> Code:
    """Each element by the norm along an axis; where that is 0 the result is 0."""
    x, out, dtype = site.x, site.out, site.x.dtype
    work = computed(dtype)
    walk = walk_of(x.shape, (site.axis(site.integer("axis", -1), len(x.shape)),))
    value = load(x, walk.x)
    norm = Buffer(added(site, "norm"), work, walk.shape or (1,))
    if site.integer("p", 2) == 1:
        total: Expr = Sum(walk.inner, function("abs", value))
    else:
        total = function("sqrt", Sum(walk.inner, value * value))
    length = Load(norm.name, walk.out)
    zero = number(0, dtype)
    result = choose(Binary("eq", length, zero), zero, divide(value, length))
    steps = (Store(norm.name, walk.out, total), loops(walk.inner, store(out, walk.x, result, work)))
    body = loops(walk.outer, Block(steps))
    return code(site, (buffer(x), buffer(out)), body, scratch=(norm,))
