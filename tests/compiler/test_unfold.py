from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.compiled import BATCHED, TINY, assert_equals_host
from tests.networks import NetworkBuilder, random_inputs, single
from weft.compiler.graph import Graph
from weft.compiler.partition import fills_of, kernel_for
from weft.compiler.pipeline import compile_graph
from weft.compiler.unfold import unfoldings
from weft.isa import AcceleratorConfig

BASE = AcceleratorConfig.preset("base")
PATCHES = replace(BASE, sliding_steps=False)


def patches(graph: Graph, config: AcceleratorConfig) -> list[tuple[int, int]]:
    kernel = kernel_for(graph, graph.nodes[-1])
    return [unfold.patch for _, _, unfold in unfoldings(kernel, fills_of(graph), config)]


def test_the_lanes_are_filled_with_the_patch_that_leaves_the_fewest_taps():
    assert patches(single("conv", (1, 9, 9, 3), 8, 3), PATCHES)[0] == (3, 3)
    assert patches(single("conv", (1, 9, 9, 3), 8, 3), PATCHES)[1] in [(1, 3), (3, 1)]
    assert patches(single("conv", (1, 49, 10, 1), 8, (10, 4), strides=2), PATCHES)[0] == (4, 4)
    two = single("depthwise", (1, 9, 9, 2), 3, multiplier=4)
    assert patches(two, PATCHES)[0] in [(2, 3), (3, 2)]


def test_windows_are_runs_of_lanes_where_steps_slide():
    graph = single("conv", (1, 9, 9, 3), 8, 3)
    kernel = kernel_for(graph, graph.nodes[-1])
    best = next(unfold for _, _, unfold in unfoldings(kernel, fills_of(graph), BASE))
    assert (best.flat, best.patch, best.extents) == (True, (3, 1), (9, 11))
    assert (2, 1) in patches(single("conv", (1, 9, 9, 5), 8, (2, 3)), BASE)


def test_full_lanes_are_left_alone():
    assert patches(single("conv", (1, 9, 9, 16), 8, 3), BASE) == []
    assert patches(single("conv", (1, 9, 9, 3), 8, 1), BASE) == []


@pytest.mark.parametrize(("bus", "patch"), [(8, (3, 1)), (16, (3, 3))])
def test_the_bus_decides_how_much_patches_may_overlap(bus: int, patch: tuple[int, int]):
    graph = single("conv", (1, 32, 32, 3), 16, 3)
    model = compile_graph(graph, replace(PATCHES, bus_bytes=bus))
    unfold = model.tensors[graph.inputs[0]].unfold
    assert unfold is not None
    assert unfold.patch == patch


def test_an_image_that_others_read_is_not_unfolded():
    n = NetworkBuilder()
    x = n.input(1, 8, 8, 1)
    n.add(n.conv(x, 1, 3), x)
    graph = n.graph()
    assert all(t.unfold is None for t in compile_graph(graph, TINY).tensors.values())
    assert_equals_host(graph, TINY, random_inputs(graph))


def test_fewer_steps_are_chosen():
    graph = single("conv", (1, 16, 16, 1), 4, 3)
    model = compile_graph(graph, TINY)
    assert model.tensors[graph.inputs[0]].unfold is not None
    (step,) = model.steps
    assert step.choices["steps"] == 16 * 16 * 3


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["conv", "depthwise"]),
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 2)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([TINY, BATCHED, replace(TINY, sliding_steps=False)]),
    st.integers(0, 99),
)
def test_unfolded_images_give_the_same_result(kind, shape, size, strides, dilations, config, seed):
    more = {"multiplier": 3} if kind == "depthwise" else {"channels": 5}
    graph = single(kind, shape, size=size, strides=strides, dilations=dilations, seed=seed, **more)
    assert_equals_host(graph, config, random_inputs(graph, seed))


def test_what_the_host_computes_is_unfolded_too():
    n = NetworkBuilder()
    n.conv(n.reshape(n.input(1, 64), 1, 8, 8, 1), 4, 3)
    graph = n.graph()
    model = assert_equals_host(graph, TINY, random_inputs(graph))
    assert model.tensors["reshape_0"].unfold is not None


@pytest.mark.parametrize("config", [TINY, BASE], ids=["tiny", "base"])
def test_the_zero_point_surrounds_an_unfolded_image(config):
    graph = single("conv", (1, 2, 2, 1), 3, 5)
    assert_equals_host(graph, config, random_inputs(graph))
