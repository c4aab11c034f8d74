"""A compute engine between scratchpads and a DRAM, and what it has to do, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from amaranth import Elaboratable, Module
from amaranth.lib import memory
from amaranth.sim import Simulator

from weft.hw.compute import ComputeEngine
from weft.isa import AcceleratorConfig, Instruction, InstructionSet
from weft.isa.formats import uop_layout
from weft.isa.memories import QNT_LANE

SMALL = replace(
    AcceleratorConfig.preset("tiny"),
    uop_bytes=256, inp_bytes=64, wgt_bytes=128, acc_bytes=256, qnt_bytes=256,
)  # fmt: skip
"""Block 4; 64 micro-ops, 16 inputs, 8 weights, 16 accumulators, 4 elements of parameters."""


MULTIPLIES = {
    "gemm", "matmul.set", "depthwise.set", "depthwise.add", "sliding.set", "sliding.add",
}  # fmt: skip
"""The operations whose steps are steps of GEMM to the counters."""


def wrap32(values):
    return (np.asarray(values, np.int64) + 2**31) % 2**32 - 2**31


def bits(lanes, width: int) -> int:
    """Lanes packed from the low bits up."""
    mask = (1 << width) - 1
    return sum((int(v) & mask) << (width * i) for i, v in enumerate(np.ravel(lanes)))


class State:
    """The scratchpads, and what an instruction with steps makes of them."""

    def __init__(self, config: AcceleratorConfig, random: np.random.Generator):
        self.config = config
        lanes = (config.batch, config.block)
        whole = lambda depth, shape, width: random.integers(  # noqa: E731
            -(1 << width - 1), 1 << width - 1, (depth, *shape)
        )
        self.inp = whole(config.inp_depth, lanes, config.inp_width)
        self.wgt = whole(config.wgt_depth, (config.block, config.block), config.wgt_width)
        self.inp[0], self.wgt[0] = self.inp.min(), self.wgt.min()
        self.acc = whole(config.acc_depth, lanes, 32)
        self.uop = random.integers(0, 2**32, config.uop_depth)
        self.qnt = [
            [{r.name: int(random.integers(r.dtype.min, r.dtype.max + 1)) for r in QNT_LANE}
             for _ in range(config.block)]
            for _ in range(config.qnt_depth)
        ]  # fmt: skip
        for element in self.qnt:
            for lane in element:
                lane["multiplier"] = abs(lane["multiplier"]) % 2**31
                lane["low"], lane["high"] = sorted((lane["low"], lane["high"]))

    def indices(self, operands, slides: bool = False):
        """(dst, src, wgt) of every step, in order; ``src`` in lanes if it ``slides``."""
        lanes = {"src": self.config.block if slides else 1}
        layout = uop_layout(self.config)
        for i in range(operands.get("iter_out", 0)):
            for j in range(operands.get("iter_in", 0)):
                for u in range(operands.get("uop_bgn", 0), operands.get("uop_end", 0)):
                    fields = layout.decode(int(self.uop[u]))
                    yield tuple(
                        (fields[n] + i * operands.get(f"{n}_factor_out", 0)) * lanes.get(n, 1)
                        + j * operands.get(f"{n}_factor_in", 0)
                        for n in ("dst", "src", "wgt")
                    )

    def run(self, instruction: Instruction) -> int:
        """Carries it out; returns how many steps it has. IndexError beyond a scratchpad."""
        steps = 0
        for dst, src, wgt in self.indices(
            instruction.operands, instruction.operation.startswith("sliding")
        ):
            steps += 1
            self.acc[dst] = self.step(instruction, dst, src, wgt)
        return steps

    def step(self, instruction: Instruction, dst: int, src: int, wgt: int):
        acc = self.acc[dst]
        match instruction.operation.split("."):
            case ["gemm"]:
                return wrap32(acc + self.inp[src] @ self.wgt[wgt].T)
            case ["matmul", "set"]:
                return wrap32(self.inp[src] @ self.wgt[wgt].T)
            case ["sliding", name]:
                run = self.inp.swapaxes(0, 1).reshape(self.config.batch, -1)
                if src + self.config.block > run.shape[1]:
                    raise IndexError(src)
                product = run[:, src : src + self.config.block] @ self.wgt[wgt].T
                return wrap32(product + (acc if name == "add" else 0))
            case ["depthwise", name]:
                taps = range(self.config.taps)
                if src + len(taps) > len(self.inp):
                    raise IndexError(src)
                return wrap32(
                    sum(self.inp[src + t] * self.wgt[wgt][t] for t in taps)
                    + (acc if name == "add" else 0)
                )
            case ["gemm", "reset"]:
                return np.zeros_like(acc)
            case ["alu", ("scale" | "requantize") as name]:
                return np.vectorize(self.requantized)(acc, self.parameters(src), name)
            case ["alu", name, "imm"]:
                return self.alu(name, acc, np.full_like(acc, instruction.operands["imm"]))
            case ["alu", name]:
                return self.alu(name, acc, self.acc[src])
        raise AssertionError(instruction)

    def parameters(self, src: int):
        return np.array([self.qnt[src]] * self.config.batch, object)

    @staticmethod
    def requantized(x, p, name) -> int:
        x = int(wrap32(int(x) + p["bias"]))
        x, right, even = x << (p["left"] & 31), p["right"] & 31, p["even"] & 1
        most = (2**31 - 1) >> (p["left"] & 31) << (p["left"] & 31)
        x = (min(max(x, -(2**31)), most) if even else int(wrap32(x))) * p["multiplier"]
        x = int(wrap32((x + 2**30) >> 31))
        if even:
            x = round(Fraction(x, 1 << right))
        elif right:
            x = (
                (abs(x) + (1 << right - 1)) >> right
                if x >= 0
                else -((-x + (1 << right - 1)) >> right)
            )
        if name == "scale":
            return int(x)
        return int(np.clip(wrap32(x + p["zero_point"]), p["low"], p["high"]))

    @staticmethod
    def alu(name: str, x, y):
        if name == "shr":
            right = x >> np.clip(y, 0, 31)
            left = np.where(-y <= 31, x << np.clip(-y, 0, 31), 0)
            return wrap32(np.where(y >= 0, right, left))
        functions = {"min": np.minimum, "max": np.maximum, "add": np.add}
        if name == "mul":
            return wrap32(
                [int(a) * int(b) & 0xFFFFFFFF for a, b in zip(x.flat, y.flat, strict=True)]
            ).reshape(x.shape)
        return wrap32(functions[name](x, y))


def image(state: State, scratchpad: str) -> bytes:
    """The DRAM image of all of a scratchpad."""
    if scratchpad == "uop":
        return np.asarray(state.uop, np.uint32).tobytes()
    if scratchpad == "acc":
        return np.asarray(state.acc, np.int32).tobytes()
    assert scratchpad == "qnt"
    out = bytearray()
    for element in state.qnt:
        for lane in element:
            record = bytearray(16)
            for r in QNT_LANE:
                size = r.dtype.bits // 8
                field_bytes = (lane[r.name] & ((1 << r.dtype.bits) - 1)).to_bytes(size, "little")
                record[r.offset : r.offset + size] = field_bytes
            out += record
    return bytes(out)


@dataclass
class Result:
    """What came out of a run."""

    acc: np.ndarray
    done: list[int] = field(default_factory=list)
    """The cycle of every completion."""
    gemm: list[int] = field(default_factory=list)
    alu: list[int] = field(default_factory=list)
    """The cycles of steps."""
    activity: list[int] = field(default_factory=list)
    """Every cycle's."""
    fault: tuple[int, int] | None = None


