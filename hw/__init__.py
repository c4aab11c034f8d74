"""The accelerator in Amaranth: everything about it that is not already said by ``isa``.

Layouts, legality, lane arithmetic, registers and faults are derived from :mod:`weft.isa`; this
room adds time. It knows neither compiler nor simulators.

:class:`~weft.hw.accelerator.Accelerator` is the whole machine as a component, for those who build
it into something; :func:`~weft.hw.verilog.generate` is its Verilog, for all others.
"""

from __future__ import annotations

from .accelerator import Accelerator
from .form import Form
from .verilog import LINT_EXCEPTIONS, generate, lint_waivers

__all__ = ["LINT_EXCEPTIONS", "Accelerator", "Form", "generate", "lint_waivers"]
