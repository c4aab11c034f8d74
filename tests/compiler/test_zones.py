from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compiler.compiled import TINY, assert_equals_host
from tests.networks import random_inputs, single
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.image import Image, Walk
from weft.compiler.zones import zones_of
from weft.isa.nest import Index


def image(rows: Walk, columns: Walk, pad: int = -3) -> Image:
    shape = (1, rows.extent, columns.extent, 4)
    return Image("x", shape, rows, columns, Index("n"), Index("c"), "loadx.inp", pad)


@st.composite
def walks(draw) -> Walk:
    taps, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    stride, origin = draw(st.integers(1, 3)), draw(st.integers(-6, 0))
    return Walk(stride, taps, dilation, origin, *(draw(st.integers(1, 9)) for _ in range(2)), "t")


@given(walks(), walks(), st.integers(1, 3), st.booleans(), st.booleans())
def test_zones_cover_every_position_once_and_skip_nothing_that_meets_the_input(
    rows, columns, lanes, by_rows, by_columns
):
    seen = np.zeros((rows.positions, columns.positions), int)
    for zone in zones_of(image(rows, columns), lanes, by_rows, by_columns):
        seen[zone.rows.start : zone.rows.stop, zone.columns.start : zone.columns.stop] += 1
        for walk, positions, taken in (
            (rows, zone.rows, range(zone.taps.start, zone.taps.stop)),
            (columns, zone.columns, range(zone.steps.start * lanes, zone.steps.stop * lanes)),
        ):
            met = {
                t
                for p in range(positions.start, positions.stop)
                for t in range(walk.taps)
                if 0 <= p * walk.stride + t * walk.dilation + walk.origin < walk.extent
            }
            assert met <= set(taken)
    assert (seen == 1).all()


def test_a_window_of_three_has_nine_zones_and_fewer_steps_along_the_borders():
    walk = Walk(1, 3, 1, -1, 8, 8, "t")
    zones = zones_of(image(walk, walk), 1, True, True)
    assert [(z.taps.count, z.steps.count) for z in zones] == [
        (a, b) for a in (2, 3, 2) for b in (2, 3, 2)
    ]
    assert [z.record for z in zones] == list(range(9))
    assert {z.record for z in zones_of(image(walk, walk, pad=0), 1, True, True)} == {0}


@pytest.mark.parametrize(
    ("kind", "shape", "arguments", "options", "needed"),
    [
        ("conv", (1, 8, 8, 16), (12, 3), {}, 22 * 22 * 16 * 12),
        ("conv", (2, 1, 1, 8), (5, 3), {}, 2 * 8 * 5),
        ("conv", (1, 9, 9, 8), (8, 3), {"strides": 2}, 13 * 13 * 8 * 8),
        ("conv", (1, 8, 8, 8), (8, 3), {"dilations": 3}, 18 * 18 * 8 * 8),
        ("depthwise", (1, 6, 5, 8), (3,), {}, 16 * 13 * 8),
    ],
    ids=["nine zones", "one pixel", "strided", "dilated", "depthwise"],
)
def test_products_with_padding_are_not_computed(kind, shape, arguments, options, needed):
    graph = single(kind, shape, *arguments, **options)
    model = assert_equals_host(graph, TINY, random_inputs(graph, 1))
    (step,) = model.steps
    assert isinstance(step, AcceleratorStep)
    assert step.needed_macs == needed < step.macs
    steps = sum(
        (o["uop_end"] - o["uop_bgn"]) * o["iter_out"] * o["iter_in"]
        for o in (i.operands for i in step.instructions if "iter_out" in i.operands)
    )
    assert steps == step.choices["steps"]
    if kind == "conv":
        assert steps == needed // 16 if arguments[0] % 4 == 0 else steps < step.macs // 16


def test_one_position_starts_from_its_biases():
    graph = single("fc", (1, 50), 21)
    model = assert_equals_host(graph, TINY, random_inputs(graph, 2))
    (step,) = model.steps
    assert isinstance(step, AcceleratorStep)
    operations = [i.operation for i in step.instructions]
    assert operations.count("loadx.acc") >= 1
    assert "matmul.set" not in operations
    (uops,) = [s for s in model.segments if s.name.endswith(".uop")]
    assert len(uops.data) // 4 <= 2 * operations.count("gemm")


@pytest.mark.parametrize("rows", [1, 2])
def test_several_positions_start_from_nothing(rows):
    graph = single("conv", (1, rows, 2, 8), 9, 1)
    model = assert_equals_host(graph, TINY, random_inputs(graph, 3))
    (step,) = model.steps
    assert isinstance(step, AcceleratorStep)
    assert "loadx.acc" not in [i.operation for i in step.instructions]
