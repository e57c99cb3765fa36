#pragma once

#include <cstdint>

// Byte layouts of tiles in shared memory, in which packed weights lie in global memory as well.
namespace braid::kernels {

// Byte `byte` of row `row` in a tile of 128-byte rows as wgmma reads it: chunks of 16 bytes are
// exchanged within a row by the row's number.
constexpr int32_t swizzled(int32_t row, int32_t byte) {
  return row * 128 + (((byte / 16) ^ (row % 8)) * 16 + byte % 16);
}

// Weights: tiles of 128 rows by 128 columns, `depth` of them making 128 rows of a matrix, followed
// by two scales for each, padded so that the next ones begin at a multiple of 128 bytes: copies of
// whole lines keep memory at its full rate.
inline constexpr int32_t kWeightTileBytes = 128 * 128;
constexpr int32_t weight_scale_bytes(int32_t depth) { return (8 * depth + 15) / 16 * 16; }
constexpr int32_t weight_rows_bytes(int32_t depth) {
  return depth * kWeightTileBytes + (8 * depth + 127) / 128 * 128;
}

// Scale of e4m3 codes for values up to amax.
constexpr float e4m3_scale(float amax) { return (amax > 1e-10f ? amax : 1e-10f) / 448.0f; }

}  // namespace braid::kernels
