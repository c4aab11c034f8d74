"""ONNX networks give what onnxruntime gives, whatever is open when they are read."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import weft
from weft.isa import DataError, MissingToolError, ModelError, UnsupportedError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from tests.compiler.onnx.models import conv_net, model, qdq_net, reference  # noqa: E402


def loaded(proto, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return weft.load(path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))


def test_a_float_network_is_that_of_onnxruntime(tmp_path):
    pytest.importorskip("onnxruntime")
    proto = conv_net()
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    with weft.jit(loaded(proto, tmp_path), "tiny", "cpu") as run:
        np.testing.assert_allclose(run(x), reference(proto, {"x": x})[0], rtol=1e-4, atol=1e-6)


def test_softmax_of_half_precision_rounds_each_step_of_its_definition(tmp_path):
    half = TensorProto.FLOAT16
    proto = model([helper.make_node("Softmax", ["x"], ["y"])], {"x": (9, 50)}, ["y"],
                  types={"x": half, "y": half})  # fmt: skip
    x = np.random.default_rng(1).standard_normal((9, 50)).astype(np.float16)
    powers = np.exp(x - x.max(-1, keepdims=True))
    total = powers.sum(-1, keepdims=True, dtype=np.float32).astype(np.float16)
    with weft.jit(loaded(proto, tmp_path), "tiny", "cpu") as run:
        np.testing.assert_array_equal(run(x), powers / total)


@pytest.mark.parametrize("columns", [3, 45])
def test_a_row_of_softmax_with_what_is_no_number_is_none(columns, tmp_path):
    proto = model([helper.make_node("Softmax", ["x"], ["y"])], {"x": (3, columns)}, ["y"])
    x = np.random.default_rng(1).standard_normal((3, columns)).astype(np.float32)
    x[1, 1] = np.nan
    powers = np.exp(x - x.max(-1, keepdims=True))
    with weft.jit(loaded(proto, tmp_path), "tiny", "cpu") as run:
        np.testing.assert_allclose(run(x), powers / powers.sum(-1, keepdims=True), rtol=1e-5)


def test_a_symbolic_batch_is_bound_by_each_call(tmp_path):
    pytest.importorskip("onnxruntime")
    proto = conv_net("n")
    network = loaded(proto, tmp_path)
    assert network.open
    assert network.graph.tensors["x"].shape == (1, 3, 8, 8)
    with weft.jit(network, "tiny", "cpu") as run:
        for size in (1, 3, 1):
            x = np.random.default_rng(size).standard_normal((size, 3, 8, 8)).astype(np.float32)
            got = run(x)
            np.testing.assert_allclose(got, reference(proto, {"x": x})[0], rtol=1e-4, atol=1e-6)
        assert len(run._bound) == 2
        assert run.report()["samples"] == 2
        with pytest.raises(DataError, match=r"takes shape \(n, 3, 8, 8\), not \(1, 3, 8, 9\)"):
            run(np.zeros((1, 3, 8, 9), np.float32))


def test_a_shape_that_is_an_input_is_bound_by_its_value(tmp_path):
    proto = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"x": (2, 6), "shape": (2,)},
        ["y"],
        types={"shape": TensorProto.INT64},
    )
    network = loaded(proto, tmp_path)
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    with weft.jit(network, "tiny", "cpu") as run:
        with pytest.raises(UnsupportedError, match="depends on the values of 'shape'"):
            run.compile()
        for shape in ((3, 4), (4, 3), (3, 4)):
            assert np.array_equal(run(x, np.array(shape, np.int64)), x.reshape(shape))


def test_one_symbol_is_one_size(tmp_path):
    proto = model([helper.make_node("Add", ["a", "b"], ["y"])], {"a": ("n",), "b": ("n",)}, ["y"])
    with (
        weft.jit(loaded(proto, tmp_path), "tiny", "cpu") as run,
        pytest.raises(DataError, match="with n = 2"),
    ):
        run(np.zeros(2, np.float32), np.zeros(1, np.float32))


def test_everything_that_is_not_supported_is_named_at_once(tmp_path):
    nodes = [
        helper.make_node("RandomUniformLike", ["x"], ["d"], name="first"),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("RandomNormalLike", ["r"], ["y"], name="second"),
        helper.make_node("Foo", ["r"], ["z"], name="third", domain="com.acme"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        loaded(model(nodes, {"x": (2, 2)}, ["d", "y", "z"]), tmp_path)
    message = str(caught.value)
    assert all(word in message for word in ("'first'", "'second'", "'third'", "com.acme"))
    assert "\n" not in message


def test_a_network_is_kept_and_read_back_with_its_calls(tmp_path):
    from weft.compiler.graph_text import format_graph, parse_graph

    graph = loaded(conv_net(), tmp_path).graph
    text = format_graph(graph)
    assert format_graph(parse_graph(text)) == text


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_quantized_network_is_integers_on_the_accelerator(tmp_path, kind):
    pytest.importorskip("onnxruntime")
    proto = qdq_net(kind)
    network = loaded(proto, tmp_path)
    ops = [type(node.op).__name__ for node in network.graph.nodes]
    assert ops.count("Conv2D") == 2
    assert {"Add", "DepthwiseConv2D", "FullyConnected"} <= set(ops)
    assert ops.count("Call") == 4  # from reals, to NHWC, to reals, a copy
    x = np.random.default_rng(2).uniform(-2, 2, (1, 3, 8, 8)).astype(np.float32)
    expected = reference(proto, {"x": x})[0]
    with weft.jit(network, "tiny", "functional") as run:
        got = run(x)
        where = [layer["where"] for layer in run.report()["layers"]]
    with weft.jit(network, "tiny", "cpu") as run:
        assert np.array_equal(run(x), got)
    assert where.count("accelerator") == 5
    assert np.abs(got - expected).max() <= 0.0201  # one step of the last scale


def test_more_axes_than_an_array_has_are_refused(tmp_path):
    node = helper.make_node("Shape", ["x"], ["y"])
    proto = model([node], {"x": (1,) * 65}, ["y"])
    with pytest.raises(ModelError, match="'x' has 65 axes; 64 can be held"):
        loaded(proto, tmp_path)


def test_an_input_that_is_an_output_too_is_copied(tmp_path):
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y", "x"])
    x = np.array([-1, 2], np.float32)
    with weft.jit(loaded(proto, tmp_path), "tiny", "cpu") as run:
        y, same = run(x)
    assert np.array_equal(y, [0, 2])
    assert np.array_equal(same, x)


def test_the_command_line_takes_onnx_files(tmp_path, capsys):
    from weft.__main__ import main

    proto = conv_net("n")
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    options = ["--on", "cpu", "--input", str(tmp_path / "x.npy")]
    outputs = ["--output", str(tmp_path / "y.npz")]
    assert main(["run", str(tmp_path / "m.onnx"), *options, *outputs]) == 0
    with np.load(tmp_path / "y.npz") as y:
        assert y["y"].shape == (2, 5)
        assert np.allclose(y["y"].sum(1), 1)
    assert main(["explain", str(tmp_path / "m.onnx")]) == 0
    assert "'x' is f32, not i8" in capsys.readouterr().out


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(conv_net().SerializeToString())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingToolError, match=r"pip install 'weft\[onnx\]'"):
        weft.load(tmp_path / "m.onnx")
