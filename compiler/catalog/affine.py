"""TFLite's QUANTIZE and DEQUANTIZE: between real numbers and tensors with a quantization.

Scales and zero points are those of the tensors, not inputs as ONNX has them. A real number is
divided by the scale in single precision and rounded half away from zero; an integer is rescaled
in the two roundings of every requantization.
"""

from __future__ import annotations

from ...isa.nest import F16, F32, I8, I16, I32, U8, Cast, Const, DType, Expr, Select, expr
from ...isa.requantize import requantize
from ..graph import Quant, Tensor
from ..scales import LEFT_LIMIT, Rescale
from .quantization import saturated
from .site import Code, Site, Types, define
from .terms import (
    axes_of,
    buffer,
    code,
    divide,
    flat,
    function,
    indices_of,
    load,
    loops,
    store,
)

QUANTIZED = (I8, U8, I16)
BOUND = DType("i", 25)
"""Beyond every quantized type, and far from where adding a zero point would overflow."""
NAMES = {str(dtype): dtype for dtype in QUANTIZED}


def _quant(site: Site, tensor: Tensor) -> Quant:
    """The quantization of the whole of a tensor."""
    if tensor.quant is None or tensor.quant.axis is not None:
        site.fail(f"{tensor.name!r} has no quantization of the whole tensor")
    return tensor.quant


def _scale(site: Site) -> Rescale:
    """From one quantized tensor to another."""
    scale = Rescale.of(_quant(site, site.x).scale[0] / _quant(site, site.out).scale[0])
    if scale.left > LEFT_LIMIT:
        site.unsupported("the output's scale is too small for that of the input")
    return scale


def _quantize_infer(site: Site) -> Types:
    site.expect(site.x, (F32, *QUANTIZED))
    dtype = NAMES.get(site.text("to", "i8"))
    if dtype is None:
        site.unsupported(f"an output of type {site.text('to', 'i8')}")
    if site.x.dtype != F32:
        _quant(site, site.x)
    if site.outputs:
        _quant(site, site.out)
    return [(dtype, site.x.shape)]


def _rounded(value: Expr) -> Expr:
    """A float's nearest integer, ties away from zero; ``i32``, saturated."""
    whole = function("floor", function("abs", value))
    up = Select(Const(0.5, F32) <= function("abs", value) - whole, Const(1.0, F32), Const(0.0, F32))
    size = Cast(I32, whole + up)
    return Select(value < Const(0.0, F32), expr(0) - size, size)


@define("tfl.quantize", infer=_quantize_infer, native=True)
def quantize(site: Site) -> Code:
    """The nearest integers that a quantization has, for real numbers or for another one's."""
    quant, dtype = _quant(site, site.out), site.out.dtype
    scale, zero = Const(float(quant.scale[0]), F32), quant.zero_point[0]
    if site.x.dtype == F32:
        return flat(
            site,
            [site.x],
            lambda x: saturated(saturated(_rounded(divide(x, scale)), BOUND) + zero, dtype),
            I32,
        )
    factor, less = _scale(site), _quant(site, site.x).zero_point[0]
    axes = axes_of(site.x.shape)
    indices = indices_of(axes)
    value = requantize(
        load(site.x, indices) - less, factor.multiplier, factor.left, factor.right, zero,
        dtype.min, dtype.max,
    )  # fmt: skip
    body = loops(axes, store(site.out, indices, value, I32))
    return code(site, (buffer(site.x), buffer(site.out)), body)


def _dequantize_infer(site: Site) -> Types:
    site.expect(site.x, (F16, *QUANTIZED))
    if site.x.dtype != F16:
        _quant(site, site.x)
    return [(F32, site.x.shape)]


@define("tfl.dequantize", infer=_dequantize_infer, native=True)
def dequantize(site: Site) -> Code:
    """The real numbers that integers stand for."""
    if site.x.dtype == F16:
        return flat(site, [site.x], lambda x: x, F32)
    quant = _quant(site, site.x)
    scale = Const(float(quant.scale[0]), F32)
    return flat(site, [site.x], lambda x: Cast(F32, x - quant.zero_point[0]) * scale, F32)
