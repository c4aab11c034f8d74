"""A session that shows a disagreement, made small: delta debugging over everything in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from ...isa.formats import FLAG_BITS, FLAGS
from ...isa.golden import stepped
from ...isa.instructions import InstructionSet
from ...isa.ordering import ENGINES, QUEUES
from .footprint import instruction_set
from .program import Program
from .session import Run, Session

T = TypeVar("T")
Fails = Callable[[Session], bool]


def shrink(session: Session, fails: Fails, seconds: float = 60.0) -> Session:
    """The smallest session found, in about ``seconds``, for which ``fails`` still holds.

    First programs go, then instructions, then operands become small and flags fall, until
    nothing of it helps any more; at last the memory becomes fast and steady.
    """
    stop = time.monotonic() + seconds

    def holds(candidate: Session) -> bool:
        return time.monotonic() < stop and fails(candidate)

    runs = subset(session.runs, lambda runs: holds(replace(session, runs=tuple(runs))))
    session = replace(session, runs=tuple(runs))
    while True:
        before = session
        for number in range(len(session.runs)):
            session = _with_fewer_instructions(session, number, holds)
            session = _with_fewer_tokens(session, number, holds)
            session = _with_fewer_instructions(session, number, holds)
            session = _with_simpler_words(session, number, holds)
        for candidate in (
            replace(session, stall_seed=None),
            replace(session, latency=1),
            replace(session, runs=tuple(replace(r, start=_plainer(r)) for r in session.runs)),
        ):
            if candidate != session and holds(candidate):
                session = candidate
        if session == before:
            return session


def subset(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """A part of ``items``, in order, for which ``fails`` holds and from which no item can go."""
    kept, size = list(items), max(1, len(items) // 2)
    while True:
        at, shorter = 0, False
        while at < len(kept):
            candidate = kept[:at] + kept[at + size :]
            if candidate and fails(candidate):
                kept, shorter = candidate, True
            else:
                at += size
        if size > 1:
            size //= 2
        elif not shorter:
            return kept


def _plainer(run: Run):
    return "reset" if run.start == "keep" else run.start


def _with(session: Session, number: int, program: Program) -> Session:
    runs = list(session.runs)
    runs[number] = replace(runs[number], program=program)
    return replace(session, runs=tuple(runs))


def _with_fewer_instructions(session: Session, number: int, fails: Fails) -> Session:
    program = session.runs[number].program
    words = subset(program.words, lambda w: fails(_with(session, number, program.with_words(w))))
    return _with(session, number, program.with_words(words))


def _with_fewer_tokens(session: Session, number: int, fails: Fails) -> Session:
    """Without tokens that somebody sends and somebody takes."""
    program = session.runs[number].program
    words = list(program.words)
    for bits in [_flags(words), *_exchanges(program)]:
        candidate = [word & ~bits.get(at, 0) for at, word in enumerate(words)]
        if candidate != words and fails(_with(session, number, program.with_words(candidate))):
            words = candidate
    return _with(session, number, program.with_words(words))


Flags = dict[int, int]
"""Bits of instruction words, by their places."""


def _flags(words: Sequence[int]) -> Flags:
    return dict.fromkeys(range(len(words)), sum(FLAG_BITS.values()))


def _exchanges(program: Program) -> list[Flags]:
    """The two flags of every token: who sends it and who takes it."""
    instructions = instruction_set(program.config)
    steps, _ = stepped(instructions, program.words)
    sent: dict[int, list[int]] = {}
    taken: dict[int, list[int]] = {}
    for step in steps:
        for queue in step.pushes:
            sent.setdefault(queue, []).append(step.index)
        for queue in step.pops:
            taken.setdefault(queue, []).append(step.index)
    found: list[Flags] = []
    for queue, senders in sent.items():
        for sender, taker in zip(senders, taken.get(queue, []), strict=False):
            first, then = (ENGINES.index(engine) for engine in QUEUES[queue])
            push = "push_next" if then > first else "push_prev"
            pop = "pop_prev" if then > first else "pop_next"
            found.append({sender: FLAG_BITS[push], taker: FLAG_BITS[pop]})
    return found


def _with_simpler_words(session: Session, number: int, fails: Fails) -> Session:
    program = session.runs[number].program
    words = list(program.words)
    instructions = instruction_set(program.config)
    for at in range(len(words)):
        for simpler in SIMPLER:
            for name in _names(words[at], instructions):
                while (word := simpler(words[at], name, instructions)) != words[at]:
                    candidate = [*words[:at], word, *words[at + 1 :]]
                    if not fails(_with(session, number, program.with_words(candidate))):
                        break
                    words = candidate
    return _with(session, number, program.with_words(words))


def _names(word: int, instructions: InstructionSet) -> tuple[str, ...]:
    """What there is to change in a word: flags and operands."""
    if instructions.operation_of(word) is None:
        return ()
    return (*FLAGS, *instructions.decode(word).operands)


def _changed(change: Callable[[int], int]) -> Callable[[int, str, InstructionSet], int]:
    def simpler(word: int, name: str, instructions: InstructionSet) -> int:
        decoded = instructions.decode(word)
        if name in FLAGS:
            return instructions.encode(replace(decoded, **{name: False}))
        operands = {**decoded.operands, name: change(decoded.operands[name])}
        return instructions.encode(replace(decoded, operands=operands))

    return simpler


SIMPLER = (
    _changed(lambda value: 0),
    _changed(lambda value: int(value / 2)),
    _changed(lambda value: value - (value > 0) + (value < 0)),
)
"""Ways to a plainer word of the same operation: without a flag, with a lesser operand."""
