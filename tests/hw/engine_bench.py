"""Engines that do nothing but take time, and what must come of a program in any timing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from weft.hw.interfaces import Activity
from weft.hw.scheduler import ROUTES
from weft.isa import Engine, Instruction, InstructionSet
from weft.isa.faults import WAITS


class FakeEngine:
    """Takes instructions, each after the one before or overlapping, and completes them in order.

    Attributes
    ----------
    started, completed : list of (int, int)
        Index and cycle.
    """

    def __init__(self, body, *, seed: int, most: int = 6, slowest: int = 12):
        self.body, self.most, self.slowest = body, most, slowest
        self.started: list[tuple[int, int]] = []
        self.completed: list[tuple[int, int]] = []
        self._random = Random(seed)

    async def process(self, ctx):
        body, cycle = self.body, 0
        holds: deque[tuple[int, int]] = deque()  # index, due
        ready = False
        trigger = ctx.tick().sample(body.issue.valid, body.issue.payload)
        async for _, _, valid, payload in trigger:
            if valid and ready:
                index = payload["index"]
                self.started.append((index, cycle))
                holds.append((index, cycle + 1 + self._random.randrange(self.slowest)))
            cycle += 1
            done = bool(holds) and holds[0][1] <= cycle
            if done:
                self.completed.append((holds.popleft()[0], cycle))
            ctx.set(body.done, done)
            ready = len(holds) < self.most and self._random.random() < 0.8
            ctx.set(body.issue.ready, ready)
            ctx.set(body.activity, Activity.BUSY if holds or done else Activity.IDLE)


@dataclass
class Outcome:
    """What a program must come to, whatever its timing.

    ``completed`` has the indices that each engine completes; ``waiting`` the bits of ``WAITS``,
    ``engine`` and ``index`` the first that waits, when ``ending`` is ``deadlock``.
    """

    ending: str
    completed: dict[Engine, list[int]] = field(default_factory=dict)
    waiting: int = 0
    engine: str = ""
    index: int = 0


def outcome(instructions: InstructionSet, program: list[Instruction], depth: int) -> Outcome:
    """By engines that take turns, each strictly one instruction after another."""
    engines = {e: deque() for e in Engine}
    for index, instruction in enumerate(program):
        engine = instructions.operations[instruction.operation].engine
        engines[engine].append((index, instruction))
        if instruction.operation == "finish":
            break
    pop_of = {(popper, side): (pusher, popper) for pusher, _, popper, side in ROUTES}
    push_to = {(pusher, side): (pusher, popper) for pusher, side, popper, _ in ROUTES}
    level = {(pusher, popper): 0 for pusher, _, popper, _ in ROUTES}
    completed = {e: [] for e in Engine}
    left = dict.fromkeys(Engine)  # the flags that the engine's first instruction waits for

    def step(engine: Engine) -> bool:
        if not engines[engine]:
            return False
        index, instruction = engines[engine][0]
        if left[engine] is None:
            flags = ("pop_prev", "pop_next", "push_prev", "push_next")
            left[engine] = [flag for flag in flags if getattr(instruction, flag)]
        moved = False
        for flag in list(left[engine]):
            kind, side = flag.split("_")
            if kind == "push" and any(other.startswith("pop") for other in left[engine]):
                return moved
            if kind == "push" and index not in completed[engine]:
                completed[engine].append(index)
            queue = (pop_of if kind == "pop" else push_to)[engine, side]
            if level[queue] > 0 if kind == "pop" else level[queue] < depth:
                level[queue] += 1 if kind == "push" else -1
                left[engine].remove(flag)
                moved = True
        if left[engine]:
            return moved
        if instruction.operation == "finish" and any(engines[e] for e in Engine if e is not engine):
            return moved
        engines[engine].popleft()
        if index not in completed[engine]:
            completed[engine].append(index)
        left[engine] = None
        return True

    while any(step(engine) for engine in Engine):
        pass
    if program and completed[Engine.COMPUTE]:
        last = program[completed[Engine.COMPUTE][-1]]
        if last.operation == "finish":
            return Outcome("done", completed)
    bits = 0
    for bit, (group, flag, _) in enumerate(WAITS):
        flags = left[Engine(group)] or []
        kind = "pop" if any(f.startswith("pop") for f in flags) else "push"
        bits |= (flag in flags and flag.startswith(kind)) << bit
    if not bits:
        return Outcome("no finish", completed)
    first = next(group for bit, (group, _, _) in enumerate(WAITS) if bits >> bit & 1)
    return Outcome("deadlock", completed, bits, first, engines[Engine(first)][0][0])


def check_order(program: list[Instruction], engines: dict[Engine, FakeEngine]) -> None:
    """Every token was sent by a completion before the start that took it."""
    for pusher, towards, popper, back in ROUTES:
        sent = [cycle for index, cycle in engines[pusher].completed
                if getattr(program[index], f"push_{towards}")]  # fmt: skip
        taken = [cycle for index, cycle in engines[popper].started
                 if getattr(program[index], f"pop_{back}")]  # fmt: skip
        assert len(taken) <= len(sent)
        assert all(s < t for s, t in zip(sent, taken, strict=False))


OPERATIONS = {Engine.LOAD: "load.inp", Engine.COMPUTE: "gemm", Engine.STORE: "store.nop"}
"""One for each engine, which with zero operands does nothing."""


def random_program(random: Random, length: int, mistakes: int = 0) -> list[Instruction]:
    """A program that can run to its FINISH, then with that many flags left out or too many."""
    flags = [dict.fromkeys(("pop_prev", "pop_next", "push_prev", "push_next"), False)
             for _ in range(length)]  # fmt: skip
    engines = [random.choice(list(Engine)) for _ in range(length)]
    for pusher, towards, popper, back in ROUTES:
        open_tokens = 0
        for index, engine in enumerate(engines):
            if engine is popper and open_tokens and random.random() < 0.5:
                flags[index][f"pop_{back}"] = True
                open_tokens -= 1
            if engine is pusher and random.random() < 0.4:
                flags[index][f"push_{towards}"] = True
                open_tokens += 1
    for _ in range(mistakes):
        index = random.randrange(length)
        sides = [towards for pusher, towards, _, _ in ROUTES if pusher is engines[index]]
        flag = f"{random.choice(('pop', 'push'))}_{random.choice(sides)}"
        flags[index][flag] = not flags[index][flag]
    program = [Instruction(OPERATIONS[e], {}, **f) for e, f in zip(engines, flags, strict=True)]
    return [*program, Instruction("finish")]
