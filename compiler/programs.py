"""Steps and programs of a placed network: layers of neighbours become one stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..isa.formats import INSTRUCTION_BYTES, UOP_BYTES
from ..isa.instructions import Instruction, InstructionSet
from .allocate import Constants
from .artifact import AcceleratorStep, HostStep, Program
from .emit import Stream, finish
from .graph import Graph, op_name
from .jobs import ContractionJob, Job
from .lives import Lives
from .microops import place_uops
from .module import Module
from .order import in_order
from .partition import Placement, compulsory_bytes, macs, tensor_bytes
from .schedule import Bases, Rings, Stage
from .stays import Stay


def ends(graph: Graph, group: tuple[Placement, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
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


def host_step(graph: Graph, group: tuple[Placement, ...]) -> HostStep:
    """Neighbours that the CPU runs."""
    nodes = [placed.node for placed in group]
    reads, writes = ends(graph, group)
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


def staged(
    module: Module, run: Sequence[Placement], constants: Constants
) -> tuple[list[Stage], str]:
    """The actions of one program's layers, with micro-ops, and its name.

    Its constants are put into ``constants``.
    """
    config, tensors = module.config, module.tensors
    assert tensors is not None
    rings = Rings(config)
    stages: list[Stage] = []
    before: list[Stage] = []  # of the layer before, if this one takes turns with it
    stays, left = on_chip(module)
    for number, placed in enumerate(run):
        job, name = job_in(placed), placed.node.name
        rings.quiet, rings.inputs = rings.inputs, left[name]
        element = config.inp_element_bytes
        weights = constants.add(f"{name}.wgt", job.weights, job.weight_bytes)
        records = constants.add(f"{name}.qnt", job.records, config.qnt_element_bytes)
        starts = constants.add(f"{name}.acc", job.starts, config.acc_element_bytes)
        bases = Bases(
            {name: tensors[name].address // element for name in (*job.inputs, job.output)},
            records // config.qnt_element_bytes,
            weights // job.weight_bytes,
            starts // config.acc_element_bytes,
            stays,
        )
        following = turned_to(run, number)
        if following is not None:
            rings.together(Counter(job.room()) + Counter(following.room()))
        own = job.stages(bases, rings)
        for stage in own:
            stage.layer = number
        if following is not None:
            before = own
        else:
            stages += in_turns(before, own) if before else own
            before = []
    name = run[0].node.name if len(run) == 1 else f"{run[0].node.name}..{run[-1].node.name}"
    uops = place_uops(stages, config, constants.reserve(UOP_BYTES))
    constants.add(f"{name}.uop", uops, UOP_BYTES)
    return stages, name


def turned_to(run: Sequence[Placement], number: int) -> Job | None:
    """The next layer, if layer ``number`` of a program takes turns with it."""
    stay = run[number].stay
    if stay is None or not stay.window or number + 1 == len(run):
        return None
    return job_in(run[number + 1])


def in_turns(first: Sequence[Stage], second: Sequence[Stage]) -> list[Stage]:
    """Stages of two layers, tile by tile of the image. The second layer is one tile behind: what it
    reads has been stored while the first one was at its next tile."""
    return sorted((*first, *second), key=lambda s: (s.turn + (s.layer > first[0].layer), s.layer))


def on_chip(module: Module) -> tuple[dict[str, Stay], dict[str, int]]:
    """Where tensors lie that stay on chip, by name; and the elements of ``inp`` that each layer
    may use for its tiles, by its node's name."""
    stays: dict[str, Stay] = {}
    left: dict[str, int] = {}
    for groups in programs_of(module.groups):
        run = [group[0] for group in groups if group[0].job is not None]
        own = {job_in(p).output: p.stay for p in run if p.stay is not None}
        lives = Lives([job_in(p) for p in run], own, module.config)
        depth = module.config.inp_depth
        left |= {p.node.name: depth - lives.taken(i) for i, p in enumerate(run)}
        stays |= own
    return stays, left


def job_in(placed: Placement) -> Job:
    """The job of a node on the accelerator."""
    assert placed.job is not None
    return placed.job


