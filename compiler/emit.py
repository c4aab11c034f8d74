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
from dataclasses import dataclass, field

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.instructions import Instruction, InstructionSet
from ..isa.memories import Engine
from .dram import box_of, granule

Uops = tuple[tuple[int, int, int], ...]
"""Micro-ops: (dst, src, wgt) each."""

ORDER = (Engine.LOAD, Engine.COMPUTE, Engine.STORE)
CARRIER = "gemm.reset"
"""Of the compute engine; with no trips it does nothing but carry tokens."""


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
        What it touches in scratchpads; before :mod:`.microops` without that of the micro-ops.
    uops : tuple
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
    uops: Uops = ()
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


@dataclass(frozen=True)
class _Token:
    """Sent by one action when it is complete, taken by a later one before it starts.

    ``route`` are the engines, by number.
    """

    sender: int
    taker: int
    route: tuple[int, int]


Where = slice | np.ndarray
"""Elements of a memory."""


@dataclass
class _Ages:
    """For each engine, memory and element the youngest action that touched it."""

    written: list[dict[str, np.ndarray]] = field(default_factory=list[dict[str, np.ndarray]])
    read: list[dict[str, np.ndarray]] = field(default_factory=list[dict[str, np.ndarray]])


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
    reach = _Reach(actions, config)
    ages = _Ages([reach.blank() for _ in ORDER], [reach.blank() for _ in ORDER])
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

    for action in actions:
        engine = engine_of[action.operation]
        reads, writes = reach.of(action)
        needed = [-1] * len(ORDER)
        for other in range(len(ORDER)):
            if other != engine:
                touched = [_newest(ages.written[other], *w) for w in (*reads, *writes)]
                touched += [_newest(ages.read[other], *w) for w in writes]
                needed[other] = max(touched, default=-1)
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
        needed[engine] = -1
        if engine != 1:
            needed[far] = -1
        put(action, needed)
        for table, places in ((ages.read, reads), (ages.written, writes)):
            for memory, where in places:
                table[engine][memory][where] = len(placed) - 1
    return placed, tokens


class _Reach:
    """What actions touch, by memory; DRAM in granules, as far as any action writes it."""

    def __init__(self, actions: Sequence[Action], config: AcceleratorConfig):
        self.config = config
        self.operations = InstructionSet(config).operations
        self.granule = granule(config)
        stores = [box for action in actions if (box := self._boxes(action)[1]) is not None]
        self.first = min((box.address for box in stores), default=0) // self.granule
        end = max((box.end for box in stores), default=0)
        self.count = max(0, -(-end // self.granule) - self.first)

    def blank(self) -> dict[str, np.ndarray]:
        """Ages of everything, when nothing has happened."""
        names = ("uop", "inp", "wgt", "acc", "qnt")
        depths = {name: int(getattr(self.config, f"{name}_depth")) for name in names}
        return {n: np.full(d, -1) for n, d in (depths | {"dram": self.count}).items()}

    def of(self, action: Action) -> tuple[list[tuple[str, Where]], list[tuple[str, Where]]]:
        """What it reads and what it writes."""
        spans: list[list[tuple[str, Where]]] = [
            [(s.memory, slice(s.start, s.stop)) for s in side]
            for side in (action.reads, action.writes)
        ]
        for side, box in zip(spans, self._boxes(action), strict=True):
            if box is not None:
                at = box.granules(self.granule) - self.first
                side.append(("dram", at[(at >= 0) & (at < self.count)]))
        return spans[0], spans[1]

    def _boxes(self, action: Action):
        return box_of(self.operations[action.operation], action.operands, self.config)


def _newest(ages: Mapping[str, np.ndarray], memory: str, where: Where) -> int:
    return int(ages[memory][where].max(initial=-1))


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
