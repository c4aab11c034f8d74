"""Products of matrices and convolutions, of floats and of integers, as loop nests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...isa.nest import I8, I32, U8, Const, DType, Expr, Index, Load, expr
from ..graph import Tensor
from .quantization import requantized, zero_point_at
from .reductions import accumulator
from .site import FLOATS, NUMBERS, Code, Shape, Site, Types, define
from .terms import (
    ZERO,
    axes_of,
    buffer,
    choose,
    code,
    computed,
    indices_of,
    load,
    loops,
    number,
    store,
    total,
)
from .windows import window_of


def macs(site: Site) -> int:
    """Multiply-accumulates of a node, without padding; 0 of what is no product."""
    each = math.prod(site.out.shape)
    match site.kind:
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            return each * site.x.shape[-1]
        case "wide.high":  # the low bytes are of the same products
            return each * site.x.shape[-1] // site.integer("parts", 1)
        case "Gemm":
            return each * _gemm_shapes(site)[1]
        case "Conv" | "ConvInteger":
            return each * math.prod(site.input(1).shape[1:])
        case "QLinearConv":
            return each * math.prod(site.input(3).shape[1:])
        case "ConvTranspose":
            return math.prod(site.x.shape) * math.prod(site.input(1).shape[1:])
    return 0


# --- matrices ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matrices:
    """Two stacks of matrices whose products are taken; vectors have become matrices."""

    a: Shape
    b: Shape
    stack: Shape
    out: Shape
    """The product's, with the axes that vectors had added."""
    result: Shape

    @property
    def depth(self) -> int:
        """Terms of an element."""
        return self.a[-1]


def matrices(site: Site, a: Tensor, b: Tensor) -> Matrices:
    """How numpy's ``matmul`` sees two tensors."""
    if not a.shape or not b.shape:
        site.fail("the product of a scalar")
    left = a.shape if len(a.shape) > 1 else (1, *a.shape)
    right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    if left[-1] != right[-2]:
        site.fail(f"the product of {list(a.shape)} and {list(b.shape)}")
    stack = site.broadcast(left[:-2], right[:-2])
    out = (*stack, left[-2], right[-1])
    result = (
        *stack,
        *(left[-2:-1] if len(a.shape) > 1 else ()),
        *(right[-1:] if len(b.shape) > 1 else ()),
    )
    return Matrices(left, right, stack, out, site.sized(result))


def product(site: Site, m: Matrices, a: Tensor, b: Tensor, zeros: tuple[Expr | None, ...]) -> Expr:
    """An element of the product at the indices of ``axes_of(m.out)``."""
    indices = indices_of(axes_of(m.out))
    k = Index("k")

    def at(shape: Shape, row: Expr, column: Expr) -> tuple[Expr, ...]:
        lead = indices[len(m.stack) - len(shape) + 2 : len(m.stack)]
        own = tuple(ZERO if n == 1 else i for n, i in zip(shape[:-2], lead, strict=True))
        return (*own, row, column)

    left, right = load(a, at(m.a, indices[-2], k)), load(b, at(m.b, k, indices[-1]))
    if zeros[0] is not None:
        left = left - zeros[0]
    if zeros[1] is not None:
        right = right - zeros[1]
    return total((("k", m.depth),), left * right)


def _matmul_infer(site: Site) -> Types:
    a, b = site.x, site.input(1)
    site.expect(a, NUMBERS)
    return [(site.same_type(a, b), matrices(site, a, b).result)]


@define("MatMul", infer=_matmul_infer, native=True)
def matmul(site: Site) -> Code:
    """Products of stacks of matrices."""
    a, b, out = site.x, site.input(1), site.out
    m = matrices(site, a, b)
    axes = axes_of(m.out)
    value = product(site, m, a, b, (None, None))
    body = loops(axes, store(out, indices_of(axes), value, accumulator(out.dtype)))
    return code(site, (buffer(a, m.a), buffer(b, m.b), buffer(out, m.out)), body)


