"""From GEMM, MATMUL and ALU instructions to their steps, one a cycle."""

from __future__ import annotations

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa import formats
from ..isa.config import AcceleratorConfig
from ..isa.formats import LOOP_BITS, OPCODE_BITS, Format
from .alu import is_slow, reads_qnt
from .interfaces import INDEX_BITS, Issue, format_struct, read_signature, uop_struct
from .matrix import matmul_modes
from .operation import OPERATION
from .queue import Queue

OPERANDS = ("dst", "src", "wgt")


def step_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A step on its way.

    ``step`` is 0 for the mere end of an instruction without steps, ``last`` is 1 for the last of
    its instruction, ``fault`` says that an index is out of range: then nothing may be done.
    ``slow`` says that it multiplies on the ALU, ``reads_qnt`` that its source is in QNT.
    ``lane`` is where in ``src`` the inputs of a sliding step begin, 0 for any other.
    """
    return data.StructLayout(
        {
            "step": 1,
            "last": 1,
            "fault": 1,
            "slow": 1,
            "reads_qnt": 1,
            "operation": OPERATION,
            **_index_bits(config),
            **({"lane": lane_bits(config)} if config.sliding else {}),
        }
    )


def lane_bits(config: AcceleratorConfig) -> int:
    """Bits that a source has behind its index: sliding steps begin at any lane."""
    return exact_log2(config.block) if config.sliding else 0


def _index_bits(config: AcceleratorConfig) -> dict[str, int]:
    """Bits that an operand's index has, whichever scratchpad it is for."""
    return {
        "dst": config.acc_index_bits,
        "src": max(config.acc_index_bits, config.inp_index_bits, config.qnt_index_bits),
        "wgt": config.wgt_index_bits,
    }


def _offset_layout(config: AcceleratorConfig) -> dict[str, int]:
    """Bits of what both loops add to an operand.

    A trip adds less than a depth, and a step whose index is out of range is the last one: the
    first offset that is too large is still less than twice a depth. (What wraps after that, or
    in an operand that is not accessed, is never looked at.)
    """
    more = {"src": 1 + lane_bits(config)}
    return {name: bits + more.get(name, 1) for name, bits in _index_bits(config).items()}


def nest_layout(config: AcceleratorConfig) -> data.StructLayout:
    """An instruction's two loops, whatever its format; counts are one less than the trips.

    The factors of ``src`` count lanes where there are sliding steps.
    """
    factors = {
        f"{name}_factor_{loop}": bits - 1
        for name, bits in _offset_layout(config).items()
        for loop in ("out", "in")
    }
    return data.StructLayout(
        {
            "empty": 1,
            "operation": OPERATION,
            "index": INDEX_BITS,
            "uop_bgn": config.uop_index_bits,
            "uop_last": config.uop_index_bits + 1,
            "last_out": LOOP_BITS,
            "last_in": LOOP_BITS,
            **factors,
        }
    )


def place_layout(config: AcceleratorConfig) -> data.StructLayout:
    """Where in its loops a step stands; an operand's name has its offset."""
    return data.StructLayout(
        {
            "step": 1,
            "last": 1,
            "operation": OPERATION,
            "index": INDEX_BITS,
            "uop": config.uop_index_bits + 1,
            **_offset_layout(config),
        }
    )


