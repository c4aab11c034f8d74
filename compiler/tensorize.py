"""From an operator's loop nest to instructions: which ones, and what each operand stands for.

The instructions' meanings are unified with the nest (:mod:`.unify`); nothing here knows an
operator of the tensor graph by name. Two shapes of result come out (:mod:`.work`):

* a sum of products becomes a ``Contraction``: one instruction starts accumulators, one adds to
  them, step by step over the taps and channel blocks;
* an expression of loaded elements becomes an ``Elementwise``: accumulator instructions one after
  another, possibly under a window (a running maximum).

An expression of a sum of products and of loaded elements is both: a ``Contraction`` whose tail is
an ``Elementwise``. In all of them, a storing instruction ends the value.

Where no instruction fits at once, other forms of the nest are tried (:mod:`.rewrites`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ..isa.config import AcceleratorConfig
from ..isa.nest import I8, Cast, Expr, Sum
from .accumulate import behind_sums, elementwise, sum_of
from .affine import is_index
from .contract import contractions
from .kernel import Kernel, Refusal
from .matcher import Matcher, loads, record_of
from .patterns import Pattern, patterns
from .pool import is_pooled, products_of
from .rewrites import forms
from .work import Contraction, Elementwise, Ending, Tensorized


def tensorize(kernel: Kernel, config: AcceleratorConfig) -> Tensorized:
    """Instructions that compute ``kernel``: the first of :func:`ways_to`."""
    return ways_to(kernel, config)[0]


def ways_to(kernel: Kernel, config: AcceleratorConfig) -> tuple[Tensorized, ...]:
    """Instructions that compute ``kernel``; several ways if several instructions add its products,
    between which whoever knows their cost decides.

    Raises
    ------
    Refusal
        If there are none; the reason names what is missing.
    """
    try:
        return _tensorized(kernel, config)
    except Refusal as refusal:
        switches = {p.operation.extension for p in patterns(_everything(config))}
        missing = {name for name in switches if name is not None and not getattr(config, name)}
        if not missing:
            raise
        try:
            used = _tensorized(kernel, _everything(config))[0].operations
        except Refusal:
            raise refusal from None
    extensions = {p.operation.name: p.operation.extension for p in patterns(_everything(config))}
    needed = sorted({str(extensions.get(name)) for name in used} & missing)
    raise Refusal(f"it needs {', '.join(needed)}, which this hardware does not have")


def _everything(config: AcceleratorConfig) -> AcceleratorConfig:
    return replace(config, requantize=True, pad_value=True, overwrite=True)


def tensorize_with(
    form: Kernel, config: AcceleratorConfig, operations: Collection[str]
) -> Tensorized:
    """``form``, as it stands, with these instructions and no others: what a schedule that was
    written down says of a layer, proven again.

    Raises
    ------
    Refusal
        If they do not compute it.
    """
    return _tensorized(form, config, operations)[0]


def reason_against(kernel: Kernel, config: AcceleratorConfig, operations: Collection[str]) -> str:
    """Why these instructions, with those that move data, do not compute ``kernel``, in one line
    that names them; empty if they do."""
    known = {p.operation.name for p in patterns(config)}
    moves = {p.operation.name for p in patterns(config) if p.stores or p.source_types}
    for name in operations:
        if name not in known:
            return f"{name}: no meaning of that name is one store of a value"
    refusal = ""
    for form in forms(kernel):
        if isinstance(form, Refusal):
            continue
        try:
            tensorize_with(form, config, {*operations, *moves})
        except Refusal as refused:
            refusal = refusal or f"{', '.join(operations)}: {refused}"
        else:
            return ""
    return refusal


def _tensorized(
    kernel: Kernel, config: AcceleratorConfig, only: Collection[str] | None = None
) -> tuple[Tensorized, ...]:
    _check_ends(kernel)
    if is_pooled(kernel):
        inner, pool = products_of(kernel, Matcher(kernel, config, only))
        found = [w for w in _tensorized(inner, config, only) if isinstance(w, Contraction)]
        if not found or any(w.tail is not None or w.kernel is not inner for w in found):
            raise Refusal("it takes the maximum of more than sums of products")
        return tuple(replace(w, kernel=kernel, pool=pool) for w in found)
    refusal = Refusal("no instruction stores such a value")
    for form in forms(kernel) if only is None else (kernel,):
        if isinstance(form, Refusal):
            refusal = form
            continue
        matcher, refusals = Matcher(form, config, only), list[Refusal]()
        for ending, total in _endings(matcher):
            try:
                if isinstance(total, Sum):
                    return contractions(matcher, total, ending)
                work = elementwise(matcher, total, ending)
                if work.sums is None:
                    return (work,)
                first, tail = behind_sums(work)
                made = contractions(matcher, sum_of(total), first)
                return tuple(replace(contraction, tail=tail) for contraction in made)
            except Refusal as refused:
                refusals.append(refused)
        refusal = refusals[0] if refusals else refusal
    raise refusal


def _check_ends(kernel: Kernel) -> None:
    n, *_, c = kernel.element
    shape = kernel.shapes[kernel.output]
    for what, e, extent in (("batch", n, shape[0]), ("channel", c, shape[3])):
        if is_index(e) is None and extent != 1:
            raise Refusal(f"the {what} of its output is no loop of its own")


def _endings(matcher: Matcher) -> Iterator[tuple[Ending, Expr]]:
    """Storing instructions with what must be in the accumulator."""
    stores = [p for p in matcher.patterns if p.stores and p.aligned]
    stored = {p.types[p.target.buffer] for p in stores}
    if I8 not in stored:
        raise Refusal(f"it stores i8; this hardware stores {', '.join(map(str, stored))}")
    for pattern in stores:
        for match in matcher.matches(pattern, matcher.kernel.value):
            values = [v for hole, v in match.holes.items() if loads(hole, "acc")]
            if len(values) == 1:
                keep = _keeping(pattern, matcher.config)
                yield Ending(pattern.operation.name, record_of(pattern, match), keep), values[0]


def _keeping(pattern: Pattern, config: AcceleratorConfig) -> str | None:
    """The instruction that stores into ``inp`` what ``pattern`` stores into DRAM."""
    stored = pattern.types[pattern.target.buffer]
    for other in patterns(config):
        if (
            other.target.buffer == "inp"
            and other.aligned
            and other.value == Cast(stored, pattern.value)
        ):
            return other.operation.name
    return None


__all__ = ["Contraction", "Elementwise", "tensorize", "tensorize_with", "ways_to"]
