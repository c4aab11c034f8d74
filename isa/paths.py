"""Where Weft keeps what it has built."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """``WEFT_CACHE``, else ``weft`` under ``XDG_CACHE_HOME`` or ``~/.cache``; may not exist yet."""
    chosen = os.environ.get("WEFT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weft"
