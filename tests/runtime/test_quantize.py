"""``weft quantize`` and ``weft diff`` as a user meets them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from weft.__main__ import main
from weft.compiler.graph import op_name
from weft.isa import AcceleratorConfig
from weft.isa.errors import DataError

onnx = pytest.importorskip("onnx")

from tests.compiler.quantize.networks import Maker, run, samples, small  # noqa: E402
from tests.shared import model_path, needs_shared  # noqa: E402
from weft.compiler.quantize.match import key_of, pairs  # noqa: E402
from weft.runtime.commands.arrays import read_arrays  # noqa: E402
from weft.runtime.difference import differences  # noqa: E402
from weft.runtime.network import load  # noqa: E402
from weft.runtime.trace import Trace  # noqa: E402

OK, DIFFERENT, BAD_INPUT = 0, 1, 2
BASE = AcceleratorConfig.preset("base")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a float network, samples, and what `weft quantize` makes of them."""
    path = tmp_path_factory.mktemp("quantize")
    (path / "net.onnx").write_bytes(small().SerializeToString())
    np.save(path / "x.npy", samples(12, 3, 8, 8))
    argv = ["quantize", str(path / "net.onnx"), "--calibrate", str(path / "x.npy")]
    assert main([*argv, "-o", str(path / "int8.onnx")]) == OK
    return path


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture
def weft(capsys: pytest.CaptureFixture[str]):
    """Runs a command line in this process: (exit code, standard output, standard error)."""

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def changed(name: str) -> str:
    """A file in which one weight of ``second`` is another."""
    proto = onnx.load("int8.onnx")
    for tensor in proto.graph.initializer:
        if tensor.name == "second/weights":
            weights = onnx.numpy_helper.to_array(tensor).copy()
            weights[0, 0, 1, 1] = -weights[0, 0, 1, 1] or 100
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    Path(name).write_bytes(proto.SerializeToString())
    return name


# --- quantize


def test_quantize_prints_a_table_and_writes_a_valid_file(weft):
    code, out, err = weft(
        "quantize", "net.onnx", "--calibrate", "x.npy", "-o", "again.onnx", "--samples", "5"
    )
    assert (code, err) == (OK, "")
    for words in ("first", "second", "GlobalAveragePool", "SNR dB", "5 samples", "again.onnx"):
        assert words in out
    onnx.checker.check_model(Path("again.onnx").read_bytes(), full_check=True)


def test_quantize_as_json(weft):
    code, out, _ = weft(
        "quantize", "net.onnx", "--calibrate", "x.npy", "-o", "entropy.onnx", "--json",
        "--method", "entropy", "--per-tensor", "--no-bias-correction", "--skip", "second",
    )  # fmt: skip
    record = json.loads(out)
    assert code == OK
    assert (record["method"], record["per_channel"], record["bias_correction"]) == (
        "entropy", False, False,
    )  # fmt: skip
    floats = [(node["name"], node["op"]) for node in record["on_floats"]]
    assert floats == [("second", "Conv"), ("mean", "GlobalAveragePool")]
    assert [layer["name"] for layer in record["layers"]] == ["first", "logits"]
    assert all(layer["snr_db"] > 15 for layer in record["layers"])


def test_an_npz_has_one_array_for_each_input(weft):
    m = Maker()
    m.node("Add", ["x", "z"], "y")
    proto = m.model((1, 4), "y")
    info = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 4])
    proto.graph.input.append(info)
    Path("two.onnx").write_bytes(proto.SerializeToString())
    np.savez("two.npz", z=samples(3, 4), x=samples(3, 4, seed=1))
    argv = ("quantize", "two.onnx", "-o", "two_int8.onnx", "--calibrate")
    assert weft(*argv, "two.npz")[0] == OK
    code, _, err = weft(*argv, "x.npy")
    assert (code, err.count("\n")) == (BAD_INPUT, 1)
    assert "one array for 2 inputs" in err


def test_an_open_batch_is_one_sample(weft):
    m = Maker()
    m.conv("x", "y", 4, 3)
    Path("open.onnx").write_bytes(m.model(("N", 3, "H", "W"), "y").SerializeToString())
    assert weft("quantize", "open.onnx", "--calibrate", "x.npy", "-o", "o.onnx")[0] == OK
    assert load("o.onnx").graph.tensors["x"].shape == (1, 3, 8, 8)


