"""Sums of products as steps that add to accumulators."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ..isa.nest import I8, Binary, Const, DType, Expr, Index, Load, Select, Sum
from ..isa.traverse import walk
from .affine import affine, indices_of, is_index
from .image import Image, Walk, Where, image_of
from .integers import facts
from .kernel import Lack, Refusal
from .matcher import Matcher
from .patterns import Pattern
from .unify import Match
from .work import Contraction, Ending


def contractions(matcher: Matcher, total: Sum, ending: Ending) -> tuple[Contraction, ...]:
    """``total`` of the matcher's kernel as steps that add products: a way for each instruction
    that can, those with the larger meaning first.

    Raises
    ------
    Refusal
        If no instruction's products are those of ``total``.
    """
    refusal = Refusal("no instruction adds products to an accumulator")
    found: list[Contraction] = []
    for pattern in matcher.patterns:
        refusals: list[Refusal] = []
        if pattern.target.buffer != "acc" or not _reads_weights(pattern):
            continue
        in_place = pattern.target in walk(pattern.value)
        if not in_place:
            continue
        for match in _products(matcher, pattern, total):
            try:
                found.append(_placed(matcher, pattern, match, total, ending))
                break
            except Refusal as refused:
                refusals.append(refused)
        refusal = refusals[0] if refusals else refusal  # at last, that of the simplest instruction
    if not found:
        raise refusal
    return tuple(found)


def _products(matcher: Matcher, pattern: Pattern, total: Sum) -> Iterator[Match]:
    """Matches of what the pattern adds with the sum, or with its body if it adds one each."""
    for subject in (total, total.body):
        yield from matcher.matches(pattern, subject)


def _placed(
    matcher: Matcher, pattern: Pattern, match: Match, total: Sum, ending: Ending
) -> Contraction:
    """The contraction of a match, once everything about it is proven."""
    kernel = matcher.kernel
    holes = {h.buffer: (h, v) for h, v in match.holes.items() if isinstance(h, Load)}
    (x_hole, x), (w_hole, weights) = holes["inp"], holes["wgt"]
    _check_elements(pattern, x_hole, w_hole)
    if not kernel.is_constant(weights):
        raise Refusal("the weights are not constant", Lack.WEIGHTS)
    where = Where(kernel, total.axes)
    image = image_of(where, x, "inp", matcher.patterns)
    lanes = _Lanes(pattern)
    lanes.bind(pattern.target, kernel.element[0], kernel.element[3])
    if image.columns.lanes > 1:
        taps = lanes.bind_run(x_hole, image)
    else:
        lanes.bind(x_hole, image.batch, image.channel)
        taps = lanes.bind_taps(x_hole, image.columns)
    reduced = {name for name, extent in total.axes if extent > 1 or image.columns.lanes == 1}
    for name, loop in lanes.bound.items():
        summed = any(name in dict(s.axes) for s, _ in match.sums)
        if (loop in reduced) != summed:
            raise Refusal(f"loop {loop} is summed on one side only")
    of_weights = lanes.of_weights(w_hole)
    run = () if len(of_weights) == len(w_hole.indices) - 1 else of_weights[:1]
    load_weights, dtype = _weights_load(matcher, weights, of_weights[len(run) :])
    bound = set(lanes.bound.values())
    # An element of weights has lanes for what a step does at once; all else is from step to step.
    varying = indices_of(weights) - {loop for loop, _ in of_weights} - (reduced - bound)
    if varying:
        raise Refusal(f"weights that vary along {', '.join(sorted(varying))}")
    if reduced - bound - set(image.tap_loops):
        raise Refusal("a sum over more than the window and the channels of its input")
    channel, depth = is_index(kernel.element[3]), is_index(image.channel)
    assert channel is not None
    assert depth is not None
    return Contraction(
        kernel,
        _first(matcher, pattern),
        pattern.operation.name,
        image,
        load_weights.operation.name,
        weights,
        of_weights,
        (*(extent for _, extent in run), *load_weights.element),
        dtype,
        taps,
        channel,
        depth,
        _picked(weights, depth),
        ending,
    )


def _check_elements(pattern: Pattern, *holes: Load) -> None:
    """A step writes one element, and none of its lanes is beyond an element's extents."""
    if indices_of(pattern.target.indices[0]) & pattern.lanes.keys():
        raise Refusal("its steps write more than one element")
    box = {name: (0, extent - 1) for name, extent in pattern.lanes.items()}
    for hole in holes:
        shape = pattern.shapes[hole.buffer]
        for lane, extent in zip(hole.indices[1:], shape[1:], strict=True):
            known = facts(lane, box)
            if known.low < 0 or known.high >= extent:
                raise Refusal(
                    f"its steps read lanes {known.low} to {known.high} of {hole.buffer}, which has "
                    f"{extent}"
                )


def _first(matcher: Matcher, add: Pattern) -> tuple[str, ...]:
    """Operations after which an accumulator holds the first product alone."""
    for pattern in matcher.patterns:
        if pattern.target == add.target and pattern.value in _addends(add):
            return (pattern.operation.name,)
    for pattern in matcher.patterns:
        if pattern.target == add.target and pattern.value == Const(0):
            return (pattern.operation.name, add.operation.name)
    raise Refusal("no instruction starts an accumulator")


