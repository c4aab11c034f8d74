"""Nodes of the tensor graph as native code for the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..isa.errors import DataError
from ..isa.native import NativeCode
from ..isa.nest import Load, Nest, Stmt, Store, rewrite
from ..isa.nest import Node as Term
from ..isa.storage import numpy_dtype
from .graph import Graph, Node, element_dtype
from .hoist import hoist
from .operators import Kernel, Operator, lowered, reason_against

__all__ = ["HostCode", "compile_nodes", "reason_against"]


Run = Callable[[], None]
"""One node, on memory that is already there."""


class HostCode:
    """Nodes compiled into one module, with memory for everything that they write.

    Nests of the same structure are compiled once.

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
        self.graph = graph
        written = [name for node in nodes for name in node.outputs]
        read = dict.fromkeys(name for node in nodes for name in node.inputs if name)
        self.inputs: tuple[str, ...] = tuple(
            n
            for n in read
            if n not in written and (graph.tensors[n].data is None or n in graph.carried)
        )
        """Tensors that :meth:`run` takes; those that are carried over begin with their data."""
        self.outputs: tuple[str, ...] = tuple(written)
        """Tensors that :meth:`run` gives."""
        self._memory: dict[str, np.ndarray] = {}
        for name in (*self.inputs, *self.outputs):
            tensor = graph.tensors[name]
            self._memory[name] = np.zeros(tensor.shape, element_dtype(tensor.dtype))
        made = [(node, lowered(graph, node)) for node in nodes if self._writes(node)]
        shapes = [anonymous(hoist(o.nest)) for _, o in made if isinstance(o, Operator)]
        names = {nest: f"nest{i}" for i, nest in enumerate(dict.fromkeys(shapes))}
        nests = [replace(nest, name=name) for nest, name in names.items()]
        self.code = NativeCode(nests, cache=cache) if nests else None
        form = iter(shapes)
        self._calls: list[Run] = [
            self._native(o, names[next(form)]) if isinstance(o, Operator) else self._numpy(node, o)
            for node, o in made
        ]

    def _writes(self, node: Node) -> bool:
        """Whether a node has anything to do: its outputs may all be empty."""
        return any(self._memory[name].size for name in node.outputs)

    def _native(self, operator: Operator, name: str) -> Run:
        assert self.code is not None
        arrays: dict[str, np.ndarray] = {}
        nest = self.code.nests[name]
        for buffer, own in zip(nest.buffers, operator.nest.buffers, strict=True):
            if own.name in operator.constants:
                array = operator.constants[own.name]
            elif own.name in operator.scratch:
                array = np.zeros(buffer.shape, numpy_dtype(buffer.dtype))
            else:
                array = self._array(own.name)
            if array.dtype == bool:
                array = array.view(np.uint8)
            arrays[buffer.name] = array.reshape(buffer.shape)
        return self.code.prepare(name, arrays)

    def _array(self, name: str) -> np.ndarray:
        """Where a tensor lies."""
        if name in self._memory:
            return self._memory[name]
        data = self.graph.tensors[name].data
        assert data is not None, name
        return np.require(data, requirements=("C", "ALIGNED"))

    def _numpy(self, node: Node, kernel: Kernel) -> Run:
        inputs = [self._array(name) if name else None for name in node.inputs]
        outputs = [self._memory[name] for name in node.outputs]

        def run() -> None:
            for memory, value in zip(outputs, kernel(node.name, inputs), strict=True):
                memory[...] = value

        return run

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
            value = values.get(name, self.graph.tensors[name].data)
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


def anonymous(nest: Nest) -> Nest:
    """``nest`` without names of its own: a name may hold anything, and twins become equal."""
    names = {buffer.name: f"b{i}" for i, buffer in enumerate(nest.buffers)}

    def rule(term: Term) -> Term | None:
        match term:
            case Load(buffer, indices):
                return Load(names[buffer], indices)
            case Store(buffer, indices, value):
                return Store(names[buffer], indices, value)
        return None

    body = rewrite(nest.body, rule)
    assert isinstance(body, Stmt)
    buffers = tuple(replace(buffer, name=names[buffer.name]) for buffer in nest.buffers)
    return Nest("", nest.params, buffers, body)


def compile_nodes(graph: Graph, nodes: Sequence[Node], cache: Path | None = None) -> HostCode:
    """Native code for ``nodes``; see :class:`HostCode`."""
    return HostCode(graph, nodes, cache)
