"""Calibration data: arrays of samples for a graph's inputs, seen one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ...isa.errors import DataError
from ..graph import Graph, element_dtype


@dataclass(frozen=True, eq=False)
class Samples:
    """One array for each input of a graph, of ``rows`` on the first axis for each sample.

    The arrays may be memory maps: nothing but one sample is ever copied.
    """

    arrays: Mapping[str, np.ndarray]
    rows: Mapping[str, int]
    count: int

    @classmethod
    def of(
        cls, graph: Graph, arrays: Mapping[str, np.ndarray], limit: int | None = None
    ) -> Samples:
        """``arrays`` checked against the inputs of ``graph``; at most ``limit`` samples of them.

        Raises
        ------
        DataError
            If an input is missing or unknown, if type or shape do not fit, or if there are no
            samples. Nothing is converted: how images are normalized only their user knows.
        """
        unknown = sorted(arrays.keys() - set(graph.inputs))
        missing = [name for name in graph.inputs if name not in arrays]
        if unknown or missing:
            what = f"there is no input {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
            raise DataError(f"{what} in the data; inputs are {', '.join(graph.inputs)}")
        rows = {name: _rows(graph, name, array) for name, array in arrays.items()}
        counts = {len(array) // rows[name] for name, array in arrays.items()}
        if len(counts) != 1:
            raise DataError(f"the inputs hold different numbers of samples: {sorted(counts)}")
        count = counts.pop()
        if not count:
            raise DataError("there are no samples")
        return cls(arrays, rows, count if limit is None else min(count, limit))

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """The values of the inputs, sample by sample."""
        for i in range(self.count):
            yield {
                name: np.ascontiguousarray(array[i * self.rows[name] : (i + 1) * self.rows[name]])
                for name, array in self.arrays.items()
            }

    def __len__(self) -> int:
        return self.count


def _rows(graph: Graph, name: str, array: np.ndarray) -> int:
    """How many rows of ``array`` a sample has."""
    tensor = graph.tensors[name]
    dtype, shape = element_dtype(tensor.dtype), tensor.shape
    if not shape or not shape[0]:
        raise DataError(f"input {name!r} of shape {shape} has no axis for samples")
    wanted = f"{dtype}[samples, {', '.join(map(str, shape[1:]))}]"
    if array.dtype != dtype or array.shape[1:] != shape[1:] or array.ndim != len(shape):
        hint = ""
        if array.dtype == np.uint8:
            hint = "; images must be normalized as the network was trained to take them"
        raise DataError(
            f"input {name!r} takes {wanted}, not {array.dtype}{list(array.shape)}{hint}"
        )
    if len(array) % shape[0]:
        raise DataError(f"input {name!r} takes a multiple of {shape[0]} rows, not {len(array)}")
    return shape[0]
