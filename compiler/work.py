"""What tensorization leaves: which instructions, and what each operand stands for.

Sizes of tiles, places in scratchpads and order are decided later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..isa.nest import DType, Expr
from .image import Image
from .kernel import Kernel


@dataclass(frozen=True, eq=False)
class Ending:
    """The storing instruction, and for each field of its parameters what it holds.

    ``keep`` is the one that stores the same into ``inp``; None if there is none. Where accumulators
    go on, it is the first instruction on sums, which leaves its result in their place.
    """

    operation: str
    record: Mapping[str, Expr]
    keep: str | None = None


@dataclass(frozen=True)
class Pool:
    """Which of neighbouring sums is stored: the greatest one of each window of them.

    ``operation`` leaves the greater of two accumulators in the first one; ``window`` are a window's
    rows and columns, of positions of the products.
    """

    operation: str
    window: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Contraction:
    """Accumulators that sum products over taps and channels.

    Attributes
    ----------
    kernel : Kernel
        What is computed, after the rewrites.
    first : tuple of str
        Operations for the first step of an accumulator: one that overwrites, or one that clears
        and one that adds.
    add : str
        The operation for the steps after it.
    image : Image
        The input, with its load.
    load_weights : str
        The operation that loads an element of weights.
    weights : Expr
        A weight, over the loops bound to ``weight_lanes`` and the taps.
    weight_lanes : tuple of (str or None, int)
        For each lane axis of a weight element the loop along it and how many lanes it takes.
    weight_element : tuple of int
        Extents of a weight element's lane axes; lanes that no loop takes hold 0. An axis before
        them runs along the elements that a step takes, if it takes several.
    weight_dtype : DType
        Of a weight in DRAM.
    tap_lanes : int
        Taps of a row that one step covers, side by side in the input.
    channel, depth : str
        The loops of the output's and of the input's channel; equal where each channel is its own.
    picked : Expr or None
        The one input channel, in terms of ``channel``, that has weights other than 0.
    ending : Ending
        How the sum is stored, or what becomes of it in its place.
    tail : Elementwise or None
        What is done with that, and how it is stored; its region ``sums`` is the one meant.
    pool : Pool or None
        Which sums are stored; None if all are. The image's positions are those of the products.
    """

    kernel: Kernel
    first: tuple[str, ...]
    add: str
    image: Image
    load_weights: str
    weights: Expr
    weight_lanes: tuple[tuple[str | None, int], ...]
    weight_element: tuple[int, ...]
    weight_dtype: DType
    tap_lanes: int
    channel: str
    depth: str
    picked: Expr | None
    ending: Ending
    tail: Elementwise | None = None
    pool: Pool | None = None

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of products' positions, of which one is stored."""
        return (1, 1) if self.pool is None else self.pool.window

    @property
    def storing(self) -> Ending:
        """How its output is stored."""
        return self.ending if self.tail is None else self.tail.ending

    @property
    def column_steps(self) -> int:
        """Steps for the taps of a row."""
        return -(-self.image.columns.taps // self.tap_lanes)

    @property
    def operations(self) -> tuple[str, ...]:
        """All that it uses."""
        own = (*self.first, self.add, self.image.load, self.load_weights, self.ending.operation)
        if self.pool is not None:
            own = (*own, self.pool.operation)
        return own if self.tail is None else (*own, *self.tail.operations)


@dataclass(frozen=True, eq=False)
class Act:
    """One accumulator instruction on whole regions.

    ``dst`` and ``src`` number regions of accumulators; ``src`` is None where the second operand
    is an immediate, parameters or nothing. With ``taps`` it runs once for each tap of the image
    in ``src``.
    """

    operation: str
    dst: int
    src: int | None = None
    imm: int | None = None
    record: Mapping[str, Expr] | None = None
    taps: bool = False


@dataclass(frozen=True, eq=False)
class Elementwise:
    """Regions of accumulators, loaded or computed one from another, the last one stored.

    ``sums`` is the region that products were added up in before; None if there is none.
    """

    kernel: Kernel
    images: Mapping[int, Image]
    acts: tuple[Act, ...]
    result: int
    ending: Ending
    sums: int | None = None

    @property
    def regions(self) -> tuple[int, ...]:
        """All that it uses."""
        used = {*self.images, *(act.dst for act in self.acts), self.result}
        return tuple(sorted(used if self.sums is None else used | {self.sums}))

    @property
    def operations(self) -> tuple[str, ...]:
        """All that it uses."""
        loads = (image.load for image in self.images.values())
        return (*loads, *(act.operation for act in self.acts), self.ending.operation)


Tensorized = Contraction | Elementwise
