"""How an expression walks over an activation: strides, taps, origin, and what lies outside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from ..isa.memories import Engine
from ..isa.nest import I8, Binary, Cast, Const, Expr, Index, Load, Select
from ..isa.traverse import walk
from .affine import Affine, affine
from .kernel import Kernel, Refusal
from .patterns import Pattern


@dataclass(frozen=True)
class Where:
    """Whence an element is looked at: the kernel, and the loops that are summed or reduced."""

    kernel: Kernel
    reduced: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Walk:
    """Along one spatial axis: output position ``p`` and tap ``t`` meet input position
    ``p * stride + t * dilation + origin``.

    ``loop`` is the tap's loop, None where there is one tap. ``extent`` is the input's. ``lanes``
    says that positions are the lanes of elements: as many as those have, else 1.
    """

    stride: int
    taps: int
    dilation: int
    origin: int
    extent: int
    positions: int
    loop: str | None
    lanes: int = 1

    @property
    def reach(self) -> int:
        """Input positions that the taps of one output position span."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def touched(self) -> int:
        """Input positions that any tap of any output position meets."""
        starts = range(self.origin, self.origin + self.positions * self.stride, self.stride)
        offsets = range(0, self.reach, self.dilation)
        return len({s + o for s in starts for o in offsets} & set(range(self.extent)))

    @property
    def met(self) -> int:
        """Pairs of an output position and a tap that meet an input position."""
        starts = range(self.origin, self.origin + self.positions * self.stride, self.stride)
        offsets = range(0, self.reach, self.dilation)
        return sum(0 <= s + o < self.extent for s in starts for o in offsets)

    @property
    def before(self) -> int:
        """Positions of padding before the input."""
        return max(0, -self.origin)

    @property
    def after(self) -> int:
        """Positions of padding that are read after the input."""
        last = (self.positions - 1) * self.stride + self.reach - 1 + self.origin
        return max(0, last - self.extent + 1)


@dataclass(frozen=True)
class Image:
    """An activation under a window.

    Attributes
    ----------
    tensor : str
        The activation.
    shape : tuple of int
        (N, H, W, C).
    rows, columns : Walk
        Along its two spatial axes.
    batch, channel : Expr
        Its other two indices.
    load : str
        The operation that brings it into the scratchpad.
    pad : int
        What the positions outside hold; 0 if none are read.
    """

    tensor: str
    shape: tuple[int, int, int, int]
    rows: Walk
    columns: Walk
    batch: Expr
    channel: Expr
    load: str
    pad: int

    @property
    def tap_loops(self) -> tuple[str, ...]:
        """The loops of the taps."""
        return tuple(w.loop for w in (self.rows, self.columns) if w.loop is not None)

    @property
    def plane(self) -> tuple[int, int]:
        """Elements of a channel block: rows and columns."""
        return self.shape[1], self.shape[2] // self.columns.lanes

    @property
    def touched_bytes(self) -> int:
        """What any schedule must read of it, ragged lanes left out."""
        n, _, _, c = self.shape
        return n * self.rows.touched * self.columns.touched * c

    @property
    def met(self) -> Fraction:
        """The part of all products that are not with padding."""
        pairs = [(w.met, w.positions * w.taps) for w in (self.rows, self.columns)]
        return Fraction(pairs[0][0] * pairs[1][0], pairs[0][1] * pairs[1][1])

    @property
    def padded(self) -> bool:
        """Whether any position outside is read."""
        return any(w.before or w.after for w in (self.rows, self.columns))


