"""Loop nests as text, and back: for the manual, golden tests and messages.

Text
----
::

    nest gemm(uop_bgn, uop_end, iter_out)
      buffer uop: u32[8192]
      buffer dram.out: i8[*, 1, 16]
      buffer qnt.bias: i32[128, 16] strides [256, 16]
      for i in 0 .. iter_out:
        let dst = (uop[i] & 2047) + i * 4
        parallel for b in 0 .. 1:
          acc[dst, b] = sum[c < 16](inp[dst, b, c] * wgt[dst, c])
        if i < 3:
          pass

A literal is ``i32`` unless a type follows it (``5:i64``, ``0.5:f32``); ``i8(x)`` is a cast;
``//`` and ``%`` round down; ``min``, ``max``, ``select(cond, a, b)`` and the functions of
:data:`~weft.isa.nest.MATH`, as ``math.exp(a)``, look like calls. A ``let``
holds to the end of its block, ``let x = e:`` for an indented one. Names other than dotted
identifiers stand in double quotes. Within brackets a line may end anywhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from textwrap import wrap

from .errors import ProgramError
from .nest import (
    I32,
    MATH,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Math,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
)

WIDTH = 100
"""Columns of a line, unless a name is longer."""

# fmt: off
_INFIX = {
    "eq": ("==", 1), "ne": ("!=", 1), "lt": ("<", 1), "le": ("<=", 1),
    "or": ("|", 2), "xor": ("^", 3), "and": ("&", 4), "shl": ("<<", 5), "shr": (">>", 5),
    "add": ("+", 6), "sub": ("-", 6), "mul": ("*", 7), "div": ("//", 7), "mod": ("%", 7),
}
"""Operators and how tightly they bind; comparisons do not chain, the others go left to right."""
# fmt: on
_OPERATORS = {text: (op, level) for op, (text, level) in _INFIX.items()}
_COMPARISON = 1
_MATH = "math."
_PREFIX = ("min", "max")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_TYPE = re.compile(r"[iuf][0-9]+")
# fmt: off
_WORDS = frozenset((
    "min", "max", "select", "sum", "for", "in", "let", "if", "parallel", "pass", "block", "nest",
    "buffer", "strides", "inf", "nan",
))
# fmt: on


# --- printing ------------------------------------------------------------------------------------


def format_nest(nest: Nest) -> str:
    """``nest`` as text, every line ended; :func:`parse_nest` reads it back exactly."""
    params = ", ".join(map(_name, nest.params))
    lines = [f"nest {_name(nest.name)}({params})"]
    if len(lines[0]) > WIDTH:
        wrapped = wrap(params, WIDTH - 4, break_long_words=False, break_on_hyphens=False)
        lines = [f"nest {_name(nest.name)}(", *(f"    {line}" for line in wrapped), "  )"]
    for buffer in nest.buffers:
        shape = ", ".join(map(str, buffer.shape))
        if buffer.shape[:1] == (0,):
            shape = f"*{shape[1:]}"
        strides = f" strides [{', '.join(map(str, buffer.strides))}]" if buffer.strides else ""
        lines.append(f"  buffer {_name(buffer.name)}: {buffer.dtype}[{shape}]{strides}")
    lines += _body(nest.body, 1)
    return "\n".join(lines) + "\n"


def format_expr(e: Expr) -> str:
    """An expression on one line."""
    return _flat(e, 0)


def _name(name: str) -> str:
    plain = _NAME.fullmatch(name) and not _TYPE.fullmatch(name) and name not in _WORDS
    if name.startswith(_MATH) and name.removeprefix(_MATH) in MATH:
        plain = None
    return name if plain else json.dumps(name)


def _body(stmt: Stmt, depth: int) -> list[str]:
    """The lines of what stands indented under a header."""
    stmts = (stmt,)
    if isinstance(stmt, Block) and len(stmt.stmts) != 1:
        stmts = stmt.stmts
    if not stmts:
        return ["  " * depth + "pass"]
    lines: list[str] = []
    for i, s in enumerate(stmts):
        lines += _stmt(s, depth, last=i == len(stmts) - 1)
    return lines


def _stmt(stmt: Stmt, depth: int, last: bool) -> list[str]:
    margin = "  " * depth
    match stmt:
        case Block():
            inner: list[str] = []
            for i, s in enumerate(stmt.stmts):
                inner += _stmt(s, depth + 1, last=i == len(stmt.stmts) - 1)
            return [f"{margin}block:", *(inner or [f"{margin}  pass"])]
        case For(index, start, stop, body, parallel):
            word = "parallel for" if parallel else "for"
            header = f"{margin}{word} {_name(index)} in {_flat(start, 0)} .. {_flat(stop, 0)}:"
            return [header, *_body(body, depth + 1)]
        case If(cond, body):
            return [*_line(f"{margin}if ", cond, ":", depth), *_body(body, depth + 1)]
        case Let(name, value, body):
            end, below = ("", depth) if last else (":", depth + 1)
            lines = _line(f"{margin}let {_name(name)} = ", value, end, depth)
            return [*lines, *_body(body, below)]
        case Store(buffer, indices, value):
            return _line(f"{margin}{_element(buffer, indices)} = ", value, "", depth)
    raise TypeError(f"not a statement: {stmt!r}")


@dataclass(frozen=True)
class _Part:
    """An operand with the text around it; ``least`` as for :func:`_flat`."""

    before: str
    expr: Expr
    after: str = ""
    least: int = 0


def _line(start: str, e: Expr, end: str, depth: int, least: int = 0) -> list[str]:
    """``e`` between two texts, its operands on lines of their own if it is too long for one."""
    flat = f"{start}{_flat(e, least)}{end}"
    opening, parts, closing = _split(e)
    if len(flat) <= WIDTH or not parts:
        return [flat]
    inner = _operands(parts, depth + 1)
    return [start + opening, *inner, "  " * depth + closing + end]


def _operands(parts: list[_Part], depth: int) -> list[str]:
    """Lines within brackets, where an infix operation needs none of its own."""
    lines: list[str] = []
    for part in parts:
        before, e = "  " * depth + part.before, part.expr
        flat = f"{before}{_flat(e, part.least)}{part.after}"
        level = _INFIX[e.op][1] if isinstance(e, Binary) and e.op in _INFIX else -1
        if len(flat) > WIDTH and not part.before and level >= part.least:
            _, inner, _ = _split(e)
            inner[-1] = replace(inner[-1], after=part.after)
            lines += _operands(inner, depth)
        else:
            lines += _line(before, e, part.after, depth, part.least)
    return lines


def _split(e: Expr) -> tuple[str, list[_Part], str]:
    """An expression's opening text, its operands and its closing text; none if it is one word."""
    match e:
        case Binary(op, a, b) if op in _PREFIX:
            return f"{op}(", [_Part("", a, ","), _Part("", b)], ")"
        case Binary(op, _, _):
            text, level = _INFIX[op]
            first, *rest = _chain(e, op)
            least = level + (level == _COMPARISON)
            parts = [_Part(f"{text} ", operand, "", level + 1) for operand in rest]
            return "(", [_Part("", first, "", least), *parts], ")"
        case Select(cond, a, b):
            return "select(", [_Part("", cond, ","), _Part("", a, ","), _Part("", b)], ")"
        case Cast(dtype, a):
            return f"{dtype}(", [_Part("", a)], ")"
        case Math(function, (*first, last)):
            parts = [*(_Part("", a, ",") for a in first), _Part("", last)]
            return f"{_MATH}{function}(", parts, ")"
        case Sum(axes, body):
            return f"sum[{_axes(axes)}](", [_Part("", body)], ")"
    return "", [], ""


