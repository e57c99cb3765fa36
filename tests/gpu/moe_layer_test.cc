// launch_moe_layer against the stages of reference::.

#include <gtest/gtest.h>

#include <cmath>

#include "base/ids.h"
#include "kernels/moe_gemm/layout.h"
#include "tests/gpu/moe_layer_problem.h"
#include "tests/support/close.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

using kernels::MoeLoraPlan;
using kernels::MoeSizes;

constexpr MoeSizes kSmall = {.hidden_size = 256,
                             .moe_intermediate_size = 128,
                             .num_experts = 8,
                             .num_shared_experts = 0,
                             .top_k = 2};
constexpr MoeSizes kShared = {.hidden_size = 384,
                              .moe_intermediate_size = 256,
                              .num_experts = 12,
                              .num_shared_experts = 1,
                              .top_k = 3};
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

// Several stages and tiles an expert, of which many are not hit.
constexpr MoeSizes kManyDeep = {.hidden_size = 512,
                                .moe_intermediate_size = 256,
                                .num_experts = 96,
                                .num_shared_experts = 0,
                                .top_k = 4};

constexpr MoeSizes kSparse = {.hidden_size = 128,
                              .moe_intermediate_size = 128,
                              .num_experts = 300,
                              .num_shared_experts = 0,
                              .top_k = 1};
constexpr MoeSizes kWide = {.hidden_size = 128,
                            .moe_intermediate_size = 2176,
                            .num_experts = 4,
                            .num_shared_experts = 0,
                            .top_k = 2};

struct Case {
  const char* name;
  LayerShape shape;
  int32_t tile_tokens = 0;
};

void PrintTo(const Case& test, std::ostream* out) { *out << test.name; }

class MoeLayer : public testing::TestWithParam<Case> {};

TEST_P(MoeLayer, MatchesReference) {
  BRAID_NEEDS_CUDA();
  LayerProblem problem(GetParam().shape, /*seed=*/1);
  problem.tile_tokens = GetParam().tile_tokens;
  problem.router.routed_scaling = 1.7f;
  problem.run();
  EXPECT_EQ(problem.why_wrong(), "");
}

// The two ways to route a few tokens.
TEST_P(MoeLayer, GivesTheSameBitsWithoutARoutingKernel) {
  BRAID_NEEDS_CUDA();
  if (GetParam().shape.num_tokens > kernels::kSmallBatchTokens) return;
  LayerProblem problem(GetParam().shape, /*seed=*/1);
  problem.router.routed_scaling = 1.7f;
  const auto y = problem.run();
  problem.small_batch = true;
  EXPECT_EQ(problem.run(), y);
  EXPECT_EQ(problem.why_wrong(), "");
}

TEST_P(MoeLayer, GivesTheSameBitsTwice) {
  BRAID_NEEDS_CUDA();
  LayerProblem problem(GetParam().shape, /*seed=*/2);
  problem.tile_tokens = GetParam().tile_tokens;
  const auto first = problem.run();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(problem.run(), first);
}

