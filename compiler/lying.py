"""How the tensors between operators lie in memory: images with their channels last.

A nest says which element it means, not where that lies: a buffer has strides. Convolutions are
fastest where the channels of a pixel lie side by side, so that every image between operators lies
so, if all who touch it address it by its own axes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..isa.nest import Buffer, Nest

IMAGE_RANK = 4


def channels_last(shape: tuple[int, ...], element: int) -> tuple[int, ...]:
    """Strides in bytes of an image [N, C, ...]."""
    strides = [0] * len(shape)
    step = element
    for axis in (1, *range(len(shape) - 1, 1, -1), 0):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def lying(
    nests: Sequence[tuple[Nest | None, Collection[str]]],
    seeds: Collection[str],
    shapes: Mapping[str, tuple[int, ...]],
    fixed: Collection[str],
) -> dict[str, tuple[int, ...]]:
    """Strides of the tensors that lie otherwise than row by row.

    Parameters
    ----------
    nests : sequence
        Each step: its nest, None for one that is no nest, and the tensors that it touches.
    seeds : collection of str
        Tensors for which it is worth while.
    shapes : mapping
        Of every tensor.
    fixed : collection of str
        Tensors that others see, or constants.
    """
    free = {
        name
        for name, shape in shapes.items()
        if name not in fixed and len(shape) == IMAGE_RANK and 0 not in shape
    }
    elements: dict[str, int] = {}
    for nest, touched in nests:
        if nest is None:
            free -= set(touched)
            continue
        for buffer in nest.buffers:
            if buffer.name in free:
                elements[buffer.name] = buffer.dtype.bits // 8
                if buffer.shape != shapes[buffer.name] or buffer.strides or buffer.dtype.bits < 8:
                    free.discard(buffer.name)
    chosen = {name for name in seeds if name in free}
    grown = True
    while grown:
        grown = False
        for _, touched in nests:
            own = free.intersection(touched)
            if own & chosen and not own <= chosen:
                chosen |= own
                grown = True
    return {name: channels_last(shapes[name], elements[name]) for name in chosen}


def placed(
    nest: Nest, strides: Mapping[str, tuple[int, ...]], scratch: Collection[str] = ()
) -> Nest:
    """``nest`` on buffers that lie so, and its scratch images like them."""
    any_image = any(b.name in strides for b in nest.buffers)

    def one(buffer: Buffer) -> Buffer:
        if any_image and buffer.name in scratch and len(buffer.shape) == IMAGE_RANK:
            return replace(buffer, strides=channels_last(buffer.shape, buffer.dtype.bits // 8))
        return replace(buffer, strides=strides.get(buffer.name, buffer.strides))

    return replace(nest, buffers=tuple(one(b) for b in nest.buffers))
