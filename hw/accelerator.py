"""The whole accelerator."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.config import AcceleratorConfig
from .arrival import bank_count, write_parts
from .axi import axi4_signature, axi4lite_signature
from .compute import ComputeEngine
from .control import Control
from .counters import Counters
from .fetch import Fetch
from .form import Form
from .input_writes import InputWrites
from .inputs import Inputs
from .load import LoadEngine
from .read_port import ReadPort
from .scheduler import Scheduler
from .scratchpad import Scratchpad
from .store import StoreEngine
from .write_port import WritePort

READERS = ("fetch", "load", "compute")
"""Who reads DRAM, by the AXI id."""


def accelerator_signature(config: AcceleratorConfig) -> wiring.Signature:
    """The pins of an :class:`Accelerator`."""
    return wiring.Signature(
        {
            "m_axi": Out(axi4_signature(config)),
            "s_axil": In(axi4lite_signature()),
            "irq": Out(1),
        }
    )


class Accelerator(wiring.Component):
    """Control, scheduler, fetch, the three engines and the ports to DRAM, connected.

    Parameters
    ----------
    config : AcceleratorConfig
        What to build.
    form : Form
        How arithmetic is built; the same in every cycle.

    Members
    -------
    m_axi : :py:`Out(axi4_signature(config))`
        DRAM: reads of fetch, load and compute by their ids, writes of store.
    s_axil : :py:`In(axi4lite_signature())`
        The registers.
    irq : :py:`Out(1)`
        A program has ended, or a fault has stopped the machine.
    """

    def __init__(self, config: AcceleratorConfig, form: Form = "synthesis"):
        self._config, self._form = config, form
        super().__init__(accelerator_signature(config))

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.control = control = Control(config)
        m.submodules.counters = counters = Counters(config)
        m.submodules.scheduler = scheduler = Scheduler(config)
        m.submodules.fetch = fetch = Fetch(config)
        m.submodules.load = load = LoadEngine(config)
        m.submodules.compute = compute = ComputeEngine(config, self._form)
        m.submodules.store = store = StoreEngine(config, self._form)
        m.submodules.read_port = read_port = ReadPort(
            config, len(READERS), long=(READERS.index("fetch"),)
        )
        m.submodules.write_port = write_port = WritePort(config)
        engines = {"load": load, "compute": compute, "store": store}
        units = {"fetch": fetch, **engines}

        # From the program to the engines.
        wiring.connect(m, control.start, fetch.start)
        wiring.connect(m, fetch.o, scheduler.i)
        m.d.comb += [
            scheduler.clear.eq(control.launch),
            scheduler.halt.eq(control.halt),
            scheduler.fetch_idle.eq(fetch.idle),
            scheduler.count.eq(control.count),
            control.finished.eq(scheduler.finished),
            control.rest.eq(scheduler.fault),
            control.waiting.eq(scheduler.waiting),
        ]
        for name, engine in engines.items():
            body = getattr(scheduler, name)
            wiring.connect(m, body.issue, engine.i)
            m.d.comb += [body.done.eq(engine.done), body.activity.eq(engine.activity)]
        for name, unit in units.items():
            wiring.connect(m, unit.fault, getattr(control, name))

        # Data.
        m.submodules.inp = inp = Inputs(config, self._form)
        m.submodules.wgt = wgt = Scratchpad(
            config.wgt_depth,
            8 * config.wgt_element_bytes,
            write_parts(config, "wgt"),
            banks=bank_count(config, "wgt"),
            late=self._form == "synthesis",
        )
        if config.keeping:
            m.submodules.inp_writes = inp_writes = InputWrites(config)
            wiring.connect(m, load.inp, inp_writes.load)
            wiring.connect(m, store.inp, inp_writes.store)
            wiring.connect(m, inp_writes.o, inp.write)
        else:
            wiring.connect(m, load.inp, inp.write)
        wiring.connect(m, load.wgt, wgt.write)
        wiring.connect(m, compute.inp, inp.read)
        wiring.connect(m, compute.wgt, wgt.read[0])
        for name in compute.filled:
            wiring.connect(m, getattr(load, name), getattr(compute, f"load_{name}"))
        wiring.connect(m, store.acc, compute.store_acc)
        if config.requantize:
            wiring.connect(m, store.qnt, compute.store_qnt)
        for number, name in enumerate(READERS):
            wiring.connect(m, units[name].bus, read_port.client[number])
        wiring.connect(m, store.bus, write_port.client)

        # The outside.
        wiring.connect(m, wiring.flipped(self.s_axil), control.axil)
        m.d.comb += self.irq.eq(control.irq)
        for half in (read_port.axi, write_port.axi):
            for name, member in half.signature.members.items():
                inside, outside = getattr(half, name), getattr(self.m_axi, name)
                m.d.comb += outside.eq(inside) if member.flow is Out else inside.eq(outside)

        # Counters.
        wiring.connect(m, counters.counts, control.counts)
        m.d.comb += [
            counters.clear.eq(control.launch),
            counters.run.eq(control.running),
            counters.gemm_step.eq(compute.gemm_step),
            counters.alu_step.eq(compute.alu_step),
            counters.read_beat.eq(read_port.beat),
            counters.written.eq(write_port.written),
        ]
        for name in engines:
            for event in (f"{name}_activity", f"{name}_done"):
                m.d.comb += getattr(counters, event).eq(getattr(scheduler, event))
        return m
