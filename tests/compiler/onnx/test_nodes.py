"""ONNX's own tests of single operators: a sample always, all of them with --deep."""

from __future__ import annotations

import re
import warnings

import pytest

pytest.importorskip("onnx")

from tests.compiler.onnx import nodes
from tests.shared import ROOT
from weft.compiler.onnx.manual import manual

# fmt: off
SAMPLE = (
    "add", "argmax", "averagepool", "clip", "concat", "conv", "cumsum", "div", "einsum", "gather",
    "gelu", "gemm", "hardmax", "layernormalization", "logsoftmax", "matmul", "maxpool", "pad",
    "qlinearconv", "qlinearmatmul", "quantizelinear", "reduce_log_sum_exp", "reducemean",
    "reshape", "roialign", "scatternd", "slice", "softmax", "split", "topk", "where",
)
"""Files of the package with tests of every kind of lowering."""
# fmt: on


def test_a_sample_of_onnx_node_tests_passes():
    cases = nodes.some(SAMPLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own tests are not ours to mend
        outcomes = [nodes.run(case) for case in cases]
    assert len(outcomes) > 150
    assert [o for o in outcomes if o.verdict == "failed"] == []
    assert sum(o.verdict == "passed" for o in outcomes) > 0.9 * len(outcomes)


@pytest.mark.deep
def test_all_node_tests_do_what_the_page_says():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = list(nodes.every())
    page = (ROOT / "docs" / "onnx-tests.md").read_text()
    assert not [o for o in outcomes if "CRASH" in o.reason]
    listed = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert {o.name for o in outcomes if o.verdict != "passed"} <= listed
    assert sum(o.verdict == "passed" for o in outcomes) >= 1000


def test_the_page_of_operators_is_up_to_date():
    assert (ROOT / "docs" / "onnx.md").read_text() == manual(), "run `make docs`"
