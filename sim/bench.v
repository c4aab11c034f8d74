// The device as it is simulated: every input passes a register here.
//
// Whoever drives the pins sets before a rising edge what the device shall see after it. The rising
// edge then settles everything at once; Verilator would otherwise evaluate all logic behind the
// inputs three times a cycle.

module bench (
    input  wire clk, rst,
    output wire irq,

    output wire m_axi_arvalid, input wire m_axi_arready,
    output wire [31:0] m_axi_araddr, output wire [1:0] m_axi_arid, output wire [7:0] m_axi_arlen,
    output wire [2:0] m_axi_arsize, output wire [1:0] m_axi_arburst,
    input  wire m_axi_rvalid, output wire m_axi_rready, input wire [8*`WEFT_BUS-1:0] m_axi_rdata,
    input  wire [1:0] m_axi_rid, input wire [1:0] m_axi_rresp, input wire m_axi_rlast,
    output wire m_axi_awvalid, input wire m_axi_awready,
    output wire [31:0] m_axi_awaddr, output wire [1:0] m_axi_awid, output wire [7:0] m_axi_awlen,
    output wire [2:0] m_axi_awsize, output wire [1:0] m_axi_awburst,
    output wire m_axi_wvalid, input wire m_axi_wready, output wire [8*`WEFT_BUS-1:0] m_axi_wdata,
    output wire [`WEFT_BUS-1:0] m_axi_wstrb, output wire m_axi_wlast,
    input  wire m_axi_bvalid, output wire m_axi_bready,
    input  wire [1:0] m_axi_bid, input wire [1:0] m_axi_bresp,

    input  wire s_axil_awvalid, output wire s_axil_awready, input wire [11:0] s_axil_awaddr,
    input  wire s_axil_wvalid, output wire s_axil_wready, input wire [31:0] s_axil_wdata,
    output wire s_axil_bvalid, input wire s_axil_bready, output wire [1:0] s_axil_bresp,
    input  wire s_axil_arvalid, output wire s_axil_arready, input wire [11:0] s_axil_araddr,
    output wire s_axil_rvalid, input wire s_axil_rready, output wire [31:0] s_axil_rdata,
    output wire [1:0] s_axil_rresp,

    // The compute engine completes an instruction in this cycle; with `mark` the counters as they
    // are before the rising edge, the first one lowest.
    output wire completes, input wire mark, output reg [64*`WEFT_COUNTERS-1:0] counts
);
    reg rst_now, arready, rvalid, rlast, awready, wready, bvalid;
    reg [8*`WEFT_BUS-1:0] rdata;
    reg [1:0] rid, rresp, bid, bresp;
    reg awvalid, wvalid, bready, arvalid, rready;
    reg [11:0] awaddr, araddr;
    reg [31:0] wdata;
    always @(posedge clk) begin
        rst_now <= rst;
        arready <= m_axi_arready;
        rvalid <= m_axi_rvalid;
        rdata <= m_axi_rdata;
        rid <= m_axi_rid;
        rresp <= m_axi_rresp;
        rlast <= m_axi_rlast;
        awready <= m_axi_awready;
        wready <= m_axi_wready;
        bvalid <= m_axi_bvalid;
        bid <= m_axi_bid;
        bresp <= m_axi_bresp;
        awvalid <= s_axil_awvalid;
        awaddr <= s_axil_awaddr;
        wvalid <= s_axil_wvalid;
        wdata <= s_axil_wdata;
        bready <= s_axil_bready;
        arvalid <= s_axil_arvalid;
        araddr <= s_axil_araddr;
        rready <= s_axil_rready;
`ifdef WEFT_COUNTS
        if (mark) counts <= `WEFT_COUNTS;
`endif
    end

`ifdef WEFT_COUNTS
    assign completes = weft.counters.compute_done;
`else
    assign completes = 0;
`endif

    weft weft (
        .clk(clk), .rst(rst_now), .irq(irq),
        .m_axi_arvalid(m_axi_arvalid), .m_axi_arready(arready), .m_axi_araddr(m_axi_araddr),
        .m_axi_arid(m_axi_arid), .m_axi_arlen(m_axi_arlen), .m_axi_arsize(m_axi_arsize),
        .m_axi_arburst(m_axi_arburst), .m_axi_arcache(), .m_axi_arprot(),
        .m_axi_rvalid(rvalid), .m_axi_rready(m_axi_rready), .m_axi_rdata(rdata),
        .m_axi_rid(rid), .m_axi_rresp(rresp), .m_axi_rlast(rlast),
        .m_axi_awvalid(m_axi_awvalid), .m_axi_awready(awready), .m_axi_awaddr(m_axi_awaddr),
        .m_axi_awid(m_axi_awid), .m_axi_awlen(m_axi_awlen), .m_axi_awsize(m_axi_awsize),
        .m_axi_awburst(m_axi_awburst), .m_axi_awcache(), .m_axi_awprot(),
        .m_axi_wvalid(m_axi_wvalid), .m_axi_wready(wready), .m_axi_wdata(m_axi_wdata),
        .m_axi_wstrb(m_axi_wstrb), .m_axi_wlast(m_axi_wlast),
        .m_axi_bvalid(bvalid), .m_axi_bready(m_axi_bready), .m_axi_bid(bid), .m_axi_bresp(bresp),
        .s_axil_awvalid(awvalid), .s_axil_awready(s_axil_awready), .s_axil_awaddr(awaddr),
        .s_axil_awprot(3'd0), .s_axil_wvalid(wvalid), .s_axil_wready(s_axil_wready),
        .s_axil_wdata(wdata), .s_axil_wstrb(4'd15),
        .s_axil_bvalid(s_axil_bvalid), .s_axil_bready(bready), .s_axil_bresp(s_axil_bresp),
        .s_axil_arvalid(arvalid), .s_axil_arready(s_axil_arready), .s_axil_araddr(araddr),
        .s_axil_arprot(3'd0), .s_axil_rvalid(s_axil_rvalid), .s_axil_rready(rready),
        .s_axil_rdata(s_axil_rdata), .s_axil_rresp(s_axil_rresp)
    );
endmodule
