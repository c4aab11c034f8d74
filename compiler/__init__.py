"""From a trained network to programs: tensor graph, loop nests, instruction streams.

A front end (:mod:`.tflite`) makes a tensor graph (:mod:`.graph`), :func:`compile_graph` makes of
it what a runtime executes (:mod:`.artifact`). On the way every node becomes a loop nest
(:mod:`.operators`, in the language of :mod:`weft.isa.nest`) that is matched with the instructions'
declared meanings (:mod:`.tensorize`), cut into tiles (:mod:`.tiling`) and emitted with its
dependence tokens (:mod:`.emit`); nodes that do not fit become native code (:mod:`.host`).

This room knows the hardware only through :mod:`weft.isa`. It refuses, with an exception of
:mod:`weft.isa.errors`, what it cannot compile to the reference kernels' bits exactly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifact import CompiledModel
    from .graph import Graph
    from .pipeline import compile_graph

_HOMES = {"CompiledModel": ".artifact", "Graph": ".graph", "compile_graph": ".pipeline"}
"""Where a name lives; imported at its first use, so that what is compiled already loads quickly."""

__all__ = ["CompiledModel", "Graph", "compile_graph"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home, __name__), name)
