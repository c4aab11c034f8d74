"""The report of a run: one record, from which the table and the JSON are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..compiler.artifact import AcceleratorStep, CompiledModel
from ..isa.registers import COUNTERS
from ..isa.spec import spec_hash
from ..sim.device import DEFAULT_DRAM_LATENCY
from ..version import VERSION
from .launch import StepProfile

DRAM = {
    "latency": DEFAULT_DRAM_LATENCY, "outstanding": 16, "write_response": 10, "beats_per_cycle": 1,
}  # fmt: skip
"""The memory model of every published figure."""

STALL_GROUP = "compute"
"""The engine whose cycles a layer's ``stalls`` divide: the array's."""


def dram(options: Mapping[str, Any]) -> dict[str, int]:
    """The memory model under the options that a device was connected with."""
    model = dict(DRAM)
    if options.get("dram_latency") is not None:
        model["latency"] = options["dram_latency"]
    if options.get("stall_seed") is not None:
        model["stall_seed"] = options["stall_seed"]
    return model


@dataclass(frozen=True)
class RunInfo:
    """What a report says about the run as a whole."""

    model_name: str
    model_sha256: str
    on: str
    dram: Mapping[str, int]
    samples: int
    host_seconds: float
    simulation_seconds: float


def build(model: CompiledModel, profiles: Sequence[StepProfile], info: RunInfo) -> dict[str, Any]:
    """The report of the last sample's profile, as plain data for JSON.

    Cycles are those of the device; ``bound_cycles`` are the least that the array or the bus allow
    for the layer. ``dram_compulsory_bytes`` are the least that any schedule moves while every
    tensor crosses the bus, ``dram_fused_bytes`` the least where those that stay on chip do not:
    these count for the bound. ``stalls`` divide a layer's cycles among what its array did, ``busy``
    included; a simulator without time has none.
    """
    config = model.config
    layers = [
        _layer(model, step, profile) for step, profile in zip(model.steps, profiles, strict=True)
    ]
    macs = sum(layer["macs"] for layer in layers)
    cycles = sum(layer["cycles"] for layer in layers)
    offloaded = sum(layer["macs"] for layer in layers if layer["where"] == "accelerator")
    return {
        "weft": VERSION,
        "spec_hash": spec_hash(config),
        "model": {"name": info.model_name, "sha256": info.model_sha256},
        "hw": config.to_mapping(),
        "on": info.on,
        "dram": dict(info.dram),
        "samples": info.samples,
        "totals": {
            "macs": macs,
            "cycles": cycles,
            "macs_per_cycle": macs / cycles if cycles else 0.0,
            "offload_macs": offloaded / macs if macs else 0.0,
            "host_seconds": info.host_seconds,
            "simulation_seconds": info.simulation_seconds,
        },
        "layers": layers,
    }


def _layer(model: CompiledModel, step: Any, profile: StepProfile) -> dict[str, Any]:
    config = model.config
    counters = profile.counters
    record: dict[str, Any] = {
        "name": step.name,
        "op": step.op,
        "where": "accelerator" if isinstance(step, AcceleratorStep) else "cpu",
        "macs": step.macs,
        "cycles": profile.cycles,
        "dram_read_bytes": counters.get("read_bytes", 0),
        "dram_write_bytes": counters.get("write_bytes", 0),
        "seconds": profile.seconds,
    }
    if not isinstance(step, AcceleratorStep):
        return record | {
            "reason": step.reason,
            "dram_compulsory_bytes": 0,
            "dram_fused_bytes": 0,
            "bound_cycles": 0,
            "bound_by": "cpu",
            "utilization": 0.0,
            "stalls": {},
        }
    array = step.needed_macs / config.peak_macs
    bus = step.fused_bytes / config.bus_bytes
    return record | {
        "dram_compulsory_bytes": step.compulsory_bytes,
        "dram_fused_bytes": step.fused_bytes,
        "bound_cycles": max(array, bus),
        "bound_by": "array" if array >= bus else "bus",
        "utilization": step.macs / (profile.cycles * config.peak_macs) if profile.cycles else 0.0,
        "stalls": {
            counter.name.removeprefix(f"{STALL_GROUP}_"): counters[counter.name]
            for counter in COUNTERS
            if counter.group == STALL_GROUP and counter.partition and counter.name in counters
        },
        "choices": dict(step.choices),
        "search": None if step.search is None else asdict(step.search),
    }


class Report(dict[str, Any]):
    """A report that prints as its table."""

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=140, no_color=True, highlight=False)
        with console.capture() as capture:
            console.print(table(self))
        return capture.get()


def table(report: Mapping[str, Any]) -> Any:
    """The per-layer table, for ``rich`` to print.

    Where nothing counts cycles (``functional``, ``cpu``), it shows the milliseconds of this
    machine instead. ``unfused`` are the bytes that any schedule moves while every tensor crosses
    the bus, ``of least`` compares with what remains of them where tensors stay on chip.
    """
    from rich.table import Table

    layers, totals = report["layers"], report["totals"]
    timed = any(layer["cycles"] for layer in layers)
    numbers = (
        ("cycles", "MAC/cycle", "util", "bound", "read", "written", "unfused", "of least")
        if timed
        else ("ms",)
    )
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("layer", "op", "where"):
        grid.add_column(title, no_wrap=True)
    for title in ("MACs", *numbers):
        grid.add_column(title, justify="right", no_wrap=True)
    for layer in layers:
        grid.add_row(
            *(layer["name"], layer["op"], layer["where"], f"{layer['macs']:,}"),
            *(_cycle_cells(layer) if timed else (f"{1000 * layer['seconds']:.3f}",)),
            style="dim" if layer["where"] == "cpu" and timed else None,
        )
    grid.add_section()
    traffic = [sum(layer[f"dram_{way}_bytes"] for layer in layers) for way in ("read", "write")]
    sums = (
        *(f"{totals['cycles']:,}", f"{totals['macs_per_cycle']:.1f}", "", ""),
        *(_bytes(count) for count in traffic),
        _bytes(sum(layer["dram_compulsory_bytes"] for layer in layers)),
        _times(sum(traffic), sum(layer["dram_fused_bytes"] for layer in layers)),
    )
    milliseconds = f"{1000 * sum(layer['seconds'] for layer in layers):.3f}"
    grid.add_row(
        *("total", "", f"{totals['offload_macs']:.1%} acc.", f"{totals['macs']:,}"),
        *(sums if timed else (milliseconds,)),
        style="bold",
    )
    return grid


def _cycle_cells(layer: Mapping[str, Any]) -> tuple[str, ...]:
    cycles = layer["cycles"]
    if not cycles:
        return ("-",) * 8
    return (
        f"{cycles:,}",
        f"{layer['macs'] / cycles:.1f}",
        f"{layer['utilization']:.0%}",
        f"{layer['bound_cycles']:,.0f} {layer['bound_by']}",
        _bytes(layer["dram_read_bytes"]),
        _bytes(layer["dram_write_bytes"]),
        _bytes(layer["dram_compulsory_bytes"]),
        _times(layer["dram_read_bytes"] + layer["dram_write_bytes"], layer["dram_fused_bytes"]),
    )


def _times(moved: int, least: int) -> str:
    """How many times the least: 1.00 where nothing was moved twice or for nothing."""
    return f"{moved / least:.2f}x" if least else "-"


def _bytes(count: int) -> str:
    return f"{count / 1024:,.1f} KiB" if count >= 1024 else f"{count} B"
