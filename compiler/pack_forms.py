"""What becomes of a contraction's operands: how they are kept, and a nest that has them so."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..isa.nest import DType, Nest


@dataclass(frozen=True)
class Form:
    """How operands are kept.

    Attributes
    ----------
    rows, columns : DType
        Of their elements.
    group : int
        Neighbouring terms that are multiplied together.
    least : int
        What rows are less by.
    """

    rows: DType
    columns: DType
    group: int = 1
    least: int = 0


@dataclass(eq=False)
class Packed:
    """A nest with its operands made ready.

    Attributes
    ----------
    nest : Nest
        What to run.
    constants : dict
        Arrays that were packed, by buffer name.
    views : dict
        Buffers that are others' memory under a flat shape, to be read only.
    scratch : tuple of str
        Buffers that hold nothing before or after.
    """

    nest: Nest
    constants: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    views: dict[str, str] = field(default_factory=dict[str, str])
    scratch: tuple[str, ...] = ()
