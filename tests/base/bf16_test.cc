#include "base/bf16.h"

#include <gtest/gtest.h>

#include <cmath>

namespace braid {
namespace {

TEST(Bf16, RoundTripsEveryValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Bf16 x{static_cast<uint16_t>(bits)};
    if (std::isnan(to_float(x))) {
      EXPECT_TRUE(std::isnan(to_float(to_bf16(to_float(x)))));
    } else {
      EXPECT_EQ(to_bf16(to_float(x)), x) << bits;
    }
  }
}

TEST(Bf16, RoundsToNearestTiesToEven) {
  EXPECT_EQ(to_float(to_bf16(1.0f + 0x1p-8f)), 1.0f);                // tie, down to even
  EXPECT_EQ(to_float(to_bf16(1.0f + 3 * 0x1p-8f)), 1.0f + 0x1p-6f);  // tie, up to even
  EXPECT_EQ(to_float(to_bf16(1.0f + 0x1.01p-8f)), 1.0f + 0x1p-7f);   // just above a tie
  EXPECT_TRUE(std::isinf(to_float(to_bf16(3.4e38f))));
}

}  // namespace
}  // namespace braid
