"""Small ONNX models for tests; import it only where ``onnx`` is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str]


def model(
    nodes: Sequence[Any],
    inputs: dict[str, Shape],
    outputs: Sequence[str],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 21,
    types: dict[str, int] | None = None,
) -> Any:
    """A model; inputs are ``float`` unless ``types`` says otherwise."""
    types = types or {}
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), list(s))
            for n, s in inputs.items()
        ],
        [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(v, n) for n, v in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def conv_net(batch: int | str = 1) -> Any:
    """Convolution, normalization, pooling, and a classifier."""
    r = np.random.default_rng(3)
    constants = {
        "w": r.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "b": r.standard_normal(8).astype(np.float32),
        **{k: r.uniform(0.5, 1.5, 8).astype(np.float32) for k in ("s", "t", "m", "v")},
        "fc": r.standard_normal((8 * 16, 5)).astype(np.float32),
        "fb": r.standard_normal(5).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[1, 1]),
        node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "fc", "fb"], ["g"]),
        node("Softmax", ["g"], ["y"]),
    ]
    return model(nodes, {"x": (batch, 3, 8, 8)}, ["y"], constants)


def session(proto: Any) -> Any:
    """A model in onnxruntime, without its own rewrites."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def reference(proto: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime answers."""
    return session(proto).run(None, inputs)


def qdq_net(kind: str = "int8") -> Any:
    """Two quantized convolutions with a sum between them, a mean and a classifier."""
    r = np.random.default_rng(5)
    dtype = np.int8 if kind == "int8" else np.uint8
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}
    node = helper.make_node

    def both(name: str, scale: float, zero: int) -> str:
        constants[f"{name}.s"] = np.float32(scale)
        constants[f"{name}.z"] = dtype(zero if dtype == np.int8 else zero + 128)
        nodes.append(node("QuantizeLinear", [name, f"{name}.s", f"{name}.z"], [f"{name}.q"]))
        nodes.append(
            node("DequantizeLinear", [f"{name}.q", f"{name}.s", f"{name}.z"], [f"{name}.d"])
        )
        return f"{name}.d"

    def weights(name: str, shape: tuple[int, ...], axis: int) -> str:
        constants[name] = r.integers(-127, 128, shape).astype(np.int8)
        constants[f"{name}.s"] = r.uniform(0.001, 0.01, shape[axis]).astype(np.float32)
        constants[f"{name}.z"] = np.zeros(shape[axis], np.int8)
        nodes.append(
            node("DequantizeLinear", [name, f"{name}.s", f"{name}.z"], [f"{name}.d"], axis=axis)
        )
        return f"{name}.d"

    x = both("x", 0.02, 3)
    constants["b"] = r.uniform(-0.3, 0.3, 8).astype(np.float32)
    nodes.append(node("Conv", [x, weights("w1", (8, 3, 3, 3), 0), "b"], ["c1"], pads=[1] * 4))
    nodes.append(node("Relu", ["c1"], ["r1"]))
    one = both("r1", 0.03, -128)
    nodes.append(node("Conv", [one, weights("w2", (8, 8, 3, 3), 0)], ["c2"], pads=[1] * 4))
    two = both("c2", 0.05, -7)
    nodes.append(node("Add", [one, two], ["sum"]))
    three = both("sum", 0.06, 9)
    nodes.append(node("GlobalAveragePool", [three], ["mean"]))
    four = both("mean", 0.04, 1)
    nodes.append(node("Flatten", [four], ["flat"]))
    constants["flat.s"], constants["flat.z"] = constants["mean.s"], constants["mean.z"]
    nodes.append(node("QuantizeLinear", ["flat", "mean.s", "mean.z"], ["flat.q"]))
    nodes.append(node("DequantizeLinear", ["flat.q", "mean.s", "mean.z"], ["flat.d"]))
    nodes.append(node("Gemm", ["flat.d", weights("fc", (5, 8), 0)], ["logits"], transB=1))
    last = both("logits", 0.02, 2)
    nodes.append(node("Identity", [last], ["y"]))
    return model(nodes, {"x": (1, 3, 8, 8)}, ["y"], constants)


__all__ = [
    "conv_net", "helper", "model", "numpy_helper", "onnx", "qdq_net", "reference", "session",
]  # fmt: skip
