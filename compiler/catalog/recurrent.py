"""Recurrent layers: RNN, GRU and LSTM, step by step with numpy's products of matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .site import FLOATS, Kernel, Site, Types, define

Array = np.ndarray
GATES: Mapping[str, int] = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}  # fmt: skip
FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Relu": lambda x: np.maximum(x, 0),
}


def _infer(site: Site) -> Types:
    site.expect(site.x, FLOATS)
    x, w, r = (site.input(k).shape for k in range(3))
    if len(x) != 3 or len(w) != 3 or len(r) != 3:
        site.fail(f"a sequence {list(x)}, weights {list(w)} and {list(r)}")
    steps, batch, depth = x if not site.integer("layout", 0) else (x[1], x[0], x[2])
    directions, hidden = r[0], r[2]
    gates = GATES[site.kind] * hidden
    both = site.text("direction", "forward") == "bidirectional"
    if w != (directions, gates, depth) or r != (directions, gates, hidden):
        site.fail(f"weights {list(w)} and {list(r)} for {list(x)}")
    if directions != 1 + both or site.integer("hidden_size", hidden) != hidden:
        site.fail(f"{directions} directions of {hidden}")
    swapped = site.integer("layout", 0)
    state = (batch, directions, hidden) if swapped else (directions, batch, hidden)
    wanted = {
        3: (directions, 2 * gates),
        4: (batch,),
        5: state,
        6: state,
        7: (directions, 3 * hidden),
    }
    for position, shape in wanted.items():
        if site.has(position) and site.input(position).shape != shape:
            site.fail(f"input {position} has shape {list(site.input(position).shape)}")
    names = _activations(site, directions)
    if any(name not in FUNCTIONS for name in names) or "clip" in site.attributes:
        site.unsupported(f"activations {', '.join(names)}, or a clip")
    y = (batch, steps, directions, hidden) if swapped else (steps, directions, batch, hidden)
    return [(site.x.dtype, shape) for shape in (y, state, state)][: site.count]


def _activations(site: Site, directions: int) -> Sequence[str]:
    names = site.attributes.get("activations", ())
    if not isinstance(names, tuple) or not names:
        return DEFAULTS[site.kind] * directions
    if len(names) != len(DEFAULTS[site.kind]) * directions:
        site.fail(f"{len(names)} activations")
    return [str(name) for name in names]


@define("RNN", "GRU", "LSTM", infer=_infer, native=False)
def recurrent(site: Site) -> Kernel:
    """A layer over time, in one or both directions; after a sequence's end the outputs are 0."""
    swapped, kind = site.integer("layout", 0), site.kind
    directions = site.input(2).shape[0]
    backwards = site.text("direction", "forward") == "reverse"
    names = _activations(site, directions)
    each = len(DEFAULTS[kind])
    after = bool(site.integer("linear_before_reset", 0))
    coupled = bool(site.integer("input_forget", 0))

    def compute(x: Array, w: Array, r: Array, *more: Array | None) -> list[Array]:
        b, lengths, first, cell, peep = (*more, *(None,) * (5 - len(more)))
        x = x.swapaxes(0, 1) if swapped else x
        steps, batch, _ = x.shape
        hidden = r.shape[2]
        outputs = np.zeros((steps, directions, batch, hidden), x.dtype)
        states = np.zeros((2, directions, batch, hidden), x.dtype)
        for state, given in zip(states, (first, cell), strict=True):
            if given is not None:
                state[...] = given.swapaxes(0, 1) if swapped else given
        ends = np.full(batch, steps) if lengths is None else np.clip(lengths, 0, steps)
        for d in range(directions):
            functions = [FUNCTIONS[name] for name in names[d * each : (d + 1) * each]]
            bias = np.zeros(2 * len(w[d]), x.dtype) if b is None else b[d]
            wb, rb = np.split(bias, 2)
            p = np.zeros((3, hidden), x.dtype) if peep is None else peep[d].reshape(3, hidden)
            h, c = states[0, d], states[1, d]
            for step in range(steps):
                # Backwards, a sequence starts at its own end.
                at = ends - 1 - step if backwards or d else np.full(batch, step)
                live = (at >= 0) & (at < ends)
                rows = np.clip(at, 0, steps - 1)
                given = x[rows, np.arange(batch)]
                new_h, new_c = _step(
                    kind, given @ w[d].T + wb, h, c, r[d], rb, p, functions, after, coupled
                )
                h[live], c[live] = new_h[live], new_c[live]
                outputs[rows[live], d, np.arange(batch)[live]] = h[live]
        results = [outputs, states[0], states[1]]
        if swapped:
            results = [outputs.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in states)]
        return results[: site.count]

    return Kernel(compute)


def _step(
    kind: str, given: Array, h: Array, c: Array, r: Array, rb: Array, p: Array,
    functions: Sequence[Callable[[Array], Array]], after: bool, coupled: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """The next hidden and cell state."""
    if kind == "RNN":
        return functions[0](given + h @ r.T + rb), c
    if kind == "GRU":
        gz, gr, gh = np.split(given, 3, 1)
        rz, rr, rh = np.split(r, 3)
        bz, br, bh = np.split(rb, 3)
        z, reset = functions[0](gz + h @ rz.T + bz), functions[0](gr + h @ rr.T + br)
        inner = reset * (h @ rh.T + bh) if after else (reset * h) @ rh.T + bh
        return (1 - z) * functions[1](gh + inner) + z * h, c
    gi, go, gf, gc = np.split(given + h @ r.T + rb, 4, 1)
    i = functions[0](gi + p[0] * c)
    f = 1 - i if coupled else functions[0](gf + p[2] * c)
    c = f * c + i * functions[1](gc)
    return functions[0](go + p[1] * c) * functions[2](c), c
