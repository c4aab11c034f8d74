"""The graph of a network for given arrays, however open its shapes are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..compiler.graph import Graph
from ..isa.errors import DataError
from .network import Network


def bound_graph(network: Network, arrays: Mapping[str, np.ndarray]) -> Graph:
    """The graph that takes one sample of ``arrays`` at a time.

    Parameters
    ----------
    network : Network
        What :func:`.network.load` returned.
    arrays : mapping
        For each input, samples on the first axis. A symbol for that axis is 1; others are what the
        arrays say.

    Raises
    ------
    DataError
        If the arrays do not fit the inputs.
    UnsupportedError
        If shapes depend on the values of inputs.
    """
    model = network.model
    if not network.open or model is None:
        return network.graph
    if network.unbound is not None:
        raise network.unbound
    shapes: dict[str, tuple[int, ...]] = {}
    for one in model.inputs:
        array = arrays.get(one.name)
        if array is None or array.ndim != len(one.extents) or not array.ndim:
            raise DataError(
                f"input {one.name!r} takes ({', '.join(map(str, one.extents))}), samples first"
            )
        first = one.extents[0]
        shapes[one.name] = (1 if isinstance(first, str) else first, *array.shape[1:])
    return model.graph(shapes)
