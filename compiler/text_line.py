"""One line of a text format, taken apart from the left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ..isa.errors import ModelError

T = TypeVar("T")

PLAIN = re.compile(r"[A-Za-z0-9_.:/;][A-Za-z0-9_.:/;-]*(?<!:)")
"""A name that needs no quotes; it does not end in a colon."""
TOKEN = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z0-9_.:/;+-]+?(?=:?(?:[\s,()\[\]=]|$))|[,()\[\]=:])'
)
"""A quoted name, a word (which does not end in a colon), or a mark."""
DECIMAL = re.compile(r"-?[0-9]{1,20}")
REAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|inf|nan)")


class Line:
    """The tokens of one line, taken from the left."""

    def __init__(self, number: int, text: str):
        self.number = number
        self.indented = text[:1].isspace()
        self.tokens: list[str] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = TOKEN.match(text, at)
            if match is None:
                self.fail(f"cannot read {text[at : at + 40].strip()!r}")
            self.tokens.append(match[1])
            at = match.end()
        self._at = 0

    def fail(self, message: str) -> NoReturn:
        """Refuse the text because of this line."""
        raise ModelError(f"line {self.number}: {message}")

    @property
    def next(self) -> str:
        """The next token; empty at the end of the line."""
        return self.tokens[self._at] if self._at < len(self.tokens) else ""

    def take(self) -> str:
        """The next token, consumed."""
        token = self.next
        self._at += 1
        return token

    def skip(self, mark: str) -> bool:
        """Whether the next token is ``mark``, which is consumed."""
        if self.next != mark:
            return False
        self._at += 1
        return True

    def expect(self, mark: str) -> None:
        """Consume ``mark``; nothing else may stand here. Empty is the end of the line."""
        token = self.take()
        if token != mark:
            self.fail(f"expected {mark or 'nothing more'!r}, not {token!r}")

    def name(self) -> str:
        """A plain or quoted name."""
        token = self.take()
        if token.startswith('"'):
            try:
                return str(json.loads(token))
            except ValueError:
                self.fail(f"a name in quotes as in JSON is expected, not {token}")
        if not PLAIN.fullmatch(token):
            self.fail(f"expected a name, not {token!r}")
        return token

    def integer(self) -> int:
        """A decimal integer."""
        token = self.take()
        if not DECIMAL.fullmatch(token):
            self.fail(f"expected an integer, not {token!r}")
        return int(token)

    def real(self) -> float:
        """A floating-point number."""
        token = self.take()
        if not REAL.fullmatch(token):
            self.fail(f"expected a number, not {token!r}")
        return float(token)

    def several(self, item: Callable[[], T], end: str = "") -> tuple[T, ...]:
        """Items with commas between them; none where ``end`` follows at once."""
        if end and self.next == end:
            return ()
        items = [item()]
        while self.skip(","):
            items.append(item())
        return tuple(items)
