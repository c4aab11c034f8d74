"""Files that :func:`weft.compiler.tflite.write.write` makes, read with the schema's own code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tflite
from hypothesis import given
from hypothesis import strategies as st

from tests import networks
from tests.networks import NetworkBuilder
from weft.compiler.graph import (
    Conv2D,
    Graph,
    MaxPool2D,
    Node,
    Opaque,
    Quant,
    Softmax,
    Tensor,
    Window,
)
from weft.compiler.tflite.write import same_pads, write
from weft.isa.errors import ModelError
from weft.isa.nest import I4, I8


def opened(graph: Graph) -> tuple[tflite.Model, tflite.SubGraph]:
    model = tflite.Model.GetRootAs(write(graph), 0)
    assert model.SubgraphsLength() == 1
    return model, model.Subgraphs(0)


def options_of(graph: Graph, operator: int, kind: type):
    """The options of an operator, which must be of that kind."""
    table = opened(graph)[1].Operators(operator)
    assert table.BuiltinOptionsType() == getattr(tflite.BuiltinOptions, kind.__name__)
    options = kind()
    options.Init(table.BuiltinOptions().Bytes, table.BuiltinOptions().Pos)
    return options


def one_convolution(window: Window, image: tuple[int, int]) -> Graph:
    """A graph of one convolution whose output's shape is not looked at."""
    quant = Quant((0.5,), (0,))
    tensors = (
        Tensor("x", I8, (1, *image, 1), quant),
        Tensor("w", I8, (1, *window.size, 1), quant, np.ones((1, *window.size, 1), np.int8)),
        Tensor("y", I8, (1, 1, 1, 1), quant),
    )
    node = Node("y", Conv2D(window), ("x", "w", ""), ("y",))
    return Graph("g", {t.name: t for t in tensors}, (node,), ("x",), ("y",))


def test_the_file_has_identifier_and_schema_version():
    data = write(networks.every_operator())
    assert data[4:8] == b"TFL3"
    assert tflite.Model.GetRootAs(data, 0).Version() == 3


def test_equal_graphs_give_equal_bytes():
    assert write(networks.every_operator(3)) == write(networks.every_operator(3))


def test_tensors_keep_order_name_shape_quantization_and_data():
    graph = networks.every_operator()
    model, subgraph = opened(graph)
    assert subgraph.TensorsLength() == len(graph.tensors)
    for i, tensor in enumerate(graph.tensors.values()):
        table = subgraph.Tensors(i)
        assert table.Name().decode() == tensor.name
        assert tuple(table.ShapeAsNumpy()) == tensor.shape
        assert tensor.quant is not None
        assert tuple(table.Quantization().ScaleAsNumpy().tolist()) == tensor.quant.scale
        assert tuple(table.Quantization().ZeroPointAsNumpy().tolist()) == tensor.quant.zero_point
        assert table.Quantization().QuantizedDimension() == (tensor.quant.axis or 0)
        buffer = model.Buffers(table.Buffer())
        if tensor.data is None:
            assert buffer.DataLength() == 0
        else:
            assert buffer.DataAsNumpy().tobytes() == tensor.data.tobytes()


def test_constants_lie_at_multiples_of_sixteen_bytes():
    data = write(networks.every_operator())
    model = tflite.Model.GetRootAs(data, 0)
    whole = np.frombuffer(data, np.uint8)
    parts = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength())]
    places = [p.ctypes.data - whole.ctypes.data for p in parts if isinstance(p, np.ndarray)]
    assert len(places) > 5
    assert all(place % 16 == 0 for place in places)


def test_operators_keep_order_inputs_and_outputs():
    graph = networks.every_operator()
    model, subgraph = opened(graph)
    names = list(graph.tensors)
    for i, node in enumerate(graph.nodes):
        table = subgraph.Operators(i)
        assert tuple(names[j] for j in table.InputsAsNumpy()) == node.inputs
        assert tuple(names[j] for j in table.OutputsAsNumpy()) == node.outputs
        code = model.OperatorCodes(table.OpcodeIndex()).BuiltinCode()
        assert tflite.opcode2name(code).replace("_", "").lower() == type(node.op).__name__.lower()


def test_an_absent_bias_is_left_out():
    graph = networks.single("conv", (1, 4, 4, 3), 5, bias=False)
    assert graph.nodes[0].inputs[2] == ""
    assert opened(graph)[1].Operators(0).InputsLength() == 2


