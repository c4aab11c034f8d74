"""Running compiled networks for tests: small hardware, and the host as reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from weft.compiler.artifact import AcceleratorStep, CompiledModel
from weft.compiler.graph import Graph
from weft.compiler.host import compile_nodes
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig
from weft.runtime.executor import Executor
from weft.sim import Device, connect

TINY = AcceleratorConfig.preset("tiny")
SMALL = replace(TINY, inp_bytes=256, wgt_bytes=256, acc_bytes=512, uop_bytes=128, qnt_bytes=128)
"""64 INP, 16 WGT, 32 ACC, 32 UOP and 2 QNT elements of 4 lanes: nearly nothing fits at once."""
BATCHED = replace(SMALL, batch=2, inp_bytes=512, acc_bytes=2048, qnt_bytes=512, wgt_bytes=512)
"""Two images in an element."""
SERIAL = replace(SMALL, acc_bytes=1024, qnt_bytes=256, token_depth=1)
"""Queues of one token."""
HARDWARE = {"tiny": TINY, "small": SMALL, "batched": BATCHED, "serial": SERIAL}


@lru_cache(maxsize=8)
def device_for(config: AcceleratorConfig) -> Device:
    """A functional device that tests share; programs do not rely on what is left in it."""
    return connect("functional", config, dram_bytes=8 << 20)


def outputs_of(model: CompiledModel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One inference on the functional device."""
    device = device_for(model.config)
    device.dram[:] = 0xA5  # whatever is read before it is written is conspicuous
    return Executor(model, device)(inputs)[0]


def assert_equals_host(
    graph: Graph, config: AcceleratorConfig, inputs: Mapping[str, np.ndarray]
) -> CompiledModel:
    """The compiled network computes what the host computes, bit for bit."""
    model = compile_graph(graph, config)
    expected = compile_nodes(graph, graph.nodes).run(inputs)
    for name, value in outputs_of(model, inputs).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    return model


def on_accelerator(model: CompiledModel) -> list[str]:
    """Names of the nodes that run there."""
    return [step.name for step in model.steps if isinstance(step, AcceleratorStep)]
