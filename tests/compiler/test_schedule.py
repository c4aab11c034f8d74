from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compiler.compiled import BATCHED, SMALL, TINY
from tests.networks import single
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.boxes import clip
from weft.compiler.emit import Action, Span
from weft.compiler.graph import Graph
from weft.compiler.jobs import ContractionJob, ElementwiseJob, job_of
from weft.compiler.kernel import Refusal
from weft.compiler.microops import place_uops
from weft.compiler.order import in_order
from weft.compiler.partition import kernel_for
from weft.compiler.pipeline import compile_graph
from weft.compiler.schedule import Bases, Range, Rings, Slots, Stage
from weft.isa import AcceleratorConfig

BASE = AcceleratorConfig.preset("base")


def job(graph: Graph, config: AcceleratorConfig) -> ContractionJob | ElementwiseJob:
    made = job_of(kernel_for(graph, graph.nodes[-1]), config)
    assert isinstance(made, ContractionJob | ElementwiseJob)
    return made


def stages(graph: Graph, config: AcceleratorConfig) -> list[Stage]:
    made = job(graph, config)
    bases = {name: 1000 * i for i, name in enumerate((*made.inputs, made.output), 1)}
    return made.stages(Bases(bases, 50, 70), Rings(config))


def actions(graph: Graph, config: AcceleratorConfig) -> list[Action]:
    return [a for s in stages(graph, config) for a in (*s.loads, *s.steps, *s.stores)]


@given(st.integers(-40, 40), st.integers(1, 40), st.integers(1, 4), st.integers(1, 30))
def test_a_clipped_box_has_every_position_once(first, count, step, extent):
    positions = [first + i * step for i in range(count)]
    inside = [p for p in positions if 0 <= p < extent]
    before, size, after, start = clip(first, count, step, extent)
    assert before + size + after == count
    assert size == len(inside)
    assert before == sum(p < 0 for p in positions) or not inside
    if inside:
        assert start == inside[0]


def test_ranges_cover_an_extent_without_overlap():
    ranges = Range.cut(10, 4)
    assert [(r.start, r.count) for r in ranges] == [(0, 4), (4, 4), (8, 2)]


def test_a_slot_is_given_up_by_who_has_not_been_used_for_longest():
    rings = Rings(TINY)
    rings.inputs = 20
    slots = Slots("inp", 10, 5, rings)
    assert slots.count == 2
    first, known = slots.take("a")
    assert (first, known) == (Span("inp", 0, 10), False)
    assert slots.take("b") == (Span("inp", 10, 20), False)
    assert slots.take("a") == (Span("inp", 0, 10), True)
    assert slots.take("c") == (Span("inp", 10, 20), False)
    assert slots.take("b") == (Span("inp", 0, 10), False)


def test_loads_come_a_stage_early_only_where_they_disturb_nothing():
    def stage(at: int) -> Stage:
        span = Span("inp", at, at + 4)
        load = Action("load.inp", {"sram_base": at}, (), (span,))
        trips = {"iter_out": 1, "iter_in": 1}
        return Stage([load], [Action("gemm", trips, (span,), (), (), (0, 1))], [])

    apart = [a.operation for a in in_order([stage(0), stage(4)], TINY)]
    assert apart == ["load.inp", "load.inp", "gemm", "gemm"]
    same = [a.operation for a in in_order([stage(0), stage(0)], TINY)]
    assert same == ["load.inp", "gemm", "load.inp", "gemm"]


def test_a_load_does_not_overtake_one_that_would_overwrite_it():
    def stage(first: int, stop: int, used: int) -> Stage:
        load = Action("load.inp", {"sram_base": first}, (), (Span("inp", first, stop),))
        trips = {"iter_out": 1, "iter_in": 1}
        reads = (Span("inp", first, used),)
        return Stage([load], [Action("gemm", trips, reads, (), (), (0, 1))], [])

    # The second one waits for the first one's steps, and nobody reads where it meets the third.
    made = in_order([stage(0, 2, 2), stage(0, 4, 2), stage(2, 6, 6)], TINY)
    loads = [a.writes[0] for a in made if a.operation == "load.inp"]
    assert loads == [Span("inp", 0, 2), Span("inp", 0, 4), Span("inp", 2, 6)]


