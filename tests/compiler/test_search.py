"""What is chosen is the best of what was considered, and computes the same whatever the effort."""

from __future__ import annotations

import numpy as np
import pytest

import weft
from tests.compiler.compiled import outputs_of
from tests.networks import NetworkBuilder, random_inputs
from weft.compiler.artifact import AcceleratorStep, CompiledModel
from weft.compiler.effort import EFFORTS, Effort
from weft.compiler.graph import Graph
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig, ConfigError
from weft.runtime.explanation import explain
from weft.runtime.network import Network

TINY = AcceleratorConfig.preset("tiny")


def small() -> Graph:
    """Layers that are cut into tiles in more than one way."""
    n = NetworkBuilder("small", 5)
    x = n.conv(n.input(1, 20, 20, 8), 12, 3, activation="relu")
    x = n.add(x, n.depthwise(x, 3))
    n.conv(x, 8, 1)
    return n.graph()


@pytest.fixture(scope="module")
def models() -> dict[Effort, CompiledModel]:
    return {effort: compile_graph(small(), TINY, effort=effort) for effort in EFFORTS}


def layers(model: CompiledModel) -> list[AcceleratorStep]:
    found = [step for step in model.steps if isinstance(step, AcceleratorStep)]
    assert len(found) == len(model.steps)
    return found


def test_outputs_do_not_depend_on_the_effort(models):
    inputs = random_inputs(small(), 1)
    first, *others = [outputs_of(model, inputs) for model in models.values()]
    for outputs in others:
        for name, value in first.items():
            np.testing.assert_array_equal(outputs[name], value)


def test_more_effort_considers_more(models):
    counts = [[s.search.considered for s in layers(models[e])] for e in EFFORTS]
    assert all(a < b < c for a, b, c in zip(*counts, strict=True) if c > 100)
    assert sum(counts[0]) < sum(counts[1]) < sum(counts[2])
    assert sum(counts[2]) > 200


def test_what_is_chosen_has_the_least_estimate_of_all(models):
    for effort in ("fast", "default"):
        for step in layers(models[effort]):
            assert step.search.effort == effort
            others = [other["estimate"] for other in step.search.others]
            assert others
            assert others == sorted(others)
            assert step.choices["estimate"] <= min(others)


def test_with_the_most_effort_the_best_are_rehearsed(models):
    seen = 0
    for step in layers(models["max"]):
        if step.search.rehearsal is not None:
            rehearsed = [o["rehearsal"] for o in step.search.others if "rehearsal" in o]
            assert rehearsed
            seen += step.search.rehearsal <= min(rehearsed)
    assert seen >= 2


def test_the_choices_are_explained(models):
    rows = explain(models["default"])
    for row, step in zip(rows, layers(models["default"]), strict=True):
        assert row["choices"] == dict(step.choices)
        assert row["search"]["considered"] == step.search.considered
        assert row["search"]["others"][0]["tile"]


def test_python_takes_an_effort(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    network = Network("small", small(), "small")
    model = weft.compile(network, TINY, effort="fast")
    again = weft.compile(network, TINY, effort="fast")
    assert [s.search for s in layers(again)] == [s.search for s in layers(model)]
    bytes_of = [[s.data.tobytes() for s in m.segments] for m in (model, again)]
    assert bytes_of[0] == bytes_of[1]
    with pytest.raises(ConfigError, match="the effort is fast, default, max, not 'most'"):
        weft.compile(network, TINY, effort="most")
