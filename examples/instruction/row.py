"""A step of our own: five neighbours in a row, each channel by itself. Nothing else is edited."""

import numpy as np

import weft
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.graph import DepthwiseConv2D, Graph, Node, Quant, Tensor, Window
from weft.isa import AcceleratorConfig
from weft.isa.declare import declare, step
from weft.isa.nest import I8, I32, Index, Load, Sum

TAPS = 5


def row(config, lanes):
    """``acc[dst]``'s lanes: the sum over taps of neighbours times the tap's row of weights."""
    batch, channel = lanes
    tap = Index("t")
    x = Load("inp", (Index("src") + tap, batch, channel))
    return Sum((("t", TAPS),), x * Load("wgt", (Index("wgt"), tap, channel)))


def more(config, lanes):
    """The same, added to what is there."""
    return Load("acc", (Index("dst"), *lanes)) + row(config, lanes)


def network():
    """A depthwise convolution of 5 x 5 over 16 channels, weights drawn from a seed."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (1, 5, 5, 16)).astype(np.int8)
    bias = rng.integers(-999, 999, 16).astype(np.int32)
    made = [
        Tensor("x", I8, (1, 12, 12, 16), Quant((0.05,), (3,))),
        Tensor("w", I8, weights.shape, Quant((0.01,) * 16, (0,) * 16, 3), weights),
        Tensor("b", I32, bias.shape, Quant((0.0005,) * 16, (0,) * 16, 0), bias),
        Tensor("y", I8, (1, 8, 8, 16), Quant((0.4,), (-5,))),
    ]
    node = Node("y", DepthwiseConv2D(Window((5, 5))), ("x", "w", "b"), ("y",))
    return Graph("rows", {t.name: t for t in made}, (node,), ("x",), ("y",))


declare(step("row.set", 6, row), step("row.add", 7, more))
net = weft.Network("rows", network(), sha256="rows")
config = AcceleratorConfig.preset("edge")
with weft.jit(net, config, "functional") as run, weft.jit(net, config, "cpu") as host:
    x = np.random.default_rng(1).integers(-128, 128, (1, 12, 12, 16)).astype(np.int8)
    same = np.array_equal(run(x), host(x))
    for layer in (s for s in run.compile().steps if isinstance(s, AcceleratorStep)):
        used = sorted({i.operation for i in layer.instructions} & {"row.set", "row.add"})
        print(f"{layer.name}: {layer.op} by {' and '.join(used)}, {layer.choices['steps']} steps,"
              f" {layer.choices['estimate']} cycles estimated")  # fmt: skip
        for other in (o for o in layer.search.others if "instructions" in o):
            print(f"  rather than {other['instructions'].partition(', load')[0]}: "
                  f"{other['steps']} steps, {other['estimate']} cycles")  # fmt: skip
print("the host computes the same bits" if same else "DIFFERENT from the host")
