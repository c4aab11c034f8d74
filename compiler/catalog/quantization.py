"""From real numbers to integers and back, as loop nests: ONNX's QuantizeLinear and its like.

A value is divided by its scale in the scale's precision, rounded to nearest with ties to even,
then the zero point is added and the result saturates.
"""

from __future__ import annotations

import math

from ...isa.nest import F16, F32, F64, I8, I16, I32, U8, U16, Binary, Cast, Const, DType, Expr
from ..graph import Tensor
from .narrow import NARROW
from .pointwise import type_of_code
from .site import FLOATS, Code, Site, Types, define
from .terms import (
    ZERO,
    axes_of,
    buffer,
    code,
    computed,
    divide,
    function,
    indices_of,
    load,
    loops,
    store,
)

QUANTIZED = (I8, U8, I16, U16, *NARROW)


def zero_point_at(site: Site, position: int, index: Expr) -> Expr | None:
    """The zero point of a row or channel; None where it is absent."""
    if not site.has(position):
        return None
    tensor = site.input(position)
    return Cast(I32, load(tensor, (index if math.prod(tensor.shape) > 1 else ZERO,)))


def saturated(value: Expr, dtype: DType) -> Expr:
    """An ``i32`` within a type."""
    return Binary("min", Binary("max", value, Const(dtype.min)), Const(dtype.max))


def requantized(
    total: Expr, scales: tuple[Expr, Expr], scale: Expr, zero: Expr, dtype: DType
) -> Expr:
    """A sum of products of quantized values in an output's scale; in double precision."""
    factor = divide(Cast(F64, scales[0]) * Cast(F64, scales[1]), Cast(F64, scale))
    rounded = Cast(I32, function("rint", Cast(F64, total) * factor))
    bounded = Binary("min", Binary("max", rounded, Const(-(1 << 24))), Const(1 << 24))
    return saturated(bounded + Cast(I32, zero), dtype)


def _block(site: Site) -> int:
    """Elements along the axis that share a scale; 1 where each has its own; 0 for one scale."""
    x, scale = site.x, site.input(1)
    site.expect(scale, FLOATS)
    alone = scale.shape in ((), (1,)) and site.has(2) and site.input(2).shape in ((), (1,))
    if site.has(2) and site.input(2).shape != scale.shape and not alone:
        site.fail(f"scales of shape {list(scale.shape)}, zeros of {list(site.input(2).shape)}")
    if not scale.shape or scale.shape == (1,):
        return 0
    axis = site.axis(site.integer("axis", 1), len(x.shape))
    size = site.integer("block_size", 0)
    if len(scale.shape) == 1 and not size:
        if scale.shape != (x.shape[axis],):
            site.fail(f"{scale.shape[0]} scales for an axis of {x.shape[axis]}")
        return 1
    if len(scale.shape) != len(x.shape):
        site.fail(f"scales of shape {list(scale.shape)} for {list(x.shape)}")
    size = size or -(-x.shape[axis] // max(1, scale.shape[axis]))
    wanted = tuple(-(-extent // size) if k == axis else extent for k, extent in enumerate(x.shape))
    if size < 1 or scale.shape != wanted:
        site.fail(f"scales of shape {list(scale.shape)} in blocks of {size} for {list(x.shape)}")
    return size


def _parameter(site: Site, tensor: Tensor, indices: tuple[Expr, ...]) -> Expr:
    """The scale or zero point of an element."""
    size = _block(site)
    if size == 0:
        return load(tensor, (ZERO,))
    axis = site.axis(site.integer("axis", 1), len(site.x.shape))
    if len(tensor.shape) == 1 and size == 1:
        return load(tensor, (indices[axis],))
    blocked = tuple(i // size if k == axis else i for k, i in enumerate(indices))
    return load(tensor, blocked)


def _quantize_infer(site: Site) -> Types:
    site.expect(site.x, (*FLOATS, I32))
    _block(site)
    if site.has(2):
        dtype = site.input(2).dtype
    else:
        code = site.integer("output_dtype", 0) or 2
        found = type_of_code(code)
        if found is None:
            site.unsupported(f"an output of ONNX's type {code}")
        dtype = found
    if dtype not in QUANTIZED:
        site.unsupported(f"an output of type {dtype}")
    if site.integer("precision", 0) not in (0, 1):
        site.unsupported("another precision than single")
    return [(dtype, site.x.shape)]


@define("QuantizeLinear", infer=_quantize_infer, native=True)
def quantize(site: Site) -> Code:
    """Integers for real numbers."""
    x, out = site.x, site.out
    axes = axes_of(x.shape)
    indices = indices_of(axes)
    scale = _parameter(site, site.input(1), indices)
    work = computed(x.dtype) if x.dtype.kind == "f" else F32
    ratio = divide(Cast(work, load(x, indices)), Cast(work, scale))
    if F16 in (x.dtype, site.input(1).dtype):
        ratio = Cast(F32, Cast(F16, ratio))  # as a division in half precision rounds
    rounded = Cast(I32, function("rint", ratio))
    if site.has(2):
        bounded = Binary("min", Binary("max", rounded, Const(-(1 << 24))), Const(1 << 24))
        rounded = bounded + Cast(I32, _parameter(site, site.input(2), indices))
    body = loops(axes, store(out, indices, saturated(rounded, out.dtype), I32))
    return code(site, [buffer(t) for t in (*site.present(), out)], body)


def _dequantize_infer(site: Site) -> Types:
    site.expect(site.x, (*QUANTIZED, I32))
    _block(site)
    if site.has(2):
        site.same_type(site.x, site.input(2))
    dtype = site.input(1).dtype
    code = site.integer("output_dtype", 0)
    if code:
        found = type_of_code(code)
        if found is None or found.kind != "f":
            site.unsupported(f"an output of ONNX's type {code}")
        dtype = found
    return [(dtype, site.x.shape)]


@define("DequantizeLinear", infer=_dequantize_infer, native=True)
def dequantize(site: Site) -> Code:
    """Real numbers for integers."""
    x, out = site.x, site.out
    axes = axes_of(x.shape)
    indices = indices_of(axes)
    value = Cast(I32, load(x, indices))
    if site.has(2):
        value = value - Cast(I32, _parameter(site, site.input(2), indices))
    work = computed(site.input(1).dtype)
    value = Cast(work, value) * _parameter(site, site.input(1), indices)
    body = loops(axes, store(out, indices, value, work))
    return code(site, [buffer(t) for t in (*site.present(), out)], body)
