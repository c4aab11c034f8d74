"""Executing a compiled network: programs on a device, the other nodes as native host code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..compiler import layout
from ..compiler.artifact import AcceleratorStep, CompiledModel, HostStep
from ..compiler.graph import element_dtype
from ..isa.errors import ConfigError, DataError
from ..sim.device import Device
from ..sim.paths import cache_directory
from .launch import Launch, StepProfile

if TYPE_CHECKING:
    from ..compiler.host import HostCode

Progress = Callable[[int, int], None]

THREAD_LIMIT = 256


class Executor:
    """Runs one compiled network, sample by sample, on one device.

    What a network carries from one inference to the next, as recurrent layers do, it keeps.

    Parameters
    ----------
    model : CompiledModel
        What to run. Its constant segments are written to the device here.
    device : Device or None
        Where the programs run; None if the model has only host steps.
    threads : int or None
        On how many threads the host's code runs; by default as many as ``WEFT_THREADS`` says, or
        one. Results do not depend on it.
    """

    def __init__(self, model: CompiledModel, device: Device | None, threads: int | None = None):
        if threads is None:
            threads = threads_of(os.environ.get("WEFT_THREADS", "1"))
        self.model = model
        self.device = device
        self.reset()
        from ..compiler.host import compile_nodes  # much to import for a program of one launch

        self._host: dict[str, HostCode] = {
            step.name: compile_nodes(
                model.graph,
                tuple(n for n in model.graph.nodes if n.name in step.nodes),
                cache_directory() / "host",
                outputs=self._needed(step),
                threads=threads,
            )
            for step in model.steps
            if isinstance(step, HostStep)
        }
        self._programs: list[Launch] = []
        if device is not None:
            for segment in model.segments:
                device.write(segment.address, segment.data)
            self._programs = [Launch(model, steps, device) for steps in model.programs]

    def _needed(self, step: HostStep) -> list[str]:
        """Those outputs of a step that somebody reads."""
        graph = self.model.graph
        read = {*graph.outputs, *graph.carried.values()}
        read |= {name for other in self.model.steps if other is not step for name in other.inputs}
        return [name for name in step.outputs if name in read]

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
            if name in values:
                return values[name]
            constant = graph.tensors[name].data
            return self._from_dram(name) if constant is None else constant.copy()

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


def threads_of(text: str) -> int:
    """The number of threads that a text asks for.

    Raises
    ------
    ConfigError
        If it is not a positive number.
    """
    if not text.isdecimal() or not 1 <= int(text) <= THREAD_LIMIT:
        raise ConfigError(f"WEFT_THREADS is a number from 1 to {THREAD_LIMIT}, not {text!r}")
    return int(text)


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
