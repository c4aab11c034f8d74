"""TFLite's LSTM: a layer of floats, and one step of a quantized one after its products.

In the quantized one, bytes go in and out. Everything between has 16 bits: gates' inputs in Q3.12,
their outputs in Q0.15, the cell state with a power of two as its scale. Sigmoid and tangent are
interpolated in one table.
"""

from __future__ import annotations

import numpy as np

from ...isa.nest import F32, I8, I16, I32
from .site import Kernel, Site, Types, define

Array = np.ndarray

GATES = 4
"""Input, forget, cell, output: the order of everything here that has one of each."""
INPUT, RECURRENT, FORGET, UPDATE, HIDDEN = 0, GATES, 2 * GATES, 2 * GATES + 1, 2 * GATES + 2
"""Rows of the scales: of the gates' two products, and of the products of states."""
SCALES = 2 * GATES + 3
STEP = 1 / 24
"""From one entry of the table to the next."""


def _table() -> Array:
    """The sigmoid of k / 24 in Q0.16, for k below 256, and 1 at last.

    Chords between points of a concave curve lie below it; its points are raised by half of what
    they miss at most, so that chords err to either side.
    """
    points = 1 / (1 + np.exp(-STEP * np.arange(256)))
    bend = points * (1 - points) * (2 * points - 1)
    table = np.rint(65536 * (points + bend * STEP**2 / 16)).astype(np.int64)
    table[-1] = ONE
    return table


ONE = 0xFFFF
TABLE = _table()
GATE_BITS = 12
"""Behind the point of a gate's input."""


def rescaled(x: Array, scale: Array) -> Array:
    """``x`` times (multiplier, left, right) in the two roundings of every requantization."""
    multiplier, left, right = (int(v) for v in scale)
    wide = (x.astype(np.int64) << left).astype(np.int32).astype(np.int64) * multiplier
    high = (wide + (1 << 30)) >> 31
    return (high + ((1 << right) >> 1) - ((high < 0) & (right > 0))) >> right


def saturated(x: Array, dtype: type[np.signedinteger] = np.int16) -> Array:
    """``x`` within a type, as 64 bits."""
    limits = np.iinfo(dtype)
    return np.clip(x, limits.min, limits.max)


def _interpolated(size: Array, bits: int) -> Array:
    """The table at ``size / 2**bits``, with so many bits more."""
    at = np.minimum(size >> bits, 254)
    low, high = TABLE[at], TABLE[at + 1]
    between = (low << bits) + (size & ((1 << bits) - 1)) * (high - low)
    return np.where(size >> bits >= 255, ONE << bits, between)


def sigmoid(x: Array) -> Array:
    """Of Q3.12, in Q0.15."""
    wide = x * 3
    size = np.abs(wide)
    value = np.where(size >> 9 >= 255, 0x7FFF << 10, _interpolated(size, 9))
    half = 1 << 9
    return np.where(wide >= 0, value + half, (1 << 25) - value + half - 1) >> 10


def tangent(x: Array, power: int) -> Array:
    """The hyperbolic tangent of ``x * 2**power``, in Q0.15."""
    shift = power + GATE_BITS
    wide = x * 3 << shift if shift >= 0 else (x * 3 + (1 << (-shift - 1))) >> -shift
    value = _interpolated(np.abs(wide), 8)
    one, half = 1 << 23, 1 << 7
    return np.where(wide >= 0, value - one + half, one - value + half - 1) >> 8


# --- floats --------------------------------------------------------------------------------------


def _layer_infer(site: Site) -> Types:
    x, weights, recurrent, bias, hidden, state = (site.input(k) for k in range(6))
    for tensor in site.present():
        site.expect(tensor, (F32,))
    if len(x.shape) != 3 or len(hidden.shape) != 2:
        site.fail(f"an input {list(x.shape)} and a state {list(hidden.shape)}")
    units = hidden.shape[1]
    batch, steps = x.shape[:2][:: -1 if site.integer("time_major", 0) else 1]
    wide = GATES * units
    if [t.shape for t in (weights, recurrent, bias, hidden, state)] != [
        (wide, x.shape[2]), (wide, units), (wide,), (batch, units), (batch, units)
    ]:  # fmt: skip
        site.fail(f"weights {list(weights.shape)} and {list(recurrent.shape)}")
    lead = (steps, batch) if site.integer("time_major", 0) else (batch, steps)
    return [(F32, (*lead, units)), (F32, hidden.shape), (F32, hidden.shape)]


