"""Networks on the host, bit for bit as TensorFlow Lite Micro's reference kernels answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import golden, networks
from tests.compiler import graphs, oracle
from tests.shared import SHARED, model_path, needs_shared
from weft.compiler import tflite
from weft.compiler.graph import Graph, Opaque
from weft.compiler.graph_text import format_graph, parse_graph
from weft.compiler.hoist import hoist
from weft.compiler.host import compile_nodes, reason_against
from weft.compiler.operators import nest_of
from weft.isa import DataError, UnsupportedError
from weft.isa.nest import Select, Sum
from weft.isa.traverse import walk

MODELS = {
    "resnet8_cifar10": 3,
    "dscnn_kws": 5,
    "mobilenetv1_vww96": 2,
    "ad_toycar_ae": 20,
    "sww_1dconv": 45,
    "micro_speech": 10,
    "resnet8_large_cifar10": 2,
    "hello_sine": 256,
}
"""How many samples are quick to run."""


def check_model(name: str, count: int | None) -> None:
    """A model's samples, the first ``count`` or all, on the host."""
    assert SHARED is not None
    graph = tflite.read(model_path(name).read_bytes(), name)
    with np.load(SHARED / "models" / name / f"{name}_golden.npz", allow_pickle=False) as archive:
        x, expected = archive["x"][:count], archive["out_tflm"][:count]
    code = compile_nodes(graph, graph.nodes)
    shape = graph.tensors[graph.inputs[0]].shape
    for sample, wanted in zip(x, expected, strict=True):
        values = code.run({graph.inputs[0]: sample.reshape(shape)})
        np.testing.assert_array_equal(values[graph.outputs[0]].reshape(wanted.shape), wanted)


@needs_shared
@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_as_tflm_does(name: str):
    check_model(name, MODELS[name])


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_as_tflm_does_on_all_samples(name: str):
    check_model(name, None)


@needs_shared
@pytest.mark.parametrize("name", ["resnet8_cifar10", "dscnn_kws"])
def test_every_layer_equals_the_reference(name: str):
    assert SHARED is not None
    folder = SHARED / "models" / name
    graph = tflite.read(model_path(name).read_bytes(), name)
    records = json.loads((folder / f"{name}_layers.json").read_text())
    code = compile_nodes(graph, graph.nodes)
    with np.load(folder / f"{name}_layers.npz", allow_pickle=False) as archive:
        layers = {
            int(match[1]): archive[key]
            for key in archive
            if (match := re.fullmatch(r"op(\d+)_.*", key))
        }
        x = archive["x"]
    assert sorted(layers) == list(range(len(graph.nodes)))
    for sample, image in enumerate(x):
        shape = graph.tensors[graph.inputs[0]].shape
        values = code.run({graph.inputs[0]: image.reshape(shape)})
        for node, record in zip(graph.nodes, records, strict=True):
            out = graph.tensors[node.outputs[0]]
            assert list(out.shape) == record["shape"]
            expected = layers[record["op"]][sample].reshape(out.shape)
            np.testing.assert_array_equal(values[out.name], expected, err_msg=node.name)


@pytest.mark.parametrize("name", golden.NETWORKS)
def test_a_generated_network_answers_as_tflm_does(name: str):
    graph = tflite.read(golden.model_file(name), name)
    code = compile_nodes(graph, graph.nodes)
    inputs, outputs = golden.inputs(name), golden.outputs(name)
    for i in range(len(inputs[0])):
        values = code.run(dict(zip(graph.inputs, (x[i] for x in inputs), strict=True)))
        for output, expected in zip(graph.outputs, outputs, strict=True):
            np.testing.assert_array_equal(values[output], expected[i], err_msg=output)


@settings(max_examples=25, deadline=None)
@given(graphs.any_graphs(), st.integers(0, 1 << 20))
def test_one_operator_equals_a_model_on_integers(graph: Graph, seed: int):
    rng = np.random.default_rng(seed)
    code = compile_nodes(graph, graph.nodes)
    for _ in range(2):
        inputs = {n: graphs.bytes_of(rng, graph.tensors[n].shape) for n in graph.inputs}
        expected = oracle.evaluate(graph, dict(inputs))
        np.testing.assert_array_equal(code.run(inputs)["y"], expected["y"])


# --- the contract of compiled nodes


def chain_values(seed: int = 0) -> tuple[Graph, dict[str, np.ndarray]]:
    graph = graphs.chain()
    image = graphs.bytes_of(np.random.default_rng(seed), graph.tensors["image"].shape)
    return graph, oracle.evaluate(graph, {"image": image})


def test_some_nodes_take_what_the_others_wrote():
    graph, values = chain_values()
    code = compile_nodes(graph, graph.nodes[2:5])
    assert code.inputs == ("conv", "depthwise")
    assert code.outputs == ("add", "max_pool", "average_pool")
    result = code.run({name: values[name] for name in code.inputs})
    assert set(result) == set(code.outputs)
    for name, value in result.items():
        np.testing.assert_array_equal(value, values[name])


