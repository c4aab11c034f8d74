"""The contract between hardware and software: what an instruction is and what it does.

Configuration, encodings, meanings, registers and faults are each written here once; every other
room derives from them. This room is plain Python and numpy and imports nothing of ours.
"""

from .config import PRESETS, AcceleratorConfig
from .errors import (
    CompilerError,
    ConfigError,
    DataError,
    DeviceError,
    DeviceFault,
    DeviceTimeout,
    InputError,
    MismatchError,
    MissingToolError,
    ModelError,
    PackageError,
    ProgramError,
    UnsupportedError,
    WeftError,
)
from .faults import FaultCode
from .instructions import Instruction, InstructionSet
from .memories import Engine, MemoryType
from .operations import AluOpcode, Operation
from .spec import spec_hash

__all__ = [
    "PRESETS",
    "AcceleratorConfig",
    "AluOpcode",
    "CompilerError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DeviceFault",
    "DeviceTimeout",
    "Engine",
    "FaultCode",
    "InputError",
    "Instruction",
    "InstructionSet",
    "MemoryType",
    "MismatchError",
    "MissingToolError",
    "ModelError",
    "Operation",
    "PackageError",
    "ProgramError",
    "UnsupportedError",
    "WeftError",
    "spec_hash",
]
