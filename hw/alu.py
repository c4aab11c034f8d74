"""What a step writes into an accumulator: the lanes of GEMM's addition and of the ALU.

The functions come from the meanings of the instruction set's operations. Those that multiply
take several cycles (:class:`SlowLanes`); the others and GEMM's addition take the cycle between
reading and writing the accumulator (:class:`Lanes`), so that the next step sees their result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa import formats
from ..isa.config import AcceleratorConfig
from ..isa.formats import Format
from ..isa.instructions import AluOpcode, InstructionSet, shift_right
from ..isa.nest import I32, I64, Binary, Cast, Expr, Load, Node, Select, Sum, rewrite, walk
from ..isa.nest import Const as Literal
from . import pipeline
from .form import Form, delayed
from .lower import Lowering, low_bits, named, stored
from .operation import OPERATION
from .requantizer import acc_lane, qnt_records


def alu_values(config: AcceleratorConfig) -> dict[AluOpcode, Expr]:
    """What each ALU operation makes of ``acc[dst]`` and its second operand, loaded as ``second``.

    The form with an immediate differs from that with a register only in that operand.
    """
    instructions = InstructionSet(config)

    def with_second(node: Node) -> Node | None:
        match node:
            case Load("acc", (first, *_)) if getattr(first, "name", None) == "src":
                return Load("second", ())
        return None

    return {
        AluOpcode(o.fixed["alu_opcode"]): rewrite(stored(o.meaning(config)).value, with_second)
        for o in instructions.operations.values()
        if o.format is formats.ALU and not o.fixed["use_imm"]
    }


def multiplies(e: Expr) -> bool:
    """Whether a product of two values that are not constants is in it."""
    return any(_is_product(node) for node in walk(e))


def _is_product(node: Node) -> bool:
    return (
        isinstance(node, Binary)
        and node.op == "mul"
        and not isinstance(node.a, Literal)
        and not isinstance(node.b, Literal)
    )


def slow_values(config: AcceleratorConfig) -> dict[AluOpcode, Expr]:
    """The ALU operations that multiply."""
    return {opcode: e for opcode, e in alu_values(config).items() if multiplies(e)}


def is_slow(config: AcceleratorConfig, operation) -> Value:
    """Whether an :data:`OPERATION` is an ALU operation that multiplies."""
    return operation.alu & _among(operation.alu_opcode, slow_values(config))


def reads_qnt(config: AcceleratorConfig, alu_opcode: Value) -> Value:
    """Whether the source of that ALU operation is an index of QNT."""
    return _among(
        alu_opcode,
        [
            opcode
            for opcode, e in alu_values(config).items()
            if any(isinstance(node, Load) and node.buffer.startswith("qnt.") for node in walk(e))
        ],
    )


def _among(alu_opcode: Value, opcodes) -> Value:
    return Cat(alu_opcode == opcode for opcode in opcodes).any()


def slow_latency(config: AcceleratorConfig) -> int:
    """Cycles from operands to results of :class:`SlowLanes`, at least 1."""
    operands = {
        "acc": Signal(signed(32)),
        "second": Signal(signed(32)),
        "alu_opcode": Signal(3),
        **qnt_records(C(0, 8 * config.qnt_element_bytes), 0),
    }
    return max(1, pipeline.latency(named(operands), _slow_value(config)))


class SlowLanes(wiring.Component):
    """The ALU operations that multiply: an element a cycle, ``latency`` cycles, never stalls.

    Parameters
    ----------
    config : AcceleratorConfig
        Number of lanes, extensions.
    form : Form
        How it is built.
    latency : int
        Cycles from operands to ``o``, at least :func:`slow_latency`.

    Members
    -------
    operation : :py:`In(OPERATION)`
        One of them; anything else gives an arbitrary ``o``.
    dst, src : :py:`In`
        ``acc[dst]`` and ``acc[src]``.
    qnt : :py:`In`
        ``qnt[src]``; no bits without ``requantize``.
    o : :py:`Out`
        The element for ``acc[dst]``.
    """

    def __init__(self, config: AcceleratorConfig, form: Form, latency: int):
        self.config = config
        self.form = form
        self.latency = latency
        element = 8 * config.acc_element_bytes
        super().__init__(
            {
                "operation": In(OPERATION),
                "dst": In(element),
                "src": In(element),
                "qnt": In(8 * config.qnt_element_bytes if config.requantize else 0),
                "o": Out(element),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        leaves = []
        for lane in range(config.batch * config.block):
            operands = _operands(config, self.operation, self.dst, self.src, lane)
            if config.requantize:
                operands |= qnt_records(self.qnt, lane % config.block)
            leaves.append(named(operands))
        e = _slow_value(config)
        used = is_slow(config, self.operation)
        results = pipeline.lanes(m, self.form, leaves, e, config.acc_width, self.latency, used)
        m.d.comb += self.o.eq(results)
        return m


class Lanes(wiring.Component):
    """The last cycle of every step; combinational but for ``operation``.

    Parameters
    ----------
    config : AcceleratorConfig
        Number of lanes, extensions.
    sum_bits : int
        Bits of the matrix unit's sums.
    form : Form
        How it is built. ``synthesis``: a flag for every kind of result, from a register, and one
        shifter for both directions.

    Members
    -------
    operation : :py:`In(OPERATION)`
        What is done in the next cycle.
    dst, second : :py:`In`
        ``acc[dst]`` and the ALU's second operand.
    sum : :py:`In`
        The matrix unit's sums.
    slow : :py:`In`
        Results of :class:`SlowLanes`.
    o : :py:`Out`
        The element for ``acc[dst]``.
    """

    def __init__(self, config: AcceleratorConfig, sum_bits: int, form: Form = "synthesis"):
        self.config = config
        self.form = form
        self._sum_bits = sum_bits
        element = 8 * config.acc_element_bytes
        super().__init__(
            {
                "operation": In(OPERATION),
                "dst": In(element),
                "second": In(element),
                "sum": In(config.batch * config.block * sum_bits),
                "slow": In(element),
                "o": Out(element),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        lane = self._simulated(m) if self.form == "simulation" else self._synthesized(m)
        for number in range(config.batch * config.block):
            operands = {
                "acc": acc_lane(self.dst, number, config),
                "second": acc_lane(self.second, number, config),
                "sum": self.sum.word_select(number, self._sum_bits).as_signed(),
                "slow_result": acc_lane(self.slow, number, config),
            }
            m.d.comb += self.o.word_select(number, config.acc_width).eq(lane(operands))
        return m

    def _simulated(self, m: Module) -> Callable[[dict[str, Value]], Value]:
        operation, e = Signal(OPERATION), _last_cycle(self.config)
        m.d.sync += operation.eq(self.operation)
        flags = {
            "alu_opcode": operation.alu_opcode,
            "slow": is_slow(self.config, operation),
            "alu": operation.alu,
            "multiply": operation.multiply,
            "accumulate": operation.accumulate,
        }
        bits = self.config.acc_width
        return lambda operands: low_bits(Lowering(named(operands | flags), m)(e), bits)

    def _synthesized(self, m: Module) -> Callable[[dict[str, Value]], Value]:
        """One of the results, or of none of them zeros, as a reset wants."""
        bits, does = self.config.acc_width, self.operation
        steps = does.multiply & ~does.alu
        quick = alu_values(self.config).items() - slow_values(self.config).items()
        results = [(does.alu & (does.alu_opcode == opcode), e) for opcode, e in sorted(quick)]
        results.append((is_slow(self.config, does), _flag("slow_result")))
        results.append((steps & does.accumulate, _matrix_value(self.config, formats.GEMM, 0)))
        if self.config.overwrite:
            overwritten = _matrix_value(self.config, formats.MATMUL, 0)
            results.append((steps & ~does.accumulate, overwritten))
        flags = [delayed(m, flag, 1) for flag, _ in results]

        def lane(operands: dict[str, Value]) -> Value:
            both_ways = shifted(m, operands["acc"], operands["second"])
            lower = Lowering(named(operands | {"shifted": both_ways}), m)
            values = [low_bits(lower(rewrite(e, _both_ways)), bits) for _, e in results]
            terms = (flag.replicate(bits) & v for flag, v in zip(flags, values, strict=True))
            return reduce(or_, terms)

        return lane


def shifted(m: Module, x: Value, amount: Value) -> Value:
    """What :func:`weft.isa.instructions.shift_right` says of two words, by one shifter.

    To the left by ``-amount`` is to the right by ``bits + amount`` out of ``x`` before as many
    zeros, and the low bits of that are those of ``amount``, negative or not.
    """
    bits = len(x)
    steps = exact_log2(bits)
    left, sign = amount[-1], x[-1].replicate(bits)
    part = Mux(left, Cat(C(0, bits), x), Cat(x, sign))
    for step in reversed(range(steps)):
        part = Mux(amount[step], part[1 << step :], part)[: bits + (1 << step) - 1]
        part, value = Signal(len(part), name="shifted"), part
        m.d.comb += part.eq(value)
    within = Mux(left, amount[steps:].all(), ~amount[steps:].any())
    return Mux(within, part, Mux(left, 0, sign)).as_signed()


def _both_ways(node: Node) -> Node | None:
    """The result of :func:`shifted` for what is written as shifts in two directions."""
    match node:
        case Select(Binary("le", _, amount), Cast(_, Binary("shr", x, _)), _):
            return Load("shifted", ()) if node == shift_right(x, amount) else None
    return None


def _operands(
    config: AcceleratorConfig, operation, dst: Value, src: Value, lane: int
) -> dict[str, Value]:
    second = Mux(operation.use_imm, operation.imm, acc_lane(src, lane, config))
    return {
        "acc": acc_lane(dst, lane, config),
        "second": low_bits(second, config.acc_width).as_signed(),
        "alu_opcode": operation.alu_opcode,
    }


def _slow_value(config: AcceleratorConfig) -> Expr:
    """What the opcode says of the operations that multiply, the products all from one multiplier.

    A step has one operation, and a lane's multiplier takes four blocks of a device that has few.
    """
    values = slow_values(config)
    found = {o: dict.fromkeys(n for n in walk(e) if _is_product(n)) for o, e in values.items()}
    if any(len(products) > 1 for products in found.values()):
        return _by_opcode(values)
    products = {opcode: next(iter(product)) for opcode, product in found.items()}
    a, b = (
        _by_opcode({opcode: Cast(I64, getattr(p, side)) for opcode, p in products.items()})
        for side in ("a", "b")
    )
    shared = Binary("mul", a, b)

    def with_shared(opcode: AluOpcode) -> Expr:
        product = products[opcode]
        wide = isinstance(product.a, Cast) and product.a.dtype == I64
        result = shared if wide else Cast(I32, shared)
        return rewrite(values[opcode], lambda node: result if node == product else None)

    return _by_opcode({opcode: with_shared(opcode) for opcode in values})


def _by_opcode(values: Mapping[AluOpcode, Expr]) -> Expr:
    (_, chosen), *others = values.items()
    for opcode, e in others:
        chosen = Select(Binary("eq", _flag("alu_opcode"), Literal(int(opcode))), e, chosen)
    return chosen


def _last_cycle(config: AcceleratorConfig) -> Expr:
    """The value of a lane, with the matrix unit's sum and the slow lanes' result at hand."""
    slow = slow_values(config)
    quick = {opcode: e for opcode, e in alu_values(config).items() if opcode not in slow}
    alu = Select(_flag("slow"), Load("slow_result", ()), _by_opcode(quick))
    summed = _matrix_value(config, formats.GEMM, 0)
    if config.overwrite:
        overwritten = _matrix_value(config, formats.MATMUL, 0)
        summed = Select(_flag("accumulate"), summed, overwritten)
    matrix = Select(_flag("multiply"), summed, _matrix_value(config, formats.GEMM, 1))
    return Select(_flag("alu"), alu, matrix)


def _flag(name: str) -> Expr:
    return Load(name, ())


def _matrix_value(config: AcceleratorConfig, format: Format, selector: int) -> Expr:
    """What an operation of the matrix unit stores, its sum of products loaded as ``sum``."""
    instructions = InstructionSet(config)
    (name,) = (
        o.name
        for o in instructions.operations.values()
        if o.format is format and list(o.fixed.values()) == [selector]
    )
    value = stored(instructions.meaning(name)).value
    result = rewrite(value, lambda node: Load("sum", ()) if isinstance(node, Sum) else None)
    assert isinstance(result, Expr)
    return result
