"""Biases that take back the mean error of their channel.

Rounding weights and clipping activations shift the mean of a layer's output. The mean of the
difference to the float network, over the samples and the image, is subtracted from the bias.

Layers follow one another, and a corrected one changes what the next ones see. So the correction is
a running mean: after each sample, every bias is corrected by the mean over the samples so far of
what its layer was still off by, seen with all earlier corrections in place. One pass, and no
values are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..graph import Graph, Quant
from ..host import HostCode
from ..onnx.simplify import known, pruned
from .insert import filter_of, inserted, open_bias
from .plan import Plan
from .samples import Samples


def corrections(
    graph: Graph,
    plan: Plan,
    quants: Mapping[str, Quant],
    real: HostCode,
    data: Samples,
    per_channel: bool,
    cache: Path | None,
    say: Callable[[str, int, int], None],
) -> dict[str, np.ndarray]:
    """The corrected biases of all Conv and Gemm of the plan, by the node's name.

    Parameters
    ----------
    graph, plan, quants, per_channel
        As :func:`.insert.inserted` takes them.
    real : HostCode
        The float graph's.
    data : Samples
        What is averaged over.
    cache : Path or None
        A directory for compiled objects.
    say : callable
        Told of progress.
    """
    rounded = pruned(
        known(inserted(graph, plan, quants, per_channel=per_channel, open_biases=True))
    )
    code = HostCode(rounded, rounded.nodes, cache)
    makers = {node.name: node for node in rounded.nodes}
    own = {
        name: filter_of(graph, unit).bias.astype(np.float64)
        for name, unit in plan.units.items()
        if unit.kind in ("Conv", "Gemm")
    }
    shifts = {name: np.zeros_like(bias) for name, bias in own.items()}
    for k, values in enumerate(data):
        expected = real.run(values)
        biases = {open_bias(name): (own[name] + shifts[name]).astype(np.float32) for name in own}
        got = code.run({**values, **biases})
        for name in own:
            output = plan.units[name].node.outputs[0]
            error = expected[output].astype(np.float64) - got[makers[name].outputs[0]]
            mean = error.mean(tuple(a for a in range(error.ndim) if a != 1))
            # The mean over samples of shift-so-far plus what was still missing.
            shifts[name] += mean / (k + 1)
        say("correcting biases", k + 1, len(data))
    return {name: (own[name] + shifts[name]).astype(np.float32) for name in own}
