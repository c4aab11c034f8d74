"""A 4 x 4 x 4 step of our own: four outputs, four inputs, four taps, weights of 4 bits."""

from dataclasses import replace

import numpy as np

import weft
from weft.compiler.artifact import AcceleratorStep
from weft.compiler.graph import Conv2D, Graph, Node, Quant, Tensor, Window
from weft.isa import AcceleratorConfig
from weft.isa.declare import declare, step
from weft.isa.nest import I8, Index, Load, Sum


def cube(config, lanes):
    """The sum over taps and inputs of neighbours times matrices that lie behind one another."""
    batch, output = lanes
    tap, c = Index("t"), Index("c")
    x = Load("inp", (Index("src") + tap, batch, c))
    return Sum((("t", 4), ("c", 4)), x * Load("wgt", (Index("wgt") + tap, output, c)))


def more(config, lanes):
    """The same, added to what is there."""
    return Load("acc", (Index("dst"), *lanes)) + cube(config, lanes)


def network():
    """Two convolutions of 4 x 4; the weights of the first have 4 bits, the second's have 8."""
    rng, before = np.random.default_rng(0), "x"
    made = [Tensor("x", I8, (1, 12, 12, 8), Quant((0.05,), (3,)))]
    nodes = []
    for name, size, low, high in (("narrow", 9, -8, 8), ("wide", 6, -127, 128)):
        weights = rng.integers(low, high, (8, 4, 4, 8)).astype(np.int8)
        made.append(Tensor(f"{name}.w", I8, weights.shape, Quant((0.02,), (0,)), weights))
        made.append(Tensor(name, I8, (1, size, size, 8), Quant((0.4,), (-5,))))
        nodes.append(Node(name, Conv2D(Window((4, 4))), (before, f"{name}.w", ""), (name,)))
        before = name
    return Graph("cubes", {t.name: t for t in made}, tuple(nodes), ("x",), ("wide",))


declare(step("cube.set", 6, cube), step("cube.add", 7, more))
net = weft.Network("cubes", network(), sha256="cube")
config = replace(AcceleratorConfig.preset("tiny"), wgt_width=4)
with weft.jit(net, config, "functional") as run, weft.jit(net, config, "cpu") as host:
    x = np.random.default_rng(1).integers(-128, 128, (1, 12, 12, 8)).astype(np.int8)
    same = np.array_equal(run(x), host(x))
    for layer in run.compile().steps:
        if not isinstance(layer, AcceleratorStep):
            print(f"{layer.name}: on the host: {layer.reason}")
            continue
        used = sorted({i.operation for i in layer.instructions} & {"cube.set", "cube.add"})
        print(f"{layer.name}: {layer.op} by {' and '.join(used)}, {layer.choices['steps']} steps,"
              f" {layer.choices['estimate']} cycles estimated")  # fmt: skip
        for other in (o for o in layer.search.others if "instructions" in o):
            print(f"  rather than {other['instructions'].partition(', load')[0]}: "
                  f"{other['steps']} steps, {other['estimate']} cycles")  # fmt: skip
print("the host computes the same bits" if same else "DIFFERENT from the host")
