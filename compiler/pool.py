"""The greatest of several results of products: a maximum pool behind a convolution.

What a pool's window takes the maximum of are bytes, each requantized from a sum of products. A
requantization that never falls where its sum rises may come behind the maximum as well, so that is
taken of the sums: the pool's layer is then a sum of products whose positions are the products', and
whose output has one for each window of them.

That needs proof: windows that do not overlap, one record for all sums of a channel, and sums so
small that no channel's record lets them wrap (:func:`check_rises`). Its multiplier is never
negative, which :mod:`.matcher` sees to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..isa.config import QNT_LANE_BYTES
from ..isa.memories import QNT_LANE
from ..isa.nest import I8, I32, Binary, Cast, Const, Expr, Index, Load, Node, Sum
from ..isa.storage import numpy_dtype
from ..isa.traverse import distinct, rewrite, substitute
from .affine import indices_of, is_index
from .constants import Weights, evaluate
from .image import Image, Walk
from .kernel import RUNNING, Kernel, Reduction, Refusal
from .matcher import Matcher
from .patterns import normal
from .ranges import Loaded, within
from .work import Pool

TAPS = ("py", "px")
"""The loops over the rows and the columns of a window."""
MOST_PRODUCT = 1 << 7
"""What an element of an activation comes to at most, in either direction."""
SLACK = 1 << 9
"""More than a rounding and a zero point add to what a sum is scaled to."""
LIMIT = 1 << 31
"""Where an accumulator wraps."""


def pooled(one: Kernel, two: Kernel, images: Mapping[int, Image], known: Loaded) -> Kernel:
    """``two``, a maximum over windows of what ``one`` computes, as one kernel.

    ``images`` tell how ``two`` walks over what it reads, ``known`` of constants of ``one`` what
    they hold.

    Raises
    ------
    Refusal
        If its windows overlap, or reach out of the image, or it does anything else.
    """
    reduction, shape = two.reduction, one.shapes[one.output]
    if reduction is None or (one.lying, {}) != (two.lying, two.flat):
        raise Refusal("they go along other axes")
    if two.shapes[one.output] != shape or one.reduction is not None:
        raise Refusal("their tensors have other shapes")
    if len(images) != 1:
        raise Refusal("its maximum is of more than one tensor")
    (image,) = images.values()
    if image.padded or not all(map(_apart, (image.rows, image.columns))):
        raise Refusal("its windows are no parts of the image")
    if not within(one.value, (I8.min, I8.max), known):
        raise Refusal("what it would store is no byte before it is stored")
    if not _same_always(two, one.value, known):
        raise Refusal("its maximum is changed before it is stored")
    names = [is_index(e) for e in one.element]
    if None in names or set(TAPS) & one.extents().keys() or set(one.axes) != set(names):
        raise Refusal("they go along other axes")
    n, y, x, c = (str(name) for name in names)
    window = image.rows.taps, image.columns.taps
    taps = (TAPS[0], window[0]), (TAPS[1], window[1])
    value = substitute(one.value, dict(zip((y, x), _window((y, x), taps), strict=True)))
    element = tuple(map(Index, (n, y, x, c)))
    found = two.shapes[two.output]
    extents = dict(zip((n, y, x, c), found, strict=True))
    axes = {name: extents[name] for name in one.axes}

    def of_image(node: Node) -> Node | None:
        return value if isinstance(node, Load) and node.buffer == one.output else None

    update = rewrite(reduction.update, of_image)
    assert isinstance(update, Expr)
    body = Reduction(reduction.init, taps, normal(update))
    shapes = {name: shape for name, shape in one.shapes.items() if name != one.output}
    return replace(
        one,
        output=two.output,
        element=element,
        axes=axes,
        value=RUNNING,
        reduction=body,
        shapes=shapes | {two.output: found},
    )


def is_pooled(kernel: Kernel) -> bool:
    """Whether a kernel's running value is updated with sums of products."""
    reduction = kernel.reduction
    return reduction is not None and any(
        isinstance(node, Sum) for node in distinct(reduction.update)
    )


