"""The normal form of an operator's loop nest: one element of the output as an expression.

The tensorizer works on this form. Every activation has four axes here, batch, row, column and
channel, as it has in DRAM (:class:`.artifact.DramTensor`), whatever its rank in the graph; where a
nest sees an activation as a matrix, its loops are split until they count those axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from ..isa.nest import (
    Block,
    Const,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Node,
    Select,
    Stmt,
    Store,
    Sum,
    expr,
)
from ..isa.traverse import distinct, rewrite, substitute
from .affine import is_index
from .patterns import normal

DRAM_RANK = 4


class Lack(Enum):
    """What a model, or whoever uses it, would have to change to be rid of a refusal."""

    HARDWARE = "nothing; other hardware may do"
    WORK = "nothing; there is nothing to do"
    INTEGERS = "that it is done in integers"
    INT8 = "8-bit tensors"
    BYTES = "nothing; the rest of its layer is done in bytes"
    NO_SCRATCH = "that no memory for intermediate values is needed"
    PADDING = "fewer rows and columns of padding"
    DIVISOR = "one divisor for all elements"
    VALUES = "sums over fewer elements"
    COMMON_SCALE = "parameters for the whole tensor"
    OPERAND = "an operand that is an activation"
    WEIGHTS = "constant weights"
    RANK = "tensors of fewer axes"


class Refusal(Exception):
    """A nest that no instruction sequence is known for; the text is the reason.

    It never leaves the compiler: the partition turns it into the node's reason.

    Attributes
    ----------
    lack : Lack
        Of what kind it is.
    """

    def __init__(self, reason: str, lack: Lack = Lack.HARDWARE):
        super().__init__(reason)
        self.lack = lack


@dataclass(frozen=True)
class Reduction:
    """A running value: ``init``, then ``update`` for every point of ``axes``.

    In ``update`` and in the kernel's value, :data:`RUNNING` stands for the value so far.
    """

    init: Expr
    axes: tuple[tuple[str, int], ...]
    update: Expr


RUNNING = Index("running")


@dataclass(frozen=True, eq=False)
class Kernel:
    """What an operator computes for one element of its output.

    Attributes
    ----------
    output : str
        The tensor that it writes, at ``element`` (four index expressions).
    axes : mapping
        Extents of the parallel loops, by index.
    value : Expr
        The element; normal, with every load of an activation having four indices.
    reduction : Reduction or None
        Where ``value`` ends a running value.
    shapes : mapping
        (N, H, W, C) of every activation.
    constants : mapping
        Every constant array that ``value`` loads from.
    """

    output: str
    element: tuple[Expr, ...]
    axes: Mapping[str, int]
    value: Expr
    reduction: Reduction | None
    shapes: Mapping[str, tuple[int, int, int, int]]
    constants: Mapping[str, np.ndarray]
    lying: bool = False
    """Rows and columns are exchanged: images of one column are taken for images of one row."""
    flat: Mapping[str, int] = field(default_factory=dict[str, int])
    """Activations of one channel whose columns are the lanes of DRAM's elements: how many each
    has."""

    def is_constant(self, e: Expr) -> bool:
        """Whether ``e`` is known when the network is compiled, but for indices."""
        loads = [node for node in distinct(e) if isinstance(node, Load)]
        return e != RUNNING and all(load.buffer in self.constants for load in loads)

    def extents(self) -> dict[str, int]:
        """Of every index: the parallel loops, sums and the reduction."""
        found = dict(self.axes)
        roots = [self.value] if self.reduction is None else [self.value, self.reduction.update]
        for root in roots:
            for node in distinct(root):
                if isinstance(node, Sum):
                    found |= dict(node.axes)
        return found | dict(self.reduction.axes if self.reduction else ())


def dram_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(N, H, W, C) of a tensor of rank 1 to 4: channels last, batch first, the rest between."""
    if len(shape) > DRAM_RANK or not shape:
        raise Refusal(f"a tensor of shape {list(shape)}; rank 1 to 4 is expected", Lack.RANK)
    if len(shape) == 1:
        return 1, 1, 1, shape[0]
    middle = (1,) * (DRAM_RANK - len(shape)) + shape[1:-1]
    return shape[0], middle[0], middle[1], shape[-1]


