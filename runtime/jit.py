"""``weft.jit``: a network as a function on numpy arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.artifact import AcceleratorStep, CompiledModel
from ..compiler.effort import EFFORTS, Effort
from ..compiler.rounding import rounded_for
from ..isa.config import AcceleratorConfig
from ..isa.errors import ConfigError, DataError, DeviceError, PackageError
from ..isa.spec import spec_hash
from ..sim import connect
from . import cache, package, report
from .executor import Executor, check_sample
from .hardware import Hardware, hardware
from .launch import StepProfile
from .network import Network

if TYPE_CHECKING:
    from ..compiler.module import Module, Where

TARGETS = ("rtl", "functional", "cpu")
"""Where a network can run."""
INTERPRETER = "interpreter"
"""Where any level of it can, as it stands: see :mod:`.interpreter`."""


BOUND_LIMIT = 8
"""Sizes of inputs for which an open network is kept compiled."""


class Run:
    """A network on one piece of hardware. Compiles at the first call; see :func:`jit`."""

    def __init__(
        self,
        network: Network,
        config: AcceleratorConfig,
        on: str,
        *,
        on_host: frozenset[str],
        effort: Effort,
        crashes: Path | None,
        progress: Callable[..., None] | None,
        threads: int | None,
        device_options: dict[str, Any],
    ):
        if on not in (*TARGETS, INTERPRETER):
            raise ConfigError(f"a network runs on {', '.join(TARGETS)}, not on {on!r}")
        if effort not in EFFORTS:
            raise ConfigError(f"the effort is {', '.join(EFFORTS)}, not {effort!r}")
        self.network = network
        self.config = config
        self.on = on
        self._on_host = on_host
        self._effort: Effort = effort
        self._crashes = crashes
        self._progress = progress
        self._threads = threads
        self._device_options = device_options
        self._model: CompiledModel | None = None
        self._cached: Path | None = None
        self._executor: Executor | None = None
        self._profiles: list[StepProfile] = []
        self._samples = 0
        self._bound: dict[Hashable, Run] = {}
        self._by_value: frozenset[str] = frozenset()
        self._last: Run = self

    def __call__(
        self, *inputs: np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Inference.

        Parameters
        ----------
        *inputs : ndarray
            One array for each of the network's inputs, in order, of its exact type. The first
            axis may be any multiple of the network's own: so many samples are run.
        progress : callable or None
            Called with (samples done, samples in all) after each.

        Returns
        -------
        ndarray or tuple of ndarray
            One array for each output, samples on the first axis.

        Raises
        ------
        DataError
            If number, type or shape of the inputs do not fit.
        DeviceError
            If the device stops.
        """
        graph = self.network.graph
        if len(inputs) != len(graph.inputs):
            raise DataError(f"expected {len(graph.inputs)} inputs, got {len(inputs)}")
        if self.network.open:
            self._last = self._for(inputs)
            return self._last(*inputs, progress=progress)
        if all(
            x.shape == graph.tensors[n].shape for n, x in zip(graph.inputs, inputs, strict=True)
        ):
            outputs = self._run(inputs)
            if progress is not None:
                progress(1, 1)
            results = tuple(outputs[name] for name in graph.outputs)
            return results[0] if len(results) == 1 else results
        samples = {self._sample_count(n, x) for n, x in zip(graph.inputs, inputs, strict=True)}
        if len(samples) != 1:
            raise DataError(f"the inputs hold different numbers of samples: {sorted(samples)}")
        count = samples.pop()
        collected: list[dict[str, np.ndarray]] = []
        for i in range(count):
            collected.append(self._run([_sample(x, i, count) for x in inputs]))
            if progress is not None:
                progress(i + 1, count)
        results = tuple(
            np.concatenate([np.atleast_1d(outputs[name]) for outputs in collected])
            for name in graph.outputs
        )
        return results[0] if len(results) == 1 else results

    def _run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for one sample."""
        executor = self._ready()
        values = {
            name: check_sample(executor.model, name, x)
            for name, x in zip(self.network.graph.inputs, inputs, strict=True)
        }
        try:
            outputs, self._profiles = executor(values)
        except DeviceError:
            self.close()  # a device that stopped is of no further use; the next call connects
            raise
        self._samples += 1
        return outputs

    def _for(self, inputs: Sequence[np.ndarray]) -> Run:
        """This network for inputs of these sizes, and values where shapes depend on them.

        The latest are kept: another call with the same sizes compiles nothing.
        """
        from ..compiler.onnx import Unbound

        model = self.network.model
        assert model is not None
        named = {one.name: x for one, x in zip(model.inputs, inputs, strict=True)}
        shapes = {name: x.shape for name, x in named.items()}
        model.fit(shapes)
        while True:
            values = {name: named[name] for name in named if name in self._by_value}
            key = (tuple(shapes.items()), tuple((n, v.tobytes()) for n, v in values.items()))
            if key in self._bound:
                self._bound[key] = self._bound.pop(key)
                return self._bound[key]
            try:
                graph = model.graph(shapes, values)
                break
            except Unbound as unbound:
                if unbound.inputs <= self._by_value:
                    raise
                self._by_value |= unbound.inputs
        sha256 = hashlib.sha256(repr((self.network.sha256, key)).encode()).hexdigest()
        network = Network(self.network.name, graph, sha256)
        run = type(self)(
            network, self.config, self.on, on_host=self._on_host, effort=self._effort,
            crashes=self._crashes, progress=self._progress, threads=self._threads,
            device_options=self._device_options,
        )  # fmt: skip
        while len(self._bound) >= BOUND_LIMIT:
            self._bound.pop(next(iter(self._bound))).close()
        self._bound[key] = run
        return run

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the first input, with the network's own number of samples on the first axis."""
        graph = self.network.graph
        return graph.tensors[graph.inputs[0]].shape

    def report(self) -> dict[str, Any]:
        """The record of the last inference; see DESIGN's report. ``print`` it through ``str``."""
        if self._last is not self:
            return self._last.report()
        if not self._profiles:
            raise DataError("there is nothing to report before the first inference")
        model = self.compile()
        on_device = [isinstance(step, AcceleratorStep) for step in model.steps]
        seconds = [profile.seconds for profile in self._profiles]
        info = report.RunInfo(
            self.network.name,
            self.network.sha256,
            self.on,
            report.dram(self._device_options),
            self._samples,
            sum(s for s, d in zip(seconds, on_device, strict=True) if not d),
            sum(s for s, d in zip(seconds, on_device, strict=True) if d),
        )
        return report.Report(report.build(model, self._profiles, info))

    def close(self) -> None:
        """Give the device back; another call connects again."""
        for bound in self._bound.values():
            bound.close()
        if self._executor is not None and self._executor.device is not None:
            self._executor.device.close()
        self._executor = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _sample_count(self, name: str, value: np.ndarray) -> int:
        tensor = self.network.graph.tensors[name]
        if not tensor.shape:
            raise DataError(f"input {name!r} is a scalar, which has no axis for samples")
        own = tensor.shape[0]
        if value.ndim != len(tensor.shape) or value.shape[1:] != tensor.shape[1:]:
            rest = ", ".join(map(str, tensor.shape[1:]))
            raise DataError(f"input {name!r} takes shape (samples, {rest}), not {value.shape}")
        if not len(value) or len(value) % own:
            raise DataError(f"input {name!r} takes a multiple of {own} samples, not {len(value)}")
        return len(value) // own

    def _ready(self) -> Executor:
        if self._executor is None:
            model = self.compile()
            device = None
            if any(isinstance(step, AcceleratorStep) for step in model.steps):
                options = dict(self._device_options)
                if self.on == "rtl" and self._progress is not None:
                    options["progress"] = self._progress
                options.setdefault("dram_bytes", max(256 << 20, model.dram_bytes))
                device = connect(self.on, self.config, **options)
            try:
                self._executor = Executor(model, device, self._threads)
            except BaseException:
                if device is not None:
                    device.close()
                raise
        return self._executor

    def compile(self) -> CompiledModel:
        """The compiled network, from the cache if it was compiled before; needs no device.

        Raises
        ------
        UnsupportedError
            If operators are left that neither accelerator nor host can run; lists them all.
        ConfigError
            If ``on_host`` names a node that the network does not have.
        """
        if self.network.unbound is not None:
            raise self.network.unbound
        if self._model is None:
            self._model = self._compile()
        return self._model

    def _compile(self) -> CompiledModel:
        made, graph = self.network.compiled, self.network.graph
        unknown = self._on_host - {node.name for node in graph.nodes}
        if unknown:
            raise ConfigError(f"{self.network.name} has no node {min(unknown)!r} to run on the CPU")
        if made is not None and self.on != "cpu" and not self._on_host:
            return made
        placement = "cpu" if self.on == "cpu" else "auto"

        def compiled() -> CompiledModel:
            from ..compiler.pipeline import run  # much to import, often for nothing

            start = first_module(self.network, self.config, placement, self._on_host, self._effort)
            return run(start, crashes=self._crashes).model

        # What a package or a text says of its origin is no key for the cache.
        if made is not None or self.network.module is not None:
            return compiled()
        options = f"{placement} {sorted(self._on_host)} {self._effort}"
        path = self._cached = cache.path_of(self.network.sha256, self.config, options)
        graph = rounded_for(graph, self.config)  # as the compiler does, whose graph is kept
        model = cache.load(path, self.config, graph)
        if model is None:
            model = compiled()
            cache.store(path, model, asdict(self.network.origin))
            model = replace(model, graph=graph)
        return model

    def save(self, path: str | Path) -> None:
        """Write the compiled network as a package.

        Raises
        ------
        PackageError
            If the file cannot be written.
        """
        model = self.compile()
        if self._cached is not None and self._cached.exists():
            package.copy(self._cached, path)
        else:
            package.save(model, path, asdict(self.network.origin))