def test_a_tflite_file_has_bytes_at_its_ends_and_channels_last(weft):
    argv = ("quantize", "net.onnx", "--calibrate", "x.npy", "-o", "int8.tflite", "--json")
    code, out, _ = weft(*argv)
    assert code == OK
    assert json.loads(out)["on_floats"] == []
    graph = load("int8.tflite").graph
    ends = [graph.tensors[name] for name in (*graph.inputs, *graph.outputs)]
    assert [(str(t.dtype), t.shape) for t in ends] == [("i8", (1, 8, 8, 3)), ("i8", (1, 5))]
    assert [op_name(node.op) for node in graph.nodes] == [
        "Conv2D", "Conv2D", "DepthwiseConv2D", "FullyConnected",
    ]  # fmt: skip
    # The first of its two roundings is less fine: integers may differ by one from layer to layer.
    qdq = load("int8.onnx").graph
    x = np.load("x.npy")[:1]
    quant = ends[0].quant
    integers = np.clip(np.rint(x / quant.scale[0]) + quant.zero_point[0], -128, 127)
    lying = integers.astype(np.int8).transpose(0, 2, 3, 1)
    got = run(graph, np.ascontiguousarray(lying))[graph.outputs[0]].astype(int)
    assert np.abs(got - run(qdq, x)["logits_quantized"]).max() <= 1


def test_what_tflite_cannot_say_is_refused_by_name(weft):
    argv = ("quantize", "net.onnx", "--calibrate", "x.npy", "-o", "o.tflite", "--skip", "second")
    code, _, err = weft(*argv)
    assert (code, err.count("\n")) == (BAD_INPUT, 1)
    assert "TFLite has no form of integers for node" in err
    assert "'second' (Conv)" in err


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        ("is written as .onnx or .tflite", ("net.onnx", "-o", "int8.weft")),
        ("there is no folder", ("net.onnx", "-o", "nowhere/int8.onnx")),
        ("--samples takes 1 or more", ("net.onnx", "-o", "o.onnx", "--samples", "0")),
        ("a percentile above 50", ("net.onnx", "-o", "o.onnx", "--percentile", "3")),
        ("no node 'nope'", ("net.onnx", "-o", "o.onnx", "--skip", "nope")),
        ("quantized already", ("int8.onnx", "-o", "o.onnx")),
        ("invalid choice: 'best'", ("net.onnx", "-o", "o.onnx", "--method", "best")),
    ],
)
def test_quantize_refuses_in_one_line(weft, words: str, argv: tuple[str, ...]):
    code, out, err = weft("quantize", *argv, "--calibrate", "x.npy")
    assert (code, out, err.count("\n")) == (BAD_INPUT, "", 1)
    assert words in err


def test_images_that_nobody_normalized_are_refused(weft):
    np.save("images.npy", np.zeros((2, 3, 8, 8), np.uint8))
    code, _, err = weft("quantize", "net.onnx", "--calibrate", "images.npy", "-o", "o.onnx")
    assert (code, err.count("\n")) == (BAD_INPUT, 1)
    assert "images must be normalized as the network was trained to take them" in err


