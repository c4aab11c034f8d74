"""From actions to a program: micro-ops placed, dependence tokens put in, FINISH at the end.

A scheduler appends :class:`Action` after :class:`Action` in an order that is right when they run
one after another. Each says what it reads and writes; the tokens that let the engines run
concurrently follow from that, as few and as late as possible: an action waits for the youngest
action of another engine that it depends on, unless it knows already that this one is complete.
Each token that is sent is taken once. Between load and store there is no queue: where one waits for
the other, an instruction without steps carries the token through the compute engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile, takewhile

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.formats import UOP_BYTES, uop_layout
from ..isa.instructions import Instruction, InstructionSet
from ..isa.memories import Engine, MemoryType

Uops = tuple[tuple[int, int, int], ...]
"""Micro-ops: (dst, src, wgt) each."""

ORDER = (Engine.LOAD, Engine.COMPUTE, Engine.STORE)
CARRIER = "gemm.reset"
"""Of the compute engine; without trips it does nothing but carry tokens."""


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
        What it touches in scratchpads; that of the micro-ops is put in here.
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
    operation = InstructionSet(config).load_of(MemoryType.UOP).name

    def load(at: int, source: int, count: int) -> Action:
        operands = {
            "sram_base": at,
            "dram_base": base + source,
            "y_size": 1,
            "x_size": count,
            "x_stride": count,
        }
        return Action(operation, operands, (), (Span("uop", at, at + count),))

    placed: list[Action] = []
    pad = _UopPad(config.uop_depth)
    later: list[Action] = []
    if words and len(words) <= config.uop_depth:
        # What the first steps need comes before their data, the rest behind.
        count = sum(map(len, _first_kernels(actions)))
        placed.append(load(0, 0, count))
        if count < len(words):
            later.append(load(count, count, len(words) - count))
        pad.resident = dict(offsets)
    for action in actions:
        if action.uops:
            placed += later
            later.clear()
            if action.uops not in pad.resident:
                at = pad.place(action.uops)
                placed.append(load(at, offsets[action.uops], len(action.uops)))
            first = pad.resident[action.uops]
            bgn, end = action.part
            operands = {**action.operands, "uop_bgn": first + bgn, "uop_end": first + end}
            reads = (*action.reads, Span("uop", first + bgn, first + end))
            placed.append(replace(action, operands=operands, reads=reads))
        else:
            placed.append(action)
    return placed, words


def _first_kernels(actions: Sequence[Action]) -> list[Uops]:
    """The micro-ops of the first run of steps, each sequence once."""
    steps = takewhile(lambda a: bool(a.uops), dropwhile(lambda a: not a.uops, actions))
    return list(dict.fromkeys(action.uops for action in steps))


# --- tokens --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    """Sent by one action when it is complete, taken by a later one before it starts."""

    sender: int
    taker: int
    route: tuple[Engine, Engine]


def _synchronized(actions: Sequence[Action], config: AcceleratorConfig) -> list[Instruction]:
    placed, tokens = _tokens(actions, config, early=True)
    if _most_at_once(tokens) > config.token_depth:
        placed, tokens = _tokens(actions, config, early=False)
    flags: list[dict[str, bool]] = [{} for _ in placed]
    for token in tokens:
        sender, taker = (ORDER.index(engine) for engine in token.route)
        assert abs(sender - taker) == 1
        flags[token.sender]["push_next" if sender < taker else "push_prev"] = True
        flags[token.taker]["pop_prev" if sender < taker else "pop_next"] = True
    return [
        Instruction(action.operation, dict(action.operands), **flag)
        for action, flag in zip(placed, flags, strict=True)
    ]


def _tokens(
    actions: Sequence[Action], config: AcceleratorConfig, early: bool
) -> tuple[list[Action], list[_Token]]:
    """The tokens that keep every action behind those of other engines that it depends on.

    With ``early`` a token is sent by the action that matters. Without, by the last one of its
    engine that stands before the taker; then there is never more than one on its way while the
    actions run in order, so that queues of any depth hold them.

    Returns
    -------
    list of Action, list of _Token
        The actions, with a carrier before each load or store that waits for the other's engine
        and will not hear of it from an action of the compute engine that it waits for, too.
    """
    operations = InstructionSet(config).operations
    names = ("uop", "inp", "wgt", "acc", "qnt")
    depths = {name: int(getattr(config, f"{name}_depth")) for name in names}
    # For each engine and element, the youngest action that wrote or read it.
    written = {e: {m: np.full(d, -1) for m, d in depths.items()} for e in ORDER}
    read = {e: {m: np.full(d, -1) for m, d in depths.items()} for e in ORDER}
    # What is complete, by engine: when an engine goes on, and when a placed action is complete.
    known = {engine: dict.fromkeys(ORDER, -1) for engine in ORDER}
    complete: list[dict[Engine, int]] = []
    last = dict.fromkeys(ORDER, -1)
    placed: list[Action] = []
    tokens: list[_Token] = []

    def put(action: Action, needed: Mapping[Engine, int]) -> int:
        engine, i = operations[action.operation].engine, len(placed)
        for other, age in needed.items():
            if age > known[engine][other]:
                sender = age if early else last[other]
                tokens.append(_Token(sender, i, (other, engine)))
                for each, at in complete[sender].items():
                    known[engine][each] = max(known[engine][each], at)
        known[engine][engine] = last[engine] = i
        complete.append(dict(known[engine]))
        placed.append(action)
        return i

    for action in actions:
        engine = operations[action.operation].engine
        needed: dict[Engine, int] = {}
        for other in ORDER:
            if other is not engine:
                ages = [_newest(written[other], s) for s in (*action.reads, *action.writes)]
                ages += [_newest(read[other], span) for span in action.writes]
                needed[other] = max(ages, default=-1)
        if engine is not Engine.COMPUTE:
            far = Engine.STORE if engine is Engine.LOAD else Engine.LOAD
            age = needed.pop(far)
            near = max(needed[Engine.COMPUTE], known[engine][Engine.COMPUTE])
            told = complete[near][far] if near >= 0 else -1
            if age > max(known[engine][far], told):
                needed[Engine.COMPUTE] = put(Action(CARRIER, {}), {far: age})
        i = put(action, needed)
        for span in action.reads:
            read[engine][span.memory][span.start : span.stop] = i
        for span in action.writes:
            written[engine][span.memory][span.start : span.stop] = i
    return placed, tokens


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
