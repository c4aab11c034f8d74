"""Weights of four bits: used where all lie in their range, refused with the range otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.compiler.compiled import BATCHED, SERIAL, SMALL, TINY, assert_equals_host, on_accelerator
from tests.networks import NetworkBuilder, random_inputs, random_network, single
from weft.compiler import compile_graph
from weft.compiler.artifact import HostStep
from weft.compiler.constants import Weights
from weft.compiler.graph import Graph
from weft.compiler.host import compile_nodes
from weft.compiler.levels import format_module, parse_module
from weft.compiler.module import Module
from weft.compiler.pipeline import run
from weft.compiler.remedy import remedy
from weft.isa.nest import I4
from weft.runtime.executor import Executor
from weft.sim import connect

NARROW = replace(TINY, wgt_width=4)
HARDWARE = {
    "tiny": NARROW,
    "small": replace(SMALL, wgt_width=4),
    "batched": replace(BATCHED, wgt_width=4),
    "serial": replace(SERIAL, wgt_width=4),
}


def narrowed(graph: Graph, low: int = -8, high: int = 7) -> Graph:
    """``graph`` with weights drawn from ``[low, high]``."""
    rng = np.random.default_rng(len(graph.nodes))
    tensors = {
        name: replace(t, data=rng.integers(low, high + 1, t.shape).astype(np.int8))
        if name.endswith(".weights")
        else t
        for name, t in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)


SINGLE = {
    "conv": ("conv", (1, 9, 7, 9), 10, 3),
    "few channels": ("conv", (1, 8, 8, 3), 5, 4),
    "depthwise": ("depthwise", (1, 9, 9, 9), 3),
    "fully connected": ("fc", (1, 33), 10),
}


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("kind", SINGLE)
def test_weights_that_fit_are_held_in_four_bits(kind, hardware):
    graph = narrowed(single(*SINGLE[kind]))
    config = HARDWARE[hardware]
    model = assert_equals_host(graph, config, random_inputs(graph))
    assert on_accelerator(model) == [graph.nodes[0].name]
    (weights,) = (s for s in model.segments if s.name.endswith(".wgt"))
    (wider,) = (
        s
        for s in compile_graph(graph, replace(config, wgt_width=8)).segments
        if s.name.endswith(".wgt")
    )
    assert 2 * weights.data.nbytes == wider.data.nbytes


@pytest.mark.parametrize("seed", range(4))
def test_random_networks_are_the_hosts(seed):
    graph = narrowed(random_network(900 + seed))
    config = list(HARDWARE.values())[seed % len(HARDWARE)]
    assert_equals_host(graph, config, random_inputs(graph, seed))


@pytest.mark.parametrize(("low", "high"), [(-9, 7), (-8, 8)])
def test_one_weight_beyond_the_range_is_refused_with_the_instruction_and_the_range(low, high):
    graph = narrowed(single(*SINGLE["conv"]), low, high)
    weights = next(t.data for n, t in graph.tensors.items() if n.endswith(".weights"))
    assert weights is not None
    (step,) = compile_graph(graph, NARROW).steps
    assert isinstance(step, HostStep)
    assert step.reason == (
        f"weights from {weights.min()} to {weights.max()}; load.wgt loads i4, from -8 to 7"
    )
    assert remedy(graph, graph.nodes[0], NARROW) == "hardware with wgt_width = 8"


def test_pools_and_sums_need_no_weights_beyond_four_bits():
    n = NetworkBuilder("pools", 3)
    x = n.input(1, 8, 8, 5)
    x = n.add(x, n.max_pool(x, 3))
    n.average_pool(n.max_pool(x, 2, strides=2, padding="valid"), 2, padding="valid")
    graph = n.graph()
    model = assert_equals_host(graph, NARROW, random_inputs(graph))
    assert len(on_accelerator(model)) == 4


def test_lanes_lie_in_dram_from_the_low_bits_up():
    rng = np.random.default_rng(1)
    data = rng.integers(-8, 8, (2, 3, 1, 2, 4, 4)).astype(np.int8)
    made = Weights(data, ((0, 1, 2),) * 2, I4)
    flat = [int(v) & 15 for v in data.reshape(-1)]
    pairs = zip(flat[::2], flat[1::2], strict=True)
    assert made.in_dram().tolist() == [low + 16 * high for low, high in pairs]
    assert made.element_bytes == 8
    assert made.strides == (6, 2, 0, 1)


@pytest.mark.parametrize("level", ["nests", "schedule", "stream"])
def test_every_level_goes_on_to_the_same_bytes(level):
    start = Module(narrowed(single(*SINGLE["conv"])), NARROW)
    whole = run(start).model
    again = run(parse_module(format_module(run(start, level)))).model
    assert [s.data.tobytes() for s in again.segments] == [s.data.tobytes() for s in whole.segments]


@pytest.mark.deep
def test_a_network_with_four_bit_weights_runs_on_the_rtl():
    n = NetworkBuilder("narrow", 5)
    y = n.depthwise(n.conv(n.input(1, 6, 6, 3), 8, 3, activation="relu"), 3)
    n.fc(n.reshape(n.average_pool(n.conv(y, 8, 1), 6, padding="valid"), 1, 8), 5)
    graph = narrowed(n.graph())
    model = compile_graph(graph, NARROW)
    inputs = random_inputs(graph)
    expected = compile_nodes(graph, graph.nodes).run(inputs)
    with connect("rtl", NARROW, dram_bytes=1 << 20) as device:
        outputs = Executor(model, device)(inputs)[0]
    assert len(on_accelerator(model)) >= 5
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, expected[name])