def test_damaged_samples_are_refused():
    Path("bad.npy").write_bytes(b"\x93NUMPY garbage")
    Path("bad.npz").write_bytes(b"PK\x03\x04 garbage")
    for name in ("bad.npy", "bad.npz", "absent.npy"):
        with pytest.raises(DataError, match=name):
            read_arrays(Path(name), ("x",))
    np.savez("named.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(DataError, match="no array 'x'; its arrays are a, b"):
        read_arrays(Path("named.npz"), ("x", "y"))


# --- diff


def test_a_float_network_and_its_integers_are_compared_layer_by_layer(weft):
    code, out, _ = weft("diff", "net.onnx", "int8.onnx", "--input", "x.npy", "--json")
    (record,) = json.loads(out)
    assert code == OK
    tensors = [row["tensor"] for row in record["tensors"]]
    assert tensors == ["relu", "second", "mean", "logits"]
    assert all(row["snr_db"] > 20 for row in record["tensors"])


def test_a_threshold_that_is_not_reached_ends_with_a_mismatch(weft):
    argv = ("diff", "net.onnx", "int8.onnx", "--input", "x.npy", "--threshold")
    code, out, err = weft(*argv, "90")
    assert (code, err.count("\n")) == (DIFFERENT, 1)
    assert "they part ways at layer 'relu' (Relu) on cpu: tensor 'relu'" in err
    assert "not at relu" in out
    assert weft(*argv, "5")[0] == OK


def test_one_file_is_the_same_on_the_host_and_the_accelerator(weft):
    code, out, _ = weft("diff", "int8.onnx", "--input", "x.npy", "--limit", "2", "--json")
    (record,) = json.loads(out)
    assert code == OK
    assert (record["on"], record["samples"], record["parts_at"]) == ("functional", 2, None)
    ops = [row["op"] for row in record["tensors"]]
    assert {"Conv2D", "DepthwiseConv2D", "FullyConnected"} <= {*ops}
    assert all(row["exact"] for row in record["tensors"])


@pytest.mark.deep
def test_one_file_is_the_same_on_the_rtl(weft):
    argv = ("--input", "x.npy", "--limit", "1", "--on", "rtl", "--on", "functional")
    assert weft("diff", "int8.onnx", *argv, "--hw", "tiny")[0] == OK


@pytest.mark.parametrize("target", ["host", "functional"])
def test_a_planted_difference_is_found_at_its_layer(weft, target: str):
    code, out, err = weft(
        "diff", "int8.onnx", changed("other.onnx"), "--input", "x.npy", "--limit", "2",
        "--device", target, "--threshold", "inf", "--json",
    )  # fmt: skip
    (record,) = json.loads(out)
    assert code == DIFFERENT
    assert record["parts_at"] == "second"
    assert "they part ways at layer 'second' (Conv2D)" in err
    exact = {row["layer"]: row["exact"] for row in record["tensors"]}
    assert exact["first"]
    assert not exact["second"]


def test_a_fault_of_the_device_is_found_at_its_layer():
    graph = load("int8.onnx").graph
    with Trace(graph, BASE, "cpu") as host, Trace(graph, BASE, "functional") as trace:
        arrays = {"x": np.load("x.npy")[:1]}
        assert differences(host, trace, arrays).parting(float("inf")) is None
        executor = trace.executor
        assert executor.device is not None
        segments = [s for s in executor.model.segments if s.name.startswith("second")]
        weights = max(segments, key=lambda segment: segment.data.nbytes)
        executor.device.write(weights.address, weights.data ^ 0x10)
        parting = differences(host, trace, arrays).parting(float("inf"))
    assert parting is not None
    assert parting.layer == "second"


def test_networks_with_nothing_in_common_are_refused(weft):
    m = Maker()
    m.conv("x", "strange", 4, 3)
    Path("strange.onnx").write_bytes(m.model((1, 3, 8, 8), "strange").SerializeToString())
    code, _, err = weft("diff", "net.onnx", "strange.onnx", "--input", "x.npy")
    assert (code, err.count("\n")) == (BAD_INPUT, 1)
    assert "have no tensor of the same name" in err


def test_names_are_compared_without_what_quantizing_added():
    assert key_of("relu_3_QuantizeLinear_Output/nhwc") == "relu_3"
    assert key_of("conv2d/nchw_quantized/nhwc") == "conv2d"
    assert key_of("_quantized") == "_quantized"


def test_images_in_either_layout_are_matched():
    """Even where all extents are equal, so that their shapes do not tell."""
    m = Maker()
    m.conv("x", "c", 8, 8)
    Path("cube.onnx").write_bytes(m.model((1, 8, 8, 8), "c").SerializeToString())
    np.save("cube.npy", samples(4, 8, 8, 8))
    argv = ("quantize", "cube.onnx", "--calibrate", "cube.npy", "-o", "cube_int8.onnx")
    assert main([*argv]) == OK
    one, other = load("cube.onnx").graph, load("cube_int8.onnx").graph
    lying = replace(other, nodes=other.nodes[:-2])
    (pair,) = pairs(one, lying)
    assert pair.second.name == "c_quantized/nhwc"
    assert pair.perm == (0, 3, 1, 2)


@needs_shared
def test_a_file_that_others_quantized_is_matched_with_its_floats():
    one = load(model_path("resnet20_cifar10", "_fp32.onnx")).graph
    other = load(model_path("resnet20_cifar10", "_qdq.onnx")).graph
    names = [pair.name for pair in pairs(one, other)]
    assert {"relu_3", "relu_88", "globalaveragepool_89", "logits"} <= {*names}
    assert len(names) >= 30
