"""Where what simulators need is kept; see :mod:`weft.isa.paths`."""

from __future__ import annotations

from ..isa.paths import cache_directory

__all__ = ["cache_directory"]
