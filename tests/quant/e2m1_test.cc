#include "quant/e2m1.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

namespace braid {
namespace {

constexpr std::array<float, 8> kMagnitudes = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};

TEST(E2m1, DecodesAndEncodesEveryCode) {
  for (uint8_t code = 0; code < 8; ++code) {
    const auto negative = static_cast<uint8_t>(code | 8);
    EXPECT_EQ(from_e2m1(code), kMagnitudes[code]);
    EXPECT_EQ(from_e2m1(negative), -kMagnitudes[code]);
    EXPECT_TRUE(std::signbit(from_e2m1(negative)));
    EXPECT_EQ(to_e2m1(kMagnitudes[code]), code);
    EXPECT_EQ(to_e2m1(-kMagnitudes[code]), negative);
  }
}

TEST(E2m1, RoundsMidpointsToEvenAndTheirNeighboursToTheNearest) {
  for (uint8_t code = 0; code < 7; ++code) {
    const float middle = (kMagnitudes[code] + kMagnitudes[code + 1u]) / 2;
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(to_e2m1(middle), even) << middle;
    EXPECT_EQ(to_e2m1(std::nextafter(middle, 0.0f)), code) << middle;
    EXPECT_EQ(to_e2m1(std::nextafter(middle, 9.0f)), code + 1) << middle;
    EXPECT_EQ(to_e2m1(-middle), even | 8) << middle;
  }
}

TEST(E2m1, Saturates) {
  EXPECT_EQ(to_e2m1(6.1f), 7);
  EXPECT_EQ(to_e2m1(1e30f), 7);
  EXPECT_EQ(to_e2m1(-std::numeric_limits<float>::infinity()), 15);
}

}  // namespace
}  // namespace braid
