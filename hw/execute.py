"""The pipeline that steps go through, from operands to the accumulator."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..isa.config import AcceleratorConfig
from .accumulators import CHOICES
from .alu import Lanes, SlowLanes, slow_latency
from .form import Form, delayed
from .interfaces import (
    deciding_read_signature,
    input_signature,
    read_ahead,
    read_signature,
    write_signature,
)
from .lower import low_bits
from .matrix import MatrixUnit
from .operation import OPERATION
from .parameters import part_read, step_parts
from .requantizer import acc_lane
from .step_queue import StepQueue
from .steps import step_layout

ACC_READ = 2
"""Cycles from the read of accumulators to their use: the memory has one of its own."""


class Execute(wiring.Component):
    """Carries out steps: a step a cycle, :attr:`latency` cycles from ``i`` to the write.

    Accumulators are read two cycles before they are written, and a read shows what is written in
    its own cycle and the next: a step sees what all steps before it wrote, at any distance.
    Operations of the ALU that multiply read at once and compute while they travel. Such a step
    waits while one before it, not yet written, has its accumulator as destination, in a
    cycle in which those before it leave no read port for it - two accumulators need both, one
    needs any -, and for ``rescale_cycles`` after another one.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes and extensions.
    form : Form
        How the arithmetic is built.

    Members
    -------
    i : :py:`In(stream.Signature(step_layout(config)))`
        Steps in program order.
    inp : :py:`Out(input_signature(config))`
        Inputs, with those that follow for depthwise and sliding steps.
    wgt : :py:`Out(read_signature(...))`
        Weights.
    qnt : :py:`Out(part_read(config, step_parts(config, form)))`
        Parameters, part by part if lanes take turns; there with ``requantize``.
    dst, src : :py:`Out(deciding_read_signature(...))`
        Accumulators, with what ``write`` writes in the same cycle.
    ahead, qnt_ahead : :py:`Out(read_ahead(...))`, :py:`Out(1)`
        What ``src`` and ``qnt`` read in this cycle or, where a simulator, in the next.
    write : :py:`Out(write_signature(...))`
        Results; always accepted.
    superseded : :py:`Out(1)`
        The next cycle writes the same element again, and only ``dst`` and ``src`` read before.
    issued : :py:`Out(1)`
        A step begins.
    gemm_step, alu_step : :py:`Out(1)`
        One that multiplies in the matrix unit does, or one of the ALU.
    done : :py:`Out(1)`
        An instruction is complete; a read enabled in this cycle sees its results.
    fault : :py:`Out(1)`
        A step that has ``fault`` has come to the end, after all before it are complete.

    Attributes
    ----------
    latency : int
        Cycles from ``i`` to ``write`` and ``done``.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self.config = config
        self.form = form
        dst, src = (
            deciding_read_signature(config.acc_index_bits, 8 * config.acc_element_bytes, choices)
            for choices in CHOICES[form]
        )
        ports = {
            "i": In(stream.Signature(step_layout(config))),
            "inp": Out(input_signature(config)),
            "wgt": Out(read_signature(config.wgt_index_bits, 8 * config.wgt_element_bytes)),
            "dst": Out(dst),
            "src": Out(src),
            "write": Out(write_signature(config.acc_index_bits, 8 * config.acc_element_bytes, 1)),
            "ahead": Out(read_ahead(config.acc_index_bits)),
            "superseded": Out(1),
            "issued": Out(1),
            "gemm_step": Out(1),
            "alu_step": Out(1),
            "done": Out(1),
            "fault": Out(1),
        }
        if config.requantize:
            ports["qnt_ahead"] = Out(1)
            ports["qnt"] = Out(part_read(config, step_parts(config, form)))
        super().__init__(ports)
        self._matrix = MatrixUnit(config, form)
        slow = slow_latency(config)
        self._stages = max(1 + self._matrix.latency, ACC_READ + slow)
        self.latency = 1 + self._stages

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.matrix = matrix = self._matrix
        slow_latency = self._stages - ACC_READ
        m.submodules.slow_lanes = slow = SlowLanes(config, self.form, slow_latency)
        m.submodules.lanes = lanes = Lanes(config, matrix.lane_bits, self.form)

        first = Signal(_travelling(config))
        stages = [first]
        for n in range(1, self._stages + 1):
            stage = Signal(_travelling(config), name=f"stage{n}")
            m.d.sync += stage.eq(stages[-1])
            stages.append(stage)
        reading, before_last, last = stages[-1 - ACC_READ :]

        # Steps that are written in the next two cycles are seen by whoever reads now.
        under_way = stages[1:-ACC_READ]
        m.submodules.steps = steps = StepQueue(config, len(under_way))
        wiring.connect(m, wiring.flipped(self.i), steps.i)
        for stage, seen in zip(under_way, steps.under_way, strict=True):
            m.d.comb += [seen.step.eq(stage.step), seen.dst.eq(stage.dst)]
        step = steps.o.payload
        does = step.operation
        slow_step, by_register = Signal(), Signal()
        late = reading.late
        m.d.comb += [
            slow_step.eq(step.step & ~step.fault & step.slow),
            by_register.eq(~does.use_imm & ~step.reads_qnt),
        ]
        before = stages[-2 - ACC_READ].operation
        late_src = late & delayed(m, before.alu & ~before.use_imm, 1)
        no_port = Mux(by_register, late, late_src)
        issued = Signal()
        turn, part = self._turn(m, issued & slow_step)
        m.d.comb += [
            steps.o.ready.eq(~(slow_step & (~turn | no_port | steps.meets))),
            issued.eq(steps.o.valid & steps.o.ready),
            self.issued.eq(first.step),
            self.gemm_step.eq(first.step & does.multiply),
            self.alu_step.eq(first.step & does.alu),
        ]
        with m.If(issued):
            m.d.comb += [
                first.step.eq(step.step & ~step.fault),
                first.slow.eq(slow_step),
                first.last.eq(step.last),
                first.fault.eq(step.fault),
                first.late.eq(step.step & ~step.fault & ~slow_step & (does.alu | does.accumulate)),
            ]
        m.d.comb += [  # of what is not issued, nobody looks at these
            first.operation.eq(does),
            first.dst.eq(step.dst),
            first.src.eq(step.src),
        ]

        multiplies, early = Signal(), Signal()
        elsewhere = Signal()  # what ``dst`` has no time for
        came_elsewhere = delayed(m, elsewhere, ACC_READ)
        use_src = (early & by_register) | elsewhere | late_src
        src_choices = [(late_src, reading.src), (elsewhere, step.dst), (C(1), step.src)]
        dst_choices = [(late, reading.dst), (C(1), step.dst)]
        dst, _ = self._read(m, self.dst, early | late, dst_choices, before_last, last)
        src, second = self._read(m, self.src, use_src, src_choices, before_last, last)
        # Products are there in the last cycle, so that no sum has to wait: addresses are shorter.
        later = self._stages - 1 - matrix.latency
        m.d.comb += [
            # No such step waits; and what is read for one that waits, nobody looks at.
            multiplies.eq(steps.o.valid & step.step & ~step.fault & does.multiply),
            early.eq(steps.o.valid & slow_step & turn),
            elsewhere.eq(early & late),
            self.ahead.enable.eq(use_src),
            self.ahead.address.eq(_first(src_choices)),
            Cat(self.inp.enable, self.inp.address).eq(
                delayed(m, Cat(multiplies, step.src[: config.inp_index_bits]), later)
            ),
            matrix.inp.eq(self.inp.data),
            matrix.wgt.eq(self.wgt.data),
            slow.start.eq(stages[ACC_READ].slow),
            slow.operation.eq(stages[ACC_READ].operation),
            slow.dst.eq(Mux(came_elsewhere, src, dst)),
            slow.src.eq(src),
            lanes.operation.eq(before_last.operation),
            lanes.dst.eq(dst),
            lanes.second.eq(second),
            lanes.sum.eq(matrix.sum),
            lanes.slow.eq(slow.o),
            self.write.valid.eq(last.step),
            self.write.address.eq(last.dst),
            self.write.mask.eq(1),
            self.write.data.eq(lanes.o),
            # Of an instruction that ends, others may read the result from now on.
            self.superseded.eq(before_last.step & (before_last.dst == last.dst) & ~last.last),
            self.done.eq(last.last & ~last.fault),
            self.fault.eq(last.fault),
        ]
        weights = delayed(m, Cat(multiplies, step.wgt), later + matrix.ahead)
        m.d.comb += Cat(self.wgt.enable, self.wgt.address).eq(weights)
        if config.taps:
            m.d.comb += matrix.depthwise.eq(stages[later + 1 + matrix.ahead].operation.depthwise)
        within = step.lane.any() if config.sliding else 0
        if config.neighbours > 1:
            following = (does.depthwise if config.taps else 0) | within
            m.d.comb += self.inp.following.eq(delayed(m, following, later))
        if config.sliding:
            m.d.comb += matrix.slide.eq(delayed(m, step.lane, later + 1))
        if config.requantize:
            reads, index, parameters = early & step.reads_qnt, step.src, self.qnt.data
            m.d.comb += self.qnt_ahead.eq(reads)
            if self.form == "simulation":
                reads, index = (delayed(m, value, ACC_READ - 1) for value in (reads, index))
            else:
                parameters = delayed(m, parameters, ACC_READ - 1)
                if len(part):
                    reads, index = C(1), Mux(turn, index, delayed(m, index, 1, turn))
            address = Cat(index[: config.qnt_index_bits], part)
            m.d.comb += [
                self.qnt.enable.eq(reads),
                self.qnt.address.eq(address),
                slow.qnt.eq(parameters),
            ]
        return m

    def _turn(self, m: Module, issued: Value) -> tuple[Value, Value]:
        """Whether lanes that take turns have had the operands of the step issued before, and else
        which part of the parameters is read for it.
        """
        turns, parts = self.config.rescale_cycles, step_parts(self.config, self.form)
        if turns == 1:
            return C(1), C(0, 0)
        left, part = Signal(turns - 1), Signal(exact_log2(parts))
        m.d.sync += left.eq(Mux(issued, ~0, left >> 1))
        m.d.sync += part.eq(part + (issued | left[0]))  # the turns are a multiple of the parts
        return ~left[0], part

    def _read(self, m: Module, port, enable: Value, choices: Choices, before_last, last):
        """An accumulator, in ``ACC_READ`` cycles, and what then is the second operand of ``last``.

        A simulator reads in the second cycle. A circuit does in the first one and has registers
        behind, which take what is written in between as well.
        """
        index = _first(choices)
        if self.form == "simulation":
            later = delayed(m, index, 1)
            m.d.comb += [port.enable.eq(delayed(m, enable, 1)), port.address.eq(later)]
            m.d.comb += [port.choose.eq(1), port.among[0].eq(later)]
            return port.data, self._second(last.operation, port.data)
        m.d.comb += [port.enable.eq(enable), port.address.eq(index)]
        before, meets = C(0), []
        for number, (wanted, candidate) in enumerate(choices):
            m.d.comb += port.choose[number].eq(wanted & ~before)
            m.d.comb += port.among[number].eq(candidate)
            meets.append(port.choose[number] & (before_last.dst == candidate))
            before = before | wanted
        fresh, data = Signal(), Signal.like(port.data)  # whether the next cycle writes it
        m.d.sync += fresh.eq(before_last.step & Cat(meets).any())
        m.d.comb += data.eq(Mux(fresh, self.write.data, port.data))
        second = self._second(before_last.operation, data)
        return delayed(m, data, 1), delayed(m, second, 1)

    def _second(self, does, src: Value) -> Value:
        config = self.config
        lanes = (acc_lane(src, lane, config) for lane in range(config.batch * config.block))
        return Cat(low_bits(Mux(does.use_imm, does.imm, lane), config.acc_width) for lane in lanes)


Choices = Sequence[tuple[Value, Value]]
"""Indices, each with whether it is wanted if none before it is; the last one always is."""


def _first(choices: Choices) -> Value:
    """The first index that is wanted."""
    *before, (_, chosen) = choices
    for wanted, index in reversed(before):
        chosen = Mux(wanted, index, chosen)
    return chosen


def _travelling(config: AcceleratorConfig) -> data.StructLayout:
    """What accompanies a step, which reads accumulators at once if ``slow``, last if ``late``."""
    return data.StructLayout(
        {
            "step": 1,
            "slow": 1,
            "last": 1,
            "fault": 1,
            "late": 1,
            "operation": OPERATION,
            "dst": config.acc_index_bits,
            "src": config.acc_index_bits,
        }
    )
