// What Verilator's FST writer asks of LZ4, so that waves need nothing but a compiler.
//
// The LZ4 block format: a sequence is a token (literals << 4 | match - 4), literals, and a match
// that lies `offset` bytes back; lengths from 15 on go on in bytes. The last 5 bytes are literals,
// and a match begins at least 12 bytes before the end.

#pragma once

#include <cstdint>
#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

/// `target` must have room for LZ4_compressBound(size) bytes; how many were used.
inline int LZ4_compress_default(const char* source, char* target, int size, int) {
    constexpr int LEAST_MATCH = 4, LAST_LITERALS = 5, LAST_MATCH = 12, FARTHEST = 65535;
    constexpr int HASH_BITS = 12;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(source);
    auto* out = reinterpret_cast<std::uint8_t*>(target);
    std::int32_t places[1 << HASH_BITS];  // where a hash was last seen; -1 for never
    std::memset(places, -1, sizeof places);

    const auto length = [&out](int rest) {  // what a token's 15 leaves over
        for (; rest >= 255; rest -= 255) *out++ = 255;
        *out++ = rest;
    };
    const auto literals = [&](int from, int to, int match) {
        const int count = to - from;
        *out++ = (count < 15 ? count : 15) << 4 | (match < 15 ? match : 15);
        if (count >= 15) length(count - 15);
        std::memcpy(out, bytes + from, count);
        out += count;
    };

    int from = 0;  // the first byte that is not written yet
    for (int at = 0; at + LAST_MATCH <= size;) {
        std::uint32_t word;
        std::memcpy(&word, bytes + at, sizeof word);
        std::int32_t& place = places[word * 2654435761u >> (32 - HASH_BITS)];
        const int before = place;
        place = at;
        if (before < 0 || at - before > FARTHEST || std::memcmp(bytes + before, &word, 4)) {
            ++at;
            continue;
        }
        int end = at + LEAST_MATCH;
        while (end < size - LAST_LITERALS && bytes[end] == bytes[before + end - at]) ++end;
        const int match = end - at - LEAST_MATCH;
        literals(from, at, match);
        *out++ = (at - before) & 255;
        *out++ = (at - before) >> 8;
        if (match >= 15) length(match - 15);
        from = at = end;
    }
    literals(from, size, 0);
    return out - reinterpret_cast<std::uint8_t*>(target);
}
