// What the device owes the other side of a channel, and when the other side holds it up.

#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

/// The device broke a rule of a bus; the text names the rule.
struct Violation : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A channel that the device drives: VALID stays, with the same payload, until READY.
template <class Payload>
class Held {
public:
    explicit Held(const char* name) : name_(name) {}

    /// Once a cycle, on settled pins: whether a transfer happens. `pins()` reads the payload.
    template <class Pins>
    bool transfer(bool valid, bool ready, Pins pins) {
        if (waiting_) {
            if (!valid) throw Violation(name_ + " drops VALID before READY");
            if (!(pins() == payload_)) {
                throw Violation(name_ + " changes its payload while VALID waits for READY");
            }
        }
        waiting_ = valid && !ready;
        if (waiting_) payload_ = pins();
        return valid && ready;
    }

private:
    std::string name_;
    Payload payload_{};
    bool waiting_ = false;
};

enum Channel { AR, R, AW, W, B, LITE_AR, LITE_R, LITE_AW, LITE_W, LITE_B, CHANNELS };

/// Which channels are held up in this cycle: none, or at random, the same for the same seed.
class Stalls {
public:
    Stalls(bool enabled, std::uint64_t seed) : enabled_(enabled), state_(seed) {
        for (auto& channel : channels_) {
            // Each channel has a temper: from hardly ever held up to hardly ever free.
            channel.longest[0] = 1u << random() % 6;
            channel.longest[1] = 1u << random() % 6;
        }
    }

    bool enabled() const { return enabled_; }

    void next_cycle() {
        if (!enabled_) return;
        for (auto& channel : channels_) {
            if (channel.left-- == 0) {
                channel.held = !channel.held;
                channel.left = random() % channel.longest[channel.held];
            }
        }
    }

    bool operator()(Channel channel) const { return channels_[channel].held; }

    /// Splitmix64.
    std::uint64_t random() {
        std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }

private:
    struct Temper {
        unsigned longest[2] = {1, 1};
        unsigned left = 0;
        bool held = false;
    };

    bool enabled_;
    std::uint64_t state_;
    Temper channels_[CHANNELS];
};
