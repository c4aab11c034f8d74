"""Random programs, legal and illegal, on every executor; what differs becomes a small test.

Everything that the generators know of operations, operands and memories comes from
:mod:`weft.isa`. A :class:`Session` is what a machine goes through, :func:`play` compares the
executors on it, a :class:`Campaign` searches for sessions on which they differ.
"""

from __future__ import annotations

from .campaign import Campaign, Report
from .executors import COMPARED, EXECUTORS
from .program import Program, program_of
from .session import Finding, Run, Session, play

__all__ = [
    "COMPARED",
    "EXECUTORS",
    "Campaign",
    "Finding",
    "Program",
    "Report",
    "Run",
    "Session",
    "play",
    "program_of",
]