using enum LoraLayout;
const Case kCases[] = {
    {"T1_base", {.num_tokens = 1}},
    {"T1_shared_base", {.num_tokens = 1, .sizes = kShared}},
    {"T5_base", {.num_tokens = 5, .sizes = kSmall}},
    {"T17_shared_base", {.num_tokens = 17, .sizes = kShared}},
    {"T33_shared_base", {.num_tokens = 33, .sizes = kShared}},
    {"T150_shared_base", {.num_tokens = 150, .sizes = kShared}},
    {"T70_one_expert", {.num_tokens = 70, .sizes = kShared, .only_expert = 3}},
    {"T1_R16", {.num_tokens = 1, .sizes = kShared, .ranks = {16}, .base_share = 0}},
    {"T7_R8", {.num_tokens = 7, .sizes = kSmall, .ranks = {8}}},
    {"T8_R16_4_adapters", {.num_tokens = 8, .sizes = kShared, .ranks = {16, 16, 16, 16}}},
    {"T21_R16_shared_outer",
     {.num_tokens = 21, .sizes = kShared, .ranks = {16, 16}, .layouts = {kSharedOuter}}},
    {"T21_R24_one_a", {.num_tokens = 21, .sizes = kShared, .ranks = {24, 24}, .layouts = {kOneA}}},
    {"T40_mixed",
     {.num_tokens = 40,
      .sizes = kShared,
      .ranks = {1, 4, 8, 16, 24, 64, 128, 256},
      .layouts = {kPerExpert, kSharedOuter, kOneA}}},
    {"T9_mixed",
     {.num_tokens = 9,
      .sizes = kShared,
      .ranks = {1, 4, 8, 16, 24, 64, 128, 256},
      .layouts = {kOneA, kPerExpert, kSharedOuter}}},
    {"T100_one_expert_mixed",
     {.num_tokens = 100,
      .sizes = kShared,
      .ranks = {1, 4, 8, 16, 24, 64},
      .layouts = {kPerExpert, kSharedOuter, kOneA},
      .only_expert = 5}},
    {"T140_mixed",
     {.num_tokens = 140,
      .sizes = kSmall,
      .ranks = {16, 8, 64, 0, 16},
      .layouts = {kPerExpert, kSharedOuter}}},
    {"T64_64_adapters",
     {.num_tokens = 64, .sizes = kSmall, .ranks = std::vector<int32_t>(64, 8), .base_share = 0}},
    {"T30_tile8", {.num_tokens = 30, .sizes = kShared, .ranks = {16, 32}}, 8},
    {"T30_tile32", {.num_tokens = 30, .sizes = kShared, .ranks = {16, 32}}, 32},
    {"T6_mixed",
     {.num_tokens = 6,
      .sizes = kShared,
      .ranks = {1, 24, 64, 128, 256},
      .layouts = {kPerExpert, kSharedOuter, kOneA}}},
    {"T8_8_adapters",
     {.num_tokens = 8, .sizes = kShared, .ranks = std::vector<int32_t>(8, 16), .base_share = 0}},
    {"T4_qwen35", {.num_tokens = 4, .sizes = kQwen35}},
    {"T8_many_experts", {.num_tokens = 8, .sizes = kManyExperts, .ranks = {8, 16}}},
    {"T300_many_experts_prefill", {.num_tokens = 300, .sizes = kManyExperts}},
    // Some of the guessed experts are hit and some are not.
    {"T20_many_experts_mixed",
     {.num_tokens = 20,
      .sizes = kManyExperts,
      .ranks = {16, 40, 8},
      .layouts = {kPerExpert, kOneA, kSharedOuter}}},
    {"T30_deep_experts_mixed",
     {.num_tokens = 30,
      .sizes = kManyDeep,
      .ranks = {16, 40, 8, 16},
      .layouts = {kPerExpert, kPerExpert, kOneA, kSharedOuter}}},
    {"T30_deep_experts_one_adapter",
     {.num_tokens = 30, .sizes = kManyDeep, .ranks = {16}, .base_share = 0}},
    // None is guessed.
    {"T7_deep_experts_mixed",
     {.num_tokens = 7,
      .sizes = kManyDeep,
      .ranks = {16, 40, 8},
      .layouts = {kPerExpert, kOneA, kSharedOuter}}},
    {"T10_deep_experts_one_adapter",
     {.num_tokens = 10, .sizes = kManyDeep, .ranks = {64}, .base_share = 0}},
    {"T90_many_experts", {.num_tokens = 90, .sizes = kManyExperts, .ranks = {8, 16}}},
    {"T24_qwen35_5_adapters",
     {.num_tokens = 24,
      .sizes = kQwen35,
      .ranks = std::vector<int32_t>(5, 16),
      .layouts = {kPerExpert, kPerExpert, kSharedOuter}}},
    {"T12_qwen35", {.num_tokens = 12, .sizes = kQwen35, .ranks = {16, 8, 64}}},
    {"T300_prefill", {.num_tokens = 300, .sizes = kSmall, .ranks = {16, 8}}},
    // Large batches: tiles of one token to 256, and of everything between.
    {"T260_few_tokens_each", {.num_tokens = 260, .sizes = kSparse}},
    {"T520_shared_base", {.num_tokens = 520, .sizes = kShared}},
    {"T600_one_expert_mixed",
     {.num_tokens = 600,
      .sizes = kSmall,
      .ranks = {1, 4, 8, 16, 24, 40, 64},
      .layouts = {kPerExpert, kSharedOuter, kOneA},
      .only_expert = 5}},
    {"T340_mixed",
     {.num_tokens = 340,
      .sizes = kShared,
      .ranks = {16, 128, 8, 0, 64, 24},
      .layouts = {kOneA, kPerExpert, kSharedOuter}}},
    {"T270_one_adapter", {.num_tokens = 270, .sizes = kShared, .ranks = {16}, .base_share = 0}},
    {"T400_64_adapters",
     {.num_tokens = 400, .sizes = kSmall, .ranks = std::vector<int32_t>(64, 8), .base_share = 0}},
    {"T257_wide_base", {.num_tokens = 257, .sizes = kWide}},
};

