"""Where the models and conformance programs lie that are not part of this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
"""Of this repository."""


def _find() -> Path | None:
    candidates = [Path(os.environ["WEFT_SHARED"])] if "WEFT_SHARED" in os.environ else []
    candidates.append(ROOT.parent / "shared")
    return next((path for path in candidates if (path / "models").is_dir()), None)


SHARED = _find()
"""The folder with ``models/`` and ``conformance/``; None where it is absent."""

needs_shared = pytest.mark.skipif(
    SHARED is None, reason="../shared (or WEFT_SHARED) with models and programs is not there"
)
"""Skips a test that reads from :data:`SHARED`."""


def model_path(name: str, suffix: str = ".tflite") -> Path:
    """The file of a model; call it only under :data:`needs_shared`."""
    assert SHARED is not None
    return SHARED / "models" / name / f"{name}{suffix}"
