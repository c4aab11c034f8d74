"""What moves elements and looks at none of them: shapes, slices, joins.

There is nothing to compute here, and numpy's copies run at the memory's speed; only a transposition
is a loop nest, which others can be joined with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...isa.nest import F32, I32, I64, Load, Store
from ..graph import element_dtype
from .pointwise import type_of_code
from .site import Code, Kernel, Shape, Site, Types, define, numpy_of
from .terms import ZERO, axes_of, buffer, code, indices_of, loops

Array = np.ndarray


def _reshaped(shape_of: Callable[[Site], Shape]) -> Callable[[Site], Types]:
    def infer(site: Site) -> Types:
        shape = site.sized(shape_of(site))
        if math.prod(shape) != math.prod(site.x.shape):
            site.fail(f"{list(site.x.shape)} cannot become {list(shape)}")
        return [(site.x.dtype, shape)]

    return infer


def _wanted_shape(site: Site) -> Shape:
    wanted = [int(v) for v in site.constant(1).reshape(-1)]
    x = site.x.shape
    if not site.integer("allowzero", 0):
        if any(v == 0 and k >= len(x) for k, v in enumerate(wanted)):
            site.fail(f"{list(x)} as {wanted}")
        wanted = [x[k] if v == 0 else v for k, v in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = math.prod(v for v in wanted if v != -1)
        wanted[wanted.index(-1)] = math.prod(x) // rest if rest else 0
    return tuple(wanted)


def _flattened(site: Site) -> Shape:
    rank = len(site.x.shape)
    axis = site.integer("axis", 1)
    if not -rank <= axis <= rank:
        site.fail(f"axis {axis} of rank {rank}")
    axis = axis + rank if axis < 0 else axis
    return math.prod(site.x.shape[:axis]), math.prod(site.x.shape[axis:])


def _squeezed(site: Site) -> Shape:
    x, asked = site.x.shape, site.list_of("axes", 1)
    axes = site.axes(asked, len(x)) if asked is not None else [k for k, n in enumerate(x) if n == 1]
    if any(x[k] != 1 for k in axes):
        site.fail(f"axes {list(axes)} of {list(x)} are not all of extent 1")
    return tuple(n for k, n in enumerate(x) if k not in axes)


def _unsqueezed(site: Site) -> Shape:
    asked = site.list_of("axes", 1) or ()
    rank = len(site.x.shape) + len(asked)
    axes, rest = site.axes(asked, rank), iter(site.x.shape)
    return tuple(1 if k in axes else next(rest) for k in range(rank))


def _reshape(site: Site) -> Kernel:
    """The same elements under another shape."""
    shape = site.out.shape
    return Kernel(lambda x, *_: x.reshape(shape))


for _kind, _shape in (
    ("Reshape", _wanted_shape), ("Flatten", _flattened), ("Squeeze", _squeezed),
    ("Unsqueeze", _unsqueezed),
):  # fmt: skip
    define(_kind, infer=_reshaped(_shape), native=False)(_reshape)


def _permutation(site: Site) -> tuple[int, ...]:
    rank = len(site.x.shape)
    order = site.integers("perm", tuple(reversed(range(rank))))
    if sorted(order) != list(range(rank)):
        site.fail(f"permutation {list(order)} of rank {rank}")
    return order


@define(
    "Transpose",
    infer=lambda s: [(s.x.dtype, tuple(s.x.shape[k] for k in _permutation(s)))],
    native=True,
)
def transpose(site: Site) -> Code:
    """Axes in another order."""
    x, out = site.x, site.out
    axes = axes_of(out.shape)
    indices = indices_of(axes)
    own = list(indices)
    for k, axis in enumerate(_permutation(site)):
        own[axis] = indices[k]
    # Bits are moved, whatever they stand for.
    places = tuple(own) or (ZERO,), tuple(indices) or (ZERO,)
    body = loops(axes, Store(out.name, places[1], Load(x.name, places[0])))
    return code(site, (buffer(x), buffer(out)), body)


def _expand_infer(site: Site) -> Types:
    wanted = site.sized(site.constant(1).reshape(-1).tolist())
    return [(site.x.dtype, site.broadcast(site.x.shape, wanted))]


@define("Expand", infer=_expand_infer, native=False)
def expand(site: Site) -> Kernel:
    """Broadcast to a shape."""
    shape = site.out.shape
    return Kernel(lambda x, _: np.broadcast_to(x, shape))


def _tile_infer(site: Site) -> Types:
    repeats = [int(v) for v in site.constant(1).reshape(-1)]
    if len(repeats) != len(site.x.shape) or any(n < 0 for n in repeats):
        site.fail(f"repeats {repeats} of {list(site.x.shape)}")
    shape = [n * r for n, r in zip(site.x.shape, repeats, strict=True)]
    return [(site.x.dtype, site.sized(shape))]


@define("Tile", infer=_tile_infer, native=False)
def tile(site: Site) -> Kernel:
    """Repeated along axes."""
    return Kernel(np.tile)


# --- joining and cutting ---------------------------------------------------------------------


def _concat_infer(site: Site) -> Types:
    inputs = site.present()
    rank = len(site.x.shape)
    axis = site.axis(site.integer("axis", 0), rank)
    for tensor in inputs:
        if len(tensor.shape) != rank or any(
            tensor.shape[k] != site.x.shape[k] for k in range(rank) if k != axis
        ):
            site.fail(f"{list(tensor.shape)} beside {list(site.x.shape)} along axis {axis}")
    shape = list(site.x.shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in inputs)
    return [(site.same_type(*inputs), site.sized(shape))]


@define("Concat", infer=_concat_infer, native=False)
def concat(site: Site) -> Kernel:
    """One after another along an axis."""
    axis = site.integer("axis", 0)
    return Kernel(lambda *arrays: np.concatenate(arrays, axis))


def _split_sizes(site: Site) -> tuple[int, list[int]]:
    axis = site.axis(site.integer("axis", 0), len(site.x.shape))
    extent, count = site.x.shape[axis], site.integer("num_outputs", site.count)
    sizes = site.list_of("split", 1)
    if sizes is None and count != site.count:
        site.fail(f"{site.count} outputs, num_outputs is {count}")
    if sizes is None:
        each = -(-extent // count) if count > 0 else 0
        sizes = tuple(min(each, max(0, extent - each * k)) for k in range(count))
    if len(sizes) != site.count or min(sizes, default=-1) < 0 or sum(sizes) != extent:
        site.fail(f"{extent} elements as {site.count} parts of {list(sizes)}")
    return axis, list(sizes)


def _split_infer(site: Site) -> Types:
    axis, sizes = _split_sizes(site)
    x = site.x.shape
    return [(site.x.dtype, (*x[:axis], size, *x[axis + 1 :])) for size in sizes]


@define("Split", infer=_split_infer, native=False)
def split(site: Site) -> Kernel:
    """Parts along an axis."""
    axis, sizes = _split_sizes(site)
    places = np.cumsum(sizes)[:-1]
    return Kernel(lambda x, *_: np.split(x, places, axis))


def _slices(site: Site) -> tuple[slice, ...]:
    rank = len(site.x.shape)
    starts, ends = site.list_of("starts", 1) or (), site.list_of("ends", 2) or ()
    asked = site.list_of("axes", 3)
    steps = site.list_of("steps", 4) or (1,) * len(starts)
    axes = site.axes(range(len(starts)) if asked is None else asked, rank)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        site.fail(f"starts {starts}, ends {ends}, axes {axes} and steps {steps}")
    chosen = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        extent = site.x.shape[axis]
        low, high = (start + extent if start < 0 else start), (end + extent if end < 0 else end)
        if step > 0:
            chosen[axis] = slice(min(max(low, 0), extent), min(max(high, 0), extent), step)
        else:
            low, high = min(max(low, -1), extent - 1), min(max(high, -1), extent - 1)
            chosen[axis] = slice(low, high if high >= 0 else None, step) if low >= 0 else slice(0)
            if low <= high:
                chosen[axis] = slice(0)
    return tuple(chosen)


def _slice_infer(site: Site) -> Types:
    slices = _slices(site)
    shape = [len(range(n)[part]) for n, part in zip(site.x.shape, slices, strict=True)]
    return [(site.x.dtype, tuple(shape))]


@define("Slice", infer=_slice_infer, native=False)
def slice_(site: Site) -> Kernel:
    """From a start to an end by a step, along axes."""
    slices = _slices(site)
    return Kernel(lambda x, *_: x[slices])


PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _pads(site: Site) -> list[tuple[int, int]]:
    rank = len(site.x.shape)
    pads = site.list_of("pads", 1) or ()
    asked = tuple(int(v) for v in site.constant(3).reshape(-1)) if site.has(3) else range(rank)
    axes = site.axes(asked, rank)
    if len(pads) != 2 * len(axes):
        site.fail(f"pads {list(pads)} for {len(axes)} axes")
    pairs = [(0, 0)] * rank
    for k, axis in enumerate(axes):
        pairs[axis] = (pads[k], pads[len(axes) + k])
    return pairs


def _pad_infer(site: Site) -> Types:
    mode = site.text("mode", "constant")
    if mode not in PAD_MODES:
        site.fail(f"mode {mode!r}")
    pairs = _pads(site)
    for extent, pair in zip(site.x.shape, pairs, strict=True):
        kept = extent + sum(min(p, 0) for p in pair)
        if kept < 0 or (mode != "constant" and max(pair) > 0 and kept < 1 + (mode == "reflect")):
            site.fail(f"pads {list(pair)} of an extent of {extent}")
    if site.has(2) and math.prod(site.input(2).shape) != 1:
        site.fail(f"a value of shape {list(site.input(2).shape)}")
    shape = [n + a + b for n, (a, b) in zip(site.x.shape, pairs, strict=True)]
    return [(site.x.dtype, site.sized(shape))]


@define("Pad", infer=_pad_infer, native=False)
def pad(site: Site) -> Kernel:
    """A border of a constant, of mirrored, repeated or opposite elements; negative ones cut."""
    pairs, mode = _pads(site), PAD_MODES[site.text("mode", "constant")]
    cut = tuple(
        slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(site.x.shape, pairs, strict=True)
    )
    grow = [(max(0, a), max(0, b)) for a, b in pairs]
    given = site.attributes.get("value", 0.0)

    def compute(x: Array, _: Any = None, value: Array | None = None, *__: Any) -> Array:
        if mode != "constant":
            return np.pad(x[cut], grow, mode)  # type: ignore[call-overload]
        fill = given if value is None else value.reshape(-1)[0]
        return np.pad(x[cut], grow, constant_values=fill)

    return Kernel(compute)


# --- blocks of an image ----------------------------------------------------------------------


def _block(site: Site) -> int:
    size = site.integer("blocksize", 0)
    if size < 1 or len(site.x.shape) != 4:
        site.fail(f"blocks of {size} of {list(site.x.shape)}")
    return size


def _depth_infer(site: Site) -> Types:
    size, (n, c, h, w) = _block(site), site.x.shape
    if c % (size * size):
        site.fail(f"{c} channels in blocks of {size}")
    return [(site.x.dtype, site.sized((n, c // (size * size), h * size, w * size)))]


@define("DepthToSpace", infer=_depth_infer, native=False)
def depth_to_space(site: Site) -> Kernel:
    """Channels as blocks of pixels."""
    b, (n, c, h, w) = _block(site), site.x.shape
    if site.text("mode", "DCR") == "DCR":
        split_, order = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    else:
        split_, order = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    shape = site.out.shape
    return Kernel(lambda x: x.reshape(split_).transpose(order).reshape(shape))


def _space_infer(site: Site) -> Types:
    size, (n, c, h, w) = _block(site), site.x.shape
    if h % size or w % size:
        site.fail(f"an image {h}x{w} in blocks of {size}")
    return [(site.x.dtype, (n, c * size * size, h // size, w // size))]


@define("SpaceToDepth", infer=_space_infer, native=False)
def space_to_depth(site: Site) -> Kernel:
    """Blocks of pixels as channels."""
    b, (n, c, h, w) = _block(site), site.x.shape
    shape = site.out.shape
    split_ = (n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if site.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return Kernel(lambda x: x.reshape(split_).transpose(order).reshape(shape))


# --- constants of a shape --------------------------------------------------------------------


def _extent_infer(site: Site) -> Types:
    return [(I64, () if site.kind == "Size" else (len(_part(site)),))]


def _part(site: Site) -> Shape:
    rank = len(site.x.shape)
    start, end = site.integer("start", 0), site.integer("end", rank)
    bounds = [min(max(v + rank if v < 0 else v, 0), rank) for v in (start, end)]
    return site.x.shape[bounds[0] : bounds[1]]


@define("Shape", "Size", infer=_extent_infer, native=False)
def shape_of(site: Site) -> Kernel:
    """The extents of a tensor, or their product."""
    value = np.array(math.prod(site.x.shape) if site.kind == "Size" else _part(site), np.int64)
    return Kernel(lambda _: value)


def _filled_infer(site: Site) -> Types:
    shape = site.sized(site.constant(0).reshape(-1).tolist())
    return [(site.input(1).dtype if site.has(1) else F32, shape)]


@define("ConstantOfShape", infer=_filled_infer, native=False)
def constant_of_shape(site: Site) -> Kernel:
    """One value everywhere: the second input, or 0."""
    shape, dtype = site.out.shape, numpy_of(site.out)

    def compute(_: Array, value: Array | None = None) -> Array:
        return np.full(shape, 0 if value is None else value.reshape(-1)[0], dtype)

    return Kernel(compute)


def _range_infer(site: Site) -> Types:
    start, limit, delta = (site.constant(k).reshape(-1)[0] for k in range(3))
    if not delta:
        site.fail("a range by steps of 0")
    count = math.ceil((limit.item() - start.item()) / delta.item())
    return [(site.same_type(*site.present()), site.sized((max(0, count),)))]


@define("Range", infer=_range_infer, native=False)
def range_(site: Site) -> Kernel:
    """From a start by a step, before a limit."""
    count = site.out.shape[0]

    def compute(start: Array, _: Array, delta: Array) -> Array:
        steps = np.arange(count).astype(start.dtype)
        return (start.reshape(-1)[0] + steps * delta.reshape(-1)[0]).astype(start.dtype)

    return Kernel(compute)


def _eye_infer(site: Site) -> Types:
    code = site.integer("dtype", 0)
    dtype = type_of_code(code) if code else site.x.dtype
    if dtype is None or len(site.x.shape) != 2:
        site.unsupported(f"type {code} for {list(site.x.shape)}")
    return [(dtype, site.x.shape)]


@define("EyeLike", infer=_eye_infer, native=False)
def eye_like(site: Site) -> Kernel:
    """Ones on a diagonal."""
    value = np.eye(*site.x.shape, k=site.integer("k", 0), dtype=numpy_of(site.out))
    return Kernel(lambda _: value)


def _trilu_infer(site: Site) -> Types:
    if len(site.x.shape) < 2:
        site.fail(f"a matrix is expected, not {list(site.x.shape)}")
    if site.has(1) and math.prod(site.input(1).shape) != 1:
        site.fail("one diagonal is expected")
    return [(site.x.dtype, site.x.shape)]


@define("Trilu", infer=_trilu_infer, native=False)
def trilu(site: Site) -> Kernel:
    """The upper or the lower triangle."""
    keep = np.triu if site.integer("upper", 1) else np.tril

    def compute(x: Array, k: Array | None = None) -> Array:
        if not x.size:
            return x
        far = max(x.shape[-2:])
        diagonal = 0 if k is None else min(max(int(k.reshape(-1)[0]), -far), far)
        return keep(x, diagonal)

    return Kernel(compute)


def _reverse_infer(site: Site) -> Types:
    batch, time = site.integer("batch_axis", 1), site.integer("time_axis", 0)
    if len(site.x.shape) < 2 or {batch, time} != {0, 1}:
        site.fail(f"batch axis {batch} and time axis {time} of {list(site.x.shape)}")
    lengths = site.input(1)
    if lengths.shape != (site.x.shape[batch],) or lengths.dtype not in (I32, I64):
        site.fail(f"lengths of shape {list(lengths.shape)}")
    return [(site.x.dtype, site.x.shape)]


@define("ReverseSequence", infer=_reverse_infer, native=False)
def reverse_sequence(site: Site) -> Kernel:
    """The beginning of every sequence backwards."""
    batch = site.integer("batch_axis", 1)

    def compute(x: Array, lengths: Array) -> Array:
        out = x.copy()
        rows, source = (out, x) if batch == 0 else (out.swapaxes(0, 1), x.swapaxes(0, 1))
        for k, length in enumerate(lengths):
            end = min(max(int(length), 0), rows.shape[1])
            rows[k, :end] = source[k, :end][::-1]
        return out

    return Kernel(compute)


def _crop_sizes(site: Site) -> tuple[tuple[int, ...], list[int]]:
    asked = site.attributes.get("axes")
    rank = len(site.x.shape)
    axes = site.axes(range(rank) if asked is None else site.integers("axes"), rank)
    sizes = [int(v) for v in site.constant(1).reshape(-1)]
    if len(axes) != len(sizes):
        site.fail(f"sizes {sizes} for axes {list(axes)}")
    return axes, sizes


def _crop_infer(site: Site) -> Types:
    shape = list(site.x.shape)
    for axis, size in zip(*_crop_sizes(site), strict=True):
        shape[axis] = size
    return [(site.x.dtype, site.sized(shape))]


@define("CenterCropPad", infer=_crop_infer, native=False)
def center_crop_pad(site: Site) -> Kernel:
    """The middle of an image, or an image in the middle of zeros."""
    axes, sizes = _crop_sizes(site)

    def compute(x: Array, _: Array) -> Array:
        for axis, size in zip(axes, sizes, strict=True):
            extent = x.shape[axis]
            if size < extent:
                first = (extent - size) // 2
                x = x.take(range(first, first + size), axis)
            elif size > extent:
                pairs = [(0, 0)] * x.ndim
                pairs[axis] = ((size - extent) // 2, size - extent - (size - extent) // 2)
                x = np.pad(x, pairs)
        return x

    return Kernel(compute)


def _bit_cast_infer(site: Site) -> Types:
    code = site.integer("to", 0)
    target = type_of_code(code)
    if target is None:
        site.unsupported(f"a cast to ONNX's type {code}")
    if numpy_of(site.x).itemsize != element_dtype(target).itemsize:
        site.unsupported(f"the bits of {site.x.dtype} as {target}")
    return [(target, site.x.shape)]


@define("BitCast", infer=_bit_cast_infer, native=False)
def bit_cast(site: Site) -> Kernel:
    """The same bits under another type."""
    dtype = numpy_of(site.out)
    return Kernel(lambda x: x.view(dtype))