def _weights_load(matcher: Matcher, weights: Expr, lanes: LaneLoops) -> tuple[Pattern, DType]:
    """The load that fills these lanes of an element of weights and as little else as possible, and
    the type of a lane in DRAM, which holds every weight; those beyond a byte are sums of bytes."""
    found = [
        pattern
        for pattern in matcher.patterns
        if pattern.target.buffer == "wgt"
        and all(has >= wants for has, (_, wants) in zip(pattern.element, lanes, strict=True))
    ]
    if not found:
        raise Refusal("no instruction loads elements of weights")
    load = min(found, key=lambda pattern: prod(pattern.element))
    (dtype,) = load.source_types
    if dtype.bits < I8.bits:
        known = matcher.range_of(weights)
        if known is None or known[0] < dtype.min or known[1] > dtype.max:
            values = "of unknown values" if known is None else f"from {known[0]} to {known[1]}"
            raise Refusal(
                f"weights {values}; {load.operation.name} loads {dtype}, from {dtype.min} to "
                f"{dtype.max}"
            )
    return load, dtype


LaneLoops = tuple[tuple[str | None, int], ...]
"""For each axis of lanes the loop along it, and its extent."""


class _Lanes:
    """Which loop each lane axis of an instruction's elements runs along."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.bound: dict[str, str] = {}

    def bind(self, place: Load, batch: Expr, channel: Expr) -> None:
        """The lanes of an element that holds an activation: its batch and its channel."""
        lanes = [is_index(i) for i in place.indices[1:]]
        if len(lanes) != 2:
            raise Refusal(f"an element of {place.buffer} is no activation")
        for lane, e in zip(lanes, (batch, channel), strict=True):
            loop = is_index(e)
            if loop is None:
                raise Refusal("a channel that is no loop of its own")
            self._bind(lane, loop)

    def bind_taps(self, place: Load, columns: Walk) -> int:
        """The lane along which a step reads neighbouring elements, to the taps of a row.

        Returns how many; 1 if a step reads one element.
        """
        form = affine(place.indices[0])
        along = [name for name in form.indices if name in self.pattern.lanes] if form else []
        if form is None or len(along) > 1:
            raise Refusal(f"a step reads elements of {place.buffer} that are no run")
        if not along:
            return 1
        if columns.loop is None or form.coefficient(along[0]) != columns.dilation:
            raise Refusal("a step reads neighbours at another distance than the taps'")
        self._bind(along[0], columns.loop)
        return self.pattern.lanes[along[0]]

    def bind_run(self, place: Load, image: Image) -> int:
        """The lane along which a step reads a run of lanes, wherever it begins, to the taps of a
        row whose positions are lanes.

        Returns how many; they are those of an element.
        """
        element, batch, lane = place.indices
        along: list[str] = []
        if isinstance(lane, Binary) and lane.op == "mod" and lane.b == Const(image.columns.lanes):
            form = affine(lane.a)
            along = [n for n in form.indices if n in self.pattern.lanes] if form else []
            if Binary("div", lane.a, lane.b) not in walk(element):
                along = []
        if len(along) != 1:
            raise Refusal("a step reads no run of lanes")
        if image.columns.loop is None or image.columns.dilation != 1:
            raise Refusal("a step reads neighbouring lanes, and the taps are no neighbours")
        loop = is_index(image.batch)
        if loop is None:
            raise Refusal("a batch that is no loop of its own")
        self._bind(is_index(batch), loop)
        self._bind(along[0], image.columns.loop)
        return self.pattern.lanes[along[0]]

    def of_weights(self, place: Load) -> LaneLoops:
        """Loop and extent of each lane axis of a weight element; before them those of the lane
        along which a step reads one element behind the other, if it reads several."""
        found: list[tuple[str | None, int]] = []
        form = affine(place.indices[0])
        along = [name for name in form.indices if name in self.pattern.lanes] if form else []
        if form is None or len(along) > 1:
            raise Refusal(f"a step reads elements of {place.buffer} that are no run")
        for lane in along:
            if form.coefficient(lane) != 1 or lane not in self.bound:
                raise Refusal("a step reads elements of wgt that are no run along the taps")
            found.append((self.bound[lane], self.pattern.lanes[lane]))
        for index in place.indices[1:]:
            lane = is_index(index)
            if index == Const(0):
                found.append((None, 1))
            elif lane in self.bound:
                found.append((self.bound[lane], self.pattern.lanes[lane]))
            else:
                raise Refusal("weights with a lane axis that neither input nor output has")
        return tuple(found)

    def _bind(self, lane: str | None, loop: str) -> None:
        if lane is None:
            raise Refusal("elements whose lanes are not in order")
        if self.bound.setdefault(lane, loop) != loop:
            raise Refusal(f"loops {self.bound[lane]} and {loop} on one axis of lanes")


def _reads_weights(pattern: Pattern) -> bool:
    return {"inp", "wgt"} <= {n.buffer for n in walk(pattern.value) if isinstance(n, Load)}


def _addends(pattern: Pattern) -> tuple[Expr, ...]:
    match pattern.value:
        case Binary("add", a, b):
            return a, b
    return ()


def _picked(weights: Expr, depth: str) -> Expr | None:
    """The channel outside of which weights are 0, by their form."""
    match weights:
        case Select(Binary("eq", Index(name), picked), _, Const(value=0)) if name == depth:
            return picked
    return None
