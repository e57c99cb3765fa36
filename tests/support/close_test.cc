#include "tests/support/close.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace braid::test {
namespace {

using Floats = std::vector<float>;
const Floats kWant = {1, -100, 0, 3};
const std::vector<double> kTolerance(4, 1e-3);

std::string compare(const Floats& got) { return why_not_close(got, kWant, kTolerance); }

TEST(WhyNotClose, AcceptsEqual) { EXPECT_EQ(compare(kWant), ""); }
TEST(WhyNotClose, AcceptsWithinTolerance) { EXPECT_EQ(compare({1.0005f, -100, 0.0009f, 3}), ""); }
TEST(WhyNotClose, SeesWrongNegativeValue) { EXPECT_NE(compare({1, -200, 0, 3}), ""); }
TEST(WhyNotClose, SeesSignFlip) { EXPECT_NE(compare({1, 100, 0, 3}), ""); }
TEST(WhyNotClose, SeesNaN) { EXPECT_NE(compare({1, -100, NAN, 3}), ""); }
TEST(WhyNotClose, SeesInfinity) { EXPECT_NE(compare({1, -100, 0, HUGE_VALF}), ""); }
TEST(WhyNotClose, SeesNaNInWant) {
  EXPECT_NE(why_not_close(kWant, Floats{1, NAN, 0, 3}, kTolerance), "");
}
TEST(WhyNotClose, SeesMissingElements) { EXPECT_NE(compare({1, -100, 0}), ""); }
TEST(WhyNotClose, SeesOneElementOfAMillion) {
  const Floats want(1 << 20, 1.f);
  Floats got = want;
  got[777777] = 0.f;
  const std::string what = why_not_close(got, want, std::vector<double>(want.size(), 1e-3));
  EXPECT_NE(what.find("1 of 1048576"), what.npos) << what;
  EXPECT_NE(what.find("[777777]"), what.npos) << what;
}

TEST(RelativeL2, IsZeroForEqualAndOneForZeros) {
  EXPECT_EQ(relative_l2(kWant, kWant), 0);
  EXPECT_EQ(relative_l2(Floats(4, 0.f), kWant), 1);
}
TEST(RelativeL2, NeverPassesNaN) {
  EXPECT_TRUE(std::isinf(relative_l2(Floats{1, -100, NAN, 3}, kWant)));
  EXPECT_TRUE(std::isinf(relative_l2(kWant, Floats{1, -100, NAN, 3})));
}
TEST(RelativeL2, OfZerosWantsZeros) {
  EXPECT_EQ(relative_l2(Floats(4, 0.f), Floats(4, 0.f)), 0);
  EXPECT_TRUE(std::isinf(relative_l2(kWant, Floats(4, 0.f))));
}

TEST(Fp32Gamma, GrowsWithTheNumberOfTerms) {
  EXPECT_DOUBLE_EQ(fp32_gamma(1), 0x1p-24 / (1 - 0x1p-24));
  EXPECT_GT(fp32_gamma(4096), 4096 * 0x1p-24);
}

}  // namespace
}  // namespace braid::test
