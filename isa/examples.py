"""What the extensions are for: a short program for each capability, shown in the manual.

Addresses are those of :data:`PLACES`; ``dram_base`` counts elements of the memory that is moved,
as the ``base`` preset has them.
"""

from __future__ import annotations

from dataclasses import dataclass

PLACES = {
    "uop": 0x1000, "inp": 0x1_0000, "wgt": 0x2_0000, "acc": 0x3_0000, "qnt": 0x4_0000,
    "out": 0x5_0000,
}  # fmt: skip
"""Where the examples keep what they load and store: byte addresses."""


@dataclass(frozen=True)
class Example:
    """``program`` is assembly without FINISH; ``uops`` are (dst, src, wgt), at their place in
    DRAM."""

    title: str
    text: str
    program: str
    uops: tuple[tuple[int, int, int], ...] = ()


EXAMPLES = (
    Example(
        "Padding with a chosen value",
        "A row of six positions comes with one more at each end. A convolution pads with the "
        "zero point of its inputs, max pooling with the least value.",
        """\
loadx.inp dram_base=0x1000 y_size=1 x_size=6 x_stride=6 x_pad_0=1 x_pad_1=1 pad_value=-128
""",
    ),
    Example(
        "Requantization in one go",
        "Eight accumulators leave for DRAM with bias, multiplier, shift, zero point and clamp of "
        "their channel, an element a cycle. The store engine does it: the next tile's product, "
        "into other accumulators, waits for nothing.",
        """\
load.uop dram_base=0x400 y_size=1 x_size=2
load.qnt dram_base=0x400 y_size=1 x_size=1
load.inp dram_base=0x1000 y_size=1 x_size=8
load.wgt dram_base=0x200 y_size=1 x_size=1 | push_next
matmul.set uop_end=1 iter_out=1 iter_in=8 dst_factor_in=1 src_factor_in=1 | pop_prev push_next
storex.out dram_base=0x5000 y_size=1 x_size=8 | pop_prev
matmul.set uop_bgn=1 uop_end=2 iter_out=1 iter_in=8 dst_factor_in=1 src_factor_in=1
""",
        ((0, 0, 0), (8, 0, 0)),
    ),
    Example(
        "A reduction whose first step overwrites",
        "Three steps an output: the first writes its accumulator, the others add. No pass zeroes "
        "anything.",
        """\
load.uop dram_base=0x400 y_size=1 x_size=3
load.inp dram_base=0x1000 y_size=1 x_size=8
load.wgt dram_base=0x200 y_size=1 x_size=3 | push_next
matmul.set uop_end=1 iter_out=1 iter_in=6 dst_factor_in=1 src_factor_in=1 | pop_prev
gemm uop_bgn=1 uop_end=3 iter_out=1 iter_in=6 dst_factor_in=1 src_factor_in=1
""",
        ((0, 0, 0), (0, 1, 1), (0, 2, 2)),
    ),
    Example(
        "Depthwise convolution",
        "A step multiplies three neighbours, lane by lane: a 3x3 window takes three. `load.taps` "
        "puts four rows of a weight element there at once, of which a step takes three. Here "
        "four outputs of a row, from three rows of six positions.",
        """\
load.uop dram_base=0x400 y_size=1 x_size=3
load.inp dram_base=0x1000 y_size=3 x_size=6 x_stride=6
load.taps dram_base=0x800 y_size=1 x_size=3 | push_next
depthwise.set uop_end=1 iter_out=1 iter_in=4 dst_factor_in=1 src_factor_in=1 | pop_prev
depthwise.add uop_bgn=1 uop_end=3 iter_out=1 iter_in=4 dst_factor_in=1 src_factor_in=1
""",
        ((0, 0, 0), (0, 6, 1), (0, 12, 2)),
    ),
    Example(
        "The first convolution",
        "A row of 96 outputs of a 3x3 convolution from 3 channels reads 98 positions of three "
        "rows. With the nine values of a position side by side, one position after another, they "
        "are 882 lanes, which 56 inp elements hold. The window of output *x* is the run of 27 "
        "lanes from lane *9 x* on: two steps, the second an element later, with zeros as weights "
        "of its last five lanes. Every lane is loaded once, though each is part of three windows. "
        "`src` and `src_factor_out` count elements in these modes, as in all others; "
        "`src_factor_in` counts lanes. Odd numbers of channels go the same way.",
        """\
load.uop dram_base=0x400 y_size=1 x_size=2
load.inp dram_base=0x1000 y_size=1 x_size=56
load.wgt dram_base=0x200 y_size=1 x_size=2 | push_next
sliding.set uop_end=1 iter_out=1 iter_in=96 dst_factor_in=1 src_factor_in=9 | pop_prev
sliding.add uop_bgn=1 uop_end=2 iter_out=1 iter_in=96 dst_factor_in=1 src_factor_in=9
""",
        ((0, 0, 0), (0, 1, 1)),
    ),
    Example(
        "Micro-ops, parameters and residuals beside the array",
        "LOADX is the load engine's, whatever it fills: while the first product runs, micro-ops, "
        "parameters and a residual for the second arrive.",
        """\
loadx.uop dram_base=0x400 y_size=1 x_size=1
loadx.inp dram_base=0x1000 y_size=1 x_size=8
loadx.wgt dram_base=0x200 y_size=1 x_size=1 | push_next
matmul.set uop_end=1 iter_out=1 iter_in=8 dst_factor_in=1 src_factor_in=1 | pop_prev
loadx.uop sram_base=1 dram_base=0x401 y_size=1 x_size=1
loadx.qnt dram_base=0x400 y_size=1 x_size=1
loadx.acc8 sram_base=8 dram_base=0x3000 y_size=1 x_size=8 | push_next
gemm uop_bgn=1 uop_end=2 iter_out=1 iter_in=8 dst_factor_in=1 src_factor_in=1 | pop_prev push_next
storex.out sram_base=8 dram_base=0x5000 y_size=1 x_size=8 | pop_prev
""",
        ((0, 0, 0), (8, 0, 0)),
    ),
    Example(
        "Strided reads",
        "A 1x1 convolution of stride 2 needs every second column: rows of the box are single "
        "elements, two apart in DRAM. What lies between is not read, unless the bus is wider "
        "than an element.",
        """\
load.inp dram_base=0x1000 y_size=8 x_size=1 x_stride=2
""",
    ),
    Example(
        "Results as the next layer's input",
        "`storex.inp` puts what `storex.out` would store into inp, where the next layer reads it: "
        "nothing goes to DRAM and back. `dram_base` and `x_stride` count its elements. A token "
        "tells the compute engine that they are there.",
        """\
load.uop dram_base=0x400 y_size=1 x_size=2
load.qnt dram_base=0x400 y_size=1 x_size=1
load.inp dram_base=0x1000 y_size=1 x_size=8
load.wgt dram_base=0x200 y_size=1 x_size=1 | push_next
matmul.set uop_end=1 iter_out=1 iter_in=8 dst_factor_in=1 src_factor_in=1 | pop_prev push_next
storex.inp dram_base=8 y_size=1 x_size=8 | pop_prev push_prev
matmul.set uop_bgn=1 uop_end=2 iter_out=1 iter_in=8 dst_factor_in=1 src_factor_in=1 | pop_next
""",
        ((0, 0, 0), (0, 8, 0)),
    ),
    Example(
        "Adding, multiplying, pooling",
        "Eight elements of a tensor meet those of another, loaded as bytes: once they are added, "
        "once multiplied. Of a row of eight, each but the last becomes the greater of itself and "
        "its neighbour, which is max pooling; a sum and `alu.requantize` are average pooling. A "
        "step a cycle, also with two operands from acc.",
        """\
load.uop dram_base=0x400 y_size=1 x_size=3
load.acc8 dram_base=0x3000 y_size=1 x_size=16
load.acc8 sram_base=16 dram_base=0x3000 y_size=1 x_size=16
load.acc8 sram_base=32 dram_base=0x3000 y_size=1 x_size=8
alu.add uop_end=1 iter_out=1 iter_in=8 dst_factor_in=1 src_factor_in=1
alu.mul uop_bgn=1 uop_end=2 iter_out=1 iter_in=8 dst_factor_in=1 src_factor_in=1
alu.max uop_bgn=2 uop_end=3 iter_out=1 iter_in=7 dst_factor_in=1 src_factor_in=1
""",
        ((0, 8, 0), (16, 24, 0), (32, 33, 0)),
    ),
)
"""In the order of the capabilities that the extensions must make possible."""


def section() -> str:
    """The manual's section, as Markdown."""
    places = ", ".join(f"{name} at {address:#x}" for name, address in PLACES.items())
    parts = [
        "## Examples\n",
        f"What they load and store is in DRAM: {places}, ACC8 where acc is. Each ends with FINISH.",
    ]
    for example in EXAMPLES:
        parts.append(f"\n### {example.title}\n\n{example.text}")
        uops = "`, `".join(f"dst={d} src={s} wgt={w}" for d, s, w in example.uops)
        if uops:
            parts[-1] += f" Micro-ops: `{uops}`."
        parts.append(f"\n```\n{example.program}```")
    return "\n".join(parts) + "\n"
