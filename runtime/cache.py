"""Compiled networks on disk, found again by everything that decides their content."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..compiler.artifact import CompiledModel
from ..compiler.graph import Graph
from ..isa.config import AcceleratorConfig
from ..isa.errors import PackageError
from ..isa.kept import make_room, used
from ..isa.paths import sources_hash
from ..isa.spec import spec_hash
from ..sim.paths import cache_directory
from . import package


def path_of(sha256: str, config: AcceleratorConfig, options: str) -> Path:
    """Where the network of that file hash, compiled so, is or would be kept."""
    sources = sources_hash("isa", "compiler", "runtime")
    text = "\n".join((sha256, spec_hash(config), options, sources))
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    return cache_directory() / "networks" / f"{key}.weft"


def store(path: Path, model: CompiledModel, extra: dict[str, Any]) -> None:
    """Keep the model for the next time; a cache that cannot be written is no error."""
    with suppress(PackageError, OSError):
        package.save(model, path, extra)
        make_room(path.parent)


def load(path: Path, config: AcceleratorConfig, graph: Graph | None = None) -> CompiledModel | None:
    """The cached model, or None if there is none or it is damaged; with the ``graph`` that it was
    made from, that and the instructions are not read again."""
    if not path.exists():
        return None
    try:
        model = package.load(path, config, graph)[0]
    except PackageError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    used(path)
    return model
