"""Nodes of the tensor graph as native code for the CPU."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..isa.errors import DataError
from ..isa.native import NativeCode, Processor, Row
from ..isa.nest import Load, Nest, Stmt, Store, rewrite
from ..isa.nest import Node as Term
from ..isa.pool import Phases
from ..isa.storage import numpy_dtype
from .graph import Graph, Node, element_dtype
from .items import Phase, phases
from .memory import aligned, bytes_of, whole_lines
from .operators import reason_against
from .pack import Packed
from .plan import HostStep, planned

__all__ = ["HostCode", "compile_nodes", "reason_against"]


Run = Callable[[], None]
"""One node, on memory that is already there."""

BYTE = np.dtype(np.uint8)


class HostCode:
    """Nodes compiled into one module, with memory for everything that they write.

    Nests that read what another one writes element by element are joined (:mod:`.fuse`), images
    between operators lie with their channels last (:mod:`.lying`), contractions get packed operands
    (:mod:`.pack`), and nests of the same structure are compiled once.

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
    threads : int
        How many run it. Results do not depend on it.
    processor : Processor or None
        What to compile for; by default this computer. It must be able to run it.

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
        processor: Processor | None = None,
    ):
        self.threads = threads
        self._first = {name: graph.tensors[name].data for name in graph.carried}
        self.graph = graph = _without_data(graph, graph.carried)
        written = [name for node in nodes for name in node.outputs if name]
        read = dict.fromkeys(name for node in nodes for name in node.inputs if name)
        self.inputs: tuple[str, ...] = tuple(
            n for n in read if n not in written and graph.tensors[n].data is None
        )
        """Tensors that :meth:`run` takes; those that are carried over begin with their data."""
        self.outputs: tuple[str, ...] = tuple(written if outputs is None else outputs)
        """Tensors that :meth:`run` gives."""
        self._memory: dict[str, np.ndarray] = {}
        self._scratch = np.zeros(0, np.uint8)
        plan = planned(graph, nodes, self.inputs, self.outputs)
        steps, self._views = plan.steps, plan.views
        ready = [s.ready(self._constant) if s.nest is not None else None for s in steps]
        self._scratch = aligned((max([0, *map(_scratch_bytes, filter(None, ready))]),), BYTE)
        parts = [phases(one.nest) if one is not None else [] for one in ready]
        shapes = [[anonymous(p.nest) for p in own] for own in parts]
        every = dict.fromkeys(nest for own in shapes for nest in own)
        names = {nest: f"nest{i}" for i, nest in enumerate(every)}
        nests = [replace(nest, name=name) for nest, name in names.items()]
        self.code = NativeCode(nests, (), 2, cache, True, processor) if nests else None
        for name in (*self.inputs, *self.outputs):
            self._array(name)
        self._steps: list[tuple[tuple[str, ...], list[list[Row]] | Run]] = []
        for one, step, own, forms in zip(ready, steps, parts, shapes, strict=True):
            if one is None:
                self._steps.append((step.nodes, self._numpy(step)))
                continue
            memory = self._arrays(one)
            rows = [self._rows(p, names[f], memory) for p, f in zip(own, forms, strict=True)]
            self._steps.append((step.nodes, rows))
        self._calls = self._joined([made for _, made in self._steps])

    def _constant(self, name: str) -> np.ndarray | None:
        return self.graph.tensors[name].data if name in self.graph.tensors else None

    def _arrays(self, step: Packed) -> dict[str, np.ndarray]:
        """Memory for a step's buffers, flat; what it has for itself lies where others' did."""
        arrays: dict[str, np.ndarray] = {}
        used = 0
        for buffer in sorted(step.nest.buffers, key=lambda b: b.name in step.views):
            name = buffer.name
            source = step.views.get(name, name)
            if name in step.constants:
                array = step.constants[name]
            elif source in arrays:
                array = arrays[source]
            elif name in step.scratch:
                array = self._scratch[used : used + bytes_of(buffer)].view(
                    numpy_dtype(buffer.dtype)
                )
                used += whole_lines(bytes_of(buffer))
            else:
                array = self._array(source)
            if array.dtype == bool:
                array = array.view(np.uint8)
            arrays[name] = array.reshape(buffer.shape)
        return arrays

    def _rows(self, phase: Phase, name: str, memory: Mapping[str, np.ndarray]) -> list[Row]:
        """The calls of a phase."""
        assert self.code is not None
        nest = self.code.nests[name]
        arrays = {
            b.name: memory[own.name]
            for b, own in zip(nest.buffers, phase.nest.buffers, strict=True)
        }
        call = self.code.prepare(name, arrays)
        return call.rows(phase.items) if phase.items else [call.row]

    def _array(self, name: str) -> np.ndarray:
        """Where a tensor lies, row by row or otherwise."""
        if name not in self._memory:
            tensor = self.graph.tensors[name]
            if name in self._views:
                array = self._array(self._views[name]).reshape(tensor.shape)
            elif tensor.data is not None:
                array = np.require(tensor.data, requirements=("C", "ALIGNED"))
            else:
                array = aligned(tensor.shape, element_dtype(tensor.dtype))
            self._memory[name] = array
        return self._memory[name]

    def _numpy(self, step: HostStep) -> Run:
        (name,), kernel = step.nodes, step.kernel
        assert kernel is not None
        inputs = [self._array(n) if n else None for n in step.arguments]
        outputs = [self._array(n) for n in step.writes]

        def run() -> None:
            for memory, value in zip(outputs, kernel(name, inputs), strict=True):
                memory[...] = value

        return run

    def _joined(self, made: Sequence[list[list[Row]] | Run]) -> list[Run]:
        """Neighbouring native calls as one."""
        runs: list[Run] = []
        rows: list[list[Row]] = []
        for one in (*made, None):
            if isinstance(one, list):
                rows += one
                continue
            if rows:
                runs.append(self._sequence(rows))
                rows = []
            if one is not None:
                runs.append(one)
        return runs

    def _sequence(self, parts: Sequence[Sequence[Row]]) -> Run:
        """Phases as one call."""
        assert self.code is not None
        if self.threads > 1 and any(len(rows) > 1 for rows in parts):
            return Phases(parts, self.threads)
        return self.code.prepared_sequence([row for rows in parts for row in rows])

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
            value = values.get(name, self._first.get(name))
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
        """What computes one node, and what was joined with it, on what memory holds."""
        (found,) = [made for nodes, made in self._steps if node in nodes]
        return self._sequence(found) if isinstance(found, list) else found


def _without_data(graph: Graph, names: Collection[str]) -> Graph:
    """``graph``, of which these tensors are no constants."""
    if not names:
        return graph
    opened = {name: replace(graph.tensors[name], data=None) for name in names}
    return replace(graph, tensors={**graph.tensors, **opened})


def _scratch_bytes(step: Packed) -> int:
    """Of all that a step has for itself alone."""
    return sum(whole_lines(bytes_of(b)) for b in step.nest.buffers if b.name in step.scratch)


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


def compile_nodes(
    graph: Graph,
    nodes: Sequence[Node],
    cache: Path | None = None,
    *,
    outputs: Sequence[str] | None = None,
    threads: int = 1,
) -> HostCode:
    """Native code for ``nodes``; see :class:`HostCode`."""
    return HostCode(graph, nodes, cache, outputs=outputs, threads=threads)