def _gemm_shapes(site: Site) -> tuple[int, int, int]:
    a, b = site.x, site.input(1)
    if len(a.shape) != 2 or len(b.shape) != 2:
        site.fail("matrices are expected")
    rows, depth = a.shape[::-1] if site.integer("transA", 0) else a.shape
    other, columns = b.shape[::-1] if site.integer("transB", 0) else b.shape
    if depth != other:
        site.fail(f"the product of {list(a.shape)} and {list(b.shape)}")
    return rows, depth, columns


def _gemm_infer(site: Site) -> Types:
    site.expect(site.x, NUMBERS)
    rows, _, columns = _gemm_shapes(site)
    if site.has(2) and site.broadcast(site.input(2).shape, (rows, columns)) != (rows, columns):
        site.fail(f"a summand of shape {list(site.input(2).shape)} for [{rows}, {columns}]")
    return [(site.same_type(*site.present()), (rows, columns))]


@define("Gemm", infer=_gemm_infer, native=True)
def gemm(site: Site) -> Code:
    """alpha times the product of two matrices and beta times a third one."""
    a, b, out, dtype = site.x, site.input(1), site.out, site.x.dtype
    _, depth, _ = _gemm_shapes(site)
    axes = axes_of(out.shape)
    i, j = indices_of(axes)
    k = Index("k")
    left = load(a, (k, i) if site.integer("transA", 0) else (i, k))
    right = load(b, (j, k) if site.integer("transB", 0) else (k, j))
    value = total((("k", depth),), left * right)
    work = computed(dtype)
    if site.real("alpha", 1.0) != 1.0:
        value = value * number(site.real("alpha", 1.0), dtype)
    if site.has(2):
        c = site.input(2)
        own = (i, j)[2 - len(c.shape) :]
        term = load(c, [ZERO if n == 1 else at for n, at in zip(c.shape, own, strict=True)])
        if site.real("beta", 1.0) != 1.0:
            term = term * number(site.real("beta", 1.0), dtype)
        value = value + term
    body = loops(axes, store(out, (i, j), value, work if dtype.kind == "f" else accumulator(dtype)))
    return code(site, [buffer(t) for t in (*site.present(), out)], body)


# --- convolutions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    """A convolution's tensors and sizes."""

    x: Tensor
    w: Tensor
    group: int


def filter_of(site: Site, x: Tensor, w: Tensor) -> Filter:
    """The checked sizes of a convolution."""
    group = site.integer("group", 1)
    if len(x.shape) < 3 or len(x.shape) != len(w.shape):
        site.fail(f"a filter {list(w.shape)} over an image {list(x.shape)}")
    if group < 1 or w.shape[0] % group or x.shape[1] != w.shape[1] * group or not w.shape[0]:
        site.fail(f"{group} groups of {list(x.shape)} and {list(w.shape)}")
    if site.integers("kernel_shape", w.shape[2:]) != w.shape[2:]:
        site.fail(f"kernel_shape differs from the filter's {list(w.shape[2:])}")
    return Filter(x, w, group)


def _conv_shape(site: Site, f: Filter) -> Shape:
    counts = window_of(site, f.x.shape[2:], f.w.shape[2:]).counts
    return site.sized((f.x.shape[0], f.w.shape[0], *counts))


def out_channel(f: Filter) -> Expr:
    """A channel of the output, in the loops of :func:`convolved`."""
    each = f.w.shape[0] // f.group
    if f.group == 1 or each == f.w.shape[1] == 1:
        return Index("m")
    return Index("g") * expr(each) + Index("m")


