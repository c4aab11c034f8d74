// DRAM behind the device's AXI4 port, and the rules that the port must keep.

#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "Vweft.h"
#include "handshake.h"

/// Serves the pins m_axi_*: one beat a cycle on each of the read and the write channels, which
/// do not disturb each other; addresses from 0, others answer DECERR.
///
/// A read's first beat comes `latency` cycles after its request was taken. Without stalls reads
/// are answered in order; with stalls, in any order between ids, beats interleaved. What is
/// written becomes visible with the write's response.
class Dram {
    using Word = std::remove_reference_t<decltype(Vweft::m_axi_rdata)>;

public:
    static constexpr unsigned BUS = sizeof(Word);
    static constexpr unsigned OUTSTANDING = 16;
    static constexpr unsigned RESPONSE_CYCLES = 10;

    Dram(std::uint8_t* data, std::uint64_t size, unsigned latency)
        : data_(data), size_(size), latency_(latency) {
        reads_.reserve(OUTSTANDING);
    }

    /// Sets the device's inputs for a cycle, before the edge that begins it.
    void drive(Vweft& top, std::uint64_t cycle, Stalls& stalls) {
        top.m_axi_arready = reads_.size() < OUTSTANDING && !stalls(AR);
        if (!beat_shown_) show_beat(top, cycle, stalls);
        top.m_axi_awready = open_ < OUTSTANDING && !stalls(AW);
        top.m_axi_wready = filled_ < open_ && !stalls(W);
        if (!response_shown_) show_response(top, cycle, stalls);
    }

    /// Takes the transfers of a cycle, after the edge that begins it has settled the pins.
    void sample(const Vweft& top, std::uint64_t cycle) {
        const bool beat_taken = beat_shown_ && top.m_axi_rready;
        const bool response_taken = response_shown_ && top.m_axi_bready;
        if (ar_.transfer(top.m_axi_arvalid, top.m_axi_arready, [&] {
                return Burst{top.m_axi_araddr, top.m_axi_arid, top.m_axi_arlen,
                             top.m_axi_arsize, top.m_axi_arburst};
            })) {
            const unsigned beats = check_burst("AR", top.m_axi_araddr, top.m_axi_arlen,
                                               top.m_axi_arsize, top.m_axi_arburst);
            reads_.push_back({cycle + latency_, top.m_axi_araddr, beats, top.m_axi_arid});
        }
        if (w_.transfer(top.m_axi_wvalid, top.m_axi_wready, [&] { return data_of(top); })) {
            take_data(top, cycle);
        }
        if (aw_.transfer(top.m_axi_awvalid, top.m_axi_awready, [&] {
                return Burst{top.m_axi_awaddr, top.m_axi_awid, top.m_axi_awlen,
                             top.m_axi_awsize, top.m_axi_awburst};
            })) {
            const unsigned beats = check_burst("AW", top.m_axi_awaddr, top.m_axi_awlen,
                                               top.m_axi_awsize, top.m_axi_awburst);
            Write& write = writes_[(first_ + open_++) % OUTSTANDING];
            write.address = top.m_axi_awaddr;
            write.beats = beats;
            write.id = top.m_axi_awid;
            write.data.clear();
        }
        if (beat_taken) finish_beat();
        if (response_taken) {
            response_shown_ = false;
            first_ = (first_ + 1) % OUTSTANDING;
            --open_;
            --filled_;
        }
    }

    bool writing() const { return open_ != 0; }

    /// Beats with bytes from `first` to before `end` answer SLVERR, and are not written.
    void break_down(std::uint64_t first, std::uint64_t end) { bad_ = first, bad_end_ = end; }

private:
    struct Burst {
        std::uint32_t address;
        std::uint8_t id, length, size, burst;
        bool operator==(const Burst& o) const {
            return address == o.address && id == o.id && length == o.length && size == o.size &&
                   burst == o.burst;
        }
    };
    struct Data {
        std::uint8_t bytes[BUS];
        std::uint64_t strobe;
        bool last;
        bool operator==(const Data& o) const {
            return strobe == o.strobe && last == o.last && !std::memcmp(bytes, o.bytes, BUS);
        }
    };
    struct Read {
        std::uint64_t due;
        std::uint32_t address;
        unsigned beats;
        std::uint8_t id;
    };
    struct Write {
        std::uint64_t due;
        std::uint32_t address;
        unsigned beats;
        std::uint8_t id;
        std::vector<Data> data;
    };
    enum Answer : std::uint8_t { OKAY = 0, SLVERR = 2, DECERR = 3 };

