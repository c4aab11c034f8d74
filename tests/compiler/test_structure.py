"""Files whose structure was changed are refused with one line, or are valid: a sample always, ten
thousand with --deep."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

pytest.importorskip("onnx")

from tests.compiler import structure
from tests.compiler.onnx import structure as of_onnx
from tests.compiler.tflite import structure as of_tflite

CASES = {"onnx": 70, "tflite": 80}
"""Of the sample."""


@pytest.mark.parametrize("kind", structure.FORMATS)
def test_a_sample_of_changed_files_does_no_harm(kind):
    found = list(structure.outcomes(kind, range(1, CASES[kind]), every=False))
    assert [outcome for outcome in found if not outcome.good] == []
    counts = Counter(outcome.verdict for outcome in found)
    assert counts["refused"] > len(found) / 4
    assert counts["valid"] > len(found) / 20


@pytest.mark.deep
@pytest.mark.parametrize("kind", structure.FORMATS)
def test_five_thousand_changed_files_of_each_format_do_no_harm(kind):
    found = structure.outcomes(kind, range(5000))
    assert [outcome for outcome in found if not outcome.good] == []


def test_every_field_of_every_message_is_changed():
    """Of ONNX's: those of the messages in a file, present or not."""
    proto = of_onnx.onnx.ModelProto.FromString(of_onnx.seeds(False)[2])
    wanted = {f.full_name for m in of_onnx._messages(proto) for f in m.DESCRIPTOR.fields}
    seen: set[str] = set()
    change = of_onnx._change

    def noted(message, field, *arguments):
        seen.add(field.full_name)
        change(message, field, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_onnx, "_change", noted)
        random = Random(1)
        data = of_onnx.onnx.ModelProto()
        data.CopyFrom(proto)
        del data.graph.node[3:]
        del data.graph.initializer[3:]
        small = data.SerializeToString()
        for _ in range(1500):
            of_onnx.mutated(small, random)
    assert len(wanted) > 40
    assert len(wanted - seen) < len(wanted) / 20


def test_every_slot_of_every_table_is_found():
    (data,) = of_tflite.seeds(False)
    found = {place.what for place in of_tflite.places(data)}
    for what in (
        "Model.Version", "Tensor.Shape[0]", "length of Tensor.Shape", "slot of Tensor.Type",
        "QuantizationParameters.Scale[0]", "Operator.BuiltinOptionsType", "Conv2DOptions.StrideW",
        "OperatorCode.BuiltinCode", "Buffer.Data", "SubGraph.Inputs[0]", "length of Tensor.Name",
    ):  # fmt: skip
        assert what in found, what


def test_a_process_that_falls_or_hangs_is_an_outcome(monkeypatch):
    def falling(kind, case, seed, every):
        if case == 1:
            structure.os._exit(3)
        if case == 2:
            structure.time.sleep(30)
        return structure.Outcome(case, "valid")

    monkeypatch.setattr(structure, "one", falling)
    monkeypatch.setattr(structure, "STUCK", 2.0)
    found = list(structure.outcomes("tflite", range(4), every=False))
    assert [outcome.verdict for outcome in found] == ["valid", "fell", "stuck", "valid"]
