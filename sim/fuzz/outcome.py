"""What becomes of a program on each executor, and in what two outcomes differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...isa.errors import DeviceFault
from ...isa.faults import FaultCode
from ...isa.golden import TIMELESS_COUNTERS, GoldenModel, Order
from ...isa.ordering import ENGINES
from ...isa.registers import PARTITIONS
from ..device import Device
from .defined import Defined
from .program import Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNTER_KINDS: Mapping[str, str] = {
    **dict.fromkeys(TIMELESS_COUNTERS, "every executor counts the same"),
    **{name: f"{engine} cycles: they sum to cycles, or the RTL's device fails"
       for engine, names in PARTITIONS.items() for name in names},
    "cycles": "time, which only the RTL has",
}  # fmt: skip
"""What is expected of each counter."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    ``fault`` is its code, engine, index and waits; ``image`` and ``counters`` are there
    only without one.
    """

    fault: tuple[FaultCode, str, int, tuple[str, ...]] | None
    image: NDArray[np.uint8] | None = None
    counters: Mapping[str, int] | None = None


def _faulted(fault: DeviceFault) -> Outcome:
    return Outcome((FaultCode(fault.code), fault.engine, fault.index, fault.waiting))


def on_golden(program: Program, model: GoldenModel, order: Order = ENGINES) -> Outcome:
    """What a golden model makes of a program, with the scratchpads that it has."""
    model.dram[:] = program.image
    model.bad = program.bad
    try:
        counters = model.run(program.address, program.count, order)
    except DeviceFault as fault:
        return _faulted(fault)
    return Outcome(None, model.dram.copy(), counters)


def golden(program: Program, order: Order = ENGINES) -> Outcome:
    """What the golden model makes of a program, from reset."""
    return on_golden(program, GoldenModel(program.config, program.image.size), order)


def on_device(program: Program, device: Device, *, reset: bool = True) -> Outcome:
    """What a device makes of a program, from reset unless told otherwise."""
    if reset:
        device.reset()
    device.break_down(*program.bad)
    device.write(0, program.image)
    try:
        result = device.run(program.address, program.count)
    except DeviceFault as fault:
        return _faulted(fault)
    finally:
        device.break_down(0, 0)
    return Outcome(None, device.read(0, program.image.size), result.counters)


def difference(ours: Outcome, oracle: Outcome, kind: Defined = Defined.MEMORY) -> str | None:
    """In what two outcomes differ first, in words; None if they do not."""
    if kind is Defined.NOTHING:
        return None
    if ours.fault != oracle.fault:
        return f"it ended with {_ending(ours)} instead of {_ending(oracle)}"
    if ours.counters is not None and oracle.counters is not None:
        for name in TIMELESS_COUNTERS:
            if ours.counters[name] != oracle.counters[name]:
                return f"{name} is {ours.counters[name]} instead of {oracle.counters[name]}"
    if ours.image is not None and oracle.image is not None and kind is Defined.MEMORY:
        different = np.flatnonzero(ours.image != oracle.image)
        if different.size:
            at = int(different[0])
            return (
                f"{different.size} bytes differ, the first at {at:#x}: "
                f"{ours.image[at]} instead of {oracle.image[at]}"
            )
    return None


def assert_same(ours: Outcome, oracle: Outcome, kind: Defined = Defined.MEMORY) -> None:
    """Fails with the first difference."""
    found = difference(ours, oracle, kind)
    assert found is None, found


def _ending(outcome: Outcome) -> str:
    if outcome.fault is None:
        return "FINISH"
    code, engine, index, waits = outcome.fault
    return f"{code.name} of {engine} at {index}" + "".join(f", {wait}" for wait in waits)
