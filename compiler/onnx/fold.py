"""Operators of the catalog on constants: what a graph need not compute again at every call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...isa.interpret import interpret
from ...isa.storage import numpy_dtype
from ..catalog import CATALOG, Kernel, Site
from ..graph import element_dtype


def evaluate(site: Site, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of an operator, by its own definition.

    Parameters
    ----------
    site : Site
        With its outputs.
    inputs : sequence
        Their values, None for absent ones.
    """
    outputs = [np.zeros(t.shape, element_dtype(t.dtype)) for t in site.outputs]
    if not any(output.size for output in outputs):
        return outputs
    made = CATALOG[site.kind].code(site)
    if isinstance(made, Kernel):
        results = made(site.name, inputs)
        return [
            np.array(np.broadcast_to(value, o.shape), o.dtype, order="C")
            for value, o in zip(results, outputs, strict=True)
        ]
    arrays: dict[str, np.ndarray] = dict(made.constants)
    for tensor, value in (*zip(site.inputs, inputs, strict=True),
                          *zip(site.outputs, outputs, strict=True)):  # fmt: skip
        if tensor is not None and value is not None:
            arrays[tensor.name] = value.view(np.uint8) if value.dtype == bool else value
    shaped: dict[str, np.ndarray] = {}
    for buffer in made.nest.buffers:
        if buffer.name in made.scratch:
            shaped[buffer.name] = np.zeros(buffer.shape, numpy_dtype(buffer.dtype))
        else:
            shaped[buffer.name] = arrays[buffer.name].reshape(buffer.shape)
    interpret(made.nest, {}, shaped)
    return outputs