@define("tfl.lstm", infer=_layer_infer, native=False)
def layer(site: Site) -> Kernel:
    """The hidden states of every step, and both states after the last one."""
    clip, axis = site.real("clip", 0.0), 0 if site.integer("time_major", 0) else 1

    def compute(x: Array, weights: Array, recurrent: Array, bias: Array, h: Array, c: Array):
        every: list[Array] = []
        for at in np.moveaxis(x @ weights.T + bias, axis, 0):
            i, f, g, o = np.split(at + h @ recurrent.T, GATES, 1)
            i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
            c = f * c + i * np.tanh(g)
            if clip:
                c = np.clip(c, -clip, clip)
            h = o * np.tanh(c)
            every.append(h)
        return [np.stack(every, axis), h, c]

    return Kernel(compute)


# --- bytes ---------------------------------------------------------------------------------------


def _infer(site: Site) -> Types:
    sums, recurrent, cell = site.x, site.input(1), site.input(2)
    for tensor, dtype in ((sums, I32), (recurrent, I32), (cell, I16)):
        site.expect(tensor, (dtype,))
    for position in (3, 4, 5):
        site.expect(site.input(position), (I32,))
        site.constant(position)
    if len(cell.shape) != 3 or len(sums.shape) != 3:
        site.fail(f"sums {list(sums.shape)} and a state {list(cell.shape)}")
    (batch, _, units), steps = cell.shape, sums.shape[1]
    wide, shapes = GATES * units, [t.shape for t in site.present()]
    if shapes != [
        (batch, steps, wide), (batch, 1, wide), (batch, 1, units), (wide,), (wide,), (SCALES, 3)
    ] or not 0 <= site.integer("step", 0) < steps:  # fmt: skip
        site.fail(f"tensors of shapes {[list(s) for s in shapes]}")
    return [(I8, cell.shape), (I16, cell.shape)]


@define("tfl.lstm_cell", infer=_infer, native=False)
def cell(site: Site) -> Kernel:
    """The hidden and the cell state after a step.

    Inputs: the input's sums of all steps [batch, steps, 4 units] and the hidden state's
    [batch, 1, 4 units], the cell state [batch, 1, units], what is added to either sums, and the
    scales, each as (multiplier, left, right).
    """
    step, power = site.integer("step", 0), site.integer("power", -GATE_BITS)
    zero, clip = site.integer("zero", 0), site.integer("clip", 0)

    def compute(
        sums: Array, recurrent: Array, state: Array, bias: Array, offset: Array, scales: Array
    ) -> list[Array]:
        def gates(total: Array, added: Array, first: int) -> list[Array]:
            parts = np.split((total + added).astype(np.int32), GATES, -1)
            return [saturated(rescaled(p, scales[first + i])) for i, p in enumerate(parts)]

        pairs = zip(
            gates(sums[:, step : step + 1], bias, INPUT),
            gates(recurrent, offset, RECURRENT),
            strict=True,
        )
        i, f, g, o = (saturated(a + b) for a, b in pairs)
        kept = saturated(rescaled(sigmoid(f) * state, scales[FORGET]))
        update = saturated(rescaled(sigmoid(i) * tangent(g, -GATE_BITS), scales[UPDATE]))
        after = saturated(kept + update)
        if clip:
            after = np.clip(after, -clip, clip)
        hidden = rescaled(tangent(after, power) * sigmoid(o), scales[HIDDEN]) + zero
        return [saturated(hidden, np.int8).astype(np.int8), after.astype(np.int16)]

    return Kernel(compute)
