"""Records what TensorFlow Lite Micro answers on generated networks, in ``tflm.npz``.

Run from the repository's root in an environment that has ``tflite-micro`` (the tests do not
need it: they read what was recorded)::

    PYTHONPATH=. python tests/golden/record_tflm.py

Keys of the archive: ``NAME/file`` the TFLite file's bytes, ``NAME/in/i`` and ``NAME/out/i`` its
inputs and outputs, :data:`INFERENCES` of them one after another on a new first axis; and
``digits``, the scores [N, 10] of the shipped digits network on its shipped images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tflite_micro.python.tflite_micro import runtime

from tests.networks import every_operator, random_inputs, random_network, residual
from weft.compiler.tflite.write import write

INFERENCES = 3
FILE_BYTES = 5000
"""Larger ones among the random networks are left out."""

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


def main() -> None:
    """Write the archive beside this script."""
    arrays: dict[str, np.ndarray] = {}
    graphs = [every_operator(), residual(channels=6), *(random_network(s) for s in range(60))]
    for graph in graphs:
        data = write(graph)
        if graph.name.startswith("random") and len(data) > FILE_BYTES:
            continue
        interpreter = runtime.Interpreter.from_bytes(data)
        inputs: list[list[np.ndarray]] = [[] for _ in graph.inputs]
        outputs: list[list[np.ndarray]] = [[] for _ in graph.outputs]
        for seed in range(INFERENCES):
            for i, value in enumerate(random_inputs(graph, seed).values()):
                interpreter.set_input(value, i)
                inputs[i].append(value)
            interpreter.invoke()
            for i, values in enumerate(outputs):
                values.append(interpreter.get_output(i))
        arrays[f"{graph.name}/file"] = np.frombuffer(data, np.uint8)
        for role, lists in (("in", inputs), ("out", outputs)):
            arrays |= {f"{graph.name}/{role}/{i}": np.stack(v) for i, v in enumerate(lists)}
    arrays["digits"] = _digits()
    np.savez_compressed(Path(__file__).with_name("tflm.npz"), **arrays)


def _digits() -> np.ndarray:
    interpreter = runtime.Interpreter.from_file(str(DIGITS / "digits.tflite"))
    scores: list[np.ndarray] = []
    for image in np.load(DIGITS / "digits_test.npz")["x"]:
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        scores.append(interpreter.get_output(0)[0])
    return np.stack(scores)


if __name__ == "__main__":
    main()
