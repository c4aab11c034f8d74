"""What would have to change so that the accelerator runs a node that it refuses.

Hardware is not guessed at: a change is named only if the node has been compiled for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..isa.config import AcceleratorConfig
from ..isa.errors import ConfigError, UnsupportedError
from .graph import Graph, Node
from .jobs import job_of
from .kernel import Refusal
from .partition import kernel_for

SCRATCHPADS = ("acc_bytes", "inp_bytes", "wgt_bytes", "uop_bytes", "qnt_bytes")
EXTENSIONS = ("requantize", "pad_value", "overwrite")
GROWTH = 6
"""Doublings of a scratchpad that are tried."""
OF_MODELS = (
    ("a copy", "nothing has to change; it moves no data on the device"),
    ("changes nothing", "nothing has to change; it moves no data on the device"),
    ("asked to run on the cpu", "ask for the accelerator"),
    ("the accelerator stores bytes", "nothing can; it is the host's part of a layer in bytes"),
    ("no form in integers", "a model that does it in integers, or leaves it to the host"),
    ("not i8", "a model whose tensors are int8"),
    ("memory for intermediate values", "a model without it, or one whose host does it"),
    ("a load has up to 15", "a model with at most 15 rows and columns of padding"),
    ("divisor varies", "a pool without padding"),
    ("too many values", "a pool over fewer elements"),
    ("parameters that vary with the channel", "scales and zero points of the whole tensor"),
    ("an operand is a constant", "a constant of one element"),
    ("the weights are not constant", "constant weights"),
    ("rank 1 to 4", "tensors of rank 1 to 4"),
)
"""Of the model, by what a refusal says."""


def remedy(graph: Graph, node: Node, config: AcceleratorConfig, reason: str) -> str:
    """The least change of hardware that admits ``node``, or what a model would have to have."""
    for fragment, change in OF_MODELS:
        if fragment in reason:
            return change
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
