import re
import subprocess

import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.formal import NO_SOLVER, solver
from weft.hw.clocked import clock
from weft.hw.narrow import narrow
from weft.hw.verilog import verilog_of
from weft.hw.write_port import WritePort
from weft.isa import PRESETS


class Unit(wiring.Component):
    """A register of every kind: held, free, with a case, of two parts, looked at before."""

    a: In(8)
    b: In(8)
    go: In(2)
    held: Out(8)
    free: Out(8)
    chosen: Out(8)
    parts: Out(8)
    now: Out(8)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.go[0]):
            m.d.sync += self.held.eq(self.held + self.a)
        m.d.sync += self.free.eq((self.a * self.b)[:8] - self.free)
        with m.Switch(self.go):
            with m.Case(1):
                m.d.sync += self.chosen.eq(self.a)
            with m.Case(2):
                m.d.sync += self.chosen.eq(Mux(self.b[0], self.b, self.chosen))
        with m.If(self.go[1]):
            m.d.sync += self.parts[2:5].eq(self.b)
        with m.Else():
            m.d.sync += self.parts[4:].eq(self.a)
        inner = Signal(8, init=3)
        with m.If(self.go == 3):
            m.d.sync += inner.eq(self.a + self.b)
        m.d.comb += self.now.eq(inner ^ self.held)
        return m


COMPONENTS = {"every kind": Unit, "write port": lambda: WritePort(PRESETS["tiny"])}


def modules(verilog: str) -> dict[str, str]:
    """Modules that stand alone, by name: no instances and no memories."""
    found = re.findall(r"^module (\S+?) ?\(.*?^endmodule\n", verilog, re.MULTILINE | re.DOTALL)
    texts = re.findall(r"^module .*?^endmodule\n", verilog, re.MULTILINE | re.DOTALL)
    alone = lambda text: not re.search(r"^  \S+ \S+ \($|\] \S+ ?\[\d+:0\];", text, re.MULTILINE)  # noqa: E731
    return {name: text for name, text in zip(found, texts, strict=True) if alone(text)}


def equal(gold: str, gate: str, name: str) -> bool:
    """Whether yosys proves two texts of a module equal, registers by their names."""
    command = solver()
    if command is None:
        pytest.skip(NO_SOLVER)
    read = "read_verilog -sv <<verilog\n{}\nverilog\nproc\nopt_clean\nrename {} {}\n"
    script = (
        read.format(gold, name, "gold")
        + read.format(gate, name, "gate")
        + "equiv_make gold gate both\ncd both\nequiv_simple -undef\nequiv_status -assert\n"
    )
    done = subprocess.run(
        [*command, "-q", "-"], input=script, capture_output=True, text=True, check=False
    )
    proven, failed = done.returncode == 0, "unproven $equiv cells" in done.stderr + done.stdout
    assert proven != failed, done.stderr
    return proven


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("rewrite", [clock, narrow], ids=["clock", "narrow"])
def test_a_rewritten_module_is_the_same_function(rewrite, name):
    before = verilog_of(COMPONENTS[name](), "unit")
    after = modules(rewrite(before))
    changed = [(text, after[n], n) for n, text in modules(before).items() if text != after[n]]
    assert changed
    for gold, gate, module in changed:
        assert equal(gold, gate, module)


def test_the_proof_finds_a_mistake():
    text = verilog_of(Unit(), "unit")
    clocked = clock(text)
    assert not equal(text, clocked.replace("chosen <= a;", "chosen <= b;"), "unit")
    assert not equal(text, clocked.replace("held + a", "held - a"), "unit")


def test_a_sum_is_as_wide_as_what_is_looked_at():
    text = narrow(verilog_of(Unit(), "unit"))
    widths = {name: high for high, name in re.findall(r"wire \[(\d+):0\] (\\\$\d+) ;", text)}
    sums = re.findall(r"assign (\\\$\d+)  = [^;]* [-+*] ", text)
    assert [widths[name] for name in sums] == ["7"] * 4


def test_registers_are_assigned_where_their_next_values_are_computed():
    clocked = clock(verilog_of(Unit(), "unit"))
    kept = re.findall(r"always_ff @\(posedge clk\)\n +(\w+) <=", clocked)
    assert kept == ["parts"]  # assigned in pieces
    for register in ("held", "free", "chosen", "inner"):
        assert f" {register} <= " in clocked
    assert "if (go[0]) begin\n      held <= " in clocked
