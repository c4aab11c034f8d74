"""Every tensor that a network computes, on the host or on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..compiler.artifact import AcceleratorStep
from ..compiler.graph import Graph
from ..compiler.host import reason_against
from ..compiler.pipeline import compile_graph
from ..compiler.quantize.calls import called
from ..isa.config import AcceleratorConfig
from ..sim import connect
from .executor import Executor


class Trace:
    """A network that shows all its tensors: ``trace(values)`` is a value for every one by name.

    On a device every tensor is an output of the network, so that none is overwritten by a later
    one; the programs are otherwise those that run.

    Parameters
    ----------
    graph : Graph
        The network. Float operators of TFLite that do not run become those of the catalog.
    config : AcceleratorConfig
        The hardware, for a device.
    on : str
        ``cpu``, ``functional`` or ``rtl``.
    **device_options
        For :func:`weft.sim.connect`.
    """

    def __init__(self, graph: Graph, config: AcceleratorConfig, on: str, **device_options: Any):
        if any(reason_against(graph, node) for node in graph.nodes):
            graph = called(graph)
        self.graph = graph
        self.names: tuple[str, ...] = tuple(name for node in graph.nodes for name in node.outputs)
        """The tensors, in the order in which they are computed."""
        shown = replace(graph, outputs=self.names)
        model = compile_graph(shown, config, placement="cpu" if on == "cpu" else "auto")
        device = None
        if any(isinstance(step, AcceleratorStep) for step in model.steps):
            device_options.setdefault("dram_bytes", max(256 << 20, model.dram_bytes))
            device = connect(on, config, **device_options)
        self.executor = Executor(model, device)

    def __call__(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All tensors for one sample, given the inputs."""
        return self.executor(values)[0]

    def close(self) -> None:
        """Give the device back."""
        if self.executor.device is not None:
            self.executor.device.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
