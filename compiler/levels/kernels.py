"""The normal form of a nest as a nest, to be printed and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...isa.errors import ModelError
from ...isa.nest import I8, Block, Buffer, Const, Expr, For, Load, Nest, Stmt, Store, expr
from ...isa.traverse import rewrite
from ..kernel import DRAM_RANK, RUNNING, Kernel, Reduction
from .arrays import dtype_of_array


def nest_of_kernel(name: str, kernel: Kernel) -> Nest:
    """``kernel`` under its parallel loops, a running value as what is stored and loaded again."""
    running = Load(kernel.output, kernel.element)

    def stored(e: Expr) -> Stmt:
        value = rewrite(e, lambda n: running if n == RUNNING else None)
        assert isinstance(value, Expr)
        return Store(kernel.output, kernel.element, value)

    body = stored(kernel.value)
    if kernel.reduction is not None:
        update = stored(kernel.reduction.update)
        for index, extent in reversed(kernel.reduction.axes):
            update = For(index, expr(0), expr(extent), update)
        body = Block((stored(kernel.reduction.init), update, body))
    for index, extent in reversed(list(kernel.axes.items())):
        body = For(index, expr(0), expr(extent), body, parallel=True)
    activations = [Buffer(name, I8, shape) for name, shape in kernel.shapes.items()]
    constants = [
        Buffer(name, dtype_of_array(array), array.shape) for name, array in kernel.constants.items()
    ]
    return Nest(name, (), (*activations, *constants), body)


def kernel_of_nest(
    nest: Nest, constants: Mapping[str, np.ndarray], lying: bool, flat: Mapping[str, int]
) -> Kernel:
    """The kernel that :func:`nest_of_kernel` was given; buffers without constants are activations.

    Raises
    ------
    ModelError
        If the nest is of another form.
    """
    axes: dict[str, int] = {}
    stmt = nest.body
    while isinstance(stmt, For) and stmt.parallel:
        axes[stmt.index] = _extent(stmt)
        stmt = stmt.body
    reduction: list[tuple[str, int]] = []
    if isinstance(stmt, Block) and len(stmt.stmts) == 3:
        init, update, last = stmt.stmts
        while isinstance(update, For) and not update.parallel:
            reduction.append((update.index, _extent(update)))
            update = update.body
    else:
        init = update = last = stmt
    if not (isinstance(init, Store) and isinstance(update, Store) and isinstance(last, Store)):
        raise ModelError("expected parallel loops around one value, or around a running value")
    place = Load(last.buffer, last.indices)
    if any(Load(store.buffer, store.indices) != place for store in (init, update)):
        raise ModelError("expected a running value that stays where it is")

    def taken(e: Expr) -> Expr:
        value = rewrite(e, lambda n: RUNNING if n == place else None)
        assert isinstance(value, Expr)
        return value

    shapes: dict[str, tuple[int, int, int, int]] = {}
    for buffer in nest.buffers:
        if buffer.name in constants:
            continue
        if len(buffer.shape) != DRAM_RANK or buffer.dtype != I8 or not all(buffer.shape):
            raise ModelError(f"buffer {buffer.name!r}: expected i8 and four axes, or an array")
        n, h, w, c = buffer.shape
        shapes[buffer.name] = n, h, w, c
    kernel = Kernel(
        last.buffer, last.indices, axes, taken(last.value), None, shapes, constants, lying, flat
    )
    if last is init:
        return kernel
    body = Reduction(taken(init.value), tuple(reduction), taken(update.value))
    return replace(kernel, reduction=body)


def _extent(loop: For) -> int:
    match loop:
        case For(_, Const(value=0), Const(value=int(stop))):
            return stop
    raise ModelError(f"expected loop {loop.index!r} to run from 0 to a number")
