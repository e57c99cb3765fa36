#include "engine/logprobs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace braid {
namespace {

TEST(Logprobs, MatchesNumbersWorkedOutByHand) {
  // softmax of (ln 1, ln 2, ln 5) is (1, 2, 5) / 8.
  const std::vector<float> logits = {0.0f, std::log(2.0f), std::log(5.0f)};
  const auto got = compute_logprob(logits, 1, 2);
  EXPECT_EQ(got.token, 1);
  EXPECT_EQ(got.rank, 2);
  EXPECT_NEAR(got.logprob, std::log(2.0 / 8), 1e-6);
  ASSERT_EQ(got.top.size(), 2u);
  EXPECT_EQ(got.top[0].first, 2);
  EXPECT_NEAR(got.top[0].second, std::log(5.0 / 8), 1e-6);
  EXPECT_EQ(got.top[1].first, 1);
  EXPECT_EQ(got.top[1].second, got.logprob);  // the same bits
}

TEST(Logprobs, OrdersEqualLogitsById) {
  const std::vector<float> logits = {1, 3, 3, 3, 0};
  const auto got = compute_logprob(logits, 3, 3);
  EXPECT_EQ(got.rank, 1);
  EXPECT_EQ(got.top[0].first, 1);
  EXPECT_EQ(got.top[1].first, 2);
  EXPECT_EQ(got.top[2].first, 3);
}

TEST(Logprobs, TakesLargeAndInfiniteLogits) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {1e30f, -infinity, -1e30f};
  EXPECT_EQ(compute_logprob(logits, 0, 0).logprob, 0.0f);
  EXPECT_EQ(compute_logprob(logits, 1, 0).logprob, -infinity);
  EXPECT_EQ(compute_logprob(logits, 1, 5).top.size(), 3u);
}

}  // namespace
}  // namespace braid