def accelerator_steps(
    module: Module, run: Sequence[Placement], constants: Constants, as_written: bool = False
) -> list[AcceleratorStep]:
    """The layers of one program, with their constants and the program in DRAM.

    ``as_written`` leaves the actions in the schedule's order, one stage after another, without
    tokens: what the schedule means, for whoever executes one instruction after another.
    """
    config = module.config
    stages, name = staged(module, run, constants)
    if as_written:
        stream = one_by_one(stages)
    else:
        stream = finish(in_order(stages, config), config)
    instructions = InstructionSet(config)
    words = instructions.encode_all(stream.instructions)
    address = constants.add(name, np.frombuffer(words, np.uint8), INSTRUCTION_BYTES)
    program = Program(name, address, stream.instructions, stream.owners)
    steps: list[AcceleratorStep] = []
    for number, placed in enumerate(run):
        node, job = placed.node, job_in(placed)
        least = compulsory_bytes(module.graph, placed.nodes, job)
        products = sum(macs(module.graph, node) for node in placed.nodes)
        steps.append(
            AcceleratorStep(
                name=node.name,
                op="+".join(op_name(node.op) for node in placed.nodes),
                nodes=tuple(node.name for node in (*placed.views, *placed.nodes)),
                inputs=job.inputs,
                outputs=(job.output,),
                program=program,
                layer=number,
                macs=products,
                needed_macs=int(products * job.met),
                compulsory_bytes=least,
                fused_bytes=least - bytes_on_chip(module.graph, placed),
                choices=dict(job.choices) | told(run, number),
                search=job.search,
            )
        )
    return steps


def bytes_on_chip(graph: Graph, placed: Placement) -> int:
    """What a layer need not move because it stays on chip."""
    job, stay = job_in(placed), placed.stay
    kept = 2 * tensor_bytes(graph, placed.inner)
    if isinstance(job, ContractionJob) and job.on_chip:
        kept += job.products_bytes
    if stay is None or stay.stored:
        return kept
    return kept + tensor_bytes(graph, [job.output])


def told(run: Sequence[Placement], number: int) -> dict[str, str]:
    """What of a layer of a program stays on chip, for people."""
    job, stay = job_in(run[number]), run[number].stay
    found: dict[str, str] = {}
    fused = [f"with {node.name}, in accumulators" for node in run[number].joins]
    if turned_to(run, number) is not None:
        fused.append(f"with {run[number + 1].node.name}, tile by tile")
    if number and turned_to(run, number - 1) is not None:
        fused.append(f"with {run[number - 1].node.name}, tile by tile")
    if fused:
        found["fused"] = "; ".join(fused)
    if job.on_chip:
        found["input"] = "on chip"
    if stay is not None:
        found["output"] = stay.text
    return found


def one_by_one(stages: Sequence[Stage]) -> Stream:
    """The actions of stages as they stand there, without tokens."""
    instructions: list[Instruction] = []
    owners: list[int] = []
    for stage in stages:
        for action in (*stage.loads, *stage.steps, *stage.stores):
            instructions.append(Instruction(action.operation, action.operands))
            owners.append(stage.layer)
    return Stream((*instructions, Instruction("finish", {})), (*owners, stages[-1].layer))


def programs_of(groups: Sequence[tuple[Placement, ...]]) -> list[list[tuple[Placement, ...]]]:
    """Neighbours on the accelerator together; every group on the host alone."""
    runs: list[list[tuple[Placement, ...]]] = []
    for group in groups:
        if group[0].job is not None and runs and runs[-1][-1][0].job is not None:
            runs[-1].append(group)
        else:
            runs.append([group])
    return runs


def ends_of_steps(module: Module) -> list[tuple[Sequence[str], Sequence[str], bool]]:
    """What each step reads and writes, and whether on the accelerator.

    What a program does not make itself must be there when it is launched: its first step reads
    that, too. Of two layers that take turns, the second one reads what the first one does, which is
    not done before.
    """
    touched: list[tuple[Sequence[str], Sequence[str], bool]] = []
    for run in programs_of(module.groups):
        own = [ends(module.graph, group) for group in run]
        made = {name for _, writes in own for name in writes}
        outside = [name for reads, _ in own for name in reads if name not in made]
        on_accelerator = run[0][0].job is not None
        for i, (reads, writes) in enumerate(own):
            stay = run[i - 1][0].stay if i else None
            turned = own[i - 1][0] if stay is not None and stay.window else ()
            also = (*turned, *(outside if i == 0 else ()))
            touched.append(((*reads, *also), writes, on_accelerator))
    return touched
