#include "tests/kernels/random_weights.h"

#include <cmath>

#include "quant/e4m3.h"

namespace braid::test {

std::vector<float> random_floats(std::mt19937& random, size_t n, float sigma) {
  std::normal_distribution<float> normal(0.0f, sigma);
  std::vector<float> values(n);
  for (float& x : values) x = normal(random);
  return values;
}

RandomMatrix::RandomMatrix(std::mt19937& random, WeightFormat format, int32_t rows, int32_t cols) {
  const size_t n = static_cast<size_t>(rows) * static_cast<size_t>(cols);
  view_ = {.format = format, .rows = rows, .cols = cols};
  std::uniform_int_distribution<int> byte(0, 255);
  switch (format) {
    case WeightFormat::kF32:
      floats_ = random_floats(random, n);
      view_.data = floats_.data();
      break;
    case WeightFormat::kBf16:
      for (const float x : random_floats(random, n)) bf16_.push_back(to_bf16(x));
      view_.data = bf16_.data();
      break;
    case WeightFormat::kFp8Block128: {
      for (size_t i = 0; i < n; ++i) {
        const int code = byte(random);
        codes_.push_back(static_cast<uint8_t>((code & 0x7f) == 0x7f ? code - 1 : code));
      }
      const size_t num_blocks =
          static_cast<size_t>((rows + 127) / 128) * static_cast<size_t>((cols + 127) / 128);
      for (const float x : random_floats(random, num_blocks))
        block_scale_.push_back(0.002f + 0.01f * std::fabs(x));
      view_.data = codes_.data();
      view_.block_scale = block_scale_.data();
      break;
    }
    case WeightFormat::kNvfp4:
      for (size_t i = 0; i < n / 2; ++i) codes_.push_back(static_cast<uint8_t>(byte(random)));
      // Group scales are positive: every code below the NaN, subnormals included.
      for (size_t i = 0; i < n / 16; ++i)
        group_scale_.push_back(static_cast<uint8_t>(byte(random) % 0x7f));
      view_.data = codes_.data();
      view_.group_scale = group_scale_.data();
      // Matrices have scales of their own.
      view_.global_scale = std::uniform_real_distribution<float>(0.003f, 0.005f)(random);
      break;
  }
  decode();
}

RandomMatrix RandomMatrix::integers(std::mt19937& random, WeightFormat format, int32_t rows,
                                    int32_t cols, bool positive) {
  RandomMatrix m;
  m.view_ = {.format = format, .rows = rows, .cols = cols};
  const size_t n = static_cast<size_t>(rows) * static_cast<size_t>(cols);
  const auto draw = [&](int last) { return std::uniform_int_distribution<int>(0, last)(random); };
  if (format == WeightFormat::kBf16) {
    for (size_t i = 0; i < n; ++i) {
      const int value = 1 + draw(7);
      m.bf16_.push_back(to_bf16(static_cast<float>(positive || draw(1) == 0 ? value : -value)));
    }
    m.view_.data = m.bf16_.data();
  } else {
    const auto code = [&] { return 1 + draw(6) + (positive ? 0 : 8 * draw(1)); };
    for (size_t i = 0; i < n / 2; ++i)
      m.codes_.push_back(static_cast<uint8_t>(code() | code() << 4));
    for (size_t i = 0; i < n / 16; ++i)
      m.group_scale_.push_back(to_e4m3(std::ldexp(1.0f, draw(2))));
    m.view_.data = m.codes_.data();
    m.view_.group_scale = m.group_scale_.data();
    m.view_.global_scale = std::ldexp(1.0f, draw(2));
  }
  m.decode();
  return m;
}

void RandomMatrix::decode() {
  std::vector<float> row(static_cast<size_t>(view_.cols));
  for (int32_t r = 0; r < view_.rows; ++r) {
    dequantize_row(view_, r, row.data());
    values_.insert(values_.end(), row.begin(), row.end());
  }
}

RandomLora::RandomLora(std::mt19937& random, int32_t rank, int32_t in, int32_t out, float scaling) {
  const auto size = [rank](int32_t n) {
    return static_cast<size_t>(rank) * static_cast<size_t>(n);
  };
  for (const float x : random_floats(random, size(in), 0.1f)) a_.push_back(to_bf16(x));
  for (const float x : random_floats(random, size(out), 0.1f)) b_t_.push_back(to_bf16(x));
  view_ = {.a = a_.data(), .b_t = b_t_.data(), .rank = rank, .scaling = scaling};
}

Sums times_with_lora(const RandomMatrix& w, const LoraPair* lora, const double* x) {
  const int32_t rows = w.view().rows, cols = w.view().cols;
  Sums y{std::vector<double>(static_cast<size_t>(rows), 0.0),
         std::vector<double>(static_cast<size_t>(rows), 0.0)};
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t k = 0; k < cols; ++k) {
      const double term = w.values()[static_cast<size_t>(int64_t{r} * cols + k)] * x[k];
      y.value[static_cast<size_t>(r)] += term;
      y.magnitude[static_cast<size_t>(r)] += std::abs(term);
    }
  }
  for (int32_t i = 0; lora != nullptr && i < lora->rank; ++i) {
    double s = 0, s_magnitude = 0;
    for (int32_t k = 0; k < cols; ++k) {
      const double term = x[k] * double{to_float(lora->a[int64_t{i} * cols + k])};
      s += term, s_magnitude += std::abs(term);
    }
    for (int32_t r = 0; r < rows; ++r) {
      const double b = double{to_float(lora->b_t[int64_t{i} * rows + r])} * double{lora->scaling};
      y.value[static_cast<size_t>(r)] += s * b;
      y.magnitude[static_cast<size_t>(r)] += s_magnitude * std::abs(b);
    }
  }
  return y;
}

}  // namespace braid::test