def first_module(
    network: Network,
    config: AcceleratorConfig,
    placement: Where = "auto",
    on_host: frozenset[str] = frozenset(),
    effort: Effort = "default",
) -> Module:
    """Where the compilation of a network begins: with its graph, or at the level of its text.

    What is decided there already is taken as it stands, unless the caller asks for other places
    of nodes: then all begins with the graph again. An effort other than the default one counts
    more than the text's.
    """
    from ..compiler.module import LEVELS, Module

    made = network.module
    if made is None:
        return Module(network.graph, config, placement, on_host, network.origin, effort=effort)
    effort = made.effort if effort == "default" else effort
    placement = "cpu" if "cpu" in (placement, made.placement) else "auto"
    on_host |= made.on_host
    if (placement, on_host) == (made.placement, made.on_host):
        return replace(made, config=config, effort=effort)
    if LEVELS.index(made.level) <= LEVELS.index("nests"):
        return replace(made, config=config, placement=placement, on_host=on_host, effort=effort)
    return Module(made.graph, config, placement, on_host, made.origin, effort=effort)


def _sample(value: np.ndarray, i: int, count: int) -> np.ndarray:
    """Sample ``i`` of ``count`` equal parts of the first axis."""
    rows = len(value) // count
    return value[i * rows : (i + 1) * rows]


