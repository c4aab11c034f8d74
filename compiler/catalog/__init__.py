"""The catalog of operators that run on the host: what each takes, gives and computes.

An operator is a row of :data:`CATALOG`, written once: how its outputs' types and shapes follow
from its inputs, and how it becomes a loop nest or a function on numpy arrays. The front ends, the
verifier, the host's code and the list in docs/onnx.md all come from it. Names and meanings are
those of ONNX's operators in their newest version; older versions differ in where a parameter
stands, which :meth:`.site.Site.list_of` looks for in both places. Names with a
point are of operators that ONNX does not have.
"""

from . import (
    affine,
    indexing,
    lstm,
    movement,
    normalization,
    pairs,
    pointwise,
    pools,
    products,
    quantization,
    recurrent,
    reductions,
    regions,
    spectra,
    vision,
    wide,
)  # fmt: skip
from .site import CATALOG, Code, Definition, Kernel, Site, ValueNeeded

__all__ = [
    "CATALOG", "Code", "Definition", "Kernel", "Site", "ValueNeeded", "affine", "indexing", "lstm",
    "movement", "normalization", "pairs", "pointwise", "pools", "products", "quantization",
    "recurrent", "reductions", "regions", "spectra", "vision", "wide",
]  # fmt: skip
