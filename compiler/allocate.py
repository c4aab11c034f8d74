"""Addresses in DRAM: activations share memory where their lives do not meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..isa.errors import UnsupportedError
from .artifact import Segment

FIRST_ADDRESS = 0x1000
"""Nothing lies below: an address of 0 is always a mistake."""
ALIGNMENT = 64
DRAM_LIMIT = 1 << 32
"""Addresses have 32 bits."""


@dataclass(frozen=True)
class Life:
    """A tensor of ``size`` bytes that must exist in steps ``first`` to ``last``, both included."""

    name: str
    size: int
    first: int
    last: int


def share(lives: Sequence[Life], alignment: int) -> tuple[dict[str, int], int]:
    """An address for each tensor, and the first address after all of them.

    Larger tensors come first, each as low as those that live at the same time allow.
    """
    placed: list[tuple[int, Life]] = []
    for life in sorted(lives, key=lambda life: (-life.size, life.first, life.name)):
        at = FIRST_ADDRESS
        for other_at, other in sorted(placed, key=lambda p: p[0]):
            apart = other.last < life.first or life.last < other.first
            if not apart and at < other_at + other.size and other_at < at + life.size:
                at = aligned(other_at + other.size, alignment)
        placed.append((at, life))
    end = max((at + life.size for at, life in placed), default=FIRST_ADDRESS)
    return {life.name: at for at, life in placed}, aligned(end, ALIGNMENT)


def aligned(address: int, alignment: int) -> int:
    """The next multiple of ``alignment``, which is at least :data:`ALIGNMENT`."""
    alignment = max(alignment, ALIGNMENT)
    return -(-address // alignment) * alignment


@dataclass
class Constants:
    """Segments one after another from an address on."""

    at: int
    segments: list[Segment] = field(default_factory=list[Segment])

    def reserve(self, alignment: int) -> int:
        """The address that the next segment of that alignment gets."""
        self.at = aligned(self.at, alignment)
        return self.at

    def add(self, name: str, data: np.ndarray, alignment: int) -> int:
        """Place the bytes of ``data``; their address. Empty data takes no segment."""
        address = self.reserve(alignment)
        if data.size:
            flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
            self.segments.append(Segment(name, address, flat))
            self.at += flat.nbytes
        if self.at > DRAM_LIMIT:
            raise UnsupportedError(
                f"the network needs {self.at:,} bytes of DRAM; addresses reach {DRAM_LIMIT:,}"
            )
        return address


def lives_of(
    touched: Sequence[tuple[Sequence[str], Sequence[str], bool]],
    sizes: Mapping[str, int],
    outputs: Sequence[str],
) -> list[Life]:
    """When each tensor of ``sizes`` must be in DRAM.

    Parameters
    ----------
    touched : sequence of (reads, writes, on accelerator)
        For every step, in order.
    sizes : mapping
        Bytes of the tensors that accelerator steps touch.
    outputs : sequence of str
        The graph's outputs, which live to the end.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for i, (reads, writes, on_accelerator) in enumerate(touched):
        for name in (*reads, *writes):
            if on_accelerator:
                first.setdefault(name, i)
            last[name] = i
    for name in outputs:
        last[name] = len(touched)
    return [Life(name, size, first[name], last[name]) for name, size in sizes.items()]
