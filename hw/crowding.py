"""How crowded wires will be where a placement has put what they join."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .netlist import CLOCKS, place_of

ROOM = 50
"""Wires that a tile has room for with ease; of what routers make of placements it tells most."""


def crowding(placement: Mapping[str, Any]) -> int:
    """Wires beyond :data:`ROOM`, summed over all tiles, that a placement is expected to want.

    A net is expected to want half of what leads around its cells, spread evenly over the box
    around them (P. Spindler, F. Johannes, "Fast and Accurate Routing Demand Estimation for
    Efficient Routability-driven Placement", DATE 2007).
    """
    boxes = _boxes(placement)
    demand = np.zeros(boxes.max(axis=0, initial=0)[1::2] + 2)
    first_x, last_x, first_y, last_y = boxes.T
    wide, high = last_x - first_x, last_y - first_y
    density = (wide + high) / ((wide + 1) * (high + 1))
    # Corners of the boxes; their sums along both axes are the boxes.
    np.add.at(demand, (first_x, first_y), density)
    np.add.at(demand, (first_x, last_y + 1), -density)
    np.add.at(demand, (last_x + 1, first_y), -density)
    np.add.at(demand, (last_x + 1, last_y + 1), density)
    wanted = demand.cumsum(axis=0).cumsum(axis=1)
    return round(np.maximum(wanted - ROOM, 0).sum())


def _boxes(placement: Mapping[str, Any]) -> np.ndarray:
    """First and last column, first and last row of each net, ``[n, 4]``."""
    boxes: dict[int | str, list[int]] = {}
    for module in placement["modules"].values():
        for cell in module["cells"].values():
            place = place_of(cell)
            if place is None:
                continue
            x, y = place
            for pin, bits in cell["connections"].items():
                if pin in CLOCKS:
                    continue
                for bit in bits:
                    box = boxes.setdefault(bit, [x, x, y, y])
                    box[:] = min(box[0], x), max(box[1], x), min(box[2], y), max(box[3], y)
    return np.array([box for bit, box in boxes.items() if isinstance(bit, int)] or [[0] * 4])
