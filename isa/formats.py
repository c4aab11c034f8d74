"""Instruction formats: which field stands at which bits, as a function of the configuration.

An instruction has 128 bits, two little-endian 64-bit words. VTA's packing rule, that of a C
compiler's bit-fields, places the fields in order from bit 0; one that would cross bit 64 moves
to bit 64. Only that rule is normative: widths follow from the depths of the scratchpads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from .errors import ConfigError, ProgramError

if TYPE_CHECKING:
    from .config import AcceleratorConfig

INSTRUCTION_BITS = 128
INSTRUCTION_BYTES = INSTRUCTION_BITS // 8
WORD_BITS = 64
UOP_BITS = 32
UOP_BYTES = UOP_BITS // 8
LOOP_BITS = 14
"""Width of the loop counts of GEMM and ALU."""

Width = Callable[["AcceleratorConfig"], int]


@dataclass(frozen=True)
class Field:
    """A named run of bits; ``width`` is a number or follows from the configuration."""

    name: str
    width: int | Width
    doc: str
    signed: bool = False

    def width_for(self, config: AcceleratorConfig) -> int:
        """Width in bits under ``config``."""
        return self.width if isinstance(self.width, int) else self.width(config)


@dataclass(frozen=True)
class Slot:
    """Where a field stands: ``width`` bits from bit ``lsb`` on."""

    name: str
    lsb: int
    width: int
    signed: bool

    @property
    def least(self) -> int:
        """The least value that the field holds."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def greatest(self) -> int:
        """The greatest value that the field holds."""
        return (1 << (self.width - self.signed)) - 1


@dataclass(frozen=True)
class Layout:
    """A format under one configuration."""

    name: str
    bits: int
    slots: tuple[Slot, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Slot]:
        """The slots by their fields' names."""
        return {slot.name: slot for slot in self.slots}

    @cached_property
    def _limits(self) -> Mapping[str, tuple[int, int, int, int]]:
        """Of each field where it stands, its mask, its least and its greatest value."""
        return {s.name: (s.lsb, (1 << s.width) - 1, s.least, s.greatest) for s in self.slots}

    def encode(self, values: Mapping[str, int]) -> int:
        """The bits of ``values``; fields left out are 0.

        Raises
        ------
        ProgramError
            For a field that the format does not have, or a value that its field cannot hold.
        """
        word = 0
        for name, value in values.items():
            limits = self._limits.get(name)
            if limits is None:
                raise ProgramError(f"{self.name} has no field {name!r}")
            lsb, mask, least, greatest = limits
            if not least <= value <= greatest:
                raise ProgramError(f"{self.name}.{name} holds {least} to {greatest}, not {value}")
            word |= (value & mask) << lsb
        return word

    def decode(self, word: int) -> dict[str, int]:
        """Every field of ``word``; bits outside the fields are ignored."""
        values: dict[str, int] = {}
        for slot in self.slots:
            value = (word >> slot.lsb) & ((1 << slot.width) - 1)
            if slot.signed and value >> (slot.width - 1):
                value -= 1 << slot.width
            values[slot.name] = value
        return values


@dataclass(frozen=True)
class Format:
    """The fields of one kind of instruction, in VTA's order."""

    name: str
    opcode: int
    fields: tuple[Field, ...]
    doc: str
    extension: str | None = None
    """The configuration's switch that admits this format; None for VTA's own."""

    def layout(self, config: AcceleratorConfig) -> Layout:
        """Where the fields stand; :class:`ConfigError` names the first that does not fit."""
        return _pack(self.name, HEAD + self.fields, config, INSTRUCTION_BITS)


@lru_cache(maxsize=4096)
def _pack(name: str, fields: tuple[Field, ...], config: AcceleratorConfig, bits: int) -> Layout:
    slots: list[Slot] = []
    at = 0
    for field in fields:
        width = field.width_for(config)
        if at < WORD_BITS < at + width:
            at = WORD_BITS
        if at + width > bits:
            raise ConfigError(
                f"{name}.{field.name} needs {width} bits from bit {at} on, but the encoding ends "
                f"at bit {bits}; smaller uop_bytes, inp_bytes, wgt_bytes or acc_bytes make the "
                f"fields shorter ({config.depths_text})"
            )
        slots.append(Slot(field.name, at, width, field.signed))
        at += width
    return Layout(name, bits, tuple(slots))


# --- the tables ----------------------------------------------------------------------------------
# fmt: off

OPCODE_BITS = 3
HEAD = (
    Field("opcode",    OPCODE_BITS, "which format"),
    Field("pop_prev",  1, "first wait for a token from the previous engine"),
    Field("pop_next",  1, "first wait for a token from the next engine"),
    Field("push_prev", 1, "after completion send a token to the previous engine"),
    Field("push_next", 1, "after completion send a token to the next engine"),
)
FLAGS = tuple(field.name for field in HEAD[1:])
"""The dependence flags, in the order of their bits."""
FLAG_BITS = {name: 1 << OPCODE_BITS + number for number, name in enumerate(FLAGS)}
"""Where each stands in an instruction word."""


def _uop(c: AcceleratorConfig) -> int: return c.uop_index_bits
def _uop_end(c: AcceleratorConfig) -> int: return c.uop_index_bits + 1
def _inp(c: AcceleratorConfig) -> int: return c.inp_index_bits
def _wgt(c: AcceleratorConfig) -> int: return c.wgt_index_bits
def _acc(c: AcceleratorConfig) -> int: return c.acc_index_bits
def _qnt(c: AcceleratorConfig) -> int: return c.qnt_index_bits
def _src(c: AcceleratorConfig) -> int: return max(c.acc_index_bits, c.inp_index_bits)
def _inp_lane(c: AcceleratorConfig) -> int: return c.inp_width


