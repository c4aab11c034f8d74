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
from .pack import Packed, packed

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
    outputs : sequence of str or None
        The tensors that are asked for; by default everything that the nodes write.

    Raises
    ------
    UnsupportedError
        If :func:`reason_against` gives a reason for one of the nodes.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: Sequence[Node],
        cache: Path | None = None,
        *,
        outputs: Sequence[str] | None = None,
        threads: int = 1,
    ):
        self.graph = graph
        written = [name for node in nodes for name in node.outputs]
        read = dict.fromkeys(name for node in nodes for name in node.inputs if name)
        self.inputs: tuple[str, ...] = tuple(
            n for n in read if n not in written and graph.tensors[n].data is None
        )
        """Tensors that :meth:`run` takes."""
        self.outputs: tuple[str, ...] = tuple(written if outputs is None else outputs)
        """Tensors that :meth:`run` gives."""
        self._memory: dict[str, np.ndarray] = {}
        for name in (*self.inputs, *written):
            tensor = graph.tensors[name]
            self._memory[name] = np.zeros(tensor.shape, element_dtype(tensor.dtype))
        made = [(node, lowered(graph, node)) for node in nodes if self._writes(node)]
        ready = [self._ready(o) if isinstance(o, Operator) else None for _, o in made]
        shapes = [anonymous(one.nest) for one in ready if one is not None]
        names = {nest: f"nest{i}" for i, nest in enumerate(dict.fromkeys(shapes))}
        nests = [replace(nest, name=name) for nest, name in names.items()]
        self.code = NativeCode(nests, cache=cache, tiled=True) if nests else None
        form = iter(shapes)
        self._calls: list[Run] = [
            self._native(one, names[next(form)]) if one is not None else self._numpy(node, o)
            for one, (node, o) in zip(ready, made, strict=True)
        ]
        self._names = [node.name for node, _ in made]

    def _writes(self, node: Node) -> bool:
        """Whether a node has anything to do: its outputs may all be empty."""
        return any(self._memory[name].size for name in node.outputs)

    def _ready(self, operator: Operator) -> Packed:
        """An operator's nest as the code generator takes it best."""

        def constant(name: str) -> np.ndarray | None:
            if name in operator.constants:
                return operator.constants[name]
            return self.graph.tensors[name].data if name in self.graph.tensors else None

        made = packed(operator.nest, constant) or Packed(hoist(operator.nest))
        made.constants.update(operator.constants)
        made.scratch = (*made.scratch, *operator.scratch)
        return made

    def _native(self, operator: Packed, name: str) -> Run:
        assert self.code is not None
        arrays: dict[str, np.ndarray] = {}
        nest = self.code.nests[name]
        for buffer, own in zip(nest.buffers, operator.nest.buffers, strict=True):
            if own.name in operator.constants:
                array = operator.constants[own.name]
            elif own.name in operator.views:
                array = self._array(operator.views[own.name])
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
            value = values.get(name)
            if value is None:
                raise DataError(f"tensor {name!r} has no value")
            if value.dtype != memory.dtype or value.shape != memory.shape:
                raise DataError(
                    f"tensor {name!r} takes {memory.dtype}{list(memory.shape)}, "
                    f"not {value.dtype}{list(value.shape)}"
                )
            memory[...] = value
        self.native()
        return {name: self._memory[name].copy() for name in self.outputs}

    def native(self) -> None:
        """Run everything on what memory holds."""
        for call in self._calls:
            call()

    def part(self, node: str) -> Run:
        """What computes one node, on what memory holds."""
        return self._calls[self._names.index(node)]


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
