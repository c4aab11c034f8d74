"""What would have to change so that the accelerator runs a node that it refuses.

Hardware is not guessed at: a change is named only if the node has been compiled for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..isa.config import AcceleratorConfig
from ..isa.errors import ConfigError, UnsupportedError
from .graph import Graph, Node
from .jobs import job_of
from .kernel import Lack, Refusal
from .partition import kernel_for

SCRATCHPADS = ("acc_bytes", "inp_bytes", "wgt_bytes", "uop_bytes", "qnt_bytes")
EXTENSIONS = ("requantize", "pad_value", "overwrite")
WIDTHS = ("inp_width", "wgt_width")
GROWTH = 6
"""Doublings of a scratchpad that are tried."""
OF_MODELS: Mapping[Lack, str] = {
    Lack.WORK: "nothing has to change; it moves no data on the device",
    Lack.INTEGERS: "a model that does it in integers, or leaves it to the host",
    Lack.BYTES: "nothing can; it is the host's part of a layer in bytes",
    Lack.INT8: "a model whose tensors are int8",
    Lack.NO_SCRATCH: "a model without it, or one whose host does it",
    Lack.PADDING: "a model with at most 15 rows and columns of padding",
    Lack.DIVISOR: "a pool without padding",
    Lack.VALUES: "a pool over fewer elements",
    Lack.COMMON_SCALE: "scales and zero points of the whole tensor",
    Lack.OPERAND: "a constant of one element",
    Lack.WEIGHTS: "constant weights",
    Lack.RANK: "tensors of rank 1 to 4",
}
"""Of the model, by what a refusal lacks."""


def remedy(graph: Graph, node: Node, config: AcceleratorConfig) -> str:
    """The least change of hardware that admits ``node``, or what a model would have to have."""
    try:
        job_of(kernel_for(graph, node), config)
    except Refusal as refusal:
        if refusal.lack in OF_MODELS:
            return OF_MODELS[refusal.lack]
    except UnsupportedError:
        pass
    else:
        return "ask for the accelerator"
    for change, hardware in _changes(config):
        try:
            job_of(kernel_for(graph, node), hardware)
        except (Refusal, UnsupportedError):
            continue
        return f"hardware with {change}"
    return "another operator; no scratchpad and no extension of this hardware admits it"


def _changes(config: AcceleratorConfig) -> Iterator[tuple[str, AcceleratorConfig]]:
    """One thing changed, then all of them; only hardware that can be built."""
    single: list[dict[str, int | bool]] = [
        {name: True} for name in EXTENSIONS if not getattr(config, name)
    ]
    single += [{name: 8} for name in WIDTHS if getattr(config, name) < 8]
    sizes = [2**n for n in range(1, GROWTH + 1)]
    single += [{name: getattr(config, name) * by} for by in sizes for name in SCRATCHPADS]
    together: list[dict[str, int | bool]] = [dict.fromkeys(EXTENSIONS, True)]
    together += [{name: getattr(config, name) * by for name in SCRATCHPADS} for by in sizes]
    for change in (*single, *together):
        try:
            hardware = replace(config, **change)
        except ConfigError:
            continue
        text = ", ".join(f"{key} = {str(value).lower()}" for key, value in change.items())
        yield text, hardware
