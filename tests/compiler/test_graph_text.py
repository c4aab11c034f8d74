"""Graphs as text: exact both ways, and malformed text is refused with its line."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import networks
from tests.compiler import graphs
from tests.networks import assert_same_graph
from tests.shared import SHARED, needs_shared
from weft.compiler import tflite
from weft.compiler.graph import Graph, Node, Opaque, Quant, Reshape, Softmax, Tensor
from weft.compiler.graph_text import format_graph, parse_graph
from weft.isa import ModelError
from weft.isa.nest import F32, I8, DType


def test_the_text_of_a_small_graph(golden_text):
    golden_text("chain.txt", format_graph(graphs.chain()))


def round_trip(graph: Graph) -> None:
    text = format_graph(graph)
    again = parse_graph(text)
    assert_same_graph(
        *(replace(g, tensors=dict(sorted(g.tensors.items()))) for g in (again, graph))
    )
    assert format_graph(again) == text


@settings(max_examples=60, deadline=None)
@given(graphs.any_graphs())
def test_a_graph_comes_back_equal(graph: Graph):
    round_trip(graph)


@pytest.mark.parametrize("seed", range(20))
def test_a_network_comes_back_equal(seed: int):
    round_trip(networks.random_network(seed))


@needs_shared
def test_every_models_graph_comes_back_equal():
    assert SHARED is not None
    for path in sorted((SHARED / "models").glob("*/*.tflite")):
        round_trip(tflite.read(path.read_bytes(), path.stem))


names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Z", "Cc")), min_size=1, max_size=20
).filter(lambda name: not any(c.isspace() for c in name))


@given(names, names, names, st.text(max_size=9), st.text(min_size=1, max_size=9))
def test_any_name_comes_back(x: str, y: str, node: str, name: str, kind: str):
    y = y if y != x else y + "'"
    tensors = {n: Tensor(n, I8, (2,)) for n in (x, y)}
    round_trip(Graph(name, tensors, (Node(node, Opaque(kind), (x, ""), (y,)),), (x,), (y,)))


@given(
    st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False),
    st.integers(-128, 127),
)
def test_any_scale_comes_back(scale: float, zero_point: int):
    tensors = {n: Tensor(n, I8, (), Quant((scale,), (zero_point,))) for n in ("x", "y")}
    round_trip(Graph("g", tensors, (Node("n", Reshape(), ("x",), ("y",)),), ("x",), ("y",)))


@pytest.mark.parametrize("text", ["i8", "u8", "i16", "i32", "i64", "u16", "f32", "f64", "f16"])
def test_constants_of_every_type_come_back(text: str):
    dtype = DType.parse(text)
    data = np.arange(6).reshape(2, 3).astype(f"{dtype.kind}{dtype.bits // 8}")
    tensors = {"c": Tensor("c", dtype, (2, 3), None, data)}
    round_trip(Graph("g", tensors, (), (), ("c",)))


def test_a_quantization_along_an_axis_of_one_stays_one():
    x = Tensor("x", I8, (1, 3), Quant((0.5,), (0,), 0))
    again = parse_graph(format_graph(Graph("g", {"x": x}, (), ("x",), ("x",))))
    assert again.tensors["x"].quant == x.quant


def test_comments_and_empty_lines_mean_nothing():
    text = "# made by hand\n\ngraph g\n\ninput x: f32[2]\n# the end\noutput x\n"
    graph = parse_graph(text)
    assert graph.inputs == graph.outputs == ("x",)
    assert graph.tensors["x"].dtype == F32


GOOD = """\
graph g
input x: i8[1,4,4,2] scale 0.5 zero -1
node conv: Conv2D(x, w, -) size=3x3 activation=relu
  y: i8[1,2,2,1] scale 0.5 zero 0
