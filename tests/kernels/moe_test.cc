// ops::moe on the CPU against sums in double.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/ids.h"
#include "cpu/thread_pool.h"
#include "tests/kernels/moe_problem.h"
#include "tests/kernels/targets.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

void expect_right(const MoeProblem& problem, const ops::Context& context) {
  const MoeWant want = problem.want();
  EXPECT_EQ(why_not_close(problem.run(context), want.value, want.tolerance), "");
}

// The delta alone: a bound on the whole layer could hide its absence.
void expect_right_delta(const MoeProblem& problem, const ops::Context& context) {
  const MoeWant with = problem.want(), without = problem.want(false);
  const std::vector<float> got = problem.run(context), base = problem.run(context, false);
  std::vector<float> delta, want;
  std::vector<double> tolerance;
  for (size_t i = 0; i < got.size(); ++i) {
    delta.push_back(got[i] - base[i]);
    want.push_back(static_cast<float>(with.value[i] - without.value[i]));
    tolerance.push_back(with.tolerance[i] + without.tolerance[i] +
                        0x1p-23 * (std::abs(double{got[i]}) + std::abs(double{base[i]})));
  }
  EXPECT_EQ(why_not_close(delta, want, tolerance), "");
  EXPECT_LE(relative_l2(delta, want), 1e-2);
}

class Moe : public testing::TestWithParam<WeightFormat> {};

TEST_P(Moe, IsTheSumToWithinRounding) {
  cpu::ThreadPool pool(2);
  for (const int32_t num_tokens : {0, 1, 2, 3, 5, 8, 17, 64}) {
    SCOPED_TRACE(num_tokens);
    const MoeProblem problem({GetParam(), num_tokens, 2, 8, 160, 96}, 1);
    for_each_target([&] { expect_right(problem, {.pool = &pool}); });
  }
}

TEST_P(Moe, TakesTheDemosShape) {
  cpu::ThreadPool pool(2);
  const MoeProblem problem({GetParam(), 3, 8, 8, 576, 192, {4, 16}}, 2);
  for_each_target([&] {
    expect_right(problem, {.pool = &pool});
    expect_right_delta(problem, {.pool = &pool});
  });
}

TEST_P(Moe, AddsEachPairsOwnAdapter) {
  cpu::ThreadPool pool(2);
  MoeProblem problem({GetParam(), 33, 3, 5, 144, 80, {1, 3, 4, 16, 24, 64, 128, 256}}, 3);
  problem.routed_scaling = 2.5f;
  for_each_target([&] {
    expect_right(problem, {.pool = &pool});
    expect_right_delta(problem, {.pool = &pool});
  });
}

