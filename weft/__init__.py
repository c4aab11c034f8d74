"""Weft: a tensor accelerator and its compiler, designed together.

::

    import weft

    net = weft.load("model.tflite")
    run = weft.jit(net, hw="base", on="rtl")
    y = run(x)
    print(run.report())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION as __version__

if TYPE_CHECKING:
    from .isa import AcceleratorConfig, DeviceError, InputError, WeftError
    from .runtime.jit import Run, compile, jit
    from .runtime.network import Network, load
    from .sim import connect

_HOMES = {
    "AcceleratorConfig": ".isa",
    "DeviceError": ".isa",
    "InputError": ".isa",
    "WeftError": ".isa",
    "Run": ".runtime.jit",
    "compile": ".runtime.jit",
    "jit": ".runtime.jit",
    "Network": ".runtime.network",
    "load": ".runtime.network",
    "connect": ".sim",
}
"""Where a public name lives; imported at its first use, so that ``import weft`` is quick."""

__all__ = [
    "AcceleratorConfig",
    "DeviceError",
    "InputError",
    "Network",
    "Run",
    "WeftError",
    "__version__",
    "compile",
    "connect",
    "jit",
    "load",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
