"""Arrays in a text: a section each, of a node's or layer's own."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator
from textwrap import wrap

import numpy as np

from ...isa.nest import U8, DType
from ...isa.storage import numpy_dtype
from ..graph_text import LINE_BYTES
from ..verify import RANK_LIMIT, TENSOR_BYTES_LIMIT
from .document import HEADING, Section, quoted

SHORT = 64
"""Up to so many integers are written as such."""
WIDTH = 96


def dtype_of_array(array: np.ndarray) -> DType:
    """The type of an array's elements; truth values are bytes."""
    if array.dtype == bool:
        return U8
    return DType(array.dtype.kind, 8 * array.dtype.itemsize)  # type: ignore[arg-type]  # i, u, f


def array_lines(owner: str, name: str, array: np.ndarray) -> Iterator[str]:
    """``array``, whose name is ``name`` for ``owner`` alone."""
    dtype, shape = dtype_of_array(array), ",".join(map(str, array.shape))
    short = dtype.kind != "f" and array.size <= SHORT
    form = "decimal" if short else "base64"
    yield f"{HEADING}array {quoted(owner)} {quoted(name)}: {dtype}[{shape}] {form}"
    if short:
        for line in wrap(" ".join(str(int(n)) for n in array.reshape(-1)), WIDTH):
            yield f"  {line}"
        return
    raw = array.astype(numpy_dtype(dtype).newbyteorder("<"), copy=False).tobytes()
    for i in range(0, len(raw), LINE_BYTES):
        yield "  " + base64.b64encode(raw[i : i + LINE_BYTES]).decode()


def parse_array(section: Section) -> tuple[str, str, np.ndarray]:
    """Owner, name and array of a section."""
    line = section.heading
    owner, name = line.name(), line.name()
    line.expect(":")
    try:
        dtype = DType.parse(line.take())
        kind = numpy_dtype(dtype)
    except (ValueError, KeyError, TypeError) as error:
        line.fail(f"expected the type of an array: {error}")
    if dtype.bits not in (8, 16, 32, 64):
        line.fail(f"an array of type {dtype}")
    line.expect("[")
    shape = line.several(line.integer, end="]")
    line.expect("]")
    form = line.take()
    if form not in ("decimal", "base64"):
        line.fail(f"expected decimal or base64, not {form!r}")
    line.expect("")
    if len(shape) > RANK_LIMIT or any(extent < 0 for extent in shape):
        line.fail(f"an array of shape {list(shape)}")
    expected = math.prod(shape) * kind.itemsize
    if expected > TENSOR_BYTES_LIMIT:
        line.fail(f"an array of {expected} bytes")
    if form == "decimal":
        values = _integers(section, dtype)
        if len(values) != math.prod(shape):
            line.fail(f"this array needs {math.prod(shape)} numbers; {len(values)} follow")
        return owner, name, np.array(values, kind).reshape(shape)
    try:
        text = "".join(text.strip() for _, text in section.lines)
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        line.fail("the data of this array is not base64")
    if len(raw) != expected:
        line.fail(f"this array needs {expected} bytes of data; {len(raw)} follow")
    return owner, name, np.frombuffer(raw, kind.newbyteorder("<")).astype(kind).reshape(shape)


def _integers(section: Section, dtype: DType) -> list[int]:
    values: list[int] = []
    for number, text in section.lines:
        for word in text.split():
            try:
                value = int(word)
            except ValueError:
                value = dtype.max + 1
            if dtype.kind == "f" or not dtype.min <= value <= dtype.max:
                section.heading.number = number
                section.fail(f"expected integers of type {dtype}, not {word!r:.40}")
            values.append(value)
    return values
