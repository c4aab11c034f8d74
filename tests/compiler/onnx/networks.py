"""The quantized ONNX networks that were measured elsewhere, with their samples and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.compiler.onnx.models import onnx
from tests.shared import SHARED

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NETWORKS: Mapping[str, str] = {
    "resnet20_cifar10": "resnet20_cifar10_qdq.onnx",
    "kwt1_transformer": "kwt1_qdq.onnx",
}
"""Their quantized files."""


def images(x: np.ndarray) -> np.ndarray:
    """Images of bytes as resnet20 takes them."""
    real = x.astype(np.float32) / 255
    real = (real - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return np.ascontiguousarray(real.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Measured:
    """A network, and what was measured."""

    path: Path
    proto: Any
    golden: Mapping[str, np.ndarray]
    x: np.ndarray

    @classmethod
    def load(cls, name: str) -> Measured:
        """One of :data:`NETWORKS`."""
        assert SHARED is not None
        folder = SHARED / "models" / name
        path = folder / NETWORKS[name]
        golden = np.load(folder / f"{name}_golden.npz", allow_pickle=False)
        x = golden["x"]
        return cls(path, onnx.load(path), golden, images(x) if x.dtype == np.uint8 else x)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.x)

    def sample(self, k: int) -> dict[str, np.ndarray]:
        """One sample as the model takes it."""
        return {self.proto.graph.input[0].name: self.x[k : k + 1]}