def test_nothing_is_loaded_twice_where_everything_fits():
    made = actions(single("conv", (1, 8, 8, 16), 32, 3), BASE)
    written = [s for a in made if a.operation == "load.wgt" for s in a.writes]
    assert sum(s.stop - s.start for s in written) == 2 * 9
    stored = [a for a in made if a.operation == "storex.out"]
    assert sum(a.operands["x_size"] * a.operands["y_size"] for a in stored) == 2 * 64


def test_a_tile_begins_before_all_of_it_is_loaded():
    graph = single("depthwise", (1, 96, 96, 16), 3)
    first, second, *_, last = stages(graph, replace(BASE, bus_bytes=8))
    loads = [next(a for a in s.loads if a.operation == "loadx.inp") for s in (first, second)]
    ((one,), (other,)) = (a.writes for a in loads)
    assert one.stop == other.start
    rows = loads[0].operands["y_size"]
    assert loads[1].operands["dram_base"] == loads[0].operands["dram_base"] + 96 * rows
    read = [span for a in first.steps for span in a.reads if span.memory == other.memory]
    assert all(span.stop <= other.start or other.stop <= span.start for span in read)
    assert {s.stores[0].operands["x_size"] for s in (first, second, last)} == {96}


def test_whole_rows_without_padding_are_one_run():
    made = actions(single("conv", (1, 6, 6, 32), 16, 1), BASE)
    loads = [a.operands for a in made if a.operation == "load.inp"]
    assert all(o["y_size"] == 1 or o["x_stride"] == 36 for o in loads)
    assert sum(o["x_size"] * o["y_size"] for o in loads) == 72


def test_rows_that_no_window_touches_are_not_loaded():
    made = actions(single("conv", (1, 16, 16, 16), 16, 1, strides=2), BASE)
    loads = [a.operands for a in made if a.operation == "load.inp"]
    assert sum(o["y_size"] for o in loads) == 8
    assert {o["x_stride"] for o in loads if o["y_size"] > 1} <= {32}


def test_micro_ops_are_shared_between_tiles():
    made = stages(single("conv", (1, 32, 32, 16), 16, 3, padding="valid"), BASE)
    steps = [a for s in made for a in s.steps]
    kernels = {a.uops for a in steps}
    assert len(steps) > 4
    assert len(kernels) <= 4
    words = place_uops(made, BASE, 0)
    assert len(words) == sum(map(len, kernels))
    loads = [a for s in made for a in s.loads if a.operation == "loadx.uop"]
    assert sum(a.operands["x_size"] for a in loads) == len(words)
    assert [a.operands["x_size"] for a in made[0].loads if a in loads] == [9]


def test_micro_ops_that_do_not_fit_together_are_loaded_when_needed():
    config = replace(SMALL, uop_bytes=64)
    model = compile_graph(single("conv", (1, 9, 9, 12), 12, 3), config)
    (step,) = [s for s in model.steps if isinstance(s, AcceleratorStep)]
    assert sum(i.operation == "loadx.uop" for i in step.instructions) > 1


@pytest.mark.parametrize("config", [TINY, SMALL, BATCHED], ids=["tiny", "small", "batched"])
@pytest.mark.parametrize(
    "graph",
    [
        single("conv", (1, 40, 40, 9), 10, 3),
        single("conv", (2, 7, 33, 5), 6, (1, 5), strides=(1, 2)),
        single("fc", (3, 70), 19),
        single("max_pool", (1, 20, 20, 9), 3, strides=2),
    ],
    ids=["conv", "row", "fc", "pool"],
)
def test_no_span_leaves_its_scratchpad(config, graph):
    for action in actions(graph, config):
        for span in (*action.reads, *action.writes):
            assert 0 <= span.start < span.stop <= getattr(config, f"{span.memory}_depth")


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (single("conv", (1, 1, 70, 4), 4, (1, 33), padding="valid"), "its smallest tile needs inp"),
        (single("conv", (1, 40, 4, 4), 4, (33, 1)), "padding of 16 rows; a load has up to 15"),
        (single("max_pool", (1, 9, 60, 4), 6, padding="valid"), "accumulators; this hardware has"),
    ],
)
def test_what_fits_in_no_tile_is_refused_with_the_numbers(graph, expected):
    with pytest.raises(Refusal, match=expected):
        job(graph, SMALL)


def test_the_estimate_grows_with_the_work():
    small, large = (
        job(single("conv", (1, n, n, 16), 16, 3), BASE).choices["estimate"] for n in (8, 32)
    )
    steps = 32 * 32 * 9
    assert small < large
    assert steps <= large < 1.3 * steps
    assert np.isfinite(large)
