"""What may differ between two builds of the accelerator, in real units."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from . import formats
from .errors import ConfigError

PAGE_BYTES = 4096
"""No element may be larger, and no AXI burst may cross a boundary of this size."""
QNT_LANE_BYTES = 16
"""One output channel's requantization parameters; see :data:`weft.isa.memories.QNT_LANE`."""


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Everything that may differ between two builds of the accelerator.

    Raises
    ------
    ConfigError
        At construction, if a value is out of range or the encodings cannot hold it.
    """

    block: int = 16
    """Rows and columns of the matrix unit: channels of an INP, WGT and ACC element."""
    batch: int = 1
    """Images that a step works on at once."""
    inp_width: int = 8
    """Bits of an input and of an output lane: 4 or 8."""
    wgt_width: int = 8
    """Bits of a weight: 4 or 8."""
    acc_width: int = 32
    """Bits of an accumulator; only 32."""
    uop_bytes: int = 32 * 1024
    """Size of the micro-op scratchpad."""
    inp_bytes: int = 32 * 1024
    """Size of the input scratchpad."""
    wgt_bytes: int = 256 * 1024
    """Size of the weight scratchpad."""
    acc_bytes: int = 128 * 1024
    """Size of the accumulator scratchpad."""
    qnt_bytes: int = 32 * 1024
    """Size of the scratchpad of requantization parameters; unused without ``requantize``."""
    bus_bytes: int = 16
    """Bytes of an AXI beat: 8 to 64."""
    token_depth: int = 255
    """Tokens that a dependence queue holds; a push to a full queue waits."""
    requantize: bool = True
    """Extension: parameter scratchpad, ALU SCALE and REQUANTIZE, STOREX."""
    pad_value: bool = True
    """Extension: LOADX, which loads any scratchpad beside the compute engine's work, and pads with
    a chosen value."""
    overwrite: bool = True
    """Extension: MATMUL, whose first mode starts a reduction by overwriting."""
    depthwise_taps: int = 3
    """Extension ``taps``: MATMUL's depthwise modes with so many a step, LOAD TAPS; 0 is without."""

    sliding_steps: bool = True
    """Extension ``sliding``: MATMUL's modes whose inputs begin at any lane of an element."""
    stores_inputs: bool = True
    """Extension ``keeping``: STOREX into the input scratchpad; for those with ``requantize``."""
    rounds_to_even: bool = True
    """Extension ``to_even``: parameters may ask for ONNX's rounding; for those with
    ``requantize``."""
    rescale_cycles: int = 1
    """Cycles that a vector takes where it is multiplied by 32-bit factors: in ALU operations that
    multiply, and on its way to DRAM or INP. If there is more than one, fewer lanes do that in turn,
    and the ALU's shifts as well."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise ConfigError(f"{field.name} must be true or false, not {value!r}")
            elif not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"{field.name} must be an integer, not {value!r}")
        for name, least, most in (
            ("block", 2, 64),
            ("batch", 1, 16),
            ("inp_width", 4, 8),
            ("wgt_width", 4, 8),
            ("acc_width", 32, 32),
            ("bus_bytes", 8, 64),
            ("rescale_cycles", 1, 8),
            ("uop_bytes", 64, 1 << 24),
            ("inp_bytes", 64, 1 << 24),
            ("wgt_bytes", 64, 1 << 24),
            ("acc_bytes", 64, 1 << 24),
            ("qnt_bytes", 64, 1 << 24),
        ):
            value = getattr(self, name)
            if value & (value - 1) or not least <= value <= most:
                raise ConfigError(
                    f"{name} must be a power of two from {least} to {most}, not {value}"
                )
        for name, least, most in (("token_depth", 1, 1 << 16), ("depthwise_taps", 0, 16)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name} must be from {least} to {most}, not {value}")
        if self.batch * self.block % self.rescale_cycles:
            raise ConfigError(
                f"rescale_cycles must divide a vector's {self.batch * self.block} lanes, "
                f"not be {self.rescale_cycles}"
            )
        for memory in ("inp", "wgt", "acc", "qnt"):
            element = getattr(self, f"{memory}_element_bytes")
            if element < 1 or element > PAGE_BYTES:
                raise ConfigError(
                    f"an element of {memory} has {element} bytes; it must have 1 to {PAGE_BYTES} "
                    f"(block {self.block}, batch {self.batch})"
                )
            if getattr(self, f"{memory}_bytes") < 2 * element and (
                memory != "qnt" or self.requantize
            ):
                raise ConfigError(
                    f"{memory}_bytes is {getattr(self, f'{memory}_bytes')}, which holds fewer than "
                    f"two elements of {element} bytes"
                )
        formats.check(self)

    # --- derived sizes -------------------------------------------------------------------------

    @property
    def out_width(self) -> int:
        """Bits of an output lane: those of an input lane."""
        return self.inp_width

    @property
    def uop_element_bytes(self) -> int:
        """Bytes of a micro-op."""
        return formats.UOP_BYTES

    @property
    def inp_element_bytes(self) -> int:
        """Bytes of an INP element, batch x block lanes."""
        return self.batch * self.block * self.inp_width // 8

    @property
    def wgt_element_bytes(self) -> int:
        """Bytes of a WGT element, block x block lanes."""
        return self.block * self.block * self.wgt_width // 8

    @property
    def acc_element_bytes(self) -> int:
        """Bytes of an ACC element, batch x block lanes."""
        return self.batch * self.block * self.acc_width // 8

    @property
    def acc8_element_bytes(self) -> int:
        """Bytes in DRAM of an ACC element that is loaded from one byte a lane."""
        return self.batch * self.block

    @property
    def out_element_bytes(self) -> int:
        """Bytes in DRAM of a stored element, batch x block lanes."""
        return self.batch * self.block * self.out_width // 8

    @property
    def qnt_element_bytes(self) -> int:
        """Bytes of a QNT element: the parameters of ``block`` channels."""
        return self.block * QNT_LANE_BYTES

    @property
    def uop_depth(self) -> int:
        """Micro-ops in their scratchpad."""
        return self.uop_bytes // self.uop_element_bytes

    @property
    def inp_depth(self) -> int:
        """Elements of the input scratchpad."""
        return self.inp_bytes // self.inp_element_bytes

    @property
    def wgt_depth(self) -> int:
        """Elements of the weight scratchpad."""
        return self.wgt_bytes // self.wgt_element_bytes

    @property
    def acc_depth(self) -> int:
        """Elements of the accumulator scratchpad."""
        return self.acc_bytes // self.acc_element_bytes

    @property
    def qnt_depth(self) -> int:
        """Elements of the parameter scratchpad; 0 without ``requantize``."""
        return self.qnt_bytes // self.qnt_element_bytes if self.requantize else 0

    @property
    def uop_index_bits(self) -> int:
        """Bits of a micro-op index."""
        return (self.uop_depth - 1).bit_length()

    @property
    def inp_index_bits(self) -> int:
        """Bits of an INP index."""
        return (self.inp_depth - 1).bit_length()

    @property
    def wgt_index_bits(self) -> int:
        """Bits of a WGT index."""
        return (self.wgt_depth - 1).bit_length()

    @property
    def acc_index_bits(self) -> int:
        """Bits of an ACC index."""
        return (self.acc_depth - 1).bit_length()

    @property
    def qnt_index_bits(self) -> int:
        """Bits of a QNT index; at least 1."""
        return max(1, (self.qnt_depth - 1).bit_length())

    @property
    def deepest(self) -> str:
        """The scratchpad with the most elements."""
        names = ("uop", "inp", "wgt", "acc", "qnt")
        return max(names, key=lambda name: getattr(self, f"{name}_depth"))

    @property
    def greatest_index_bits(self) -> int:
        """Bits that the deepest scratchpad's index needs."""
        return getattr(self, f"{self.deepest}_index_bits")

    @property
    def depths_text(self) -> str:
        """The scratchpads' depths, for messages."""
        return (
            f"uop {self.uop_depth}, inp {self.inp_depth}, wgt {self.wgt_depth}, "
            f"acc {self.acc_depth}, qnt {self.qnt_depth} elements"
        )

    @property
    def taps(self) -> int:
        """Neighbouring elements that a depthwise step reads; 0 if there are no such steps.

        A tap is a row of a WGT element, which has ``block`` of them; the encoding is MATMUL's,
        which comes with ``overwrite``.
        """
        return min(self.depthwise_taps, self.block) if self.overwrite else 0

    @property
    def sliding(self) -> bool:
        """Whether there are steps whose inputs begin at any lane; their encoding is MATMUL's."""
        return self.sliding_steps and self.overwrite

    @property
    def keeping(self) -> bool:
        """Whether results may stay on chip as inputs; their encoding is STOREX's."""
        return self.stores_inputs and self.requantize

    @property
    def to_even(self) -> bool:
        """Whether requantization may round ties to even; its parameters say so."""
        return self.rounds_to_even and self.requantize

    @property
    def neighbours(self) -> int:
        """Consecutive INP elements that a step may read, at least 1."""
        return max(1, self.taps, 2 if self.sliding else 1)

    @property
    def rescale_lanes(self) -> int:
        """Lanes that a cycle multiplies by 32-bit factors."""
        return self.batch * self.block // self.rescale_cycles

    @property
    def peak_macs(self) -> int:
        """Multiply-accumulates a cycle with every lane busy."""
        return self.batch * self.block * self.block

    # --- in and out ----------------------------------------------------------------------------

    @classmethod
    def preset(cls, name: str) -> AcceleratorConfig:
        """The preset of that name; :class:`ConfigError` lists the names if there is none."""
        if not isinstance(name, str) or name not in PRESETS:
            raise ConfigError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
        return PRESETS[name]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = "config") -> AcceleratorConfig:
        """A configuration from plain keys; ``extends`` names the preset that the rest changes.

        ``where`` stands before a message (the file's name).
        """
        values = dict(values)
        base = cls.preset(values.pop("extends", "base"))
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                close = get_close_matches(key, known, 1)
                hint = (
                    f", did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
                )
                raise ConfigError(f"{where}: unknown key {key!r}{hint}")
        try:
            return replace(base, **values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @classmethod
    def from_toml(cls, path: str | Path) -> AcceleratorConfig:
        """A configuration from a TOML file; see :meth:`from_mapping` for its keys."""
        try:
            text = Path(path).read_bytes().decode()
            return cls.from_mapping(tomllib.loads(text), where=str(path))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from None

    @classmethod
    def from_vta(cls, mapping: Mapping[str, int]) -> AcceleratorConfig:
        """Plain VTA with the sizes of VTA's own JSON keys, all base-2 logarithms.

        Keys that describe the host or the board (``TARGET``, ``HW_VER``) are ignored; others
        that are unknown or missing raise :class:`ConfigError`.
        """
        rest = {k: v for k, v in mapping.items() if k not in ("TARGET", "HW_VER")}
        values: dict[str, Any] = {}
        for key, name in _VTA_KEYS.items():
            exponent = rest.pop(key, None)
            if not isinstance(exponent, int) or not 0 <= exponent < 32:
                raise ConfigError(f"{key} must be a base-2 logarithm from 0 to 31, not {exponent}")
            values[name] = 1 << exponent
        out_exponent = rest.pop("LOG_OUT_WIDTH", mapping["LOG_INP_WIDTH"])
        if out_exponent != mapping["LOG_INP_WIDTH"]:
            raise ConfigError("LOG_OUT_WIDTH must equal LOG_INP_WIDTH")
        if rest:
            raise ConfigError(f"unknown VTA keys: {', '.join(sorted(rest))}")
        return cls(**values, bus_bytes=8, requantize=False, pad_value=False, overwrite=False)

    def to_mapping(self) -> dict[str, int | bool]:
        """Every field, for JSON; :meth:`from_mapping` reads it back."""
        return asdict(self)

    def to_toml(self) -> str:
        """Every field as TOML, with its unit and meaning left to the documentation."""
        return "".join(
            f"{key} = {str(value).lower()}\n" for key, value in self.to_mapping().items()
        )


_VTA_KEYS = {
    "LOG_INP_WIDTH": "inp_width",
    "LOG_WGT_WIDTH": "wgt_width",
    "LOG_ACC_WIDTH": "acc_width",
    "LOG_BATCH": "batch",
    "LOG_BLOCK": "block",
    "LOG_UOP_BUFF_SIZE": "uop_bytes",
    "LOG_INP_BUFF_SIZE": "inp_bytes",
    "LOG_WGT_BUFF_SIZE": "wgt_bytes",
    "LOG_ACC_BUFF_SIZE": "acc_bytes",
}

KIB = 1024
BASE = AcceleratorConfig()
VTA = replace(BASE, bus_bytes=8)
EDGE = replace(
    VTA,
    block=8,
    uop_bytes=16 * KIB,
    inp_bytes=16 * KIB,
    wgt_bytes=64 * KIB,
    acc_bytes=32 * KIB,
    qnt_bytes=16 * KIB,
    rescale_cycles=4,
    rounds_to_even=False,
)
TINY = replace(
    VTA,
    block=4,
    uop_bytes=4 * KIB,
    inp_bytes=4 * KIB,
    wgt_bytes=8 * KIB,
    acc_bytes=8 * KIB,
    qnt_bytes=4 * KIB,
)
BIG = replace(
    BASE,
    block=32,
    bus_bytes=32,
    inp_bytes=64 * KIB,
    wgt_bytes=512 * KIB,
    acc_bytes=256 * KIB,
    qnt_bytes=64 * KIB,
)
PRESETS = {"tiny": TINY, "edge": EDGE, "vta": VTA, "base": BASE, "big": BIG}
"""The named configurations, smallest first."""
