#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "quant/e2m1.h"
#include "quant/e4m3.h"
#include "quant/fp8_block.h"
#include "quant/nvfp4.h"
#include "tests/support/close.h"

namespace braid {
namespace {

std::vector<float> random_values(size_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> values(n);
  for (float& x : values) x = normal(engine);
  return values;
}

WeightMatrix view_of(const std::vector<float>& values, int32_t rows, int32_t cols) {
  return {.format = WeightFormat::kF32, .rows = rows, .cols = cols, .data = values.data()};
}

std::vector<float> decode(const WeightMatrix& w) {
  std::vector<float> out(static_cast<size_t>(w.rows) * static_cast<size_t>(w.cols), NAN);
  for (int32_t row = 0; row < w.rows; ++row) {
    dequantize_row(w, row, out.data() + static_cast<size_t>(row) * static_cast<size_t>(w.cols));
  }
  return out;
}

struct Size {
  int32_t rows;
  int32_t cols;
};

class QuantizeFp8 : public testing::TestWithParam<Size> {};

TEST_P(QuantizeFp8, IsWithinHalfAStepOfEveryElement) {
  const auto [rows, cols] = GetParam();
  const auto values = random_values(static_cast<size_t>(rows) * static_cast<size_t>(cols), 1);
  const auto q = quantize_fp8_block(view_of(values, rows, cols));
  ASSERT_TRUE(q);
  EXPECT_EQ(q->block_scale.size(),
            static_cast<size_t>((rows + 127) / 128) * static_cast<size_t>((cols + 127) / 128));
  std::vector<double> tolerance(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t row = i / static_cast<size_t>(cols) / 128;
    const size_t col = i % static_cast<size_t>(cols) / 128;
    const double scale = q->block_scale[row * static_cast<size_t>((cols + 127) / 128) + col];
    // Half of a relative step of 2^-3, or of the subnormal step 2^-9; two float roundings.
    tolerance[i] = std::max(std::fabs(values[i]) * (0x1p-4 + 0x1p-20), scale * 0x1p-10);
  }
  EXPECT_EQ(test::why_not_close(decode(q->view()), values, tolerance), "");
}

INSTANTIATE_TEST_SUITE_P(Sizes, QuantizeFp8,
                         testing::Values(Size{1, 1}, Size{128, 128}, Size{129, 127}, Size{160, 144},
                                         Size{300, 20}),
                         [](const auto& p) {
                           return "R" + std::to_string(p.param.rows) + "_C" +
                                  std::to_string(p.param.cols);
                         });

TEST(QuantizeFp8Block, UsesAmaxOver448AndKeepsZeroBlocksZero) {
  std::vector<float> values(128 * 256, 0.0f);
  values[5] = -7.0f;
  const auto q = quantize_fp8_block(view_of(values, 128, 256));
  ASSERT_TRUE(q);
  EXPECT_EQ(q->block_scale, (std::vector<float>{7.0f / 448.0f, 1.0f}));
  EXPECT_EQ(q->data[5], 0xfe);
  const auto decoded = decode(q->view());
  EXPECT_EQ(std::count(decoded.begin(), decoded.end(), 0.0f), 128 * 256 - 1);
}

TEST(QuantizeFp8Block, TakesTinyAndHugeBlocks) {
  for (const float x : {std::numeric_limits<float>::denorm_min(), 1e-40f, 3e38f}) {
    const std::vector<float> values(16, x);
    const auto q = quantize_fp8_block(view_of(values, 1, 16));
    ASSERT_TRUE(q);
    EXPECT_TRUE(std::isfinite(decode(q->view())[0]));
    EXPECT_GT(q->block_scale[0], 0.0f);
  }
}

TEST(Quantize, RefusesNanAndInfinity) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> values(3 * 32, 1.0f);
    values[2 * 32 + 7] = bad;
    const auto w = view_of(values, 3, 32);
    const std::string message = std::isnan(bad) ? "element [2, 7] is nan, a number is expected"
                                                : "element [2, 7] is inf, a number is expected";
    const auto fp8 = quantize_fp8_block(w);
    ASSERT_FALSE(fp8);
    EXPECT_EQ(fp8.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(fp8.error().message, message);
    const auto nvfp4 = quantize_nvfp4(w, 1.0f);
    ASSERT_FALSE(nvfp4);
    EXPECT_EQ(nvfp4.error().message, message);
    const auto amax = max_magnitude(w);
    ASSERT_FALSE(amax);
    EXPECT_EQ(amax.error().message, message);
  }
}

TEST(QuantizeNvfp4, RefusesColumnsThatAreNoMultipleOf16) {
  const std::vector<float> values(24, 1.0f);
  const auto q = quantize_nvfp4(view_of(values, 1, 24), 1.0f);
  ASSERT_FALSE(q);
  EXPECT_EQ(q.error().message, "NVFP4 needs a multiple of 16 columns, this matrix has 24");
}

TEST(QuantizeNvfp4, KeepsWhatItCanHoldExactly) {
  // Every e2m1 value at one scale; the largest is 6 * 448 * global.
  std::vector<float> values(32, 0.0f);
  for (uint8_t code = 0; code < 16; ++code) values[code] = from_e2m1(code) * 448.0f * 0.5f;
  const float global = nvfp4_global_scale(6.0f * 448.0f * 0.5f);
  EXPECT_EQ(global, 0.5f);
  const auto q = quantize_nvfp4(view_of(values, 1, 32), global);
  ASSERT_TRUE(q);
  EXPECT_EQ(q->group_scale[0], 0x7e);
  EXPECT_EQ(q->group_scale[1], 0x38) << "a group of zeros";
  EXPECT_EQ(decode(q->view()), values);
}

// Each group is at least as good as with the plain choice of amax / 6, and codes are the nearest.
TEST(QuantizeNvfp4, IsNoWorseThanThePlainScaleInAnyGroup) {
  const int32_t rows = 64;
  const int32_t cols = 64;
  const auto values = random_values(static_cast<size_t>(rows) * static_cast<size_t>(cols), 2);
  const auto w = view_of(values, rows, cols);
  const float global = nvfp4_global_scale(*max_magnitude(w));
  const auto q = quantize_nvfp4(w, global);
  ASSERT_TRUE(q);
  const auto decoded = decode(q->view());
  double total = 0;
  double plain_total = 0;
  for (size_t first = 0; first < values.size(); first += 16) {
    float amax = 0;
    for (size_t i = first; i < first + 16; ++i) amax = std::max(amax, std::fabs(values[i]));
    const float scale = from_e4m3(to_e4m3(amax / (6.0f * global))) * global;
    double error = 0;
    double plain = 0;
    for (size_t i = first; i < first + 16; ++i) {
      error += std::pow(double{decoded[i]} - values[i], 2);
      plain += std::pow(double{from_e2m1(to_e2m1(values[i] / scale)) * scale} - values[i], 2);
    }
    EXPECT_LE(error, plain * (1 + 1e-4)) << "group at " << first;
    total += error;
    plain_total += plain;
  }
  EXPECT_LT(total, 0.95 * plain_total);
}

TEST(QuantizeNvfp4, TakesTinyAndHugeMatrices) {
  for (const float x : {std::numeric_limits<float>::denorm_min(), 1e-38f, 3e38f}) {
    std::vector<float> values(16, 0.0f);
    values[3] = x;
    const auto w = view_of(values, 1, 16);
    const auto q = quantize_nvfp4(w, nvfp4_global_scale(x));
    ASSERT_TRUE(q);
    EXPECT_TRUE(std::isfinite(decode(q->view())[3])) << x;
    EXPECT_EQ(decode(q->view())[0], 0.0f);
  }
}

TEST(QuantizeNvfp4, GivesAZeroMatrixScaleOne) { EXPECT_EQ(nvfp4_global_scale(0.0f), 1.0f); }

}  // namespace
}  // namespace braid