def image_of(where: Where, e: Expr, scratchpad: str, patterns: tuple[Pattern, ...]) -> Image:
    """What ``e`` is an element of.

    Raises
    ------
    Refusal
        If ``e`` is no element of an activation, its positions are no window, a condition is not
        "inside of the image", or no instruction loads it into ``scratchpad`` with its padding.
    """
    kernel = where.kernel
    match e:
        case Load(buffer) if buffer in kernel.shapes:
            load, guard, pad = e, None, 0
        case Select(guard, Load(buffer) as load, Const(value=int(pad))) if buffer in kernel.shapes:
            pass
        case _:
            raise Refusal("an operand that is no element of an activation")
    batch, row, column, channel = load.indices
    if batch != kernel.element[0]:
        raise Refusal("an operand of another batch than the output")
    shape = kernel.shapes[load.buffer]
    output = kernel.shapes[kernel.output]
    rows = _walk(where, row, kernel.element[1], shape[1], output[1])
    columns = _walk(where, column, kernel.element[2], shape[2], output[2])
    columns = replace(columns, lanes=kernel.flat.get(load.buffer, 1))
    if rows.loop is not None and rows.loop == columns.loop:
        raise Refusal("a window whose taps run along a diagonal")
    _check_inside(guard, (row, rows), (column, columns))
    used = {i.name for i in walk(channel) if isinstance(i, Index)}
    if used & {rows.loop, columns.loop}:
        raise Refusal("a channel that moves with the window")
    padded = any(w.before or w.after for w in (rows, columns))
    operation = _load(patterns, scratchpad, pad if padded else None)
    return Image(load.buffer, shape, rows, columns, batch, channel, operation, pad if padded else 0)


def _walk(where: Where, e: Expr, position: Expr, extent: int, positions: int) -> Walk:
    form, own = affine(e), affine(position)
    assert own is not None
    if form is None:
        raise Refusal("a position that is no multiple of loops")
    taps = dict(where.reduced)
    loops = [name for name in sorted(form.indices) if name in taps]
    rest = form.indices - own.indices - set(loops)
    if rest or len(loops) > 1 or len(own.indices) > 1 or own.const:
        raise Refusal("a position that is no window over one axis")
    stride = form.coefficient(next(iter(own.indices))) if own.indices else 0
    loop = loops[0] if loops else None
    dilation = form.coefficient(loop) if loop else 1
    if stride == 0 and positions > 1:
        raise Refusal("an operand that is broadcast along rows or columns")
    if dilation < 1 or stride < 0:
        raise Refusal("a window that does not move forward")
    count = taps[loop] if loop else 1
    return Walk(max(stride, 1), count, dilation, form.const, extent, positions, loop)


def _check_inside(guard: Expr | None, *axes: tuple[Expr, Walk]) -> None:
    """Refuse a guard other than the bounds of the image, and bounds that are not guarded."""
    allowed: dict[Affine, str] = {}
    needed: set[Affine] = set()
    for e, walk_ in axes:
        form = affine(e)
        assert form is not None
        low, high = form, Affine(walk_.extent - 1).plus(form, -1)
        allowed |= {low: "low", high: "high"}
        needed |= ({low} if walk_.before else set()) | ({high} if walk_.after else set())
    found = set(_conditions(guard)) if guard is not None else set()
    if found - set(allowed):
        raise Refusal("a condition that is not the bounds of the image")
    if needed - found:
        raise Refusal("elements outside of the image are read without a condition")


def _conditions(guard: Expr) -> list[Affine | None]:
    """The terms of a conjunction, each as something that must not be negative."""
    match guard:
        case Binary("and", a, b):
            return _conditions(a) + _conditions(b)
        case Binary("le" | "lt" as op, a, b):
            left, right = affine(a), affine(b)
            if left is not None and right is not None:
                return [right.plus(left, -1).plus(Affine(-(op == "lt")))]
    return [None]


def _load(patterns: tuple[Pattern, ...], scratchpad: str, pad: int | None) -> str:
    """The operation that loads one byte a lane into ``scratchpad``, ``pad`` outside; one of the
    load engine, if there is one."""
    by_engine = lambda p: (p.operation.engine is not Engine.LOAD, p.size)  # noqa: E731
    for pattern in sorted(patterns, key=by_engine):
        match pattern.value:
            case Select(_, Load(source), outside) if pattern.target.buffer == scratchpad:
                if not pattern.aligned or pattern.types[source] != I8:
                    continue
            case _:
                continue
        match outside:
            case Cast(_, Const(value)) | Const(value):
                fits = pad in (None, value)
            case Cast(dtype, Index()):
                fits = pad is None or dtype.min <= pad <= dtype.max
            case _:
                fits = False
        if fits:
            return pattern.operation.name
    if pad is None:
        raise Refusal(f"no instruction loads 8-bit elements into {scratchpad}")
    raise Refusal(f"no instruction pads {scratchpad} with {pad}")
