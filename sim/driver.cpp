// The clock, the control registers and DRAM around the Verilated device, as a C interface.
//
// Functions that simulate return 0, or -1 after a broken bus rule; weft_error() then says which,
// and only weft_renew() makes the handle usable again.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "Vweft.h"
#include "dram.h"
#include "handshake.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
#endif
#if VM_COVERAGE
#include "verilated_cov.h"
#endif

/// The runtime's own would end the process.
void vl_fatal(const char*, int, const char*, const char* text) { throw Violation(text); }

namespace {

constexpr unsigned RESET_CYCLES = 4;
constexpr unsigned ANSWER_CYCLES = 10000;  ///< In which a register access is over.

class Device {
public:
    Device(std::uint8_t* dram, std::uint64_t size, unsigned latency, bool stalls,
           std::uint64_t seed)
        : memory_(dram), size_(size), latency_(latency), power_up_stalls_(stalls, seed) {}

    ~Device() { power_off(); }

    /// A device fresh from power-up: cycle 0, the same stalls again, no waves.
    void renew() {
        power_off();
        context_ = std::make_unique<VerilatedContext>();
        context_->randReset(0);
#if VM_TRACE_FST
        context_->traceEverOn(true);
#endif
        top_ = std::make_unique<Vweft>(context_.get(), "pins");
        stalls_ = power_up_stalls_;
        cycle_ = completed_ = 0;
        top_->mark = 0;
        reset();
    }

    /// Verilator's calls of this thread concern this device from now on.
    void attend() { Verilated::threadContextp(context_.get()); }

    /// The rst pin; scratchpads keep their contents.
    void reset() {
        top_->rst = 1;
        top_->m_axi_arready = top_->m_axi_rvalid = top_->m_axi_awready = 0;
        top_->m_axi_wready = top_->m_axi_bvalid = 0;
        top_->s_axil_arvalid = top_->s_axil_rready = top_->s_axil_awvalid = 0;
        top_->s_axil_wvalid = top_->s_axil_bready = 0;
        for (unsigned i = 0; i < RESET_CYCLES; ++i) {
            clock();
            if (i && (top_->m_axi_arvalid || top_->m_axi_awvalid || top_->m_axi_wvalid ||
                      top_->s_axil_rvalid || top_->s_axil_bvalid)) {
                throw Violation("a channel is VALID during reset");
            }
            ++cycle_;
        }
        top_->rst = 0;
        dram_ = std::make_unique<Dram>(memory_, size_, latency_);
        dram_->break_down(bad_, bad_end_);
        lite_r_ = Held<std::uint64_t>("s_axil R");
        lite_b_ = Held<std::uint64_t>("s_axil B");
    }

    std::uint32_t read_register(unsigned offset) {
        Vweft& top = *top_;
        top.s_axil_araddr = offset;
        for (unsigned n = 0, asked = 0; n < ANSWER_CYCLES; ++n) {
            if (!asked && !stalls_(LITE_AR)) top.s_axil_arvalid = 1;
            top.s_axil_rready = !stalls_(LITE_R);
            cycle();
            const bool taken = top.s_axil_arvalid && top.s_axil_arready;
            const std::uint32_t data = top.s_axil_rdata;
            const unsigned answer = top.s_axil_rresp;
            const bool done = lite_r_.transfer(top.s_axil_rvalid, top.s_axil_rready, [&] {
                return std::uint64_t{answer} << 32 | data;
            });
            if (top.s_axil_rvalid && !asked) throw Violation("s_axil R is VALID without a request");
            if (taken) asked = 1, top.s_axil_arvalid = 0;
            if (done) {
                top.s_axil_rready = 0;
                if (answer) throw Violation("s_axil R answers an error" + at(offset));
                return data;
            }
        }
        throw Violation("s_axil R never comes" + at(offset));
    }