class Decode(wiring.Component):
    """Brings the three formats with loops into one shape; an instruction a cycle, one of latency.

    Members
    -------
    i : :py:`In(Issue)`
        GEMM, MATMUL and ALU.
    o : :py:`Out(stream)`
        The loops and the operation.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i": In(Issue), "o": Out(stream.Signature(nest_layout(config)))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.nests = nests = Queue(nest_layout(self.config), 2)
        wiring.connect(m, nests.o, wiring.flipped(self.o))
        o = nests.i.payload
        m.d.comb += [
            nests.i.valid.eq(self.i.valid),
            self.i.ready.eq(nests.i.ready),
            o.index.eq(self.i.payload.index),
        ]
        with m.Switch(self.i.payload.word[:OPCODE_BITS]):
            for format in (formats.GEMM, formats.ALU, formats.MATMUL):
                if format in formats.enabled(self.config):
                    with m.Case(format.opcode):
                        m.d.comb += self._decoded(format, o)
        return m

    def _decoded(self, format: Format, o: data.View):
        word = data.View(format_struct(self.config, format.opcode), self.i.payload.word)
        yield from (
            o.empty.eq((word.uop_bgn >= word.uop_end) | (word.iter_out == 0) | (word.iter_in == 0)),
            o.uop_bgn.eq(word.uop_bgn),
            o.uop_last.eq(word.uop_end - 1),
            o.last_out.eq(word.iter_out - 1),
            o.last_in.eq(word.iter_in - 1),
        )
        fields = {field.name for field in format.fields}
        for name in (f"{operand}_factor_{loop}" for operand in OPERANDS for loop in ("out", "in")):
            if name in fields:
                lanes = lane_bits(self.config) if name.startswith("src") else 0
                factor = word[name] << lanes
                if lanes and format is formats.MATMUL and name.endswith("in"):
                    modes = matmul_modes(self.config)["sliding"]
                    factor = Mux(_among(word.mode, modes), word[name], factor)
                yield o[name].eq(factor)
        does = o.operation
        if format is formats.ALU:
            yield does.alu.eq(1)
            yield from (does[name].eq(word[name]) for name in ("alu_opcode", "use_imm", "imm"))
        elif format is formats.GEMM:
            yield from (does.multiply.eq(~word.reset), does.accumulate.eq(~word.reset))
        else:
            yield does.multiply.eq(1)
            for flag, modes in matmul_modes(self.config).items():
                if modes and flag in OPERATION.members:
                    yield does[flag].eq(_among(word.mode, modes))


def _among(mode: Value, modes: list[int]) -> Value:
    return Cat(mode == each for each in modes).any()


class Steps(wiring.Component):
    """Issues the steps of instructions in order: a step a cycle, none lost between instructions.

    An instruction without steps takes one cycle. From ``i`` to the first of ``o`` are
    :attr:`latency` cycles. An operand's index is its micro-op's field plus the loops' offsets;
    the indices that the operation accesses are compared with the depths. Nothing follows a step
    that has ``fault``, until reset.

    Members
    -------
    i : :py:`In(Issue)`
        GEMM, MATMUL and ALU, statically legal.
    uop : :py:`Out(read_signature(...))`
        Micro-ops.
    o : :py:`Out(stream.Signature(step_layout(config)))`
        The steps.
    fault_index : :py:`Out(32)`
        The instruction of the step that had ``fault``, when that has been taken.
    """

    latency = 4
    """Cycles from ``i`` to ``o``."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "i": In(Issue),
                "uop": Out(read_signature(config.uop_index_bits, formats.UOP_BITS)),
                "o": Out(stream.Signature(step_layout(config))),
                "fault_index": Out(INDEX_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.decode = decode = Decode(self.config)
        m.submodules.loops = loops = _Loops(self.config)
        m.submodules.indices = indices = _Indices(self.config)
        wiring.connect(m, wiring.flipped(self.i), decode.i)
        wiring.connect(m, decode.o, loops.i)
        wiring.connect(m, loops.o, indices.i)
        wiring.connect(m, indices.uop, wiring.flipped(self.uop))
        wiring.connect(m, indices.o, wiring.flipped(self.o))
        m.d.comb += self.fault_index.eq(indices.fault_index)
        return m


class _Loops(wiring.Component):
    """Counts through the loops; offsets are running sums. A place a cycle, from registers."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(nest_layout(config))),
                "o": Out(stream.Signature(place_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        now = Signal(nest_layout(self.config))
        busy = Signal()
        left_out, left_in = Signal(LOOP_BITS), Signal(LOOP_BITS)
        place = self.o.payload
        uop = Signal.like(now.uop_last)
        # What ends is compared a step ahead; what begins anew, once.
        last_uop, last_in, last_out = Signal(), Signal(), Signal()
        one_uop, one_in = Signal(), Signal()
        last = now.empty | (last_uop & last_in & last_out)
        m.d.comb += [
            self.o.valid.eq(busy),
            place.step.eq(~now.empty),
            place.last.eq(last),
            place.operation.eq(now.operation),
            place.index.eq(now.index),
            place.uop.eq(uop),
            self.i.ready.eq(~busy | (self.o.ready & last)),
        ]
        with m.If(self.o.ready):
            m.d.sync += [
                uop.eq(Mux(last_uop, now.uop_bgn, uop + 1)),
                last_uop.eq(Mux(last_uop, one_uop, uop + 1 == now.uop_last)),
            ]
            with m.If(last_uop):
                m.d.sync += [
                    left_in.eq(Mux(last_in, now.last_in, left_in - 1)),
                    last_in.eq(Mux(last_in, one_in, left_in == 1)),
                ]
                with m.If(last_in):
                    m.d.sync += [left_out.eq(left_out - 1), last_out.eq(left_out == 1)]
        for name, bits in _offset_layout(self.config).items():
            outer, offset = Signal(bits, name=f"{name}_outer"), Signal(bits, name=name)
            m.d.comb += place[name].eq(offset)
            next_outer = outer + now[f"{name}_factor_out"]
            with m.If(self.o.ready & last_uop):
                with m.If(last_in):
                    m.d.sync += [outer.eq(next_outer), offset.eq(next_outer)]
                with m.Else():
                    m.d.sync += offset.eq(offset + now[f"{name}_factor_in"])
            with m.If(self.i.ready):
                m.d.sync += [outer.eq(0), offset.eq(0)]
        given = self.i.payload
        with m.If(self.i.ready):
            m.d.sync += [
                busy.eq(self.i.valid),
                now.eq(given),
                uop.eq(given.uop_bgn),
                left_out.eq(given.last_out),
                left_in.eq(given.last_in),
                last_out.eq(given.last_out == 0),
                *(flag.eq(given.last_in == 0) for flag in (last_in, one_in)),
                *(flag.eq(given.uop_bgn == given.uop_last) for flag in (last_uop, one_uop)),
            ]
        return m


class _Indices(wiring.Component):
    """Reads a place's micro-op, adds the offsets, checks the ranges: two cycles, one a cycle."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(place_layout(config))),
                "uop": Out(read_signature(config.uop_index_bits, formats.UOP_BITS)),
                "o": Out(stream.Signature(step_layout(config))),
                "fault_index": Out(INDEX_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        read, place = Signal(place_layout(self.config)), Signal(place_layout(self.config))
        held, valid, stopped = Signal(), Signal(), Signal()
        advance = ~valid | self.o.ready
        m.d.comb += [
            self.i.ready.eq(advance),
            self.uop.enable.eq(advance & self.i.valid),
            self.uop.address.eq(self.i.payload.uop),
        ]
        uop = data.View(uop_struct(self.config), self.uop.data)
        lanes = {"src": lane_bits(self.config)}
        sums = {name: (uop[name] << lanes.get(name, 0)) + read[name] for name in OPERANDS}
        index = {name: Signal.like(value, name=f"{name}_index") for name, value in sums.items()}
        with m.If(advance):
            m.d.sync += [held.eq(self.i.valid), read.eq(self.i.payload)]
            m.d.sync += [valid.eq(held), place.eq(read)]
            m.d.sync += [index[name].eq(sums[name]) for name in OPERANDS]

        step = self.o.payload
        m.d.comb += [
            self.o.valid.eq(valid & ~stopped),
            step.step.eq(place.step),
            step.last.eq(place.last),
            step.fault.eq(place.step & self._beyond(place, index)),
            step.slow.eq(is_slow(self.config, place.operation)),
            step.reads_qnt.eq(
                reads_qnt(self.config, place.operation.alu_opcode) if self.config.requantize else 0
            ),
            step.operation.eq(place.operation),
            *(step[name].eq(index[name][lanes.get(name, 0) :]) for name in OPERANDS),
        ]
        if self.config.sliding:
            m.d.comb += step.lane.eq(index["src"])
        with m.If(self.o.valid & self.o.ready & step.fault):
            m.d.sync += [stopped.eq(1), self.fault_index.eq(place.index)]
        return m

    def _beyond(self, place, index) -> Value:
        """Whether an index that the operation accesses is out of range."""
        config, does = self.config, place.operation
        depths = {"acc": config.acc_depth, "inp": config.inp_depth, "wgt": config.wgt_depth}
        lane = index["src"][: lane_bits(config)]
        index = index | {"src": index["src"][lane_bits(config) :]}
        outside = lambda name, memory: index[name][_bits(depths[memory]) :].any()  # noqa: E731
        # A depthwise step reads elements after its source, too, and so does one that begins
        # within it.
        first = index["src"][: config.inp_index_bits]
        nearby = does.depthwise & (first > config.inp_depth - config.taps) if config.taps else 0
        source = outside("src", "inp") | nearby | (lane.any() & first.all())
        second = outside("src", "acc")
        if config.requantize:
            depths["qnt"] = config.qnt_depth
            second = Mux(reads_qnt(config, does.alu_opcode), outside("src", "qnt"), second)
        return (
            place.uop[config.uop_index_bits :].any()
            | outside("dst", "acc")
            | (does.multiply & (outside("wgt", "wgt") | source))
            | (does.alu & ~does.use_imm & second)
        )


def _bits(depth: int) -> int:
    """Of an index; depths are powers of two."""
    return (depth - 1).bit_length()
