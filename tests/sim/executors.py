"""One program, several executors: what each makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tests.programs import Program
from weft.isa import DeviceFault, FaultCode
from weft.isa.golden import TIMELESS_COUNTERS, GoldenModel, Order
from weft.isa.ordering import ENGINES
from weft.sim import Device


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    ``fault`` is its code, engine, index and waits; ``image`` and ``counters`` are there
    only without one.
    """

    fault: tuple[FaultCode, str, int, tuple[str, ...]] | None
    image: np.ndarray | None = None
    counters: Mapping[str, int] | None = None


def _faulted(fault: DeviceFault) -> Outcome:
    return Outcome((FaultCode(fault.code), fault.engine, fault.index, fault.waiting))


def golden(program: Program, order: Order = ENGINES) -> Outcome:
    """What the golden model makes of a program."""
    model = GoldenModel(program.config, program.image.size)
    model.dram[:] = program.image
    try:
        counters = model.run(program.address, program.count, order)
    except DeviceFault as fault:
        return _faulted(fault)
    return Outcome(None, model.dram, counters)


def on_device(program: Program, device: Device) -> Outcome:
    """What a device makes of a program, from reset."""
    device.reset()
    device.write(0, program.image)
    try:
        result = device.run(program.address, program.count)
    except DeviceFault as fault:
        return _faulted(fault)
    counters = {name: result.counters[name] for name in TIMELESS_COUNTERS}
    return Outcome(None, device.read(0, program.image.size), counters)


def assert_same(ours: Outcome, oracle: Outcome) -> None:
    """Fails with the first difference."""
    assert ours.fault == oracle.fault
    if ours.image is not None and oracle.image is not None:
        differing = np.flatnonzero(ours.image != oracle.image)
        assert not differing.size, (
            f"{differing.size} bytes differ, the first at {differing[0]:#x}: "
            f"{ours.image[differing[0]]} instead of {oracle.image[differing[0]]}"
        )
        assert ours.counters == oracle.counters