    void write_register(unsigned offset, std::uint32_t value) {
        Vweft& top = *top_;
        top.s_axil_awaddr = offset;
        top.s_axil_wdata = value;
        for (unsigned n = 0, addressed = 0, sent = 0; n < ANSWER_CYCLES; ++n) {
            if (!addressed && !stalls_(LITE_AW)) top.s_axil_awvalid = 1;
            if (!sent && !stalls_(LITE_W)) top.s_axil_wvalid = 1;
            top.s_axil_bready = !stalls_(LITE_B);
            cycle();
            const bool address_taken = top.s_axil_awvalid && top.s_axil_awready;
            const bool data_taken = top.s_axil_wvalid && top.s_axil_wready;
            const unsigned answer = top.s_axil_bresp;
            const bool done = lite_b_.transfer(top.s_axil_bvalid, top.s_axil_bready,
                                               [&] { return std::uint64_t{answer}; });
            if (top.s_axil_bvalid && !(addressed && sent)) {
                throw Violation("s_axil B is VALID before address and data were taken");
            }
            if (address_taken) addressed = 1, top.s_axil_awvalid = 0;
            if (data_taken) sent = 1, top.s_axil_wvalid = 0;
            if (done) {
                top.s_axil_bready = 0;
                if (answer) throw Violation("s_axil B answers an error" + at(offset));
                return;
            }
        }
        throw Violation("s_axil B never comes" + at(offset));
    }

    /// From now on, also after a reset, these bytes of DRAM answer errors.
    void break_down(std::uint64_t first, std::uint64_t end) {
        bad_ = first, bad_end_ = end;
        if (dram_) dram_->break_down(bad_, bad_end_);
    }

    /// Cycles until the interrupt, or until the compute engine has completed `completed`
    /// instructions since power-up, `most` of them at most; how many there were.
    std::uint64_t run(std::uint64_t most, std::uint64_t completed) {
        std::uint64_t n = 0;
        while (n < most && !top_->irq && completed_ < completed) {
            cycle();
            ++n;
        }
        return n;
    }

    std::uint64_t completed() const { return completed_; }

    /// The counters up to this cycle. It lets the clock tick once more.
    void mark(std::uint64_t* values, unsigned count) {
        top_->mark = 1;
        cycle();
        top_->mark = 0;
        constexpr unsigned words = sizeof top_->counts / sizeof(std::uint32_t);
        const auto* counts = reinterpret_cast<const std::uint32_t*>(&top_->counts);
        for (unsigned i = 0; i < count && 2 * i + 1 < words; ++i) {
            values[i] = std::uint64_t{counts[2 * i + 1]} << 32 | counts[2 * i];
        }
    }

    /// The clock alone: what Verilator does with nothing of ours around it.
    void bare(std::uint64_t cycles) {
        Vweft& top = *top_;
        for (; cycles; --cycles) {
            top.clk = 0;
            top.eval();
            top.clk = 1;
            top.eval();
        }
    }

    void trace(const char* path) {
#if VM_TRACE_FST
        trace_ = std::make_unique<VerilatedFstC>();
        top_->trace(trace_.get(), 99);
        trace_->set_time_unit("1ns");
        trace_->set_time_resolution("1ns");
        trace_->open(path);
#else
        throw Violation("this library was built without waves, asked for " + std::string(path));
#endif
    }

    /// What has been executed since the last time or power-up, as Verilator writes it.
    void cover(const char* path) {
#if VM_COVERAGE
        context_->coveragep()->write(path);
        context_->coveragep()->zero();
#else
        throw Violation("this library was built without coverage, asked for " + std::string(path));
#endif
    }

    bool irq() const { return top_->irq; }
    bool writing() const { return dram_->writing(); }
    std::uint64_t cycles() const { return cycle_; }
    std::string& error() { return error_; }

private:
    static std::string at(unsigned offset) {
        char text[40];
        std::snprintf(text, sizeof text, " (register 0x%x)", offset);
        return text;
    }

    /// The pins' other side decides, a rising edge, the transfers of the cycle after it.
    void cycle() {
        dram_->drive(*top_, cycle_, stalls_);
        clock();
        dram_->sample(*top_, cycle_);
        completed_ += top_->completes;
        ++cycle_;
        stalls_.next_cycle();
    }

    void clock() {
        top_->clk = 0;
        top_->eval();
#if VM_TRACE_FST
        if (trace_) trace_->dump(10 * cycle_ - 5);  // as at 100 MHz, in ns
#endif
        top_->clk = 1;
        top_->eval();
#if VM_TRACE_FST
        if (trace_) trace_->dump(10 * cycle_);
#endif
    }

    void power_off() {
        if (!top_) return;
        attend();  // a model takes its scopes out of the thread's context, whosever that is
#if VM_TRACE_FST
        trace_.reset();  // it points into the model
#endif
        top_->final();
        top_.reset();
        Verilated::threadContextp(nullptr);
        context_.reset();
    }

