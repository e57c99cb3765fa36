#include "quant/weight_matrix.h"

#include <cstring>

#include "base/check.h"
#include "quant/e2m1.h"
#include "quant/e4m3.h"

namespace braid {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void dequantize_fp8_row(const WeightMatrix& w, int32_t row, float* out) {
  const auto* codes = static_cast<const uint8_t*>(w.data) + int64_t{row} * w.cols;
  const float* scales = w.block_scale + row / 128 * ceil_div(w.cols, 128);
  for (int32_t col = 0; col < w.cols; ++col) out[col] = from_e4m3(codes[col]) * scales[col / 128];
}

void dequantize_nvfp4_row(const WeightMatrix& w, int32_t row, float* out) {
  const auto* codes = static_cast<const uint8_t*>(w.data) + int64_t{row} * (w.cols / 2);
  const uint8_t* scales = w.group_scale + int64_t{row} * (w.cols / 16);
  for (int32_t col = 0; col < w.cols; col += 2) {
    const uint8_t pair = codes[col / 2];
    const float scale = from_e4m3(scales[col / 16]);
    out[col] = from_e2m1(pair & 15) * scale * w.global_scale;
    out[col + 1] = from_e2m1(pair >> 4) * scale * w.global_scale;
  }
}

}  // namespace

std::string_view name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kFp8Block128:
      return "fp8_block128";
    case WeightFormat::kNvfp4:
      return "nvfp4";
  }
  BRAID_UNREACHABLE(static_cast<int>(format));
}

size_t weight_bytes(WeightFormat format, int32_t rows, int32_t cols) {
  const auto n = static_cast<size_t>(rows) * static_cast<size_t>(cols);
  switch (format) {
    case WeightFormat::kF32:
      return n * 4;
    case WeightFormat::kBf16:
      return n * 2;
    case WeightFormat::kFp8Block128:
      return n + static_cast<size_t>(ceil_div(rows, 128) * ceil_div(cols, 128)) * 4;
    case WeightFormat::kNvfp4:
      return n / 2 + n / 16 + 4;
  }
  BRAID_UNREACHABLE(static_cast<int>(format));
}

size_t weight_bytes(const WeightMatrix& w) { return weight_bytes(w.format, w.rows, w.cols); }

void dequantize_row(const WeightMatrix& w, int32_t row, float* out) {
  BRAID_CHECK(row >= 0 && row < w.rows);
  const auto offset = int64_t{row} * w.cols;
  switch (w.format) {
    case WeightFormat::kF32:
      std::memcpy(out, static_cast<const float*>(w.data) + offset,
                  static_cast<size_t>(w.cols) * sizeof(float));
      return;
    case WeightFormat::kBf16: {
      const auto* values = static_cast<const Bf16*>(w.data) + offset;
      for (int32_t col = 0; col < w.cols; ++col) out[col] = to_float(values[col]);
      return;
    }
    case WeightFormat::kFp8Block128:
      return dequantize_fp8_row(w, row, out);
    case WeightFormat::kNvfp4:
      return dequantize_nvfp4_row(w, row, out);
  }
  BRAID_UNREACHABLE(static_cast<int>(w.format));
}

}  // namespace braid
