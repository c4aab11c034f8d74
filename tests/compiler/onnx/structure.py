"""ONNX files with a field of their structure changed: every field of every message, whether it is
there or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import numpy as np

from tests.compiler.onnx import nodes
from tests.compiler.onnx.models import conv_net, helper, model, onnx, qdq_net

INTEGERS = (0, 1, -1, 2, 3, 7, 13, 127, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1,
            -(1 << 31), -(1 << 63))  # fmt: skip
REALS = (0.0, -1.0, 0.5, 1e-38, 1e38, math.inf, -math.inf, math.nan)
TEXTS = ("", "?", "a b", "\0", "\n", "x" * 3000, "ü", "../x", "/etc/passwd", "Relu", "ai.onnx.ml")
MODULES = (
    "add", "argmax", "averagepool", "cast", "clip", "concat", "constantofshape", "conv",
    "convinteger", "convtranspose", "cumsum", "depthtospace", "einsum", "expand", "gather", "gemm",
    "gru", "if_", "layernormalization", "loop", "lstm", "matmul", "maxpool", "nonmaxsuppression",
    "onehot", "pad", "qlinearconv", "qlinearmatmul", "quantizelinear", "dequantizelinear",
    "rangeop", "reducemean", "reshape", "resize", "scan", "scatternd", "slice", "softmax", "split",
    "squeeze", "tile", "topk", "transpose", "unsqueeze", "where",
)  # fmt: skip
"""Files of ONNX's node tests whose models are changed."""


def seeds(every: bool) -> list[bytes]:
    """Valid files: two networks and, with ``every``, one of each operator."""
    protos = [conv_net("n"), conv_net(), qdq_net(), qdq_net("uint8"), older_net()]
    if every:
        protos += [case.model for case in nodes.some(MODULES) if len(case.model.graph.node) < 40]
    return [proto.SerializeToString() for proto in protos]


def older_net() -> Any:
    """A network of an older opset, of operators that have changed since."""
    node = helper.make_node
    nodes = [
        node("BatchNormalization", ["x", "s", "s", "s", "s"], ["n"]),
        node("Clip", ["n"], ["c"], min=-1.0, max=2.0),
        node("Slice", ["c"], ["l"], starts=[0, 1], ends=[9, -1], axes=[2, 3]),
        node("Upsample", ["l"], ["u"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest"),
        node("Dropout", ["u"], ["d", "mask"], ratio=0.5),
        node("Softmax", ["d"], ["p"], axis=1),
        node("TopK", ["p"], ["y", "i"], axis=3, k=2),
    ]
    return model(nodes, {"x": (1, 2, 3, 4)}, ["y"], {"s": np.ones(2, np.float32)}, 8)


def mutated(data: bytes, random: Random) -> bytes:
    """The file with one to three fields changed."""
    proto = onnx.ModelProto.FromString(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        messages = list(_messages(proto))
        # Of the few kinds of messages every one is as likely, of the many of a kind each.
        kind = random.choice(sorted({m.DESCRIPTOR.name for m in messages}))
        message = random.choice([m for m in messages if m.DESCRIPTOR.name == kind])
        field = random.choice(message.DESCRIPTOR.fields)
        alike = [m for m in messages if m.DESCRIPTOR is message.DESCRIPTOR]
        _change(message, field, alike, messages, random)
    return proto.SerializePartialToString()


def _messages(message: Any) -> Iterator[Any]:
    """A message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for one in value if _repeated(field) else [value]:
                yield from _messages(one)


def _repeated(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", False))


def _change(
    message: Any, field: Any, alike: Sequence[Any], messages: Sequence[Any], random: Random
) -> None:
    """Change a field; it may be absent, or many."""
    name = field.name
    if random.random() < 0.15:
        message.ClearField(name)
    elif random.random() < 0.15:
        _take(message, random.choice(alike), name, field)
    elif _repeated(field):
        _change_list(getattr(message, name), field, messages, random)
    elif field.type == field.TYPE_MESSAGE:
        others = [m for m in messages if m.DESCRIPTOR is field.message_type]
        copied = random.choice(others).__deepcopy__({}) if others else None
        getattr(message, name).SetInParent()
        if copied is not None and random.random() < 0.7 and copied.ByteSize() < 100_000:
            getattr(message, name).CopyFrom(copied)
        else:
            getattr(message, name).Clear()
            getattr(message, name).SetInParent()
    else:
        setattr(message, name, _value(field, getattr(message, name), messages, random))


def _take(message: Any, other: Any, name: str, field: Any) -> None:
    """The field as another message has it."""
    if field.type == field.TYPE_MESSAGE or _repeated(field):
        copied = other.__deepcopy__({})
        message.ClearField(name)
        if _repeated(field):
            getattr(message, name).extend(getattr(copied, name))
        elif copied.HasField(name):
            getattr(message, name).CopyFrom(getattr(copied, name))
    else:
        setattr(message, name, getattr(other, name))


def _change_list(values: Any, field: Any, messages: Sequence[Any], random: Random) -> None:
    """Elements dropped, doubled, swapped, changed, or very many."""
    count, what = len(values), random.randrange(6)
    if field.type == field.TYPE_MESSAGE:
        if count and what == 0:
            del values[random.randrange(count)]
        elif count and what == 1:
            values.add().CopyFrom(values[random.randrange(count)].__deepcopy__({}))
        elif count and what == 2:
            for _ in range(random.choice((2, 100))):
                values.add().CopyFrom(values[0].__deepcopy__({}))
        elif count > 1 and what == 3:
            kept = [v.__deepcopy__({}) for v in values]
            random.shuffle(kept)
            del values[:]
            values.extend(kept)
        else:
            values.add()
        return
    if count and what == 0:
        del values[random.randrange(count)]
    elif count and what == 1:
        values.append(values[random.randrange(count)])
    elif what == 2:
        one = values[0] if count else _value(field, None, messages, random)
        values.extend([one] * random.choice((1, 9, 1000)))
    elif what == 3 and count > 1:
        kept = list(values)
        random.shuffle(kept)
        del values[:]
        values.extend(kept)
    elif count:
        place = random.randrange(count)
        values[place] = _value(field, values[place], messages, random)
    else:
        values.append(_value(field, None, messages, random))


def _value(field: Any, old: Any, messages: Sequence[Any], random: Random) -> Any:
    """A value for a field that is a number or a text."""
    if field.type == field.TYPE_ENUM:
        return random.choice([v.number for v in field.enum_type.values])
    if field.type == field.TYPE_STRING:
        names = [t for m in messages for t in _texts(m)]
        return random.choice((random.choice(names or [""]), random.choice(TEXTS)))
    if field.type == field.TYPE_BYTES:
        old = old or b""
        return random.choice((b"", old[:-1], old + b"\0", old * 2, b"\xff" * len(old), b"nearest"))
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return random.choice((*REALS, -(old or 0.0)))
    low, high = RANGES[field.type]
    value = random.choice((*INTEGERS, (old or 0) + 1, (old or 0) - 1, -(old or 0), (old or 0) * 2))
    return min(max(value, low), high)


def _texts(message: Any) -> Iterator[str]:
    """The names in a message."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from value if _repeated(field) else [value]


_FIELD = onnx.ModelProto.DESCRIPTOR.fields[0]
RANGES = {
    _FIELD.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    _FIELD.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    _FIELD.TYPE_UINT64: (0, (1 << 64) - 1),
}
"""Of the integers that ONNX's messages hold."""

Mutator = Callable[[bytes, Random], bytes]