    std::uint8_t* memory_;
    std::uint64_t size_;
    std::uint64_t bad_ = 0, bad_end_ = 0;
    unsigned latency_;
    Stalls power_up_stalls_, stalls_{false, 0};
    std::uint64_t cycle_ = 0, completed_ = 0;
    std::string error_;
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vweft> top_;
    std::unique_ptr<Dram> dram_;
    Held<std::uint64_t> lite_r_{"s_axil R"}, lite_b_{"s_axil B"};
#if VM_TRACE_FST
    std::unique_ptr<VerilatedFstC> trace_;
#endif
};

/// Runs `body`; an exception becomes the handle's error.
template <class Body>
int guarded(Device* device, Body body) {
    if (!device->error().empty()) return -1;
    try {
        device->attend();
        body();
        return 0;
    } catch (const std::exception& error) {
        device->error() = error.what() + (" in cycle " + std::to_string(device->cycles()));
        return -1;
    }
}

}  // namespace

#define WEFT_API extern "C" __attribute__((visibility("default")))

/// A handle for weft_free(), on `size` bytes of DRAM; it needs weft_renew() before anything else.
WEFT_API void* weft_new(std::uint8_t* dram, std::uint64_t size, std::uint32_t latency,
                        std::uint32_t stalls, std::uint64_t seed) {
    return new Device(dram, size, latency, stalls, seed);
}

WEFT_API void weft_free(void* device) { delete static_cast<Device*>(device); }

/// Power off and on, then reset: all memories are zero, errors and waves gone.
WEFT_API int weft_renew(void* handle) {
    auto* device = static_cast<Device*>(handle);
    device->error().clear();
    return guarded(device, [&] { device->renew(); });
}

/// The rst pin; memories keep their contents.
WEFT_API int weft_reset(void* handle) {
    auto* device = static_cast<Device*>(handle);
    return guarded(device, [&] { device->reset(); });
}

WEFT_API int weft_read_register(void* handle, std::uint32_t offset, std::uint32_t* value) {
    auto* device = static_cast<Device*>(handle);
    return guarded(device, [&] { *value = device->read_register(offset); });
}

WEFT_API int weft_write_register(void* handle, std::uint32_t offset, std::uint32_t value) {
    auto* device = static_cast<Device*>(handle);
    return guarded(device, [&] { device->write_register(offset, value); });
}

/// Beats of DRAM with bytes from `first` to before `end` answer errors; none if they are equal.
WEFT_API int weft_break_down(void* handle, std::uint64_t first, std::uint64_t end) {
    auto* device = static_cast<Device*>(handle);
    return guarded(device, [&] { device->break_down(first, end); });
}

/// At most `*cycles`, which then holds how many there were, and no more once the compute engine has
/// completed `completed` instructions since power-up; 1 once the interrupt is high.
WEFT_API int weft_run(void* handle, std::uint64_t* cycles, std::uint64_t completed) {
    auto* device = static_cast<Device*>(handle);
    const int status = guarded(device, [&] { *cycles = device->run(*cycles, completed); });
    return status ? status : device->irq();
}

/// How many instructions the compute engine has completed since power-up.
WEFT_API std::int64_t weft_completed(void* handle) {
    return static_cast<Device*>(handle)->completed();
}

/// The values of the first `count` counters; a cycle goes by.
WEFT_API int weft_mark(void* handle, std::uint64_t* values, std::uint32_t count) {
    auto* device = static_cast<Device*>(handle);
    return guarded(device, [&] { device->mark(values, count); });
}

WEFT_API int weft_bare(void* handle, std::uint64_t cycles) {
    auto* device = static_cast<Device*>(handle);
    return guarded(device, [&] { device->bare(cycles); });
}

/// Whether a write has not had its response yet.
WEFT_API int weft_writing(void* handle) { return static_cast<Device*>(handle)->writing(); }

/// Waves of everything from now on, to an FST file, until the device is freed or renewed.
WEFT_API int weft_trace(void* handle, const char* path) {
    auto* device = static_cast<Device*>(handle);
    return guarded(device, [&] { device->trace(path); });
}

/// Writes what has been executed since the last time or power-up to a file.
WEFT_API int weft_cover(void* handle, const char* path) {
    auto* device = static_cast<Device*>(handle);
    return guarded(device, [&] { device->cover(path); });
}

WEFT_API std::int64_t weft_cycle(void* handle) { return static_cast<Device*>(handle)->cycles(); }

/// What broke, and in which cycle; empty if nothing did.
WEFT_API const char* weft_error(void* handle) {
    return static_cast<Device*>(handle)->error().c_str();
}
