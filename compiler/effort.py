"""How long to search for schedules."""

from __future__ import annotations

from typing import Literal

Effort = Literal["fast", "default", "max"]
"""``fast`` tries few sizes, and no forms of a layer that take more instructions; ``default`` tries
parts of like size, and all forms; ``max`` tries all sizes, and rehearses the best few."""
EFFORTS: tuple[Effort, ...] = ("fast", "default", "max")