    static unsigned check_burst(const char* channel, std::uint32_t address, unsigned length,
                                unsigned size, unsigned burst) {
        const auto broken = [&](const char* rule) {
            char text[160];
            std::snprintf(text, sizeof text, "%s %s (address 0x%x, %u beats of %u bytes)", channel,
                          rule, address, length + 1, 1u << size);
            throw Violation(text);
        };
        if (burst != 1) broken("asks for another burst than INCR");
        if (1u << size != BUS) broken("asks for beats that are not as wide as the bus");
        if (address % BUS) broken("is not aligned to the bus");
        if (address % 4096 + (length + 1) * BUS > 4096) broken("crosses a 4 KB boundary");
        return length + 1;
    }

    Answer answer(std::uint64_t address) const {
        if (address + BUS > size_) return DECERR;
        return address < bad_end_ && bad_ < address + BUS ? SLVERR : OKAY;
    }

    static Data data_of(const Vweft& top) {
        Data data{{}, top.m_axi_wstrb, bool(top.m_axi_wlast)};
        std::memcpy(data.bytes, &top.m_axi_wdata, BUS);
        return data;
    }

    void show_beat(Vweft& top, std::uint64_t cycle, Stalls& stalls) {
        top.m_axi_rvalid = 0;
        if (stalls.enabled()) {
            // What a device must not look at while VALID is low.
            const std::uint64_t junk = stalls.random();
            for (unsigned i = 0; i < BUS; i += 8) {
                std::memcpy(reinterpret_cast<char*>(&top.m_axi_rdata) + i, &junk, 8);
            }
            top.m_axi_rlast = junk & 1;
            top.m_axi_rresp = junk >> 1 & 3;
            top.m_axi_rid = junk >> 3 & 3;
            if (stalls(R)) return;
        }
        unsigned chosen = 0;
        if (stalls.enabled() && !reads_.empty()) {
            chosen = stalls.random() % reads_.size();
            while (chosen && reads_[chosen].due > cycle) --chosen;
            for (unsigned i = 0; i < chosen; ++i) {
                if (reads_[i].id == reads_[chosen].id) chosen = i;
            }
        }
        if (chosen >= reads_.size() || reads_[chosen].due > cycle) return;
        const Read& read = reads_[chosen];
        shown_ = chosen;
        beat_shown_ = true;
        top.m_axi_rvalid = 1;
        top.m_axi_rid = read.id;
        top.m_axi_rlast = read.beats == 1;
        top.m_axi_rresp = answer(read.address);
        if (top.m_axi_rresp == OKAY) std::memcpy(&top.m_axi_rdata, data_ + read.address, BUS);
    }

    void finish_beat() {
        beat_shown_ = false;
        Read& read = reads_[shown_];
        read.address += BUS;
        if (--read.beats == 0) reads_.erase(reads_.begin() + shown_);
    }

    void take_data(const Vweft& top, std::uint64_t cycle) {
        Write& write = writes_[(first_ + filled_) % OUTSTANDING];
        write.data.push_back(data_of(top));
        const bool last = write.data.size() == write.beats;
        if (last != bool(top.m_axi_wlast)) {
            throw Violation("W has WLAST " + std::string(last ? "low" : "high") + " at beat " +
                            std::to_string(write.data.size()) + " of " +
                            std::to_string(write.beats));
        }
        if (last) {
            write.due = cycle + RESPONSE_CYCLES;
            ++filled_;
        }
    }

    void show_response(Vweft& top, std::uint64_t cycle, Stalls& stalls) {
        top.m_axi_bvalid = 0;
        const Write& write = writes_[first_];
        if (!filled_ || write.due > cycle || stalls(B)) return;
        response_shown_ = true;
        top.m_axi_bvalid = 1;
        top.m_axi_bid = write.id;
        top.m_axi_bresp = OKAY;
        std::uint32_t address = write.address;
        for (const Data& data : write.data) {
            const Answer answered = answer(address);
            if (answered == OKAY) {
                store(data_ + address, data);
            } else {
                top.m_axi_bresp = answered;
            }
            address += BUS;
        }
    }

    static void store(std::uint8_t* to, const Data& data) {
        if (data.strobe == ~std::uint64_t{0} >> (64 - BUS)) {
            std::memcpy(to, data.bytes, BUS);
        } else {
            for (unsigned i = 0; i < BUS; ++i) {
                if (data.strobe >> i & 1) to[i] = data.bytes[i];
            }
        }
    }

    std::uint8_t* data_;
    std::uint64_t size_;
    unsigned latency_;
    std::uint64_t bad_ = 0, bad_end_ = 0;

    Held<Burst> ar_{"AR"}, aw_{"AW"};
    Held<Data> w_{"W"};
    std::vector<Read> reads_;  ///< Requests whose last beat has not been taken, oldest first.
    unsigned shown_ = 0;       ///< Whose beat is on the pins.
    bool beat_shown_ = false;
    Write writes_[OUTSTANDING];  ///< A ring: bursts whose response has not been taken.
    unsigned first_ = 0;         ///< The oldest.
    unsigned open_ = 0;          ///< How many there are.
    unsigned filled_ = 0;       ///< How many of them have all their data.
    bool response_shown_ = false;
};
