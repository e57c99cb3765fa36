// launch_moe_layer on BF16 and NVFP4 weights against the stages of reference::.

#include <gtest/gtest.h>

#include "kernels/moe_gemm/layout.h"
#include "tests/gpu/moe_layer_problem.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

using kernels::MoeLoraPlan;
using kernels::MoeSizes;
using enum LoraLayout;

// Half a stage of NVFP4 at the end of gate_up and of down.
constexpr MoeSizes kSmall = {.hidden_size = 384,
                             .moe_intermediate_size = 128,
                             .num_experts = 8,
                             .num_shared_experts = 0,
                             .top_k = 2};
constexpr MoeSizes kShared = {.hidden_size = 256,
                              .moe_intermediate_size = 384,
                              .num_experts = 12,
                              .num_shared_experts = 1,
                              .top_k = 3};
constexpr MoeSizes kOneExpertEach = {.hidden_size = 384,
                                     .moe_intermediate_size = 256,
                                     .num_experts = 5,
                                     .num_shared_experts = 0,
                                     .top_k = 1};
constexpr MoeSizes kQwen35 = {.hidden_size = 2048,
                              .moe_intermediate_size = 512,
                              .num_experts = 16,
                              .num_shared_experts = 1,
                              .top_k = 8};
constexpr MoeSizes kManyExperts = {.hidden_size = 128,
                                   .moe_intermediate_size = 128,
                                   .num_experts = 300,
                                   .num_shared_experts = 1,
                                   .top_k = 16};

struct Case {
  const char* name;
  LayerShape shape;
  int32_t tile_tokens = 0;
};

const Case kCases[] = {
    {"T1_base", {.num_tokens = 1, .sizes = kSmall}},
    {"T4_qwen35", {.num_tokens = 4, .sizes = kQwen35}},
    {"T5_shared_base", {.num_tokens = 5, .sizes = kShared}},
    {"T17_shared_base", {.num_tokens = 17, .sizes = kShared}},
    {"T33_shared_base", {.num_tokens = 33, .sizes = kShared}},
    {"T150_base", {.num_tokens = 150, .sizes = kSmall}},
    {"T70_one_expert", {.num_tokens = 70, .sizes = kShared, .only_expert = 3}},
    {"T200_tile64", {.num_tokens = 200, .sizes = kSmall, .only_expert = 2}, 64},
    {"T300_base", {.num_tokens = 300, .sizes = kShared}},
    {"T90_many_experts", {.num_tokens = 90, .sizes = kManyExperts, .ranks = {8, 16}}},
    {"T1_R16", {.num_tokens = 1, .sizes = kShared, .ranks = {16}, .base_share = 0}},
    {"T7_R8", {.num_tokens = 7, .sizes = kSmall, .ranks = {8}}},
    {"T21_R16_shared_outer",
     {.num_tokens = 21, .sizes = kShared, .ranks = {16, 16}, .layouts = {kSharedOuter}}},
    {"T40_mixed",
     {.num_tokens = 40,
      .sizes = kShared,
      .ranks = {1, 4, 8, 16, 24, 64, 128, 256},
      .layouts = {kPerExpert, kSharedOuter, kOneA}}},
    {"T100_one_expert_mixed",
     {.num_tokens = 100,
      .sizes = kShared,
      .ranks = {1, 4, 8, 16, 24, 64},
      .layouts = {kPerExpert, kSharedOuter, kOneA},
      .only_expert = 5}},
    {"T64_64_adapters",
     {.num_tokens = 64, .sizes = kSmall, .ranks = std::vector<int32_t>(64, 8), .base_share = 0}},
    {"T12_qwen35", {.num_tokens = 12, .sizes = kQwen35, .ranks = {16, 8, 64}}},
    {"T30_tile8", {.num_tokens = 30, .sizes = kShared, .ranks = {16, 32}}, 8},
    {"T30_tile32", {.num_tokens = 30, .sizes = kShared, .ranks = {16, 32}}, 32},
    {"T260_mixed", {.num_tokens = 260, .sizes = kSmall, .ranks = {16, 8, 64, 0}}},
};

using FormatCase = std::tuple<WeightFormat, Case>;

class MoeFormats : public testing::TestWithParam<FormatCase> {
 protected:
  LayerProblem problem(uint32_t seed) const {
    const auto& [format, test] = GetParam();
    LayerShape shape = test.shape;
    shape.sizes.weight_format = format;
    LayerProblem problem(shape, seed);
    problem.tile_tokens = test.tile_tokens;
    problem.router.routed_scaling = 1.7f;
    return problem;
  }
};

TEST_P(MoeFormats, MatchesReferenceAndGivesTheSameBitsEachTime) {
  BRAID_NEEDS_CUDA();
  LayerProblem problem = this->problem(/*seed=*/1);
  const auto y = problem.run();
  EXPECT_EQ(problem.why_wrong(), "");
  for (int i = 0; i < 10; ++i) ASSERT_EQ(problem.run(), y) << "run " << i;
}

std::string name_of(const FormatCase& test) {
  return std::string(name(std::get<0>(test))) + "_" + std::get<1>(test).name;
}
void PrintTo(const FormatCase& test, std::ostream* out) { *out << name_of(test); }

constexpr WeightFormat kFormats[] = {WeightFormat::kBf16, WeightFormat::kNvfp4};

