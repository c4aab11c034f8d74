"""ONNX's own tests of single operators, run as a user would run the models.

``python -m tests.compiler.onnx.nodes [WORD ...]`` runs them all, or those whose names hold one of
the words, and prints what became of them.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

        return numpy_helper.to_array(value)
    return np.asarray(value)


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


def main() -> None:
    counts: Counter[str] = Counter()
    for outcome in every(sys.argv[1:]):
        counts[outcome.verdict] += 1
        if outcome.verdict != "passed" or len(sys.argv) > 1:
            print(outcome.name, outcome.verdict, outcome.reason[:300], sep="\t")
    print(f"{counts['passed']} of {sum(counts.values())} pass", dict(counts))


if __name__ == "__main__":
    main()
