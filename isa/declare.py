"""Instructions of one's own: declared with their meaning, and used wherever that fits."""

from __future__ import annotations

from . import operations
from .errors import ProgramError
from .formats import MATMUL
from .memories import Engine
from .operations import SELECTORS, LaneValue, Operation


def step(name: str, mode: int, value: LaneValue, summary: str = "") -> Operation:
    """An operation of the compute engine whose steps give every lane of ``acc[dst]`` a value.

    Parameters
    ----------
    name : str
        The mnemonic.
    mode : int
        Of MATMUL, from 0 to 7; one that no other operation has.
    value : callable
        (configuration, indices of the lanes) to the value, an expression over ``acc``, ``inp`` and
        ``wgt`` at ``dst``, ``src`` and ``wgt``.
    summary : str
        One line for the manual.
    """
    meaning = operations.step_meaning(MATMUL, name, value)
    return Operation(name, MATMUL, {"mode": mode}, Engine.COMPUTE, meaning, summary, "overwrite")


def declare(*added: Operation) -> None:
    """Add operations to every instruction set that this process makes from now on.

    Before anything is compiled or run: what has been derived of a configuration is kept.

    Raises
    ------
    ProgramError
        If a name or an encoding is taken, by whom, or an encoding does not exist.
    """
    for new in added:
        selectors = SELECTORS.get(new.format.name, ())
        for field in new.format.fields:
            value, bits = new.fixed.get(field.name, 0), field.width
            if isinstance(bits, int) and not 0 <= value < 1 << bits:
                raise ProgramError(f"{new.name}: there is no {field.name} {value}")
        for old in operations.OPERATIONS:
            if old.name == new.name:
                raise ProgramError(f"{new.name}: there is an operation of that name")
            same = all(old.fixed.get(name) == new.fixed.get(name) for name in selectors)
            if old.format is new.format and same:
                raise ProgramError(f"{new.name}: its encoding is that of {old.name}")
        operations.OPERATIONS = (*operations.OPERATIONS, new)
