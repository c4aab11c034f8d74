"""The host's code beside ONNX Runtime and OpenBLAS: one thread, one machine, one run.

    python benchmarks/host.py [layers] [int8] [dense] [rows] [networks] [compile] [threads]
                              [functional]

Every row is a ratio: the peer's time over Weft's, so that more than 1 is faster than the peer.
Both take turns within the same second, and the best and the median of each one's turns, in CPU
time of the thread, are compared. For layers the peer's time is that of its kernel alone, by its
profiler; Weft's is that of the convolution with the copy that gives the image its border. For
everything else it is the whole call.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import weft
from benchmarks import host_models as models
from benchmarks import resnet18
from weft.compiler.graph import Graph
from weft.compiler.host import HostCode
from weft.compiler.onnx.model import read
from weft.isa import AcceleratorConfig
from weft.isa.golden import GoldenModel
from weft.sim import connect
from weft.sim.exercise import STREAM, Exercise

SHARED = Path(os.environ.get("WEFT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ort.set_default_logger_severity(3)


# --- the peer ------------------------------------------------------------------------------------


def session(model: onnx.ModelProto, profile: str = "", threads: int = 1) -> ort.InferenceSession:
    """The peer's session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def kernel_seconds(one: ort.InferenceSession, kind: str) -> list[float]:
    """What its profiler says of every run of a kind of kernel."""
    path = Path(one.end_profiling())
    events = json.loads(path.read_text())
    path.unlink()
    return [
        e["dur"] * 1e-6
        for e in events
        if e.get("cat") == "Node" and e["name"].endswith("kernel_time")
        and e["args"].get("op_name") == kind
    ]  # fmt: skip


def graph_of(model: onnx.ModelProto) -> Graph:
    """Weft's graph of a model."""
    read_model = read(model.SerializeToString(), model.graph.name)
    return read_model.graph({i.name: models.value_of(i).shape for i in model.graph.input}, {})


# --- timing --------------------------------------------------------------------------------------


def turns(calls: Iterable[Callable[[], Any]], seconds: float = 0.5) -> list[list[float]]:
    """CPU seconds of each call, over as many turns as fit."""
    calls = list(calls)
    for call in calls:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(taken[0]) < 5:
        for call, times in zip(calls, taken, strict=True):
            before = time.thread_time()
            call()
            times.append(time.thread_time() - before)
    return taken


def row(name: str, ours: list[float], peer: list[float], goal: float, work: float = 0.0) -> float:
    """Print a line; the ratio of the best."""
    best, median = min(peer) / min(ours), statistics.median(peer) / statistics.median(ours)
    rate = f"{work / min(ours) / 1e9:7.1f}" if work else " " * 7
    print(
        f"{name:28} {min(ours) * 1e3:9.3f} ms {min(peer) * 1e3:9.3f} ms {rate}"
        f"   {best:5.2f} (median {median:5.2f})  goal {goal:.2f}",
        flush=True,
    )
    return best


def geomean(title: str, ratios: list[float], goal: float, each: float) -> None:
    """Print what the rows come to."""
    value = float(np.exp(np.mean(np.log(ratios))))
    print(f"{title}: geomean {value:.2f} (goal {goal}), least {min(ratios):.2f} (goal {each})\n")


# --- rows ----------------------------------------------------------------------------------------


def layers() -> None:
    """The convolutions of ResNet-18 in fp32."""
    ratios: list[float] = []
    for layer in models.LAYERS:
        model = models.layer(layer)
        graph = graph_of(model)
        code = HostCode(graph, graph.nodes, outputs=graph.outputs)
        x = models.random(layer.x_shape)
        with tempfile.TemporaryDirectory() as folder:
            one = session(model, f"{folder}/p")
            expected = one.run(None, {"x": x})[0]
            got = code.run({"x": x})[graph.outputs[0]]
            scale = np.abs(expected).max()
            assert np.abs(got - expected).max() <= 1e-4 * scale, layer.name
            ours, _ = turns((code.part("conv"), lambda s=one, x=x: s.run(None, {"x": x})))
            peer = kernel_seconds(one, "Conv")
        ratios.append(row(layer.name, ours, peer, 0.85, layer.macs))
    geomean("fp32 layers", ratios, 1.0, 0.85)