def kernel_of(
    nest: Nest, shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, np.ndarray]
) -> Kernel:
    """The normal form of ``nest``.

    Parameters
    ----------
    nest : Nest
        An operator's, as :mod:`.operators` makes it.
    shapes : mapping
        The graph's shape of every activation.
    constants : mapping
        The arrays of all its other buffers.

    Raises
    ------
    Refusal
        If it stores more than one value an element, or sees an activation in another shape than
        its own in a way that no split of a loop explains.
    """
    axes, stmt, lets = _loops(nest.body)
    store, reduction = _store(stmt)
    axes |= reduction[1] if reduction else {}
    running = Load(store.buffer, store.indices)
    named = {name: substitute(value, lets) for name, value in lets.items()}

    def resolved(e: Expr) -> Expr:
        for _ in lets:
            e = substitute(e, named)  # type: ignore[assignment]  # an Expr stays one
        e = rewrite(e, lambda n: RUNNING if n == running else None)  # type: ignore[assignment]
        return normal(e)

    four = {name: dram_shape(shape) for name, shape in shapes.items()}
    body = None
    if reduction is not None:
        init, _, loops, update = reduction
        body = Reduction(resolved(init), loops, resolved(update))
    kernel = Kernel(store.buffer, store.indices, axes, resolved(store.value), body, four, constants)
    return _lying(_in_four(kernel, {b.name: b.shape for b in nest.buffers}))


def _loops(stmt: Stmt) -> tuple[dict[str, int], Stmt, dict[str, Expr]]:
    """The parallel loops and lets around a statement."""
    axes: dict[str, int] = {}
    lets: dict[str, Expr] = {}
    while True:
        match stmt:
            case For(index, Const(value=0), Const(value=int(stop)), body, parallel=True):
                axes[index] = stop
                stmt = body
            case Let(name, value, body):
                lets[name] = value
                stmt = body
            case _:
                return axes, stmt, lets


def _store(
    stmt: Stmt,
) -> tuple[Store, tuple[Expr, dict[str, int], tuple[tuple[str, int], ...], Expr] | None]:
    """The store that ends an element, and before it (init, axes, reduction's axes, update)."""
    if isinstance(stmt, Store):
        return stmt, None
    if not isinstance(stmt, Block) or len(stmt.stmts) != 3:
        raise Refusal("its loop nest is not one value an element")
    parts = [_loops(part) for part in stmt.stmts]
    axes, last, _ = parts[2]
    first = parts[0][1]
    loops: list[tuple[str, int]] = []
    middle, guard = stmt.stmts[1], None
    inner: dict[str, int] = {}
    while not isinstance(middle, Store):
        match middle:
            case For(index, Const(value=0), Const(value=int(stop)), body, parallel):
                if parallel:
                    inner[index] = stop
                else:
                    loops.append((index, stop))
                middle = body
            case If(cond, body) if guard is None:
                guard, middle = cond, body
            case _:
                raise Refusal("its loop nest is not one running value an element")
    if not isinstance(first, Store) or not isinstance(last, Store):
        raise Refusal("its loop nest is not one running value an element")
    if not (parts[0][0] == axes == inner and first.indices == middle.indices == last.indices):
        raise Refusal("its loop nest starts, goes on and ends with different elements")
    update = middle.value
    if guard is not None:
        update = _unguarded(update, guard, first.value, Load(first.buffer, first.indices))
    return last, (first.value, axes, tuple(loops), update)


def _unguarded(update: Expr, guard: Expr, init: Expr, running: Load) -> Expr:
    """``max(running, v)`` under a guard as ``max(running, guard ? v : init)``.

    They are equal because the running value is never less than ``init``.
    """
    normalized = normal(update)
    match normalized:
        case Load():
            pass
        case _ if getattr(normalized, "op", None) in ("max", "min"):
            a, b = normalized.a, normalized.b  # type: ignore[attr-defined]  # a Binary by its op
            if a == running:
                return replace(normalized, b=Select(guard, b, init))  # type: ignore[call-arg]
    raise Refusal("its loop nest skips elements in a way that no padding value stands for")


def _lying(kernel: Kernel) -> Kernel:
    """``kernel`` with images of one column as images of one row.

    They are the same in DRAM, and everything that runs along a row works along the image.
    """
    if any(w > 1 for _, _, w, _ in kernel.shapes.values()):
        return kernel

    def exchanged(node: Node) -> Node | None:
        match node:
            case Load(buffer, (n, y, x, c)) if buffer in kernel.shapes:
                return Load(buffer, (n, x, y, c))
        return None

    def lie(e: Expr) -> Expr:
        result = rewrite(e, exchanged)
        assert isinstance(result, Expr)
        return result

    n, y, x, c = kernel.element
    reduction = kernel.reduction
    return replace(
        kernel,
        element=(n, x, y, c),
        value=lie(kernel.value),
        reduction=reduction and replace(reduction, update=lie(reduction.update)),
        shapes={name: (n, w, h, c) for name, (n, h, w, c) in kernel.shapes.items()},
        lying=True,
    )


