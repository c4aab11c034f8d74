"""Operators of older opsets mean what they meant: onnxruntime's answers for the same files."""

from __future__ import annotations

import numpy as np
import pytest

import weft

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.compiler.onnx.models import TensorProto, helper, model, reference
from weft.compiler.onnx import read
from weft.isa import UnsupportedError
from weft.runtime.network import of_model

node = helper.make_node
X = (2, 3, 4, 5)


def answers(proto, inputs):
    network = of_model(read(proto.SerializeToString(), "m"), "m")
    with weft.jit(network, "tiny", "cpu") as run:
        got = run(*inputs.values())
    return got if isinstance(got, tuple) else (got,)


@pytest.mark.parametrize(
    ("opset", "nodes", "constants"),
    [
        *(
            (opset, [node(kind, ["x"], ["y"], **more)], {})
            for kind in ("Softmax", "LogSoftmax", "Hardmax")
            for opset, more in ((7, {}), (9, {"axis": 2}), (11, {"axis": -1}), (12, {"axis": -3}))
        ),
        (7, [node("Clip", ["x"], ["y"], min=-0.5, max=0.25)], {}),
        (10, [node("Clip", ["x"], ["y"], max=0.25)], {}),
        (9, [node("Slice", ["x"], ["y"], starts=[1, -3], ends=[9, -1], axes=[1, 3])], {}),
        (7, [node("Slice", ["x"], ["y"], starts=[0, 1], ends=[1, 2])], {}),
        (9, [node("TopK", ["x"], ["y", "i"], k=2, axis=2)], {}),
        (9, [node("Dropout", ["x"], ["y"], ratio=0.7)], {}),
        (7, [node("Dropout", ["x"], ["d", "m"]), node("Relu", ["d"], ["y"])], {}),
        (
            8,
            [node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y"], epsilon=0.01)],
            {"s": np.array([0.5, 1, 2], np.float32)},
        ),
        (8, [node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 3.0])], {}),
        (
            9,
            [node("Upsample", ["x", "f"], ["y"], mode="linear")],
            {"f": np.array([1, 1, 2, 2], np.float32)},
        ),
        (
            10,
            [node("Resize", ["x", "f"], ["y"], mode="nearest")],
            {"f": np.array([1, 1, 1.5, 0.5], np.float32)},
        ),
        (
            9,
            [node("Scatter", ["x", "i", "u"], ["y"], axis=3)],
            {"i": np.array([[[[1, 3]]]]), "u": np.full((1, 1, 1, 2), 7, np.float32)},
        ),
    ],
)  # fmt: skip
def test_an_older_operator_is_what_it_was(opset, nodes, constants):
    proto = model(nodes, {"x": X}, ["y"], constants, opset)
    x = np.random.default_rng(opset).standard_normal(X).astype(np.float32)
    (got,), (expected,) = answers(proto, {"x": x}), reference(proto, {"x": x})
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_mask_of_a_dropout_has_the_type_of_its_opset():
    for opset, code in ((7, TensorProto.FLOAT), (10, TensorProto.BOOL), (21, TensorProto.BOOL)):
        proto = model(
            [node("Dropout", ["x"], ["y", "m"])], {"x": X}, ["y", "m"], {}, opset, {"m": code}
        )
        y, mask = answers(proto, {"x": np.zeros(X, np.float32)})
        assert mask.dtype == (np.float32 if opset == 7 else bool)
        assert mask.all()
        assert not y.any()


def test_a_normalization_that_is_not_of_channels_is_refused():
    proto = model(
        [node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y"], spatial=0)],
        {"x": X}, ["y"], {"s": np.ones(3, np.float32)}, 8,
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="spatial = 0"):
        answers(proto, {"x": np.zeros(X, np.float32)})
