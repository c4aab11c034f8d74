import re

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from weft.hw import idle
from weft.hw.verilog import verilog_of

BEFORE = r"""module other(a, y);
  input a;
  output y;
  assign y = a;
endmodule

module \weft_lane$3_arithmetic (a, b, go, y);
  wire [7:0] \$1 ;
  wire \$2 ;
  wire [7:0] \sum$4 ;
  wire [7:0] dead;
  input [7:0] a;
  wire [7:0] a;
  input [7:0] b;
  wire [7:0] b;
  input [1:0] go;
  wire [1:0] go;
  output [7:0] y;
  reg [7:0] y;
  assign \sum$4  = \$1  + 8'ha1;
  assign \$1 [7:4] = a[3:0];
  assign \$1 [3:0] = b[3:0];
  assign \$2  = go == 2'h2;
  assign dead = \sum$4 ;
  always_comb begin
    y = 8'h00;
    if (\$2 ) begin
      y = { \sum$4 [3:0], \$1 [7:4] };
    end
  end
endmodule
"""

AFTER = r"""module other(a, y);
  input a;
  output y;
  assign y = a;
endmodule

module \weft_lane$3_arithmetic (a, b, go, y);
  wire \$2 ;
  input [7:0] a;
  wire [7:0] a;
  input [7:0] b;
  wire [7:0] b;
  input [1:0] go;
  wire [1:0] go;
  output [7:0] y;
  reg [7:0] y /*verilator public_flat_rw*/;
  assign \$2  = go == 2'h2;
  always_comb begin
    y = 8'h00;
    if (\$2 ) begin : used
      automatic logic [7:0] \$1 ;
      automatic logic [7:0] \sum$4 ;
      \$1 [7:4] = a[3:0];
      \$1 [3:0] = b[3:0];
      \sum$4  = \$1  + 8'ha1;
      y = { \sum$4 [3:0], \$1 [7:4] };
    end
  end
endmodule
"""


def squeezed(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text)


def test_what_only_the_result_depends_on_moves_into_the_branch():
    assert squeezed(idle.sink(BEFORE)) == squeezed(AFTER)


class Unit(wiring.Component):
    """``y`` is (a + b) * (a + b) where ``go`` is 3, one of its submodules of the name."""

    a: In(8)
    b: In(8)
    go: In(2)
    y: Out(18)

    def elaborate(self, platform):
        m = Module()
        m.submodules[idle.NAME] = inner = Module()
        total = self.a + self.b
        with inner.If(self.go == 3):
            inner.d.comb += self.y.eq(total * total)
        return m


def test_it_understands_what_yosys_writes():
    text = verilog_of(Unit(), "unit")
    module = text[text.index("module unit_arithmetic") :]
    outside, inside = module[: module.index("endmodule")].split("begin : used")
    assert " + " in inside
    assert " * " in inside
    assert re.findall("assign (.*);", outside) == [r"\$1  = go == 2'h3"]
    names = re.findall(r"automatic logic (?:\[\d+:0\] ?)?(\S+) ;", inside)
    order = [line.split()[0] for line in inside.splitlines() if re.match(r"\s+\S+ +=", line)]
    assert order[:-1] == names
    assert order[-1] == "y"
