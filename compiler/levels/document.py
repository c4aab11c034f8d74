"""A text under headings, and fields of which the values are JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ...isa.errors import ModelError, ProgramError
from ..artifact import Search
from ..text_line import PLAIN, Line

HEADING = "== "
LARGEST = 1 << 63
"""No integer of a field reaches it, up or down."""


def quoted(name: str) -> str:
    """A name as it stands in a heading."""
    return name if PLAIN.fullmatch(name) else json.dumps(name)


def field_lines(fields: Mapping[str, object]) -> Iterator[str]:
    """A line for each field."""
    for key, value in fields.items():
        yield f"{key} {json.dumps(value)}"


@dataclass(frozen=True, eq=False)
class Section:
    """What stands under a heading; ``heading`` has the tokens after its kind."""

    kind: str
    heading: Line
    lines: list[tuple[int, str]]

    @property
    def number(self) -> int:
        """The heading's line."""
        return self.heading.number

    def fail(self, message: str) -> NoReturn:
        """Refuse the text because of this section."""
        raise ModelError(f"line {self.number}: {message}")

    def text(self, *prefixes: str) -> tuple[int, str]:
        """The rest from the first line on that starts with one of ``prefixes``, and its number."""
        for i, (number, line) in enumerate(self.lines):
            if line.startswith(prefixes):
                return number, "".join(f"{text}\n" for _, text in self.lines[i:])
        return self.number, ""


def sections(text: str) -> tuple[list[tuple[int, str]], list[Section]]:
    """The lines before the first heading, and what stands under each."""
    head: list[tuple[int, str]] = []
    found: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(HEADING):
            heading = Line(number, line.removeprefix(HEADING))
            found.append(Section(heading.take(), heading, []))
        elif line.strip() and not line.startswith("#"):
            (found[-1].lines if found else head).append((number, line))
        elif found:
            found[-1].lines.append((number, ""))
    return head, found


class Fields:
    """Lines ``key JSON``; every one must be taken, and no other may be there.

    Parameters
    ----------
    lines : iterable of (int, str)
        With their numbers; those that are empty are skipped.
    number : int
        Of the line that complaints about missing fields name.
    """

    def __init__(self, lines: Iterable[tuple[int, str]], number: int):
        self.number = number
        self._found: dict[str, tuple[int, Any]] = {}
        for at, line in lines:
            if not line:
                continue
            key, _, value = line.partition(" ")
            if key in self._found:
                raise ModelError(f"line {at}: {key!r} is given twice")
            try:
                self._found[key] = at, json.loads(value, parse_constant=_no_number)
            except (ValueError, RecursionError):
                raise ModelError(
                    f"line {at}: expected a name and a value in JSON, not {line[:40]!r}"
                ) from None

    @classmethod
    def of(cls, mapping: Mapping[str, Any], number: int) -> Fields:
        """The fields of a mapping that is the value of a field."""
        made = cls((), number)
        made._found = {key: (number, value) for key, value in mapping.items()}
        return made

    def fail(self, key: str, wanted: str) -> NoReturn:
        """Refuse a field."""
        number, value = self._found.get(key, (self.number, None))
        came = f", not {value!r:.40}" if key in self._found else "; it is missing"
        raise ModelError(f"line {number}: expected {key} as {wanted}{came}")

    def has(self, key: str) -> bool:
        """Whether that field is there."""
        return key in self._found

    def _take(self, key: str) -> Any:
        number, value = self._found.pop(key)
        self.number = number
        return value

    def text(self, key: str) -> str:
        """A text."""
        if not isinstance(self._found.get(key, (0, None))[1], str):
            self.fail(key, "a text in quotes")
        return str(self._take(key))

    def truth(self, key: str) -> bool:
        """True or false."""
        if not isinstance(self._found.get(key, (0, None))[1], bool):
            self.fail(key, "true or false")
        return bool(self._take(key))

    def integer(self, key: str, least: int = -LARGEST, most: int = LARGEST) -> int:
        """A number without a fraction, within limits."""
        if not _is_integer(self._found.get(key, (0, None))[1], least, most):
            self.fail(key, "an integer" + (f" from {least} on" if least != -LARGEST else ""))
        return int(self._take(key))

    def integers(
        self, key: str, count: int | None = None, least: int = -LARGEST
    ) -> tuple[int, ...]:
        """A list of numbers."""
        value = self._found.get(key, (0, None))[1]
        if (
            not isinstance(value, list)
            or not all(_is_integer(item, least, LARGEST) for item in value)
            or count not in (None, len(value))
        ):
            size = "" if count is None else f"{count} "
            self.fail(key, f"a list of {size}integers")
        return tuple(self._take(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._found.get(key, (0, None))[1]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(key, "a list of texts in quotes")
        return tuple(self._take(key))

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping, of which nothing is known but that its keys are texts."""
        if not isinstance(self._found.get(key, (0, None))[1], dict):
            self.fail(key, "a mapping")
        return dict(self._take(key))

    def end(self, *known: str) -> None:
        """Refuse what has not been taken."""
        for key, (number, _) in self._found.items():
            raise ModelError(
                f"line {number}: expected {', '.join(known) or 'nothing'}, not {key!r}"
            )


def search_of(section: Section, fields: Fields) -> Search | None:
    """What the choices of a layer were preferred to, if that is told."""
    if not fields.has("search"):
        return None
    try:
        return Search.of(fields.mapping("search"))
    except ValueError as error:
        section.fail(str(error))


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _is_integer(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


_LINE = re.compile(r"line (\d+): ")


def shifted(error: ModelError | ProgramError, by: int) -> ModelError:
    """The complaint of a parser that saw the text from line ``by + 1`` on."""
    text = str(error)
    match = _LINE.match(text)
    if match is None:
        return ModelError(f"line {by + 1}: {text}")
    return ModelError(f"line {int(match[1]) + by}: {text[match.end() :]}")
