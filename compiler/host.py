"""Nodes of the tensor graph as native code for the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..isa.errors import DataError
from ..isa.native import NativeCode
from ..isa.storage import numpy_dtype
from .graph import Graph, Node
from .hoist import hoist
from .operators import nest_of, reason_against

__all__ = ["HostCode", "compile_nodes", "reason_against"]


class HostCode:
    """Nodes compiled into one module, with memory for everything that they write.

    Parameters
    ----------
    graph : Graph
        A verified graph.
    nodes : sequence of Node
        Some of its nodes, in its order.
    cache : Path or None
        A directory for compiled objects.

    Raises
    ------
    UnsupportedError
        If :func:`reason_against` gives a reason for one of the nodes.
    """

    def __init__(self, graph: Graph, nodes: Sequence[Node], cache: Path | None = None):
        operators = [nest_of(graph, node) for node in nodes]
        # A function's name is its position: a node's name may hold anything.
        nests = [replace(hoist(o.nest), name=f"node{i}") for i, o in enumerate(operators)]
        self.code = NativeCode(nests, cache=cache)
        written = [name for node in nodes for name in node.outputs]
        read = dict.fromkeys(name for node in nodes for name in node.inputs if name)
        self.inputs: tuple[str, ...] = tuple(
            n for n in read if n not in written and graph.tensors[n].data is None
        )
        """Tensors that :meth:`run` takes."""
        self.outputs: tuple[str, ...] = tuple(written)
        """Tensors that :meth:`run` gives."""
        self._memory: dict[str, np.ndarray] = {}
        for name in (*self.inputs, *self.outputs):
            tensor = graph.tensors[name]
            self._memory[name] = np.zeros(tensor.shape, numpy_dtype(tensor.dtype))
        self._calls = []
        for nest, operator in zip(nests, operators, strict=True):
            arrays: dict[str, np.ndarray] = {}
            for buffer in nest.buffers:
                if buffer.name in operator.constants:
                    array = operator.constants[buffer.name]
                elif buffer.name in operator.scratch:
                    array = np.zeros(buffer.shape, numpy_dtype(buffer.dtype))
                elif buffer.name in self._memory:
                    array = self._memory[buffer.name]
                else:
                    data = graph.tensors[buffer.name].data
                    assert data is not None, buffer.name
                    array = np.require(data, requirements=("C", "ALIGNED"))
                arrays[buffer.name] = array.reshape(buffer.shape)
            self._calls.append(self.code.prepare(nest.name, arrays))

    def run(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the nodes make of ``values``.

        Parameters
        ----------
        values : mapping
            An array for each of :attr:`inputs`, of the tensor's type and shape; others are
            ignored.

        Returns
        -------
        dict
            A new array for each of :attr:`outputs`.

        Raises
        ------
        DataError
            If an input is absent, or of another type or shape.
        """
        for name in self.inputs:
            memory = self._memory[name]
            value = values.get(name)
            if value is None:
                raise DataError(f"tensor {name!r} has no value")
            if value.dtype != memory.dtype or value.shape != memory.shape:
                raise DataError(
                    f"tensor {name!r} takes {memory.dtype}{list(memory.shape)}, "
                    f"not {value.dtype}{list(value.shape)}"
                )
            memory[...] = value
        for call in self._calls:
            call()
        return {name: self._memory[name].copy() for name in self.outputs}


def compile_nodes(graph: Graph, nodes: Sequence[Node], cache: Path | None = None) -> HostCode:
    """Native code for ``nodes``; see :class:`HostCode`."""
    return HostCode(graph, nodes, cache)
