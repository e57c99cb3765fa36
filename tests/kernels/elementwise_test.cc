// ops::rms_norm, silu_mul, embedding and router on the CPU against the reference.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/check.h"
#include "base/ids.h"
#include "cpu/thread_pool.h"
#include "ops/ops.h"
#include "tests/kernels/random_weights.h"
#include "tests/kernels/rounded.h"
#include "tests/kernels/targets.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr ops::Context kReference = {.backend = ops::Backend::kReference};
constexpr ops::Context kRoundedReference = {.backend = ops::Backend::kReference,
                                            .rounding = Rounding::kBf16};

class RmsNorm : public testing::TestWithParam<int32_t> {};

TEST_P(RmsNorm, AddsTheDeltaAndNorms) {
  const int32_t hidden = GetParam();
  cpu::ThreadPool pool(2);
  std::mt19937 random(1);
  for (const int32_t num_tokens : {0, 1, 9, 40}) {
    const size_t n = static_cast<size_t>(num_tokens) * static_cast<size_t>(hidden);
    const std::vector<float> residual = random_floats(random, n, 3.0f);
    const std::vector<float> delta = random_floats(random, n);
    const std::vector<float> weight = random_floats(random, static_cast<size_t>(hidden));
    for (const bool with_delta : {false, true}) {
      const auto run = [&](const ops::Context& context) {
        std::vector<float> changed = residual, y(n, kNan);
        ops::rms_norm(context, {.residual = changed.data(),
                                .delta = with_delta ? delta.data() : nullptr,
                                .weight = weight.data(),
                                .y = y.data(),
                                .num_tokens = num_tokens,
                                .hidden_size = hidden,
                                .eps = 1e-5f});
        return std::pair(changed, y);
      };
      const auto [want_residual, want] = run(kReference);
      std::vector<double> tolerance;
      for (const float y : want)
        tolerance.push_back(fp32_gamma(hidden + 8) * std::abs(double{y}) + 1e-30);
      for_each_target([&] {
        const auto [got_residual, got] = run({.pool = &pool});
        EXPECT_EQ(got_residual, want_residual);  // one float sum: the same bits
        EXPECT_EQ(why_not_close(got, want, tolerance), "");
      });
      const auto [rounded_residual, rounded] = run(kRoundedReference);
      for_each_target([&] {
        const auto [got_residual, got] = run({.pool = &pool, .rounding = Rounding::kBf16});
        EXPECT_EQ(got_residual, rounded_residual);
        EXPECT_EQ(why_not_rounded_alike(got, rounded, 0.01), "");
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, RmsNorm, testing::Values(1, 3, 33, 160, 576));

std::vector<float> silu_mul(const ops::Context& context, const std::vector<float>& gate,
                            const std::vector<float>& up) {
  std::vector<float> z(gate.size(), kNan);
  ops::silu_mul(context, {.gate = gate.data(),
                          .up = up.data(),
                          .z = z.data(),
                          .num_elements = static_cast<int64_t>(z.size())});
  return z;
}

TEST(SiluMul, HoldsOverTheWholeRangeOfFloats) {
  cpu::ThreadPool pool(2);
  std::vector<float> gate = {0.0f,    -0.0f,    1e-38f, -1e-38f, 88.0f, -87.0f, -88.5f,
                             -104.0f, -1000.0f, 1e30f,  -1e30f,  20.0f, -20.0f};
  std::mt19937 random(2);
  for (const float x : random_floats(random, 9001, 10.0f)) gate.push_back(x);
  std::vector<float> up = random_floats(random, gate.size());
  const std::vector<float> want = silu_mul(kReference, gate, up);
  // exp is good to 4 units in the last place; where e^-g passes the range of float, silu is 0 to
  // within |g| e^-88.
  std::vector<double> tolerance;
  for (size_t i = 0; i < want.size(); ++i) {
    tolerance.push_back(fp32_gamma(12) * std::abs(double{want[i]}) +
                        std::abs(double{gate[i]} * double{up[i]}) * std::exp(-88.0));
  }
  for_each_target(
      [&] { EXPECT_EQ(why_not_close(silu_mul({.pool = &pool}, gate, up), want, tolerance), ""); });
}

TEST(SiluMul, RoundsAsAGpu) {
  cpu::ThreadPool pool(2);
  std::mt19937 random(5);
  const std::vector<float> gate = random_floats(random, 9001, 3.0f),
                           up = random_floats(random, 9001);
  const std::vector<float> want = silu_mul(kRoundedReference, gate, up);
  for_each_target([&] {
    const std::vector<float> got = silu_mul({.pool = &pool, .rounding = Rounding::kBf16}, gate, up);
    EXPECT_EQ(why_not_rounded_alike(got, want, 0.001), "");
  });
}

TEST(Embedding, PicksRowsAndAddsAdapters) {
  cpu::ThreadPool pool(2);
  std::mt19937 random(3);
  constexpr int32_t kVocab = 50, kHidden = 48, kTokens = 21;
  for (const WeightFormat format : kAllFormats) {
    const RandomMatrix table(random, format, kVocab, kHidden);
    std::vector<std::vector<Bf16>> factors;
    std::vector<EmbeddingLora> loras(2);
    for (size_t slot = 0; slot < loras.size(); ++slot) {
      const int32_t rank = slot == 0 ? 5 : 16;
      for (const int32_t rows : {kVocab, kHidden}) {
        factors.emplace_back();
        for (const float x : random_floats(random, static_cast<size_t>(rows * rank)))
          factors.back().push_back(to_bf16(x));
      }
    }
    for (size_t slot = 0; slot < loras.size(); ++slot) {
      loras[slot] = {.a_t = factors[2 * slot].data(),
                     .b = factors[2 * slot + 1].data(),
                     .rank = slot == 0 ? 5 : 16,
                     .scaling = 0.3f};
    }
    std::vector<int32_t> ids, slots;
    for (int32_t t = 0; t < kTokens; ++t) {
      ids.push_back(t * 17 % kVocab);
      slots.push_back(t % 3 - 1);
    }
    const auto run = [&](const ops::Context& context, bool with_lora) {
      std::vector<float> out(kTokens * kHidden, kNan);
      ops::embedding(context, {.token_ids = ids.data(),
                               .table = table.view(),
                               .out = out.data(),
                               .num_tokens = kTokens,
                               .lora_of_slot = with_lora ? loras.data() : nullptr,
                               .adapter_slot_of_token = slots.data(),
                               .num_slots = 2});
      return out;
    };
    EXPECT_EQ(run({.pool = &pool}, false), run(kReference, false));
    const std::vector<float> want = run(kReference, true);
    EXPECT_EQ(why_not_close(run({.pool = &pool}, true), want,
                            std::vector<double>(want.size(), fp32_gamma(24) * 40)),
              "");
    for (const bool with_lora : {false, true}) {
      EXPECT_EQ(why_not_rounded_alike(run({.pool = &pool, .rounding = Rounding::kBf16}, with_lora),
                                      run(kRoundedReference, with_lora), 0.001),
                "");
    }
  }
}

struct Routes {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Routes route(const ops::Context& context, const std::vector<float>& logits, int32_t num_experts,
             int32_t top_k, bool norm) {
  const auto num_tokens = static_cast<int32_t>(logits.size()) / num_experts;
  Routes routes{std::vector<int32_t>(static_cast<size_t>(num_tokens * top_k), -7),
                std::vector<float>(static_cast<size_t>(num_tokens * top_k), kNan)};
  ops::router(context, {.logits = logits.data(),
                        .topk_ids = routes.ids.data(),
                        .topk_weights = routes.weights.data(),
                        .num_tokens = num_tokens,
                        .num_experts = num_experts,
                        .top_k = top_k,
                        .norm_topk_prob = norm});
  return routes;
}

TEST(Router, PicksTheLargestAndWeighsThem) {
  cpu::ThreadPool pool(2);
  std::mt19937 random(4);
  for (const auto& [num_experts, top_k] : {std::pair{8, 2}, {128, 8}, {8, 8}, {1, 1}}) {
    const std::vector<float> logits = random_floats(random, static_cast<size_t>(37 * num_experts));
    for (const bool norm : {true, false}) {
      const Routes want = route(kReference, logits, num_experts, top_k, norm);
      const Routes got = route({.pool = &pool}, logits, num_experts, top_k, norm);
      EXPECT_EQ(got.ids, want.ids);
      EXPECT_EQ(
          why_not_close(got.weights, want.weights,
                        std::vector<double>(want.weights.size(), fp32_gamma(num_experts + 8))),
          "");
    }
  }
}

TEST(Router, GivesTiesToTheLowestIdAndEqualWeights) {
  cpu::ThreadPool pool(1);
  const std::vector<float> logits(8, 0.0f);  // the demo's router: all experts, equally
  const Routes routes = route({.pool = &pool}, logits, 8, 8, true);
  EXPECT_EQ(routes.ids, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(routes.weights, std::vector<float>(8, 0.125f));
  EXPECT_EQ(route(kReference, logits, 8, 3, true).ids, (std::vector<int32_t>{0, 1, 2}));
}

}  // namespace
}  // namespace braid::test
