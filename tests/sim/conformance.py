"""The 104 VTA programs of the shared folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tests.shared import SHARED
from weft.isa import AcceleratorConfig

IMAGE_ADDRESS = 0x1000
COUNT = 104


@dataclass(frozen=True)
class Program:
    """A memory image at :data:`IMAGE_ADDRESS` with a stream in it, and what becomes of it."""

    name: str
    config: AcceleratorConfig
    address: int
    count: int
    before: np.ndarray
    after: np.ndarray


@cache
def _archive() -> tuple[Any, list[Mapping[str, Any]]]:
    assert SHARED is not None
    data = np.load(SHARED / "conformance" / "vta_programs.npz", allow_pickle=False)
    return data, json.loads(bytes(data["meta"]))


def program(index: int) -> Program:
    """The program of that number."""
    data, records = _archive()
    record = records[index]
    before = data[f"{index:03d}_before"]
    return Program(
        f"{index:03d}-{record['kind']}",
        AcceleratorConfig.from_vta(record["config"]),
        record["instruction_address"],
        record["instruction_count"],
        before,
        before ^ data[f"{index:03d}_xor"],
    )
