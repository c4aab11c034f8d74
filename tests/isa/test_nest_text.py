"""Nests as text: what they look like, and that nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.isa.nests import expressions, nests
from weft.isa import PRESETS, InstructionSet, ProgramError
from weft.isa.nest import (
    F32,
    I8,
    I64,
    Block,
    Buffer,
    Const,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Store,
    expr,
)
from weft.isa.nest_text import WIDTH, format_expr, format_nest, parse_nest

GEMM = """\
nest gemm(
    uop_bgn, uop_end, iter_out, iter_in, dst_factor_out, dst_factor_in, src_factor_out,
    src_factor_in, wgt_factor_out, wgt_factor_in
  )
  buffer uop: u32[8192]
  buffer acc: i32[2048, 1, 16]
  buffer inp: i8[2048, 1, 16]
  buffer wgt: i8[1024, 16, 16]
  for i in 0 .. iter_out:
    for j in 0 .. iter_in:
      for u in uop_bgn .. uop_end:
        let dst = (uop[u] >> 0 & 2047) + i * dst_factor_out + j * dst_factor_in
        let src = (uop[u] >> 11 & 2047) + i * src_factor_out + j * src_factor_in
        let wgt = (uop[u] >> 22 & 1023) + i * wgt_factor_out + j * wgt_factor_in
        parallel for b in 0 .. 1:
          parallel for o in 0 .. 16:
            acc[dst, b, o] = acc[dst, b, o] + sum[c < 16](inp[src, b, c] * wgt[wgt, o, c])
"""


def test_the_meaning_of_gemm_reads_so():
    assert format_nest(InstructionSet(PRESETS["base"]).meaning("gemm")) == GEMM


@pytest.mark.parametrize("preset", PRESETS)
def test_every_meaning_survives_the_text_and_fits_the_page(preset: str):
    instructions = InstructionSet(PRESETS[preset])
    for name in instructions.operations:
        text = format_nest(instructions.meaning(name))
        assert parse_nest(text) == instructions.meaning(name)
        assert all(len(line) <= WIDTH for line in text.splitlines())


@settings(max_examples=150, deadline=None)
@given(nests())
def test_a_random_nest_survives_the_text(nest: Nest):
    assert parse_nest(format_nest(nest)) == nest


BUFFERS = (Buffer("a", I8, (3,)), Buffer('odd "name"', I8, (3,)), Buffer("i8", F32, (2,)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_random_expression_survives_the_text(data: st.DataObject):
    floating = data.draw(st.booleans())
    e = data.draw(expressions(BUFFERS, ("x", "sum", "conv/1"), floating, 5))
    nest = Nest("t", (), BUFFERS, Store("a", (expr(0),), e))
    assert parse_nest(format_nest(nest)) == nest


STORE = Store("a", (Index("x"),), Const(1))


@pytest.mark.parametrize(
    "body",
    [
        Block(()),
        Block((STORE,)),
        Block((STORE, STORE)),
        Block((Block(()), Block((STORE, STORE)))),
        Let("k", expr(1), Block((STORE, STORE))),
        Block((Let("k", expr(1), STORE), STORE)),
        Block((STORE, Let("k", expr(1), Let("m", Index("k"), STORE)))),
        For("x", expr(0), expr(3), Block((If(Index("x"), Block(())), STORE))),
        Let("k", expr(1), Block((Let("m", expr(2), Block((STORE,))), STORE))),
        Store("a", (expr(-3),), Const(float("-inf"), F32)),
        Store("a", (), Const(-5, I64)),
    ],
)
def test_the_structure_of_blocks_survives_the_text(body):
    nest = Nest("t", ("p q",), BUFFERS, body)
    assert parse_nest(format_nest(nest)) == nest


def test_parentheses_stand_where_they_must():
    x, y, z = Index("x"), Index("y"), Index("z")
    assert format_expr(x - (y - z)) == "x - (y - z)"
    assert format_expr((x - y) - z) == "x - y - z"
    assert format_expr((x + y) * z) == "(x + y) * z"
    assert format_expr((x < y) < z) == "(x < y) < z"
    assert format_expr(x << (y & 3)) == "x << (y & 3)"
    assert format_expr(-x) == "0 - x"
    assert format_expr(Load("a", (x - 1,)) - -1) == "a[x - 1] - -1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ("nest t()\n  a[0] = 1 +\n", "line 2: expected a name"),
        ("nest t()\n  for x in 0 .. 3:\n  a[x] = 1\n", "line 3: expected a statement"),
        ("nest t()\n  a[0] = $\n", "line 2"),
        ("nest t()\n  a[0] = 1 2\n", "line 2: expected the end"),
        ("nest t()\n  a[0] = 1 < 2 < 3\n", "line 2: expected the end"),
        ("nest t()\n  buffer a: q8[3]\n  pass\n", "line 2: expected a type"),
        ("nest t()\n  a[0] = 1.5\n", "line 2: expected an integer"),
    ],
)
def test_a_malformed_text_is_refused_with_its_line(text: str, message: str):
    with pytest.raises(ProgramError, match=message):
        parse_nest(text)
