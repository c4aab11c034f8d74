"""Reading TFLite files: what a good one gives, and that a bad one gives one clear line."""

from __future__ import annotations

import json
import random
import time
import tracemalloc

import numpy as np
import pytest
import tflite

from tests.compiler import graphs
from tests.shared import SHARED, model_path, needs_shared
from weft.compiler.graph import Conv2D, DepthwiseConv2D, FullyConnected, Graph, Opaque, Softmax
from weft.compiler.operators import nest_of, reason_against
from weft.compiler.tflite import read
from weft.compiler.tflite.write import write
from weft.compiler.verify import verify
from weft.isa import ModelError

INT8_MODELS = (
    "resnet8_cifar10",
    "resnet8_large_cifar10",
    "dscnn_kws",
    "mobilenetv1_vww96",
    "ad_toycar_ae",
    "sww_1dconv",
    "micro_speech",
    "hello_sine",
)


def read_model(name: str) -> Graph:
    return read(model_path(name).read_bytes(), name)


@needs_shared
@pytest.mark.parametrize("name", INT8_MODELS)
def test_a_graph_has_the_files_operators_and_ends(name: str):
    assert SHARED is not None
    record = json.loads((SHARED / "models" / "manifest.json").read_text())[name]
    data = model_path(name).read_bytes()
    graph = read(data, name)
    subgraph = tflite.Model.GetRootAs(data, 0).Subgraphs(0)
    assert len(graph.nodes) == subgraph.OperatorsLength() == sum(record["ops"].values())
    assert not any(isinstance(node.op, Opaque) for node in graph.nodes)
    for names, ends in ((graph.inputs, "inputs"), (graph.outputs, "outputs")):
        for tensor_name, expected in zip(names, record[ends], strict=True):
            tensor = graph.tensors[tensor_name]
            assert list(tensor.shape) == expected["shape"]
            assert tensor.quant is not None
            assert list(tensor.quant.zero_point) == expected["zero_point"]
            np.testing.assert_array_equal(
                np.float32(tensor.quant.scale), np.float32(expected["scale"])
            )


@needs_shared
@pytest.mark.parametrize("name", INT8_MODELS)
def test_names_are_short_unique_and_do_not_depend_on_chance(name: str):
    graph = read_model(name)
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)
    assert all(len(n) <= 40 and not any(c.isspace() for c in n) for n in (*names, *graph.tensors))
    again = read_model(name)
    assert [node.name for node in again.nodes] == names
    assert list(again.tensors) == list(graph.tensors)


@needs_shared
def test_nodes_are_called_after_their_layers():
    names = [node.name for node in read_model("resnet8_cifar10").nodes]
    assert names == [
        "conv2d", "conv2d_1", "conv2d_2", "add", "conv2d_3", "conv2d_4", "conv2d_5", "add_1",
        "conv2d_6", "conv2d_7", "conv2d_8", "add_2", "average_pooling2d", "flatten", "dense",
        "softmax",
    ]  # fmt: skip


@needs_shared
def test_same_padding_puts_the_odd_row_and_column_after_the_image():
    op = read_model("mobilenetv1_vww96").nodes[0].op
    assert isinstance(op, Conv2D)
    assert op.window.size == (3, 3)
    assert op.window.strides == (2, 2)
    assert op.window.pads == (0, 1, 0, 1)
    assert op.activation == "relu"


@needs_shared
def test_the_depth_multiplier_comes_from_the_shapes():
    node = next(n for n in read_model("micro_speech").nodes if isinstance(n.op, DepthwiseConv2D))
    assert isinstance(node.op, DepthwiseConv2D)
    assert node.op.multiplier == 8


@needs_shared
def test_weights_are_quantized_along_their_output_channels():
    graph = read_model("dscnn_kws")
    for node in graph.nodes:
        if isinstance(node.op, Conv2D | DepthwiseConv2D):
            quant = graph.tensors[node.inputs[1]].quant
            assert quant is not None
            assert quant.axis == (0 if isinstance(node.op, Conv2D) else 3)
            assert len(quant.scale) == 64