def jit(
    network: Network,
    hw: Hardware | None = None,
    on: str = "rtl",
    *,
    on_host: frozenset[str] = frozenset(),
    effort: Effort = "default",
    crashes: Path | None = None,
    progress: Callable[..., None] | None = None,
    threads: int | None = None,
    **device_options: Any,
) -> Run:
    """``network`` as a function from arrays to arrays.

    Parameters
    ----------
    network : Network
        What :func:`weft.load` returned.
    hw : AcceleratorConfig, str, path or None
        The hardware: a configuration, a preset's name, or a TOML file. None is what a package
        was compiled for, and ``base`` for a model.
    on : str
        ``rtl`` (the generated Verilog in Verilator), ``functional`` (the instructions' meanings,
        compiled), ``cpu`` (no accelerator) or ``interpreter`` (the level that a text is at, as it
        stands there; nothing is compiled on, and there is no report).
    on_host : frozenset of str
        Names of nodes that run on the CPU whatever the accelerator can do.
    effort : str
        How long to search for schedules: ``fast``, ``default`` or ``max``.
    crashes : Path or None
        The folder for a file that reproduces a crash of the compiler; without, the exception is
        what it is.
    progress : callable or None
        Told of the phases of the RTL's first build.
    threads : int or None
        On how many threads the CPU computes; by default as many as the environment's
        ``WEFT_THREADS`` says, or one. Results do not depend on it.
    **device_options
        For :func:`weft.sim.connect`: ``dram_latency``, ``stall_seed``, ``timeout_cycles``, ...

    Raises
    ------
    ConfigError
        If ``hw``, ``on`` or ``effort`` is not known.
    PackageError
        If a package was compiled for other hardware than ``hw``.

    What is wrong with the network is raised at the first call, when it is compiled.
    """
    config = hardware_of(network, hw)
    kind = Run
    if on == INTERPRETER:
        from .interpreter import Interpreted

        kind = Interpreted
    return kind(
        network,
        config,
        on,
        on_host=on_host,
        effort=effort,
        crashes=crashes,
        progress=progress,
        threads=threads,
        device_options=device_options,
    )


def compile(
    network: Network,
    hw: Hardware | None = None,
    *,
    on_host: frozenset[str] = frozenset(),
    effort: Effort = "default",
) -> CompiledModel:
    """``network`` compiled, from the cache if it was before; parameters as in :func:`jit`.

    Raises
    ------
    ConfigError, PackageError
        As :func:`jit` does.
    UnsupportedError
        If operators are left that neither accelerator nor host can run; it lists them all.
    """
    return jit(network, hw, "functional", on_host=on_host, effort=effort).compile()


def hardware_of(network: Network, hw: Hardware | None) -> AcceleratorConfig:
    """What a network is compiled for: see :func:`jit`.

    Raises
    ------
    ConfigError, PackageError
        As there.
    """
    made: CompiledModel | Module | None = network.compiled or network.module
    if made is None:
        return hardware("base" if hw is None else hw)
    config = made.config if hw is None else hardware(hw)
    decided = isinstance(made, CompiledModel) or made.level in ("schedule", "stream")
    if decided and spec_hash(config) != spec_hash(made.config):
        raise PackageError(
            f"{network.name}: compiled for spec {spec_hash(made.config)}, "
            f"the hardware has {spec_hash(config)}"
        )
    return config
