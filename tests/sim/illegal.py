"""Illegal programs, and where they stop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.programs import DRAM_BYTES, STREAM, Program, program_of
from weft.isa import PRESETS, AcceleratorConfig, FaultCode, InstructionSet
from weft.isa.assembly import assemble
from weft.isa.faults import WAITS
from weft.isa.ordering import DISPATCHED

TINY = PRESETS["tiny"]
PLAIN = replace(TINY, requantize=False, pad_value=False, overwrite=False)
ALIGNED = replace(TINY, depthwise_taps=0, sliding_steps=False, stores_inputs=False)
SHORT = replace(TINY, token_depth=2)


@dataclass(frozen=True)
class Case:
    """A program and how it ends: code, engine, index, bits of WAITING."""

    name: str
    text: str
    fault: tuple[FaultCode, str, int] | None
    waiting: tuple[int, ...] = ()
    config: AcceleratorConfig = TINY
    bad: tuple[int, int] = (0, 0)
    """Bytes that the bus answers with errors."""

    @property
    def program(self) -> Program:
        """What is run."""
        return program_of(self.config, assemble(self.text, self.config), bad=self.bad)

    @property
    def stop(self) -> tuple[FaultCode, str, int, tuple[str, ...]] | None:
        """As an outcome has it; None if the program is legal after all."""
        if self.fault is None:
            return None
        return (*self.fault, tuple(WAITS[bit][2] for bit in self.waiting))


def word(config: AcceleratorConfig, opcode: int, **values: int) -> str:
    layout = InstructionSet(config).layouts[opcode]
    return f".word {layout.encode({'opcode': opcode, **values}):#x}\n"


def at_end(depth: int, count: int = 2) -> str:
    return f"sram_base={depth - count + 1} y_size=1 x_size={count}"


RESERVED, PAD, ROUTE, RANGE = (
    FaultCode.RESERVED, FaultCode.STORE_PAD, FaultCode.TOKEN_ROUTE, FaultCode.SRAM_RANGE,
)  # fmt: skip
READ, WRITE, DEADLOCK = FaultCode.BUS_READ, FaultCode.BUS_WRITE, FaultCode.DEADLOCK
STEP = "uop_end=1 iter_out=1 iter_in=1"
BEYOND = DRAM_BYTES


def beyond(size: int) -> str:
    return f"dram_base={BEYOND // size - 1} y_size=1 x_size=2"


STATIC = [
    *(
        Case(f"opcode-{o}", f"load.inp\n.word {o:#x}\nfinish", (RESERVED, "fetch", 1), config=PLAIN)
        for o in (5, 6, 7)
    ),
    Case("load-out", word(TINY, 0, memory_type=4) + "finish", (RESERVED, "fetch", 0)),
    Case("load-taps", word(PLAIN, 0, memory_type=7), (RESERVED, "fetch", 0), config=PLAIN),
    Case("load-qnt", word(PLAIN, 0, memory_type=6), (RESERVED, "fetch", 0), config=PLAIN),
    *(
        Case(f"store-{t}", word(TINY, 1, memory_type=t), (RESERVED, "fetch", 0))
        for t in (1, 2, 3, 5, 6, 7)
    ),
    Case("store-nop-x", word(TINY, 1, x_size=1) + "finish", (RESERVED, "store", 0)),
    Case("alu-7", word(TINY, 4, alu_opcode=7), (RESERVED, "fetch", 0)),
    Case("alu-scale-imm", word(TINY, 4, alu_opcode=5, use_imm=1), (RESERVED, "fetch", 0)),
    Case("alu-5", word(PLAIN, 4, alu_opcode=5), (RESERVED, "fetch", 0), config=PLAIN),
    *(Case(f"matmul-{m}", word(TINY, 5, mode=m), (RESERVED, "fetch", 0)) for m in (1, 6, 7)),
    Case("sliding", word(ALIGNED, 5, mode=4), (RESERVED, "fetch", 0), config=ALIGNED),
    Case("depthwise", word(ALIGNED, 5, mode=2), (RESERVED, "fetch", 0), config=ALIGNED),
    *(Case(f"loadx-{t}", word(TINY, 6, memory_type=t), (RESERVED, "fetch", 0)) for t in (4, 7)),
    Case("loadx-reserved", word(TINY, 6, memory_type=2, reserved=8), (RESERVED, "fetch", 0)),
    *(Case(f"storex-{t}", word(TINY, 7, memory_type=t), (RESERVED, "fetch", 0)) for t in (0, 3, 7)),
    Case("storex-inp", word(ALIGNED, 7, memory_type=2), (RESERVED, "fetch", 0), config=ALIGNED),
    Case("store-inp", word(TINY, 1, memory_type=2), (RESERVED, "fetch", 0)),
    Case("storex-reserved", word(TINY, 7, memory_type=4, reserved=1), (RESERVED, "fetch", 0)),
    *(
        Case(f"store-{pad}", f"store.out {pad}=1\nfinish", (PAD, "store", 0))
        for pad in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
    ),
    Case("store-nop-pad", "store.nop x_pad_0=1\nfinish", (PAD, "store", 0)),
    Case("store-pad-route", "store.out x_pad_0=1 | push_next", (PAD, "store", 0)),
    *(
        Case(f"load-{flag}", f"load.wgt | {flag}\nfinish", (ROUTE, "load", 0))
        for flag in ("pop_prev", "push_prev")
    ),
    *(
        Case(f"store-{flag}", f"finish\nstore.out | {flag}", None)  # never dispatched
        for flag in ("pop_next", "push_next")
    ),
    *(
        Case(f"store-{flag}-before", f"store.nop | {flag}\nfinish", (ROUTE, "store", 0))
        for flag in ("pop_next", "push_next")
    ),
    *(
        Case(f"loadx-route-{name}", f"loadx.{name} | push_prev", (ROUTE, "load", 0))
        for name in ("inp", "wgt", "uop", "acc", "acc8", "qnt")
    ),
    Case("illegal-beats-deadlock", "load.inp | pop_next\n.word 0x387\n", (RESERVED, "fetch", 1)),
    Case("illegal-beats-no-finish", "load.inp\nload.inp | pop_prev", (ROUTE, "load", 1)),
]

RANGES = [
    *(
        Case(
            f"load-{name}",
            f"load.{name} {at_end(depth)}\nfinish",
            (RANGE, "load" if name in ("inp", "wgt", "taps") else "compute", 0),
        )
        for name, depth in (
            ("inp", TINY.inp_depth), ("wgt", TINY.wgt_depth), ("taps", TINY.wgt_depth),
            ("uop", TINY.uop_depth),
            ("acc", TINY.acc_depth), ("acc8", TINY.acc_depth), ("qnt", TINY.qnt_depth),
        )
    ),
    *(
        Case(f"loadx-{name}", f"loadx.{name} {at_end(depth)}\nfinish", (RANGE, "load", 0))
        for name, depth in (
            ("inp", TINY.inp_depth), ("wgt", TINY.wgt_depth), ("uop", TINY.uop_depth),
            ("acc", TINY.acc_depth), ("acc8", TINY.acc_depth), ("qnt", TINY.qnt_depth),
        )
    ),
    Case(
        "load-pad", f"load.inp sram_base={TINY.inp_depth - 2} y_size=1 x_size=1 x_pad_1=2",
        (RANGE, "load", 0),
    ),
    Case(
        "load-pad-row", f"load.inp sram_base={TINY.inp_depth - 1} y_size=0 x_size=1 y_pad_0=2",
        (RANGE, "load", 0),
    ),
    Case("load-far", "load.inp sram_base=65535 y_size=1 x_size=1", (RANGE, "load", 0)),
    Case("load-nothing", "load.inp sram_base=65535 y_size=5\nfinish", None),
    Case("load-no-rows", "load.inp sram_base=65535 x_size=5\nfinish", None),
    Case(
        "store", f"store.out dram_base=0x3000 {at_end(TINY.acc_depth)}", (RANGE, "store", 0)
    ),
    Case(
        "storex", f"storex.out dram_base=0x3000 {at_end(TINY.acc_depth)}", (RANGE, "store", 0)
    ),
    Case(
        "storex-qnt",
        f"storex.out dram_base=0x3000 y_size=2 x_size=1 qnt_base={TINY.qnt_depth - 1} qnt_step=1",
        (RANGE, "store", 0),
    ),
    *(
        Case(f"storex-inp-{name}", f"storex.inp {box}", (RANGE, "store", 0))
        for name, box in (
            ("acc", at_end(TINY.acc_depth)),
            ("row", f"dram_base={TINY.inp_depth - 1} y_size=1 x_size=2"),
            ("second", f"dram_base=1 y_size=2 x_size=1 x_stride={TINY.inp_depth - 1}"),
            ("far", "dram_base=0xffffffff y_size=1 x_size=1"),
            ("wraps", "dram_base=0x80000000 y_size=1 x_size=1"),
        )
    ),
    Case(
        "storex-inp-last", f"storex.inp dram_base={TINY.inp_depth - 2} y_size=2 x_size=1 "
        "x_stride=1\nfinish", None,
    ),
    Case("storex-inp-nothing", "storex.inp dram_base=0xffffffff y_size=1\nfinish", None),
    Case("storex-inp-no-rows", "storex.inp dram_base=0xffffffff x_size=1\nfinish", None),
    Case(
        "storex-qnt-kept",
        f"storex.out dram_base=0x3000 y_size=2 x_size=1 qnt_base={TINY.qnt_depth - 1}\nfinish",
        None,
    ),
    *(
        Case(
            f"{name}-{role}",
            f"{name} uop_end=1 iter_out=2 iter_in=3 {role}_factor_out={depth - 2} "
            f"{role}_factor_in=1\nfinish",
            (RANGE, "compute", 0),
        )
        for name, role, depth in (
            ("gemm", "dst", TINY.acc_depth),
            ("gemm", "src", TINY.inp_depth),
            ("gemm", "wgt", TINY.wgt_depth),
            ("gemm.reset", "dst", TINY.acc_depth),
            ("matmul.set", "dst", TINY.acc_depth),
            ("matmul.set", "src", TINY.inp_depth),
            ("matmul.set", "wgt", TINY.wgt_depth),
            ("depthwise.set", "src", TINY.inp_depth - 2),  # the last step's taps end beyond
            ("depthwise.add", "src", TINY.inp_depth - 1),
            ("depthwise.add", "wgt", TINY.wgt_depth),
            ("sliding.set", "src", TINY.inp_depth + 1),  # a lane of the last element
            ("sliding.add", "wgt", TINY.wgt_depth),
            ("alu.add", "dst", TINY.acc_depth),
            ("alu.add", "src", TINY.acc_depth),
            ("alu.max.imm", "dst", TINY.acc_depth),
            ("alu.scale", "dst", TINY.acc_depth),
            ("alu.scale", "src", TINY.qnt_depth),
            ("alu.requantize", "src", TINY.qnt_depth),
        )
    ),
    Case(
        "depthwise-last", f"depthwise.set uop_end=1 iter_out=2 iter_in=1 "
        f"src_factor_out={TINY.inp_depth - TINY.taps}\nfinish", None,
    ),
    Case(
        "sliding-last", f"sliding.set uop_end=1 iter_out=2 iter_in=2 "
        f"src_factor_out={TINY.inp_depth - 2} src_factor_in={TINY.block}\nfinish", None,
    ),
    *(
        Case(f"{name}-unused-{role}", f"{name} uop_end=1 iter_out=2 iter_in=1 {role}_factor_out={n}"
             "\nfinish", None)
        for name, role, n in (
            ("gemm.reset", "src", TINY.inp_depth - 1), ("gemm.reset", "wgt", TINY.wgt_depth - 1),
            ("alu.add.imm", "src", TINY.acc_depth - 1),
        )
    ),
    Case("uop", f"gemm uop_bgn={TINY.uop_depth - 1} uop_end={TINY.uop_depth + 1} iter_out=1 "
         "iter_in=1", (RANGE, "compute", 0)),
    Case("uop-empty", f"gemm uop_bgn=5 uop_end=5 {STEP.partition(' ')[2]}\nfinish", None),
    Case("uop-backwards", f"gemm uop_bgn={TINY.uop_depth - 1} {STEP}\nfinish", None),
    Case("no-trips", f"gemm uop_end={2 * TINY.uop_depth - 1} iter_out=0 iter_in=9\nfinish", None),
    Case("second", f"load.inp\nload.inp {at_end(TINY.inp_depth)}\nfinish", (RANGE, "load", 1)),
    Case("before-illegal", f"gemm.reset uop_end=1 iter_out=2 iter_in=1 dst_factor_out=511\n"
         f"load.wgt {at_end(TINY.wgt_depth)}\n.word 0x387", (RANGE, "load", 1)),
]  # fmt: skip

BUS = [
    *(
        Case(f"load-{name}", f"load.{name} {beyond(size)}\nfinish", (READ, engine, 0))
        for name, size, engine in (
            ("inp", TINY.inp_element_bytes, "load"), ("wgt", TINY.wgt_element_bytes, "load"),
            ("uop", 4, "compute"), ("acc", TINY.acc_element_bytes, "compute"),
            ("acc8", TINY.acc8_element_bytes, "compute"),
            ("qnt", TINY.qnt_element_bytes, "compute"),
        )
    ),
    *(
        Case(f"loadx-{name}", f"loadx.{name} {beyond(size)}\nfinish", (READ, "load", 0))
        for name, size in (
            ("inp", TINY.inp_element_bytes), ("wgt", TINY.wgt_element_bytes), ("uop", 4),
            ("acc", TINY.acc_element_bytes), ("acc8", TINY.acc8_element_bytes),
            ("qnt", TINY.qnt_element_bytes),
        )
    ),
    Case("load-far", "load.inp dram_base=0xfffffff y_size=1 x_size=1", (READ, "load", 0)),
    Case(
        "load-second-row",
        f"load.inp dram_base={BEYOND // 4 - 1} y_size=2 x_size=1 x_stride=1", (READ, "load", 0),
    ),
    Case("load-only-pads", "load.inp dram_base=0xfffffff x_size=1 y_pad_0=1\nfinish", None),
    Case("store", f"store.out {beyond(TINY.out_element_bytes)}", (WRITE, "store", 0)),
    Case("storex", f"storex.out {beyond(TINY.out_element_bytes)}", (WRITE, "store", 0)),
    *(
        Case(f"fetch-{name}", "load.inp\n" * 4 + "finish", (READ, "fetch", index),
             bad=(STREAM + 16 * index + 3, STREAM + 16 * index + 4))
        for index, name in ((0, "first"), (2, "middle"), (4, "finish"))
    ),
    Case("fetch-after-finish", "finish\n.word 0x7", (READ, "fetch", 1),
         bad=(STREAM + 31, STREAM + 32)),
    Case("fetch-beats-deadlock", "load.inp | pop_next\nload.inp\nfinish", (READ, "fetch", 1),
         bad=(STREAM + 16, STREAM + 17)),
    Case("fetch-beyond-the-stream", "finish", None, bad=(STREAM + 16, STREAM + 96)),
    Case(
        "last", f"store.out dram_base={BEYOND // 4 - 1} y_size=1 x_size=1\nfinish", None
    ),
]  # fmt: skip

STUCK = [
    Case("load-pop", "load.inp | pop_next\nfinish", (DEADLOCK, "load", 0), (0,)),
    Case("compute-pop-prev", "load.inp\ngemm | pop_prev\nfinish", (DEADLOCK, "compute", 1), (1,)),
    Case("compute-pop-next", "gemm | pop_next\nfinish", (DEADLOCK, "compute", 0), (2,)),
    Case("store-pop", "gemm\nstore.nop | pop_prev\nfinish", (DEADLOCK, "store", 1), (3,)),
    Case("both", "gemm | pop_prev pop_next\nfinish", (DEADLOCK, "compute", 0), (1, 2)),
    Case(
        "one-of-both", "load.inp | push_next\ngemm | pop_prev pop_next\nfinish",
        (DEADLOCK, "compute", 1), (2,),
    ),
    Case("finish", "gemm\nfinish | pop_prev", (DEADLOCK, "compute", 1), (1,)),
    Case(
        "circle", "load.inp | pop_next push_next\ngemm | pop_prev push_prev\nfinish",
        (DEADLOCK, "load", 0), (0, 1),
    ),
    Case(
        "all-three", "store.nop | pop_prev\ngemm | pop_next\nload.inp | pop_next\nfinish",
        (DEADLOCK, "load", 2), (0, 2, 3),
    ),
    Case(
        "load-room", "load.inp | push_next\n" * 3 + "finish", (DEADLOCK, "load", 2), (4,),
        config=SHORT,
    ),
    Case(
        "compute-room", "gemm | push_prev push_next\n" * 4 + "finish", (DEADLOCK, "compute", 2),
        (5, 6), config=SHORT,
    ),
    Case(
        "store-room", "gemm\n" + "store.nop | push_prev\n" * 5 + "finish", (DEADLOCK, "store", 3),
        (7,), config=SHORT,
    ),
    Case(
        "room-comes-with-a-token-taken-early",
        "load.inp | push_next\n" * 3 + "gemm | pop_prev pop_next\nfinish",
        (DEADLOCK, "compute", 3), (2,), config=SHORT,
    ),
    Case("just-enough-room", "load.inp | push_next\n" * 2 + "finish", None, config=SHORT),
    Case("later-in-the-stream", "gemm | pop_prev\nload.inp | push_next\nfinish", None),
    Case(
        "just-near-enough", "load.inp\nload.inp | pop_next\n" + "load.inp\n" * (DISPATCHED - 1)
        + "gemm | push_prev\nfinish", None,
    ),
    Case(
        "too-far-ahead", "load.inp\nload.inp | pop_next\n" + "load.inp\n" * DISPATCHED
        + "gemm | push_prev\nfinish", (DEADLOCK, "load", 1), (0,),
    ),
    Case(
        "too-far-ahead-for-its-neighbours",
        "store.nop | pop_prev\nload.inp | pop_next\n" + "load.inp\n" * DISPATCHED
        + "gemm | pop_prev push_next\nfinish", (DEADLOCK, "load", 1), (0, 3),
    ),
    Case(
        "illegal-out-of-sight", "gemm | pop_prev\n" * (DISPATCHED + 1) + ".word 0x387\n",
        (DEADLOCK, "compute", 0), (1,),
    ),
    Case(
        "illegal-in-sight", "gemm | pop_prev\n" * DISPATCHED + ".word 0x387\n",
        (RESERVED, "fetch", DISPATCHED),
    ),
    Case("no-finish", "load.inp\ngemm\n", (FaultCode.NO_FINISH, "fetch", 2)),
    Case("empty", "", (FaultCode.NO_FINISH, "fetch", 0)),
    Case("after-finish", "finish\n.word 0x7ff\nload.inp | pop_prev\n", None),
]  # fmt: skip

CASES = {
    f"{group}:{case.name}": case
    for group, cases in (("static", STATIC), ("range", RANGES), ("bus", BUS), ("stuck", STUCK))
    for case in cases
}