def test_unknown_operators_are_kept_by_name():
    graph = graphs.chain()
    data = bytearray(write(graph))
    model = tflite.Model.GetRootAs(data, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    code = next(c for c in codes if c.BuiltinCode() == tflite.BuiltinOperator.SOFTMAX)
    for slot, size in ((4, 1), (10, 4)):  # the code, as old and as new readers look for it
        at = code._tab.Pos + code._tab.Offset(slot)
        data[at : at + size] = tflite.BuiltinOperator.TANH.to_bytes(size, "little")
    last = read(bytes(data), "odd").nodes[-1]
    assert last.op == Opaque("TANH")


@needs_shared
def test_every_operator_of_the_shared_models_is_known():
    assert SHARED is not None
    for path in sorted((SHARED / "models").glob("*/*.tflite")):
        graph = read(path.read_bytes(), path.stem)
        assert not any(isinstance(node.op, Opaque) for node in graph.nodes), path


@needs_shared
def test_float_and_uint8_networks_are_read():
    for name, suffix, behind in (
        ("mobilenetv1_025_128_uint8", ".tflite", 1),
        ("dscnn_kws", "_float.tflite", 0),
    ):
        graph = read(model_path(name, suffix).read_bytes(), name)
        assert isinstance(graph.nodes[-1 - behind].op, Softmax)


def check(data: bytes) -> bool:
    """Whether ``data`` is read; if not, that it is refused in one line, quickly, and cheaply."""
    started = time.perf_counter()
    try:
        verify(read(data, "damaged"))
    except ModelError as error:
        message = str(error)
        assert message.startswith("damaged: ")
        assert "\n" not in message
        assert len(message) < 1000
        return False
    finally:
        assert time.perf_counter() - started < 5
    return True


@needs_shared
def test_every_prefix_of_a_file_is_refused():
    data = model_path("hello_sine").read_bytes()
    accepted = [n for n in range(len(data)) if check(data[:n])]
    assert accepted == []


@needs_shared
@pytest.mark.parametrize(
    ("name", "count"), [("hello_sine", 1000), ("micro_speech", 1000), ("mnist_lstm", 150)]
)
def test_flipped_bytes_are_refused_or_give_a_valid_graph(name: str, count: int):
    data = model_path(name).read_bytes()
    random_ = random.Random(name)
    outcomes = {check(flip(data, random_)) for _ in range(count)}
    assert outcomes == {True, False}


@needs_shared
def test_flipped_bytes_cause_no_large_allocation():
    data = model_path("hello_sine").read_bytes()
    random_ = random.Random(0)
    tracemalloc.start()
    for _ in range(200):
        check(flip(data, random_))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def flip(data: bytes, random_: random.Random) -> bytes:
    """``data`` with a few bytes changed."""
    damaged = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 8))):
        values = (0, 1, 127, 128, 255, random_.randrange(256))
        damaged[random_.randrange(len(damaged))] = random_.choice(values)
    return bytes(damaged)


def test_any_word_of_a_file_may_be_damaged():
    """What is still read has loop nests, or says in one line why not."""
    data = write(graphs.chain())
    random_ = random.Random(1)
    lowered = 0
    for at in range(0, len(data) - 3, 4):
        value = random_.choice((0, 1, 2**31 - 1, 2**32 - 1, random_.getrandbits(32)))
        damaged = data[:at] + value.to_bytes(4, "little") + data[at + 4 :]
        if not check(damaged):
            continue
        graph = read(damaged, "damaged")
        reasons = [reason_against(graph, node) for node in graph.nodes]
        if not any(reasons):
            for node in graph.nodes:
                nest_of(graph, node)
            lowered += 1
    assert lowered > 10


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 8, b"\x1c\0\0\0TFL3", b"\xff\xff\xff\xffTFL3" + b"\xff" * 64, b"TFL3" * 64],
)
def test_what_is_no_model_at_all_is_refused(data: bytes):
    assert not check(data)


def test_weights_of_four_bits_are_held_as_bytes():
    values = np.random.default_rng(1).integers(-8, 8, (5, 3), dtype=np.int8)
    graph = graphs.single(
        FullyConnected(),
        [graphs.tensor("x", (2, 3)), graphs.tensor("w", (5, 3), data=values)],
        graphs.tensor("y", (2, 5)),
    )
    data = bytearray(write(graph))
    model = tflite.Model.GetRootAs(data, 0)
    subgraph = model.Subgraphs(0)
    (tensor,) = (
        t for k in range(subgraph.TensorsLength()) if (t := subgraph.Tensors(k)).Name() == b"w"
    )
    data[tensor._tab.Pos + tensor._tab.Offset(6)] = tflite.TensorType.INT4
    table = model.Buffers(tensor.Buffer())._tab
    start = table.Vector(table.Offset(4))
    packed = np.append(values.reshape(-1) & 15, 0).astype(np.uint8).reshape(-1, 2)
    data[start : start + 8] = (packed[:, 0] | packed[:, 1] << 4).tobytes()
    data[start - 4] = 8
    found = read(bytes(data), "m")
    (weights,) = (t for t in found.tensors.values() if t.data is not None)
    assert str(weights.dtype) == "i8"
    assert np.array_equal(weights.data, values)
    data[start - 4] = 9
    with pytest.raises(ModelError, match="needs 8 bytes, its buffer has 9"):
        read(bytes(data), "m")
