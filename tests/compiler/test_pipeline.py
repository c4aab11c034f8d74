from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.compiler import graphs
from tests.compiler.compiled import (
    BATCHED,
    HARDWARE,
    SERIAL,
    SMALL,
    TINY,
    assert_equals_host,
    on_accelerator,
    outputs_of,
)
from tests.networks import (
    NetworkBuilder,
    arithmetic,
    every_operator,
    random_inputs,
    random_network,
    single,
)
from weft.compiler.allocate import FIRST_ADDRESS, Life, share
from weft.compiler.artifact import AcceleratorStep, HostStep
from weft.compiler.graph import Conv2D, Graph, Mul, Node, Opaque, Quant, Tensor, Window
from weft.compiler.host import compile_nodes
from weft.compiler.pipeline import PASSES, compile_graph
from weft.isa import AcceleratorConfig, InstructionSet, UnsupportedError
from weft.isa.assembly import disassemble
from weft.isa.nest import I8

OFTEN = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
configs = st.sampled_from([TINY, SMALL, BATCHED, SERIAL])
activations = st.sampled_from(["none", "relu", "relu6"])


def assert_runs(graph: Graph, config: AcceleratorConfig, seed: int = 0) -> None:
    """Every node is on the accelerator, and the result is the host's."""
    model = assert_equals_host(graph, config, random_inputs(graph, seed))
    assert on_accelerator(model) == [node.name for node in graph.nodes]


def test_a_node_that_changes_nothing_is_passed_on():
    weights = graphs.bytes_of(np.random.default_rng(1), (4, 3, 3, 3))
    halved = graphs.tensor("half", (), 2**-6, 0, np.array(64, np.int8))
    tensors = [
        graphs.tensor("x", (1, 6, 6, 3), 0.25, -7),
        halved,
        graphs.tensor("same", (1, 6, 6, 3), 0.25, -7),
        Tensor("w", I8, weights.shape, Quant((0.01,), (0,)), weights),
        graphs.tensor("y", (1, 4, 4, 4), 0.5, 3),
    ]
    nodes = [Node("mul", Mul(), ("x", "half"), ("same",)),
             Node("conv", Conv2D(Window((3, 3))), ("same", "w", ""), ("y",))]  # fmt: skip
    graph = graphs.graph_of(tensors, nodes)
    model = assert_equals_host(graph, TINY, random_inputs(graph, 0))
    assert on_accelerator(model) == ["conv"]
    (copied, _) = model.steps
    assert isinstance(copied, HostStep)
    assert "changes nothing" in copied.reason
    doubled = replace(halved, quant=Quant((2**-5,), (0,)))
    graph = graphs.graph_of([t if t.name != "half" else doubled for t in tensors], nodes)
    assert on_accelerator(assert_equals_host(graph, TINY, random_inputs(graph, 0))) == [
        "mul",
        "conv",
    ]


# --- one operator, equal to the host -------------------------------------------------------------


@st.composite
def windows(draw, height: int, width: int, dilated: bool = True) -> dict[str, object]:
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilations = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if dilated else (1, 1)
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    fits = reach[0] <= height and reach[1] <= width
    padding = draw(st.sampled_from(["same", "valid"])) if fits else "same"
    return {"size": size, "strides": strides, "dilations": dilations, "padding": padding}


images = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 11))
seeds = st.integers(0, 1000)


@OFTEN
@given(st.data(), images, st.integers(1, 11), configs, activations, seeds)
def test_a_convolution(data, shape, channels, config, activation, seed):
    window = data.draw(windows(*shape[1:3]))
    assert_runs(single("conv", shape, channels, activation=activation, seed=seed, **window), config)


@OFTEN
@given(st.data(), images, st.integers(1, 3), configs, seeds)
def test_a_depthwise_convolution(data, shape, multiplier, config, seed):
    window = data.draw(windows(*shape[1:3]))
    assert_runs(single("depthwise", shape, multiplier=multiplier, seed=seed, **window), config)


@OFTEN
@given(st.integers(1, 5), st.integers(1, 90), st.integers(1, 40), configs, seeds)
def test_a_fully_connected_layer(rows, depth, units, config, seed):
    assert_runs(single("fc", (rows, depth), units, seed=seed), config)


@OFTEN
@given(images, st.integers(1, 9), st.sampled_from([TINY, BATCHED]), seeds)
def test_a_fully_connected_layer_over_an_image(shape, units, config, seed):
    assert_runs(single("fc", shape, units, seed=seed), config)


