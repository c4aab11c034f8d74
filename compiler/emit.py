"""From actions to a program: micro-ops placed, dependence tokens put in, FINISH at the end.

A scheduler appends :class:`Action` after :class:`Action` in an order that is right when they run
one after another. Each says what it reads and writes; the tokens that let the engines run
concurrently follow from that, as few and as late as possible: an action waits for the youngest
action of another engine that it depends on, unless it has waited for that one, or a younger one,
already. Each token that is sent is taken once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.formats import UOP_BYTES, uop_layout
from ..isa.instructions import Instruction, InstructionSet
from ..isa.memories import Engine

Uops = tuple[tuple[int, int, int], ...]
"""Micro-ops: (dst, src, wgt) each."""

ORDER = (Engine.LOAD, Engine.COMPUTE, Engine.STORE)


@dataclass(frozen=True)
class Span:
    """Elements ``[start, stop)`` of a scratchpad."""

    memory: str
    start: int
    stop: int

    def overlaps(self, other: Span) -> bool:
        """Whether they share an element."""
        return self.memory == other.memory and self.start < other.stop and other.start < self.stop


@dataclass(frozen=True)
class Action:
    """An instruction without tokens.

    Attributes
    ----------
    operation : str
        Its name.
    operands : mapping
        Its fields, but for those of the micro-ops' range.
    reads, writes : tuple of Span
        What it touches in scratchpads other than that of the micro-ops.
    uops : tuple
        The micro-ops of a sequence that several actions may share; empty if it has none.
    part : (int, int)
        The range of ``uops`` that this action runs.
    """

    operation: str
    operands: Mapping[str, int]
    reads: tuple[Span, ...] = ()
    writes: tuple[Span, ...] = ()
    uops: Uops = ()
    part: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Stream:
    """A program and the micro-ops that it loads."""

    instructions: tuple[Instruction, ...]
    uops: np.ndarray
    """``uint32``; they must lie at the address that the program was made for."""


def finish(actions: Sequence[Action], config: AcceleratorConfig, uop_address: int) -> Stream:
    """The program of ``actions``.

    Parameters
    ----------
    actions : sequence of Action
        In an order that is right when they run one by one.
    config : AcceleratorConfig
        The hardware.
    uop_address : int
        Where its micro-ops will lie in DRAM, a multiple of their size.
    """
    placed, words = _place_uops(actions, config, uop_address)
    instructions = _synchronized(placed, config)
    layout = uop_layout(config)
    encoded = [layout.encode({"dst": dst, "src": src, "wgt": wgt}) for dst, src, wgt in words]
    return Stream((*instructions, Instruction("finish")), np.array(encoded, np.uint32))


# --- micro-ops -----------------------------------------------------------------------------------


@dataclass
class _UopPad:
    """The micro-op scratchpad while a program runs: what lies where."""

    depth: int
    at: int = 0
    resident: dict[Uops, int] = field(default_factory=dict[Uops, int])

    def place(self, uops: Uops) -> int:
        """Room for ``uops``, taken from those that have been there longest."""
        if self.at + len(uops) > self.depth:
            self.at = 0
        start, stop = self.at, self.at + len(uops)
        self.resident = {
            other: base
            for other, base in self.resident.items()
            if base >= stop or base + len(other) <= start
        }
        self.resident[uops] = start
        self.at = stop
        return start


def _place_uops(
    actions: Sequence[Action], config: AcceleratorConfig, address: int
) -> tuple[list[Action], list[tuple[int, int, int]]]:
    """Actions with their micro-ops' range as operands, and loads before those that need them."""
    kernels = list(dict.fromkeys(action.uops for action in actions if action.uops))
    offsets: dict[Uops, int] = {}
    words: list[tuple[int, int, int]] = []
    for kernel in kernels:
        offsets[kernel] = len(words)
        words.extend(kernel)
    base = address // UOP_BYTES

    def load(at: int, source: int, count: int) -> Action:
        operands = {
            "sram_base": at,
            "dram_base": base + source,
            "y_size": 1,
            "x_size": count,
            "x_stride": count,
        }
        return Action("load.uop", operands)

    placed: list[Action] = []
    pad = _UopPad(config.uop_depth)
    if words and len(words) <= config.uop_depth:
        placed.append(load(0, 0, len(words)))
        pad.resident = dict(offsets)
    for action in actions:
        if action.uops:
            if action.uops not in pad.resident:
                at = pad.place(action.uops)
                placed.append(load(at, offsets[action.uops], len(action.uops)))
            first = pad.resident[action.uops]
            bgn, end = action.part
            operands = {**action.operands, "uop_bgn": first + bgn, "uop_end": first + end}
            placed.append(replace(action, operands=operands))
        else:
            placed.append(action)
    return placed, words


