"""Every exception that a user of Weft can meet.

::

    WeftError
    |-- InputError                 exit code 2: what the user gave is wrong
    |   |-- ConfigError            a hardware parameter
    |   |-- ProgramError           an instruction stream or its assembly text
    |   |-- ModelError             a model file, malformed or truncated
    |   |   `-- UnsupportedError   a valid model that neither accelerator nor host can run
    |   |-- DataError              an array or file of samples of the wrong shape or type
    |   `-- PackageError           a compiled package, damaged or made for other hardware
    |-- MismatchError              exit code 1: results that should be equal are not
    |-- MissingToolError           exit code 3: a C++ compiler, Verilator or an extra
    |-- CompilerError              exit code 70: a pass crashed; a file reproduces it
    `-- DeviceError                exit code 4: the device stopped
        |-- DeviceFault            it says which instruction, which engine and why
        `-- DeviceTimeout          the cycle limit of the caller was reached
"""

from __future__ import annotations


class WeftError(Exception):
    """Base of every exception of ours; ``exit_code`` is what the command line returns."""

    exit_code = 2


class InputError(WeftError):
    """What the user gave is malformed or does not fit."""


class ConfigError(InputError):
    """A hardware parameter is unknown, out of range or does not fit the encodings."""


class ProgramError(InputError):
    """An instruction stream or an assembly text is malformed."""


class ModelError(InputError):
    """A model file is malformed, truncated or inconsistent."""


class UnsupportedError(ModelError):
    """A valid model holds operators that neither the accelerator nor the host can run."""


class DataError(InputError):
    """Samples have the wrong shape, type or key."""


class PackageError(InputError):
    """A compiled package is damaged or was made for other hardware."""


class MismatchError(WeftError):
    """Two results that should be equal are not."""

    exit_code = 1


class MissingToolError(WeftError):
    """A tool or an optional package that this needs is not installed."""

    exit_code = 3


class CompilerError(WeftError):
    """A pass of the compiler crashed, which is a defect; the message names what reproduces it."""

    exit_code = 70


class DeviceError(WeftError):
    """A device stopped before its program was finished."""

    exit_code = 4


class DeviceFault(DeviceError):
    """The device stopped itself.

    Attributes
    ----------
    code : int
        A :class:`weft.isa.FaultCode`.
    engine : str
        The engine that found the fault: ``fetch``, ``load``, ``compute`` or ``store``.
    index : int
        Position of the instruction in the stream, from 0.
    waiting : tuple of str
        For a deadlock, the engines that wait, and for whose token.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int,
        engine: str,
        index: int,
        waiting: tuple[str, ...] = (),
    ):
        super().__init__(message)
        self.code = code
        self.engine = engine
        self.index = index
        self.waiting = waiting


class DeviceTimeout(DeviceError):
    """The limit of cycles that the caller gave was reached before FINISH."""