def convolved(
    site: Site, f: Filter, dtype: DType, zeros: tuple[Expr | None, Expr | None]
) -> tuple[Expr, tuple[tuple[str, int], ...], tuple[Expr, ...]]:
    """The sum for an element, the loops of those, and the indices of the output in them.

    ``zeros`` are subtracted from image and filter; outside of the image is 0.
    """
    window = window_of(site, f.x.shape[2:], f.w.shape[2:])
    counts = axes_of(window.counts, "y")
    batch, at = ("n", f.x.shape[0]), indices_of(counts)
    taps = axes_of(f.w.shape[2:], "k")
    depth = f.w.shape[1]
    c: Expr = Index("c") if depth > 1 else ZERO
    each, m = f.w.shape[0] // f.group, out_channel(f)
    own: tuple[tuple[str, int], ...]
    channel: Expr
    if f.group == 1:
        own, channel = (("m", each),), c
    elif each == depth == 1:
        own, channel = (("m", f.group),), Index("m")
    else:
        own, channel = (("g", f.group), ("m", each)), Index("g") * expr(depth) + c
    places = tuple(
        p - expr(b) for p, b in zip(window.place(at, indices_of(taps)), window.begins, strict=True)
    )
    pixel = load(f.x, (Index("n"), channel, *places))
    if zeros[0] is not None:
        pixel = pixel - zeros[0]
    inside: Expr | None = None
    for k, (place, extent) in enumerate(zip(places, f.x.shape[2:], strict=True)):
        if window.begins[k] == 0 and window.spans[k] <= extent:
            continue
        within = (expr(0) <= place) & (place < Const(extent))
        inside = within if inside is None else inside & within
    if inside is not None:
        pixel = choose(inside, pixel, number(0, dtype))
    weight = load(f.w, (m, c, *indices_of(taps)))
    if zeros[1] is not None:
        weight = weight - zeros[1]
    value = total((*((("c", depth),) if depth > 1 else ()), *taps), pixel * weight)
    return value, (batch, *own, *counts), (Index("n"), m, *at)


def _conv_infer(site: Site) -> Types:
    f = filter_of(site, site.x, site.input(1))
    site.expect(f.x, FLOATS)
    if site.has(2) and site.input(2).shape != f.w.shape[:1]:
        site.fail(f"a bias of shape {list(site.input(2).shape)}")
    return [(site.same_type(*site.present()), _conv_shape(site, f))]


@define("Conv", infer=_conv_infer, native=True)
def conv(site: Site) -> Code:
    """A convolution with groups, over images of any rank."""
    f, out = filter_of(site, site.x, site.input(1)), site.out
    value, axes, indices = convolved(site, f, computed(out.dtype), (None, None))
    if site.has(2):
        value = value + load(site.input(2), (out_channel(f),))
    body = loops(axes, store(out, indices, value, computed(out.dtype)))
    return code(site, [buffer(t) for t in (*site.present(), out)], body)


def _transposed_sizes(site: Site) -> tuple[Shape, Shape, Shape, Shape]:
    """Output extents, begins of the pads, strides and dilations."""
    x, w, group = site.x, site.input(1), site.integer("group", 1)
    rank = len(x.shape) - 2
    if rank < 1 or len(w.shape) != rank + 2:
        site.fail(f"a filter {list(w.shape)} over an image {list(x.shape)}")
    if group < 1 or x.shape[1] != w.shape[0] or w.shape[0] % group:
        site.fail(f"{group} groups of {list(x.shape)} and {list(w.shape)}")
    strides = site.integers("strides", (1,) * rank)
    dilations = site.integers("dilations", (1,) * rank)
    pads = site.integers("pads", (0,) * (2 * rank))
    more = site.integers("output_padding", (0,) * rank)
    if any(len(v) != n for v, n in ((strides, rank), (dilations, rank), (more, rank))):
        site.fail("strides, dilations and output_padding must be as many as extents")
    if len(pads) != 2 * rank or min((*strides, *dilations)) < 1 or min((*pads, *more)) < 0:
        site.fail(f"strides {list(strides)}, dilations {list(dilations)}, pads {list(pads)}")
    whole = [
        strides[k] * (x.shape[2 + k] - 1) + (w.shape[2 + k] - 1) * dilations[k] + 1 + more[k]
        for k in range(rank)
    ]
    auto, asked = site.text("auto_pad", "NOTSET"), site.attributes.get("output_shape")
    begins = list(pads[:rank])
    extents = [whole[k] - pads[k] - pads[rank + k] for k in range(rank)]
    if asked is not None or auto.startswith("SAME"):
        if asked is None:
            asked = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        extents = list(asked)[-rank:]  # type: ignore[arg-type]  # integers, or sized() refuses
        for k in range(rank):
            over = max(0, whole[k] - int(extents[k]))
            begins[k] = over - over // 2 if auto == "SAME_LOWER" else over // 2
    return site.sized(extents), tuple(begins), strides, dilations


