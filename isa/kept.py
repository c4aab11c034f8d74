"""Files that are kept for the next time: written all at once, and given up when they are many.

What a folder of a cache holds can be made again, so that it need not grow: whoever keeps a file
there gives up those that nobody has used for longest, as far as all together exceed a size. A
file's time of modification says when it was used last. What another process still has open or
mapped stays there for that process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LIMIT = 2 << 30
"""Bytes of all files in a folder."""


def keep(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file, which is there as a whole or not at all, and make room for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as file:
        for part in parts:
            file.write(part)
    partial.replace(path)
    make_room(path.parent)


def used(path: Path) -> None:
    """A file was found and is of use; no error if it cannot be told to the file."""
    with suppress(OSError):
        os.utime(path)


def make_room(folder: Path, limit: int | None = None) -> None:
    """Give up the files of a folder that were not used for longest, all but the latest one, until
    the rest has ``limit`` bytes, by default :data:`LIMIT`, at most."""
    found: list[tuple[int, int, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another process makes room, too
                if entry.is_file(follow_symlinks=False):
                    state = entry.stat(follow_symlinks=False)
                    found.append((state.st_mtime_ns, state.st_size, entry.path))
    found.sort(reverse=True)
    total = 0
    for k, (_, size, path) in enumerate(found):
        total += size
        if k and total > (LIMIT if limit is None else limit):
            with suppress(OSError):
                os.unlink(path)
