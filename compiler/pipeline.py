"""From a graph to what runs: one list of named passes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..isa.config import AcceleratorConfig
from ..isa.formats import INSTRUCTION_BYTES, UOP_BYTES
from ..isa.instructions import InstructionSet
from .allocate import Constants, lives_of, share
from .artifact import AcceleratorStep, CompiledModel, DramTensor, HostStep, Program, Step
from .check import check
from .emit import finish
from .graph import Graph, op_name
from .kernel import dram_shape
from .layout import packed_bytes
from .meaning import Meaning, check_meaning
from .microops import place_uops
from .order import in_order
from .partition import Placement, compulsory_bytes, macs, place
from .schedule import Bases, Rings, Stage
from .verify import verify

Where = Literal["auto", "cpu"]


@dataclass(frozen=True, eq=False)
class Module:
    """A network on its way; every pass fills in more."""

    graph: Graph
    config: AcceleratorConfig
    placement: Where
    on_host: frozenset[str]
    groups: tuple[tuple[Placement, ...], ...] = ()
    """Steps to be, in order: one node on the accelerator, or neighbours on the host."""
    tensors: Mapping[str, DramTensor] | None = None
    constants: Constants | None = None
    steps: tuple[Step, ...] = ()


Pass = Callable[[Module], Module]
Watch = Callable[[str, Module], None]
"""Called after each pass with its name and what it made: to print, to time, to verify."""


def compile_graph(
    graph: Graph,
    config: AcceleratorConfig,
    *,
    placement: Where = "auto",
    on_host: frozenset[str] = frozenset(),
    watch: Watch | None = None,
) -> CompiledModel:
    """``graph`` compiled for ``config``.

    Parameters
    ----------
    graph : Graph
        The network.
    config : AcceleratorConfig
        The hardware.
    placement : str
        ``auto`` puts every node on the accelerator that can run there; ``cpu`` none.
    on_host : frozenset of str
        Names of nodes that run on the host in any case.
    watch : callable or None
        Called after each pass.

    Raises
    ------
    ModelError
        If the graph is not legal.
    UnsupportedError
        If neither accelerator nor host can run some nodes; it lists them all.
    """
    module = Module(graph, config, placement, on_host)
    with _all_kept():
        for name, apply in PASSES:
            module = apply(module)
            if watch is not None:
                watch(name, module)
    assert module.tensors is not None
    assert module.constants is not None
    segments = tuple(module.constants.segments)
    return CompiledModel(graph, config, module.steps, module.tensors, segments, module.constants.at)


@contextmanager
def _all_kept() -> Iterator[None]:
    """No search for garbage meanwhile: what the passes make, in great numbers, is in use."""
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
            gc.enable()


# --- the passes ----------------------------------------------------------------------------------


def verify_graph(module: Module) -> Module:
    """The graph is legal."""
    verify(module.graph)
    return module


def partition(module: Module) -> Module:
    """Every node has a place; what runs on the accelerator is matched with instructions, cut."""
    groups: list[tuple[Placement, ...]] = []
    placement = place(module.graph, module.config, module.placement, module.on_host)
    for placed in placement:
        if placed.job is None and groups and groups[-1][0].job is None:
            groups[-1] = (*groups[-1], placed)
        else:
            groups.append((placed,))
    chosen = {placed.node.name: placed.node for placed in placement}
    nodes = tuple(chosen.get(node.name, node) for node in module.graph.nodes)
    graph = replace(module.graph, nodes=nodes)
    return replace(module, graph=graph, groups=tuple(groups))


def allocate(module: Module) -> Module:
    """Every activation that the accelerator touches has an address."""
    config, graph = module.config, module.graph
    touched = _touched(module)
    names = dict.fromkeys(name for reads, writes, on in touched if on for name in (*reads, *writes))
    tensors: dict[str, DramTensor] = {}
    unfolds = {
        name: unfold
        for group in module.groups
        if group[0].job is not None
        for name, unfold in group[0].job.unfold.items()
    }
    for name in names:
        tensor = graph.tensors[name]
        fill = tensor.quant.zero_point[0] if tensor.quant is not None else 0
        tensors[name] = DramTensor(name, 0, dram_shape(tensor.shape), fill, unfolds.get(name))
    sizes = {name: packed_bytes(tensor, config) for name, tensor in tensors.items()}
    alignment = max(config.inp_element_bytes, config.out_element_bytes, config.acc8_element_bytes)
    addresses, end = share(lives_of(touched, sizes, graph.outputs), alignment)
    placed = {name: replace(t, address=addresses[name]) for name, t in tensors.items()}
    return replace(module, tensors=placed, constants=Constants(end))


def emit(module: Module) -> Module:
    """Every step is there, with its constants and its program in DRAM."""
    steps: list[Step] = []
    for run in _runs(module.groups):
        if run[0][0].job is None:
            steps.append(_host_step(module.graph, run[0]))
        else:
            steps += _accelerator_steps(module, [group[0] for group in run])
    return replace(module, steps=tuple(steps))


def check_programs(module: Module) -> Module:
    """No program races, leaves a token behind or goes out of a scratchpad; each computes what its
    layers mean."""
    assert module.constants is not None
    assert module.tensors is not None
    segments = {segment.name: segment for segment in module.constants.segments}
    jobs = {p.node.name: p.job for group in module.groups for p in group if p.job is not None}
    runs: dict[str, list[AcceleratorStep]] = {}
    for step in module.steps:
        if isinstance(step, AcceleratorStep):
            runs.setdefault(step.program.name, []).append(step)
    for name, steps in runs.items():
        program = steps[0].program
        uops = segments.get(f"{name}.uop")
        order = check(program.instructions, module.config, () if uops is None else (uops,))
        layers = [Meaning(step.name, jobs[step.name]) for step in steps]
        check_meaning(
            program, order, layers, module.tensors, module.constants.segments, module.config
        )
    return module


PASSES: tuple[tuple[str, Pass], ...] = (
    ("verify", verify_graph),
    ("partition", partition),
    ("allocate", allocate),
    ("emit", emit),
    ("check", check_programs),
)
"""From a graph to programs, in order."""


# --- steps ---------------------------------------------------------------------------------------


def _ends(graph: Graph, group: tuple[Placement, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Activations that a step reads from outside, and those that it writes."""
    if group[0].job is not None:
        return group[0].job.inputs, (group[0].job.output,)
    nodes = [placed.node for placed in group]
    writes = tuple(name for node in nodes for name in node.outputs)
    reads = dict.fromkeys(
        name
        for node in nodes
        for name in node.inputs
        if name and name not in writes and graph.tensors[name].data is None
    )
    return tuple(reads), writes


