"""ONNX's own tests of single operators, run as a user would run the models.

``python -m tests.compiler.onnx.nodes [WORD ...]`` runs them all, or those whose names hold one of
the words, and prints what became of them; with ``--write FILE`` it
writes docs/onnx-tests.md.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from weft.compiler import onnx
from weft.isa import UnsupportedError, WeftError
from weft.runtime.jit import jit
from weft.runtime.network import of_model

Verdict = Literal["passed", "failed", "not supported"]


@dataclass(frozen=True)
class Outcome:
    """What became of a test, and why where it did not pass."""

    name: str
    verdict: Verdict
    reason: str = ""


def cases() -> Sequence[Any]:
    """Every node test of the installed package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        return load_model_tests(kind="node")


def run(case: Any) -> Outcome:
    """One test: the model from its bytes, on the CPU, on each of its sets of data."""
    name = case.name
    try:
        model = onnx.read(case.model.SerializeToString(), name)
        network = of_model(model, name)
        with jit(network, "base", "cpu") as function:
            for inputs, expected in case.data_sets:
                outputs = function(*map(_array, inputs))
                got = outputs if isinstance(outputs, tuple) else (outputs,)
                difference = _difference(got, expected, case.rtol, case.atol)
                if difference:
                    return Outcome(name, "failed", difference)
    except UnsupportedError as error:
        return Outcome(name, "not supported", str(error))
    except WeftError as error:
        return Outcome(name, "failed", f"{type(error).__name__}: {error}")
    except Exception as error:  # a crash is what these tests look for
        return Outcome(name, "failed", f"CRASH {type(error).__name__}: {error}")
    return Outcome(name, "passed")


def _array(value: Any) -> np.ndarray:
    """A sample of the tests: an array, or what protobuf holds of it."""
    if hasattr(value, "data_type"):
        from onnx import numpy_helper

        value = numpy_helper.to_array(value)
    value = np.asarray(value)
    narrow = NARROW.get(value.dtype.name)
    return value if narrow is None else value.astype(narrow)


NARROW = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}
"""Types of less than a byte: with us an element is a byte."""


def _difference(
    got: Sequence[np.ndarray], expected: Sequence[Any], rtol: float, atol: float
) -> str:
    if len(got) != len(expected):
        return f"{len(got)} outputs, not {len(expected)}"
    for k, (x, y) in enumerate(zip(got, map(_array, expected), strict=True)):
        if x.dtype != y.dtype or x.shape != y.shape:
            return f"output {k} is {x.dtype}{list(x.shape)}, not {y.dtype}{list(y.shape)}"
        if x.dtype.kind == "f":
            same = np.allclose(x, y, rtol=rtol, atol=atol, equal_nan=True)
        else:
            same = np.array_equal(x, y)
        if not same:
            return f"output {k} differs"
    return ""


def every(words: Sequence[str] = ()) -> Iterator[Outcome]:
    """The outcomes of all tests, or of those whose names hold one of ``words``."""
    for case in cases():
        if not words or any(word in case.name for word in words):
            yield run(case)


def some(modules: Sequence[str]) -> list[Any]:
    """The tests in some of the package's files, without making all the others."""
    package = importlib.import_module("onnx.backend.test.case.node")
    made = package._NodeTestCases
    found: list[Any] = []
    for module in modules:
        name = f"{package.__name__}.{module}"
        first = len(made)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name in sys.modules:
                importlib.reload(sys.modules[name])
            else:
                importlib.import_module(name)
        found += made[first:]
    return found


def page(outcomes: Sequence[Outcome]) -> str:
    """docs/onnx-tests.md."""
    import onnx as package

    version = package.__version__

    counts = Counter(outcome.verdict for outcome in outcomes)
    lines = [
        "# ONNX's own tests of operators",
        "",
        "Written by `python -m tests.compiler.onnx.nodes --write docs/onnx-tests.md`, which runs",
        f"the {len(outcomes)} node tests of onnx {version} through `weft.jit` on the CPU.",
        "",
        f"{counts['passed']} pass, {counts['failed']} fail, {counts['not supported']} hold what",
        "is not supported and are refused with its name before anything runs.",
        "",
        "| not passed | verdict | why |",
        "|---|---|---|",
    ]
    for outcome in outcomes:
        if outcome.verdict != "passed":
            why = outcome.reason.removeprefix(f"{outcome.name}: ").replace("|", "/")
            lines.append(f"| `{outcome.name}` | {outcome.verdict} | {why[:160]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    writes = sys.argv[1:2] == ["--write"]
    words = [] if writes else sys.argv[1:]
    outcomes = []
    for outcome in every(words):
        outcomes.append(outcome)
        if outcome.verdict != "passed" or words:
            print(outcome.name, outcome.verdict, outcome.reason[:300], sep="\t", flush=True)
    counts = Counter(outcome.verdict for outcome in outcomes)
    print(f"{counts['passed']} of {len(outcomes)} pass", dict(counts))
    if writes:
        Path(sys.argv[2]).write_text(page(outcomes))


if __name__ == "__main__":
    main()
