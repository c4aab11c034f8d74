"""Launching the program of some layers, and what each of them cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..compiler import layout
from ..compiler.artifact import AcceleratorStep, CompiledModel
from ..isa.errors import DeviceError, DeviceFault
from ..isa.instructions import InstructionSet
from ..isa.memories import Engine
from ..sim.device import Device, Mark, RunResult
from ..sim.stream import Stream

MOVED = ("read_bytes", "write_bytes")
"""The counters that follow from a layer's instructions, whenever they are executed."""


@dataclass
class StepProfile:
    """What one execution of a step cost.

    The layers of a program overlap: while one is computed, the next one's weights arrive. A
    layer's cycles, and its counters, are those from the end of the layer before to its own; it
    ends when the compute engine has completed its last instruction for it. Layers that take turns
    end so at each turn. The first layer's begin with the launch, the last one's end with the
    program. So the layers' cycles sum to the program's.

    Attributes
    ----------
    cycles : int
        Of the device; 0 for a host step.
    counters : mapping
        The device's counters in these cycles, by name; but bytes are those that the layer's
        instructions move, and they themselves, whenever that is.
    seconds : float
        Wall time.
    """

    cycles: int = 0
    counters: Mapping[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0


class Launch:
    """One program on a device.

    Parameters
    ----------
    model : CompiledModel
        What it belongs to.
    steps : sequence of AcceleratorStep
        Its layers, in order.
    device : Device
        Where it runs.
    """

    def __init__(self, model: CompiledModel, steps: Sequence[AcceleratorStep], device: Device):
        self._model, self._steps, self._device = model, steps, device
        self._program = steps[0].program
        instructions = InstructionSet(model.config)
        made = {name for step in steps for name in step.outputs}
        self._needed = [n for step in steps for n in step.inputs if n not in made]
        self._made = made
        on_compute = np.array(
            [
                instructions.operations[i.operation].engine is Engine.COMPUTE
                for i in self._program.instructions
            ]
        )
        carries = np.array([not i.operands for i in self._program.instructions])
        works = np.flatnonzero(on_compute & ~carries)
        owners = np.array(self._program.owners)[works]
        turns = np.flatnonzero(np.diff(owners))
        self._marks = tuple(np.cumsum(on_compute)[works[turns]].tolist())
        self._owners: list[int] = [*owners[turns].tolist(), int(owners[-1]) if len(owners) else 0]
        """Of what lies between two marks: the layer."""
        self._moved = [moved_bytes(step, instructions) for step in steps]

    def run(self, values: dict[str, np.ndarray], in_dram: set[str]) -> list[StepProfile]:
        """Run it on ``values`` and what is ``in_dram`` already; both learn of what it makes.

        Raises
        ------
        DeviceError
            If the device stops; the message begins with the layer's name.
        """
        for name in self._needed:
            if name not in in_dram:
                tensor = self._model.tensors[name]
                packed = layout.pack(tensor, self._model.config, values[name])
                self._device.write(tensor.address, packed)
                in_dram.add(name)
        result = self._launch()
        for name in self._made:
            values.pop(name, None)
            in_dram.add(name)
        return self._profiles(result)

    def _launch(self) -> RunResult:
        try:
            return self._device.run(self._program.address, self._program.count, self._marks)
        except DeviceError as error:
            name = self._program.name if len(self._steps) > 1 else self._steps[0].name
            if isinstance(error, DeviceFault) and error.index < self._program.count:
                name = self._steps[self._program.owners[error.index]].name
            error.args = (f"{name}: {error}", *error.args[1:])
            raise

    def _profiles(self, result: RunResult) -> list[StepProfile]:
        ends = [*result.marks, Mark(result.counters, result.seconds)]
        counted = [dict.fromkeys(result.counters, 0) for _ in self._steps]
        seconds = [0.0 for _ in self._steps]
        before = Mark({}, 0.0)
        for owner, end in zip(self._owners, ends, strict=True):
            for name, value in end.counters.items():
                counted[owner][name] += value - before.counters.get(name, 0)
            seconds[owner] += end.seconds - before.seconds
            before = end
        left = {name: result.counters.get(name, 0) for name in MOVED}
        for number, moved in enumerate(self._moved[:-1]):
            counted[number] |= moved
            left = {name: left[name] - moved[name] for name in MOVED}
        counted[-1] |= left  # what is left: beats of the instructions that are not full
        return [
            StepProfile(counters.get("cycles", 0), counters, spent)
            for counters, spent in zip(counted, seconds, strict=True)
        ]


def moved_bytes(step: AcceleratorStep, instructions: InstructionSet) -> dict[str, int]:
    """Bytes over the bus for a layer's instructions, those themselves included."""
    words = instructions.encode_all(step.instructions)
    counted = Stream(instructions, words).counters
    moved = {name: counted[name] for name in MOVED}
    moved["read_bytes"] += len(words)
    return moved
