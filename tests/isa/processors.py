"""Processors that tests compile for."""

from __future__ import annotations

from weft.isa.native import Processor, this_processor

AVX512 = ("avx512", "avx10", "amx", "evex")
LINUX = "x86_64-unknown-linux-gnu"
SKYLAKE = Processor(
    LINUX, "skylake-avx512", "+avx2,+fma,+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512cd"
)
"""With AVX-512; code for it may be looked at everywhere."""


def without_avx512() -> Processor:
    """This computer, as if it had vectors of at most 256 bits."""
    own = this_processor()
    features = own.features.split(",")
    kept = ",".join(f for f in features if not f[1:].startswith(AVX512))
    x86 = own.triple.startswith("x86_64")
    return Processor(own.triple, "x86-64" if x86 else own.cpu, kept)
