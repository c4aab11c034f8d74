"""Integers of less than a byte: in files packed, in a graph a byte each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft
from weft.compiler.catalog.narrow import NARROW, unpacked

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from tests.compiler.onnx.models import model, reference  # noqa: E402
from weft.compiler.onnx import read  # noqa: E402
from weft.runtime.network import of_model  # noqa: E402


@given(st.sampled_from(NARROW), st.data())
def test_elements_are_packed_from_the_low_bits_up(dtype, data):
    values = data.draw(st.lists(st.integers(dtype.min, dtype.max), max_size=9))
    number = sum((v % (1 << dtype.bits)) << (k * dtype.bits) for k, v in enumerate(values))
    size = -(-len(values) * dtype.bits // 8)
    packed = np.frombuffer(number.to_bytes(size, "little"), np.uint8)
    found = unpacked(packed, dtype, len(values))
    assert found.tolist() == values
    assert found.dtype == (np.int8 if dtype.kind == "i" else np.uint8)


def weights(values: np.ndarray, code: int = TensorProto.INT4) -> Any:
    return helper.make_tensor("w", code, values.shape, values.reshape(-1).tolist())


def narrow_net(values: np.ndarray) -> Any:
    """A quantized product with weights of four bits."""
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws"], ["wd"], axis=1),
        node("MatMul", ["d", "wd"], ["m"]),
        node("QuantizeLinear", ["m", "t", "z"], ["o"]),
        node("DequantizeLinear", ["o", "t", "z"], ["y"]),
    ]
    constants = {
        "s": np.float32(0.05), "z": np.int8(3), "t": np.float32(0.31),
        "ws": np.linspace(0.1, 0.2, values.shape[1], dtype=np.float32),
    }  # fmt: skip
    proto = model(nodes, {"x": (4, values.shape[0])}, ["y"], constants)
    proto.graph.initializer.append(weights(values))
    return proto


def test_weights_of_four_bits_run_on_the_accelerator_as_bytes():
    pytest.importorskip("onnxruntime")
    random = np.random.default_rng(1)
    proto = narrow_net(random.integers(-8, 8, (32, 9)))
    network = of_model(read(proto.SerializeToString(), "m"), "m")
    x = random.uniform(-5, 5, (4, 32)).astype(np.float32)
    with weft.jit(network, "tiny", "functional") as run:
        got = run(x)
        where = {layer["op"]: layer["where"] for layer in run.report()["layers"]}
    assert where["FullyConnected"] == "accelerator"
    assert np.abs(got - reference(proto, {"x": x})[0]).max() <= 0.3101


def test_packed_weights_may_lie_in_another_file(tmp_path):
    values = np.random.default_rng(2).integers(-8, 8, (5, 3))
    proto = narrow_net(values)
    tensor = proto.graph.initializer[-1]
    (tmp_path / "w.bin").write_bytes(tensor.raw_data or bytes(tensor.int32_data))
    tensor.ClearField("int32_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "w.bin"
    made = read(proto.SerializeToString(), "m", tmp_path)
    graph = made.graph(made.shapes({}))
    (constant,) = (t for t in graph.tensors.values() if t.shape in ((3, 5), (5, 3)))
    found = constant.data if constant.shape == (5, 3) else constant.data.T
    assert np.array_equal(found, values)