TEST_P(Moe, HasTheSameBitsInAnyBatchOnAnyThreads) {
  cpu::ThreadPool one(1), three(3);
  const MoeProblem problem({GetParam(), 29, 3, 6, 96, 48, {2, 16, 5}}, 4);
  for_each_target([&] {
    for (const Rounding rounding : {Rounding::kNone, Rounding::kBf16}) {
      const ops::Context context = {.pool = &three, .rounding = rounding};
      const std::vector<float> batch = problem.run(context);
      EXPECT_EQ(batch, problem.run({.pool = &one, .rounding = rounding}));
      for (const int32_t at_once : {1, 2, 5, 8, 16}) {
        for (int32_t t = 0; t < 29; t += at_once) {
          const std::vector<float> part = problem.run(context, t, std::min(29, t + at_once));
          ASSERT_EQ(std::memcmp(part.data(), batch.data() + t * 96, part.size() * sizeof(float)), 0)
              << "tokens from " << t << ", " << at_once << " at once";
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Formats, Moe, testing::ValuesIn(kAllFormats),
                         [](const auto& test) { return std::string(name(test.param)); });

TEST(Moe, SkipsPairsWithoutAnExpert) {
  cpu::ThreadPool pool(2);
  MoeProblem problem({WeightFormat::kBf16, 9, 2, 4, 32, 48, {4}}, 5);
  for (size_t pair = 0; pair < problem.topk_ids.size(); pair += 3)
    problem.topk_ids[pair] = kNoExpert;
  problem.topk_ids[0] = problem.topk_ids[1] = kNoExpert;  // a token with no expert at all
  expect_right(problem, {.pool = &pool});
  const std::vector<float> y = problem.run({.pool = &pool});
  EXPECT_EQ(std::count(y.begin(), y.begin() + 32, 0.0f), 32);
  std::fill(problem.topk_ids.begin(), problem.topk_ids.end(), kNoExpert);
  EXPECT_EQ(problem.run({.pool = &pool}), std::vector<float>(9 * 32, 0.0f));
}

TEST(Moe, TakesAllTokensOnOneExpert) {
  cpu::ThreadPool pool(2);
  MoeProblem problem({WeightFormat::kFp8Block128, 70, 1, 3, 130, 66, {8, 3}}, 6);
  std::fill(problem.topk_ids.begin(), problem.topk_ids.end(), 2);
  expect_right(problem, {.pool = &pool});
  expect_right_delta(problem, {.pool = &pool});
}

TEST(Moe, Takes64Adapters) {
  cpu::ThreadPool pool(2);
  std::vector<int32_t> ranks;
  for (int32_t slot = 0; slot < 64; ++slot) ranks.push_back(1 + slot % 17);
  const MoeProblem problem({WeightFormat::kNvfp4, 130, 2, 4, 32, 16, ranks}, 7);
  expect_right(problem, {.pool = &pool});
  expect_right_delta(problem, {.pool = &pool});
}

// Factors stored once for all experts (shared-outer): the same pointers for every expert.
TEST(Moe, TakesFactorsSharedBetweenExperts) {
  cpu::ThreadPool pool(2);
  MoeProblem problem({WeightFormat::kBf16, 12, 2, 4, 64, 32, {8, 8}}, 8);
  for (ExpertLora& lora : problem.expert_loras[0]) {
    const ExpertLora& first = problem.expert_loras[0][0];
    lora.gate.a = first.gate.a;
    lora.up.a = first.up.a;
    lora.down.b_t = first.down.b_t;
  }
  expect_right(problem, {.pool = &pool});
  expect_right_delta(problem, {.pool = &pool});
}

// One A, two scalings: what is shared is the product, not the scaled one.
TEST(Moe, KeepsTheScalingsOfGateAndUpApart) {
  cpu::ThreadPool pool(2);
  MoeProblem problem({WeightFormat::kF32, 4, 1, 1, 32, 16, {4}}, 9);
  ExpertLora& lora = problem.expert_loras[0][0];
  lora.up.a = lora.gate.a;
  lora.up.scaling = 5 * lora.gate.scaling;
  expect_right(problem, {.pool = &pool});
  expect_right_delta(problem, {.pool = &pool});
}

TEST(Moe, AgreesWithTheReference) {
  cpu::ThreadPool pool(2);
  const MoeProblem problem({WeightFormat::kFp8Block128, 5, 2, 4, 130, 70, {3, 8}}, 10);
  const MoeWant want = problem.want();
  EXPECT_EQ(
      why_not_close(problem.run({.backend = ops::Backend::kReference}), want.value, want.tolerance),
      "");
}

// An adapter whose slot has no experts leaves its tokens' bits as they are.
TEST(Moe, LeavesBaseTokensAlone) {
  cpu::ThreadPool pool(2);
  const MoeProblem problem({WeightFormat::kFp8Block128, 9, 2, 4, 64, 32, {8, 2}}, 11);
  const std::vector<float> with = problem.run({.pool = &pool});
  const std::vector<float> without = problem.run({.pool = &pool}, false);
  for (int32_t t = 0; t < 9; t += 3)
    EXPECT_EQ(std::memcmp(with.data() + t * 64, without.data() + t * 64, 64 * sizeof(float)), 0);
}

}  // namespace
}  // namespace braid::test