INSTANTIATE_TEST_SUITE_P(Shapes, MoeLayer, testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

// The other LoRA plans where there are adapters: they run the same kernels. A case has the tile
// that its number of tokens asks for, so those with their own are left out.
std::vector<Case> cases_with_adapters() {
  std::vector<Case> cases;
  for (const Case& test : kCases) {
    if (!test.shape.ranks.empty() && test.tile_tokens == 0) cases.push_back(test);
  }
  return cases;
}

void expect_right_and_equal(const LayerShape& shape) {
  LayerProblem serial(shape, /*seed=*/1), two_stream(shape, /*seed=*/1);
  serial.lora_plan = MoeLoraPlan::kSerial;
  serial.router.routed_scaling = two_stream.router.routed_scaling = 1.7f;
  const auto y = serial.run();
  EXPECT_EQ(serial.why_wrong(), "");
  EXPECT_EQ(serial.run(), y);
  if (shape.num_tokens > 256) return;
  two_stream.lora_plan = MoeLoraPlan::kTwoStream;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(two_stream.run(), y);
}

class MoeLayerUnfused : public testing::TestWithParam<Case> {};
TEST_P(MoeLayerUnfused, MatchesReferenceAndHasTheSameBitsOnTwoStreams) {
  BRAID_NEEDS_CUDA();
  expect_right_and_equal(GetParam().shape);
}
INSTANTIATE_TEST_SUITE_P(Shapes, MoeLayerUnfused, testing::ValuesIn(cases_with_adapters()),
                         [](const auto& test) { return std::string(test.param.name); });

// Wider than the fused plan can be.
TEST(MoeLayerWide, MatchesReference) {
  BRAID_NEEDS_CUDA();
  expect_right_and_equal({.num_tokens = 3, .sizes = kWide, .ranks = {16, 40}});
}

// What follows holds for every LoRA plan.
class MoeLoraPlans : public testing::TestWithParam<MoeLoraPlan> {};
INSTANTIATE_TEST_SUITE_P(Plans, MoeLoraPlans,
                         testing::Values(MoeLoraPlan::kFused, MoeLoraPlan::kTwoStream,
                                         MoeLoraPlan::kSerial),
                         [](const auto& test) {
                           std::string name = to_string(test.param);
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(MoeLoraPlans, AdaptersLoadedButUnusedChangeNoBit) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tokens : {1, 8, 40, 150, 400}) {
    LayerProblem problem(
        {.num_tokens = tokens, .sizes = kShared, .ranks = {16, 64}, .base_share = 2}, 3);
    problem.lora_plan = GetParam();
    EXPECT_EQ(problem.run(true), problem.run(false)) << tokens << " tokens";
  }
}

// The delta with nothing to hide behind: base weights of zero.
TEST_P(MoeLoraPlans, DeltaAloneIsWithinOnePerCent) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tokens : {24, 280}) {
    LayerProblem problem({.num_tokens = tokens,
                          .sizes = kShared,
                          .ranks = {8, 16, 64},
                          .layouts = {kPerExpert, kSharedOuter, kOneA},
                          .base_share = 0,
                          .weight_size = 0},
                         4);
    problem.lora_plan = GetParam();
    const std::vector<float> y = problem.run();
    EXPECT_EQ(problem.why_wrong(), "");
    EXPECT_LT(problem.delta_error(y), 1e-2);
  }
}

