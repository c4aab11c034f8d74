"""Sums of products as steps that add to accumulators."""

from __future__ import annotations

from collections.abc import Iterator

from ..isa.nest import I8, Binary, Const, Expr, Index, Load, Select, Sum, walk
from .affine import indices_of, is_index
from .image import Where, image_of
from .kernel import Refusal
from .matcher import Matcher
from .unify import Match, Pattern
from .work import Contraction, Ending


def contraction(matcher: Matcher, total: Sum, ending: Ending) -> Contraction:
    """``total`` of the matcher's kernel as steps that add products.

    Raises
    ------
    Refusal
        If no instruction's products are those of ``total``.
    """
    reasons: list[str] = []
    for pattern in matcher.patterns:
        if pattern.target.buffer != "acc" or not _reads_weights(pattern):
            continue
        in_place = pattern.target in walk(pattern.value)
        if not in_place:
            continue
        for match in _products(matcher, pattern, total):
            try:
                return _placed(matcher, pattern, match, total, ending)
            except Refusal as refusal:
                reasons.append(str(refusal))
    raise Refusal(reasons[0] if reasons else "no instruction adds products to an accumulator")


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
    if not kernel.is_constant(weights):
        raise Refusal("the weights are not constant")
    where = Where(kernel, total.axes)
    image = image_of(where, x, "inp", matcher.patterns)
    lanes = _Lanes()
    lanes.bind(pattern.target, kernel.element[0], kernel.element[3])
    lanes.bind(x_hole, image.batch, image.channel)
    reduced = {name for name, _ in total.axes}
    for name, loop in lanes.bound.items():
        summed = any(name in dict(s.axes) for s, _ in match.sums)
        if (loop in reduced) != summed:
            raise Refusal(f"loop {loop} is summed on one side only")
    weight_lanes = tuple((lanes.loop(lane), pattern.lanes[lane]) for lane in _lane_names(w_hole))
    bound = set(lanes.bound.values())
    varying = indices_of(weights) - bound - reduced
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
        _load_of(matcher, "wgt"),
        weights,
        weight_lanes,
        channel,
        depth,
        _picked(weights, depth),
        ending,
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


def _load_of(matcher: Matcher, scratchpad: str) -> str:
    for pattern in matcher.patterns:
        if pattern.target.buffer == scratchpad and I8 in pattern.source_types:
            return pattern.operation.name
    raise Refusal(f"no instruction loads 8-bit elements into {scratchpad}")


class _Lanes:
    """Which loop each lane axis of an element runs along."""

    def __init__(self) -> None:
        self.bound: dict[str, str] = {}

    def bind(self, place: Load, batch: Expr, channel: Expr) -> None:
        """The lanes of an element that holds an activation: its batch and its channel."""
        lanes = _lane_names(place)
        if len(lanes) != 2:
            raise Refusal(f"an element of {place.buffer} is no activation")
        for lane, e in zip(lanes, (batch, channel), strict=True):
            loop = is_index(e)
            if loop is None:
                raise Refusal("a channel that is no loop of its own")
            if self.bound.setdefault(lane, loop) != loop:
                raise Refusal(f"loops {self.bound[lane]} and {loop} on one axis of lanes")

    def loop(self, lane: str) -> str:
        """The loop of a lane axis."""
        if lane not in self.bound:
            raise Refusal("weights with a lane axis that neither input nor output has")
        return self.bound[lane]


def _lane_names(place: Load) -> tuple[str, ...]:
    names = tuple(is_index(i) for i in place.indices[1:])
    if None in names:
        raise Refusal(f"an element of {place.buffer} whose lanes are not in order")
    return tuple(str(name) for name in names)


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
