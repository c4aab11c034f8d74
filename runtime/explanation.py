"""Why every node runs where it does, and what it waits for there; without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..compiler.artifact import AcceleratorStep, CompiledModel, HostStep
from ..compiler.marks import forms
from ..compiler.remedy import remedy
from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from .launch import moved_bytes

PADDED = 0.7
"""Where less of the array's steps is of use, padding is called the bound."""
HIDDEN = 1.25
"""Where the estimate is more than so many times what array and bus need, dependence is."""


def explain(model: CompiledModel) -> list[dict[str, Any]]:
    """For each step, in order, what was decided about it, as plain data for JSON.

    All have ``step``, ``nodes``, ``op``, ``where`` and ``why``. On the accelerator follow
    ``instructions`` (how many of each), ``tile`` and ``buffers``, all ``choices``, ``search``
    (with how much effort, how many schedules were considered, and the best others with their
    estimates of cycles), ``array_cycles`` and
    ``bus_cycles`` (of its steps, and of its bytes on the busier of the two channels),
    ``dram_bytes`` beside ``dram_compulsory_bytes`` and ``dram_fused_bytes`` (the least that any
    schedule moves if every tensor crosses the bus, and if what stays on chip does not), and
    ``bound_by``, the first that holds:
    ``dependence`` if what array and bus do can overlap too little, ``bus``, ``padding`` if the
    array is busy, but many of its lanes hold nothing, ``array``. On the cpu, ``rule`` is the
    refusal of each node and ``remedy`` what would admit it.
    """
    instructions = InstructionSet(model.config)
    return [
        _on_accelerator(step, model.config, instructions)
        if isinstance(step, AcceleratorStep)
        else _on_cpu(step, model)
        for step in model.steps
    ]


def _head(step: AcceleratorStep | HostStep, where: str, why: str) -> dict[str, Any]:
    head: dict[str, Any] = {"step": step.name, "nodes": list(step.nodes), "op": step.op}
    return head | {"where": where, "why": why}


def _on_accelerator(
    step: AcceleratorStep, config: AcceleratorConfig, instructions: InstructionSet
) -> dict[str, Any]:
    why = ", ".join(f"{key} {value}" for key, value in step.choices.items())
    moved = moved_bytes(step, instructions)
    array = int(step.choices.get("steps", 0))
    bus = max(moved.values()) / config.bus_bytes
    return _head(step, "accelerator", why) | {
        "instructions": dict(Counter(i.operation for i in step.instructions)),
        "tile": str(step.choices.get("tile", "")),
        "buffers": str(step.choices.get("buffers", "")),
        "choices": dict(step.choices),
        "search": None if step.search is None else asdict(step.search),
        "array_cycles": array,
        "bus_cycles": round(bus),
        "dram_bytes": sum(moved.values()),
        "dram_compulsory_bytes": step.compulsory_bytes,
        "dram_fused_bytes": step.fused_bytes,
        "bound_by": _bound(step, config, array, bus),
    }


def _bound(step: AcceleratorStep, config: AcceleratorConfig, array: int, bus: float) -> str:
    estimate = int(step.choices.get("estimate", 0))
    if estimate > HIDDEN * max(array, bus):
        return "dependence"
    if bus > array:
        return "bus"
    useful = step.needed_macs / _macs_of_a_step(step, config)
    return "padding" if step.macs and useful < PADDED * array else "array"


def _macs_of_a_step(step: AcceleratorStep, config: AcceleratorConfig) -> int:
    """The most multiplications that one of the array's steps in it can do."""
    known = forms(config)
    used = [known[i.operation] for i in step.instructions if i.operation in known]
    taps = {form.taps for form in used if form.products}
    terms = [n or config.block for n in taps] or [config.block]
    return config.batch * config.block * max(terms)


def _on_cpu(step: HostStep, model: CompiledModel) -> dict[str, Any]:
    nodes = {node.name: node for node in model.graph.nodes}
    rules = _rules(step)
    remedies = {name: remedy(model.graph, nodes[name], model.config) for name in rules}
    return _head(step, "cpu", step.reason) | {"rule": rules, "remedy": remedies}


def _rules(step: HostStep) -> Mapping[str, str]:
    """The refusal of each node; a step of several names them in its reason."""
    if len(step.nodes) == 1:
        return {step.nodes[0]: step.reason}
    found: dict[str, str] = {}
    rest = step.reason
    for name, following in zip(step.nodes, (*step.nodes[1:], None), strict=True):
        rest = rest.removeprefix(f"{name}: ")
        end = len(rest) if following is None else rest.index(f"; {following}: ")
        found[name], rest = rest[:end], rest[end + 2 :]
    return found