TEST_P(MoeLoraPlans, AgreeWithFused) {
  BRAID_NEEDS_CUDA();
  const LayerShape shape = {.num_tokens = 60,
                            .sizes = kShared,
                            .ranks = {16, 8, 64},
                            .layouts = {kPerExpert, kSharedOuter, kOneA}};
  LayerProblem problem(shape, 11);
  problem.lora_plan = GetParam();
  // Codes of h that fall to the other side are an eighth off; few do.
  EXPECT_LT(relative_l2(problem.run(), LayerProblem(shape, 11).run()), 5e-3);
}

// Every token alone gives the bits it has in the batch, whatever tile the batch's size chose.
TEST_P(MoeLoraPlans, BitsDoNotDependOnTheBatch) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tokens : {5, 30, 100, 200, 900}) {
    const LayerShape shape = {.num_tokens = tokens,
                              .sizes = kShared,
                              .ranks = {16, 8, 64},
                              .layouts = {kPerExpert, kSharedOuter, kOneA}};
    LayerProblem problem(shape, 9);
    problem.lora_plan = GetParam();
    const std::vector<float> all = problem.run();
    for (const int32_t t : {0, tokens / 2, tokens - 1}) {
      LayerProblem alone(shape, 9);
      alone.lora_plan = GetParam();
      alone.keep_token(t);
      const auto begin = all.begin() + int64_t{t} * kShared.hidden_size;
      EXPECT_EQ(alone.run(), std::vector<float>(begin, begin + kShared.hidden_size))
          << "token " << t << " of " << tokens;
    }
  }
}

// One captured graph, replayed with other logits, adapters and x each time, against eager launches.
void expect_replays_equal_eager(LayerProblem& problem, int num_replays) {
  problem.upload();
  const Stream stream;
  const ForkJoin side;
  const Graph graph = Graph::capture(stream, [&] {
    kernels::launch_moe_layer(problem.device_params(), problem.plan(), stream.get(), side.get());
  });
  for (int i = 0; i < num_replays; ++i) {
    problem.change_inputs(static_cast<uint32_t>(100 + i));
    graph.launch(stream);
    stream.wait();
    const std::vector<Bf16> replayed = problem.download_y();
    kernels::launch_moe_layer(problem.device_params(), problem.plan(), stream.get(), side.get());
    stream.wait();
    ASSERT_EQ(replayed, problem.download_y()) << "replay " << i;
  }
  EXPECT_EQ(problem.why_wrong(), "");
}

TEST_P(MoeLoraPlans, ThousandReplaysWithChangingRoutingEqualEager) {
  BRAID_NEEDS_CUDA();
  LayerProblem problem({.num_tokens = 40,
                        .sizes = kShared,
                        .ranks = {16, 8, 24},
                        .layouts = {kPerExpert, kSharedOuter}},
                       10);
  problem.lora_plan = GetParam();
  expect_replays_equal_eager(problem, 1000);
}

TEST(MoeLargeBatch, ReplaysWithChangingRoutingEqualEager) {
  BRAID_NEEDS_CUDA();
  LayerProblem problem({.num_tokens = 300,
                        .sizes = kShared,
                        .ranks = {16, 8, 24},
                        .layouts = {kPerExpert, kSharedOuter}},
                       10);
  expect_replays_equal_eager(problem, 100);
}

