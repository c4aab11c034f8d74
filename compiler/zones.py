"""Zones of an image: positions whose windows meet padding in the same taps.

A step on padding multiplies weights by a constant, so nobody needs to take it: what it would have
added is known, and is added to the bias instead. In the middle of the image all taps are taken,
along its borders fewer; each zone has its own parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..isa.config import QNT_LANE_BYTES
from ..isa.memories import QNT_LANE
from .constants import Weights
from .image import Image, Walk
from .schedule import Range

MOST = 5
"""Zones along an axis; where there would be more, every tap is taken everywhere."""


@dataclass(frozen=True)
class Zone:
    """Output positions ``rows`` x ``columns``, and the taps that are taken there.

    ``taps`` are rows of taps, ``steps`` the steps along such a row. ``record`` numbers the zone's
    parameters.
    """

    rows: Range
    columns: Range
    taps: Range
    steps: Range
    record: int = 0

    def within(self, rows: Range, columns: Range) -> Zone | None:
        """Its part in a tile; None if there is none."""
        y, x = self.rows.common(rows), self.columns.common(columns)
        if y is None or x is None:
            return None
        return Zone(y, x, self.taps, self.steps, self.record)


def zones_of(image: Image, tap_lanes: int, by_rows: bool, by_columns: bool) -> tuple[Zone, ...]:
    """The zones of an image whose steps take ``tap_lanes`` taps of a row at once.

    ``by_rows`` asks for zones along the upper and lower borders, ``by_columns`` for those along
    the other two; without, every tap is taken there.
    """
    down = _along(image.rows, 1, by_rows)
    across = _along(image.columns, tap_lanes, by_columns)
    return tuple(
        Zone(y, x, taps, steps, number if image.pad else 0)
        for number, ((y, taps), (x, steps)) in enumerate((a, b) for a in down for b in across)
    )


def _along(walk: Walk, lanes: int, skips: bool) -> list[tuple[Range, Range]]:
    """Positions along an axis with the steps that meet the input, of ``lanes`` taps each."""
    every = -(-walk.taps // lanes)
    everywhere = [(Range(0, walk.positions), Range(0, every))]
    if not skips:
        return everywhere

    def steps(position: int) -> tuple[int, int]:
        first = position * walk.stride + walk.origin
        inside = [t for t in range(walk.taps) if 0 <= first + t * walk.dilation < walk.extent]
        return (inside[0] // lanes, inside[-1] // lanes + 1) if inside else (0, every)

    found: list[tuple[Range, Range]] = []
    for (first, stop), group in groupby(range(walk.positions), key=steps):
        positions = list(group)
        found.append((Range(positions[0], len(positions)), Range(first, stop - first)))
    return found if len(found) <= MOST else everywhere


def zone_records(
    records: np.ndarray,
    zones: tuple[Zone, ...],
    weights: Weights,
    channel_axis: int,
    pad: int,
    taps: tuple[int, int],
) -> np.ndarray:
    """Parameters of every zone, one after another, each with what it skips in its biases.

    Parameters
    ----------
    records : ndarray
        ``uint8`` [output blocks or 1, bytes of an element].
    zones : tuple of Zone
        Of the layer.
    weights : Weights
        Of the layer.
    channel_axis : int
        The lane axis of a weight element that runs along output channels.
    pad : int
        What padding holds.
    taps : (int, int)
        Rows of taps, and steps along such a row, where none is skipped.
    """
    if not pad or all((zone.taps.count, zone.steps.count) == taps for zone in zones):
        return records
    outputs, depth = len(weights.inputs), len(weights.inputs[0])
    data = weights.data
    whole = np.broadcast_to(data, (outputs, depth, *taps, *data.shape[4:]))
    lanes = tuple(4 + axis for axis in range(data.ndim - 4) if axis != channel_axis)
    sums = whole.sum(axis=(1, *lanes), dtype=np.int64)  # [output block, tap, step, lane]
    bias = next(field for field in QNT_LANE if field.name == "bias")
    of_bias = slice(bias.offset, bias.offset + bias.dtype.bits // 8)
    found: list[np.ndarray] = []
    for zone in zones:
        taken = sums[:, zone.taps.start : zone.taps.stop, zone.steps.start : zone.steps.stop]
        skipped = pad * (sums.sum(axis=(1, 2)) - taken.sum(axis=(1, 2)))
        lane = np.broadcast_to(records, (outputs, records.shape[1])).copy()
        lane = lane.reshape(-1, QNT_LANE_BYTES)
        old = np.ascontiguousarray(lane[:, of_bias]).view("<i4").reshape(-1).astype(np.int64)
        new = (old + skipped.reshape(-1)).astype(np.int32)  # wraps, as accumulators do
        lane[:, of_bias] = new.astype("<i4").view(np.uint8).reshape(-1, 4)
        found.append(lane.reshape(outputs, -1))
    return np.concatenate(found)
