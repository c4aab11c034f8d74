"""Executing a compiled network: programs on a device, the other nodes as native host code."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..compiler import layout
from ..compiler.artifact import AcceleratorStep, CompiledModel, HostStep
from ..compiler.graph import element_dtype
from ..isa.errors import DataError
from ..sim.device import Device
from ..sim.paths import cache_directory
from .launch import Launch, StepProfile

if TYPE_CHECKING:
    from ..compiler.host import HostCode

Progress = Callable[[int, int], None]


class Executor:
    """Runs one compiled network, sample by sample, on one device.

    What a network carries from one inference to the next, as recurrent layers do, it keeps.

    Parameters
    ----------
    model : CompiledModel
        What to run. Its constant segments are written to the device here.
    device : Device or None
        Where the programs run; None if the model has only host steps.
    """

    def __init__(self, model: CompiledModel, device: Device | None):
        self.model = model
        self.device = device
        self.reset()
        from ..compiler.host import compile_nodes  # much to import for a program of one launch

        self._host: dict[str, HostCode] = {
            step.name: compile_nodes(
                model.graph,
                tuple(n for n in model.graph.nodes if n.name in step.nodes),
                cache_directory() / "host",
            )
            for step in model.steps
            if isinstance(step, HostStep)
        }
        self._programs: list[Launch] = []
        if device is not None:
            for segment in model.segments:
                device.write(segment.address, segment.data)
            self._programs = [Launch(model, steps, device) for steps in model.programs]

    def __call__(
        self, inputs: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], list[StepProfile]]:
        """One inference: the graph's inputs by name to its outputs by name, and the profile.

        Raises
        ------
        DeviceError
            If the device stops; the message begins with the step's name.
        """
        values: dict[str, np.ndarray] = {**self._carried, **inputs}
        in_dram: set[str] = set()
        profiles: list[StepProfile] = []
        programs = iter(self._programs)
        for step in self.model.steps:
            if isinstance(step, AcceleratorStep):
                if step.layer == 0:
                    profiles += next(programs).run(values, in_dram)
                continue
            started = time.perf_counter()
            for name in step.inputs:
                if name not in values:
                    values[name] = self._from_dram(name)
            values.update(self._host[step.name].run(values))
            profiles.append(StepProfile(seconds=time.perf_counter() - started))
        graph = self.model.graph

        def value(name: str) -> np.ndarray:
            return values[name] if name in values else self._from_dram(name)

        self._carried = {name: value(source) for name, source in graph.carried.items()}
        return {name: value(name) for name in graph.outputs}, profiles

    def reset(self) -> None:
        """Forget what earlier inferences left: the next one is like the first."""
        self._carried: dict[str, np.ndarray] = {}

    def _from_dram(self, name: str) -> np.ndarray:
        assert self.device is not None
        tensor = self.model.tensors[name]
        size = layout.packed_bytes(tensor, self.model.config)
        data = self.device.read(tensor.address, size)
        shape = self.model.graph.tensors[name].shape
        return layout.unpack(tensor, self.model.config, data).reshape(shape)


def check_sample(model: CompiledModel, name: str, value: np.ndarray) -> np.ndarray:
    """``value`` as the graph's input ``name``, C-contiguous.

    Raises
    ------
    DataError
        If shape or type differ; nothing is converted silently.
    """
    tensor = model.graph.tensors[name]
    expected = element_dtype(tensor.dtype)
    if value.dtype != expected:
        raise DataError(f"input {name!r} takes {expected}, not {value.dtype}")
    if value.shape != tensor.shape:
        raise DataError(f"input {name!r} takes shape {tensor.shape}, not {value.shape}")
    return np.require(value, requirements="C").reshape(tensor.shape)
