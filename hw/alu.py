"""What a step writes into an accumulator: the lanes of GEMM's addition and of the ALU.

The functions come from the meanings of the instruction set's operations. Those that multiply
take several cycles (:class:`SlowLanes`), and those that shift where lanes take turns; the others
and GEMM's addition take the cycle between reading and writing the accumulator (:class:`Lanes`), so
that the next step sees their result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa import formats
from ..isa.config import AcceleratorConfig
from ..isa.formats import Format
from ..isa.instructions import InstructionSet
from ..isa.nest import I32, I64, Binary, Cast, Expr, Load, Node, Select, Sum
from ..isa.nest import Const as Literal
from ..isa.operations import RESCALING, AluOpcode, shift_right
from ..isa.traverse import rewrite, walk
from . import pipeline
from .choice import one_of
from .form import Form, delayed
from .lower import Lowering, low_bits, named, stored
from .operation import OPERATION
from .parameters import part_read, step_parts
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
    """The ALU operations that multiply and, where lanes take turns, those that shift."""
    in_turn = config.rescale_cycles > 1
    return {
        opcode: e
        for opcode, e in alu_values(config).items()
        if multiplies(e) or (in_turn and opcode in RESCALING)
    }


def is_slow(config: AcceleratorConfig, operation) -> Value:
    """Whether an :data:`OPERATION` is one for :class:`SlowLanes`."""
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
    turns = config.rescale_cycles
    return max(1, pipeline.latency(named(operands), _slow_value(config))) + turns * (turns > 1)


class SlowLanes(wiring.Component):
    """The ALU operations that take time: an element in ``rescale_cycles``, never stalls.

    It takes as many lanes as are needed for that, in turn.

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
    start : :py:`In(1)`
        The other inputs are there; not again before ``rescale_cycles`` have passed.
    operation : :py:`In(OPERATION)`
        One of them.
    dst, src : :py:`In`
        ``acc[dst]`` and ``acc[src]``.
    qnt : :py:`In`
        ``qnt[src]``, or of it first the part for the lanes whose turn is first, in the next cycle
        that for the next, and so on; no bits without ``requantize``.
    o : :py:`Out`
        The element for ``acc[dst]``, ``latency`` cycles after ``start``; else it is arbitrary.
    """

    def __init__(self, config: AcceleratorConfig, form: Form, latency: int):
        self.config = config
        self.form = form
        self.latency = latency
        element = 8 * config.acc_element_bytes
        qnt = part_read(config, step_parts(config, form)).create()
        super().__init__(
            {
                "start": In(1),
                "operation": In(OPERATION),
                "dst": In(element),
                "src": In(element),
                "qnt": In(len(qnt.data) if config.requantize else 0),
                "o": Out(element),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        vectors = [  # of both operands; an immediate is the second one in each lane
            Cat(operands[name] for operands in self._operands()) for name in ("acc", "second")
        ]
        opcode, qnt, turns = self.operation.alu_opcode, self.qnt, config.rescale_cycles
        if self.form == "simulation":
            turns = 1
        if turns > 1:
            vectors, opcode, qnt = self._held(m, vectors)
        lanes = config.batch * config.block // turns
        leaves = []
        for lane in range(lanes):
            acc, second = (acc_lane(vector, lane, config) for vector in vectors)
            operands = {"acc": acc, "second": second, "alu_opcode": opcode}
            if config.requantize:
                operands |= qnt_records(qnt, lane % config.block)
            leaves.append(named(operands))
        e, cycles = _slow_value(config), self.latency - turns * (turns > 1)
        results = pipeline.lanes(m, self.form, leaves, e, config.acc_width, cycles, self.start)
        if turns > 1:
            before = Signal((turns - 1) * lanes * config.acc_width)
            m.d.sync += before.eq(Cat(before, results)[len(results) :])
            results = Cat(before, results)
        m.d.comb += self.o.eq(results)
        return m

    def _operands(self) -> list[dict[str, Value]]:
        lanes = range(self.config.batch * self.config.block)
        return [_operands(self.config, self.operation, self.dst, self.src, n) for n in lanes]

    def _held(self, m: Module, vectors: Sequence[Value]) -> tuple[list[Value], Value, Value]:
        """Operands in registers that show one group of lanes after another at their lowest bits."""
        turns = self.config.rescale_cycles
        held = [Signal(len(v), name=f"held{n}", reset_less=True) for n, v in enumerate(vectors)]
        opcode, qnt = Signal.like(self.operation.alu_opcode), delayed(m, self.qnt, 1)
        with m.If(self.start):
            m.d.sync += [h.eq(v) for h, v in zip(held, vectors, strict=True)]
            m.d.sync += opcode.eq(self.operation.alu_opcode)
        with m.Else():
            m.d.sync += [h.eq(h >> (len(h) // turns)) for h in held]
        return held, opcode, qnt


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
        """One of the results, or of none of them zeros, as a reset wants.

        One adder does for all sums with the accumulator, and one comparison for both extremes.
        """
        bits, does = self.config.acc_width, self.operation
        steps = does.multiply & ~does.alu
        quick = alu_values(self.config).items() - slow_values(self.config).items()
        results = [(does.alu & (does.alu_opcode == opcode), e) for opcode, e in sorted(quick)]
        results.append((is_slow(self.config, does), _flag("slow_result")))
        results.append((steps & does.accumulate, _matrix_value(self.config, formats.GEMM, 0)))
        if self.config.overwrite:
            overwritten = _matrix_value(self.config, formats.MATMUL, 0)
            results.append((steps & ~does.accumulate, overwritten))
        sums = [(flag, e) for flag, e in results if isinstance(e, Binary) and e.op == "add"]
        (first,) = {e.a for _, e in sums if isinstance(e, Binary)}
        addends = [(flag, e.b) for flag, e in sums if isinstance(e, Binary)]
        results = [(flag, e) for flag, e in results if not any(flag is f for f, _ in sums)]
        results = [(flag, rewrite(rewrite(e, _both_ways), _compared)) for flag, e in results]
        shifts = AluOpcode.SHR not in slow_values(self.config)
        results.append((Cat(flag for flag, _ in sums).any(), Binary("add", first, _flag("addend"))))
        added, flags = ([delayed(m, f, 1) for f, _ in some] for some in (addends, results))

        def chosen(
            lower: Lowering, flags: Sequence[Value], of: Sequence[tuple[Value, Expr]]
        ) -> Value:
            return one_of(flags, (low_bits(lower(e), bits) for _, e in of))

        def lane(operands: dict[str, Value]) -> Value:
            addend = chosen(Lowering(named(operands), m), added, addends).as_signed()
            more = {"addend": addend}
            if shifts:
                more["shifted"] = shifted(m, operands["acc"], operands["second"])
            return chosen(Lowering(named(operands | more), m), flags, results)

        return lane


def shifted(m: Module, x: Value, amount: Value) -> Value:
    """What :func:`weft.isa.operations.shift_right` says of two words, by one shifter.

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


def _compared(node: Node) -> Node | None:
    """The lesser and the greater of two by the same comparison."""
    match node:
        case Binary("min" | "max" as op, a, b):
            less = Binary("lt", a, b)
            return Select(less, a, b) if op == "min" else Select(less, b, a)
    return None


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
    products = {opcode: next(iter(product)) for opcode, product in found.items() if product}
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

    return _by_opcode(values | {opcode: with_shared(opcode) for opcode in products})


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
