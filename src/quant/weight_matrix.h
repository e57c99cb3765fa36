#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bf16.h"

namespace braid {

// How a weight matrix [rows = out, cols = in] is stored.
enum class WeightFormat {
  kF32,          // float
  kBf16,         // Bf16
  kFp8Block128,  // e4m3, one float scale for each 128x128 block; edge blocks are smaller
  kNvfp4,        // e2m1 pairs, one e4m3 scale for 16 columns, one float scale for the matrix
};

std::string_view name(WeightFormat format);

// A weight matrix as it lies in memory: row-major, contiguous, not owned.
//
//   kF32, kBf16    w = data[row, col]
//   kFp8Block128   w = e4m3(data[row, col]) * block_scale[row / 128, col / 128]
//   kNvfp4         w = e2m1(nibble) * e4m3(group_scale[row, col / 16]) * global_scale, where
//                  the low nibble of data[row, col / 2] is the even column; cols is a multiple of
//                  16
struct WeightMatrix {
  WeightFormat format = WeightFormat::kF32;
  int32_t rows = 0;                      // out
  int32_t cols = 0;                      // in
  const void* data = nullptr;            // aligned to the element's size
  const float* block_scale = nullptr;    // [ceil(rows / 128), ceil(cols / 128)], kFp8Block128 only
  const uint8_t* group_scale = nullptr;  // [rows, cols / 16], kNvfp4 only
  float global_scale = 1.0f;             // kNvfp4 only

  explicit operator bool() const { return data != nullptr; }
};

// Bytes of the matrix with its scales: what one pass over it reads.
size_t weight_bytes(const WeightMatrix& w);
size_t weight_bytes(WeightFormat format, int32_t rows, int32_t cols);

// out[0 .. cols) = row `row`, decoded exactly (e2m1 * e4m3 is exact in float; each scale is then
// one float product). For oracles, loaders and tests; kernels decode on their own.
void dequantize_row(const WeightMatrix& w, int32_t row, float* out);

}  // namespace braid
