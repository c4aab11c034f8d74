"""What is wrong with an ONNX file is one line, and nothing outside of its folder is read."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from weft.isa import ModelError, WeftError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from tests.compiler.onnx.models import conv_net, model  # noqa: E402
from weft.compiler.onnx import build, fold, read  # noqa: E402


def graph_of(data: bytes, folder=None):
    made = read(data, "m", folder)
    return made.graph(made.shapes({}))


def external(location: str, **more: str):
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (4,)}, ["y"])
    tensor = proto.graph.initializer.add()
    tensor.name, tensor.data_type = "w", TensorProto.FLOAT
    tensor.dims.append(4)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return proto.SerializeToString()


def test_external_data_is_read_from_the_models_folder(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.arange(5, dtype=np.float32).tobytes())
    graph = graph_of(external("w.bin", offset="4", length="16"), tmp_path)
    assert np.array_equal(graph.tensors["w"].data, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("location", "more"),
    [
        ("../secret.bin", {}),
        ("/etc/hostname", {}),
        ("sub/../../secret.bin", {}),
        ("link.bin", {}),
        ("", {}),
        ("absent.bin", {}),
        ("w\0.bin", {}),
        (".", {}),
        ("w.bin", {"offset": "8"}),
        ("w.bin", {"offset": "-1"}),
        ("w.bin", {"offset": "9" * 30}),
        ("w.bin", {"length": "17"}),
        ("w.bin", {"offset": "x"}),
    ],
)
def test_external_data_elsewhere_is_refused(tmp_path, location, more):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "w.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError) as caught:
        graph_of(external(location, **more), folder)
    assert "\n" not in str(caught.value)


def refusal(data: bytes) -> WeftError | None:
    try:
        graph_of(data)
    except WeftError as error:
        return error
    return None


def test_a_truncated_or_changed_file_is_refused_or_legal():
    good = conv_net().SerializeToString()
    generator = random.Random(7)
    started = time.process_time()
    refused = 0
    for k in range(60):
        data = bytearray(good)
        if k % 3 == 0:
            del data[generator.randrange(len(data)) :]
        else:
            for _ in range(generator.choice((1, 4))):
                data[generator.randrange(700 if k % 3 == 1 else len(data))] = generator.randrange(
                    256
                )
        error = refusal(bytes(data))
        if error is not None:
            refused += 1
            assert "\n" not in str(error)
            assert error.exit_code == 2
    assert refused > 20
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("ConstantOfShape", ["n"], ["y"])],
        [helper.make_node("Tile", ["x", "n"], ["y"])],
        [helper.make_node("Expand", ["x", "n"], ["y"])],
        [helper.make_node("Pad", ["x", "twice"], ["y"])],
        [helper.make_node("Unknown", ["x"], ["y"])],
        [helper.make_node("Relu", ["nothing"], ["y"])],
        [helper.make_node("Relu", ["x", "x"], ["y"])],
        [helper.make_node("Relu", ["x"], ["y"], wrong=1)],
        [helper.make_node("Softmax", ["x"], ["y"], axis=5)],
        [helper.make_node("Softmax", ["x"], ["y"], axis=0.5)],
        [helper.make_node("Relu", ["x"], ["x"])],
        [helper.make_node("Relu", ["x"], ["z"])],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_what_cannot_be_is_refused_before_memory_is_taken(nodes):
    huge = np.array([1 << 20, 1 << 20, 1 << 20], np.int64)
    constants = {"n": huge, "twice": np.concatenate([huge, huge])}
    proto = model(nodes, {"x": (2, 2, 2)}, ["y"], constants)
    with pytest.raises(ModelError) as caught:
        graph_of(proto.SerializeToString())
    assert "\n" not in str(caught.value)


def test_a_function_that_calls_itself_is_refused():
    call = helper.make_node("Again", ["a"], ["b"], domain="own")
    function = helper.make_function(
        "own", "Again", ["a"], ["b"], [call], [helper.make_opsetid("own", 1)]
    )
    proto = model([helper.make_node("Again", ["x"], ["y"], domain="own")], {"x": (1,)}, ["y"])
    proto.functions.append(function)
    with pytest.raises(ModelError, match="32 deep"):
        graph_of(proto.SerializeToString())


def test_functions_that_call_each_other_twice_end(monkeypatch):
    monkeypatch.setattr(build, "NODE_LIMIT", 2000)
    functions = []
    for k in range(30):
        calls = [
            helper.make_node(f"F{k + 1}", ["a"], ["b"], domain="own"),
            helper.make_node(f"F{k + 1}", ["b"], ["c"], domain="own"),
        ]
        functions.append(
            helper.make_function(
                "own", f"F{k}", ["a"], ["c"], calls, [helper.make_opsetid("own", 1)]
            )
        )
    relu = [helper.make_node("Relu", ["a"], ["c"])]
    imports = [helper.make_opsetid("", 21)]
    functions.append(helper.make_function("own", "F30", ["a"], ["c"], relu, imports))
    proto = model([helper.make_node("F0", ["x"], ["y"], domain="own")], {"x": (1,)}, ["y"])
    proto.functions.extend(functions)
    with pytest.raises(ModelError, match="more than 2000 nodes"):
        graph_of(proto.SerializeToString())


def test_a_split_into_countless_parts_is_refused():
    node = helper.make_node("Split", ["x"], ["y", "z"], num_outputs=1 << 40)
    with pytest.raises(ModelError, match="num_outputs"):
        graph_of(model([node], {"x": (4,)}, ["y", "z"]).SerializeToString())


def test_a_small_file_that_asks_for_much_is_read_in_little_time():
    nodes = [helper.make_node("ConstantOfShape", ["n"], ["a0"])]
    nodes += [helper.make_node("MatMul", ["a0", f"a{k}"], [f"a{k + 1}"]) for k in range(20)]
    nodes.append(helper.make_node("Add", ["x", "a20"], ["y"]))
    proto = model(nodes, {"x": (1500, 1500)}, ["y"], {"n": np.array([1500, 1500])})
    started = time.process_time()
    graph = graph_of(proto.SerializeToString())
    assert time.process_time() - started < 2
    assert [node.op.kind for node in graph.nodes].count("MatMul") == 20


def test_constants_beyond_the_budget_are_computed_by_the_network(monkeypatch):
    monkeypatch.setattr(fold, "ALL_STEPS", 5000)
    nodes = [helper.make_node("ConstantOfShape", ["n"], [f"a{k}"]) for k in range(9)]
    nodes.append(helper.make_node("Sum", ["x", *(f"a{k}" for k in range(9))], ["y"]))
    proto = model(nodes, {"x": (1000,)}, ["y"], {"n": np.array([1000])})
    assert 1 <= len(graph_of(proto.SerializeToString()).nodes) - 1 <= 8


def test_a_resize_to_countless_elements_takes_no_matrix_of_them():
    node = helper.make_node("Resize", ["x", "", "", "n"], ["y"], mode="linear")
    proto = model([node], {"x": (1, 1 << 20)}, ["y"], {"n": np.array([1, 1 << 21])})
    with pytest.raises(WeftError, match="elements along an axis"):
        graph_of(proto.SerializeToString())


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ([helper.make_node("Clip", [""], ["y"], max=1.0)], 8),
        ([helper.make_node("Softmax", [""], ["y"])], 9),
        ([helper.make_node("Nothing", ["x"], [], domain="own")], 21),
        (
            [
                helper.make_node(
                    "If", [""], ["y"],
                    then_branch=helper.make_graph([], "t", [], []),
                    else_branch=helper.make_graph([], "e", [], []),
                )
            ],
            21,
        ),
    ],
)  # fmt: skip
def test_what_is_absent_is_said_to_be(nodes, opset):
    proto = model(nodes, {"x": (2, 2)}, ["y"], opset=opset)
    function = helper.make_function("own", "Nothing", ["a"], [], [], [])
    proto.functions.append(function)
    with pytest.raises(ModelError, match=r"absent|nothing computes"):
        graph_of(proto.SerializeToString())