def test_results_stay_when_other_inputs_are_run():
    graph, values = chain_values(0)
    _, others = chain_values(1)
    code = compile_nodes(graph, graph.nodes)
    first = code.run({"image": values["image"]})
    code.run({"image": others["image"]})
    for name in code.outputs:
        np.testing.assert_array_equal(first[name], values[name])


def test_inputs_need_not_be_contiguous():
    graph, values = chain_values()
    code = compile_nodes(graph, graph.nodes)
    turned = np.asfortranarray(values["image"])
    np.testing.assert_array_equal(code.run({"image": turned})["odds"], values["odds"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "has no value"),
        (np.zeros((1, 6, 6, 2), np.uint8), "takes int8"),
        (np.zeros((1, 6, 6, 3), np.int8), r"takes int8\[1, 6, 6, 2\]"),
    ],
)
def test_wrong_inputs_are_refused(value: np.ndarray | None, message: str):
    graph = graphs.chain()
    code = compile_nodes(graph, graph.nodes)
    with pytest.raises(DataError, match=message):
        code.run({} if value is None else {"image": value})


def test_names_may_hold_anything_but_whitespace():
    graph, values = chain_values()
    text = format_graph(graph)
    for name in ("conv", "image", "odds"):
        text = re.sub(rf"(?<![\w/]){name}(?![\w/])", f'"{name}\\\\"%@\\\\\\\\ü"', text)
    renamed = parse_graph(text)
    code = compile_nodes(renamed, renamed.nodes)
    result = code.run({renamed.inputs[0]: values["image"]})
    np.testing.assert_array_equal(result[renamed.outputs[0]], values["odds"])


def test_a_cached_plan_computes_the_same_and_nothing_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    graph, values = chain_values()
    for _ in range(2):
        code = compile_nodes(graph, graph.nodes, tmp_path)
        np.testing.assert_array_equal(code.run(values)["odds"], values["odds"])
        monkeypatch.setattr("weft.compiler.host.prepared", None)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".code", ".plan"]
    with pytest.raises(TypeError):  # other outputs are another plan
        compile_nodes(graph, graph.nodes, tmp_path, outputs=[graph.nodes[0].outputs[0]])


def test_other_weights_are_another_plan(tmp_path: Path):
    graph, values = chain_values()
    first = compile_nodes(graph, graph.nodes, tmp_path).run(values)["odds"]
    name = next(n for n, t in graph.tensors.items() if t.data is not None and t.data.size > 9)
    data = graph.tensors[name].data
    assert data is not None
    other = replace(graph.tensors[name], data=data[::-1].copy())
    changed = replace(graph, tensors={**graph.tensors, name: other})
    cached, made = (compile_nodes(changed, changed.nodes, c) for c in (tmp_path, None))
    np.testing.assert_array_equal(cached.run(values)["odds"], made.run(values)["odds"])
    assert not np.array_equal(first, made.run(values)["odds"])


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-64], lambda b: b[:99] + b"x" + b[100:], lambda b: b[:-64] + b"x" * 64,
     lambda b: b"", lambda b: b"x" * len(b)],
)  # fmt: skip
def test_a_damaged_plan_is_made_again(damage: Callable[[bytes], bytes], tmp_path: Path):
    graph, values = chain_values()
    compile_nodes(graph, graph.nodes, tmp_path)
    (kept,) = tmp_path.glob("*.plan")
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    code = compile_nodes(graph, graph.nodes, tmp_path)
    np.testing.assert_array_equal(code.run(values)["odds"], values["odds"])
    assert kept.read_bytes() == whole


def test_unsupported_nodes_say_why():
    n = networks.NetworkBuilder()
    n.conv(n.input(1, 5, 5, 3), 4, 3)
    graph = n.graph()
    nodes = tuple(replace(node, op=Opaque("SPARSE_TO_DENSE")) for node in graph.nodes)
    graph = replace(graph, nodes=nodes)
    assert "SPARSE_TO_DENSE" in (reason_against(graph, graph.nodes[0]) or "")
    with pytest.raises(UnsupportedError, match="SPARSE_TO_DENSE"):
        compile_nodes(graph, graph.nodes)


# --- hoisting


def test_a_padded_convolution_chooses_once_a_tap():
    n = networks.NetworkBuilder()
    n.conv(n.input(1, 5, 5, 3), 4, 3)
    graph = n.graph()
    nest = nest_of(graph, graph.nodes[0]).nest
    sums = [s for s in walk(hoist(nest).body) if isinstance(s, Sum)]
    outer = {s.axes: s.body for s in sums if len(s.axes) == 2}
    assert all(isinstance(body, Select) for body in outer.values())
    assert list(outer) == [(("ky", 3), ("kx", 3))]
    assert {s.axes for s in sums} - set(outer) == {(("c", 3),)}


def test_hoisting_leaves_other_nests_alone():
    graph = graphs.chain()
    for node in graph.nodes[1:]:
        nest = nest_of(graph, node).nest
        assert hoist(nest) == nest
