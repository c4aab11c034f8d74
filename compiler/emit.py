"""From actions to a program: dependence tokens put in, FINISH at the end.

A scheduler appends :class:`Action` after :class:`Action` in an order that is right when they run
one after another. Each says what it reads and writes of the scratchpads, and its operands what of
DRAM; the tokens that let the engines run concurrently follow from that, as few and as late as
possible: an action waits for the youngest action of another engine that it depends on, unless it
knows already that this one is complete, because tokens have told it or told whoever sent them.
Each token that is sent is taken once.

Load and store have no token queue between them. Where a load needs what a store wrote, an
instruction without steps (:data:`CARRIER`) takes the store's token on the compute engine and sends
one on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.instructions import Instruction, InstructionSet
from ..isa.memories import Engine
from .dram import Boxes, granule, scratchpads
from .touches import Touches, youngest

ORDER = (Engine.LOAD, Engine.COMPUTE, Engine.STORE)
CARRIER = "gemm.reset"
"""Of the compute engine; with no trips it does nothing but carry tokens."""


class Span(NamedTuple):
    """Elements ``[start, stop)`` of a scratchpad."""

    memory: str
    start: int
    stop: int


class Uops:
    """Micro-ops one after another; equal ones are equal keys.

    Parameters
    ----------
    rows : array or sequence
        (dst, src, wgt) each.
    """

    def __init__(self, rows: np.ndarray | Sequence[tuple[int, int, int]] = ()):
        self._bytes = np.asarray(rows, np.int32).tobytes()

    def __len__(self) -> int:
        return len(self._bytes) // 12

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uops) and self._bytes == other._bytes

    @property
    def rows(self) -> np.ndarray:
        """``int32`` [micro-ops, 3]."""
        return np.frombuffer(self._bytes, np.int32).reshape(-1, 3)


NO_UOPS = Uops()


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
        What it touches in scratchpads; before :mod:`.microops` without that of the micro-ops.
    uops : Uops
        The micro-ops of a sequence that several actions may share; empty if it has none.
    part : (int, int)
        The range of ``uops`` that this action runs.
    layer : int
        The layer that it belongs to.
    """

    operation: str
    operands: Mapping[str, int]
    reads: tuple[Span, ...] = ()
    writes: tuple[Span, ...] = ()
    uops: Uops = NO_UOPS
    part: tuple[int, int] = (0, 0)
    layer: int = 0


@dataclass(frozen=True)
class Stream:
    """A program, and for each instruction the layer that it belongs to."""

    instructions: tuple[Instruction, ...]
    owners: tuple[int, ...]


def finish(actions: Sequence[Action], config: AcceleratorConfig) -> Stream:
    """The program of ``actions``, which are in an order that is right when they run one by one."""
    placed, tokens = _synchronized(actions, config, early=True)
    if _most_at_once(tokens) > config.token_depth:
        placed, tokens = _synchronized(actions, config, early=False)
    flags: list[dict[str, bool]] = [{} for _ in placed]
    for token in tokens:
        sender, taker = token.route
        assert abs(sender - taker) == 1
        flags[token.sender]["push_next" if sender < taker else "push_prev"] = True
        flags[token.taker]["pop_prev" if sender < taker else "pop_next"] = True
    instructions = [
        Instruction(action.operation, dict(action.operands), **flag)
        for action, flag in zip(placed, flags, strict=True)
    ]
    owners = [action.layer for action in placed]
    last = owners[-1] if owners else 0
    return Stream((*instructions, Instruction("finish")), (*owners, last))


# --- tokens --------------------------------------------------------------------------------------


class _Token(NamedTuple):
    """Sent by one action when it is complete, taken by a later one before it starts.

    ``route`` are the engines, by number.
    """

    sender: int
    taker: int
    route: tuple[int, int]


def _synchronized(
    actions: Sequence[Action], config: AcceleratorConfig, early: bool
) -> tuple[list[Action], list[_Token]]:
    """The actions, with carriers between them, and the tokens that keep every action behind those
    of other engines that it depends on.

    With ``early`` a token is sent by the action that matters. Without, by the last one of its
    engine that stands before the taker; then there is never more than one on its way while the
    actions run in order, so that queues of any depth hold them.
    """
    operations = InstructionSet(config).operations
    engine_of = {name: ORDER.index(o.engine) for name, o in operations.items()}
    engines = [engine_of[action.operation] for action in actions]
    touches = touched(actions, range(len(actions)), config)
    youngest_of = youngest(engines, range(len(actions)), touches).tolist()
    placed: list[Action] = []
    tokens: list[_Token] = []
    clocks: list[list[int]] = []  # for each placed action what is complete when it is
    known = [[-1] * len(ORDER) for _ in ORDER]
    last = [-1] * len(ORDER)

    def put(action: Action, needed: Sequence[int]) -> None:
        """Places an action that waits for those of its neighbours."""
        engine, i = engine_of[action.operation], len(placed)
        for other, age in enumerate(needed):
            if other != engine and age > known[engine][other]:
                sender = age if early else last[other]
                tokens.append(_Token(sender, i, (other, engine)))
                known[engine] = [
                    max(a, b) for a, b in zip(known[engine], clocks[sender], strict=True)
                ]
        known[engine][engine] = i
        placed.append(action)
        clocks.append(list(known[engine]))
        last[engine] = i

    at: list[int] = []  # where each action stands among those placed
    for action, engine, others in zip(actions, engines, youngest_of, strict=True):
        needed = [at[other] if other >= 0 else -1 for other in others]
        needed[engine] = -1
        far = 2 - engine
        if engine != 1 and needed[1] > known[engine][1]:  # whose token may tell of the other one
            told = clocks[needed[1] if early else last[1]][far]
        else:
            told = -1
        if engine != 1 and needed[far] > max(known[engine][far], told):
            carried = [-1] * len(ORDER)
            carried[far] = needed[far]
            put(Action(CARRIER, {}, layer=action.layer), carried)
            needed[1] = len(placed) - 1
        if engine != 1:
            needed[far] = -1
        put(action, needed)
        at.append(len(placed) - 1)
    return placed, tokens


def touched(actions: Sequence[Action], events: Sequence[int], config: AcceleratorConfig) -> Touches:
    """What actions touch, each as part of an event; DRAM as far as any of them writes it."""
    size, moves = granule(config), Boxes(config)
    boxes = [moves.of(action.operation, action.operands) for action in actions]
    end = max((box.end for _, box in boxes if box is not None), default=0)
    touches = Touches(scratchpads(config) | {"dram": -(-end // size)})
    for event, action, (read, written) in zip(events, actions, boxes, strict=True):
        for span in action.reads:
            touches.run(event, span.memory, span.start, span.stop - span.start, False)
        for span in action.writes:
            touches.run(event, span.memory, span.start, span.stop - span.start, True)
        if read is not None:
            touches.box(event, "dram", read, size, False)
        if written is not None:
            touches.box(event, "dram", written, size, True)
    return touches


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
