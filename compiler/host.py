"""Nodes of the tensor graph as native code for the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..isa.errors import DataError
from ..isa.native import LinkedCode, NativeCode, Processor, Row, kept_object, this_processor
from ..isa.nest import Block, Load, Nest, Store
from ..isa.pool import Phases
from ..isa.tiles import Target
from ..isa.traverse import distinct
from .flatten import flattened
from .graph import Graph, Node, element_dtype
from .items import phases
from .memory import aligned, bytes_of, whole_lines
from .operators import Operator, lowered, reason_against
from .pack_forms import Packed
from .plan import HostStep, anonymous, planned
from .prepared import Called, Place, Prepared, Step, key_of

__all__ = ["HostCode", "compile_nodes", "reason_against"]


Run = Callable[[], None]
"""One node, on memory that is already there."""
Function = tuple[int, int, list[tuple[int, int]]]
"""Of a statement: its number, how many items it has, and which of the statement's buffers it takes,
with their first extents."""


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
        path = cache / f"{key_of(graph, nodes, self.outputs, processor)}.plan" if cache else None
        made = path and cache and Prepared.load(path)
        code = kept_object(cache / f"{made.code}.code") if made and cache and made.code else None
        if made and (code or not made.code):
            self.code = LinkedCode(code, made.names()) if code else None
        else:
            target = (processor or this_processor()).target
            made, nests = prepared(graph, nodes, self.inputs, self.outputs, target)
            self.code = NativeCode(nests, (), 2, cache, True, processor) if nests else None
            if path:
                made.code = self.code.key if isinstance(self.code, NativeCode) else ""
                made.save(path)
        self._views = made.views
        self._steps = self._bound(made, {node.name: node for node in nodes})
        self._calls = self._joined([calls for _, calls in self._steps])

    def _bound(
        self, made: Prepared, nodes: Mapping[str, Node]
    ) -> list[tuple[tuple[str, ...], list[list[Row]] | Run]]:
        """For each step its nodes and its calls, phase by phase, on memory that is there."""
        for name in (*self.inputs, *self.outputs):
            self._array(name)
        scratch = aligned((made.scratch,), np.dtype(np.uint8))
        calls = [call for step in made.steps for call in step.calls]
        items = np.arange(max([1, *(call.items for call in calls)]), dtype=np.int64)
        tables = np.zeros((sum(len(call.buffers) for call in calls), 2), np.int64)
        arrays = [array.ctypes.data for array in made.arrays]
        functions = [self.code.address(name) for name in made.names()] if self.code else []
        keep = self.code, scratch, items, tables, made.arrays, self._memory
        first, at, base = items.ctypes.data, tables.ctypes.data, scratch.ctypes.data
        used = 0
        steps: list[tuple[tuple[str, ...], list[list[Row]] | Run]] = []
        for step in made.steps:
            if not step.calls:
                steps.append((step.nodes, self._numpy(step, nodes[step.nodes[0]])))
                continue
            phases: list[list[Row]] = []
            for call in step.calls:
                table = at + 16 * used
                for (kind, where), extent in call.buffers:
                    if isinstance(where, str):
                        address = self._array(where).ctypes.data
                    else:
                        address = arrays[where] if kind == "array" else base + where
                    tables[used] = address, extent
                    used += 1
                function = functions[call.function]
                rows = range(max(1, call.items))
                phases.append([(function, first + 8 * k, table, keep) for k in rows])
            steps.append((step.nodes, phases))
        return steps

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

    def _numpy(self, step: Step, node: Node) -> Run:
        name, kernel = node.name, lowered(self.graph, node)
        assert not isinstance(kernel, Operator)
        inputs = [self._array(n) if n else None for n in step.arguments]
        outputs = [self._array(n) for n in step.results]

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


def prepared(
    graph: Graph, nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str],
    target: Target,
) -> tuple[Prepared, list[Nest]]:  # fmt: skip
    """What runs some nodes, and the functions that it calls; those of equal structure are one."""
    plan = planned(graph, nodes, inputs, outputs)
    made = Prepared(views=plan.views)
    numbers: dict[Nest, int] = {}
    known: dict[Nest, list[Function]] = {}

    def constant(name: str) -> np.ndarray | None:
        return graph.tensors[name].data if name in graph.tensors else None

    for step in plan.steps:
        if step.nest is None:
            made.steps.append(Step(step.nodes, (), step.arguments, step.writes))
            continue
        one, names = step.ready(constant, target)
        places = _places(one, {f"b{k}": name for k, name in enumerate(names)}, step, made)
        calls = [
            Called(number, items, tuple((places[name], extent) for name, extent in buffers))
            for number, items, buffers in _functions(one.nest, numbers, known)
        ]
        made.steps.append(Step(step.nodes, tuple(calls)))
    made.functions = len(numbers)
    return made, [
        replace(nest, name=name) for nest, name in zip(numbers, made.names(), strict=True)
    ]


def _functions(
    nest: Nest, numbers: dict[Nest, int], known: dict[Nest, list[Function]]
) -> Iterator[tuple[int, int, list[tuple[str, int]]]]:
    """The phases of a nest: number of the function, items, and the buffers that it takes, each with
    its first extent. Functions that are new are added; what became of a statement is known."""
    for stmt in nest.body.stmts if isinstance(nest.body, Block) else (nest.body,):
        used = {n.buffer for n in distinct(stmt) if isinstance(n, Load | Store)}
        own = tuple(b for b in nest.buffers if b.name in used)
        form = anonymous(replace(nest, buffers=own, body=stmt))
        functions = known.get(form)
        if functions is None:
            functions = known[form] = []
            at = {buffer.name: k for k, buffer in enumerate(form.buffers)}
            for phase in phases(flattened(form)):
                number = numbers.setdefault(anonymous(phase.nest), len(numbers))
                taken = [(at[b.name], b.shape[0] if b.shape else 1) for b in phase.nest.buffers]
                functions.append((number, phase.items, taken))
        for number, items, taken in functions:
            yield number, items, [(own[k].name, extent) for k, extent in taken]


def _places(
    one: Packed, names: Mapping[str, str], step: HostStep, made: Prepared
) -> dict[str, Place]:
    """Where a step's buffers lie; what it has for itself alone, where others' did."""
    places: dict[str, Place] = {}
    used = 0
    for buffer in sorted(one.nest.buffers, key=lambda b: b.name in one.views):
        name = one.views.get(buffer.name, buffer.name)
        own = names.get(name, name)
        array = one.constants.get(name, step.constants.get(own))
        if array is not None:
            assert array.size == math.prod(buffer.shape), own
            places[buffer.name] = "array", len(made.arrays)
            made.arrays.append(np.require(array, requirements=("C", "ALIGNED")))
        elif name in places:
            places[buffer.name] = places[name]
        elif name in one.scratch or own in step.scratch:
            places[buffer.name] = "scratch", used
            used += whole_lines(bytes_of(buffer))
        else:
            places[buffer.name] = "tensor", own
    made.scratch = max(made.scratch, used)
    return places


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
