"""Graphs as ONNX files: what is read again is what was written, and others read it too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from weft.compiler.graph import Call, Graph, Node, Reshape, Tensor
from weft.isa.errors import UnsupportedError
from weft.isa.nest import F32

onnx = pytest.importorskip("onnx")

from tests.compiler.onnx.models import conv_net, model, qdq_net, reference  # noqa: E402
from weft.compiler.onnx import read, write  # noqa: E402


def graph_of(proto) -> Graph:
    made = read(proto.SerializeToString(), "net")
    return made.graph(made.shapes({}))


def again(graph: Graph) -> Graph:
    made = read(write(graph), graph.name)
    return made.graph(made.shapes({}))


def same(one: Graph, other: Graph) -> bool:
    constants = all(
        np.array_equal(t.data, other.tensors[n].data)
        for n, t in one.tensors.items()
        if t.data is not None
    )
    ends = (one.inputs, one.outputs) == (other.inputs, other.outputs)
    return constants and ends and one.nodes == other.nodes


def test_what_is_read_again_is_what_was_written():
    graph = graph_of(conv_net())
    onnx.checker.check_model(write(graph), full_check=True)
    assert same(graph, again(graph))


def test_equal_graphs_give_equal_bytes():
    assert write(graph_of(conv_net())) == write(graph_of(conv_net()))


def test_others_compute_the_same_from_it():
    proto = conv_net()
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    expected = reference(proto, {"x": x})
    got = reference(write(graph_of(proto)), {"x": x})
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


def test_attributes_that_became_inputs_are_constants():
    node = onnx.helper.make_node
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[2], keepdims=1),
        node("Squeeze", ["m"], ["s"], axes=[2]),
        node("Unsqueeze", ["s"], ["y"], axes=[0]),
    ]
    proto = model(nodes, {"x": (2, 3, 4)}, ["y"], opset=11)
    x = np.random.default_rng(2).standard_normal((2, 3, 4)).astype(np.float32)
    data = write(graph_of(proto))
    onnx.checker.check_model(data, full_check=True)
    assert np.array_equal(reference(proto, {"x": x})[0], reference(data, {"x": x})[0])


def test_values_of_constants_of_shape_are_kept():
    node = onnx.helper.make_node
    value = onnx.numpy_helper.from_array(np.array([3], np.float32))
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("ConstantOfShape", ["s"], ["c"], value=value),
        node("Add", ["x", "c"], ["y"]),
    ]
    graph = graph_of(model(nodes, {"x": (2, 3)}, ["y"]))
    x = np.ones((2, 3), np.float32)
    assert np.array_equal(reference(write(graph), {"x": x})[0], np.full((2, 3), 4, np.float32))


def test_operators_of_the_accelerator_are_refused():
    with pytest.raises(UnsupportedError, match="ONNX has no operator"):
        write(graph_of(qdq_net()))


def test_what_onnx_does_not_have_is_refused_by_name():
    tensors = {name: Tensor(name, F32, (2,)) for name in ("x", "y")}
    graph = Graph("g", tensors, (Node("n", Call("tfl.odd"), ("x",), ("y",)),), ("x",), ("y",))
    with pytest.raises(UnsupportedError, match=r"node 'n': opset 21 has no operator tfl\.odd"):
        write(graph)
    relu = replace(graph, nodes=(Node("n", Call("Relu", (("odd", 1),)), ("x",), ("y",)),))
    with pytest.raises(UnsupportedError, match="no attribute 'odd'"):
        write(relu)
    plain = replace(graph, nodes=(Node("n", Reshape(), ("x",), ("y",)),))
    with pytest.raises(UnsupportedError, match="no operator Reshape"):
        write(plain)
