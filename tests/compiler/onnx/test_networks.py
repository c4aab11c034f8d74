"""The quantized networks that were measured elsewhere: the same answers, from integers."""

from __future__ import annotations

import numpy as np
import pytest

import weft
from tests.shared import SHARED, needs_shared
from weft.compiler.graph import op_name

pytest.importorskip("onnx")

from tests.compiler.onnx.networks import Measured, images


@needs_shared
def test_resnet20_is_one_program_and_answers_as_its_reference():
    network = Measured.load("resnet20_cifar10")
    net = weft.load(network.path)
    ops = [op_name(node.op) for node in net.graph.nodes]
    assert ops.count("Conv2D") == 21
    assert ops.count("QuantizeLinear") == ops.count("DequantizeLinear") == 1
    with weft.jit(net, "base", "functional") as run:
        got = run(network.x[:100])
        assert len(run.compile().programs) == 1
    expected = network.golden["out_qdq"][:100]
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.99
    assert np.isclose(got, expected, atol=1e-4).mean() > 0.9


@needs_shared
@pytest.mark.deep
@pytest.mark.parametrize(("hardware", "others"), [("base", 0), ("edge", 1)])
def test_the_keyword_transformer_answers_as_its_file_says(hardware: str, others: int):
    from tests.compiler.onnx.layers import partings

    network = Measured.load("kwt1_transformer")
    net = weft.load(network.path)
    ops = [op_name(node.op) for node in net.graph.nodes]
    assert ops.count("FullyConnected") == 74
    assert ops.count("QLinearMatMul") == 24
    with weft.jit(net, hardware, "cpu") as run:
        got = run(network.x)
    expected, labels = network.golden["out_qdq"], network.golden["y"]
    # Sample 31 is class 1 where nothing but the file's own quantization rounds, with 0.226 to
    # spare, and class 11 in single precision: a product that is 8.50000014 rounds to 8 there, and
    # where it is a tie that goes to even, which ``edge`` has not.
    parted = list(partings(network, got))
    assert len(parted) == others
    assert all(p.exact.argmax() == p.got for p in parted)
    known = labels >= 0
    right = (got.argmax(1) == labels)[known].mean()
    assert right >= (expected.argmax(1) == labels)[known].mean()


@needs_shared
def test_a_float_network_is_within_a_ten_thousandth():
    assert SHARED is not None
    folder = SHARED / "models" / "resnet20_cifar10"
    net = weft.load(folder / "resnet20_cifar10_fp32.onnx")
    golden = np.load(folder / "resnet20_cifar10_golden.npz")
    with weft.jit(net, "base", "cpu") as run:
        got = run(images(golden["x"])[:5])
    expected = golden["out_fp32"][:5]
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()
