"""Where Weft keeps what it has built, and what its own sources are."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path


def cache_directory() -> Path:
    """``WEFT_CACHE``, else ``weft`` under ``XDG_CACHE_HOME`` or ``~/.cache``; may not exist yet."""
    chosen = os.environ.get("WEFT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weft"


@cache
def sources_hash(*rooms: str) -> str:
    """Of all sources of some rooms: what an edited compiler finds in a cache is its own."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for room in rooms:
        for folder, folders, names in os.walk(root / room):
            folders.sort()
            for name in sorted(names):
                if name.endswith(".py"):
                    with open(f"{folder}/{name}", "rb") as source:
                        text = source.read()
                    digest.update(f"{name} {len(text)}\n".encode())
                    digest.update(text)
    return digest.hexdigest()
