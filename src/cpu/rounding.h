#pragma once

#include <cstdint>

#include "base/rounding.h"
#include "quant/weight_matrix.h"

namespace braid::cpu {

// x[0 .. n) to the nearest BF16, on the caller's thread.
void round_to_bf16(float* x, int64_t n);

// out = x as e4m3 with a scale for each `scale_block` elements, their largest magnitude over 448.
// May be x itself.
void round_to_e4m3(const float* x, int64_t n, int64_t scale_block, float* out);

// Whether what the matrix reads is rounded to e4m3.
inline bool reads_e4m3(const WeightMatrix& w, Rounding rounding) {
  return rounding == Rounding::kBf16 && w.format == WeightFormat::kFp8Block128;
}

}  // namespace braid::cpu
