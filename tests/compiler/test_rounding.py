"""Ways of rounding: chosen by the hardware, carried by parameters, the same everywhere."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compiler.compiled import HARDWARE, TINY, on_accelerator, outputs_of
from tests.networks import every_operator, random_inputs, residual, single
from weft.compiler import compile_graph
from weft.compiler.graph import Graph, Rounded, Rounding
from weft.compiler.host import compile_nodes
from weft.compiler.kernel import Refusal
from weft.compiler.partition import kernel_for
from weft.compiler.patterns import loads_of, normal, patterns
from weft.compiler.rounding import rounded_for, rounding
from weft.compiler.scales import Rescale
from weft.compiler.tensorize import tensorize
from weft.isa import PRESETS
from weft.isa.nest import Const, Index, Load
from weft.isa.requantize import rescale, rescale_int
from weft.runtime.jit import jit
from weft.runtime.network import Network

WITHOUT = replace(TINY, rounds_to_even=False)


def in_way(graph: Graph, way: Rounding) -> Graph:
    """``graph`` with all of its operators rounding so."""
    return replace(graph, nodes=tuple(rounding(node, way) for node in graph.nodes))


def roundings(graph: Graph) -> set[str]:
    return {node.op.rounding for node in graph.nodes if isinstance(node.op, Rounded)}


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("make", [every_operator, residual])
def test_ties_go_to_even_wherever_a_layer_runs(make, hardware: str):
    config = HARDWARE[hardware]
    graph, other = in_way(make(), "even"), make()
    differ = False
    for seed in range(4):
        inputs = random_inputs(graph, seed)
        model = compile_graph(graph, config)
        expected = compile_nodes(graph, graph.nodes).run(inputs)
        away = compile_nodes(other, other.nodes).run(inputs)
        for name, value in outputs_of(model, inputs).items():
            np.testing.assert_array_equal(value, expected[name])
        differ |= any((away[name] != expected[name]).any() for name in away)
    assert on_accelerator(model) == on_accelerator(compile_graph(other, config))
    assert differ


def test_hardware_without_it_comes_as_near_as_it_can_and_so_does_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    graph = in_way(every_operator(), "even")
    assert roundings(rounded_for(graph, TINY)) == {"even"}
    assert roundings(rounded_for(graph, WITHOUT)) == {"fine"}
    inputs = random_inputs(graph)
    fine = in_way(graph, "fine")
    expected = compile_nodes(fine, fine.nodes).run(inputs)
    for placement in ("auto", "cpu"):
        model = compile_graph(graph, WITHOUT, placement=placement)
        for name, value in outputs_of(model, inputs).items():
            np.testing.assert_array_equal(value, expected[name])
    network = Network(graph.name, graph, f"sha of {graph.name} that rounds to even")
    for on in ("cpu", "functional", "interpreter", "cpu"):  # the last one from the cache
        with jit(network, WITHOUT, on) as run:
            np.testing.assert_array_equal(run(*inputs.values()), expected[graph.outputs[0]])
    tflite = every_operator()
    assert rounded_for(tflite, WITHOUT).nodes == tflite.nodes


def test_one_preset_has_not_the_extension():
    assert [name for name, config in PRESETS.items() if not config.to_even] == ["edge"]
    assert not replace(TINY, requantize=False).to_even


@pytest.mark.parametrize("way", ["away", "fine", "even"])
def test_a_record_says_how_it_rounds(way: Rounding):
    graph = in_way(single("conv", (1, 4, 4, 4), 4, 3), way)
    work = tensorize(kernel_for(graph, graph.nodes[0]), TINY)
    assert work.ending.record.get("even", Const(0)) == Const(int(way == "even"))


def test_a_choice_of_a_parameter_is_a_meaning_of_its_own():
    """What an operation means with a value of ``even`` is, term by term, one of two roundings."""
    of = {(p.operation.name, p.chosen.get("even", 0)): p.value for p in patterns(TINY)}
    away = {p.operation.name: p.value for p in patterns(WITHOUT)}
    names = [name for name, choice in of if choice]
    assert set(names) == {"storex.out", "storex.inp", "alu.requantize", "alu.scale"}
    for name in names:
        assert of[name, 0] == away[name]
        assert of[name, 1] != away[name]
        assert not any(loads_of(of[name, 1], "qnt.even"))
    at = Index("dst"), Index("b"), Index("o")
    p = lambda field: Load(f"qnt.{field}", (Index("src"), Index("o")))  # noqa: E731
    x, left, right = Load("acc", at) + p("bias"), p("left") & 31, p("right") & 31
    assert of["alu.scale", 1] == normal(rescale(x, p("multiplier"), left, right, even=True))


def test_hardware_without_it_does_not_take_it_for_another_rounding():
    graph = in_way(single("conv", (1, 4, 4, 4), 4, 3), "even")
    with pytest.raises(Refusal, match="no instruction computes"):
        tensorize(kernel_for(graph, graph.nodes[0]), WITHOUT)


@given(
    st.floats(2.0**-31, 2.0**29),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-128, 127),
)
def test_what_saturates_is_beyond_every_byte(factor: float, x: int, zero_point: int):
    scale = Rescale.of(factor)
    even = scale.rounded("even")
    assert even.left - even.right == scale.left - scale.right
    assert 0 <= even.left < 32
    assert 0 <= even.right < 32
    high = ((x * scale.multiplier << even.left) + 2**30) >> 31  # nothing saturates here
    unlimited = round(Fraction(high, 1 << even.right))
    got = rescale_int(x, even.multiplier, even.left, even.right, even=True)
    assert clamp(got + zero_point) == clamp(unlimited + zero_point)


def clamp(x: int) -> int:
    return min(max(x, -128), 127)
