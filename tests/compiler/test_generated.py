"""Random networks on five machines, bit for bit what the host computes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import weft
from tests.compiler.compiled import BATCHED, SERIAL, SMALL, TINY, outputs_of
from tests.networks import STEPS, NetworkBuilder, random_inputs
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.graph import Graph
from weft.compiler.host import compile_nodes
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig
from weft.runtime.network import Network

HARDWARE = (
    SMALL,
    replace(BATCHED, batch=4, inp_bytes=1024, acc_bytes=4096),
    SERIAL,
    replace(TINY, overwrite=False, depthwise_taps=0, bus_bytes=32),
    AcceleratorConfig.preset("edge"),
)
"""Nearly no scratchpads; four images a step; queues of one token; without two extensions, and a
bus wider than an element; a usual one."""


def generated(seed: int) -> Graph:
    """A chain of 1 to 6 operators over images from 1 x 1 to 37 x 37, in batches of up to 8."""
    rng = np.random.default_rng(seed)
    n = NetworkBuilder(f"generated_{seed}", seed)
    batch = int(rng.choice([1, 1, 1, 2, 3, 8]))
    most = 37 if batch < 3 else 9
    height, width = (min(most, int(v)) for v in rng.choice([1, 1, 2, 3, 6, 9, 16, 37], 2))
    x = n.input(batch, height, width, int(rng.choice([1, 2, 3, 4, 7, 13, 24])))
    earlier = [x]
    for _ in range(rng.integers(1, 6)):
        if rng.random() < 0.15:
            shape = (1,) if rng.integers(2) else n.shape(x)
            other = n.constant(*shape) if rng.integers(2) else x
            x = n.arithmetic(str(rng.choice(["add", "sub", "mul"])), x, other)
        else:
            x = STEPS[rng.integers(len(STEPS))](n, x, rng, earlier)
        earlier.append(x)
    if rng.random() < 0.3:
        flat = n.reshape(x, batch, int(np.prod(n.shape(x)[1:])))
        x = n.fc(flat, int(rng.integers(1, 40)), per_channel=bool(rng.integers(2)))
    return n.graph(x)


def assert_equal_everywhere(seed: int) -> Counter[str]:
    """Counts where the nodes ran."""
    graph = generated(seed)
    inputs = random_inputs(graph, seed)
    expected = compile_nodes(graph, graph.nodes).run(inputs)
    where: Counter[str] = Counter()
    for config in HARDWARE:
        model = compile_graph(graph, config)
        for name, value in outputs_of(model, inputs).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{seed} on {config}")
        for step in model.steps:
            side = "accelerator" if isinstance(step, AcceleratorStep) else "cpu"
            where[side] += len(step.nodes)
    return where


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_a_generated_network_is_bit_exact_on_five_machines(seed):
    assert assert_equal_everywhere(seed)["accelerator"]


@pytest.mark.deep
@pytest.mark.parametrize("part", range(10))
def test_three_hundred_generated_networks_are_bit_exact_on_five_machines(part):
    where: Counter[str] = Counter()
    for seed in range(100 + 30 * part, 130 + 30 * part):
        where += assert_equal_everywhere(seed)
    assert where["accelerator"] > where["cpu"]


@pytest.mark.deep
def test_thirty_generated_networks_are_bit_exact_on_the_rtl():
    on_accelerator = 0
    for seed in range(400, 430):
        graph = generated(seed)
        inputs = random_inputs(graph, seed)
        expected = compile_nodes(graph, graph.nodes).run(inputs)
        network = Network(graph.name, graph, graph.name)
        with weft.jit(network, TINY, "rtl") as run:
            outputs = run(*(inputs[name] for name in graph.inputs))
            on_accelerator += run.report()["totals"]["offload_macs"] > 0
        arrays = outputs if isinstance(outputs, tuple) else (outputs,)
        for name, value in zip(graph.outputs, arrays, strict=True):
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{seed}")
    assert on_accelerator > 20
