"""Every operation of the instruction set, with its encoding and its meaning, written once.

An :class:`Operation` is a format with some of its fields fixed (``gemm.reset`` is GEMM with
``reset`` = 1) and a meaning: a loop nest over the scratchpads and DRAM. Encoding, assembly,
manual, golden model, functional simulator and the compiler's intrinsics are derived from this
table; the hardware takes its layouts and its lane arithmetic from it.

Indices of scratchpads are checked against their depth when, and only when, the meaning accesses
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

from . import formats
from .formats import FLAGS, Format
from .memories import MEMORIES, Engine, Memory, MemoryType, qnt_views
from .nest import (
    I64,
    Binary,
    Block,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    If,
    Index,
    Let,
    Load,
    Nest,
    Select,
    Stmt,
    Store,
    Sum,
    expr,
    maximum,
    minimum,
)
from .requantize import requantize, rescale

if TYPE_CHECKING:
    from .config import AcceleratorConfig

Meaning = Callable[["AcceleratorConfig"], Nest]


@dataclass(frozen=True)
class Operation:
    """One thing that the machine can do.

    Attributes
    ----------
    name : str
        The mnemonic: ``load.inp``, ``gemm.reset``, ``alu.add.imm``.
    format : Format
        Its encoding.
    fixed : mapping
        The fields that select it within the format.
    engine : Engine
        Who executes it.
    meaning : callable
        Configuration to loop nest; the nest's parameters are the format's other fields.
    summary : str
        One line for the manual.
    extension : str or None
        The configuration's switch that admits it; None for VTA's own.
    """

    name: str
    format: Format
    fixed: Mapping[str, int]
    engine: Engine
    meaning: Meaning
    summary: str
    extension: str | None = None

    @cached_property
    def moved(self) -> Memory | None:
        """The memory between which and DRAM it moves boxes; None if it does not."""
        from .config import AcceleratorConfig

        buffers = self.meaning(AcceleratorConfig()).buffers
        in_dram = any(buffer.name.startswith("dram.") for buffer in buffers)
        return MEMORIES[MemoryType(self.fixed["memory_type"])] if in_dram else None


# --- the walks -----------------------------------------------------------------------------------


def _box(
    format: Format, config: AcceleratorConfig, name: str, buffers: tuple[Buffer, ...], row: Stmt
) -> Nest:
    """``row`` with ``y`` bound to each row of a box; nothing where ``x_size`` is 0."""
    params = params_of(format, config)
    pads = "y_pad_0" in params
    rows = Index("y_pad_0") + Index("y_size") + Index("y_pad_1") if pads else Index("y_size")
    body = If(Binary("ne", Index("x_size"), expr(0)), For("y", expr(0), rows, row))
    return Nest(name, params, buffers, body)


def _lanes(
    extents: tuple[int, ...], body: Callable[[tuple[Expr, ...]], Stmt], names: str = "boc"
) -> Stmt:
    """``body`` for every lane of an element, in parallel; ``names`` has one letter an axis."""
    indices = tuple(Index(name) for name in names[: len(extents)])
    stmt = body(indices)
    for index, extent in reversed(list(zip(indices, extents, strict=True))):
        stmt = For(index.name, expr(0), expr(extent), stmt, parallel=True)
    return stmt


def _load(memory: Memory, format: Format) -> Meaning:
    def meaning(config: AcceleratorConfig) -> Nest:
        sram, dram = memory.sram(config), memory.dram(config)
        y, x = Index("y"), Index("x")
        columns = Index("x_pad_0") + Index("x_size") + Index("x_pad_1")
        from_y, from_x = y - Index("y_pad_0"), x - Index("x_pad_0")
        inside = (
            (expr(0) <= from_y)
            & (from_y < Index("y_size"))
            & (expr(0) <= from_x)
            & (from_x < Index("x_size"))
        )
        source = Index("dram_base") + from_y * Index("x_stride") + from_x
        pad = Index("pad_value") if format is formats.LOADX else expr(0)

        def lane(lanes: tuple[Expr, ...]) -> Stmt:
            value = Select(inside, Load(dram.name, (source, *lanes)), Cast(dram.dtype, pad))
            target = Index("sram_base") + y * columns + x
            return Store(sram.name, (target, *lanes), value)

        row = For("x", expr(0), columns, _lanes(memory.lanes(config), lane), parallel=True)
        return _box(format, config, f"{format.name.lower()}.{memory.name}", (sram, dram), row)

    return meaning


def _store(format: Format, memory: Memory) -> Meaning:
    """Accumulators to DRAM, or to another scratchpad, as ``memory`` says."""
    out = MEMORIES[MemoryType.OUT]
    stays = memory is not out

    def meaning(config: AcceleratorConfig) -> Nest:
        acc, there = out.sram(config), memory.sram(config) if stays else out.dram(config)
        requantizes = format is formats.STOREX
        y, x = Index("y"), Index("x")
        source = Index("sram_base") + y * Index("x_size") + x
        target = Index("dram_base") + y * Index("x_stride") + x

        def lane(lanes: tuple[Expr, ...]) -> Stmt:
            value: Expr = Load("acc", (source, *lanes))
            if requantizes:
                record = Index("qnt_base") + y * Index("qnt_step")
                value = _requantized(config, value, record, lanes[-1])
            if stays:  # a scratchpad's lanes are wider in a simulator
                value = Cast(out.dram_dtype(config), value)
            return Store(there.name, (target, *lanes), value)

        row = For("x", expr(0), Index("x_size"), _lanes(acc.shape[1:], lane), parallel=True)
        buffers = (acc, there, *(qnt_views(config) if requantizes else ()))
        return _box(format, config, f"{format.name.lower()}.{memory.name}", buffers, row)

    return meaning


def _parameter(name: str, index: Expr, lane: Expr) -> Expr:
    return Load(f"qnt.{name}", (index, lane))


def _even(config: AcceleratorConfig, index: Expr, lane: Expr) -> bool | Expr:
    """Whether a lane's parameters ask for ONNX's rounding."""
    return config.to_even and Binary("ne", _parameter("even", index, lane) & 1, expr(0))


def _rescaled(config: AcceleratorConfig, x: Expr, index: Expr, lane: Expr) -> Expr:
    p = lambda name: _parameter(name, index, lane)  # noqa: E731  # a table lookup, five times
    return rescale(
        x + p("bias"), p("multiplier"), p("left") & 31, p("right") & 31, _even(config, index, lane)
    )


def _requantized(config: AcceleratorConfig, x: Expr, index: Expr, lane: Expr) -> Expr:
    p = lambda name: _parameter(name, index, lane)  # noqa: E731
    return requantize(
        x + p("bias"),
        p("multiplier"),
        p("left") & 31,
        p("right") & 31,
        p("zero_point"),
        p("low"),
        p("high"),
        _even(config, index, lane),
    )


def _uop_field(name: str, config: AcceleratorConfig) -> Expr:
    slot = formats.uop_layout(config).by_name[name]
    return (Load("uop", (Index("u"),)) >> slot.lsb) & ((1 << slot.width) - 1)


def _steps(
    format: Format,
    name: str,
    operands: tuple[str, ...],
    buffers: Callable[[AcceleratorConfig], tuple[Buffer, ...]],
    step: Callable[[AcceleratorConfig], Stmt],
    slides: bool = False,
) -> Meaning:
    """``step`` for every micro-op of two nested loops, with ``dst``, ``src``, ``wgt`` bound.

    If it ``slides``, the inner loop moves the source by lanes: ``src`` goes with the outer loop
    alone, and ``slide`` is bound to the lanes from there.
    """

    def meaning(config: AcceleratorConfig) -> Nest:
        body = step(config)
        for operand in reversed(operands):
            index = _uop_field(operand, config) + Index("i") * Index(f"{operand}_factor_out")
            inner = Index("j") * Index(f"{operand}_factor_in")
            if slides and operand == "src":
                body = Let("src", index, Let("slide", inner, body))
            else:
                body = Let(operand, index + inner, body)
        body = For("u", Index("uop_bgn"), Index("uop_end"), body)
        body = For("j", expr(0), Index("iter_in"), body)
        body = For("i", expr(0), Index("iter_out"), body)
        uop = MEMORIES[MemoryType.UOP].sram(config)
        return Nest(name, params_of(format, config), (uop, *buffers(config)), body)

    return meaning


def params_of(format: Format, config: AcceleratorConfig) -> tuple[str, ...]:
    """The operands of a format: its fields without those that select, order or fill."""
    selectors = ("opcode", *FLAGS, "unused", "reserved", *SELECTORS.get(format.name, ()))
    return tuple(s.name for s in format.layout(config).slots if s.name not in selectors)


SELECTORS: Mapping[str, tuple[str, ...]] = {
    "LOAD": ("memory_type",),
    "STORE": ("memory_type",),
    "GEMM": ("reset",),
    "ALU": ("alu_opcode", "use_imm"),
    "MATMUL": ("mode",),
    "LOADX": ("memory_type",),
    "STOREX": ("memory_type",),
}
"""The fields that tell the operations of a format apart."""


def _sram(*types: MemoryType) -> Callable[[AcceleratorConfig], tuple[Buffer, ...]]:
    return lambda config: tuple(MEMORIES[t].sram(config) for t in types)


def _acc(index: str, lanes: tuple[Expr, ...]) -> Expr:
    return Load("acc", (Index(index), *lanes))


def _product(config: AcceleratorConfig, lanes: tuple[Expr, ...]) -> Expr:
    b, o = lanes
    c = Index("c")
    body = Load("inp", (Index("src"), b, c)) * Load("wgt", (Index("wgt"), o, c))
    return Sum((("c", config.block),), body)


def _taps(config: AcceleratorConfig, lanes: tuple[Expr, ...]) -> Expr:
    """Every channel by itself, over neighbouring elements: row ``t`` of a weight is a tap's."""
    b, o = lanes
    t = Index("t")
    body = Load("inp", (Index("src") + t, b, o)) * Load("wgt", (Index("wgt"), t, o))
    return Sum((("t", config.taps),), body)