def products_of(kernel: Kernel, matcher: Matcher) -> tuple[Kernel, Pool]:
    """The products that a kernel takes the maximum of, at all of their positions, and how.

    Raises
    ------
    Refusal
        If what they are at a tap of a window is not what they are at a position, or it is no
        maximum of them alone.
    """
    reduction = kernel.reduction
    assert reduction is not None
    if kernel.value != RUNNING or len(reduction.axes) != len(TAPS):
        raise Refusal("its running value is used in more than one way")
    match reduction.init, reduction.update:
        case Const(value=int(init)), Binary("max", a, value) if a == RUNNING:
            pass
        case _:
            raise Refusal("it is no maximum of sums of products")
    if not within(value, (init, I8.max), matcher.known):
        raise Refusal("its maximum may be what it starts from")
    (rows, height), (columns, width) = reduction.axes
    if height * width == 1:
        raise Refusal("its windows are of one position")
    y, x = (is_index(e) for e in kernel.element[1:3])
    if y is None or x is None or len({rows, columns, y, x}) < 4:
        raise Refusal("its positions are no loops of their own")
    below, right = _window((y, x), ((rows, height), (columns, width)))

    loops = {rows, columns, y, x}
    inner = {name for e in distinct(value) if isinstance(e, Sum) for name, _ in e.axes}
    if loops & (inner | indices_of(_replaced(value, {below: Const(0), right: Const(0)}))):
        raise Refusal("what it takes the maximum of is no position of an image")
    whole = _replaced(value, {below: Index(y), right: Index(x)})
    n, h, w, c = kernel.shapes[kernel.output]
    shapes = {**kernel.shapes, kernel.output: (n, h * height, w * width, c)}
    axes = {**kernel.axes, y: h * height, x: w * width}
    one = replace(kernel, value=whole, reduction=None, shapes=shapes, axes=axes)
    return one, Pool(_greater(matcher), (height, width))


def check_rises(weights: Weights, channel_axis: int, records: np.ndarray) -> None:
    """Return if no sum of products with these weights wraps, neither as an accumulator nor where it
    is requantized: then a greater one never becomes a lesser byte.

    Parameters
    ----------
    weights : Weights
        Of the layer.
    channel_axis : int
        The lane axis of a weight element that runs along output channels.
    records : ndarray
        ``uint8`` [output blocks or 1, bytes of an element].

    Raises
    ------
    Refusal
        If one might.
    """
    data = np.abs(weights.data.astype(np.int64))
    outputs, depth = len(weights.inputs), len(weights.inputs[0])
    whole = np.broadcast_to(data, (outputs, depth, *data.shape[2:]))
    lanes = tuple(4 + axis for axis in range(data.ndim - 4) if axis != channel_axis)
    sums = whole.sum(axis=(1, 2, 3, *lanes)) * MOST_PRODUCT  # [output block, lane]
    fields = _fields(np.broadcast_to(records, (outputs, records.shape[1])))
    bias, left, even = (fields[name].reshape(sums.shape) for name in ("bias", "left", "even"))
    wraps = np.where(even & 1, 0, left & 31)  # else the shift saturates
    most = (sums + np.abs(bias) + SLACK) << wraps
    if (most >= LIMIT).any():
        raise Refusal("sums so large that a greater one may become a lesser byte")


def _fields(records: np.ndarray) -> Mapping[str, np.ndarray]:
    """Parameters by field, lane after lane, ``int64``."""
    lanes = np.ascontiguousarray(records).reshape(-1, QNT_LANE_BYTES)
    found: dict[str, np.ndarray] = {}
    for field in QNT_LANE:
        stop = field.offset + field.dtype.bits // 8
        own = np.ascontiguousarray(lanes[:, field.offset : stop])
        found[field.name] = own.view(numpy_dtype(field.dtype)).reshape(-1).astype(np.int64)
    return found


def _apart(walk_: Walk) -> bool:
    """Whether windows follow one another without gaps, from the first position on."""
    return walk_.stride == walk_.taps and walk_.dilation == 1 and not walk_.origin


def _same_always(two: Kernel, of: Expr, known: Loaded) -> bool:
    """Whether what ``two`` makes of its running value is that value, if ``of`` comes to it."""
    if any(node != RUNNING for node in distinct(two.value) if isinstance(node, Index | Load)):
        return False
    each = Cast(I32, Index("byte") + I8.min)
    value = substitute(two.value, {RUNNING.name: each})
    assert isinstance(value, Expr)
    bytes_ = np.arange(I8.min, I8.max + 1)
    same = bytes_[evaluate(two, value, (("byte", len(bytes_)),), {}) == bytes_]
    if not len(same):
        return False
    low, high = int(same[0]), int(same[-1])
    return len(same) == high - low + 1 and within(of, (low, high), known)


def _window(
    names: tuple[str, str], taps: tuple[tuple[str, int], tuple[str, int]]
) -> tuple[Expr, Expr]:
    """The position of a tap of a window, row and column, in terms of loops over them."""
    (y, x), ((ty, height), (tx, width)) = names, taps
    return Index(y) * height + Index(ty), Index(x) * width + Index(tx)


def _replaced(e: Expr, parts: Mapping[Expr, Expr]) -> Expr:
    """``e`` with others for these parts."""
    made = rewrite(e, lambda node: parts.get(node) if isinstance(node, Binary) else None)
    assert isinstance(made, Expr)
    return made


def _greater(matcher: Matcher) -> str:
    """The instruction that leaves the greater of two accumulators in the first one."""
    for pattern in matcher.patterns:
        match pattern.value:
            case Binary("max", Load() as a, Load("acc") as b) if pattern.aligned:
                if pattern.target == a and a != b:
                    return pattern.operation.name
    raise Refusal("no instruction takes the maximum of two accumulators")
