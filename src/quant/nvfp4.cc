#include "quant/nvfp4.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "quant/e2m1.h"
#include "quant/e4m3.h"

namespace braid {
namespace {

constexpr size_t kGroup = 16;

// Four floats in one register; GCC and Clang compile it on every target.
using Floats = float __attribute__((vector_size(16)));
struct Magnitudes {
  Floats quarters[kGroup / 4];
};

// x rounded to an e2m1 magnitude, for 0 <= x, elementwise. Adding 1.5 * 2^22 leaves steps of one
// half, twice and four times that leave steps of 1 and 2; ties go to even, as in to_e2m1.
inline Floats round_to_e2m1(const Floats& x) {
  const Floats low = Floats{} + 0x1.8p22f;
  const Floats shift = x < 2.0f ? low : x < 4.0f ? low * 2 : low * 4;
  const Floats rounded = (x + shift) - shift;
  return rounded < kE2m1Max ? rounded : Floats{} + kE2m1Max;
}

float squared_error(const Magnitudes& group, float scale) {
  const float inverse = 1.0f / scale;
  Floats sum = {};
  for (const Floats& x : group.quarters) {
    const Floats d = x - round_to_e2m1(x * inverse) * scale;
    sum += d * d;
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

uint8_t best_scale(const float* group, float global_scale) {
  float amax = 0;
  Magnitudes magnitudes;
  for (size_t i = 0; i < kGroup; ++i) {
    const float x = std::fabs(group[i]);
    amax = std::max(amax, x);
    magnitudes.quarters[i / 4][i % 4] = x;
  }
  if (amax == 0) return 0x38;  // 1: any scale keeps zeros exact, and no reader divides by zero
  const int for_six = to_e4m3(amax / (6.0f * global_scale));
  const int for_four = to_e4m3(amax / (4.0f * global_scale));
  const int last = std::min(for_four + 1, 0x7e);
  uint8_t best = 0;
  float best_error = std::numeric_limits<float>::infinity();
  for (int code = std::max(for_six - 2, 1); code <= last; ++code) {
    const float error =
        squared_error(magnitudes, from_e4m3(static_cast<uint8_t>(code)) * global_scale);
    if (best == 0 || error < best_error) {
      best = static_cast<uint8_t>(code);
      best_error = error;
    }
  }
  return best;
}

Status check_finite(const float* row, size_t cols, int32_t row_index) {
  for (size_t col = 0; col < cols; ++col) {
    if (!std::isfinite(row[col])) {
      return fail(ErrorCode::kInvalidArgument, "element [{}, {}] is {}, a number is expected",
                  row_index, col, row[col]);
    }
  }
  return {};
}

}  // namespace

WeightMatrix Nvfp4Matrix::view() const {
  return {.format = WeightFormat::kNvfp4,
          .rows = rows,
          .cols = cols,
          .data = data.data(),
          .group_scale = group_scale.data(),
          .global_scale = global_scale};
}

Result<float> max_magnitude(const WeightMatrix& w) {
  std::vector<float> row(static_cast<size_t>(w.cols));
  float amax = 0;
  for (int32_t i = 0; i < w.rows; ++i) {
    dequantize_row(w, i, row.data());
    if (auto ok = check_finite(row.data(), row.size(), i); !ok) return pass_on(ok);
    for (const float x : row) amax = std::max(amax, std::fabs(x));
  }
  return amax;
}

float nvfp4_global_scale(float amax) {
  if (amax == 0) return 1.0f;
  // A subnormal scale would have too few bits to divide by.
  return std::max(amax / (kE2m1Max * kE4m3Max), 0x1p-110f);
}

Result<Nvfp4Matrix> quantize_nvfp4(const WeightMatrix& w, float global_scale) {
  BRAID_CHECK(std::isfinite(global_scale) && global_scale > 0);
  if (w.cols % static_cast<int32_t>(kGroup) != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "NVFP4 needs a multiple of 16 columns, this matrix has {}", w.cols);
  }
  const auto cols = static_cast<size_t>(w.cols);
  const auto rows = static_cast<size_t>(w.rows);
  Nvfp4Matrix out{.rows = w.rows, .cols = w.cols};
  out.data.resize(rows * cols / 2);
  out.group_scale.resize(rows * cols / kGroup);
  out.global_scale = global_scale;
  std::vector<float> row(cols);
  for (size_t i = 0; i < rows; ++i) {
    dequantize_row(w, static_cast<int32_t>(i), row.data());
    if (auto ok = check_finite(row.data(), cols, static_cast<int32_t>(i)); !ok) return pass_on(ok);
    for (size_t first = 0; first < cols; first += kGroup) {
      const uint8_t code = best_scale(row.data() + first, global_scale);
      const float inverse = 1.0f / (from_e4m3(code) * global_scale);
      out.group_scale[(i * cols + first) / kGroup] = code;
      for (size_t col = first; col < first + kGroup; col += 2) {
        const uint8_t low = to_e2m1(row[col] * inverse);
        const uint8_t high = to_e2m1(row[col + 1] * inverse);
        out.data[(i * cols + col) / 2] = static_cast<uint8_t>(low | high << 4);
      }
    }
  }
  return out;
}

}  // namespace braid