def test_a_convolutions_options_are_written_vertical_and_horizontal():
    network = NetworkBuilder()
    network.conv(
        network.input(1, 9, 9, 2), 4, (3, 2), strides=(2, 1), dilations=(1, 3), activation="relu6"
    )
    options = options_of(network.graph(), 0, tflite.Conv2DOptions)
    assert (options.StrideH(), options.StrideW()) == (2, 1)
    assert (options.DilationHFactor(), options.DilationWFactor()) == (1, 3)
    assert options.FusedActivationFunction() == tflite.ActivationFunctionType.RELU6
    assert options.Padding() == tflite.Padding.SAME


def test_a_pools_options_are_written_vertical_and_horizontal():
    graph = networks.single("max_pool", (1, 9, 9, 2), (2, 3), strides=(3, 2), padding="valid")
    options = options_of(graph, 0, tflite.Pool2DOptions)
    assert (options.FilterHeight(), options.FilterWidth()) == (2, 3)
    assert (options.StrideH(), options.StrideW()) == (3, 2)
    assert options.Padding() == tflite.Padding.VALID


def test_depth_multiplier_new_shape_and_beta_are_written():
    graph = networks.single("depthwise", (1, 5, 5, 3), multiplier=4)
    assert options_of(graph, 0, tflite.DepthwiseConv2DOptions).DepthMultiplier() == 4
    network = NetworkBuilder()
    network.softmax(network.reshape(network.input(1, 2, 3, 4), 2, 12), beta=0.5)
    assert options_of(network.graph(), 1, tflite.SoftmaxOptions).Beta() == 0.5
    reshape = options_of(network.graph(), 0, tflite.ReshapeOptions)
    assert reshape.NewShapeAsNumpy().tolist() == [2, 12]


@pytest.mark.parametrize(
    ("graph", "version"),
    [
        (networks.single("conv", (1, 4, 4, 3), 5), 3),
        (networks.single("depthwise", (1, 4, 4, 3), dilations=2), 3),
        (networks.single("fc", (1, 12), 5), 4),
        (networks.single("fc", (1, 12), 5, bias=False), 6),
        (networks.single("fc", (1, 12), 5, per_channel=True), 12),
        (networks.single("softmax", (1, 12)), 2),
    ],
)
def test_an_operators_version_is_the_least_that_has_what_it_uses(graph: Graph, version: int):
    assert opened(graph)[0].OperatorCodes(0).Version() == version


@given(
    image=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilations=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_same_makes_a_window_for_every_stride_of_the_image(image, size, strides, dilations):
    window = Window(size, strides, dilations)
    pads = same_pads(image, window)
    for axis in (0, 1):
        before, after = pads[2 * axis : 2 * axis + 2]
        reach = (size[axis] - 1) * dilations[axis] + 1
        windows = (image[axis] + before + after - reach) // strides[axis] + 1
        assert windows == -(-image[axis] // strides[axis])
        assert after - before in (0, 1)
    graph = one_convolution(replace(window, pads=pads), image)
    padding = options_of(graph, 0, tflite.Conv2DOptions).Padding()
    assert padding == (tflite.Padding.SAME if any(pads) else tflite.Padding.VALID)


@pytest.mark.parametrize("pads", [(1, 1, 1, 0), (1, 1, 2, 2), (0, 1, 1, 1), (2, 2, 2, 2)])
def test_pads_that_are_neither_same_nor_valid_are_refused(pads: tuple[int, int, int, int]):
    with pytest.raises(ModelError, match=r"node 'y'.*SAME \(1, 1, 1, 1\).*not"):
        write(one_convolution(Window((3, 3), pads=pads), (5, 5)))


def test_what_tflite_cannot_say_is_refused():
    graph = one_convolution(Window((1, 1)), (3, 3))

    def refused(match: str, *, node: Node | None = None, tensor: Tensor | None = None) -> None:
        tensors = dict(graph.tensors) | ({} if tensor is None else {tensor.name: tensor})
        nodes = graph.nodes if node is None else (node,)
        with pytest.raises(ModelError, match=match):
            write(replace(graph, tensors=tensors, nodes=nodes))

    x = graph.tensors["x"]
    refused("Opaque", node=Node("y", Opaque("CUSTOM"), ("x",), ("y",)))
    dilated = Window((1, 1), dilations=(2, 1))
    refused("no dilations", node=Node("y", MaxPool2D(dilated), ("x",), ("y",)))
    refused("beta must be a 32-bit float", node=Node("y", Softmax(0.1), ("x",), ("y",)))
    refused("no type i4", tensor=replace(x, dtype=I4))
    refused("scale must be a 32-bit float", tensor=replace(x, quant=Quant((0.1,), (0,))))
    empty = replace(graph.tensors["w"], shape=(0,), data=np.zeros(0, np.int8))
    refused("without elements", tensor=empty)
