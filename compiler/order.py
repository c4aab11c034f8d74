"""One order for the actions of all stages of a program: how far loads run ahead.

A load stands before the steps of its own stage, or of an earlier one: as soon as nothing needs
any more what it overwrites, and what it reads of DRAM has been stored. Ahead of its turn it goes
where the load engine would have nothing to do, by an estimate of when everything happens. What
the result says is right in any order of time; :mod:`.emit` sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ..isa.config import AcceleratorConfig
from ..isa.instructions import InstructionSet
from ..isa.memories import Engine
from .emit import Action, Span, touched
from .schedule import Stage
from .timing import KEEP_LATENCY, LOAD_LATENCY, STORE_LATENCY, Costs
from .touches import youngest

AHEAD = 64
"""Stages that a load may run ahead of its own, at most."""
OVERSHOOT = 128
"""Cycles by which a load that runs ahead may delay one that another stage needs sooner."""


class _Load(NamedTuple):
    """A load with the ``stage`` that needs it.

    Before those of stage ``free`` no steps need any more what it overwrites, and no load writes it
    any more. The stores of stage ``stored`` are the last ones that write what it reads, or read
    what it overwrites; -1 if there are none.
    """

    action: Action
    stage: int
    free: int
    stored: int
    cycles: int
    on_compute: bool


def in_order(stages: Sequence[Stage], config: AcceleratorConfig) -> list[Action]:
    """The actions of all stages, in an order that is right when they run one by one."""
    return _Order(stages, config).run()


def rehearsal(stages: Sequence[Stage], config: AcceleratorConfig) -> int:
    """When, in cycles, all would be done if the actions ran as they are put in order."""
    order = _Order(stages, config)
    order.run()
    return max((*order.stored, *order.computed))


class _Order:
    def __init__(self, stages: Sequence[Stage], config: AcceleratorConfig):
        self.stages, self.config = stages, config
        self.operations = InstructionSet(config).operations
        self.costs = Costs(config)
        self.waiting: list[list[_Load]] = [[] for _ in stages]
        self.needs = [-1] * len(stages)
        """Of each stage's steps: the last stage whose stores put what they read into ``inp``."""
        for load in self._loads():
            self.waiting[load.stage].append(load)
        self.actions: list[Action] = []
        self.load_free = 0
        self.compute_free = 0
        self.loaded = [0] * len(stages)
        self.computed = [0] * len(stages)
        self.stored = [0] * len(stages)
        self.kept = [0] * len(stages)

    def run(self) -> list[Action]:
        """See :func:`in_order`."""
        for number, stage in enumerate(self.stages):
            due = self.waiting[number]
            # What waits for a store stands behind what does not.
            for load in sorted(due, key=lambda load: load.stored >= number - 1):
                self._put(load, number)
            due.clear()
            between = self._ahead(number)
            first, rest = stage.steps, list[Action]()
            if between:
                first, rest = self._cut(stage.steps, self._blocks(number))
            self.actions += [self._owned(action, stage) for action in first]
            for load in between:
                self._put(load, number)
            self.actions += [self._owned(a, stage) for a in (*rest, *stage.stores)]
            self._pass(number)
        return self.actions

    def _ahead(self, number: int) -> list[_Load]:
        """Puts loads of later stages, as many as the load engine has time for.

        Those that shall stand between the steps, because they wait for the stores of the stage
        before, are given back.
        """
        horizon = self._computed(number)
        if number + 1 < len(self.stages) and any(
            load.stored == number for load in self.waiting[number + 1]
        ):
            horizon += self._storing(number) + STORE_LATENCY
        between: list[_Load] = []
        for later in range(number + 1, min(number + AHEAD, len(self.stages))):
            following = later == number + 1
            if not following and self.load_free >= horizon:
                break
            left: list[_Load] = []
            for load in self.waiting[later]:
                fits = not load.on_compute and self.load_free + load.cycles < horizon + OVERSHOOT
                if load.free > number or load.stored >= number or not (following or fits):
                    left.append(load)
                elif load.stored < number - 1 or self._blocks(number) <= 0:
                    self._put(load, number)
                elif following and self._divisible(self.stages[number].steps):
                    between.append(load)
                else:
                    left.append(load)
            self.waiting[later] = left
        return between

    def _divisible(self, steps: Sequence[Action]) -> bool:
        return len(steps) > 1 or any(a.part[1] - a.part[0] > 1 for a in steps)

    def _cut(self, steps: Sequence[Action], wanted: int) -> tuple[list[Action], list[Action]]:
        """Steps in two parts, the first one of about so many cycles."""
        for i, action in enumerate(steps):
            cycles = self.costs.of(action)
            bgn, end = action.part
            if cycles >= wanted and end - bgn > 1:
                count = min(end - bgn - 1, -(-max(wanted, 1) * (end - bgn) // cycles))
                head, tail = (_range(action, *part) for part in ((0, count), (count, end - bgn)))
                return [*steps[:i], head], [tail, *steps[i + 1 :]]
            wanted -= cycles
            if wanted <= 0:
                return list(steps[: i + 1]), list(steps[i + 1 :])
        return list(steps), []

    def _put(self, load: _Load, number: int) -> None:
        self.actions.append(self._owned(load.action, self.stages[load.stage]))
        ready = self.computed[load.free - 1] if load.free else 0
        if load.stored >= 0:
            ready = max(ready, self.stored[load.stored])
        if load.on_compute:
            self.compute_free = max(self.compute_free, ready) + load.cycles + LOAD_LATENCY
            self.loaded[load.stage] = max(self.loaded[load.stage], self.compute_free)
            return
        self.load_free = max(self.load_free, ready) + load.cycles
        done = max(self.load_free, ready + LOAD_LATENCY + load.cycles)
        self.loaded[load.stage] = max(self.loaded[load.stage], done)

    def _computed(self, number: int) -> int:
        """When the steps of a stage are done."""
        return self._begins(number) + sum(map(self.costs.of, self.stages[number].steps))

    def _begins(self, number: int) -> int:
        """When they begin, but for what they wait for of the stores of the stage before."""
        needs = self.needs[number]
        kept = self.kept[needs] if needs >= 0 else 0
        return max(self.compute_free, self.loaded[number], kept)

    def _storing(self, number: int) -> int:
        return sum(self.costs.of(action) for action in self.stages[number].stores)

    def _blocks(self, number: int) -> int:
        """Cycles that the steps of a stage would wait for the stores of the one before."""
        if not number:
            return 0
        return self.stored[number - 1] - self._begins(number)

    def _pass(self, number: int) -> None:
        done = self._computed(number)
        self.compute_free = self.computed[number] = done
        before = self.stored[number - 1] - STORE_LATENCY if number else 0
        storing = self._storing(number)
        self.stored[number] = max(before, done) + storing + (STORE_LATENCY if storing else 0)
        self.kept[number] = max(before, done) + storing + KEEP_LATENCY

    def _owned(self, action: Action, stage: Stage) -> Action:
        if action.layer == stage.layer:
            return action
        a = action
        return Action(a.operation, a.operands, a.reads, a.writes, a.uops, a.part, stage.layer)

    def _loads(self) -> list[_Load]:
        """Every load with what it must come after."""
        actions: list[Action] = []
        events: list[int] = []  # of each action
        actors: list[int] = []  # of each event: it is a load, or all steps or stores of a stage
        stages: list[int] = []
        loads: list[tuple[int, Action]] = []  # with their events
        for number, stage in enumerate(self.stages):
            for actor, group in ((0, [[a] for a in stage.loads]), (1, [stage.steps]),
                                 (2, [stage.stores])):  # fmt: skip
                for together in group:
                    if actor == 0:
                        loads.append((len(actors), together[0]))
                    actions += together
                    events += [len(actors)] * len(together)
                    actors.append(actor)
                    stages.append(number)
        others = youngest(actors, stages, touched(actions, events, self.config)).tolist()
        keeps = [any(action.writes for action in stage.stores) for stage in self.stages]
        for event, (actor, number) in enumerate(zip(actors, stages, strict=True)):
            stored = others[event][2]
            if actor == 1 and stored >= 0 and keeps[stored]:
                self.needs[number] = stored
        found: list[_Load] = []
        for event, action in loads:
            on_compute = self.operations[action.operation].engine is Engine.COMPUTE
            loaded, last, stored = others[event]
            free = max(last + 1, loaded)  # not all that is loaded is used
            cycles = self.costs.of(action)
            found.append(_Load(action, stages[event], free, stored, cycles, on_compute))
        return found


def _range(action: Action, first: int, stop: int) -> Action:
    """The micro-ops ``[first, stop)`` of those that an action runs."""
    bgn, at = action.part[0], action.operands["uop_bgn"]
    own = Span("uop", at + first, at + stop)
    reads = tuple(s for s in action.reads if s.memory != "uop")
    operands = {**action.operands, "uop_bgn": own.start, "uop_end": own.stop}
    return replace(action, operands=operands, reads=(*reads, own), part=(bgn + first, bgn + stop))