def _host_step(graph: Graph, group: tuple[Placement, ...]) -> HostStep:
    nodes = [placed.node for placed in group]
    reads, writes = _ends(graph, group)
    reasons = [f"{placed.node.name}: {placed.reason}" for placed in group]
    return HostStep(
        name=nodes[0].name,
        op="+".join(op_name(node.op) for node in nodes),
        nodes=tuple(node.name for node in nodes),
        inputs=reads,
        outputs=writes,
        reason=group[0].reason if len(group) == 1 else "; ".join(reasons),
        macs=sum(macs(graph, node) for node in nodes),
    )


def _accelerator_steps(module: Module, run: Sequence[Placement]) -> list[AcceleratorStep]:
    """The layers of one program, with their constants and the program in DRAM."""
    config, constants, tensors = module.config, module.constants, module.tensors
    assert constants is not None
    assert tensors is not None
    rings = Rings(config)
    stages: list[Stage] = []
    for number, placed in enumerate(run):
        job, name = placed.job, placed.node.name
        assert job is not None
        element = config.inp_element_bytes
        weights = constants.add(f"{name}.wgt", job.weights, job.weight_bytes)
        records = constants.add(f"{name}.qnt", job.records, config.qnt_element_bytes)
        starts = constants.add(f"{name}.acc", job.starts, config.acc_element_bytes)
        bases = Bases(
            {name: tensors[name].address // element for name in (*job.inputs, job.output)},
            records // config.qnt_element_bytes,
            weights // job.weight_bytes,
            starts // config.acc_element_bytes,
        )
        for stage in job.stages(bases, rings):
            stage.layer = number
            stages.append(stage)
    name = run[0].node.name if len(run) == 1 else f"{run[0].node.name}..{run[-1].node.name}"
    uops = place_uops(stages, config, constants.reserve(UOP_BYTES))
    constants.add(f"{name}.uop", uops, UOP_BYTES)
    stream = finish(in_order(stages, config), config)
    instructions = InstructionSet(config)
    words = b"".join(
        instructions.encode(i).to_bytes(INSTRUCTION_BYTES, "little") for i in stream.instructions
    )
    address = constants.add(name, np.frombuffer(words, np.uint8), INSTRUCTION_BYTES)
    program = Program(name, address, stream.instructions, stream.owners)
    steps: list[AcceleratorStep] = []
    for number, placed in enumerate(run):
        node, job = placed.node, placed.job
        assert job is not None
        steps.append(
            AcceleratorStep(
                name=node.name,
                op=op_name(node.op),
                nodes=(*(view.name for view in placed.views), node.name),
                inputs=job.inputs,
                outputs=(job.output,),
                program=program,
                layer=number,
                macs=macs(module.graph, node),
                needed_macs=int(macs(module.graph, node) * job.met),
                compulsory_bytes=compulsory_bytes(module.graph, node, job),
                choices=job.choices,
            )
        )
    return steps


def _runs(groups: Sequence[tuple[Placement, ...]]) -> list[list[tuple[Placement, ...]]]:
    """Neighbours on the accelerator together; every group on the host alone."""
    runs: list[list[tuple[Placement, ...]]] = []
    for group in groups:
        if group[0].job is not None and runs and runs[-1][-1][0].job is not None:
            runs[-1].append(group)
        else:
            runs.append([group])
    return runs


def _touched(module: Module) -> list[tuple[Sequence[str], Sequence[str], bool]]:
    """What each step reads and writes, and whether on the accelerator.

    What a program does not make itself must be there when it is launched: its first step reads
    that, too.
    """
    touched: list[tuple[Sequence[str], Sequence[str], bool]] = []
    for run in _runs(module.groups):
        ends = [_ends(module.graph, group) for group in run]
        made = {name for _, writes in ends for name in writes}
        outside = [name for reads, _ in ends for name in reads if name not in made]
        on_accelerator = run[0][0].job is not None
        for i, (reads, writes) in enumerate(ends):
            touched.append(((*reads, *(outside if i == 0 else ())), writes, on_accelerator))
    return touched
