"""Random networks on five machines, bit for bit what the host computes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.compiler.compiled import BATCHED, SERIAL, SMALL, TINY, outputs_of
from tests.networks import STEPS, NetworkBuilder, random_inputs, unsigned
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.graph import Conv2D, DepthwiseConv2D, Graph, op_name
from weft.compiler.host import compile_nodes
from weft.compiler.pipeline import compile_graph
from weft.compiler.tflite.signed import signed
from weft.isa import AcceleratorConfig, MissingToolError
from weft.runtime.executor import Executor
from weft.sim import connect

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
    """A chain of 1 to 6 operators over images from 1 x 1 to 37 x 37, in batches of up to 8.

    Now and then a row of pixels, a legacy network of unsigned bytes with weights that have zero
    points, more channels from one than lanes, or a tensor larger than every scratchpad.
    """
    rng = np.random.default_rng(seed)
    legacy = seed % 4 == 1
    n = NetworkBuilder(f"generated_{seed}", seed, asymmetric=legacy)
    batch = int(rng.choice([1, 1, 1, 2, 3, 8]))
    most = 37 if batch < 3 else 9
    height, width = (min(most, int(v)) for v in rng.choice([1, 1, 2, 3, 6, 9, 16, 37], 2))
    if rng.random() < 0.1:
        height, width = (1, 61) if rng.integers(2) else (61, 1)
    x = n.input(batch, height, width, int(rng.choice([1, 2, 3, 4, 7, 13, 24])))
    earlier = [x]
    for _ in range(rng.integers(1, 6)):
        which = rng.random()
        if which < 0.15:
            shape = (1,) if rng.integers(2) else n.shape(x)
            other = n.constant(*shape) if rng.integers(2) else x
            x = n.arithmetic(str(rng.choice(["add", "sub", "mul"])), x, other)
        elif which < 0.2 and n.shape(x)[3] < 8:
            x = n.depthwise(x, (3, 2), multiplier=8, activation="relu")
        elif which < 0.23:
            x = n.requantize(x)
        elif which < 0.28 and min(n.shape(x)[1:3]) > 1:
            x = n.conv(x, int(rng.integers(1, 20)), 3, activation="relu")
            x = n.max_pool(x, 2, strides=2, padding="valid")
        else:
            x = STEPS[rng.integers(len(STEPS))](n, x, rng, earlier)
        earlier.append(x)
    if rng.random() < 0.3:
        flat = n.reshape(x, batch, int(np.prod(n.shape(x)[1:])))
        x = n.fc(flat, int(rng.integers(1, 40)), per_channel=bool(rng.integers(2)))
    return signed(unsigned(n.graph(x))) if legacy else n.graph(x)


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


def test_generated_networks_have_every_operator_that_the_accelerator_runs():
    graphs = [generated(seed) for seed in range(100, 190)]
    kinds = Counter(op_name(node.op) for graph in graphs for node in graph.nodes)
    assert kinds.keys() >= {
        "Conv2D", "DepthwiseConv2D", "FullyConnected", "Add", "Sub", "Mul", "AveragePool2D",
        "MaxPool2D", "tfl.quantize",
    }  # fmt: skip
    nodes = [node for graph in graphs for node in graph.nodes]
    assert any(isinstance(n.op, DepthwiseConv2D) and n.op.multiplier == 8 for n in nodes)
    windows = [n.op.window for n in nodes if isinstance(n.op, Conv2D | DepthwiseConv2D)]
    assert any(max(w.dilations) > 1 for w in windows)
    assert any(w.strides[0] != w.strides[1] for w in windows)
    tensors = [t for graph in graphs for t in graph.tensors.values()]
    weights = [t for t in tensors if t.name.endswith("weights") and t.quant is not None]
    assert any(any(t.quant.zero_point) for t in weights if t.quant is not None)
    images = [t.shape for t in tensors if t.data is None and len(t.shape) == 4]
    assert {(1, 1), (1, 61), (61, 1)} <= {shape[1:3] for shape in images}
    assert {shape[0] for shape in images} == {1, 2, 3, 8}
    assert sum(math.prod(shape) > TINY.inp_bytes for shape in images) > 5


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
@pytest.mark.parametrize("part", range(len(HARDWARE)))
def test_thirty_generated_networks_are_bit_exact_on_the_rtl_of_five_machines(part):
    config = HARDWARE[part]
    try:
        device = connect("rtl", config, dram_bytes=8 << 20)
    except MissingToolError as error:
        pytest.skip(str(error))
    with device:
        for seed in range(500 + 6 * part, 506 + 6 * part):
            graph = generated(seed)
            inputs = random_inputs(graph, seed)
            expected = compile_nodes(graph, graph.nodes).run(inputs)
            model = compile_graph(graph, config)
            outputs, _ = Executor(model, device)(inputs)
            for name, value in outputs.items():
                np.testing.assert_array_equal(value, expected[name], err_msg=f"{seed}")
