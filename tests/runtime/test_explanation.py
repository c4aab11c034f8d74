"""What is said of a node is true: counted in its program, and compiled where a change is named."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.networks import every_operator, single
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig
from weft.runtime.explanation import explain

BASE = AcceleratorConfig.preset("base")
TINY = AcceleratorConfig.preset("tiny")
SMALL = replace(TINY, inp_bytes=256, wgt_bytes=256, acc_bytes=512, uop_bytes=128, qnt_bytes=128)


def test_every_node_of_a_network_is_explained():
    model = compile_graph(every_operator(), TINY)
    rows = explain(model)
    assert [n for row in rows for n in row["nodes"]] == [n.name for n in model.graph.nodes]
    for row, step in zip(rows, model.steps, strict=True):
        assert row["why"]
        if isinstance(step, AcceleratorStep):
            assert sum(row["instructions"].values()) == len(step.instructions)
            assert row["dram_bytes"] >= row["dram_fused_bytes"]
            assert row["dram_compulsory_bytes"] >= row["dram_fused_bytes"]
        else:
            assert row["where"] == "cpu"
            assert set(row["rule"]) == set(row["remedy"]) == set(row["nodes"])


@pytest.mark.parametrize(
    ("graph", "bound"),
    [
        (single("conv", (1, 24, 24, 64), 64, 3), "array"),
        (single("conv", (1, 24, 24, 64), 17, 3), "padding"),
        (single("fc", (1, 2048), 512), "bus"),
        (single("conv", (1, 4, 4, 16), 16, 1), "dependence"),
    ],
    ids=["array", "padding", "bus", "dependence"],
)
def test_what_bounds_a_layer(graph, bound):
    (row,) = explain(compile_graph(graph, BASE))
    assert row["bound_by"] == bound


@pytest.mark.parametrize(
    ("graph", "config"),
    [
        (single("conv", (1, 1, 70, 4), 4, (1, 33), padding="valid"), SMALL),
        (single("max_pool", (1, 9, 60, 4), 6, padding="valid"), SMALL),
        (single("conv", (1, 6, 6, 4), 4, 3), replace(TINY, requantize=False)),
    ],
    ids=["inputs", "accumulators", "extension"],
)
def test_hardware_that_would_admit_a_node_does(graph, config):
    (row,) = explain(compile_graph(graph, config))
    assert row["where"] == "cpu"
    (change,) = row["remedy"].values()
    changes = dict(re.findall(r"(\w+) = (\w+)", change))
    assert changes
    values = {name: value == "true" if value in ("true", "false") else int(value)
              for name, value in changes.items()}  # fmt: skip
    (admitted,) = explain(compile_graph(graph, replace(config, **values)))
    assert admitted["where"] == "accelerator"


def test_a_model_that_would_have_to_change_is_named():
    (row,) = explain(compile_graph(single("conv", (1, 40, 4, 4), 4, (33, 1)), TINY))
    assert row["remedy"] == {"conv_0": "a model with at most 15 rows and columns of padding"}
