// ops::linear on the CPU against sums in double.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "base/check.h"
#include "cpu/thread_pool.h"
#include "tests/kernels/linear_problem.h"
#include "tests/kernels/targets.h"

namespace braid::test {
namespace {

// Rows and columns: one, odd, the demo's, and ragged against 128x128 blocks and vectors.
constexpr std::pair<int32_t, int32_t> kSizes[] = {{1, 16},    {7, 48},    {33, 160},
                                                  {192, 576}, {576, 192}, {130, 272}};

class Linear : public testing::TestWithParam<std::tuple<WeightFormat, int32_t>> {};

TEST_P(Linear, IsTheSumToWithinRounding) {
  const auto [format, num_tokens] = GetParam();
  cpu::ThreadPool pool(2);
  for (const auto& [rows, cols] : kSizes) {
    SCOPED_TRACE(testing::Message() << "[" << rows << ", " << cols << "]");
    const LinearProblem problem({format, num_tokens, rows, cols}, 1);
    const std::vector<float> x_before = problem.x();
    const Sums want = problem.want();
    for_each_target([&] {
      EXPECT_EQ(why_not_close(problem.dense(problem.run({.pool = &pool})), want.value,
                              problem.tolerance(want)),
                "");
    });
    EXPECT_EQ(problem.x(), x_before);
  }
}

TEST_P(Linear, AddsEachTokensOwnAdapter) {
  const auto [format, num_tokens] = GetParam();
  cpu::ThreadPool pool(2);
  const LinearProblem problem({format, num_tokens, 192, 576, {1, 3, 4, 16, 24, 0, 64, 128, 256}},
                              2);
  const Sums want = problem.want(), base = problem.want(false);
  for_each_target([&] {
    const std::vector<float> got = problem.dense(problem.run({.pool = &pool}));
    EXPECT_EQ(why_not_close(got, want.value, problem.tolerance(want)), "");
    // The delta alone: a bound on the whole could hide its absence.
    const std::vector<float> without = problem.dense(problem.run({.pool = &pool}, false));
    std::vector<float> delta, want_delta;
    std::vector<double> tolerance = problem.tolerance(want);
    for (size_t i = 0; i < got.size(); ++i) {
      delta.push_back(got[i] - without[i]);
      want_delta.push_back(static_cast<float>(want.value[i] - base.value[i]));
      tolerance[i] *= 2;
    }
    EXPECT_EQ(why_not_close(delta, want_delta, tolerance), "");
    EXPECT_LE(relative_l2(delta, want_delta), 1e-2);
  });
}

INSTANTIATE_TEST_SUITE_P(FormatsAndTokens, Linear,
                         testing::Combine(testing::ValuesIn(kAllFormats),
                                          testing::Values(0, 1, 2, 3, 5, 8, 17, 64)),
                         [](const auto& test) {
                           return std::string(name(std::get<0>(test.param))) + "_T" +
                                  std::to_string(std::get<1>(test.param));
                         });

class LinearFormat : public testing::TestWithParam<WeightFormat> {};

// Each token alone, on any number of threads, has the bits it has in a batch.
TEST_P(LinearFormat, HasTheSameBitsInAnyBatchOnAnyThreads) {
  cpu::ThreadPool one(1), three(3);
  const int32_t rows = 75, cols = 576, num_tokens = 37;
  const LinearProblem problem({GetParam(), num_tokens, rows, cols, {4, 16, 9}}, 3);
  for_each_target([&] {
    for (const Rounding rounding : {Rounding::kNone, Rounding::kBf16}) {
      const ops::Context context = {.pool = &three, .rounding = rounding};
      const std::vector<float> batch = problem.dense(problem.run(context));
      EXPECT_EQ(batch, problem.dense(problem.run({.pool = &one, .rounding = rounding})));
      std::vector<float> y(static_cast<size_t>(num_tokens * problem.y_stride()));
      for (const int32_t at_once : {1, 2, 4, 6, 7, 16}) {
        kernels::LinearParams p = problem.params(y);
        for (int32_t t = 0; t < num_tokens; t += at_once) {
          kernels::LinearParams part = p;
          part.x += t * p.x_stride;
          part.y += t * p.y_stride;
          part.adapter_slot_of_token += t;
          part.num_tokens = std::min(at_once, num_tokens - t);
          ops::linear(context, std::span(&part, 1));
        }
        for (int32_t t = 0; t < num_tokens; ++t) {
          ASSERT_EQ(std::memcmp(y.data() + t * problem.y_stride(), batch.data() + t * rows,
                                sizeof(float) * rows),
                    0)
              << "token " << t << ", " << at_once << " at once";
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Formats, LinearFormat, testing::ValuesIn(kAllFormats),
                         [](const auto& test) { return std::string(name(test.param)); });

// A base token's bits are those of a run without adapters loaded.
TEST(Linear, LeavesBaseTokensAlone) {
  cpu::ThreadPool pool(2);
  const LinearProblem problem({WeightFormat::kFp8Block128, 9, 64, 128, {8, 2}}, 4);
  const std::vector<float> with = problem.run({.pool = &pool});
  const std::vector<float> without = problem.run({.pool = &pool}, false);
  for (int64_t t = 0; t < 9; t += 3) {
    EXPECT_EQ(std::memcmp(with.data() + t * problem.y_stride(),
                          without.data() + t * problem.y_stride(), sizeof(float) * 64),
              0);
  }
}

TEST(Linear, RunsSeveralProblemsOfDifferentWidths) {
  cpu::ThreadPool pool(2);
  const LinearProblem q({WeightFormat::kBf16, 5, 96, 64, {4}}, 5),
      k({WeightFormat::kF32, 5, 7, 33}, 6), none({WeightFormat::kF32, 0, 3, 3}, 7);
  std::vector<float> y_q(5 * q.y_stride(), NAN), y_k(5 * k.y_stride(), NAN), y_none;
  const kernels::LinearParams problems[] = {q.params(y_q), none.params(y_none), k.params(y_k)};
  ops::linear({.pool = &pool}, problems);
  EXPECT_EQ(why_not_close(q.dense(y_q), q.want().value, q.tolerance(q.want())), "");
  EXPECT_EQ(why_not_close(k.dense(y_k), k.want().value, k.tolerance(k.want())), "");
}

// Widths that are no multiple of any vector, where a load past the end would show under asan.
TEST(Linear, TakesAnyWidth) {
  cpu::ThreadPool pool(1);
  for (const WeightFormat format :
       {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8Block128}) {
    for (const int32_t cols : {1, 3, 5, 31, 127, 129, 145}) {
      const LinearProblem problem({format, 9, 5, cols, {3}}, 8);
      const Sums want = problem.want();
      for_each_target([&] {
        EXPECT_EQ(why_not_close(problem.dense(problem.run({.pool = &pool})), want.value,
                                problem.tolerance(want)),
                  "")
            << name(format) << " " << cols;
      });
    }
  }
}

TEST(LinearLimits, NameTheFieldAndItsValue) {
  const float weights[4] = {};
  std::vector<float> y(4);
  kernels::LinearParams p = {.x = weights,
                             .x_stride = 1,
                             .w = {.rows = 2, .cols = 2, .data = weights},
                             .y = y.data(),
                             .y_stride = 2,
                             .num_tokens = 1};
  EXPECT_THAT(why_unsupported(p), testing::HasSubstr("x_stride = 1"));
  EXPECT_THROW(ops::linear({.backend = ops::Backend::kReference}, std::span(&p, 1)), InternalError);
}

}  // namespace
}  // namespace braid::test
