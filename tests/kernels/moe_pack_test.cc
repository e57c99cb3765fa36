// pack_moe_adapter: experts of one layer that differ in scaling.

#include <gtest/gtest.h>

#include <random>
#include <span>
#include <vector>

#include "kernels/moe_gemm/pack.h"

namespace braid::test {
namespace {

constexpr kernels::MoeSizes kSizes = {
    .hidden_size = 128, .moe_intermediate_size = 128, .num_experts = 3, .top_k = 1};

// Factors of every expert, its own, with B of every pair times `b` of its expert.
struct Experts {
  Experts(std::span<const float> scaling, std::span<const float> b) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> value(-1, 1);
    constexpr int32_t kRank = 8;
    for (size_t e = 0; e < scaling.size(); ++e) {
      const auto factor = [&](float times) {
        std::vector<Bf16>& values = memory.emplace_back();
        for (int32_t i = 0; i < kRank * 128; ++i)
          values.push_back(to_bf16(times * to_float(to_bf16(value(random)))));
        return values.data();
      };
      const auto pair = [&] {
        const Bf16* const a = factor(1);
        return LoraPair{.a = a, .b_t = factor(b[e]), .rank = kRank, .scaling = scaling[e]};
      };
      loras.push_back({.gate = pair(), .up = pair(), .down = pair()});
    }
  }
  kernels::PackedMoeAdapter packed() const {
    return kernels::pack_moe_adapter(kSizes, loras.data());
  }

  std::vector<std::vector<Bf16>> memory;
  std::vector<ExpertLora> loras;
};

TEST(PackMoeAdapter, BringsExpertsToOneScaling) {
  const float ones[] = {1, 1, 1};
  const float scaling[] = {0.5f, 2, -1}, quotients[] = {0.25f, 1, -0.5f}, largest[] = {2, 2, 2};
  const auto packed = Experts(scaling, ones).packed();
  const auto want = Experts(largest, quotients).packed();
  EXPECT_EQ(packed.bytes, want.bytes);
  const kernels::MoeAdapterSlot& slot = packed.layout.slot;
  EXPECT_EQ(slot.scaling_gate, 2);
  EXPECT_EQ(slot.scaling_up, 2);
  EXPECT_EQ(slot.scaling_down, 2);
}

TEST(PackMoeAdapter, LeavesFactorsOfOneScalingAlone) {
  const float ones[] = {1, 1, 1}, thirds[] = {0.3f, 0.3f, 0.3f};
  EXPECT_EQ(Experts(thirds, ones).packed().bytes, Experts(ones, ones).packed().bytes);
}

TEST(PackMoeAdapter, TakesExpertsThatAreNotAdapted) {
  const float ones[] = {1, 1, 1}, scaling[] = {0, 1, 0};
  Experts experts(scaling, ones);
  experts.loras[0] = experts.loras[2] = {};
  const auto packed = experts.packed();
  EXPECT_EQ(packed.layout.slot.scaling_down, 1);
  // What the others' parts hold is zero, never NaN.
  const auto stride = static_cast<size_t>(packed.layout.slot.expand_down_stride);
  ASSERT_GT(stride, 0u);
  const auto begin = reinterpret_cast<size_t>(packed.layout.slot.expand_down);
  for (size_t i = 0; i < stride; ++i) ASSERT_EQ(packed.bytes[begin + i], 0);
}

}  // namespace
}  // namespace braid::test