# --- activations in four axes ------------------------------------------------------------------


def _in_four(kernel: Kernel, seen: Mapping[str, tuple[int, ...]]) -> Kernel:
    """``kernel`` with every activation's loads, and its element, having four indices."""
    splits: dict[str, Expr] = {}
    axes: dict[str, tuple[tuple[str, int], ...]] = {}
    for buffer, indices in _accesses(kernel):
        shape, four = seen[buffer], kernel.shapes[buffer]
        if len(shape) == 2 and shape != (four[0], four[3]):
            for index, extents in _matrix_splits(shape, four):
                _split(indices[index], extents, splits, axes)
    extents = {
        name: split
        for name, extent in kernel.extents().items()
        for split in (axes.get(name, ((name, extent),)),)
    }

    def lifted(node: Node) -> Node | None:
        match node:
            case Load(buffer, indices) if buffer in kernel.shapes:
                return Load(buffer, _four(indices, seen[buffer], kernel.shapes[buffer], axes))
            case Sum(old, body):
                return Sum(tuple(axis for name, _ in old for axis in extents[name]), body)
        return None

    def move(e: Expr) -> Expr:
        moved = substitute(rewrite(e, lifted), splits)
        assert isinstance(moved, Expr)
        return moved

    element = _four(kernel.element, seen[kernel.output], kernel.shapes[kernel.output], axes)
    reduction = kernel.reduction
    return replace(
        kernel,
        element=tuple(move(e) for e in element),
        axes=dict(axis for name in kernel.axes for axis in extents[name]),
        value=move(kernel.value),
        reduction=reduction and replace(reduction, update=move(reduction.update)),
    )


def _accesses(kernel: Kernel) -> Iterator[tuple[str, tuple[Expr, ...]]]:
    yield kernel.output, kernel.element
    for root in (kernel.value, kernel.reduction.update if kernel.reduction else kernel.value):
        for node in distinct(root):
            if isinstance(node, Load) and node.buffer in kernel.shapes:
                yield node.buffer, node.indices


def _matrix_splits(
    shape: tuple[int, ...], four: tuple[int, int, int, int]
) -> list[tuple[int, tuple[int, ...]]]:
    """Which axis of a matrix counts which axes of the activation, row-major."""
    n, h, w, c = four
    if shape == (n * h * w, c):
        return [(0, (n, h, w))]
    if shape == (n, h * w * c):
        return [(1, (h, w, c))]
    raise Refusal(f"a matrix {list(shape)} over a tensor that is {list(four)} in DRAM")


def _split(
    index: Expr,
    extents: tuple[int, ...],
    splits: dict[str, Expr],
    axes: dict[str, tuple[tuple[str, int], ...]],
) -> None:
    name = is_index(index)
    if name is None:
        raise Refusal("a matrix index that is no loop")
    made = tuple((f"{name}{i}", extent) for i, extent in enumerate(extents))
    if axes.setdefault(name, made) != made:
        raise Refusal(f"loop {name} counts axes {extents} of one tensor and others of another")
    flat: Expr = expr(0)
    for part, extent in made:
        flat = flat * extent + Index(part)
    splits[name] = flat


def _four(
    indices: tuple[Expr, ...],
    shape: tuple[int, ...],
    four: tuple[int, int, int, int],
    axes: Mapping[str, tuple[tuple[str, int], ...]],
) -> tuple[Expr, ...]:
    """An access of ``shape`` as one of ``four`` axes."""
    if len(indices) == DRAM_RANK:
        return indices
    split = [axes.get(is_index(i) or "") for i in indices]
    if len(indices) == 2 and any(split):
        flat = [
            part
            for index, parts in zip(indices, split, strict=True)
            for part in ([Index(name) for name, _ in parts] if parts else [index])
        ]
        if len(flat) == DRAM_RANK:
            return tuple(flat)
        raise Refusal(f"{list(shape)} over a tensor that is {list(four)} in DRAM")
    if dram_shape(shape) != four:
        raise Refusal(f"{list(shape)} over a tensor that is {list(four)} in DRAM")
    if len(indices) == 1:
        return (expr(0), expr(0), expr(0), *indices)
    zeros = (expr(0),) * (DRAM_RANK - len(indices))
    return (indices[0], *zeros, *indices[1:])