// Batches of all sizes one after the other, as an engine runs them: what one leaves in the
// workspace the next must not see. A token's bits do not depend on the batch.
TEST(MoeLayerWorkspace, ServesBatchesOfAllSizes) {
  BRAID_NEEDS_CUDA();
  for (const WeightFormat format :
       {WeightFormat::kFp8Block128, WeightFormat::kBf16, WeightFormat::kNvfp4}) {
    MoeSizes sizes = kManyDeep;
    sizes.weight_format = format;
    LayerProblem problem({.num_tokens = 700,
                          .sizes = sizes,
                          .ranks = {16, 40, 8, 16},
                          .layouts = {kPerExpert, kPerExpert, kOneA, kSharedOuter}},
                         13);
    const Stream stream;
    std::vector<Bf16> want[2];
    problem.run();
    want[1] = problem.download_y();
    problem.run(/*with_lora=*/false);
    want[0] = problem.download_y();
    int launches = 0;
    for (const int32_t tokens : {3, 700, 40, 1, 257, 7, 200, 8, 5, 96, 4, 300, 16, 30, 2, 64}) {
      const bool with_lora = launches++ % 4 != 3;
      kernels::MoeLayerParams p = problem.device_params(with_lora);
      p.num_tokens = tokens;
      const auto plan = kernels::plan_moe_layer(sizes, tokens, with_lora, device_facts().num_sms);
      // Twice without a wait, so that kernels of neighbouring layers overlap.
      for (int i = 0; i < 2; ++i) kernels::launch_moe_layer(p, plan, stream.get());
      stream.wait();
      std::vector<Bf16> got = problem.download_y();
      const auto count = static_cast<size_t>(tokens) * static_cast<size_t>(sizes.hidden_size);
      got.resize(count);
      const std::vector<Bf16>& all = want[with_lora ? 1 : 0];
      ASSERT_EQ(got, std::vector<Bf16>(all.begin(), all.begin() + static_cast<int64_t>(count)))
          << name(format) << ", " << tokens << " tokens " << (with_lora ? "with" : "without")
          << " adapters";
    }
  }
}

// Every token of the batch, not some: tiles are cut by what else is there.
TEST(MoeLargeBatch, HasTheBitsOfTheKernelsOfSmallerOnes) {
  BRAID_NEEDS_CUDA();
  const LayerShape shape = {.num_tokens = 1500,
                            .sizes = kShared,
                            .ranks = {16, 8, 64},
                            .layouts = {kPerExpert, kSharedOuter, kOneA}};
  for (const bool with_lora : {true, false}) {
    LayerProblem large(shape, 12), tiled(shape, 12);
    tiled.tile_tokens = 32;
    ASSERT_TRUE(large.plan(with_lora).large_batch);
    EXPECT_EQ(large.run(with_lora), tiled.run(with_lora));
  }
}

TEST(MoePlanText, NamesTileGuessAndPrefetch) {
  const MoeSizes sizes = {.hidden_size = 2048,
                          .moe_intermediate_size = 512,
                          .num_experts = 256,
                          .num_shared_experts = 1,
                          .top_k = 8};
  const auto plan = [&](int32_t tokens, bool with_adapters) {
    return to_string(kernels::plan_moe_layer(sizes, tokens, with_adapters, 132));
  };
  EXPECT_EQ(plan(1, true), "small batch, tile 8");
  EXPECT_EQ(plan(64, true), "tile 16, 33 experts guessed, 0 prefetched");
  EXPECT_EQ(plan(64, false), "tile 32, 33 experts guessed, 0 prefetched");
  EXPECT_EQ(plan(256, false), "tile 32, 33 experts guessed, 7 prefetched");
  EXPECT_EQ(plan(257, false), "large batch");
  EXPECT_EQ(plan(8192, true), "large batch");
}

TEST(MoePlanText, FormatsWithoutKernelsOfTheirOwnForAFewTokensOrManyTakeTheOthers) {
  const auto plan = [&](WeightFormat format, int32_t tokens, bool with_adapters) {
    const MoeSizes sizes = {.hidden_size = 2048,
                            .moe_intermediate_size = 512,
                            .num_experts = 256,
                            .num_shared_experts = 1,
                            .top_k = 8,
                            .weight_format = format};
    return to_string(kernels::plan_moe_layer(sizes, tokens, with_adapters, 132));
  };
  EXPECT_EQ(plan(WeightFormat::kBf16, 1, true), "tile 8, 0 experts guessed, 0 prefetched");
  EXPECT_EQ(plan(WeightFormat::kBf16, 64, false), "tile 32, 33 experts guessed, 0 prefetched");
  EXPECT_EQ(plan(WeightFormat::kBf16, 8192, false), "tile 64, 0 experts guessed, 3 prefetched");
  // More CTAs share an SM.
  EXPECT_EQ(plan(WeightFormat::kNvfp4, 64, true), "tile 8, 0 experts guessed, 0 prefetched");
  EXPECT_EQ(plan(WeightFormat::kNvfp4, 256, false), "tile 16, 64 experts guessed, 13 prefetched");
  EXPECT_EQ(plan(WeightFormat::kNvfp4, 512, true), "tile 32, 0 experts guessed, 13 prefetched");
}

