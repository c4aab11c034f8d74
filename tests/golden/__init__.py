"""Answers of TensorFlow Lite Micro on generated networks; ``record_tflm.py`` makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

with np.load(Path(__file__).with_name("tflm.npz"), allow_pickle=False) as _archive:
    _ARRAYS = {key: _archive[key] for key in _archive}

NETWORKS = [key.removesuffix("/file") for key in _ARRAYS if key.endswith("/file")]
"""The names of the recorded networks."""
DIGITS = _ARRAYS["digits"]
"""The scores [N, 10] of the shipped digits network on its shipped images."""


def model_file(name: str) -> bytes:
    """The TFLite file of a recorded network."""
    return _ARRAYS[f"{name}/file"].tobytes()


def inputs(name: str) -> list[np.ndarray]:
    """An array for each input, [inferences, *shape]."""
    return _indexed(name, "in")


def outputs(name: str) -> list[np.ndarray]:
    """An array for each output, [inferences, *shape]."""
    return _indexed(name, "out")


def _indexed(name: str, role: str) -> list[np.ndarray]:
    prefix = f"{name}/{role}/"
    return [value for key, value in _ARRAYS.items() if key.startswith(prefix)]
