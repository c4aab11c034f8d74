"""Devices for tests that every kind of device must pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from weft.isa import AcceleratorConfig
from weft.sim import Device, connect

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "functional": ("functional", {}),
    "rtl-1": ("rtl", {"dram_latency": 1}),
    "rtl-60": ("rtl", {"dram_latency": 60}),
    "rtl-1-stalls": ("rtl", {"dram_latency": 1, "stall_seed": 1}),
    "rtl-60-stalls": ("rtl", {"dram_latency": 60, "stall_seed": 2}),
}
"""Kind and options of each variant that tests go through."""


class Devices:
    """Devices of one variant, one a configuration; they live as long as the tests."""

    def __init__(self, variant: str):
        self.variant = variant
        self._made: dict[tuple[AcceleratorConfig, int], Device] = {}

    @property
    def slow(self) -> bool:
        """Whether a step takes microseconds rather than nanoseconds."""
        return self.variant != "functional"

    def __call__(self, config: AcceleratorConfig, dram_bytes: int) -> Device:
        """The device of a configuration; whatever ran on it before."""
        key = config, dram_bytes
        if key not in self._made:
            kind, options = KINDS[self.variant]
            self._made[key] = connect(kind, config, dram_bytes=dram_bytes, **options)
        return self._made[key]

    def close(self) -> None:
        for device in self._made.values():
            device.close()


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=[] if kind == "functional" else pytest.mark.slow)
        for name, (kind, _) in KINDS.items()
    ],
)
def devices(request: pytest.FixtureRequest) -> Iterator[Devices]:
    """Devices of every variant; those that simulate the RTL need to have it built."""
    made = Devices(request.param)
    yield made
    made.close()


def for_deep_tests(devices: Devices, request: pytest.FixtureRequest) -> None:
    """Skip what would compile a model that no other test needs, unless ``--deep`` is given."""
    if devices.slow and not request.config.getoption("--deep"):
        pytest.skip("compiles a model of its own: --deep")
