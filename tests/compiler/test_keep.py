"""Results that stay on chip: where they lie, who reads them there, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compiler.compiled import SERIAL, SMALL, TINY, assert_equals_host, on_accelerator
from tests.compiler.mutations import Subject, outcomes
from tests.networks import NetworkBuilder, random_inputs
from weft.compiler.artifact import AcceleratorStep, CompiledModel
from weft.compiler.graph import Graph
from weft.compiler.levels import format_module, parse_module
from weft.compiler.module import Module
from weft.compiler.pipeline import run
from weft.compiler.stays import Stay
from weft.isa import ModelError

WITHOUT = replace(TINY, stores_inputs=False)
NARROW = replace(TINY, inp_bytes=2048)
"""512 elements of inp: images of 8 x 8 with 16 channels do not all stay whole."""


def chain() -> Graph:
    """Tensors with and without a border, one that is also added, a pool, a matrix product."""
    n = NetworkBuilder("chain", 5)
    x = n.conv(n.input(1, 6, 7, 4), 6, 3, activation="relu")
    y = n.conv(n.depthwise(x, 3, strides=(1, 2)), 9, 1)
    z = n.add(n.conv(y, 9, 3), y)
    n.fc(n.reshape(n.average_pool(n.conv(z, 5, 1), (6, 4), padding="valid"), 1, 5), 7)
    return n.graph()


def turns(channels: int = 16, size: int = 8) -> Graph:
    """A depthwise convolution and a 1 x 1 convolution, between two others."""
    n = NetworkBuilder("turns", 6)
    x = n.conv(n.input(1, size, size, 3), channels, 3)
    n.conv(n.conv(n.depthwise(x, 3), channels // 2, 1), 6, 1)
    return n.graph()


def stays_of(graph: Graph, config=TINY) -> dict[str, Stay]:
    module = run(Module(graph, config), "schedule")
    return {p.node.name: p.stay for g in module.groups for p in g if p.stay is not None}


def operations(model: CompiledModel, name: str) -> list[str]:
    """Those of a layer, without loads of padding alone."""
    (step,) = [s for s in model.steps if s.name == name]
    assert isinstance(step, AcceleratorStep)
    return [i.operation for i in step.instructions if i.operands.get("y_size", 1)]


borders = st.tuples(*(st.integers(0, 3),) * 4)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), borders, st.integers(0, 9))
def test_a_tensor_and_its_border_share_no_element(planes, height, width, border, start):
    stay = Stay(start, planes, (height, width), border)
    top, bottom, left, right = border
    inside = {stay.at(p, y, x) for p in range(planes) for y in range(height) for x in range(width)}
    assert len(inside) == planes * height * width
    gaps = [e for gap in stay.gaps() for e in range(gap.start, gap.stop)]
    assert sorted([*inside, *gaps]) == [*range(start, stay.stop)]
    around = {
        stay.at(p, y, x)
        for p in range(planes)
        for y in range(-top, height + bottom)
        for x in range(-left, width + right)
    }
    assert around - inside <= set(gaps)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), borders, st.data())
def test_a_run_of_elements_lies_in_boxes(planes, height, width, border, data):
    stay = Stay(0, planes, (height, width), border)
    count = planes * height * width
    first = data.draw(st.integers(0, count - 1))
    size = data.draw(st.integers(1, count - first))
    places = [stay.at(p, *divmod(e, width)) for p in range(planes) for e in range(height * width)]
    found = [
        at + y * stride + x
        for at, rows, columns, stride in stay.boxes(first, size)
        for y in range(rows)
        for x in range(columns)
    ]
    assert found == places[first : first + size]


def test_what_only_sums_of_products_read_is_not_stored():
    graph = chain()
    stays = stays_of(graph)
    assert {name for name, stay in stays.items() if stay.stored} == {"conv_2"}
    assert len(stays) >= 5
    model = assert_equals_host(graph, TINY, random_inputs(graph))
    for name in on_accelerator(model):
        made = operations(model, name)
        assert ("storex.inp" in made) == (name in stays)
        assert ("storex.out" in made) == (name not in stays or stays[name].stored)
    assert "loadx.inp" not in operations(model, "conv_2")
    assert not stays_of(graph, WITHOUT)


@pytest.mark.parametrize("config", [SMALL, SERIAL, NARROW], ids=["small", "serial", "narrow"])
def test_it_is_exact_where_little_stays(config):
    graph = chain()
    assert_equals_host(graph, config, random_inputs(graph))


def test_what_stays_on_chip_counts_for_nothing_of_the_least():
    graph = chain()
    model = run(Module(graph, TINY)).model
    steps = {s.name: s for s in model.steps if isinstance(s, AcceleratorStep)}
    inside = 6 * 4 * 6  # of the depthwise convolution's output
    depthwise, pointwise = steps["depthwise_1"], steps["conv_2"]
    assert depthwise.compulsory_bytes - depthwise.fused_bytes == 6 * 7 * 6 + inside
    assert pointwise.compulsory_bytes - pointwise.fused_bytes == inside


def test_layers_take_turns_where_the_tensor_between_them_does_not_fit():
    graph = turns()
    stays = stays_of(graph, NARROW)
    stay = stays["depthwise_1"]
    assert 0 < stay.window < 8
    model = assert_equals_host(graph, NARROW, random_inputs(graph))
    assert "storex.out" not in operations(model, "depthwise_1")
    owners = model.programs[0][0].program.owners
    changes = sum(a != b for a, b in pairwise(owners))
    assert changes > len(set(owners)) + 2
    assert stays_of(graph, replace(NARROW, inp_bytes=16384))["depthwise_1"].window == 0


@pytest.mark.parametrize(("graph", "config"), [(chain(), TINY), (turns(), NARROW)])
def test_everything_is_stored_where_everything_is_asked_for(graph, config):
    shown = replace(graph, outputs=tuple(o for node in graph.nodes for o in node.outputs))
    assert all(stay.stored for stay in stays_of(shown, config).values())
    assert stays_of(shown, config)
    assert_equals_host(shown, config, random_inputs(graph))


@pytest.mark.parametrize("config", [TINY, NARROW], ids=["tiny", "narrow"])
def test_a_schedule_is_read_as_it_was_written(config):
    module = run(Module(turns(), config), "schedule")
    text = format_module(module)
    back = parse_module(text)
    assert format_module(back) == text
    made, again = (run(m).model for m in (module, back))
    for one, other in zip(made.segments, again.segments, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


@pytest.mark.parametrize("value", ["[500, 4]", "[0, 3]", "[0, 64]", "[0, 0]", "[0, 2]", "[3]", "7"])
def test_a_schedule_with_another_place_is_refused(value):
    text = format_module(run(Module(turns(), NARROW), "schedule"))
    head, rest = text.split("== layer depthwise_1\n")
    changed = re.sub(r"(?m)^stay .*$", f"stay {value}", rest, count=1)
    assert changed != rest
    with pytest.raises(ModelError, match=r"stay|room|fit|tile"):
        parse_module(f"{head}== layer depthwise_1\n{changed}")


def test_changed_programs_of_layers_that_take_turns_are_reported_or_harmless():
    table, holes = outcomes([Subject(turns(), NARROW, 3)], 40)
    assert not holes, "\n".join(holes)
    assert all(any(what != "harmless" for what in row) for row in table.values())
