#include "quant/fp8_block.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/result.h"
#include "quant/e4m3.h"

namespace braid {
namespace {

constexpr int32_t kBlock = 128;

}  // namespace

WeightMatrix Fp8BlockMatrix::view() const {
  return {.format = WeightFormat::kFp8Block128,
          .rows = rows,
          .cols = cols,
          .data = data.data(),
          .block_scale = block_scale.data()};
}

Result<Fp8BlockMatrix> quantize_fp8_block(const WeightMatrix& w) {
  const auto cols = static_cast<size_t>(w.cols);
  const size_t block_cols = (cols + kBlock - 1) / kBlock;
  const size_t block_rows = (static_cast<size_t>(w.rows) + kBlock - 1) / kBlock;
  Fp8BlockMatrix out{.rows = w.rows, .cols = w.cols};
  out.data.resize(static_cast<size_t>(w.rows) * cols);
  out.block_scale.resize(block_rows * block_cols);
  std::vector<float> band(std::min<size_t>(kBlock, static_cast<size_t>(w.rows)) * cols);
  for (size_t block_row = 0; block_row < block_rows; ++block_row) {
    const auto first = static_cast<int32_t>(block_row) * kBlock;
    const int32_t height = std::min(kBlock, w.rows - first);
    std::vector<float> amax(block_cols, 0.0f);
    for (int32_t i = 0; i < height; ++i) {
      float* row = band.data() + static_cast<size_t>(i) * cols;
      dequantize_row(w, first + i, row);
      for (size_t col = 0; col < cols; ++col) {
        if (!std::isfinite(row[col])) {
          return fail(ErrorCode::kInvalidArgument, "element [{}, {}] is {}, a number is expected",
                      first + i, col, row[col]);
        }
        amax[col / kBlock] = std::max(amax[col / kBlock], std::fabs(row[col]));
      }
    }
    float* scales = out.block_scale.data() + block_row * block_cols;
    for (size_t j = 0; j < block_cols; ++j) {
      // A subnormal scale would have too few bits to divide by.
      scales[j] =
          amax[j] == 0 ? 1.0f : std::max(amax[j] / kE4m3Max, std::numeric_limits<float>::min());
    }
    for (int32_t i = 0; i < height; ++i) {
      const float* row = band.data() + static_cast<size_t>(i) * cols;
      uint8_t* codes = out.data.data() + static_cast<size_t>(first + i) * cols;
      for (size_t col = 0; col < cols; ++col) codes[col] = to_e4m3(row[col] / scales[col / kBlock]);
    }
  }
  return out;
}

}  // namespace braid