INSTANTIATE_TEST_SUITE_P(Shapes, MoeFormats,
                         testing::Combine(testing::ValuesIn(kFormats), testing::ValuesIn(kCases)),
                         [](const auto& test) { return name_of(test.param); });

// What holds for every format that is multiplied in BF16.
class MoeBf16Products : public testing::TestWithParam<WeightFormat> {
 protected:
  static MoeSizes of_format(MoeSizes sizes) {
    sizes.weight_format = GetParam();
    return sizes;
  }
};
INSTANTIATE_TEST_SUITE_P(Formats, MoeBf16Products, testing::ValuesIn(kFormats),
                         [](const auto& test) { return std::string(name(test.param)); });

// Every weight by itself, and sums that are exact: a wgmma that reads a register too late shows.
TEST_P(MoeBf16Products, IntegersAreMultipliedExactly) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tile : {8, 16, 32, 64}) {
    for (const LayerContents contents : {LayerContents::kIntegers, LayerContents::kUnitVectors}) {
      LayerProblem problem(
          {.num_tokens = 400, .sizes = of_format(kOneExpertEach), .contents = contents}, 3);
      problem.tile_tokens = tile;
      const auto y = problem.run();
      ASSERT_EQ(problem.why_wrong(), "") << "tile " << tile;
      for (int i = 0; i < 20; ++i) ASSERT_EQ(problem.run(), y) << "run " << i;
    }
  }
}

TEST_P(MoeBf16Products, DeltaAloneIsWithinOnePerCent) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tokens : {1, 24, 280}) {
    LayerProblem problem({.num_tokens = tokens,
                          .sizes = of_format(kShared),
                          .ranks = {8, 16, 64},
                          .layouts = {kPerExpert, kSharedOuter, kOneA},
                          .base_share = 0,
                          .weight_size = 0},
                         4);
    const std::vector<float> y = problem.run();
    EXPECT_EQ(problem.why_wrong(), "");
    EXPECT_LT(problem.delta_error(y), 1e-2);
  }
}

TEST_P(MoeBf16Products, AdaptersLoadedButUnusedChangeNoBit) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tokens : {1, 8, 40, 150}) {
    LayerProblem problem(
        {.num_tokens = tokens, .sizes = of_format(kShared), .ranks = {16, 64}, .base_share = 2}, 3);
    EXPECT_EQ(problem.run(true), problem.run(false)) << tokens << " tokens";
  }
}

TEST_P(MoeBf16Products, BitsDoNotDependOnTheBatch) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tokens : {5, 30, 100, 400}) {
    const LayerShape shape = {.num_tokens = tokens,
                              .sizes = of_format(kShared),
                              .ranks = {16, 8, 64},
                              .layouts = {kPerExpert, kSharedOuter, kOneA}};
    LayerProblem problem(shape, 9);
    const std::vector<float> all = problem.run();
    for (const int32_t t : {0, tokens / 2, tokens - 1}) {
      LayerProblem alone(shape, 9);
      alone.keep_token(t);
      const auto begin = all.begin() + int64_t{t} * kShared.hidden_size;
      EXPECT_EQ(alone.run(), std::vector<float>(begin, begin + kShared.hidden_size))
          << "token " << t << " of " << tokens;
    }
  }
}

TEST_P(MoeBf16Products, ReplaysWithChangingRoutingEqualEager) {
  BRAID_NEEDS_CUDA();
  LayerProblem problem({.num_tokens = 40,
                        .sizes = of_format(kShared),
                        .ranks = {16, 8, 24},
                        .layouts = {kPerExpert, kSharedOuter}},
                       10);
  problem.upload();
  const Stream stream;
  const Graph graph = Graph::capture(stream, [&] {
    kernels::launch_moe_layer(problem.device_params(), problem.plan(), stream.get());
  });
  for (uint32_t i = 0; i < 100; ++i) {
    problem.change_inputs(100 + i);
    graph.launch(stream);
    stream.wait();
    const std::vector<Bf16> replayed = problem.download_y();
    kernels::launch_moe_layer(problem.device_params(), problem.plan(), stream.get());
    stream.wait();
    ASSERT_EQ(replayed, problem.download_y()) << "replay " << i;
  }
  EXPECT_EQ(problem.why_wrong(), "");
}

TEST(MoeFormatLimits, NameTheFormatAndThePlan) {
  kernels::MoeLayerParams p;
  p.sizes = kSmall;
  p.sizes.weight_format = WeightFormat::kF32;
  EXPECT_EQ(why_unsupported(p), "weight_format = f32, need fp8_block128, bf16 or nvfp4");
  p.sizes.weight_format = WeightFormat::kNvfp4;
  EXPECT_EQ(why_unsupported(p), "");
  const kernels::MoeAdapterSlot adapter;
  p.adapters = &adapter;
  EXPECT_EQ(why_unsupported(p, {.lora_plan = MoeLoraPlan::kSerial}),
            "weight_format = nvfp4 with LoRA plan serial, need fp8_block128");
  EXPECT_EQ(why_unsupported(p, {.small_batch = true}),
            "weight_format = nvfp4 with small batch, tile 8, need fp8_block128");
  for (const int32_t tokens : {1, 64, 8192}) {
    EXPECT_EQ(why_unsupported(p, kernels::plan_moe_layer(p.sizes, tokens, true, 132)), "");
  }
}

}  // namespace
}  // namespace braid::test
