"""Model files whose structure was changed, as a user would run them: refused with one line and exit
code 2, or valid; in bounded time and memory.

``python -m tests.compiler.structure [CASES] [SEED] [onnx|tflite]`` runs 10,000, and prints what
became of them. A case is its number: it can be run again alone (``--case N``).
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import resource
import select
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np

from weft.compiler import onnx, tflite
from weft.compiler.graph import Graph, element_dtype
from weft.compiler.pipeline import compile_graph
from weft.isa import AcceleratorConfig, WeftError
from weft.runtime.executor import Executor
from weft.runtime.network import of_model

FORMATS = ("onnx", "tflite")
SECONDS = 20.0
"""Of CPU time that a case may take, with compilation."""
STUCK = 300.0
"""Seconds after which a case is given up."""
MEMORY = 3 << 30
"""Bytes that the process may take beyond what it had."""
SIZE, WORK = 1 << 22, 1 << 26
"""Elements of all tensors, and products at most, of a valid network that is run."""
COMPILED, RUN = 6, 24
"""Of so many valid networks one is compiled for the accelerator, and run on the host."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "refused", "valid", "runs", or what is wrong."""

    case: int
    verdict: str
    text: str = ""

    @property
    def good(self) -> bool:
        """Whether it is one of those that may be."""
        return self.verdict in ("refused", "valid", "runs")


@cache
def _seeds(kind: str, every: bool) -> tuple[list[bytes], Callable[[bytes, Random], bytes]]:
    module = importlib.import_module(f"tests.compiler.{kind}.structure")
    return module.seeds(every), module.mutated


def changed(kind: str, case: int, seed: int = 0, every: bool = True) -> bytes:
    """The file of a case."""
    files, mutated = _seeds(kind, every)
    random = Random(f"{kind} {seed} {case}")
    return mutated(random.choice(files), random)


def attempt(kind: str, data: bytes, case: int) -> tuple[str, str]:
    """What the file of a case comes to, and the line that refuses it."""
    try:
        if kind == "onnx":
            graph = of_model(onnx.read(data, "model"), "0" * 64).graph
        else:
            graph = tflite.read(data, "model")
        return _valid(graph, case), ""
    except WeftError as error:
        line = str(error)
        if error.exit_code != 2 or "\n" in line or not line:
            return f"refused with code {error.exit_code}", line
        return "refused", line


def _valid(graph: Graph, case: int) -> str:
    size = sum(math.prod(t.shape) for t in graph.tensors.values())
    work = sum(
        math.prod(graph.tensors[node.outputs[0]].shape)
        * max((math.prod(graph.tensors[n].shape[1:]) for n in node.inputs[1:2] if n), default=1)
        for node in graph.nodes
        if node.outputs
    )
    if size > SIZE or work > WORK:
        return "valid"
    config = AcceleratorConfig.preset("tiny")
    if case % COMPILED == 0:
        compile_graph(graph, config)
    if case % RUN:
        return "valid"
    executor = Executor(compile_graph(graph, config, placement="cpu"), None)
    random = np.random.default_rng(0)
    inputs = {
        name: random.integers(0, 2, t.shape).astype(element_dtype(t.dtype))
        for name in graph.inputs
        for t in (graph.tensors[name],)
    }
    executor(inputs)
    return "runs"


def one(kind: str, case: int, seed: int, every: bool) -> Outcome:
    """A case in this process, with what it takes."""
    data = changed(kind, case, seed, every)
    start, before = time.process_time(), _peak()
    try:
        verdict, text = attempt(kind, data, case)
    except MemoryError:
        verdict, text = "out of memory", ""
    except Exception as error:  # what these cases look for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        verdict, text = "crash", f"{type(error).__name__} at {place}: {error}"
    seconds, grown = time.process_time() - start, _peak() - before
    if seconds > SECONDS:
        verdict, text = "slow", f"{seconds:.1f} s; {verdict} {text}"
    if grown > MEMORY // 2:
        verdict, text = "large", f"{grown >> 20} MiB; {verdict} {text}"
    return Outcome(case, verdict, text)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def outcomes(kind: str, cases: Sequence[int], seed: int = 0, every: bool = True) -> Iterator[Any]:
    """The outcomes of cases, each in a process that may fall."""
    _seeds(kind, every)
    left = list(cases)
    while left:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _work(kind, left, seed, every, writing)
        os.close(writing)
        try:
            for outcome in _heard(reading, len(left)):
                left.pop(0)
                yield outcome
        finally:
            os.close(reading)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if left:
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            yield Outcome(left.pop(0), "stuck" if killed else "fell", f"status {status}")


def _work(kind: str, cases: Sequence[int], seed: int, every: bool, pipe: int) -> None:
    """The process that runs the cases; it does not return."""
    warnings.simplefilter("ignore")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    status = 1
    try:
        for case in cases:
            found = one(kind, case, seed, every)
            line = f"{found.case}\t{found.verdict}\t{' '.join(found.text.split())[:400]}\n"
            os.write(pipe, line.encode(errors="replace"))
        status = 0
    finally:
        os._exit(status)


def _heard(pipe: int, count: int) -> Iterator[Outcome]:
    """What a process says, until it has said all, falls, or is silent for too long."""
    buffer = b""
    while count and select.select([pipe], [], [], STUCK)[0]:
        part = os.read(pipe, 1 << 16)
        if not part:
            return
        *lines, buffer = (buffer + part).split(b"\n")
        for line in lines:
            case, verdict, text = line.decode().split("\t", 2)
            count -= 1
            yield Outcome(int(case), verdict, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="?", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--case", type=int, help="this one alone, in this process")
    arguments = parser.parse_args()
    bad = 0
    for kind in [arguments.format] if arguments.format else FORMATS:
        if arguments.case is not None:
            data = changed(kind, arguments.case, arguments.seed)
            print(kind, attempt(kind, data, arguments.case))
            continue
        counts: Counter[str] = Counter()
        start = time.process_time()
        share = arguments.cases if arguments.format else arguments.cases // len(FORMATS)
        cases = range(arguments.first, arguments.first + share)
        for outcome in outcomes(kind, cases, arguments.seed):
            counts[outcome.verdict] += 1
            if not outcome.good:
                bad += 1
                print(f"{kind} case {outcome.case}: {outcome.verdict}: {outcome.text}", flush=True)
        seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        print(f"{kind}: {share} cases: {words}; {seconds + time.process_time() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