# --- tokens --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    """Sent by one action when it is complete, taken by a later one before it starts."""

    sender: int
    taker: int
    route: tuple[Engine, Engine]


def _synchronized(actions: Sequence[Action], config: AcceleratorConfig) -> list[Instruction]:
    operations = InstructionSet(config).operations
    engines = [operations[action.operation].engine for action in actions]
    tokens = _tokens(actions, engines, config, early=True)
    if _most_at_once(tokens) > config.token_depth:
        tokens = _tokens(actions, engines, config, early=False)
    flags: list[dict[str, bool]] = [{} for _ in actions]
    for token in tokens:
        sender, taker = (ORDER.index(engine) for engine in token.route)
        assert abs(sender - taker) == 1
        flags[token.sender]["push_next" if sender < taker else "push_prev"] = True
        flags[token.taker]["pop_prev" if sender < taker else "pop_next"] = True
    return [
        Instruction(action.operation, dict(action.operands), **flag)
        for action, flag in zip(actions, flags, strict=True)
    ]


def _tokens(
    actions: Sequence[Action], engines: Sequence[Engine], config: AcceleratorConfig, early: bool
) -> list[_Token]:
    """The tokens that keep every action behind those of other engines that it depends on.

    With ``early`` a token is sent by the action that matters. Without, by the last one of its
    engine that stands before the taker; then there is never more than one on its way while the
    actions run in order, so that queues of any depth hold them.
    """
    depths = {name: getattr(config, f"{name}_depth") for name in ("inp", "wgt", "acc", "qnt")}
    # For each engine and element, the youngest action that wrote or read it.
    written = {e: {m: np.full(d, -1) for m, d in depths.items()} for e in ORDER}
    read = {e: {m: np.full(d, -1) for m, d in depths.items()} for e in ORDER}
    waited = {(a, b): -1 for a in ORDER for b in ORDER}
    last = dict.fromkeys(ORDER, -1)
    tokens: list[_Token] = []
    for i, (action, engine) in enumerate(zip(actions, engines, strict=True)):
        for other in ORDER:
            if other is engine:
                continue
            ages = [_newest(written[other], s) for s in (*action.reads, *action.writes)]
            ages += [_newest(read[other], span) for span in action.writes]
            needed = max(ages, default=-1)
            if needed > waited[other, engine]:
                sender = needed if early else last[other]
                waited[other, engine] = sender
                tokens.append(_Token(sender, i, (other, engine)))
        for span in action.reads:
            read[engine][span.memory][span.start : span.stop] = i
        for span in action.writes:
            written[engine][span.memory][span.start : span.stop] = i
        last[engine] = i
    return tokens


def _newest(ages: Mapping[str, np.ndarray], span: Span) -> int:
    return int(ages[span.memory][span.start : span.stop].max(initial=-1))


def _most_at_once(tokens: Sequence[_Token]) -> int:
    """The most tokens in one queue while the actions run in order.

    If the queues hold them then, they hold them in every other execution: an engine that waits
    for room waits for a taker that comes before its own next action in the order.
    """
    events = [(t.route, t.sender, 1) for t in tokens] + [(t.route, t.taker, -1) for t in tokens]
    most = 0
    for route in {route for route, _, _ in events}:
        steps = sorted((at, change) for r, at, change in events if r == route)
        level = 0
        for _, change in steps:
            level += change
            most = max(most, level)
    return most