def _window(config: AcceleratorConfig, lanes: tuple[Expr, ...]) -> Expr:
    """A product with as many lanes as an element has, from lane ``slide`` on."""
    b, o = lanes
    c = Index("c")
    lane = Index("slide") + c
    place = (Index("src") + lane // config.block, b, lane % config.block)
    return Sum((("c", config.block),), Load("inp", place) * Load("wgt", (Index("wgt"), o, c)))


LaneValue = Callable[["AcceleratorConfig", tuple[Expr, ...]], Expr]


def _writes_acc(value: LaneValue) -> Callable[[AcceleratorConfig], Stmt]:
    """A step that gives every lane of ``acc[dst]`` a value."""
    return lambda config: _lanes(
        (config.batch, config.block),
        lambda lanes: Store("acc", (Index("dst"), *lanes), value(config, lanes)),
    )


def step_meaning(
    format: Format, name: str, value: LaneValue, reads: bool = True, slides: bool = False
) -> Meaning:
    """What an operation does whose steps give every lane of ``acc[dst]`` a value.

    ``value`` is over ``inp`` and ``wgt``, too, if it ``reads``; ``src`` counts lanes, not elements,
    if it ``slides``.
    """
    operands = ("dst", "src", "wgt") if reads else ("dst",)
    types = (MemoryType.ACC, MemoryType.INP, MemoryType.WGT) if reads else (MemoryType.ACC,)
    return _steps(format, name, operands, _sram(*types), _writes_acc(value), slides)


# --- ALU -----------------------------------------------------------------------------------------


class AluOpcode(IntEnum):
    """The ``alu_opcode`` field."""

    MIN = 0
    MAX = 1
    ADD = 2
    SHR = 3
    MUL = 4
    SCALE = 5
    REQUANTIZE = 6


RESCALING = frozenset({AluOpcode.SHR, AluOpcode.MUL, AluOpcode.SCALE, AluOpcode.REQUANTIZE})
"""Operations whose steps take ``rescale_cycles``; all others take one."""


def shift_right(x: Expr, amount: Expr) -> Expr:
    """``x >> amount``, to the left where ``amount`` is negative; any amount is defined."""
    left = Const(0, I64) - Cast(I64, amount)
    shifted = Select(left <= 31, Cast(I64, x) << minimum(left, 31), Const(0, I64))
    return Select(expr(0) <= amount, Cast(I64, x >> maximum(minimum(amount, 31), 0)), shifted)


ALU_LANES: Mapping[AluOpcode, Callable[[Expr, Expr], Expr]] = {
    AluOpcode.MIN: minimum,
    AluOpcode.MAX: maximum,
    AluOpcode.ADD: lambda x, y: x + y,
    AluOpcode.SHR: shift_right,
    AluOpcode.MUL: lambda x, y: x * y,
}
"""What VTA's ALU operations do to a lane: from ``acc[dst]`` and the second operand."""


def _alu(name: str, lane: Callable[[Expr, Expr], Expr], imm: bool) -> Meaning:
    def value(config: AcceleratorConfig, lanes: tuple[Expr, ...]) -> Expr:
        second = Cast(expr(0).dtype, Index("imm")) if imm else _acc("src", lanes)  # type: ignore[attr-defined]
        return lane(_acc("dst", lanes), second)

    operands = ("dst",) if imm else ("dst", "src")
    return _steps(formats.ALU, name, operands, _sram(MemoryType.ACC), _writes_acc(value))


def _alu_qnt(name: str, lane: Callable[[AcceleratorConfig, Expr, Expr, Expr], Expr]) -> Meaning:
    def value(config: AcceleratorConfig, lanes: tuple[Expr, ...]) -> Expr:
        return lane(config, _acc("dst", lanes), Index("src"), lanes[-1])

    def buffers(config: AcceleratorConfig) -> tuple[Buffer, ...]:
        return (*_sram(MemoryType.ACC)(config), *qnt_views(config))

    return _steps(formats.ALU, name, ("dst", "src"), buffers, _writes_acc(value))


# --- the table -----------------------------------------------------------------------------------


def _load_operations(format: Format) -> list[Operation]:
    """LOAD goes to the memory's own engine, as VTA's does; LOADX, of whole elements, always to the
    load engine."""
    operations: list[Operation] = []
    plain = format is formats.LOAD
    for memory in MEMORIES.values():
        if memory.type is MemoryType.OUT or (memory.whole and not plain):
            continue
        lanes = ", a byte a lane" if memory.type is MemoryType.ACC8 else ""
        extension = memory.extension or format.extension
        operations.append(
            Operation(
                f"{format.name.lower()}.{memory.name}",
                format,
                {"memory_type": memory.type},
                memory.engine if plain else Engine.LOAD,
                _load(memory, format),
                f"DRAM to {'rows of ' if memory.whole else ''}{memory.scratchpad}{lanes}, "
                f"{'zeros' if plain else 'a chosen value'} around",
                extension,
            )
        )
    return operations


def _alu_operations() -> list[Operation]:
    operations: list[Operation] = []
    for opcode, lane in ALU_LANES.items():
        for imm in (0, 1):
            name = f"alu.{opcode.name.lower()}" + (".imm" if imm else "")
            second = "the immediate" if imm else "acc[src]"
            operations.append(
                Operation(
                    name,
                    formats.ALU,
                    {"alu_opcode": opcode, "use_imm": imm},
                    Engine.COMPUTE,
                    _alu(name, lane, bool(imm)),
                    f"{opcode.name} of acc[dst] and {second}",
                )
            )
    return operations


def _nothing(name: str, format: Format) -> Meaning:
    return lambda config: Nest(name, params_of(format, config), (), Block(()))


# fmt: off
OPERATIONS: tuple[Operation, ...] = (
    *_load_operations(formats.LOAD),
    Operation("store.out", formats.STORE, {"memory_type": MemoryType.OUT}, Engine.STORE,
              _store(formats.STORE, MEMORIES[MemoryType.OUT]),
              "the low bits of accumulators to DRAM"),
    Operation("store.nop", formats.STORE, {"memory_type": MemoryType.UOP}, Engine.STORE,
              _nothing("store.nop", formats.STORE), "carries tokens; x_size must be 0"),
    Operation("gemm", formats.GEMM, {"reset": 0}, Engine.COMPUTE,
              step_meaning(formats.GEMM, "gemm",
                           lambda c, lanes: _acc("dst", lanes) + _product(c, lanes)),
              "acc[dst] += inp[src] . wgt[wgt] transposed"),
    Operation("gemm.reset", formats.GEMM, {"reset": 1}, Engine.COMPUTE,
              step_meaning(formats.GEMM, "gemm.reset", lambda c, lanes: expr(0), reads=False),
              "acc[dst] = 0"),
    *_alu_operations(),
    Operation("alu.scale", formats.ALU, {"alu_opcode": AluOpcode.SCALE, "use_imm": 0},
              Engine.COMPUTE, _alu_qnt("alu.scale", _rescaled),
              "acc[dst] plus bias, rescaled by qnt[src]", "requantize"),
    Operation("alu.requantize", formats.ALU, {"alu_opcode": AluOpcode.REQUANTIZE, "use_imm": 0},
              Engine.COMPUTE, _alu_qnt("alu.requantize", _requantized),
              "acc[dst] requantized by qnt[src], kept as an accumulator", "requantize"),
    Operation("finish", formats.FINISH, {}, Engine.COMPUTE,
              _nothing("finish", formats.FINISH), "ends the program after all before it"),
    Operation("matmul.set", formats.MATMUL, {"mode": 0}, Engine.COMPUTE,
              step_meaning(formats.MATMUL, "matmul.set", _product),
              "acc[dst] = inp[src] . wgt[wgt] transposed", "overwrite"),
    Operation("depthwise.set", formats.MATMUL, {"mode": 2}, Engine.COMPUTE,
              step_meaning(formats.MATMUL, "depthwise.set", _taps),
              "acc[dst] = rows of wgt[wgt] times inp[src] and its neighbours, lane by lane",
              "taps"),
    Operation("depthwise.add", formats.MATMUL, {"mode": 3}, Engine.COMPUTE,
              step_meaning(formats.MATMUL, "depthwise.add",
                    lambda c, lanes: _acc("dst", lanes) + _taps(c, lanes)),
              "acc[dst] += rows of wgt[wgt] times inp[src] and its neighbours, lane by lane",
              "taps"),
    Operation("sliding.set", formats.MATMUL, {"mode": 4}, Engine.COMPUTE,
              step_meaning(formats.MATMUL, "sliding.set", _window, slides=True),
              "acc[dst] = a block of lanes . wgt[wgt] transposed; it begins in inp[src], j times "
              "src_factor_in lanes on", "sliding"),
    Operation("sliding.add", formats.MATMUL, {"mode": 5}, Engine.COMPUTE,
              step_meaning(formats.MATMUL, "sliding.add",
                    lambda c, lanes: _acc("dst", lanes) + _window(c, lanes), slides=True),
              "acc[dst] += a block of lanes . wgt[wgt] transposed; it begins in inp[src], j times "
              "src_factor_in lanes on", "sliding"),
    *_load_operations(formats.LOADX),
    Operation("storex.out", formats.STOREX, {"memory_type": MemoryType.OUT}, Engine.STORE,
              _store(formats.STOREX, MEMORIES[MemoryType.OUT]),
              "accumulators, requantized, to DRAM", "requantize"),
    Operation("storex.inp", formats.STOREX, {"memory_type": MemoryType.INP}, Engine.STORE,
              _store(formats.STOREX, MEMORIES[MemoryType.INP]),
              "accumulators, requantized, to inp, where dram_base and x_stride count", "keeping"),
)
"""Every operation, VTA's first."""
# fmt: on
