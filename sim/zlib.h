// What Verilator's FST writer asks of zlib, so that waves need nothing but a compiler.
//
// The writer keeps whichever is smaller, the data or what is packed here. Nothing is packed, so it
// keeps the data; LZ4 packs the bulk of a wave file.

#pragma once

using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = unsigned long;
constexpr int Z_OK = 0;

inline uLong compressBound(uLong size) { return size + 1; }

/// Says that the packed data would be a byte larger.
inline int compress2(Bytef*, uLongf* packed, const Bytef*, uLong size, int) {
    *packed = size + 1;
    return Z_OK;
}