def int8() -> None:
    """The same, in integers."""
    ratios: list[float] = []
    for layer in models.LAYERS:
        graph = models.int8_layer(layer)
        code = HostCode(graph, graph.nodes, outputs=graph.outputs)
        model = models.u8u8_layer(layer)
        x = np.random.default_rng(1).integers(0, 255, layer.x_shape, np.uint8)
        inner = np.ascontiguousarray(x.transpose(0, 2, 3, 1) - 128).astype(np.int8)
        code.run({"x": inner})
        with tempfile.TemporaryDirectory() as folder:
            one = session(model, f"{folder}/p")
            ours, _ = turns((code.part("conv"), lambda s=one, x=x: s.run(None, {"x": x})))
            peer = kernel_seconds(one, "QLinearConv")
        ratios.append(row(layer.name, ours, peer, 0.9, layer.macs))
    geomean("int8 layers", ratios, 1.0, 0.9)


def bound(model: onnx.ModelProto, threads: int = 1) -> HostCode:
    """A whole model as host code."""
    graph = graph_of(model)
    return HostCode(graph, graph.nodes, outputs=graph.outputs, threads=threads)


def beside(name: str, model: onnx.ModelProto, goal: float, macs: float = 0.0) -> float:
    """A row for a whole model."""
    code, one = bound(model), session(model)
    values = {i.name: models.value_of(i) for i in model.graph.input}
    expected, got = one.run(None, values)[0], code.run(values)[code.outputs[0]]
    if name.endswith("fp32") or "float" in str(expected.dtype):
        error = float(np.abs(got - expected).max()) / max(1e-9, float(np.abs(expected).max()))
        if error > 2e-2:
            print(f"{name}: relative difference {error:.2e}")
    ours, peer = turns((lambda: code.run(values), lambda: one.run(None, values)))
    return row(name, ours, peer, goal, macs)


def dense() -> None:
    """Products of matrices beside OpenBLAS."""
    for rows, depth, columns in ((1024, 1024, 1024), (64, 1024, 1024)):
        model = models.matmul(rows, depth, columns)
        code = bound(model)
        x, w = models.random((rows, depth)), models.random((depth, columns))
        values = {"x": x, "w": w}
        got, out = code.run(values)["out"], np.empty((rows, columns), np.float32)
        np.matmul(x, w, out=out)
        assert np.abs(got - out).max() < 1e-3
        ours, peer = turns((code.native, lambda x=x, w=w, out=out: np.matmul(x, w, out=out)))
        row(f"dense {rows}x{depth}x{columns}", ours, peer, 0.9, rows * depth * columns)


def rows() -> None:
    """Softmax, layer normalization, a chain of element-wise operators."""
    for name, model, goal in (
        ("softmax 1024x1024", models.softmax(1024, 1024), 1.0),
        ("layernorm 1024x1024", models.layernorm(1024, 1024), 1.3),
        ("chain of 5 on 4M", models.chain(4 << 20), 4.0),
    ):
        code, one = bound(model), session(model)
        values = {i.name: models.value_of(i) for i in model.graph.input}
        expected, got = one.run(None, values)[0], code.run(values)[code.outputs[0]]
        assert np.allclose(got, expected, rtol=1e-4, atol=1e-5), np.abs(got - expected).max()
        binding = one.io_binding()
        for key, value in values.items():
            binding.bind_cpu_input(key, value)
        binding.bind_output(model.graph.output[0].name)
        ours, peer = turns((code.native, lambda o=one, b=binding: o.run_with_iobinding(b)))
        row(name, ours, peer, goal)


def network_models() -> Iterable[tuple[str, onnx.ModelProto]]:
    """Whole networks, in floating point and quantized."""
    for name, make in models.NETWORKS.items():
        yield f"{name} fp32", make()
        yield f"{name} int8", models.quantized(make())
    for kind in ("fp32", "qdq"):
        model = onnx.load(SHARED / "models" / "kwt1_transformer" / f"kwt1_{kind}.onnx")
        yield f"KWT-1 {'fp32' if kind == 'fp32' else 'int8'}", model


