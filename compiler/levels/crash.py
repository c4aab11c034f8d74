"""What a pass leaves behind that crashes: a text from which it crashes again."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ...isa.errors import CompilerError, ProgramError, WeftError
from ...version import VERSION
from ..module import Module
from .text import format_module


@contextmanager
def leaving_a_reproduction(name: str, module: Module, folder: Path | None) -> Iterator[None]:
    """Around a pass that takes ``module``.

    An exception that is no complaint about the user's input becomes a :class:`CompilerError`,
    which names a file in ``folder``. Without a folder, it stays what it is.
    """
    try:
        yield
    except Exception as error:
        if folder is None or not _is_defect(error, module):
            raise
        path = _written(name, module, error, folder)
        raise CompilerError(
            f"a defect of Weft, please report it with {path}: pass {name!r} crashed with "
            f"{type(error).__name__}: {error}; again by: weft compile {path}"
        ) from error


def _is_defect(error: Exception, module: Module) -> bool:
    """A program that the pipeline itself has made is never the user's fault."""
    if isinstance(error, MemoryError):
        return False
    if isinstance(error, ProgramError):
        return module.level != "stream" or bool(module.groups)
    return not isinstance(error, WeftError)


def _written(name: str, module: Module, error: Exception, folder: Path) -> Path:
    """The path of the file, which is new or holds the same already."""
    text = _text(module)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = folder / f"weft-crash-{name}-{digest}.txt"
    first, _, rest = text.partition("\n")
    note = (
        f"# pass {name!r} crashed with {type(error).__name__}: {' '.join(str(error).split())}\n"
        f"# weft {VERSION}, Python {platform.python_version()}\n"
        f"# again: weft compile {path.name}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first}\n{note}{rest}")
    return path


def _text(module: Module) -> str:
    """The module as the pass saw it; what checks programs needs the schedule from which they are.

    Where the level itself cannot be written down, the graph is.
    """
    if module.level == "stream" and module.groups:
        module = replace(module, level="schedule", steps=(), constants=None)
    try:
        return format_module(module)
    except Exception:  # whatever broke the pass may have broken this, too
        return format_module(replace(module, level="graph"))
