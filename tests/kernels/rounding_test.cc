// Operations that round as a GPU does, on the CPU, against plain loops with the same roundings.

#include "cpu/rounding.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cpu/thread_pool.h"
#include "ops/ops.h"
#include "reference/moe_stages.h"
#include "tests/kernels/linear_problem.h"
#include "tests/kernels/moe_problem.h"
#include "tests/kernels/random_weights.h"
#include "tests/kernels/rounded.h"
#include "tests/kernels/targets.h"

namespace braid::test {
namespace {

constexpr ops::Context kPlain = {.backend = ops::Backend::kReference, .rounding = Rounding::kBf16};

TEST(RoundToBf16, IsToBf16ForAnyBitsAndAnyLength) {
  std::mt19937 random(1);
  std::vector<float> x = {0.0f,        -0.0f,       INFINITY, -INFINITY, NAN,    -NAN,
                          1.00390625f, 1.01171875f, 3.4e38f,  -3.4e38f,  1e-45f, 1e-40f};
  while (x.size() < 5000) x.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  for_each_target([&] {
    for (const size_t n : {0, 1, 3, 4, 7, 8, 15, 16, 17, 33, 5000}) {
      std::vector<float> got(x.begin(), x.begin() + static_cast<int64_t>(n));
      got.push_back(kUntouched);
      cpu::round_to_bf16(got.data(), static_cast<int64_t>(n));
      for (size_t i = 0; i < n; ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(to_float(to_bf16(x[i]))))
            << x[i];
      }
      EXPECT_EQ(got.back(), kUntouched);
    }
  });
}

TEST(RoundToE4m3, IsTheReferencesForAnyLengthAndSize) {
  std::mt19937 random(2);
  for (const float sigma : {1e-38f, 1e-12f, 1e-3f, 1.0f, 1e4f, 1e30f}) {
    for (const int32_t n : {1, 5, 63, 64, 65, 127, 128, 129, 500}) {
      std::vector<float> x = random_floats(random, static_cast<size_t>(n), sigma);
      // Magnitudes over a wide range, so that codes are subnormal too; zeros; a tie.
      for (size_t i = 0; i < x.size(); i += 3) x[i] *= std::ldexp(1.0f, -static_cast<int>(i % 20));
      for (size_t i = 1; i < x.size(); i += 7) x[i] = 0.0f;
      for (const int32_t block : {64, 128}) {
        const std::vector<double> want = reference::quantize_e4m3({x.begin(), x.end()}, block);
        for_each_target([&] {
          std::vector<float> got(x.size() + 1, kUntouched), in_place = x;
          cpu::round_to_e4m3(x.data(), n, block, got.data());
          cpu::round_to_e4m3(in_place.data(), n, block, in_place.data());
          for (size_t i = 0; i < x.size(); ++i) {
            ASSERT_EQ(got[i], static_cast<float>(want[i])) << x[i];
            ASSERT_EQ(in_place[i], got[i]);
          }
          EXPECT_EQ(got.back(), kUntouched);
        });
      }
    }
  }
}

TEST(RoundToE4m3, KeepsNan) {
  for_each_target([] {
    std::vector<float> x(20, 1.0f);
    x[3] = x[19] = NAN;
    cpu::round_to_e4m3(x.data(), 20, 128, x.data());
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(std::isnan(x[i]), i == 3 || i == 19) << i;
  });
}

class Rounded : public testing::TestWithParam<WeightFormat> {};

TEST_P(Rounded, LinearIsThatOfThePlainLoops) {
  cpu::ThreadPool pool(2);
  const ops::Context cpu = {.pool = &pool, .rounding = Rounding::kBf16};
  for (const int32_t num_tokens : {0, 1, 5, 17}) {
    SCOPED_TRACE(num_tokens);
    const LinearProblem problem({GetParam(), num_tokens, 192, 336, {1, 4, 24, 0, 64}}, 1);
    for (const bool with_lora : {false, true}) {
      const std::vector<float> want = problem.dense(problem.run(kPlain, with_lora));
      for_each_target([&] {
        EXPECT_EQ(why_not_rounded_alike(problem.dense(problem.run(cpu, with_lora)), want, 0.02),
                  "");
      });
    }
  }
}

// Where they are not rounded themselves, what was rounded on the way shows.
TEST_P(Rounded, LogitsStayFloat) {
  cpu::ThreadPool pool(2);
  const LinearProblem problem({GetParam(), 9, 75, 336}, 2);
  const auto run = [&](const ops::Context& context) {
    std::vector<float> y(static_cast<size_t>(9 * problem.y_stride()), NAN);
    kernels::LinearParams p = problem.params(y);
    p.y_is_logits = true;
    ops::linear(context, std::span(&p, 1));
    return problem.dense(y);
  };
  const std::vector<float> want = run(kPlain);
  EXPECT_FALSE(
      std::all_of(want.begin(), want.end(), [](float y) { return y == to_float(to_bf16(y)); }));
  for_each_target([&] {
    EXPECT_LE(relative_l2(run({.pool = &pool, .rounding = Rounding::kBf16}), want), 1e-6);
  });
  const bool reads_e4m3 = GetParam() == WeightFormat::kFp8Block128;
  EXPECT_EQ(relative_l2(run({.pool = &pool}), want) > 1e-2, reads_e4m3);
}

TEST_P(Rounded, MoeIsThatOfThePlainLoops) {
  cpu::ThreadPool pool(2);
  const ops::Context cpu = {.pool = &pool, .rounding = Rounding::kBf16};
  MoeProblem problem({GetParam(), 23, 3, 5, 336, 160, {1, 4, 16, 64}}, 3);
  problem.routed_scaling = 2.5f;
  for (const bool with_lora : {false, true}) {
    const std::vector<float> want = problem.run(kPlain, with_lora);
    for_each_target(
        [&] { EXPECT_EQ(why_not_rounded_alike(problem.run(cpu, with_lora), want, 0.05), ""); });
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Rounded, testing::ValuesIn(kAllFormats),
                         [](const auto& test) { return std::string(name(test.param)); });

}  // namespace
}  // namespace braid::test