@OFTEN
@given(
    st.sampled_from(["add", "sub", "mul"]),
    st.sampled_from([(1, 12, 13, 9), (2, 3, 5), (3, 70), (90,), (1, 1, 1, 1)]),
    st.sampled_from([TINY, BATCHED, SERIAL]),
    activations,
    seeds,
)
def test_a_sum_a_difference_or_a_product(kind, shape, config, activation, seed):
    assert_runs(arithmetic(kind, shape, shape, activation=activation, seed=seed), config)


@OFTEN
@given(st.sampled_from(["add", "sub", "mul"]), images, configs, activations, seeds)
def test_arithmetic_with_a_number(kind, shape, config, activation, seed):
    graph = arithmetic(kind, shape, (1,), constant=True, activation=activation, seed=seed)
    assert_runs(graph, config)


@OFTEN
@given(st.data(), images, configs, activations, seeds)
def test_a_maximum_pool(data, shape, config, activation, seed):
    window = data.draw(windows(*shape[1:3], dilated=False))
    del window["dilations"]
    graph = single("max_pool", shape, activation=activation, seed=seed, **window)
    assert_runs(graph, config)


@OFTEN
@given(st.data(), images, st.sampled_from([TINY, BATCHED]), activations, seeds)
def test_an_average_pool_inside_of_the_image(data, shape, config, activation, seed):
    size = tuple(data.draw(st.integers(1, min(extent, 6))) for extent in shape[1:3])
    strides = data.draw(st.integers(1, 3))
    graph = single("average_pool", shape, size, strides=strides, padding="valid",
                   activation=activation, seed=seed)  # fmt: skip
    assert_runs(graph, config)


@pytest.mark.parametrize("name", HARDWARE)
@pytest.mark.parametrize(
    "graph",
    [
        single("conv", (1, 30, 30, 10), 9, 3),  # images beyond every scratchpad
        single("conv", (1, 3, 3, 70), 30, 3),  # and weights
        single("conv", (2, 9, 50, 3), 5, (1, 3), strides=(2, 1)),
        single("conv", (1, 3, 90, 4), 4, 3),
        single("conv", (1, 7, 101, 4), 4, 3, strides=2, padding="valid"),
        single("depthwise", (1, 20, 17, 21), 3, strides=2),
        single("average_pool", (1, 9, 5, 7), (9, 5), padding="valid"),
        single("fc", (2, 300), 70),
        single("max_pool", (1, 25, 25, 9), 2, strides=2),
    ],
    ids=["image", "weights", "rows", "wide", "strided", "depthwise", "average", "fc", "pool"],
)
def test_tensors_larger_than_every_scratchpad(graph, name):
    assert_runs(graph, HARDWARE[name])


def test_several_outputs_and_a_tensor_that_is_read_twice():
    n = NetworkBuilder(seed=3)
    x = n.conv(n.input(1, 6, 6, 5), 8)
    y = n.add(x, x)
    z = n.conv(y, 4, 1)
    graph = n.graph(x, z, y)
    assert_equals_host(graph, TINY, random_inputs(graph))


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed):
    graph = random_network(seed)
    config = list(HARDWARE.values())[seed % 4]
    assert_equals_host(graph, config, random_inputs(graph, seed))


# --- what compilation leaves ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return compile_graph(every_operator(), TINY)


def test_nothing_overlaps_that_lives_at_the_same_time(model):
    spans = sorted((s.address, s.address + s.data.nbytes) for s in model.segments)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert spans[0][0] >= FIRST_ADDRESS
    assert spans[-1][1] <= model.dram_bytes
    for tensor in model.tensors.values():
        assert FIRST_ADDRESS <= tensor.address < spans[0][0]
        assert tensor.address % 64 == 0


def test_every_program_is_at_its_address_and_ends(model):
    instructions = InstructionSet(TINY)
    segments = {s.address: s.data for s in model.segments}
    for step in model.steps:
        if isinstance(step, AcceleratorStep):
            program = step.program
            words = segments[program.address].tobytes()
            assert len(words) == 16 * program.count
            decoded = [
                instructions.encode(
                    instructions.decode(int.from_bytes(words[i : i + 16], "little"))
                )
                for i in range(0, len(words), 16)
            ]
            assert decoded == [instructions.encode(i) for i in program.instructions]
            names = [i.operation for i in program.instructions]
            assert names.index("finish") == program.count - 1


