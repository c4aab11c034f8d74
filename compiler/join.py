"""Which layers go on with the sums of the one before them, before these are stored.

An operator on elements that alone reads a layer's results, as an addition does behind a
convolution, can have them where they are: each sum is requantized in its place to the byte that
would have been stored, and the operator's instructions go on from there. Both are one expression
then, which :mod:`.tensorize` matches like any other.

Nobody stores and loads that byte; but the array takes a step for each requantization, which the
store engine does beside it otherwise. So two layers become one if the products with these steps are
estimated to take no more cycles than the products, and the operator among others.

A maximum over windows of a layer's results is taken of its sums instead (:mod:`.pool`).
"""

from __future__ import annotations

from dataclasses import replace

from ..isa.config import AcceleratorConfig
from ..isa.nest import I8, Expr, Load
from ..isa.traverse import rewrite, substitute
from .affine import is_index
from .graph import Graph
from .jobs import ContractionJob, ElementwiseJob, job_of, tail_of
from .kernel import Kernel, Refusal
from .matcher import Matcher
from .module import Module
from .partition import Placement
from .patterns import normal
from .pool import pooled
from .programs import programs_of
from .ranges import within


def join(module: Module) -> Module:
    """``module`` with layers that are one, unless somebody else has decided.

    Hardware whose results cannot stay on chip is VTA's own, and each operator there a layer.
    """
    jobs = [group[0].job for group in module.groups if group[0].job is not None]
    if not module.config.keeping or any(job.decided for job in jobs):
        return module
    groups: list[tuple[Placement, ...]] = []
    for run in programs_of(module.groups):
        done: list[tuple[Placement, ...]] = []
        for group in run:
            both = joined(module, done[-1][0], group[0]) if done else None
            if both is None:
                done.append(group)
            else:
                done[-1] = (both,)
        groups += done
    return replace(module, groups=tuple(groups))


def joined(module: Module, first: Placement, second: Placement) -> Placement | None:
    """Two neighbours as one; None if they are better left apart."""
    one, two = first.job, second.job
    if not isinstance(one, ContractionJob) or not isinstance(two, ElementwiseJob):
        return None
    if one.work.tail is not None or one.work.pool is not None or second.views:
        return None
    if one.output not in two.inputs or not read_by_one_alone(module.graph, one.output):
        return None
    apart = one.estimate + two.among_others
    more = tail_of(two.work, len(two.inputs) - 1, len(two.parameters), module.config)
    try:
        if two.kernel.reduction is not None:
            known = Matcher(one.kernel, module.config).known
            kernel = pooled(one.kernel, two.kernel, two.work.images, known)
        elif one.estimate_with(more) > apart:
            return None
        else:
            kernel = composed(one.kernel, two.kernel, module.config)
        job = job_of(kernel, module.config, effort=module.effort)
    except Refusal:
        return None
    assert isinstance(job, ContractionJob)
    if job.work.pool is not None and job.estimate > apart:
        return None
    job.read_bytes += one.read_bytes - job.products_bytes
    job.met, job.unfold = one.met, one.unfold
    return Placement(second.node, job, views=first.views, joins=first.nodes)


def read_by_one_alone(graph: Graph, name: str) -> bool:
    """Whether one node reads a tensor, and nobody else."""
    readers = [node for node in graph.nodes if name in node.inputs]
    return len(readers) == 1 and name not in {*graph.outputs, *graph.carried.values()}


def composed(one: Kernel, two: Kernel, config: AcceleratorConfig) -> Kernel:
    """``two`` with the value of ``one`` for each element of its output.

    Raises
    ------
    Refusal
        If they differ in their axes, or a value of ``one`` might not be the byte that it stores.
    """
    shape = one.shapes[one.output]
    if (one.lying, two.reduction) != (two.lying, None) or two.flat:
        raise Refusal("they go along other axes")
    both = one.shapes.keys() & two.shapes.keys()
    if any(other != shape for other in two.shapes.values()) or any(
        one.shapes[name] != two.shapes[name] for name in both
    ):
        raise Refusal("their tensors have other shapes")
    places: dict[str, Expr] = {}
    for own, its in zip(two.element, one.element, strict=True):
        name = is_index(own)
        if name is not None:
            places[name] = its
        elif own != its:
            raise Refusal("they go along other axes")
    if not within(one.value, (I8.min, I8.max), Matcher(one, config).known):
        raise Refusal("what it would store is no byte before it is stored")
    made = Load(one.output, one.element)
    value = rewrite(substitute(two.value, places), lambda n: one.value if n == made else None)
    assert isinstance(value, Expr)
    shapes = {**one.shapes, **two.shapes}
    del shapes[one.output]
    constants = {**two.constants, **one.constants}
    if any(constants[name] is not array for name, array in two.constants.items()):
        raise Refusal("their constants have the same name")
    return replace(one, output=two.output, value=normal(value), shapes=shapes, constants=constants)
