// A small machine with the pins and the registers of `weft`, to test what is around them.
//
// Its instructions have 16 bytes: operation [7:0], beats of a burst - 1 [15:8], bursts [31:16],
// source [63:32], destination [95:64], value [127:96]. Operations, the rules that BREAK breaks by
// its value, register offsets, bytes of the bus and the spec hash are macros: see `dut.py`.
//
// GEMM_STEPS reads the sum of all 32-bit words that READ has read, ALU_STEPS the cycles from the
// last instruction's first address to its last beat (READ) or last response (WRITE).

module weft (
    input  wire clk, rst,
    output wire irq,

    output reg  m_axi_arvalid, input  wire m_axi_arready,
    output reg  [31:0] m_axi_araddr, output wire [1:0] m_axi_arid, output wire [7:0] m_axi_arlen,
    output wire [2:0] m_axi_arsize, output wire [1:0] m_axi_arburst,
    output wire [3:0] m_axi_arcache, output wire [2:0] m_axi_arprot,
    input  wire m_axi_rvalid, output wire m_axi_rready, input wire [8*`BUS-1:0] m_axi_rdata,
    input  wire [1:0] m_axi_rid, input wire [1:0] m_axi_rresp, input wire m_axi_rlast,

    output reg  m_axi_awvalid, input  wire m_axi_awready,
    output reg  [31:0] m_axi_awaddr, output wire [1:0] m_axi_awid, output wire [7:0] m_axi_awlen,
    output wire [2:0] m_axi_awsize, output wire [1:0] m_axi_awburst,
    output wire [3:0] m_axi_awcache, output wire [2:0] m_axi_awprot,
    output wire m_axi_wvalid, input wire m_axi_wready, output wire [8*`BUS-1:0] m_axi_wdata,
    output wire [`BUS-1:0] m_axi_wstrb, output wire m_axi_wlast,
    input  wire m_axi_bvalid, output wire m_axi_bready,
    input  wire [1:0] m_axi_bid, input wire [1:0] m_axi_bresp,

    input  wire s_axil_awvalid, output wire s_axil_awready,
    input  wire [11:0] s_axil_awaddr, input wire [2:0] s_axil_awprot,
    input  wire s_axil_wvalid, output wire s_axil_wready,
    input  wire [31:0] s_axil_wdata, input wire [3:0] s_axil_wstrb,
    output reg  s_axil_bvalid, input  wire s_axil_bready, output wire [1:0] s_axil_bresp,
    input  wire s_axil_arvalid, output wire s_axil_arready,
    input  wire [11:0] s_axil_araddr, input wire [2:0] s_axil_arprot,
    output reg  s_axil_rvalid, input  wire s_axil_rready,
    output reg  [31:0] s_axil_rdata, output wire [1:0] s_axil_rresp
);
    // --- instructions -----------------------------------------------------------------------------
    localparam [1:0] IDLE = 0, FETCH = 1, START = 2, EXECUTE = 3;
    localparam [15:0] FETCH_BEATS = 16 / `BUS;
    reg [1:0] state;
    reg [127:0] word;
    reg [31:0] address, count, index, pc, broken, spin, sum, started, took;
    reg [63:0] cycles;
    reg done, fault, bus_error;
    reg [7:0] fault_code, waiting;
    wire [7:0] operation = word[7:0];
    wire [15:0] length = fetching ? FETCH_BEATS : word[15:8] + 16'd1;
    wire fetching = state == FETCH;
    wire launch;
    assign irq = done | fault;

    // --- AXI4 -------------------------------------------------------------------------------------
    reg [8*`BUS-1:0] buffer [0:4095];
    reg [15:0] ar_left, burst;
    reg [31:0] r_left;
    reg [15:0] r_burst [0:3], r_beat [0:3];  // per id
    reg [15:0] aw_left, b_left;
    reg [31:0] w_left, w_index;
    assign m_axi_arid = burst[1:0];
    assign m_axi_arlen = length - 1;
    assign m_axi_arsize = broken == `NARROW ? 0 : $clog2(`BUS);
    assign m_axi_arburst = broken == `FIXED ? 0 : 1;
    assign m_axi_arcache = 0;
    assign m_axi_arprot = 0;
    assign m_axi_rready = r_left != 0;
    assign m_axi_awid = 0;
    assign m_axi_awlen = length - 1;
    assign m_axi_awsize = $clog2(`BUS);
    assign m_axi_awburst = 1;
    assign m_axi_awcache = 0;
    assign m_axi_awprot = 0;
    assign m_axi_wvalid = w_left != 0;
    assign m_axi_wdata = buffer[w_index[11:0]];
    assign m_axi_wstrb = word[127:96] == 0 ? {`BUS{1'b1}} : word[96+:`BUS];
    wire [31:0] w_place = w_index % length;
    assign m_axi_wlast = w_place == length - 1 ? broken != `LAST_MISSING
                                               : broken == `LAST_EARLY && w_place == 1;
    assign m_axi_bready = b_left != 0;
    wire r_taken = m_axi_rvalid && m_axi_rready;
    wire [1:0] id = m_axi_rid;
    wire [31:0] r_place = r_burst[id] * length + r_beat[id];

    integer i, j;
    reg [31:0] beat_sum;
    always @* begin
        beat_sum = 0;
        for (j = 0; j < `BUS; j = j + 4) beat_sum = beat_sum + m_axi_rdata[8*j+:32];
    end
    always @(posedge clk) begin
        cycles <= cycles + !irq;
        if (m_axi_arvalid && m_axi_arready) begin
            m_axi_araddr <= m_axi_araddr + length * `BUS;
            ar_left <= ar_left - 1;
            m_axi_arvalid <= ar_left != 1;
            burst <= burst + 1;
            if (burst == 0) started <= cycles[31:0];
        end else if (m_axi_arvalid) begin
            if (broken == `AR_CHANGES) m_axi_araddr <= m_axi_araddr + `BUS;
            if (broken == `AR_DROPS) m_axi_arvalid <= 0;
        end
        if (r_taken) begin
            r_left <= r_left - 1;
            if (!fetching) took <= cycles[31:0] - started;
            r_beat[id] <= m_axi_rlast ? 0 : r_beat[id] + 1;
            if (m_axi_rlast) r_burst[id] <= r_burst[id] + 4;
            bus_error <= bus_error | m_axi_rresp != 0;
            if (fetching) begin
                word <= `BUS == 16 ? m_axi_rdata : {m_axi_rdata, word[127:64]};
            end else begin
                buffer[r_place[11:0]] <= m_axi_rdata;
                sum <= sum + beat_sum;
            end
        end
        if (m_axi_awvalid && m_axi_awready) begin
            m_axi_awaddr <= m_axi_awaddr + length * `BUS;
            aw_left <= aw_left - 1;
            m_axi_awvalid <= aw_left != 1;
        end
        if (m_axi_wvalid && m_axi_wready) begin
            w_left <= w_left - 1;
            w_index <= w_index + 1;
            if (w_left == 1) started <= cycles[31:0];
        end else if (m_axi_wvalid && broken == `W_CHANGES) begin
            w_index <= w_index + 1;
        end
        if (m_axi_bvalid && m_axi_bready) begin
            b_left <= b_left - 1;
            took <= cycles[31:0] - started;
            bus_error <= bus_error | m_axi_bresp != 0;
        end

        case (state)
            IDLE: ;
            FETCH:
                if (r_left == 0) begin
                    state <= START;
                    burst <= 0;
                    for (i = 0; i < 4; i = i + 1) r_burst[i] <= i;
                end
            START: begin
                state <= EXECUTE;
                spin <= word[127:96];
                if (operation == `READ || operation == `BOTH) begin
                    m_axi_arvalid <= 1;
                    m_axi_araddr <= word[63:32];
                    ar_left <= word[31:16];
                    r_left <= word[31:16] * length;
                end
                if (operation == `WRITE || operation == `BOTH) begin
                    m_axi_awvalid <= 1;
                    m_axi_awaddr <= word[95:64];
                    aw_left <= word[31:16];
                    w_left <= word[31:16] * length;
                    w_index <= 0;
                    b_left <= word[31:16];
                end
                if (operation == `BREAK) broken <= word[127:96];
            end
            EXECUTE: begin
                spin <= spin - 1;
                if (bus_error || operation == `FAULTS) begin
                    state <= IDLE;
                    fault <= 1;
                    fault_code <= bus_error ? (operation == `READ ? 5 : 6) : word[15:8];
                    waiting <= word[103:96];
                end else if (operation == `FINISH) begin
                    state <= IDLE;
                    done <= 1;
                end else if (operation == `SPIN ? spin == 0
                        : r_left == 0 && (b_left == 0 || broken == `FINISH_EARLY && w_left == 0)) begin
                    index <= index + 1;
                    fetch(pc);
                end
            end
        endcase

        if (launch) begin
            index <= 0;
            cycles <= 0;
            sum <= 0;
            took <= 0;
            fetch(address);
        end
        if (rst) begin
            state <= IDLE;
            m_axi_arvalid <= broken == `VALID_IN_RESET;
            m_axi_awvalid <= 0;
            r_left <= 0;
            w_left <= 0;
            b_left <= 0;
            bus_error <= 0;
            fault <= 0;
            done <= 0;
            if (broken != `VALID_IN_RESET && broken != `ANSWER_IN_RESET) broken <= 0;
        end else if (clear) begin
            fault <= 0;
            done <= 0;
        end
    end

    task fetch(input [31:0] where);
        state <= FETCH;
        pc <= where + 16;
        burst <= 0;
        for (i = 0; i < 4; i = i + 1) begin
            r_burst[i] <= i;
            r_beat[i] <= 0;
        end
        m_axi_arvalid <= 1;
        m_axi_araddr <= where;
        ar_left <= 1;
        r_left <= FETCH_BEATS;
    endtask

    // --- registers ----------------------------------------------------------------------------------
    wire write = s_axil_awvalid && s_axil_wvalid && !s_axil_bvalid;
    wire control = write && s_axil_awaddr == `CONTROL;
    wire clear = control && s_axil_wdata[1];
    assign launch = control && s_axil_wdata[0];
    assign s_axil_awready = write;
    assign s_axil_wready = write;
    assign s_axil_bresp = 0;
    assign s_axil_arready = !s_axil_rvalid;
    assign s_axil_rresp = 0;
    always @(posedge clk) begin
        if (write) begin
            s_axil_bvalid <= 1;
            if (s_axil_awaddr == `ADDRESS) address <= s_axil_wdata;
            if (s_axil_awaddr == `COUNT) count <= s_axil_wdata;
        end else if (s_axil_bready) s_axil_bvalid <= 0;
        if (s_axil_arvalid && s_axil_arready) begin
            s_axil_rvalid <= broken != `NEVER_ANSWERS;
            case (s_axil_araddr)
                `ID: s_axil_rdata <= `IDENTITY;
                `VERSION: s_axil_rdata <= `VERSION_VALUE;
                `SPEC: s_axil_rdata <= `SPEC_LOW;
                `SPEC + 12'd4: s_axil_rdata <= `SPEC_HIGH;
                `STATUS: s_axil_rdata <= {29'd0, fault, done, state != IDLE};
                `FAULT: s_axil_rdata <= {22'd0, 2'd2, fault_code};
                `FAULT_INDEX: s_axil_rdata <= index;
                `WAITING: s_axil_rdata <= {24'd0, waiting};
                `CYCLES, `LOAD_BUSY, `COMPUTE_BUSY: s_axil_rdata <= cycles[31:0];
                `CYCLES + 12'd4, `LOAD_BUSY + 12'd4, `COMPUTE_BUSY + 12'd4, `STORE_BUSY + 12'd4:
                    s_axil_rdata <= cycles[63:32];
                `STORE_BUSY: s_axil_rdata <= cycles[31:0] - (broken == `LOSES_A_CYCLE);
                `GEMM_STEPS: s_axil_rdata <= sum;
                `ALU_STEPS: s_axil_rdata <= took;
                default: s_axil_rdata <= 0;
            endcase
        end else if (s_axil_rready) s_axil_rvalid <= 0;
        if (broken == `ANSWERS_UNASKED) s_axil_rvalid <= 1;
        if (rst) begin
            s_axil_bvalid <= 0;
            s_axil_rvalid <= broken == `ANSWER_IN_RESET;
        end
    end
endmodule
