"""From a graph to what runs: one list of named passes.

Each takes a valid module of one level (:mod:`.module`) and gives a valid one of the same or of the
next. Any level can be printed, and read back by whoever goes on from there (:mod:`.levels`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..isa.config import AcceleratorConfig
from .allocate import Constants, lives_of, share
from .artifact import AcceleratorStep, CompiledModel, DramTensor, Step
from .check import check
from .effort import Effort
from .graph import Graph
from .join import join
from .keep import keep
from .kernel import dram_shape
from .layout import packed_bytes
from .levels.crash import leaving_a_reproduction
from .levels.nests import check_host
from .meaning import Meaning, check_meaning
from .module import LEVELS, Level, Lowered, Module, Where, grouped
from .partition import UNCHANGED, place
from .programs import accelerator_steps, ends_of_steps, host_step, programs_of
from .rehearse import rehearse
from .rounding import rounded_for
from .verify import verify

__all__ = ["PASSES", "Module", "Pass", "Watch", "compile_graph", "run"]

Watch = Callable[[str, Module], None]
"""Called after each pass with its name and what it made: to print, to time, to verify."""


def compile_graph(
    graph: Graph,
    config: AcceleratorConfig,
    *,
    placement: Where = "auto",
    on_host: frozenset[str] = frozenset(),
    effort: Effort = "default",
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
    effort : str
        How long to search for schedules: ``fast``, ``default`` or ``max``; see :mod:`.search`.
    watch : callable or None
        Called after each pass.

    Raises
    ------
    ModelError
        If the graph is not legal.
    UnsupportedError
        If neither accelerator nor host can run some nodes; it lists them all.
    """
    return run(Module(graph, config, placement, on_host, effort=effort), watch=watch).model


def run(
    module: Module,
    until: Level = "stream",
    *,
    watch: Watch | None = None,
    crashes: Path | None = None,
) -> Module:
    """``module`` after all passes from its level on that lead no further than ``until``.

    Parameters
    ----------
    module : Module
        Of any level.
    until : str
        The level to stop at.
    watch : callable or None
        Called after each pass.
    crashes : Path or None
        The folder for what reproduces a pass that crashes.

    Raises
    ------
    CompilerError
        If a pass crashed, with ``crashes`` given; without, whatever the pass raised.
    """
    with _all_kept():
        for step in PASSES:
            if LEVELS.index(step.takes) < LEVELS.index(module.level):
                continue
            if LEVELS.index(step.makes) > LEVELS.index(until):
                break
            with leaving_a_reproduction(step.name, module, crashes):
                module = step.apply(module)
            if watch is not None:
                watch(step.name, module)
    return module


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


def choose_rounding(module: Module) -> Module:
    """Every operator rounds as the hardware can."""
    return replace(module, graph=rounded_for(module.graph, module.config))


def lower(module: Module) -> Module:
    """Every node has a loop nest that says what it computes."""
    return replace(module, level="nests", nests=Lowered(module.graph))


def partition(module: Module) -> Module:
    """Every node has a place; what runs on the accelerator is matched with instructions, cut."""
    assert module.nests is not None
    placement = place(
        module.graph, module.config, module.placement, module.on_host, module.nests, module.effort
    )
    if not isinstance(module.nests, Lowered):
        for placed in placement:
            if placed.job is None and placed.reason != UNCHANGED:
                check_host(module.graph, placed.node, module.nests)
    chosen = {placed.node.name: placed.node for placed in placement}
    nodes = tuple(chosen.get(node.name, node) for node in module.graph.nodes)
    graph = replace(module.graph, nodes=nodes)
    return replace(module, level="schedule", graph=graph, groups=grouped(placement))


def allocate(module: Module) -> Module:
    """Every activation that the accelerator touches has an address."""
    config, graph = module.config, module.graph
    touched = ends_of_steps(module)
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
    return emitted(module)


def emitted(module: Module, as_written: bool = False) -> Module:
    """See :func:`emit`, and :func:`.programs.accelerator_steps` for ``as_written``."""
    assert module.constants is not None
    constants = Constants(module.constants.at)
    steps: list[Step] = []
    for run_ in programs_of(module.groups):
        if run_[0][0].job is None:
            steps.append(host_step(module.graph, run_[0]))
        else:
            steps += accelerator_steps(module, [group[0] for group in run_], constants, as_written)
    return replace(module, level="stream", steps=tuple(steps), constants=constants)


def check_programs(module: Module) -> Module:
    """No program races, leaves a token behind or goes out of a scratchpad; each computes what its
    layers mean, unless these are not known."""
    assert module.constants is not None
    assert module.tensors is not None
    segments = {segment.name: segment for segment in module.constants.segments}
    placed = {p.node.name: p for group in module.groups for p in group if p.job is not None}
    runs: dict[str, list[AcceleratorStep]] = {}
    for step in module.steps:
        if isinstance(step, AcceleratorStep):
            runs.setdefault(step.program.name, []).append(step)
    for name, steps in runs.items():
        program = steps[0].program
        uops = segments.get(f"{name}.uop")
        order = check(program.instructions, module.config, () if uops is None else (uops,))
        if not module.groups:  # it was read: there is nothing to compare it with
            continue
        layers = [Meaning.of(placed[step.name]) for step in steps]
        check_meaning(
            program, order, layers, module.tensors, module.constants.segments, module.config
        )
    return module


@dataclass(frozen=True)
class Pass:
    """``apply`` takes a module of the level ``takes`` and gives one of the level ``makes``."""

    name: str
    takes: Level
    makes: Level
    apply: Callable[[Module], Module]


PASSES: tuple[Pass, ...] = (
    Pass("verify", "graph", "graph", verify_graph),
    Pass("round", "graph", "graph", choose_rounding),
    Pass("lower", "graph", "nests", lower),
    Pass("partition", "nests", "schedule", partition),
    Pass("join", "schedule", "schedule", join),
    Pass("keep", "schedule", "schedule", keep),
    Pass("allocate", "schedule", "schedule", allocate),
    Pass("rehearse", "schedule", "schedule", rehearse),
    Pass("emit", "schedule", "stream", emit),
    Pass("check", "stream", "stream", check_programs),
)
"""From a graph to programs, in order."""