output y
constant w: i8[1,3,3,2] scale 0.5 zero 0
  AAAAAAAAAAAAAAAAAAAAAAAA
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("graph g", "grape g", "line 1: expected 'graph', not 'grape'"),
        ("graph g", "graph g h", "line 1: expected 'nothing more', not 'h'"),
        ("i8[1,4", "j8[1,4", "line 2: expected a type such as i8"),
        ("1,4,4,2", "1,4,x,2", "line 2: expected an integer, not 'x'"),
        ("1,4,4,2", "1,4,4,-2", r"shape \[1, 4, 4, -2\]"),
        ("zero -1", "zero", "line 2: expected an integer, not ''"),
        ("zero -1", "zero -129", "zero point -129"),
        ("scale 0.5 zero -1", "scale nan zero -1", "scale nan"),
        ("Conv2D", "Conv3D", "line 3: expected one of Conv2D, .*, not 'Conv3D'"),
        ("(x, w, -)", "(x, w, -", r"line 3: expected '\)', not 'size'"),
        ("(x, w, -)", "(x, v, -)", "reads 'v', which does not exist"),
        ("size=3x3", "", "line 3: size= is missing"),
        ("size=3x3", "size=3x", "line 3: expected two numbers such as 3x3, not '3x'"),
        ("size=3x3", "size=3x3 size=3x3", "line 3: 'size' is given twice"),
        ("size=3x3", "size=3x3 pads=1,1", "line 3: expected 4 numbers, not 2"),
        ("activation=relu", "activation=gelu", "line 3: expected one of none, relu"),
        ("activation=relu", "beta=1.0", "line 3: Conv2D has .*, not 'beta'"),
        ("  y: i8", "y: i8", "line 4: expected input, node, output, carry or constant, not 'y'"),
        ("  y: i8", "  x: i8", "line 4: there is a tensor 'x' already"),
        ("output y", "  output y", "line 5: expected ':', not 'y'"),
        ("output y", "output z", "output 'z' has no value"),
        ("AAAA\n", "AAA\n", "line 6: the data of this constant is not base64"),
        ("AAAA\n", "\n", "line 6: this constant needs 18 bytes of data; 15 follow"),
        ("i8[1,3,3,2]", "i8[99999999,99999999,9]", "line 6: a constant of"),
        ("i8[1,3,3,2]", "u4[1,3,3,2]", "line 6: a constant of type u4"),
        ("w: i8[1,3,3,2]", '"w: i8[1,3,3,2]', "line 6: cannot read"),
        ("w: i8[1,3,3,2]", '"\\q": i8[1,3,3,2]', "line 6: a name in quotes"),
        (GOOD, "", "line 1: expected 'graph', not the end of the text"),
        (GOOD, " graph g", "line 1: "),
    ],
)
def test_malformed_text_is_refused_with_its_line(old: str, new: str, message: str):
    parse_graph(GOOD)
    assert old in GOOD
    with pytest.raises(ModelError, match=message) as caught:
        parse_graph(GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def is_accepted(text: str) -> bool:
    """Whether ``text`` is read; if not, that it is refused in one line."""
    try:
        parse_graph(text)
    except ModelError as error:
        message = str(error)
    else:
        return True
    assert "\n" not in message
    return False


def test_damaged_text_is_refused_or_gives_a_legal_graph():
    text = format_graph(graphs.chain())
    random_ = random.Random(5)
    outcomes = set()
    started = time.perf_counter()
    for _ in range(1500):
        at = random_.randrange(len(text))
        damage = random_.choice(["", " ", "\n", '"', "9" * 30, ",", "-", "x", "=", text[:at][-9:]])
        damaged = text[:at] + damage + text[at + random_.randrange(4) :]
        outcomes.add(is_accepted(damaged))
    assert outcomes == {True, False}
    assert time.perf_counter() - started < 30


def test_every_prefix_is_refused_or_gives_a_legal_graph():
    text = format_graph(graphs.chain())
    for size in range(0, len(text), 7):
        is_accepted(text[:size])


def test_an_operators_number_keeps_its_bits():
    graph = graphs.chain()
    nodes = (*graph.nodes[:-1], replace(graph.nodes[-1], op=Softmax(0.1 + 0.2)))
    round_trip(replace(graph, nodes=nodes))
