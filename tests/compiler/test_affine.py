from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from weft.compiler.affine import Affine, affine, is_index
from weft.isa.nest import Const, Expr, Index, Load, expr

NAMES = ("i", "j")


def _add(a: Expr, b: Expr) -> Expr:
    return a + b


def _sub(a: Expr, b: Expr) -> Expr:
    return a - b


leaves = st.sampled_from(NAMES).map(Index) | st.integers(-9, 9).map(Const)
sums = st.recursive(
    leaves,
    lambda e: (
        st.builds(lambda a, b, m: m(a, b), e, e, st.sampled_from([_add, _sub]))
        | st.builds(lambda a, k: a * k, e, st.integers(-4, 4))
    ),
    max_leaves=8,
)


def value(e: Expr, at: dict[str, int]) -> int:
    match e:
        case Const(value=v):
            return int(v)
        case Index(name):
            return at[name]
    a, b = value(e.a, at), value(e.b, at)
    return {"add": a + b, "sub": a - b, "mul": a * b}[e.op]


@given(sums, st.integers(0, 6), st.integers(0, 4))
def test_a_form_has_the_value_of_its_expression(e, i, j):
    form = affine(e)
    at = {"i": i, "j": j}
    assert form.const + sum(c * at[name] for name, c in form.coefficients) == value(e, at)


@given(sums)
def test_bounds_are_met_and_not_exceeded(e):
    form, extents = affine(e), {"i": 4, "j": 3}
    values = [value(e, {"i": i, "j": j}) for i in range(4) for j in range(3)]
    assert form.bounds(extents) == (min(values), max(values))


def test_products_of_indices_and_loads_are_no_sums():
    assert affine(Index("i") * Index("j")) is None
    assert affine(Load("x", (Index("i"),))) is None
    assert affine(Index("i") // expr(2)) is None


def test_a_plain_index_is_recognized_however_it_is_written():
    assert is_index(Index("i") * 1 + 0) == "i"
    assert is_index(Index("i") * 2) is None
    assert is_index(Index("i") + 1) is None
    assert affine(Index("i") - Index("i")) == Affine(0)
