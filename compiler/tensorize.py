"""From an operator's loop nest to instructions: which ones, and what each operand stands for.

The instructions' meanings are unified with the nest (:mod:`.unify`); nothing here knows an
operator of the tensor graph by name. Three shapes of result come out:

* a sum of products becomes a :class:`Contraction`: one instruction starts accumulators, one adds
  to them, step by step over the taps and channel blocks;
* an expression of loaded elements becomes an :class:`Elementwise`: accumulator instructions one
  after another, possibly under a window (a running maximum);
* in both, a storing instruction ends the value.

Where no instruction fits at once, the nest is rewritten: a sum without weights is one with
weights 1; a channel that is picked is a sum over channels with one-hot weights; a function of a
bounded value is the requantization that equals it for every possible value (:mod:`.fit`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..isa.config import AcceleratorConfig
from ..isa.memories import QNT_LANE
from ..isa.nest import (
    I8,
    Binary,
    Const,
    DType,
    Expr,
    Index,
    Load,
    Node,
    Select,
    Sum,
    rewrite,
    walk,
)
from .affine import is_index
from .fit import fitted
from .image import Image, Where, image_of
from .kernel import RUNNING, Kernel, Refusal
from .unify import Match, Pattern, patterns, unify

RECORDS: Mapping[str, DType] = {f"qnt.{record.name}": record.dtype for record in QNT_LANE}


@dataclass(frozen=True, eq=False)
class Ending:
    """The storing instruction, and for each field of its parameters what it holds."""

    operation: str
    record: Mapping[str, Expr]


@dataclass(frozen=True, eq=False)
class Contraction:
    """Accumulators that sum products over taps and channels.

    Attributes
    ----------
    kernel : Kernel
        What is computed, after the rewrites.
    first : tuple of str
        Operations for the first step of an accumulator: one that overwrites, or one that clears
        and one that adds.
    add : str
        The operation for the steps after it.
    image : Image
        The input, with its load.
    load_weights : str
        The operation that loads an element of weights.
    weights : Expr
        A weight, over the loops bound to ``weight_lanes`` and the taps.
    weight_lanes : tuple of (str, int)
        Loop and extent in the element for each lane axis of a weight element.
    channel, depth : str
        The loops of the output's and of the input's channel; equal where each channel is its own.
    picked : Expr or None
        The one input channel, in terms of ``channel``, that has weights other than 0.
    ending : Ending
        How the sum is stored.
    """

    kernel: Kernel
    first: tuple[str, ...]
    add: str
    image: Image
    load_weights: str
    weights: Expr
    weight_lanes: tuple[tuple[str, int], ...]
    channel: str
    depth: str
    picked: Expr | None
    ending: Ending

    @property
    def operations(self) -> tuple[str, ...]:
        """All that it uses."""
        return (*self.first, self.add, self.image.load, self.load_weights, self.ending.operation)


@dataclass(frozen=True, eq=False)
class Act:
    """One accumulator instruction on whole regions.

    ``dst`` and ``src`` number regions of accumulators; ``src`` is None where the second operand
    is an immediate, parameters or nothing. With ``taps`` it runs once for each tap of the image
    in ``src``.
    """

    operation: str
    dst: int
    src: int | None = None
    imm: int | None = None
    record: Mapping[str, Expr] | None = None
    taps: bool = False


@dataclass(frozen=True, eq=False)
class Elementwise:
    """Regions of accumulators, loaded or computed one from another, the last one stored."""

    kernel: Kernel
    images: Mapping[int, Image]
    acts: tuple[Act, ...]
    result: int
    ending: Ending

    @property
    def operations(self) -> tuple[str, ...]:
        """All that it uses."""
        loads = (image.load for image in self.images.values())
        return (*loads, *(act.operation for act in self.acts), self.ending.operation)


Tensorized = Contraction | Elementwise


def tensorize(kernel: Kernel, config: AcceleratorConfig) -> Tensorized:
    """Instructions that compute ``kernel``.

    Raises
    ------
    Refusal
        If there are none; the reason names what is missing.
    """
    try:
        return _Matcher(kernel, config).tensorize()
    except Refusal as refusal:
        switches = {p.operation.extension for p in patterns(_everything(config))} - {None}
        missing = sorted(name for name in switches if not getattr(config, str(name)))
        if not missing:
            raise
        try:
            used = _Matcher(kernel, _everything(config)).tensorize().operations
        except Refusal:
            raise refusal from None
    extensions = {p.operation.name: p.operation.extension for p in patterns(_everything(config))}
    needed = sorted({str(extensions.get(name)) for name in used} & set(missing))
    raise Refusal(f"it needs {', '.join(needed)}, which this hardware does not have")


def _everything(config: AcceleratorConfig) -> AcceleratorConfig:
    return replace(config, requantize=True, pad_value=True, overwrite=True)


class _Matcher:
    def __init__(self, kernel: Kernel, config: AcceleratorConfig):
        self.kernel, self.config = kernel, config
        self.patterns = patterns(config)

    def tensorize(self) -> Tensorized:
        self._check_ends()
        reason = "no instruction stores such a value"
        for kernel in _forms(self.kernel):
            if isinstance(kernel, Refusal):
                reason = str(kernel)
                continue
            self.kernel, reasons = kernel, list[str]()
            for ending, total in self._endings():
                try:
                    if isinstance(total, Sum):
                        return self._contraction(total, ending)
                    return self._elementwise(total, ending)
                except Refusal as refusal:
                    reasons.append(str(refusal))
            reason = reasons[0] if reasons else reason
        raise Refusal(reason)

    def _check_ends(self) -> None:
        n, *_, c = self.kernel.element
        for what, e, extent in (
            ("batch", n, self.kernel.shapes[self.kernel.output][0]),
            ("channel", c, self.kernel.shapes[self.kernel.output][3]),
        ):
            if is_index(e) is None and extent != 1:
                raise Refusal(f"the {what} of its output is no loop of its own")

    # --- unification ---------------------------------------------------------------------------

    def _range(self, e: Expr) -> tuple[int, int] | None:
        match e:
            case Const(value=int(value)):
                return value, value
            case Load(buffer) if buffer in self.kernel.constants:
                data = self.kernel.constants[buffer]
                return int(data.min()), int(data.max())
        return None

    def _admits(self, pattern: Pattern) -> _Admission:
        return _Admission(self, pattern)

    def _matches(self, pattern: Pattern, subject: Expr) -> Iterator[Match]:
        return unify(pattern, subject, self._range, self._admits(pattern))

    # --- the end of a value --------------------------------------------------------------------

    def _endings(self) -> Iterator[tuple[Ending, Expr]]:
        """Storing instructions with what must be in the accumulator."""
        stored = {p.types[p.target.buffer] for p in self.patterns if p.stores}
        if I8 not in stored:
            raise Refusal(f"it stores i8; this hardware stores {', '.join(map(str, stored))}")
        for pattern in self.patterns:
            if not pattern.stores or pattern.types[pattern.target.buffer] != I8:
                continue
            for match in self._matches(pattern, self.kernel.value):
                values = [v for hole, v in match.holes.items() if _loads(hole, "acc")]
                if len(values) == 1:
                    yield Ending(pattern.operation.name, _record(match)), values[0]

    # --- contractions --------------------------------------------------------------------------

    def _contraction(self, total: Sum, ending: Ending) -> Contraction:
        reasons: list[str] = []
        for pattern in self.patterns:
            if pattern.target.buffer != "acc" or not _reads_weights(pattern):
                continue
            in_place = pattern.target in walk(pattern.value)
            if not in_place:
                continue
            for match, _ in self._products(pattern, total):
                try:
                    return self._placed(pattern, match, total, ending)
                except Refusal as refusal:
                    reasons.append(str(refusal))
        raise Refusal(reasons[0] if reasons else "no instruction adds products to an accumulator")

    def _products(self, pattern: Pattern, total: Sum) -> Iterator[tuple[Match, Expr]]:
        """Matches of what the pattern adds with the sum, or with its body if it adds one each."""
        for subject in (total, total.body):
            for match in self._matches(pattern, subject):
                yield match, subject

    def _placed(self, pattern: Pattern, match: Match, total: Sum, ending: Ending) -> Contraction:
        kernel = self.kernel
        holes = {h.buffer: (h, v) for h, v in match.holes.items() if isinstance(h, Load)}
        (x_hole, x), (w_hole, weights) = holes["inp"], holes["wgt"]
        if not kernel.is_constant(weights):
            raise Refusal("the weights are not constant")
        where = Where(kernel, total.axes)
        image = image_of(where, x, "inp", self.patterns)
        lanes = _Lanes(pattern)
        lanes.bind(pattern.target, kernel.element[0], kernel.element[3])
        lanes.bind(x_hole, image.batch, image.channel)
        reduced = {name for name, _ in total.axes}
        for name, loop in lanes.bound.items():
            summed = any(name in dict(s.axes) for s, _ in match.sums)
            if (loop in reduced) != summed:
                raise Refusal(f"loop {loop} is summed on one side only")
        weight_lanes = tuple(
            (lanes.loop(lane), pattern.lanes[lane]) for lane in _lane_names(w_hole)
        )
        bound = set(lanes.bound.values())
        free = {i.name for i in walk(weights) if isinstance(i, Index)}
        if free - bound - reduced:
            raise Refusal(f"weights that vary along {', '.join(sorted(free - bound - reduced))}")
        if reduced - bound - set(image.tap_loops):
            raise Refusal("a sum over more than the window and the channels of its input")
        channel, depth = is_index(kernel.element[3]), is_index(image.channel)
        assert channel is not None
        assert depth is not None
        return Contraction(
            kernel,
            self._first(pattern, match),
            pattern.operation.name,
            image,
            self._load_of("wgt"),
            weights,
            weight_lanes,
            channel,
            depth,
            _picked(weights, depth),
            ending,
        )

    def _first(self, add: Pattern, match: Match) -> tuple[str, ...]:
        """Operations after which an accumulator holds the first product alone."""
        for pattern in self.patterns:
            if pattern.target == add.target and pattern.value in _addends(add):
                return (pattern.operation.name,)
        for pattern in self.patterns:
            if pattern.target == add.target and pattern.value == Const(0):
                return (pattern.operation.name, add.operation.name)
        raise Refusal("no instruction starts an accumulator")

    def _load_of(self, scratchpad: str) -> str:
        for pattern in self.patterns:
            if pattern.target.buffer == scratchpad and I8 in pattern.source_types:
                return pattern.operation.name
        raise Refusal(f"no instruction loads 8-bit elements into {scratchpad}")

    # --- elementwise ---------------------------------------------------------------------------

    def _elementwise(self, total: Expr, ending: Ending) -> Elementwise:
        code = _Code(self)
        reduction = self.kernel.reduction
        if reduction is None:
            result = code.value(total)
        else:
            if total != RUNNING:
                raise Refusal("its running value is used in more than one way")
            code.running = result = code.value(reduction.init)
            code.value(reduction.update)
        return Elementwise(self.kernel, code.images, tuple(code.acts), result, ending)


@dataclass(frozen=True)
class _Admission:
    """Whether a hole may stand for an expression: parameters are constant and fit their fields."""

    matcher: _Matcher
    pattern: Pattern

    def __call__(self, hole: Expr, value: Expr) -> bool:
        matcher = self.matcher
        match hole:
            case Load(buffer) if buffer in RECORDS:
                known = matcher._range(value)
                channel = is_index(matcher.kernel.element[3])
                free = {i.name for i in walk(value) if isinstance(i, Index)}
                dtype = RECORDS[buffer]
                least = 0 if buffer == "qnt.multiplier" else dtype.min
                return (
                    known is not None
                    and least <= known[0]
                    and known[1] <= dtype.max
                    and free <= {channel}
                )
            case Index(name):
                slot = self.pattern.operation.format.layout(matcher.config).by_name[name]
                known = matcher._range(value)
                return known is not None and slot.least <= known[0] and known[1] <= slot.greatest
        return True


class _Code:
    """Accumulator instructions for an expression, one region a value."""

    def __init__(self, matcher: _Matcher):
        self.matcher = matcher
        self.images: dict[int, Image] = {}
        self.acts: list[Act] = []
        self.running: int | None = None
        self._regions = 0

    def value(self, e: Expr) -> int:
        """The region that holds ``e`` after the instructions so far."""
        if e == RUNNING and self.running is not None:
            return self.running
        if _is_element(e, self.matcher.kernel):
            return self._loaded(e)
        for pattern in self.matcher.patterns:
            if pattern.target.buffer != "acc" or not _is_act(pattern):
                continue
            if e == Const(0) and pattern.value != e:
                continue
            for match in self.matcher._matches(pattern, e):
                return self._act(pattern, match)
        if isinstance(e, Load):
            raise Refusal("an operand is a constant")
        raise Refusal(f"no instruction computes {_shape_of(e)} on accumulators")

    def _region(self) -> int:
        self._regions += 1
        return self._regions - 1

    def _loaded(self, e: Expr) -> int:
        reduction = self.matcher.kernel.reduction
        where = Where(self.matcher.kernel, reduction.axes if reduction else ())
        image = image_of(where, e, "acc", self.matcher.patterns)
        if (image.batch, image.channel) != (where.kernel.element[0], where.kernel.element[3]):
            raise Refusal("an element's batch or channel differs from its output's")
        region = self._region()
        self.images[region] = image
        return region

    def _act(self, pattern: Pattern, match: Match) -> int:
        mine = [v for hole, v in match.holes.items() if hole == pattern.target]
        others = [
            v for hole, v in match.holes.items() if _loads(hole, "acc") and hole != pattern.target
        ]
        dst = self.value(mine[0]) if mine else self._region()
        src = self.value(others[0]) if others else None
        immediates = [v for hole, v in match.holes.items() if isinstance(hole, Index)]
        imm = int(immediates[0].value) if immediates and isinstance(immediates[0], Const) else None
        record = _record(match)
        taps = dst == self.running and src in self.images
        self.acts.append(Act(pattern.operation.name, dst, src, imm, record or None, taps))
        return dst


class _Lanes:
    """Which loop each lane axis of an element runs along."""

    def __init__(self, pattern: Pattern):
        self.pattern = pattern
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


def _loads(e: Expr, buffer: str) -> bool:
    return isinstance(e, Load) and e.buffer == buffer


def _record(match: Match) -> dict[str, Expr]:
    """Parameters by field: what the qnt holes stand for."""
    return {
        hole.buffer.removeprefix("qnt."): value
        for hole, value in match.holes.items()
        if isinstance(hole, Load) and hole.buffer in RECORDS
    }


def _reads_weights(pattern: Pattern) -> bool:
    return {"inp", "wgt"} <= {n.buffer for n in walk(pattern.value) if isinstance(n, Load)}


def _is_act(pattern: Pattern) -> bool:
    """Whether it works on accumulators and parameters alone."""
    loads = {n.buffer for n in walk(pattern.value) if isinstance(n, Load)}
    return loads <= {"acc", *RECORDS}


def _addends(pattern: Pattern) -> tuple[Expr, ...]:
    match pattern.value:
        case Binary("add", a, b):
            return a, b
    return ()


def _is_element(e: Expr, kernel: Kernel) -> bool:
    match e:
        case Load(buffer) | Select(_, Load(buffer), Const()):
            return buffer in kernel.shapes
    return False


def _shape_of(e: Expr) -> str:
    match e:
        case Binary(op):
            return f"such a {op!r}"
        case Const(value):
            return f"the constant {value}"
    return f"such a {type(e).__name__.lower()}"


# --- rewrites ------------------------------------------------------------------------------------


def _forms(kernel: Kernel) -> Iterator[Kernel | Refusal]:
    """``kernel``, and what equals it, or why nothing does."""
    yield kernel
    ended = None
    try:
        ended = fitted(kernel)
    except Refusal as refusal:
        yield refusal
        return
    if ended is not None:
        yield ended
    for form in (kernel, ended):
        if form is not None:
            picked = _with_one_hot(form)
            if picked is not None:
                yield picked


def _with_one_hot(kernel: Kernel) -> Kernel | None:
    """With sums of picked channels as sums over all channels of one-hot weights."""
    depth = "depth"

    def rule(node: Node) -> Node | None:
        if not isinstance(node, Sum):
            return None
        pixel, weight = _factors(node.body, kernel)
        load = next((n for n in walk(pixel) if _is_activation(n, kernel)), None)
        if load is None or {i.name for i in _indices(load.indices[3])} & dict(node.axes).keys():
            return None
        spread = rewrite(
            pixel,
            lambda n: (
                Load(n.buffer, (*n.indices[:3], Index(depth)))
                if isinstance(n, Load) and n == load
                else None
            ),
        )
        assert isinstance(spread, Expr)
        hot = Select(Binary("eq", Index(depth), load.indices[3]), weight, Const(0))
        channels = kernel.shapes[load.buffer][3]
        return Sum((*node.axes, (depth, channels)), spread * hot)

    value = rewrite(kernel.value, rule)
    assert isinstance(value, Expr)
    return None if value == kernel.value else replace(kernel, value=value)


def _factors(body: Expr, kernel: Kernel) -> tuple[Expr, Expr]:
    match body:
        case Binary("mul", a, b) if kernel.is_constant(b):
            return a, b
        case Binary("mul", a, b) if kernel.is_constant(a):
            return b, a
    return body, Const(1)


def _is_activation(node: Node, kernel: Kernel) -> bool:
    return isinstance(node, Load) and node.buffer in kernel.shapes


def _indices(e: Expr) -> Iterator[Index]:
    return (node for node in walk(e) if isinstance(node, Index))  # type: ignore[misc]


def _picked(weights: Expr, depth: str) -> Expr | None:
    """The channel outside of which weights are 0, by their form."""
    match weights:
        case Select(Binary("eq", Index(name), picked), _, Const(value=0)) if name == depth:
            return picked
    return None