UOP_FIELDS = (
    Field("dst", _acc, "accumulator index"),
    Field("src", _src, "input index (GEMM) or accumulator or parameter index (ALU)"),
    Field("wgt", _wgt, "weight index (GEMM); unused by ALU"),
)

_BOX = (
    Field("y_size",   16, "rows"),
    Field("x_size",   16, "elements in a row; 0 makes a pure carrier of tokens"),
    Field("x_stride", 16, "elements from one row to the next in DRAM"),
    Field("y_pad_0",   4, "rows of padding before"),
    Field("y_pad_1",   4, "rows of padding after"),
    Field("x_pad_0",   4, "elements of padding before each row"),
    Field("x_pad_1",   4, "elements of padding after each row"),
)
_MOVE = (
    Field("memory_type", 3, "which scratchpad"),
    Field("sram_base",  16, "first element in the scratchpad"),
    Field("dram_base",  32, "first element in DRAM; byte address / element bytes"),
    Field("unused",      6, "ignored"),
    *_BOX,
)
def _nest(loop_bits: int) -> tuple[Field, ...]:
    return (
        Field("uop_bgn",  _uop,      "first micro-op"),
        Field("uop_end",  _uop_end,  "one past the last micro-op"),
        Field("iter_out", loop_bits, "trips of the outer loop"),
        Field("iter_in",  loop_bits, "trips of the inner loop"),
        Field("dst_factor_out", _acc, "added to dst on each outer trip"),
        Field("dst_factor_in",  _acc, "added to dst on each inner trip"),
    )
_GEMM_FACTORS = (
    Field("src_factor_out", _inp, "added to src on each outer trip"),
    Field("src_factor_in",  _inp, "added to src on each inner trip"),
    Field("wgt_factor_out", _wgt, "added to wgt on each outer trip"),
    Field("wgt_factor_in",  _wgt, "added to wgt on each inner trip"),
)

LOAD = Format("LOAD", 0, _MOVE, "moves a padded 2-D box from DRAM to a scratchpad")
STORE = Format("STORE", 1, _MOVE, "moves the low bits of accumulators to DRAM")
GEMM = Format("GEMM", 2, (
    Field("reset", 1, "write zeros instead of multiplying"),
    *_nest(LOOP_BITS), *_GEMM_FACTORS,
), "multiplies inputs by weights and adds to accumulators")
FINISH = Format("FINISH", 3, (), "ends the program")
ALU = Format("ALU", 4, (
    Field("unused", 1, "ignored; where GEMM has reset"),
    *_nest(LOOP_BITS),
    Field("src_factor_out", _acc, "added to src on each outer trip"),
    Field("src_factor_in",  _acc, "added to src on each inner trip"),
    Field("alu_opcode", 3, "which operation"),
    Field("use_imm",    1, "the second operand is imm"),
    Field("imm",       16, "immediate operand", signed=True),
), "combines accumulators lane by lane")

# Weft's own. A field `reserved` must be 0; it is room for what comes later.
MATMUL = Format("MATMUL", 5, (
    Field("mode", 3, "what a step does: 0 a product; 2 depthwise, 4 sliding; 3, 5 add"),
    *_nest(LOOP_BITS - 1), *_GEMM_FACTORS,
), "a GEMM whose steps follow a mode", "overwrite")
LOADX = Format("LOADX", 6, (
    Field("memory_type", 3, "which scratchpad"),
    Field("sram_base",  14, "first element in the scratchpad"),
    Field("dram_base",  32, "first element in DRAM; byte address / element bytes"),
    Field("pad_value", _inp_lane, "what every lane of the padding holds", signed=True),
    Field("y_size",   14, "rows"),
    Field("x_size",   14, "elements in a row; 0 makes a pure carrier of tokens"),
    *_BOX[2:],
    Field("reserved",  4, "0"),
), "a LOAD by the load engine, whatever the scratchpad, that pads with a chosen value", "pad_value")
STOREX = Format("STOREX", 7, (
    Field("memory_type", 3, "where to: 4 DRAM, 2 inp"),
    Field("sram_base",  14, "first accumulator"),
    Field("dram_base",  32, "first element there; in DRAM byte address / element bytes"),
    Field("reserved",    8, "0"),
    Field("y_size",     14, "rows"),
    Field("x_size",     14, "elements in a row; 0 makes a pure carrier of tokens"),
    Field("x_stride",   16, "elements from one row to the next there"),
    Field("qnt_base", _qnt, "parameters of the first row"),
    Field("qnt_step",    1, "added to the parameters' index after each row"),
), "requantizes accumulators on their way to DRAM or inp", "requantize")

FORMATS = (LOAD, STORE, GEMM, FINISH, ALU, MATMUL, LOADX, STOREX)
# fmt: on


def enabled(config: AcceleratorConfig) -> tuple[Format, ...]:
    """The formats that ``config`` admits, by opcode."""
    return tuple(f for f in FORMATS if f.extension is None or getattr(config, f.extension))


def uop_layout(config: AcceleratorConfig) -> Layout:
    """The fields of a micro-op, 32 bits."""
    return _pack("UOP", UOP_FIELDS, config, UOP_BITS)


def check(config: AcceleratorConfig) -> None:
    """:class:`ConfigError` if an encoding cannot hold ``config``, naming the field."""
    uop_layout(config)
    for format in enabled(config):
        layout = format.layout(config)
        base = layout.by_name.get("sram_base")
        if base is not None and base.width < config.greatest_index_bits:
            raise ConfigError(
                f"{format.name}.sram_base has {base.width} bits, but a scratchpad needs "
                f"{config.greatest_index_bits}; make {config.deepest}_bytes smaller "
                f"({config.depths_text})"
            )