TEST(MoePlanText, SaysWhatIsLeftToTheSideStream) {
  const auto plan = [&](MoeLoraPlan lora_plan, int32_t tokens, bool with_adapters) {
    return to_string(kernels::plan_moe_layer(kSmall, tokens, with_adapters, 132, lora_plan));
  };
  EXPECT_EQ(plan(MoeLoraPlan::kTwoStream, 2, true),
            "tile 8, 0 experts guessed, 0 prefetched, 96 CTAs left to the side stream");
  EXPECT_EQ(plan(MoeLoraPlan::kSerial, 2, true), "tile 8, 0 experts guessed, 0 prefetched");
  EXPECT_EQ(plan(MoeLoraPlan::kTwoStream, 2, false), "small batch, tile 8");
  // The lanes of a warp list a tile's runs.
  EXPECT_EQ(plan(MoeLoraPlan::kSerial, 8192, true), "tile 32, 0 experts guessed, 8 prefetched");
  // Large batches leave no gaps to a side stream.
  EXPECT_EQ(plan(MoeLoraPlan::kTwoStream, 257, true), "tile 32, 0 experts guessed, 8 prefetched");
}

TEST(MoePlanAuto, TakesTheMeasuredPlan) {
  const auto plan = [](int32_t hidden_size, int32_t width, int32_t tokens) {
    const MoeSizes sizes = {.hidden_size = hidden_size,
                            .moe_intermediate_size = width,
                            .num_experts = 64,
                            .num_shared_experts = 1,
                            .top_k = 8};
    return kernels::plan_moe_layer(sizes, tokens, true, 132).lora_plan;
  };
  EXPECT_EQ(plan(2048, 512, 1), MoeLoraPlan::kFused);
  EXPECT_EQ(plan(2048, 512, 8192), MoeLoraPlan::kFused);
  EXPECT_EQ(plan(7168, 2048, 1), MoeLoraPlan::kTwoStream);
  EXPECT_EQ(plan(7168, 2048, 64), MoeLoraPlan::kFused);
  // Wider than fused can be.
  EXPECT_EQ(plan(2048, 4096, 256), MoeLoraPlan::kTwoStream);
  EXPECT_EQ(plan(2048, 4096, 257), MoeLoraPlan::kSerial);
}

TEST(MoeLoraPlanLimits, NameThePlanAndWhatItNeeds) {
  const kernels::MoeAdapterSlot adapter;
  kernels::MoeLayerParams p;
  p.sizes = kSmall;
  p.num_tokens = 257;
  kernels::MoePlan plan = {.lora_plan = MoeLoraPlan::kTwoStream};
  EXPECT_EQ(why_unsupported(p, plan), "");
  p.adapters = &adapter;
  EXPECT_EQ(why_unsupported(p, plan),
            "num_tokens = 257 with LoRA plan two-stream, need at most 256");
  plan.large_batch = true;
  plan.lora_plan = MoeLoraPlan::kSerial;
  EXPECT_EQ(why_unsupported(p, plan), "a large batch with LoRA plan serial, need fused");
  plan = {.small_batch = true, .lora_plan = MoeLoraPlan::kTwoStream};
  p.num_tokens = 2;
  EXPECT_EQ(why_unsupported(p, plan), "a small batch with LoRA plan two-stream, need fused");
  plan.lora_plan = MoeLoraPlan::kFused;
  EXPECT_EQ(why_unsupported(p, plan), "");
  p.sizes.moe_intermediate_size = 2176;
  EXPECT_EQ(why_unsupported(p, plan),
            "moe_intermediate_size = 2176 with LoRA plan fused, need at most 2048");
  p.sizes = kSmall;
  alignas(1024) std::byte memory[1024];
  p.workspace = kernels::moe_workspace(kSmall, 2, 1, 8, memory, nullptr);
  plan = {.lora_plan = MoeLoraPlan::kSerial};
  EXPECT_EQ(why_unsupported(p, plan), "LoRA plan serial, the workspace is for fused");
  p.workspace = kernels::moe_workspace(kSmall, 2, 1, 8, memory, nullptr, MoeLoraPlan::kTwoStream);
  EXPECT_EQ(why_unsupported(p, plan), "");
  plan.lora_plan = MoeLoraPlan::kFused;
  EXPECT_EQ(why_unsupported(p, plan),
            "LoRA plan fused, the workspace is for two-stream and serial");
}

