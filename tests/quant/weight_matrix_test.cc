#include "quant/weight_matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/check.h"

namespace braid {
namespace {

std::vector<float> row_of(const WeightMatrix& w, int32_t row) {
  std::vector<float> out(static_cast<size_t>(w.cols), NAN);
  dequantize_row(w, row, out.data());
  return out;
}

TEST(WeightMatrix, DecodesF32AndBf16) {
  const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
  const WeightMatrix f = {
      .format = WeightFormat::kF32, .rows = 2, .cols = 3, .data = floats.data()};
  EXPECT_EQ(row_of(f, 1), (std::vector<float>{4, 5, 6}));
  const std::vector<Bf16> halves = {to_bf16(1), to_bf16(-2), to_bf16(0.5f), to_bf16(8)};
  const WeightMatrix b = {
      .format = WeightFormat::kBf16, .rows = 2, .cols = 2, .data = halves.data()};
  EXPECT_EQ(row_of(b, 0), (std::vector<float>{1, -2}));
  EXPECT_EQ(row_of(b, 1), (std::vector<float>{0.5f, 8}));
}

TEST(WeightMatrix, DecodesFp8WithTheScaleOfEachBlock) {
  // 130 x 129: blocks of 128 and a ragged edge both ways. Code 0x38 is 1.
  std::vector<uint8_t> codes(130 * 129, 0x38);
  const std::vector<float> scales = {1, 2, 3, 4};
  const WeightMatrix w = {.format = WeightFormat::kFp8Block128,
                          .rows = 130,
                          .cols = 129,
                          .data = codes.data(),
                          .block_scale = scales.data()};
  EXPECT_EQ(row_of(w, 127)[127], 1);
  EXPECT_EQ(row_of(w, 127)[128], 2);
  EXPECT_EQ(row_of(w, 128)[127], 3);
  EXPECT_EQ(row_of(w, 129)[128], 4);
  EXPECT_EQ(weight_bytes(w), 130u * 129u + 4u * 4u);
}

TEST(WeightMatrix, DecodesNvfp4WithTheEvenColumnInTheLowNibble) {
  std::vector<uint8_t> pairs(2 * 16, 0);
  pairs[16] = 0xf1;                                              // row 1: 0.5, -6
  pairs[24] = 0x02;                                              // row 1, column 16: 1
  const std::vector<uint8_t> scales = {0x38, 0x38, 0x40, 0x48};  // 1, 1; 2, 4
  const WeightMatrix w = {.format = WeightFormat::kNvfp4,
                          .rows = 2,
                          .cols = 32,
                          .data = pairs.data(),
                          .group_scale = scales.data(),
                          .global_scale = 0.25f};
  const auto row = row_of(w, 1);
  EXPECT_EQ(row[0], 0.25f);
  EXPECT_EQ(row[1], -3.0f);
  EXPECT_EQ(row[16], 1.0f);
  EXPECT_EQ(row_of(w, 0), std::vector<float>(32, 0.0f));
  EXPECT_EQ(weight_bytes(w), 32u + 4u + 4u);
}

TEST(WeightMatrix, RefusesARowThatIsNotThere) {
  const float value = 0;
  const WeightMatrix w = {.format = WeightFormat::kF32, .rows = 1, .cols = 1, .data = &value};
  float out = 0;
  EXPECT_THROW(dequantize_row(w, 1, &out), InternalError);
  EXPECT_THROW(dequantize_row(w, -1, &out), InternalError);
}

}  // namespace
}  // namespace braid
