"""Which of TFLite's LSTMs can be run: their tensors, and the scales that follow from these."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...isa.nest import F32, I8, I16, I32
from ..catalog.lstm import GATE_BITS, GATES, SCALES
from ..catalog.wide import digits_of
from ..graph import Attribute, Tensor
from ..scales import LEFT_LIMIT, Rescale

KIND = "UNIDIRECTIONAL_SEQUENCE_LSTM"
"""Of the nodes that :func:`.lstm.expanded` replaces; the catalog does not have it."""
OF_INPUT, OF_HIDDEN, BIAS = 1, 5, 12
"""Positions of the first of four weights, and of four biases, among TFLite's inputs."""
STATES = (18, 19)
"""Positions of the hidden and the cell state, which keep their values between inferences."""
STEPS_LIMIT = 1024
"""Longer sequences are not unrolled."""


def scales_of(tensors: Sequence[Tensor | None], out: Tensor, power: int) -> list[Rescale]:
    """Every rescaling in a cell whose state has the scale ``2**power``, as ``tfl.lstm_cell`` takes
    them."""

    def scale(tensor: Tensor | None) -> float:
        assert tensor is not None
        assert tensor.quant is not None
        return tensor.quant.scale[0]

    factors: list[float] = []
    with np.errstate(over="ignore"):
        for x, first in ((tensors[0], OF_INPUT), (out, OF_HIDDEN)):
            for weights in tensors[first : first + GATES]:
                joint = float(np.float32(scale(x)) * np.float32(scale(weights)))
                factors.append(joint * 2.0**GATE_BITS)
    factors += [2.0**-15, 2.0**-30 / 2.0**power, 2.0**-30 / scale(out)]
    assert len(factors) == SCALES
    return [Rescale.of(factor) for factor in factors]


def refusal(inputs: Sequence[Tensor | None], out: Tensor, time_major: bool) -> str | None:
    """Why a layer is none that :mod:`.lstm` knows, as part of its kind; None if it is one.

    Parameters
    ----------
    inputs : sequence of Tensor or None
        TFLite's inputs; absent ones are None.
    out : Tensor
        Its output.
    time_major : bool
        Whether steps come before the batch.
    """
    x, of_input, of_hidden, bias = (
        inputs[0],
        inputs[OF_INPUT : OF_INPUT + GATES],
        inputs[OF_HIDDEN : OF_HIDDEN + GATES],
        inputs[BIAS : BIAS + GATES],
    )
    known = (0, *range(OF_INPUT, OF_HIDDEN + GATES), *range(BIAS, BIAS + GATES), *STATES)
    if any(t is not None for k, t in enumerate(inputs) if k not in known):
        return "PEEPHOLE_OR_PROJECTION"
    if x is None or any(t is None for t in (*of_input, *of_hidden, *bias)):
        return "COUPLED"
    if x.dtype not in (I8, F32) or len(x.shape) != 3 or len(out.shape) != 3:
        return str(x.dtype)
    floats = x.dtype == F32
    units = out.shape[2]
    wanted = [
        *[(t, (units, x.shape[2]), x.dtype) for t in of_input],
        *[(t, (units, units), x.dtype) for t in of_hidden],
        *[(t, (units,), F32 if floats else I32) for t in bias],
    ]
    for tensor, shape, dtype in wanted:
        if tensor is None or tensor.data is None or (tensor.shape, tensor.dtype) != (shape, dtype):
            return "ODD_WEIGHTS"
        if not floats and len(tensor.shape) == 2 and not _symmetric(tensor):
            return "ODD_SCALES"
    if out.shape[:2] != x.shape[:2] or out.dtype != x.dtype:
        return "ODD_OUTPUT"
    if floats:
        return None
    power = _power(inputs[STATES[1]])
    if power is None:
        return "STATE"
    if time_major or out.shape[1] > STEPS_LIMIT or x.quant is None or out.quant is None:
        return "TIME_MAJOR" if time_major else "LONG"
    if x.quant.axis is not None or out.quant.axis is not None:
        return "ODD_SCALES"
    quants = [t.quant for t in (x, out, *of_input, *of_hidden) if t is not None]
    if not all(q is not None and 0 < q.scale[0] < math.inf for q in quants):
        return "ODD_SCALES"
    if any(scale.left > LEFT_LIMIT for scale in scales_of(inputs, out, power)):
        return "ODD_SCALES"
    for four in (of_input, of_hidden):
        data = [t.data for t in four if t is not None and t.data is not None]
        if digits_of(np.concatenate(data)) is None:
            return "WIDE"
    return None


def attributes(
    tensors: Sequence[Tensor | None], time_major: bool, clip: float
) -> tuple[tuple[str, Attribute], ...]:
    """What must be known of a layer beside its tensors; ``clip`` is 0 for none."""
    power = _power(tensors[STATES[1]]) or 0
    return ("clip", clip), ("power", power), ("time_major", int(time_major))


def _power(state: Tensor | None) -> int | None:
    """The logarithm of the cell state's scale; None if it has no such scale as is expected."""
    if state is None or state.quant is None or state.dtype != I16 or any(state.quant.zero_point):
        return None
    powers = [power for power in range(-15, 1) if state.quant.scale == (2.0**power,)]
    return powers[0] if powers else None


def _symmetric(tensor: Tensor) -> bool:
    """Whether it has one scale and the zero point 0."""
    return tensor.quant is not None and tensor.quant.zero_point == (0,)
