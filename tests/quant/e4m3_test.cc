#include "quant/e4m3.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace braid {
namespace {

// The definition, written with ldexp.
double value_of(int bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

TEST(E4m3, DecodesEveryCode) {
  for (int bits = 0; bits < 256; ++bits) {
    const float got = from_e4m3(static_cast<uint8_t>(bits));
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(got)) << bits;
    } else {
      EXPECT_EQ(got, static_cast<float>(value_of(bits))) << bits;
      EXPECT_EQ(std::signbit(got), bits >= 0x80) << bits;
    }
  }
  EXPECT_EQ(from_e4m3(0x7e), kE4m3Max);
  EXPECT_EQ(from_e4m3(0x01), 0x1p-9f);
}

TEST(E4m3, EncodesEveryValueAsItself) {
  for (int bits = 0; bits < 256; ++bits) {
    if ((bits & 0x7f) == 0x7f) continue;
    EXPECT_EQ(to_e4m3(from_e4m3(static_cast<uint8_t>(bits))), bits);
  }
}

TEST(E4m3, RoundsMidpointsToEvenAndTheirNeighboursToTheNearest) {
  for (int bits = 0; bits < 0x7e; ++bits) {
    const auto low = static_cast<float>(value_of(bits));
    const auto high = static_cast<float>(value_of(bits + 1));
    const float middle = (low + high) / 2;  // exact: five bits of mantissa
    const int even = bits % 2 == 0 ? bits : bits + 1;
    EXPECT_EQ(to_e4m3(middle), even) << middle;
    EXPECT_EQ(to_e4m3(std::nextafter(middle, 0.0f)), bits) << middle;
    EXPECT_EQ(to_e4m3(std::nextafter(middle, 1000.0f)), bits + 1) << middle;
    EXPECT_EQ(to_e4m3(-middle), even | 0x80) << middle;
  }
}

TEST(E4m3, SaturatesAndKeepsNan) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float x : {449.0f, 463.9f, 464.0f, 480.0f, 1e30f, inf}) {
    EXPECT_EQ(to_e4m3(x), 0x7e) << x;
    EXPECT_EQ(to_e4m3(-x), 0xfe) << x;
  }
  EXPECT_EQ(to_e4m3(std::numeric_limits<float>::quiet_NaN()), 0x7f);
  EXPECT_EQ(to_e4m3(-0.0f), 0x80);
  EXPECT_EQ(to_e4m3(std::numeric_limits<float>::denorm_min()), 0x00);
}

}  // namespace
}  // namespace braid
