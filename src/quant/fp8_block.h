#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "quant/weight_matrix.h"

namespace braid {

// A matrix in e4m3 with a scale for each 128x128 block, as DeepSeek-V3 and Qwen3 releases store it.
struct Fp8BlockMatrix {
  int32_t rows = 0;
  int32_t cols = 0;
  std::vector<uint8_t> data;       // [rows, cols] e4m3
  std::vector<float> block_scale;  // [ceil(rows / 128), ceil(cols / 128)], positive

  // Valid while this object lives unchanged.
  WeightMatrix view() const;
};

// scale = amax of the block / 448, 1 for a block of zeros; element = e4m3(w / scale).
//
// Errors  kInvalidArgument  an element is NaN or infinite (its row and column are named)
// Source: section 3.3 of the DeepSeek-V3 report, arXiv:2412.19437.
Result<Fp8BlockMatrix> quantize_fp8_block(const WeightMatrix& w);

}  // namespace braid
