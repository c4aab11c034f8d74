"""``docs/onnx.md``: what of ONNX runs, from the catalog itself.

``python -m weft.compiler.onnx.manual FILE`` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from ...isa.config import PRESETS
from ..catalog import CATALOG
from ..scales import EVEN_PLACES
from .source import OLDEST_OPSET, onnx

HEAD = """# ONNX

Written by `make docs` from `compiler/catalog`; edit that, not this page.

`weft run`, `explain` and `compile` take `.onnx` files as they take TFLite's, and so does
`weft.load`. The package `onnx` reads them: `pip install 'weft[onnx]'`. Opsets {oldest} to the
newest that the installed package knows are read; an operator that meant something else in an older
one means that.

A file is checked as a whole before anything runs. What cannot be run is refused by name, all
operators and nodes in one message. `python -m tests.compiler.structure` changes any field of
10,000 files, ONNX and TFLite, and prints how many are refused with a line and how many are valid;
what takes too long or too much memory, or falls, is an error.

## Open shapes

Symbolic extents are bound by the shapes of each call, and the network is compiled once for every
new combination of sizes; the latest eight stay compiled. Without a call (`weft explain`,
`weft compile`, seeded data) every symbol is 1. Where a shape depends on the *value* of an input, a
`Reshape` to a shape that is an input for instance, that value is bound in the same way.

## Quantized networks

Operators between `DequantizeLinear` and `QuantizeLinear`, and QOperator nodes, become the integer
operators that the accelerator runs: `Conv` (also depthwise), `Gemm`, `MatMul` with constant
weights, `Add`, `Sub`, `Mul` (with a `Relu` or a `Clip` to 6 behind them), `AveragePool`,
`GlobalAveragePool`, `MaxPool`, and what only moves elements, `Concat` too. Activations are bytes
with one scale; unsigned ones are moved down by 128. Weights are signed bytes with zero point 0, per
tensor or per channel. [quantize.md](quantize.md) says how a float network becomes such a file.

Rounding: the accumulator is exact. Hardware that has the extension `to_even` (all presets but
{without}), and the host beside it, rounds it in two steps: first to {places} binary places, which
is about as fine as single precision is in the middle of a byte's range, then ties to even. ONNX
rounds the real value once, ties to even; the results differ, by one, only where the real value lies
within `2**-{half_place}` of a tie. Hardware without the extension rounds ties away from zero, and
first to as many places as the sums of a channel certainly leave room for, given its weights and
bias; so does the host beside it. A sum of two tensors first rounds both to a common scale of 20
more bits. The product of two activations is rounded as ONNX says, on the host. Reference
implementations compute the float graph in single precision, whose own sums decide what happens next
to a tie.

`python -m tests.compiler.onnx.layers` feeds each layer of two trained networks what onnxruntime fed
it. No quantized element of all samples is more than one step away, and of a million about one
differs: of the ResNet's 72, of the transformer's 143. Fed their own results, networks part where
one of these elements decides: none of the ResNet's 250 answers and of the transformer's 86 does.
With `edge` (`--hw edge`) 73 and 149 elements differ, and one of the 86 answers: there a product is
8.50000014 steps. That is 8.500001 in single precision, too, and rounds to 9; the reference makes 8
of it, since its sum of products comes to 8.499996 in single precision; rounded to 20 places it is a
tie, which goes to 8. Evaluated in double precision, in which nothing but the file's own
quantization rounds, the sample is in the class that `edge` says (by 0.226; it is the labelled one),
and in the reference's if that one element is 8.

Other roundings were tried. With ties to even, but a first rounding only as fine as the sums of a
channel leave room for, 72 and 138 elements differed, and 83 and 199 with one no finer than `2**-18`
besides; 85 samples agreed. In a draft all 86 agreed with a first rounding to 19 or 21 places, too,
and one did not with 22. Multipliers that imitate single precision (for each channel, of those
within three roundings of the real factor, the one that gives the quotient in single precision for
most of the accumulators next to a tie within the output's range) made 73 and 155 of what was 74 and
150 then: of 75 quotients within `2**-22` of a tie, relatively, 17 are not on the side that the
exact sum's quotient in single precision is on.

The nine networks that come with the package `onnx` run, from SqueezeNet to VGG-19:
`python -m tests.compiler.onnx.light` draws weights for them, and prints how long that takes, how
much memory, and how far the answers are from onnxruntime's.

## Operators

*Native* are loop nests, compiled for the CPU. The others are numpy's: they move elements, search or
sort. *Composed* operators are built from those, as ONNX's own schemas say.
"""

TAIL = """
`Constant` is any tensor of numbers. `If` takes a condition that is known when shapes are, and its
branch stands for it. Functions of the model are put in place. Elements are `float16`, `float`,
`double`, integers of 8 to 64 bits, signed or not, and truth values; half precision is computed in
single, and rounded after each step of what ONNX defines by several. Integers of 2 and 4 bits are
quantized, dequantized, converted and moved, and are weights of quantized networks; they are packed
in files, and are bytes elsewhere.

[onnx-tests.md](onnx-tests.md) lists what ONNX's own tests of single operators say.
"""


OUT_OF_REACH = frozenset(("Bernoulli", "SequenceMap"))
"""Operators that are composed of random numbers or of sequences, which a graph does not have."""


def composed() -> list[str]:
    """Operators that ONNX's schemas compose of others, and the catalog does not have."""
    schemas = onnx().defs.get_all_schemas()
    return sorted(
        schema.name
        for schema in schemas
        if schema.domain == ""
        and schema.name not in CATALOG
        and (schema.has_function or schema.has_context_dependent_function)
        and not schema.deprecated
        and schema.name not in OUT_OF_REACH
    )


def manual() -> str:
    """The page."""
    known = {kind: row for kind, row in CATALOG.items() if "." not in kind}
    native = sorted(kind for kind, row in known.items() if row.native)
    numpy = sorted(kind for kind, row in known.items() if not row.native)
    rows = (("Native", native), ("By numpy", numpy), ("Composed", composed()))
    text = HEAD.format(
        oldest=OLDEST_OPSET,
        without=", ".join(f"`{name}`" for name, config in PRESETS.items() if not config.to_even),
        places=EVEN_PLACES,
        half_place=EVEN_PLACES + 1,
    )
    for title, kinds in rows:
        names = fill(", ".join(f"`{kind}`" for kind in kinds), 100, break_on_hyphens=False)
        text += f"\n**{title}** ({len(kinds)}):\n{names}\n"
    return text + TAIL


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    (path,) = sys.argv[1:] if arguments is None else arguments
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(manual())
    return 0


if __name__ == "__main__":
    sys.exit(main())