def networks() -> None:
    """Whole networks beside the peer's whole run."""
    for name, model in network_models():
        beside(name, model, 1.0)


def threads() -> None:
    """ResNet-18 on two threads beside one, in seconds of the clock."""
    model = models.NETWORKS["ResNet-18"]()
    codes = bound(model, 1), bound(model, 2)
    values = {i.name: models.value_of(i) for i in model.graph.input}
    results = [code.run(values)[code.outputs[0]] for code in codes]
    assert np.array_equal(results[0], results[1])
    taken: list[list[float]] = [[], []]
    for _ in range(25):
        for code, times in zip(codes, taken, strict=True):
            before = time.perf_counter()
            code.run(values)
            times.append(time.perf_counter() - before)
    row("two threads over one", taken[1], taken[0], 1.7)


def compile_times() -> None:
    """ResNet-18 compiled for the CPU, cold and from the cache, each in a process that has not
    compiled before: the best of some, and their median."""
    import llvmlite.binding  # noqa: F401  to load it is not to compile

    graph = graph_of(models.NETWORKS["ResNet-18"]())
    context = multiprocessing.get_context("fork")
    taken: dict[str, list[float]] = {"cold": [], "warm": []}

    def timed(folder: str, result: Any) -> None:
        before = time.process_time()
        HostCode(graph, graph.nodes, Path(folder), outputs=graph.outputs)
        result.send(time.process_time() - before)

    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            for times in taken.values():
                got, result = context.Pipe(duplex=False)
                child = context.Process(target=timed, args=(folder, result))
                child.start()
                times.append(got.recv())
                child.join()
    for (what, times), goal in zip(taken.items(), (1.5, 0.1), strict=True):
        print(
            f"compile ResNet-18, {what}: {min(times):.2f} s (median "
            f"{statistics.median(times):.2f}, goal {goal})", flush=True
        )  # fmt: skip


def functional() -> None:
    """The functional simulator, which is native code from the same compiler: a long GEMM, and
    ResNet-18, in CPU time; beside the golden model in numpy and the network on the host."""
    size = 1 << 24
    with connect("functional", AcceleratorConfig.preset("tiny"), dram_bytes=size) as device:
        golden = GoldenModel(device.config, size)
        count = Exercise(device).tiles(4)
        golden.dram[:] = device.read(0, size)
        device.run(STREAM, count)
        golden.run(STREAM, count)
        assert np.array_equal(device.read(0, size), golden.dram)
    with connect("functional", AcceleratorConfig.preset("base")) as device:
        count, macs = Exercise(device).gemm((1 << 14) - 1)
        (taken,) = turns((lambda: device.run(STREAM, count),))
    rate = macs / min(taken) / 1e9
    print(f"functional, GEMM: {rate:.0f} GMAC a second (goal 25), as the golden model", flush=True)
    network = resnet18.resnet18()
    x = models.random(network.graph.tensors["x"].shape) * 64
    x = x.clip(-128, 127).astype(np.int8)
    with weft.jit(network, "vta", "cpu") as run:
        expected = run(x)
    with weft.jit(network, "vta", "functional") as run:
        assert np.array_equal(run(x), expected)
        (taken,) = turns((lambda: run(x),))
    print(f"functional, ResNet-18: {min(taken):.2f} s (goal 0.6), as the host", flush=True)


ROWS: dict[str, Callable[[], None]] = {
    "layers": layers, "int8": int8, "dense": dense, "rows": rows, "networks": networks,
    "compile": compile_times, "threads": threads, "functional": functional,
}  # fmt: skip

if __name__ == "__main__":
    print(f"{'':28} {'Weft':>12} {'peer':>12} {'GMAC/s':>7}   peer / Weft")
    for wanted in sys.argv[1:] or ROWS:
        ROWS[wanted]()
