"""What the verifier lets through, and what it refuses and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.compiler import graphs
from weft.compiler.graph import Add, Graph, Node, Op, Opaque, Quant, Reshape, Tensor, Window
from weft.compiler.verify import CHECKS, verify
from weft.isa import ModelError
from weft.isa.nest import F32, I8, I16, I32, U8, DType


@settings(max_examples=100, deadline=None)
@given(graphs.any_graphs())
def test_legal_graphs_pass(graph: Graph):
    verify(graph)


def test_every_operator_has_a_check():
    assert set(CHECKS) == set(Op.__args__)


Edit = Callable[[Graph], Graph]


def on_tensor(key: str, /, **changes: object) -> Edit:
    """The graph with another tensor under the same key."""

    def edit(graph: Graph) -> Graph:
        tensors = dict(graph.tensors)
        tensors[key] = replace(tensors[key], **changes)
        return replace(graph, tensors=tensors)

    return edit


def on_node(index: int, /, **changes: object) -> Edit:
    """The graph with another node in the same place."""

    def edit(graph: Graph) -> Graph:
        nodes = list(graph.nodes)
        nodes[index] = replace(nodes[index], **changes)
        return replace(graph, nodes=tuple(nodes))

    return edit


def on_op(index: int, /, **changes: object) -> Edit:
    """The graph with another operator in the same node."""
    return lambda graph: on_node(index, op=replace(graph.nodes[index].op, **changes))(graph)


def on_window(index: int, /, **changes: object) -> Edit:
    """The graph with another window in the same node."""

    def edit(graph: Graph) -> Graph:
        window = getattr(graph.nodes[index].op, "window")  # noqa: B009  # not every op has one
        assert isinstance(window, Window)
        return on_op(index, window=replace(window, **changes))(graph)

    return edit


def swapped(graph: Graph) -> Graph:
    first, second, *rest = graph.nodes
    return replace(graph, nodes=(second, first, *rest))


def with_extra(name: str, **changes: object) -> Edit:
    def edit(graph: Graph) -> Graph:
        extra = replace(graph.tensors["add"], name=name, **changes)
        return replace(graph, tensors={**graph.tensors, name: extra})

    return edit


CONV, DEPTHWISE, ADD, MAX_POOL, AVERAGE_POOL, FLAT, DENSE, ODDS = range(8)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        # names
        (on_tensor("add", name="sum"), "tensor 'sum' stands under the name 'add'"),
        (on_node(ADD, name="a b"), "node name 'a b' is empty or has whitespace"),
        (on_node(ADD, name=""), "node name '' is empty"),
        (on_node(ADD, name="conv"), "another node has the same name"),
        (with_extra("a\tb"), "has whitespace"),
        # writers and order
        (swapped, "'depthwise'.* reads 'conv' before anything has written it"),
        (on_node(ADD, outputs=("conv",)), "writes 'conv', which has a value already"),
        (on_node(ADD, outputs=("image",)), "writes 'image', which has a value already"),
        (on_node(ADD, outputs=("dense/bias",)), "which has a value already"),
        (on_node(ADD, outputs=("new",)), "writes 'new', which does not exist"),
        (on_node(ADD, inputs=("conv", "new")), "reads 'new', which does not exist"),
        (on_node(ADD, inputs=("conv",)), r"has inputs \['conv'\]; 2 to 2 are expected"),
        (on_node(ADD, inputs=("conv", "")), "2 to 2 are expected"),
        (on_node(DENSE, inputs=("flat", "")), "2 to 3 are expected"),
        (on_node(ADD, outputs=()), "has 0 outputs, not 1"),
        (with_extra("orphan"), "nothing writes tensor 'orphan'"),
        (lambda g: replace(g, outputs=("none",)), "output 'none' has no value"),
        (lambda g: replace(g, inputs=("none",)), "input 'none' does not exist"),
        (lambda g: replace(g, inputs=("image", "image")), "stands twice"),
        (lambda g: replace(g, inputs=("image", "dense/bias")), "is a constant"),
        # tensors
        (on_tensor("add", dtype=DType("i", 7)), "elements of type i7"),
        (on_tensor("add", dtype=DType("f", 8)), "elements of type f8"),
        (on_tensor("add", shape=(1, 3, 3, 0)), r"shape \[1, 3, 3, 0\]"),
        (on_tensor("add", shape=(1,) * 9), "at most 8"),
        (on_tensor("add", shape=(1 << 16, 1 << 16, 3, 4)), "more than 2 GiB"),
        (on_tensor("dense/bias", data=np.zeros(4, np.int32)), r"int32\[4\], not int32\[3\]"),
        (on_tensor("dense/bias", data=np.zeros(3, np.int64)), "int64"),
        (on_tensor("dense/weights", data=np.zeros((4, 3), np.int8).T), "not C-contiguous"),
        (on_tensor("add", quant=Quant((0.0,), (0,))), "scale 0.0 is not a positive number"),
        (on_tensor("add", quant=Quant((float("inf"),), (0,))), "scale inf"),
        (on_tensor("add", quant=Quant((float("nan"),), (0,))), "scale nan"),
        (on_tensor("add", quant=Quant((-1.0,), (0,))), "scale -1.0"),
        (on_tensor("add", quant=Quant((1.0,), (128,))), "zero point 128 is not within i8"),
        (on_tensor("add", quant=Quant((1.0, 1.0), (0, 0))), "2 scales and 2 zero points, not 1"),
        (on_tensor("add", quant=Quant((1.0,), (0, 0))), "1 scales and 2 zero points"),
        (on_tensor("add", quant=Quant((1.0,), (0,), 4)), "quantized along axis 4 of 4"),
        (on_tensor("add", quant=Quant((1.0,) * 3, (0,) * 3, 3)), "not 4"),
        (on_tensor("add", quant=None), "'add' has no quantization"),
        (on_tensor("add", quant=Quant((1.0,) * 4, (0,) * 4, 3)), "of the whole tensor"),
        # types
        (on_tensor("add", dtype=U8, quant=Quant((1.0,), (0,))), "'add' is u8, 'conv' is i8"),
        (on_tensor("add", dtype=I16), "'add' is i16"),
        (on_tensor("flat", dtype=F32, quant=None), "cannot become f32"),
        (
            on_tensor("dense/bias", dtype=F32, data=np.zeros(3, np.float32)),
            "'dense/bias' is f32 where 'flat' is i8; i32 is expected",
        ),
        (
            on_tensor("dense/weights", dtype=I32, data=np.zeros((3, 4), np.int32)),
            "'dense/weights' is i32",
        ),
        (on_tensor("dense/weights", quant=None), "'dense/weights' has no quantization"),
        (on_tensor("dense/weights", quant=Quant((1.0,) * 4, (0,) * 4, 1)), "along 1, not 0"),
        # shapes
        (on_tensor("conv", shape=(1, 4, 3, 4)), r"'conv' has shape \[1, 4, 3, 4\], not \[1, 3, 3"),
        (on_tensor("image", shape=(1, 6, 6, 3)), r"'conv/weights' has shape"),
        (on_tensor("image", shape=(6, 6, 2)), "not of rank 4"),
        (
            on_tensor("dense/bias", shape=(4,), data=np.zeros(4, np.int32)),
            r"'dense/bias' has shape \[4\], not \[3\]",
        ),
        (on_op(DEPTHWISE, multiplier=2), r"not \[1, 3, 3, 8\]"),
        (on_op(DEPTHWISE, multiplier=0), "multiplier is 0"),
        (on_tensor("max_pool", shape=(1, 2, 3, 4)), r"not \[1, 2, 2, 4\]"),
        (on_tensor("flat", shape=(1, 5)), "cannot become"),
        (on_tensor("dense", shape=(3, 1)), r"'dense' has shape \[3, 1\], not \[1, 3\]"),
        (on_tensor("odds", shape=(3,)), r"'odds' has shape \[3\]"),
        (on_tensor("add", shape=(1, 3, 3, 1)), r"not \[1, 3, 3, 4\]"),
        (on_node(ADD, inputs=("conv", "image")), "do not broadcast"),
        # windows
        (on_window(CONV, strides=(0, 1)), "strides and dilations in"),
        (on_window(CONV, dilations=(1, 1 << 16)), "strides and dilations in"),
        (on_window(CONV, size=(2, 3)), "'conv/weights' has shape"),
        (on_window(CONV, pads=(0, 3, 0, 1)), r"pads \[0, 3\] of a window that reaches over 3"),
        (on_window(CONV, pads=(-1, 1, 0, 1)), r"pads \[-1, 1\]"),
        (on_window(CONV, dilations=(4, 1)), "reaches over 9, 'image' with its pads has 7"),
        (on_window(MAX_POOL, dilations=(2, 1)), "a pool has none"),
        # operators
        (on_tensor("max_pool", quant=Quant((0.5,), (5,))), "cannot change the quantization"),
        (on_op(ODDS, beta=0.0), "beta 0.0 is not a positive number"),
        (on_op(ODDS, beta=float("nan")), "beta nan"),
        (on_node(ODDS, op=Opaque("")), "it has no kind"),
    ],
)
def test_what_is_not_legal_is_refused(edit: Edit, message: str):
    graph = graphs.chain()
    verify(graph)
    with pytest.raises(ModelError, match=message) as caught:
        verify(edit(graph))
    assert str(caught.value).startswith("chain: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("carried", "message"),
    [
        ({"conv/weights": "conv"}, "that is carried over is"),
        ({"image": "conv"}, "a constant and the output of a node are expected"),
        ({"dense/bias": "image"}, "a constant and the output of a node are expected"),
        ({"nothing": "conv"}, "a constant and the output of a node are expected"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(carried: dict[str, str], message: str):
    with pytest.raises(ModelError, match=message):
        verify(replace(graphs.chain(), carried=carried))


def test_only_operators_that_read_it_as_it_is_take_what_is_carried_over():
    tensors = {n: Tensor(n, I8, (2,), Quant((1.0,), (0,))) for n in "xyz"}
    tensors["s"] = replace(tensors["x"], name="s", data=np.zeros(2, np.int8))
    for op, inputs in ((Reshape(), ("s",)), (Add(), ("x", "s"))):
        nodes = (Node("a", op, inputs, ("y",)), Node("b", Reshape(), ("x",), ("z",)))
        graph = Graph("g", tensors, nodes, ("x",), ("y",), {"s": "z"})
        if isinstance(op, Reshape):
            verify(graph)
            continue
        with pytest.raises(ModelError, match="node 'a' cannot read 's'"):
            verify(graph)


def test_float_and_unknown_nodes_need_no_quantization():
    tensors = {n: Tensor(n, F32, (2, 2)) for n in "xyz"}
    nodes = (
        Node("a", Opaque("GELU"), ("x", ""), ("y",)),
        Node("b", Opaque("SPLIT"), ("y",), ("z",)),
    )
    verify(Graph("g", tensors, nodes, ("x",), ("z", "x")))


def test_a_scalar_has_no_axis_for_a_softmax():
    tensors = {n: Tensor(n, I8, (), Quant((1 / 256,), (-128,))) for n in "xy"}
    softmax = graphs.chain().nodes[ODDS].op
    with pytest.raises(ModelError, match="has no axis"):
        verify(Graph("g", tensors, (Node("n", softmax, ("x",), ("y",)),), ("x",), ("y",)))