def _chain(e: Expr, op: str) -> list[Expr]:
    """The operands of ``a op b op c``, which associates to the left."""
    if isinstance(e, Binary) and e.op == op and _INFIX[op][1] > _COMPARISON:
        return [*_chain(e.a, op), e.b]
    if isinstance(e, Binary) and e.op == op:
        return [e.a, e.b]
    return [e]


def _element(buffer: str, indices: tuple[Expr, ...]) -> str:
    return f"{_name(buffer)}[{', '.join(_flat(i, 0) for i in indices)}]"


def _axes(axes: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{_name(name)} < {extent}" for name, extent in axes)


def _flat(e: Expr, least: int) -> str:
    """On one line, in parentheses if it binds less tightly than ``least``."""
    match e:
        case Const(value, dtype):
            text = repr(float(value)) if dtype.kind == "f" else str(int(value))
            return text if dtype == I32 else f"{text}:{dtype}"
        case Index(name):
            return _name(name)
        case Load(buffer, indices):
            return _element(buffer, indices)
        case Cast(dtype, a):
            return f"{dtype}({_flat(a, 0)})"
        case Math(function, arguments):
            return f"{_MATH}{function}({', '.join(_flat(a, 0) for a in arguments)})"
        case Select(cond, a, b):
            return f"select({_flat(cond, 0)}, {_flat(a, 0)}, {_flat(b, 0)})"
        case Sum(axes, body):
            return f"sum[{_axes(axes)}]({_flat(body, 0)})"
        case Binary(op, a, b) if op in _PREFIX:
            return f"{op}({_flat(a, 0)}, {_flat(b, 0)})"
        case Binary(op, a, b):
            text, level = _INFIX[op]
            left = level + (level == _COMPARISON)
            flat = f"{_flat(a, left)} {text} {_flat(b, level + 1)}"
            return f"({flat})" if level < least else flat
    raise TypeError(f"not an expression: {e!r}")


# --- parsing -------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\n)
      | (?P<number>[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*)
      | (?P<quoted>"(\\.|[^"\\])*")
      | (?P<sign><<|>>|//|<=|==|!=|\.\.|[-+*%&|^<=:,()\[\]])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class _Line:
    depth: int
    tokens: list[_Token]
    number: int


def parse_nest(text: str) -> Nest:
    """The nest that :func:`format_nest` printed.

    Raises
    ------
    ProgramError
        For anything else, with the number of the line.
    """
    lines = _lines(text)
    if not lines:
        raise ProgramError("line 1: expected a nest, not an empty text")
    return _Parser(lines).nest()


def _lines(text: str) -> list[_Line]:
    lines: list[_Line] = []
    tokens: list[_Token] = []
    at, number, nesting, depth = 0, 1, 0, 0
    start = True
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ProgramError(f"line {number}: {text[at]!r} is no part of a nest")
        kind, piece = str(match.lastgroup), match.group()
        if start:
            depth = len(piece) // 2 if kind == "space" and piece != "\n" else 0
            start = False
        if piece == "\n":
            if not nesting:
                if tokens:
                    lines.append(_Line(depth, tokens, tokens[0].line))
                tokens, start = [], True
            number += 1
        elif kind != "space":
            nesting += (piece in "([") - (piece in ")]") if kind == "sign" else 0
            tokens.append(_Token(kind, piece, number))
        at = match.end()
    if tokens:
        lines.append(_Line(depth, tokens, tokens[0].line))
    return lines


class _Parser:
    """Recursive descent; one line's tokens at a time, statements by indentation."""

    def __init__(self, lines: list[_Line]):
        self.lines, self.row, self.at = lines, 0, 0

    # --- tokens

    @property
    def line(self) -> _Line:
        return self.lines[self.row]

    def peek(self, ahead: int = 0) -> str:
        """The text of a token on this line; empty at its end, quotes kept."""
        tokens = self.line.tokens
        return tokens[self.at + ahead].text if self.at + ahead < len(tokens) else ""

    def fail(self, wanted: str) -> ProgramError:
        tokens = self.line.tokens
        number = tokens[min(self.at, len(tokens) - 1)].line
        return ProgramError(f"line {number}: expected {wanted}, not {self.peek() or 'its end'!r}")

    def accept(self, text: str) -> bool:
        if self.peek() != text:
            return False
        self.at += 1
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.fail(repr(text))

    def name(self) -> str:
        text = self.peek()
        self.at += 1
        if text.startswith('"'):
            return str(json.loads(text))
        if _NAME.fullmatch(text) and not _TYPE.fullmatch(text) and text not in _WORDS:
            return text
        self.at -= 1
        raise self.fail("a name")

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        if not self.peek().isdigit():
            raise self.fail("an integer")
        self.at += 1
        return sign * int(self.peek(-1))

    def dtype(self) -> DType:
        if not _TYPE.fullmatch(self.peek()):
            raise self.fail("a type")
        self.at += 1
        return DType.parse(self.peek(-1))

    def end(self) -> None:
        if self.peek():
            raise self.fail("the end of the line")
        self.row, self.at = self.row + 1, 0

    def more(self, close: str) -> bool:
        """Whether a list goes on, after an item."""
        if self.accept(","):
            return True
        self.expect(close)
        return False

    # --- statements

    def nest(self) -> Nest:
        self.expect("nest")
        name, params, buffers = self.name(), list[str](), list[Buffer]()
        self.expect("(")
        if not self.accept(")"):
            params.append(self.name())
            while self.more(")"):
                params.append(self.name())
        self.end()
        while self.row < len(self.lines) and self.peek() == "buffer":
            buffers.append(self.buffer())
        body = self.body(1)
        if self.row < len(self.lines):
            raise self.fail("the end of the nest")
        return Nest(name, tuple(params), tuple(buffers), body)

    def buffer(self) -> Buffer:
        self.expect("buffer")
        name = self.name()
        self.expect(":")
        dtype = self.dtype()
        shape, strides = self.extents(), None
        if self.accept("strides"):
            strides = self.extents()
        self.end()
        return Buffer(name, dtype, shape, strides)

    def extents(self) -> tuple[int, ...]:
        self.expect("[")
        values: list[int] = []
        if self.accept("]"):
            return ()
        values.append(0 if self.accept("*") else self.integer())
        while self.more("]"):
            values.append(self.integer())
        return tuple(values)

    def body(self, depth: int) -> Stmt:
        stmts = self.stmts(depth)
        return stmts[0] if len(stmts) == 1 else Block(tuple(stmts))

    def stmts(self, depth: int) -> list[Stmt]:
        if self.row == len(self.lines) or self.line.depth != depth:
            row = min(self.row, len(self.lines) - 1)
            raise ProgramError(
                f"line {self.lines[row].number}: expected a statement at depth {depth}"
            )
        if self.accept("pass"):
            self.end()
            return []
        stmts: list[Stmt] = []
        while self.row < len(self.lines) and self.line.depth == depth:
            stmts.append(self.stmt(depth))
        return stmts

    def stmt(self, depth: int) -> Stmt:
        if self.accept("block"):
            self.expect(":")
            self.end()
            return Block(tuple(self.stmts(depth + 1)))
        if self.peek() in ("for", "parallel"):
            return self.loop(depth)
        if self.accept("if"):
            cond = self.expr(0)
            self.expect(":")
            self.end()
            return If(cond, self.body(depth + 1))
        if self.accept("let"):
            name = self.name()
            self.expect("=")
            value = self.expr(0)
            deeper = self.accept(":")
            self.end()
            return Let(name, value, self.body(depth + deeper))
        buffer = self.name()
        indices = self.indices()
        self.expect("=")
        value = self.expr(0)
        self.end()
        return Store(buffer, indices, value)

    def loop(self, depth: int) -> Stmt:
        parallel = self.accept("parallel")
        self.expect("for")
        index = self.name()
        self.expect("in")
        start = self.expr(0)
        self.expect("..")
        stop = self.expr(0)
        self.expect(":")
        self.end()
        return For(index, start, stop, self.body(depth + 1), parallel)

    # --- expressions

    def indices(self) -> tuple[Expr, ...]:
        self.expect("[")
        if self.accept("]"):
            return ()
        indices = [self.expr(0)]
        while self.more("]"):
            indices.append(self.expr(0))
        return tuple(indices)

    def expr(self, least: int) -> Expr:
        left = self.operand()
        while (found := _OPERATORS.get(self.peek())) and found[1] >= least:
            op, level = found
            self.at += 1
            left = Binary(op, left, self.expr(level + 1))  # type: ignore[arg-type]
            if level == _COMPARISON:
                least = _COMPARISON + 1
        return left

    def operand(self) -> Expr:
        text = self.peek()
        if self.accept("("):
            inner = self.expr(0)
            self.expect(")")
            return inner
        if text == "-" or text[:1].isdigit() or text in ("inf", "nan"):
            return self.literal()
        if _TYPE.fullmatch(text):
            dtype = self.dtype()
            (a,) = self.arguments(1)
            return Cast(dtype, a)
        if text in _PREFIX:
            self.at += 1
            a, b = self.arguments(2)
            return Binary(text, a, b)  # type: ignore[arg-type]
        if self.accept("select"):
            cond, a, b = self.arguments(3)
            return Select(cond, a, b)
        if self.accept("sum"):
            return self.sum()
        function = text.removeprefix(_MATH)
        if function != text and function in MATH:
            self.at += 1
            return Math(function, tuple(self.arguments(MATH[function])))
        name = self.name()
        return Load(name, self.indices()) if self.peek() == "[" else Index(name)

    def arguments(self, count: int) -> list[Expr]:
        self.expect("(")
        arguments = [self.expr(0)]
        for _ in range(count - 1):
            self.expect(",")
            arguments.append(self.expr(0))
        self.expect(")")
        return arguments

    def sum(self) -> Expr:
        self.expect("[")
        axes: list[tuple[str, int]] = []
        while True:
            name = self.name()
            self.expect("<")
            axes.append((name, self.integer()))
            if not self.more("]"):
                break
        (body,) = self.arguments(1)
        return Sum(tuple(axes), body)

    def literal(self) -> Expr:
        sign = "-" if self.accept("-") else ""
        text = self.peek()
        if not (text[:1].isdigit() or text in ("inf", "nan")):
            raise self.fail("a number")
        self.at += 1
        dtype = I32
        if self.peek() == ":" and _TYPE.fullmatch(self.peek(1)):
            self.at += 1
            dtype = self.dtype()
        if dtype.kind == "f":
            return Const(float(sign + text), dtype)
        if not text.isdigit():
            self.at -= 1
            raise self.fail(f"an integer of {dtype}")
        return Const(int(sign + text), dtype)
