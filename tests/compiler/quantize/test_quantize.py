"""Whole networks: what becomes integers, how they are rounded, and what others make of the file."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.compiler.graph import Call, Graph, Quant, op_name
from weft.isa.errors import ConfigError, DataError, UnsupportedError

onnx = pytest.importorskip("onnx")

from tests.compiler.onnx.models import conv_net, qdq_net, reference  # noqa: E402
from tests.compiler.quantize.networks import (  # noqa: E402
    CACHE,
    Maker,
    graph_of,
    residual,
    run,
    samples,
    small,
)
from weft.compiler.onnx import write  # noqa: E402
from weft.compiler.quantize import Options, Quantized, quantize  # noqa: E402
from weft.compiler.quantize.insert import Filter, integer_weights, weight_scales  # noqa: E402
from weft.compiler.quantize.noise import real_values  # noqa: E402
from weft.compiler.quantize.plan import plan  # noqa: E402

X = samples(24, 3, 8, 8)
PLAIN = Options(bias_correction=False, cache=CACHE)


@cache
def made() -> Quantized:
    return quantize(graph_of(residual()), {"x": X}, Options(cache=CACHE))


@cache
def small_float() -> Graph:
    return graph_of(small())


@cache
def small_made(**options) -> Quantized:
    return quantize(small_float(), {"x": X}, Options(**options, cache=CACHE))


def kinds(graph) -> list[str]:
    return [op_name(node.op) for node in graph.nodes]


def test_everything_but_the_softmax_is_integers():
    assert [node.name for node in made().floats] == ["y"]
    ops = kinds(made().graph)
    assert ops.count("Conv2D") == 3
    assert ops.count("DepthwiseConv2D") == 3  # with both means
    assert ops.count("Add") == ops.count("MaxPool2D") == ops.count("FullyConnected") == 1
    assert ops.count("QuantizeLinear") == ops.count("DequantizeLinear") == 1


def test_nothing_is_requantized_at_a_pool_or_a_concat():
    tensors = made().qdq.tensors
    scales = {tensors[f"{name}_scale"].data.item() for name in ("relu2", "pool", "both", "down")}
    assert len(scales) == 1
    assert tensors["mean_scale"].data.item() not in scales


def test_clamps_that_a_range_does_are_left_out_and_others_stay():
    nodes = {node.name for node in made().qdq.nodes}
    # relu2 shares its range with `down`, which has negative values.
    assert "relu1" not in nodes
    assert "relu2" in nodes
    assert "clip" not in nodes


def test_the_file_is_valid_and_others_compute_nearly_the_same_from_it():
    data = write(made().qdq)
    onnx.checker.check_model(data, full_check=True)
    for x in np.split(X[:8], 8):
        (theirs,) = reference(data, {"x": x})
        assert np.abs(run(made().graph, x)["y"] - theirs).max() < 0.02


def test_the_file_read_again_is_the_network():
    again = graph_of(write(made().qdq))
    assert kinds(again) == kinds(made().graph)
    assert np.array_equal(run(again, X[:1])["y"], run(made().graph, X[:1])["y"])


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_every_method_leaves_most_of_the_signal(method):
    result = small_made(method=method)
    assert [layer.name for layer in result.layers] == ["first", "second", "mean", "logits"]
    assert all(layer.noise.decibels > 20 for layer in result.layers), result.layers
    assert result.outputs["logits"].decibels > 25
    assert result.samples == len(X)


def test_minmax_ranges_are_those_of_the_floats():
    values = np.concatenate([run(small_float(), x)["relu"] for x in np.split(X, len(X))])
    layer = small_made(method="minmax").layers[0]
    assert layer.range == (0.0, float(values.max()))
    assert layer.quant == Quant((float(np.float32(values.max() / 255)),), (-128,))


def mean_errors(result: Quantized, name: str) -> np.ndarray:
    """Of each channel of a tensor, over all samples."""
    total = np.zeros(())
    for x in np.split(X, len(X)):
        expected = run(small_float(), x)[name]
        got = real_values(result.graph, run(result.graph, x), name)
        assert got is not None
        error = got - expected
        total = total + error.mean(tuple(k for k in range(error.ndim) if k != 1)) / len(X)
    return total


def test_the_noise_of_a_layer_is_that_of_its_values():
    result = small_made(method="minmax")
    expected = np.stack([run(small_float(), x)["second"] for x in np.split(X, len(X))])
    got = np.stack(
        [
            np.asarray(real_values(result.graph, run(result.graph, x), "second"))
            for x in np.split(X, len(X))
        ]
    )
    noise = result.layers[1].noise
    ratio = 10 * np.log10((expected.astype(float) ** 2).sum() / ((got - expected) ** 2).sum())
    assert np.isclose(noise.decibels, ratio)
    assert np.isclose(noise.largest, np.abs(got - expected).max())


def test_bias_correction_takes_back_the_mean_error_of_every_channel():
    # Weights of one scale and a narrow range, so that there is something to correct.
    options = {"method": "percentile", "percentile": 95.0, "per_channel": False}
    before, after = small_made(**options, bias_correction=False), small_made(**options)
    for name in ("second", "logits"):
        errors = [np.abs(mean_errors(result, name)).mean() for result in (before, after)]
        assert errors[1] < 0.4 * errors[0], name


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from([(4, 3, 3, 3), (6, 1, 3, 3), (5, 7), (1, 1)]), st.integers(0, 1),
    st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_weights_are_rounded_as_numpy_says(shape, axis, per_channel, seed):
    axis = axis if len(shape) == 2 else 0
    r = np.random.default_rng(seed)
    weights = (r.standard_normal(shape) * np.exp(r.uniform(-9, 9))).astype(np.float32)
    filter = Filter(weights, axis, np.zeros(shape[axis], np.float32))
    scales = weight_scales(filter, Quant((0.02,), (3,)), per_channel)
    integers = integer_weights(filter, scales)
    if not per_channel:
        expected = np.float32(np.abs(weights.astype(np.float64)).max() / 127)
        assert scales.shape == ()
        assert np.isclose(scales, expected, rtol=1e-6)
        assert np.array_equal(integers, np.rint(weights.astype(np.float64) / np.float64(scales)))
        return
    for k in range(shape[axis]):
        channel = weights.take(k, axis).astype(np.float64)
        assert np.isclose(scales[k], np.abs(channel).max() / 127, rtol=1e-6)
        assert np.array_equal(integers.take(k, axis), np.rint(channel / np.float64(scales[k])))
    assert np.abs(integers.astype(int)).max() == 127


def test_channels_of_next_to_nothing_keep_their_bias():
    m = Maker()
    m.conv("x", "y", 4, 3)
    m.constants["y.w"][1] = 0
    m.constants["y.w"][2] *= 1e-30
    m.constants["y.b"][1:3] = 0.7
    result = quantize(graph_of(m.model((1, 3, 8, 8), "y")), {"x": X})
    assert kinds(result.graph).count("Conv2D") == 1
    got = run(result.graph, X[:1])["y"]
    assert np.abs(got[0, 1:3] - 0.7).max() < result.layers[0].quant.scale[0]


def test_one_scale_for_all_weights():
    tensors = small_made(method="percentile", percentile=95.0, per_channel=False).qdq.tensors
    assert tensors["first/weights_scale"].data.shape == ()
    assert small_made(method="minmax").qdq.tensors["first/weights_scale"].data.shape == (8,)


def test_skipped_nodes_stay_on_floats():
    result = small_made(skip=frozenset(("second", "logits")), bias_correction=False)
    # A mean between floats is one of floats.
    assert [node.name for node in result.floats] == ["second", "mean", "flat", "logits"]
    ops = kinds(result.graph)
    assert ops.count("Conv2D") == 1
    assert ops.count("FullyConnected") == 0


def test_an_operator_without_integers_is_an_island_of_floats():
    m = Maker()
    r = m.node("Sigmoid", [m.conv("x", "c", 4, 3)], "s")
    m.conv(r, "y", 4, 4)
    result = quantize(graph_of(m.model((1, 3, 8, 8), "y")), {"x": X}, PLAIN)
    assert [node.name for node in result.floats] == ["s"]
    assert kinds(result.graph).count("Conv2D") == 2
    assert result.outputs["y"].decibels > 30


def test_sums_within_a_function_of_floats_stay_on_floats():
    """As in a GELU: `c * sigmoid(c)`, and what is done with the square."""
    m = Maker()
    c = m.conv("x", "c", 4, 3)
    m.node("Mul", [c, m.node("Sigmoid", [c], "s")], "swish")
    m.node("Sub", ["swish", m.node("Mul", [c, c], "square")], "odd")
    wished = plan(graph_of(m.model((1, 3, 8, 8), "odd")))
    assert list(wished.units) == ["c"]


def test_a_clamp_between_other_bounds_is_the_range():
    m = Maker()
    c = m.conv("x", "c", 4, 3)
    m.node("Clip", [c, m.constant("low", -0.5), m.constant("high", 1.5)], "y")
    result = quantize(graph_of(m.model((1, 3, 8, 8), "y")), {"x": X}, PLAIN)
    assert not result.floats
    got = run(result.graph, X[:1])["y"]
    step = result.layers[0].quant.scale[0]
    assert got.min() >= -0.5 - step
    assert got.max() <= 1.5 + step


def test_normalizations_are_folded_and_images_read():
    result = quantize(graph_of(conv_net()), {"x": X[:2]}, PLAIN)
    assert [node.name for node in result.floats] == ["y"]
    assert kinds(result.graph).count("Conv2D") == 1


# --- what is refused


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 3, 8, 8), np.uint8), "must be normalized"),
        (np.zeros((4, 3, 8, 8), np.float64), r"takes float32\[samples, 3, 8, 8\], not float64"),
        (np.zeros((4, 8, 8, 3), np.float32), r"not float32\[4, 8, 8, 3\]"),
        (np.zeros((0, 3, 8, 8), np.float32), "no samples"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), "is not finite"),
    ],
)
def test_samples_that_do_not_fit_are_refused(array: np.ndarray, words: str):
    with pytest.raises(DataError, match=words):
        quantize(graph_of(residual()), {"x": array})


def test_samples_of_another_input_are_refused():
    with pytest.raises(DataError, match="there is no input 'z' in the data; inputs are x"):
        quantize(graph_of(residual()), {"z": X})


def test_what_is_quantized_already_is_refused():
    with pytest.raises(UnsupportedError, match="quantized already"):
        quantize(graph_of(qdq_net()), {"x": X})


def test_a_network_without_anything_to_quantize_is_refused():
    m = Maker()
    m.node("Sigmoid", ["x"], "y")
    with pytest.raises(UnsupportedError, match="no operator that could be on integers"):
        quantize(graph_of(m.model((1, 3, 8, 8), "y")), {"x": X})


def test_operators_that_do_not_run_are_refused():
    graph = graph_of(residual())
    nodes = tuple(
        replace(node, op=Call("tfl.odd")) if node.name == "y" else node for node in graph.nodes
    )
    with pytest.raises(UnsupportedError, match=r"Weft has no operator tfl\.odd"):
        quantize(replace(graph, nodes=nodes), {"x": X})


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="not by 'best'"):
        Options(method="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"not 40\.0"):
        Options(percentile=40.0)
    with pytest.raises(ConfigError, match="no node 'nope'"):
        quantize(graph_of(residual()), {"x": X}, Options(skip=frozenset(("nope",))))