def test_macs_are_those_of_the_mathematics(model):
    macs = {step.name: step.macs for step in model.steps}
    assert macs["conv_0"] == 10 * 10 * 16 * 27
    assert macs["depthwise_1"] == 10 * 10 * 16 * 9
    assert macs["add_3"] == 0


def test_compulsory_bytes_are_each_tensor_once(model):
    (step,) = [s for s in model.steps if s.name == "conv_0"]
    assert isinstance(step, AcceleratorStep)
    assert step.compulsory_bytes == 300 + 16 * 27 + 4 * 16 + 1600


def test_neighbours_on_the_host_share_a_step(model):
    hosts = [step for step in model.steps if isinstance(step, HostStep)]
    assert [step.op for step in hosts] == ["Softmax"], "a reshape before a product is no step"
    n = NetworkBuilder()
    n.softmax(n.reshape(n.input(1, 2, 2, 3), 1, 12))
    (step,) = compile_graph(n.graph(), TINY).steps
    assert step.nodes == ("reshape_0", "softmax_1")
    assert isinstance(step, HostStep)
    assert step.reason == (
        "reshape_0: a copy; there is nothing to compute; "
        "softmax_1: Softmax needs memory for intermediate values"
    )


def test_nodes_can_be_kept_on_the_host():
    graph = every_operator()
    mixed = assert_equals_host_with(graph, frozenset({"conv_0", "add_3"}))
    assert "conv_0" not in mixed
    assert "conv_2" in mixed
    model = compile_graph(graph, TINY, placement="cpu")
    (step,) = model.steps
    assert isinstance(step, HostStep)
    assert model.segments == ()


def assert_equals_host_with(graph: Graph, on_host: frozenset[str]) -> list[str]:
    model = compile_graph(graph, TINY, on_host=on_host)
    inputs = random_inputs(graph)
    expected = compile_nodes(graph, graph.nodes).run(inputs)
    for name, value in outputs_of(model, inputs).items():
        np.testing.assert_array_equal(value, expected[name])
    return on_accelerator(model)


def test_all_unsupported_nodes_are_named_at_once():
    graph = single("softmax", (1, 4))
    tensors = dict(graph.tensors)
    (x,), (y,) = graph.inputs, graph.outputs
    tensors |= {name: replace(tensors[y], name=name) for name in ("a", "b")}
    nodes = (
        Node("odd", Opaque("ERF"), (x,), ("a",)),
        Node("odder", Opaque("TOPK"), ("a",), ("b",)),
        Node("last", graph.nodes[0].op, ("b",), (y,)),
    )
    with pytest.raises(UnsupportedError, match=r"'odd'.*ERF; node 'odder'.*TOPK"):
        compile_graph(Graph("g", tensors, nodes, (x,), (y,)), TINY)


def test_each_pass_can_be_watched():
    seen = []
    compile_graph(every_operator(), TINY, watch=lambda name, module: seen.append(name))
    assert seen == [step.name for step in PASSES]


def test_a_small_program_reads_as_expected(golden_text):
    model = compile_graph(single("conv", (1, 6, 6, 4), 8, 3), TINY)
    (step,) = [s for s in model.steps if isinstance(s, AcceleratorStep)]
    instructions = InstructionSet(TINY)
    golden_text("conv.txt", disassemble([instructions.encode(i) for i in step.instructions], TINY))


lives = st.lists(
    st.tuples(st.integers(1, 300), st.integers(0, 6), st.integers(0, 4)), max_size=12
).map(lambda rows: [Life(f"t{i}", s, a, a + d) for i, (s, a, d) in enumerate(rows)])


@given(lives)
def test_tensors_that_live_together_lie_apart(lives):
    addresses, end = share(lives, 64)
    for a in lives:
        assert addresses[a.name] >= FIRST_ADDRESS
        assert addresses[a.name] % 64 == 0
        assert addresses[a.name] + a.size <= end
        for b in lives:
            together = a.first <= b.last and b.first <= a.last
            if a is not b and together:
                at, other = addresses[a.name], addresses[b.name]
                assert at + a.size <= other or other + b.size <= at


def test_tensors_that_never_meet_share_memory():
    lives = [Life("a", 640, 0, 1), Life("b", 640, 2, 3), Life("c", 64, 0, 3)]
    addresses, end = share(lives, 64)
    assert addresses["a"] == addresses["b"]
    assert end == FIRST_ADDRESS + 704
