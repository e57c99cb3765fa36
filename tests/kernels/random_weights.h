#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/lora/lora_pair.h"
#include "quant/weight_matrix.h"

namespace braid::test {

inline constexpr WeightFormat kAllFormats[] = {WeightFormat::kF32, WeightFormat::kBf16,
                                               WeightFormat::kFp8Block128, WeightFormat::kNvfp4};

// Normal numbers, the same for the same seed.
std::vector<float> random_floats(std::mt19937& random, size_t n, float sigma = 1.0f);

// A matrix of random codes and scales that owns its memory. Every code of the format occurs,
// subnormals and the largest included; NaN codes do not.
class RandomMatrix {
 public:
  RandomMatrix(std::mt19937& random, WeightFormat format, int32_t rows, int32_t cols);
  // Of BF16 or NVFP4: halves of small integers with scales that are powers of two, none of them
  // zero, so that sums of products with integers are exact in float.
  static RandomMatrix integers(std::mt19937& random, WeightFormat format, int32_t rows,
                               int32_t cols, bool positive);
  RandomMatrix(RandomMatrix&&) = default;  // vectors keep their memory, so the view stays right

  const WeightMatrix& view() const { return view_; }
  // [rows, cols], dequantised.
  const std::vector<double>& values() const { return values_; }

 private:
  RandomMatrix() = default;
  void decode();

  std::vector<uint8_t> codes_;
  std::vector<float> floats_;
  std::vector<Bf16> bf16_;
  std::vector<float> block_scale_;
  std::vector<uint8_t> group_scale_;
  WeightMatrix view_;
  std::vector<double> values_;
};

// The factors of an adapter on one [out, in] matrix, with their memory.
class RandomLora {
 public:
  RandomLora(std::mt19937& random, int32_t rank, int32_t in, int32_t out, float scaling);
  RandomLora(RandomLora&&) = default;

  const LoraPair& view() const { return view_; }

 private:
  std::vector<Bf16> a_, b_t_;
  LoraPair view_;
};

// What a sum came to, and the sum of the magnitudes of its terms: its rounding error is a multiple
// of the latter.
struct Sums {
  std::vector<double> value;
  std::vector<double> magnitude;
};

// w x plus the adapter's delta (where lora is given and not of rank 0), in double.
Sums times_with_lora(const RandomMatrix& w, const LoraPair* lora, const double* x);

}  // namespace braid::test