def _conv_transpose_infer(site: Site) -> Types:
    site.expect(site.x, FLOATS)
    extents, *_ = _transposed_sizes(site)
    channels = site.input(1).shape[1] * site.integer("group", 1)
    if site.has(2) and site.input(2).shape != (channels,):
        site.fail(f"a bias of shape {list(site.input(2).shape)}")
    shape = site.sized((site.x.shape[0], channels, *extents))
    return [(site.same_type(*site.present()), shape)]


@define("ConvTranspose", infer=_conv_transpose_infer, native=True)
def conv_transpose(site: Site) -> Code:
    """The gradient of a convolution: a sum over the taps that some element of the image meets."""
    x, w, out = site.x, site.input(1), site.out
    _, begins, strides, dilations = _transposed_sizes(site)
    group = site.integer("group", 1)
    axes = axes_of(out.shape)
    n, m, *at = indices_of(axes)
    taps = axes_of(w.shape[2:], "k")
    c, each = Index("c"), w.shape[1]
    depth = w.shape[0] // group
    channel = c if group == 1 else m // expr(each) * expr(depth) + c
    column = m if group == 1 else m % expr(each)
    meets: Expr = Const(1)
    places: list[Expr] = []
    for k, (i, tap) in enumerate(zip(at, indices_of(taps), strict=True)):
        raw = i + expr(begins[k]) - tap * expr(dilations[k])
        place = raw // expr(strides[k])
        fits = (expr(0) <= raw) & (place < Const(x.shape[2 + k]))
        if strides[k] > 1:
            fits = fits & (raw % expr(strides[k]) <= 0)
        meets = meets & fits
        places.append(place)
    zero = number(0, x.dtype)
    term = load(x, (n, channel, *places)) * load(w, (channel, column, *indices_of(taps)))
    value = total((*taps, ("c", depth)), choose(meets, term, zero))
    if site.has(2):
        value = value + load(site.input(2), (m,))
    body = loops(axes, store(out, (n, m, *at), value, computed(out.dtype)))
    return code(site, [buffer(t) for t in (*site.present(), out)], body)


# --- of integers ---------------------------------------------------------------------------------

BYTES = (I8, U8)


def _matmul_integer_infer(site: Site) -> Types:
    a, b = site.x, site.input(1)
    site.expect(a, BYTES)
    site.expect(b, BYTES)
    m = matrices(site, a, b)
    for position, tensor, extent in ((2, a, m.a[-2]), (3, b, m.b[-1])):
        _check_zero(site, position, tensor, (1, extent))
    return [(I32, m.result)]


def _check_zero(site: Site, position: int, tensor: Tensor, sizes: tuple[int, ...]) -> None:
    if site.has(position):
        zero = site.input(position)
        site.same_type(tensor, zero)
        if math.prod(zero.shape) not in sizes or len(zero.shape) > 1:
            site.unsupported(f"zero points of shape {list(zero.shape)}")


@define("MatMulInteger", infer=_matmul_integer_infer, native=True)
def matmul_integer(site: Site) -> Code:
    """Products of stacks of matrices of bytes, less their zero points."""
    a, b, out = site.x, site.input(1), site.out
    m = matrices(site, a, b)
    axes = axes_of(m.out)
    indices = indices_of(axes)
    zeros = (zero_point_at(site, 2, indices[-2]), zero_point_at(site, 3, indices[-1]))
    body = loops(axes, store(out, indices, product(site, m, a, b, zeros), I32))
    extra = [buffer(t) for t in site.present()[2:]]
    return code(site, (buffer(a, m.a), buffer(b, m.b), *extra, buffer(out, m.out)), body)


def _conv_integer_infer(site: Site) -> Types:
    f = filter_of(site, site.x, site.input(1))
    site.expect(f.x, BYTES)
    site.expect(f.w, BYTES)
    _check_zero(site, 2, f.x, (1,))
    _check_zero(site, 3, f.w, (1, f.w.shape[0]))
    return [(I32, _conv_shape(site, f))]


