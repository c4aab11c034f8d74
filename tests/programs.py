"""Random programs for any configuration that mean one thing only.

A program is generated as if it ran one instruction after another. Whenever an instruction
touches what an earlier one of another engine touches, tokens order the two; further tokens are
sprinkled in. At last the engines' streams are merged at random, for the order of the stream means
nothing between engines, as long as none of them is behind by more than may wait there. Since the
order of generation is a legal execution, nothing deadlocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from weft.isa import AcceleratorConfig, Engine, Instruction, InstructionSet, MemoryType
from weft.isa.assembly import disassemble
from weft.isa.config import QNT_LANE_BYTES
from weft.isa.formats import UOP_BYTES, uop_layout
from weft.isa.golden import MULTIPLIES
from weft.isa.memories import MEMORIES, QNT_LANE
from weft.isa.ordering import DISPATCHED

ENGINES = tuple(Engine)
STREAM = 0x1000
TABLES = 0x4000
"""Of micro-ops, which no store touches."""
TABLE_UOPS = 512
ZERO_UOP = TABLES + (TABLE_UOPS - 1) * UOP_BYTES
DATA, DATA_END = 0x5000, 0x14000
"""What loads read; the upper half is also what stores write."""
STORED = 0xC000
DRAM_BYTES = 0x18000
NOPS = {Engine.LOAD: "load.inp", Engine.COMPUTE: "load.uop", Engine.STORE: "store.nop"}
ROWS, COLUMNS = (1, 2, 3, 4, 0), (1, 2, 3, 4, 5, 6, 0)
TRIPS = (1, 2, 3, 4, 5, 0)
"""Zero is possible everywhere, and rare."""


@dataclass(frozen=True)
class Program:
    """Memory with an instruction stream in it."""

    config: AcceleratorConfig
    image: np.ndarray
    words: tuple[int, ...]
    address: int = STREAM

    @property
    def count(self) -> int:
        """Instructions in the stream."""
        return len(self.words)

    @property
    def text(self) -> str:
        """The stream as assembly."""
        return f"; {self.config}\n{disassemble(self.words, self.config)}"

    def __repr__(self) -> str:
        return f"Program(\n{self.text})"


def program_of(
    config: AcceleratorConfig, words: list[int], image: np.ndarray | None = None
) -> Program:
    """A stream in otherwise empty memory, or in a copy of ``image``."""
    image = np.zeros(DRAM_BYTES, np.uint8) if image is None else image.copy()
    stream = b"".join(word.to_bytes(16, "little") for word in words)
    image[STREAM : STREAM + len(stream)] = np.frombuffer(stream, np.uint8)
    return Program(config, image, tuple(words))


Touched = tuple[str, int, int, bool]
"""A memory, the first and one past the last element or byte, and whether it is written."""


@dataclass
class _Planned:
    """An instruction in the making."""

    engine: Engine
    instruction: Instruction
    touched: list[Touched] = field(default_factory=list)
    place: int = 0

    def flag(self, name: str) -> None:
        self.instruction = replace(self.instruction, **{name: True})


def _between(a: Engine, b: Engine, word: str) -> str:
    """The flag by which ``a`` pops from or pushes to its neighbour ``b``."""
    return f"{word}_{'next' if ENGINES.index(b) > ENGINES.index(a) else 'prev'}"


class _Sync:
    """Tokens: who knows that what has completed."""

    def __init__(self, token_depth: int):
        self.room = min(token_depth, 4)
        self.streams: dict[Engine, list[_Planned]] = {e: [] for e in ENGINES}
        self.knows = {e: dict.fromkeys(ENGINES, 0) for e in ENGINES}  # how many of each are done
        pairs = [(Engine.LOAD, Engine.COMPUTE), (Engine.COMPUTE, Engine.STORE)]
        pairs += [(b, a) for a, b in pairs]
        self.pending: dict[tuple[Engine, Engine], deque[dict[Engine, int]]] = {
            pair: deque() for pair in pairs
        }

    def add(self, planned: _Planned) -> None:
        """Append an instruction, ordered after everything that it conflicts with."""
        for other in ENGINES:
            if other is not planned.engine:
                rivals = [p.place for p in self.streams[other] if _conflict(p, planned)]
                if rivals and self.knows[planned.engine][other] <= max(rivals):
                    self.order(other, planned.engine, max(rivals) + 1)
        self.append(planned)

    def append(self, planned: _Planned) -> None:
        stream = self.streams[planned.engine]
        planned.place = len(stream)
        stream.append(planned)
        self.knows[planned.engine][planned.engine] = len(stream)

    def nop(self, engine: Engine) -> _Planned:
        planned = _Planned(engine, Instruction(NOPS[engine]))
        self.append(planned)
        return planned

    def order(self, first: Engine, then: Engine, count: int) -> None:
        """Let ``then`` know that ``count`` instructions of ``first`` have completed."""
        if {first, then} == {Engine.LOAD, Engine.STORE}:
            self.order(first, Engine.COMPUTE, count)
            if self.knows[then][first] < count:
                self.order(Engine.COMPUTE, then, self.knows[Engine.COMPUTE][Engine.COMPUTE])
            return
        while self.knows[then][first] < count:
            if not self.pending[first, then]:
                self.push(first, then)
            self.pop(first, then)

    def push(self, first: Engine, then: Engine) -> bool:
        """The last instruction of ``first`` sends a token, unless it does or there is no room."""
        stream, queue = self.streams[first], self.pending[first, then]
        flag = _between(first, then, "push")
        if not stream or getattr(stream[-1].instruction, flag) or len(queue) >= self.room:
            return False
        stream[-1].flag(flag)
        queue.append(dict(self.knows[first]))
        return True

    def pop(self, first: Engine, then: Engine) -> None:
        """A new instruction of ``then`` that does nothing else takes the oldest token."""
        known = self.pending[first, then].popleft()
        self.nop(then).flag(_between(then, first, "pop"))
        for engine in ENGINES:
            self.knows[then][engine] = max(self.knows[then][engine], known[engine])

    def fold(self) -> None:
        """Move the pops of an instruction that does nothing to the next, where that is free."""
        for engine, stream in self.streams.items():
            folded: list[_Planned] = []
            for planned in stream:
                last = folded[-1].instruction if folded else None
                idle = last is not None and last.operation == NOPS[engine] and not last.operands
                pops = [
                    f for f in ("pop_prev", "pop_next") if last is not None and getattr(last, f)
                ]
                pushes = last is not None and (last.push_prev or last.push_next)
                taken = any(getattr(planned.instruction, f) for f in pops)
                if idle and pops and not pushes and not taken:
                    folded.pop()
                    for flag in pops:
                        planned.flag(flag)
                folded.append(planned)
            stream[:] = folded


def _conflict(a: _Planned, b: _Planned) -> bool:
    return any(
        memory == other and first < end and start < last and (writes or wrote)
        for memory, first, last, writes in a.touched
        for other, start, end, wrote in b.touched
    )


# --- the strategy --------------------------------------------------------------------------------


@st.composite
def programs(draw: st.DrawFn, config: AcceleratorConfig, most: int = 16) -> Program:
    """A legal program of up to ``most`` instructions, not counting those that only wait."""
    maker = _Maker(config, draw)
    if draw(st.booleans()):
        maker.fill()
    for _ in range(draw(st.integers(1, most))):
        maker.step()
    if draw(st.booleans()):
        maker.reveal()
    return maker.program()


@st.composite
def token_programs(draw: st.DrawFn, config: AcceleratorConfig) -> Program:
    """Instructions that do nothing but take and send tokens, right or wrong, some in long rows.

    Rows are about as long as what may wait at an engine. In the end there may be something
    illegal.
    """
    instructions = InstructionSet(config)
    words: list[int] = []
    rows = (0, 0, 0, DISPATCHED - 2, DISPATCHED - 1, DISPATCHED)
    for _ in range(draw(st.integers(1, 8))):
        engine = draw(st.sampled_from(ENGINES))
        sides = ["prev"] * (engine is not Engine.LOAD) + ["next"] * (engine is not Engine.STORE)
        flags = draw(st.sets(st.sampled_from([f"{w}_{s}" for w in ("pop", "push") for s in sides])))
        words.append(instructions.encode(Instruction(NOPS[engine], **dict.fromkeys(flags, True))))
        nop = instructions.encode(Instruction(NOPS[engine]))
        words += [nop] * draw(st.sampled_from(rows))
    end = draw(st.sampled_from(("finish", "finish", "illegal", "none")))
    if end != "none":
        finish = instructions.encode(Instruction("finish"))
        words.append(finish if end == "finish" else (1 << 128) - 1)
    return program_of(config, words)


class _Maker:
    """Draws instructions and keeps track of what they touch."""

    def __init__(self, config: AcceleratorConfig, draw: st.DrawFn):
        self.config, self.draw = config, draw
        self.instructions = InstructionSet(config)
        self.sync = _Sync(config.token_depth)
        self.image = image_for(config, self.integer(0, 1 << 16))
        self.uops = [0] * config.uop_depth
        names = self.instructions.operations
        kinds: dict[str, Callable[[str], _Planned | None]] = {}
        for name in names:
            if name.startswith("load"):
                kinds[name] = self.load
            elif name in ("store.out", "storex.out"):
                kinds[name] = self.store
            elif name.startswith(("gemm", "matmul", "depthwise", "alu")):
                kinds[name] = self.nest
        self.kinds = kinds
        groups = ("load", "gemm", "matmul", "depthwise", "alu", "store")
        self.groups = [g for g in groups if any(n.startswith(g) for n in kinds)]

    def integer(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def step(self) -> None:
        group = self.draw(st.sampled_from(self.groups))
        name = self.draw(st.sampled_from([n for n in self.kinds if n.startswith(group)]))
        planned = self.kinds[name](name)
        if planned is not None:
            self.sync.add(planned)
        if self.integer(0, 3) == 3:
            first, then = self.draw(st.sampled_from(sorted(self.sync.pending, key=str)))
            if self.integer(0, 1):
                self.sync.push(first, then)
            elif self.sync.pending[first, then]:
                self.sync.pop(first, then)

    def fill(self) -> None:
        """Put something into the beginning of every scratchpad."""
        for name in ("load.uop", "load.inp", "load.wgt", "load.acc", "load.qnt"):
            if name in self.kinds:
                memory = next(m for m in MEMORIES.values() if m.name == name.split(".")[1])
                size = memory.element_bytes(self.config)
                start = TABLES if name == "load.uop" else DATA
                count = min(memory.depth(self.config), 16, (STORED - DATA) // size)
                box = {"x_size": count, "y_size": 1, "x_stride": count, "sram_base": 0}
                box["dram_base"] = -(-start // size)
                if name == "load.uop":
                    self.track_uops(box)
                touched = self.touched(box, memory.scratchpad, size, reads_dram=True)
                self.sync.add(_Planned(memory.engine, Instruction(name, box), touched))

    def reveal(self) -> None:
        """Store all bits of the first accumulators, not only the low ones."""
        size, count = self.config.out_element_bytes, min(8, self.config.acc_depth)
        box = {
            "sram_base": 0,
            "dram_base": ZERO_UOP // UOP_BYTES,
            "y_size": 1,
            "x_size": 1,
            "x_stride": 0,
        }
        self.track_uops(box)
        touched = self.touched(box, "uop", UOP_BYTES, reads_dram=True)
        self.sync.add(_Planned(Engine.COMPUTE, Instruction("load.uop", box), touched))
        shift = {"uop_end": 1, "iter_out": count, "iter_in": 1, "dst_factor_out": 1}
        shift["imm"] = self.config.out_width
        for part in range(32 // self.config.out_width):
            box = {"sram_base": 0, "y_size": 1, "x_size": count, "x_stride": 0}
            box["dram_base"] = -(-STORED // size) + part * count
            if (box["dram_base"] + count) * size > DATA_END:
                return
            touched = self.touched(box, "acc", size, reads_dram=False)
            self.sync.add(_Planned(Engine.STORE, Instruction("store.out", box), touched))
            touched = [("uop", 0, 1, False), ("acc", 0, count, True)]
            self.sync.add(_Planned(Engine.COMPUTE, Instruction("alu.shr.imm", shift), touched))

    def program(self) -> Program:
        self.sync.fold()
        streams = {e: deque(p.instruction for p in s) for e, s in self.sync.streams.items()}
        merged: list[Instruction] = []
        while any(streams.values()):
            engine = self.draw(st.sampled_from([e for e in ENGINES if streams[e]]))
            merged.append(streams[engine].popleft())
        merged.append(Instruction("finish"))
        words = [self.instructions.encode(i) for i in merged]
        return program_of(self.config, words, self.image)

    # --- kinds of instructions

    def box(self, name: str, element: int, depth: int, pads: bool) -> dict[str, int]:
        rows, columns = self.draw(st.sampled_from(ROWS)), self.draw(st.sampled_from(COLUMNS))
        box = {"y_size": rows, "x_size": columns, "x_stride": self.integer(0, 12)}
        if pads and self.integer(0, 2) == 0:
            for pad in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"):
                box[pad] = self.integer(0, 2)
        while _box_size(box) > depth:
            box = {key: value // 2 for key, value in box.items()}
        slots = self.instructions.layouts[self.instructions.operations[name].format.opcode].by_name
        greatest = slots["sram_base"].greatest
        last = min(depth - _box_size(box), greatest)
        box["sram_base"] = self.draw(st.integers(0, min(last, 12)) | st.integers(0, last))
        return box

    def reach(self, box: Mapping[str, int]) -> int:
        """Elements of DRAM from the first to one past the last."""
        if not box["y_size"] or not box["x_size"]:
            return 0
        return (box["y_size"] - 1) * box["x_stride"] + box["x_size"]

    def load(self, name: str) -> _Planned:
        memory = next(m for m in MEMORIES.values() if m.name == name.split(".")[1])
        size, depth = memory.element_bytes(self.config), memory.depth(self.config)
        box = self.box(name, size, depth, pads=True)
        start, end = DATA, DATA_END
        if memory.type is MemoryType.UOP:
            start, end = TABLES, TABLES + TABLE_UOPS * UOP_BYTES
        if memory.type is MemoryType.QNT:
            end = STORED  # what stores write need not be legal parameters
        box = self.placed(box, size, start, end)
        if name.startswith("loadx"):
            # Padding may be micro-ops of low indices, and parameters that are legal ones.
            positive = memory.type in (MemoryType.UOP, MemoryType.QNT)
            least = 0 if positive else -(1 << (self.config.inp_width - 1))
            box["pad_value"] = self.integer(least, 7)
        if memory.type is MemoryType.UOP:
            self.track_uops(box)
        touched = self.touched(box, memory.scratchpad, size, reads_dram=True)
        engine = self.instructions.operations[name].engine
        return _Planned(engine, Instruction(name, box), touched)

    def store(self, name: str) -> _Planned:
        size, depth = self.config.out_element_bytes, self.config.acc_depth
        box = self.box(name, size, depth, pads=False)
        box["x_stride"] = max(box["x_stride"], box["x_size"])  # rows of one store do not overlap
        box = self.placed(box, size, STORED, DATA_END)
        touched = self.touched(box, "acc", size, reads_dram=False)
        if name == "storex.out":
            box["qnt_step"] = self.integer(0, 1)
            rows = max(1, box["y_size"]) if box["qnt_step"] else 1
            box["qnt_base"] = self.integer(0, max(0, min(self.config.qnt_depth - rows, 8)))
            touched.append(("qnt", box["qnt_base"], box["qnt_base"] + rows, False))
        return _Planned(Engine.STORE, Instruction(name, box), touched)

    def placed(self, box: dict[str, int], size: int, start: int, end: int) -> dict[str, int]:
        first = -(-start // size)
        while first + self.reach(box) > end // size:
            box["y_size"] //= 2
        last = end // size - self.reach(box)
        near = st.integers(first, min(last, first + 8))
        box["dram_base"] = self.draw(near | st.integers(first, last))
        return box

    def touched(
        self, box: Mapping[str, int], scratchpad: str, size: int, reads_dram: bool
    ) -> list[Touched]:
        if not box["x_size"]:
            return []
        sram = (scratchpad, box["sram_base"], box["sram_base"] + _box_size(box), reads_dram)
        first = box["dram_base"] * size
        dram = ("dram", first, first + self.reach(box) * size, not reads_dram)
        return [sram, dram]

    def track_uops(self, box: Mapping[str, int]) -> None:
        """What a load does to the micro-ops, so that the indices of later steps are known."""
        pads = [box.get(p, 0) for p in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")]
        if not box["x_size"]:
            return
        table = self.image.view("<u4")
        at = box["sram_base"]
        for y in range(-pads[0], box["y_size"] + pads[1]):
            for x in range(-pads[2], box["x_size"] + pads[3]):
                inside = 0 <= y < box["y_size"] and 0 <= x < box["x_size"]
                place = box["dram_base"] + y * box["x_stride"] + x
                self.uops[at] = int(table[place]) if inside else box.get("pad_value", 0)
                at += 1

    def nest(self, name: str) -> _Planned | None:
        layout = uop_layout(self.config)
        first = self.draw(st.integers(0, 12) | st.integers(0, self.config.uop_depth - 1))
        count = min(self.draw(st.sampled_from((1, 2, 3, 4, 0))), self.config.uop_depth - first)
        trips = self.draw(st.sampled_from(TRIPS)), self.draw(st.sampled_from(TRIPS))
        operands = {
            "uop_bgn": first, "uop_end": first + count, "iter_out": trips[0], "iter_in": trips[1],
        }  # fmt: skip
        micro_ops = [layout.decode(word) for word in self.uops[first : first + count]]
        roles = {"dst": ("acc", self.config.acc_depth, True)}
        beyond = 0
        if name in MULTIPLIES:
            if name.startswith("depthwise"):
                beyond = self.config.taps - 1
            roles["src"] = ("inp", self.config.inp_depth - beyond, False)
            roles["wgt"] = ("wgt", self.config.wgt_depth, False)
        elif name in ("alu.scale", "alu.requantize"):
            roles["src"] = ("qnt", self.config.qnt_depth, False)
        elif name.startswith("alu") and not name.endswith(".imm"):
            roles["src"] = ("acc", self.config.acc_depth, False)
        if name.endswith(".imm"):
            operands["imm"] = self.draw(st.integers(-40, 40) | st.integers(-(1 << 15), 32767))
        touched: list[Touched] = [("uop", first, first + count, False)]
        slots = self.instructions.layouts[
            self.instructions.operations[name].format.opcode
        ].by_name  # fmt: skip
        for role, (memory, depth, writes) in roles.items():
            highest = max((m[role] for m in micro_ops), default=0)
            if highest >= depth and trips[0] * trips[1]:
                return None
            for trip, suffix in zip(trips, ("out", "in"), strict=True):
                most = max(0, depth - 1 - highest) // max(1, trip - 1)
                most = min(most, slots[f"{role}_factor_{suffix}"].greatest)
                factor = self.draw(st.integers(0, min(most, 4)) | st.integers(0, most))
                operands[f"{role}_factor_{suffix}"] = factor
                highest += factor * max(0, trip - 1)
            if micro_ops and trips[0] * trips[1]:
                lowest = min(m[role] for m in micro_ops)
                end = highest + 1 + (beyond if role == "src" else 0)
                touched.append((memory, lowest, end, writes))
        return _Planned(Engine.COMPUTE, Instruction(name, operands), touched)


def _box_size(box: Mapping[str, int]) -> int:
    """Elements of the scratchpad that a box fills."""
    if not box["x_size"]:
        return 0
    pads = {p: box.get(p, 0) for p in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")}
    rows = box["y_size"] + pads["y_pad_0"] + pads["y_pad_1"]
    return rows * (box["x_size"] + pads["x_pad_0"] + pads["x_pad_1"])


def image_for(config: AcceleratorConfig, seed: int) -> np.ndarray:
    """Random memory; micro-ops point low or near the ends, parameters are legal ones."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, DRAM_BYTES, dtype=np.uint8)
    layout = uop_layout(config)
    depths = {
        "dst": config.acc_depth,
        "src": min(config.inp_depth, config.acc_depth),
        "wgt": config.wgt_depth,
    }
    if config.requantize:
        depths["src"] = min(depths["src"], config.qnt_depth)
    for i in range(TABLE_UOPS):
        fields = {}
        for name, depth in depths.items():
            low = rng.integers(0, min(6, depth))
            fields[name] = int(depth - 1 - low if rng.random() < 0.1 else low)
        word = layout.encode(fields).to_bytes(UOP_BYTES, "little")
        at = TABLES + UOP_BYTES * i
        image[at : at + UOP_BYTES] = np.frombuffer(word, np.uint8)
    image[ZERO_UOP : ZERO_UOP + UOP_BYTES] = 0
    records = image[DATA:DATA_END].reshape(-1, QNT_LANE_BYTES)
    multiplier = next(record for record in QNT_LANE if record.name == "multiplier")
    records[:, multiplier.offset + 3] &= 0x7F  # they are not negative
    return image