class Bench(Elaboratable):
    """An engine with INP and WGT as ``state`` has them."""

    def __init__(self, state: State, form: str):
        self.state = state
        self.engine = ComputeEngine(state.config, form)

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = self.engine
        config = self.state.config
        for name in ("inp", "wgt"):
            lanes, port = getattr(self.state, name), getattr(engine, name)
            width = getattr(config, f"{name}_width")
            count = len(port.data) // (lanes[0].size * width)
            cells = [bits(lanes[at : at + count], width) for at in range(len(lanes))]
            m.submodules[name] = element = memory.Memory(
                shape=len(port.data), depth=len(cells), init=cells
            )
            read = element.read_port()
            m.d.comb += [read.addr.eq(port.address), read.en.eq(port.enable)]
            m.d.comb += port.data.eq(read.data)
        return m


def run(
    state: State,
    program: Sequence[Instruction],
    form: str = "simulation",
    stalls: float = 0.0,
    dram: bytes | None = None,
) -> Result:
    """Fills UOP, ACC and QNT through loads, runs ``program``, reads the accumulators.

    ``dram`` is what loads read after the images of UOP, ACC and QNT at 0, 4096 and 8192; every
    list in the result begins with ``program``.
    """
    config = state.config
    instructions = InstructionSet(config)
    content = bytearray(1 << 16)
    names = ["uop", "acc", *(["qnt"] if config.requantize else [])]
    fill = []
    for n, name in enumerate(names):
        data = image(state, name)
        content[4096 * n : 4096 * n + len(data)] = data
        size, depth = getattr(config, f"{name}_element_bytes"), getattr(config, f"{name}_depth")
        box = {"dram_base": 4096 * n // size, "y_size": 1, "x_size": depth, "x_stride": depth}
        fill.append(Instruction(f"load.{name}", box))
    if dram is not None:
        content[4096 * 3 : 4096 * 3 + len(dram)] = dram
    bench = Bench(state, form)
    engine = bench.engine
    words = [instructions.encode(i) for i in (*fill, *program)]
    random = np.random.default_rng(len(words))
    result = Result(np.zeros_like(state.acc))
    pending: list[tuple[int, int]] = []
    issued = finished = False

    async def issue(ctx):
        nonlocal issued
        for index, word in enumerate(words):
            if index == len(fill):
                while not ctx.get(engine.idle):
                    await ctx.tick()
                result.done.clear()
                result.activity.clear()
            ctx.set(engine.i.payload.word, word)
            ctx.set(engine.i.payload.index, index - len(fill))
            ctx.set(engine.i.valid, 1)
            await ctx.tick().until(engine.i.ready | engine.fault.valid)
            ctx.set(engine.i.valid, 0)
            if ctx.get(engine.fault.valid):
                break
            while stalls and random.random() < stalls:
                await ctx.tick()
        issued = True

    async def watch(ctx):
        nonlocal finished
        cycle = 0
        while not (issued and ctx.get(engine.idle)) and not ctx.get(engine.fault.valid):
            for flag, cycles in (
                (ctx.get(engine.done), result.done),
                (ctx.get(engine.gemm_step), result.gemm),
                (ctx.get(engine.alu_step), result.alu),
            ):
                if flag:
                    cycles.append(cycle)
            result.activity.append(ctx.get(engine.activity).value)
            await ctx.tick()
            cycle += 1
            assert cycle < 20000
        if ctx.get(engine.fault.valid):
            for _ in range(40):
                assert not ctx.get(engine.done)
                await ctx.tick()
            result.fault = ctx.get(engine.fault.code), ctx.get(engine.fault.index)
        port = engine.store_acc
        for address in range(config.acc_depth):
            ctx.set(port.enable, 1)
            ctx.set(port.address, address)
            await ctx.tick()
            size = 8 * config.acc_element_bytes
            data = ctx.get(port.data) >> address % (len(port.data) // size) * size
            lanes = [data >> (32 * n) & 0xFFFFFFFF for n in range(result.acc[0].size)]
            result.acc[address] = wrap32(lanes).reshape(result.acc[address].shape)
        finished = True

    async def requests(ctx):
        ctx.set(engine.bus.request.ready, 1)
        async for _, _, valid, address, beats in ctx.tick().sample(
            engine.bus.request.valid, engine.bus.request.p.address, engine.bus.request.p.beats
        ):
            if valid:
                pending.append((address, beats))

    async def beats(ctx):
        bus = engine.bus.beat
        while True:
            while not pending:
                await ctx.tick()
            address, count = pending.pop(0)
            for n in range(count):
                while random.random() < stalls:
                    await ctx.tick()
                at = address + n * config.bus_bytes
                value = int.from_bytes(content[at : at + config.bus_bytes], "little")
                ctx.set(bus.payload.data, value)
                ctx.set(bus.valid, 1)
                await ctx.tick().until(bus.ready)
                ctx.set(bus.valid, 0)

    sim = Simulator(bench)
    sim.add_clock(1e-6)
    sim.add_process(requests)
    sim.add_testbench(beats, background=True)
    sim.add_testbench(issue)
    sim.add_testbench(watch)  # last: it sees what the others have set in the same cycle
    sim.run()
    assert finished
    return result
