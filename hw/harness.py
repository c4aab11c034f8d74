"""The accelerator on five pins, for place and route on a device with fewer pins than its buses."""

from __future__ import annotations

from amaranth.lib.wiring import In

from ..isa.config import AcceleratorConfig
from .accelerator import accelerator_signature
from .verilog import TOP, pins

HARNESS = "harness"
"""The module's name; its one instance is named like the accelerator's module."""

_TEXT = """\
// Every input of {top} comes from a register and every output ends in one, so that the paths of
// {top} alone limit the clock. The inputs are what shift_in has filled, bit by bit; capture takes
// the outputs, which then leave by shift_out. The reset goes to most registers, and so it goes by
// the network that clocks have.
module {name} (input wire clk, rst, shift_in, capture, output wire shift_out);
  reg [{last_input}:0] driven;
  reg [{last_output}:0] seen;
  reg reset, captures;
  wire reset_everywhere;
  DCCA reset_network (.CLKI(reset), .CLKO(reset_everywhere), .CE(1'b1));
  wire [{last_output}:0] outputs;
  assign shift_out = seen[{last_output}];
  always @(posedge clk) begin
    reset <= rst;
    captures <= capture;
    driven <= {{driven, shift_in}};
    seen <= captures ? outputs : {{seen, 1'b0}};
  end
  {top} {top} (
    .clk(clk), .rst(reset_everywhere),
    {connections}
  );
endmodule
"""


def harness(config: AcceleratorConfig) -> str:
    """Verilog of a module ``harness`` around the module that :func:`.verilog.generate` gives."""
    at = {"driven": 0, "outputs": 0}
    connections = []
    signature = accelerator_signature(config)
    for name, value, flow in pins(signature, signature.create()):
        vector = "driven" if flow is In else "outputs"
        connections.append(f".{name}({vector}[{at[vector]} +: {len(value)}])")
        at[vector] += len(value)
    return _TEXT.format(
        name=HARNESS,
        top=TOP,
        last_input=at["driven"] - 1,
        last_output=at["outputs"] - 1,
        connections=",\n    ".join(connections),
    )