TEST(MoeLayerLimits, APlanForOtherTokensIsRefused) {
  kernels::MoePlan plan = kernels::plan_moe_layer(kSmall, 1, true, 132);
  ASSERT_TRUE(plan.small_batch);
  kernels::MoeLayerParams p;
  p.sizes = kSmall;
  p.num_tokens = 9;
  EXPECT_EQ(why_unsupported(p, plan), "num_tokens = 9 in a small batch, need at most 8");
  p.num_tokens = 8;
  p.sizes.hidden_size = 8192;
  EXPECT_EQ(why_unsupported(p, plan), "hidden_size = 8192 in a small batch, need at most 4096");
}

TEST(MoeLayerLimits, NameTheFieldTheValueAndTheRemedy) {
  kernels::MoeLayerParams p;
  p.sizes = kSmall;
  EXPECT_EQ(why_unsupported(p), "");
  p.sizes.hidden_size = 200;
  EXPECT_EQ(why_unsupported(p), "hidden_size = 200, need a multiple of 128 up to 8192");
  p.sizes = kSmall;
  p.sizes.top_k = 9;
  EXPECT_EQ(why_unsupported(p), "top_k = 9, need 1 to 16 and at most num_experts = 8");
  p.sizes = kSmall;
  p.num_expert_groups = 3;
  EXPECT_EQ(why_unsupported(p),
            "num_expert_groups = 3, need a divisor of num_experts = 8 up to 32");
}

TEST(MoeLayerRouter, SkipsPairsWithoutExpert) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tokens : {1, 6, 50}) {
    LayerProblem problem({.num_tokens = tokens, .sizes = kSmall, .ranks = {16}}, 5);
    for (int32_t t = 0; t < tokens; ++t) {
      // Token 0 has no expert at all.
      problem.replay_ids.push_back(t % 3 == 0 ? kNoExpert : t % 4);
      problem.replay_ids.push_back(t == 0 ? kNoExpert : 4 + t % 4);
    }
    problem.run();
    EXPECT_EQ(problem.why_wrong(), "");
  }
}

TEST(MoeLayerRouter, SigmoidBiasGroups) {
  BRAID_NEEDS_CUDA();
  for (const int32_t tokens : {3, 70, 300}) {
    LayerProblem problem({.num_tokens = tokens,
                          .sizes = {.hidden_size = 128,
                                    .moe_intermediate_size = 128,
                                    .num_experts = 32,
                                    .num_shared_experts = 1,
                                    .top_k = 4}},
                         6);
    std::mt19937 random(7);
    problem.bias = random_floats(random, 32, 0.2f);
    problem.router.scoring = kernels::RouterScoring::kSigmoid;
    problem.router.num_expert_groups = 8;
    problem.router.topk_groups = 3;
    problem.router.routed_scaling = 2.5f;
    problem.run();
    EXPECT_EQ(problem.why_wrong(), "");
  }
}

TEST(MoeLayerRouter, TiesGoToTheLowestExpert) {
  BRAID_NEEDS_CUDA();
  LayerProblem problem({.num_tokens = 3, .sizes = kShared}, 8);
  std::fill(problem.logits.begin(), problem.logits.end(), 0.5f);
  problem.router.norm_topk_prob = false;
  problem.run();
  EXPECT_EQ(problem.why_wrong(), "");
}

}  // namespace
}  // namespace braid::test
