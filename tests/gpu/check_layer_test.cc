// The comparison by which `braid bench layer` decides that a layer may be timed.

#include "apps/gpu/check_layer.h"

#include <gtest/gtest.h>

#include <cmath>

namespace braid::apps {
namespace {

const std::vector<double> kWant = {3, -4, 0};

TEST(WhyFar, AcceptsWhatIsWithinTheTolerance) {
  EXPECT_EQ(why_far(kWant, kWant, 0), "");
  EXPECT_EQ(why_far({3, -4.04, 0}, kWant, 1e-2), "");
}

TEST(WhyFar, SeesErrorsSignsAndWhatIsNoNumber) {
  EXPECT_NE(why_far({3, -4.06, 0}, kWant, 1e-2), "");
  EXPECT_NE(why_far({3, 4, 0}, kWant, 1e-2), "");
  EXPECT_NE(why_far({0, 0, 0}, kWant, 1e-2), "");
  EXPECT_NE(why_far({3, -4, NAN}, kWant, 1e-2), "");
  EXPECT_NE(why_far({3, -4, HUGE_VAL}, kWant, 1e-2), "");
  EXPECT_NE(why_far({3, -4, 1e-9}, {0, 0, 0}, 1e-2), "");
}

}  // namespace
}  // namespace braid::apps
