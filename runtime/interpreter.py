"""Every level of the compiler run as it stands: the same inputs give the same bits at each.

* ``graph``: the nodes as native code, as on a machine without accelerator;
* ``nests``: each node's nest by :mod:`weft.isa.interpret`, plain numpy;
* ``schedule``: the actions of each layer as the schedule has them, one after another on one
  machine by the instructions' meanings, before any of them may run ahead and before tokens;
* ``stream``: the emitted programs, by default on the golden model.

States that a graph carries from one inference to the next begin anew with every sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..compiler.allocate import Constants
from ..compiler.artifact import AcceleratorStep, CompiledModel
from ..compiler.graph import Graph, element_dtype
from ..compiler.host import compile_nodes
from ..compiler.module import Module
from ..compiler.operators import Kernel, Operator
from ..compiler.pipeline import emitted, run
from ..isa.errors import DataError
from ..isa.interpret import interpret as interpret_nest
from ..isa.storage import numpy_dtype
from ..sim.functional import FunctionalDevice
from ..sim.plain import GoldenDevice, SerialDevice
from .executor import Executor
from .jit import Run, first_module

Values = Mapping[str, np.ndarray]
MACHINES = {"golden": GoldenDevice, "functional": FunctionalDevice}
"""What runs a stream."""


def interpret(module: Module, inputs: Values, machine: str = "golden") -> dict[str, np.ndarray]:
    """The outputs of a network at whatever level it is.

    Parameters
    ----------
    module : Module
        Of any level; its passes need not have run any further.
    inputs : mapping
        An array for each of the graph's inputs, of its type and shape.
    machine : str
        For a stream: ``golden``, or ``functional``, which is hundreds of times faster.

    Returns
    -------
    dict
        The graph's outputs, by name.

    Raises
    ------
    DataError
        If an input is absent, or of another type or shape.
    """
    values = _checked(module.graph, inputs)
    match module.level:
        case "graph":
            made = _compiled(run(module, "graph").graph, values)
        case "nests":
            made = _nests(module, values)
        case "schedule":
            placed = run(module, "schedule")
            made = _executed(emitted(placed, as_written=True).model, SerialDevice, values)
        case "stream":
            made = _executed(module.model, MACHINES[machine], values)
    known = {**values, **made}
    return {name: _value(module.graph, name, known) for name in module.graph.outputs}


class Interpreted(Run):
    """A network on the interpreter of the level that it is at; see :func:`.jit.jit`.

    There are no cycles and nothing to report.
    """

    def _run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        graph = self.network.graph
        return interpret(self._module(), dict(zip(graph.inputs, inputs, strict=True)))

    def _module(self) -> Module:
        made = self.network.compiled
        if made is None:
            return first_module(self.network, self.config, on_host=self._on_host)
        constants = Constants(made.dram_bytes, list(made.segments))
        return Module(
            made.graph, made.config, level="stream", tensors=made.tensors, constants=constants,
            steps=made.steps,
        )  # fmt: skip


def _checked(graph: Graph, inputs: Values) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    for name in graph.inputs:
        tensor, value = graph.tensors[name], inputs.get(name)
        expected = element_dtype(tensor.dtype)
        if value is None or value.dtype != expected or value.shape != tensor.shape:
            came = "nothing" if value is None else f"{value.dtype}{list(value.shape)}"
            raise DataError(f"input {name!r} takes {expected}{list(tensor.shape)}, not {came}")
        values[name] = np.require(value, requirements="C")
    return values


def _value(graph: Graph, name: str, values: Values) -> np.ndarray:
    """A tensor's value, which may be a constant."""
    if name in values:
        return values[name]
    data = graph.tensors[name].data
    assert data is not None, name
    return data


def _compiled(graph: Graph, values: Values) -> dict[str, np.ndarray]:
    """Of all nodes together: which sums of floats are one, depends on what else is asked for."""
    written = {name for node in graph.nodes for name in node.outputs}
    outputs = [name for name in graph.outputs if name in written]
    return compile_nodes(graph, graph.nodes, outputs=outputs).run(values)


def _executed(
    model: CompiledModel,
    device: type[GoldenDevice] | type[FunctionalDevice],
    values: Values,
) -> dict[str, np.ndarray]:
    if not any(isinstance(step, AcceleratorStep) for step in model.steps):
        return Executor(model, None)(values)[0]
    with device(model.config, dram_bytes=max(1, model.dram_bytes)) as opened:
        return Executor(model, opened)(values)[0]


def _nests(module: Module, inputs: Values) -> dict[str, np.ndarray]:
    """Node after node."""
    assert module.nests is not None
    graph, values = module.graph, dict(inputs)
    for node in graph.nodes:
        operator = module.nests[node.name]
        for name in node.outputs:
            tensor = graph.tensors[name]
            values[name] = np.zeros(tensor.shape, element_dtype(tensor.dtype))
        if not any(values[name].size for name in node.outputs):
            continue
        if isinstance(operator, Kernel):
            given = [_value(graph, name, values) if name else None for name in node.inputs]
            for name, made in zip(node.outputs, operator(node.name, given), strict=True):
                values[name][...] = made
        else:
            _nest(graph, operator, values)
    return values


def _nest(graph: Graph, operator: Operator, values: Values) -> None:
    arrays: dict[str, np.ndarray] = {}
    for buffer in operator.nest.buffers:
        if buffer.name in operator.constants:
            array = operator.constants[buffer.name]
        elif buffer.name in operator.scratch:
            array = np.zeros(buffer.shape, numpy_dtype(buffer.dtype))
        else:
            array = _value(graph, buffer.name, values)
        if array.dtype == bool:
            array = array.view(np.uint8)
        arrays[buffer.name] = array.reshape(buffer.shape)
    interpret_nest(operator.nest, {}, arrays)