@define("ConvInteger", infer=_conv_integer_infer, native=True)
def conv_integer(site: Site) -> Code:
    """A convolution of bytes less their zero points."""
    f, out = filter_of(site, site.x, site.input(1)), site.out
    zeros = (zero_point_at(site, 2, ZERO), zero_point_at(site, 3, out_channel(f)))
    value, axes, indices = convolved(site, f, I32, zeros)
    body = loops(axes, store(out, indices, value, I32))
    return code(site, [buffer(t) for t in (*site.present(), out)], body)


def _qlinear_matmul_infer(site: Site) -> Types:
    a, b = site.x, site.input(3)
    m = matrices(site, a, b)
    for tensor in (a, b, site.input(7)):
        site.expect(tensor, BYTES)
    for position, extent in ((1, m.a[-2]), (4, m.b[-1]), (6, 1)):
        _check_scale(site, position, extent)
    _check_zero(site, 2, a, (1, m.a[-2]))
    _check_zero(site, 5, b, (1, m.b[-1]))
    _check_zero(site, 7, site.input(7), (1,))
    return [(site.input(7).dtype, m.result)]


def _check_scale(site: Site, position: int, extent: int) -> None:
    scale = site.input(position)
    site.expect(scale, FLOATS)
    if math.prod(scale.shape) not in (1, extent) or len(scale.shape) > 1:
        site.unsupported(f"scales of shape {list(scale.shape)}")


def _scale_at(tensor: Tensor, index: Expr) -> Expr:
    return load(tensor, (index if math.prod(tensor.shape) > 1 else ZERO,))


@define("QLinearMatMul", infer=_qlinear_matmul_infer, native=True)
def qlinear_matmul(site: Site) -> Code:
    """A product of quantized matrices, requantized."""
    a, b, out = site.x, site.input(3), site.out
    m = matrices(site, a, b)
    axes = axes_of(m.out)
    indices = indices_of(axes)
    zeros = (zero_point_at(site, 2, indices[-2]), zero_point_at(site, 5, indices[-1]))
    scales = (_scale_at(site.input(1), indices[-2]), _scale_at(site.input(4), indices[-1]))
    sum_ = product(site, m, a, b, zeros)
    zero = load(site.input(7), (ZERO,))
    value = requantized(sum_, scales, _scale_at(site.input(6), ZERO), zero, out.dtype)
    body = loops(axes, store(out, indices, value, I32))
    extra = [buffer(t) for k, t in enumerate(site.inputs) if t is not None and k not in (0, 3)]
    return code(site, (buffer(a, m.a), buffer(b, m.b), *extra, buffer(out, m.out)), body)


def _qlinear_conv_infer(site: Site) -> Types:
    f = filter_of(site, site.x, site.input(3))
    for tensor in (f.x, f.w, site.input(7)):
        site.expect(tensor, BYTES)
    for position, extent in ((1, 1), (4, f.w.shape[0]), (6, 1)):
        _check_scale(site, position, extent)
    _check_zero(site, 2, f.x, (1,))
    _check_zero(site, 5, f.w, (1, f.w.shape[0]))
    _check_zero(site, 7, site.input(7), (1,))
    if site.has(8):
        site.expect(site.input(8), (I32,))
        if site.input(8).shape != f.w.shape[:1]:
            site.fail(f"a bias of shape {list(site.input(8).shape)}")
    return [(site.input(7).dtype, _conv_shape(site, f))]


@define("QLinearConv", infer=_qlinear_conv_infer, native=True)
def qlinear_conv(site: Site) -> Code:
    """A convolution of quantized images, requantized."""
    f, out = filter_of(site, site.x, site.input(3)), site.out
    m = out_channel(f)
    zeros = (zero_point_at(site, 2, ZERO), zero_point_at(site, 5, m))
    sum_, axes, indices = convolved(site, f, I32, zeros)
    if site.has(8):
        sum_ = sum_ + Load(site.input(8).name, (m,))
    scales = (_scale_at(site.input(1), ZERO), _scale_at(site.input(4), m))
    zero = load(site.input(7), (ZERO,))
    value = requantized(sum_, scales, _scale_at(site.input(6), ZERO), zero, out.dtype)
    body = loops(axes, store(out, indices, value, I32))
    return code(site, [buffer(t) for t in (*site.present(), out)], body)
