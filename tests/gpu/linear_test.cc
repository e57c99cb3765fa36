// launch_linear against sums in double, and every plan against every other.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/ids.h"
#include "kernels/linear/pack.h"
#include "tests/gpu/linear_problem.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

using kernels::LinearBf16Params;
using kernels::LinearPlan;
using kernels::LinearShape;
using enum WeightFormat;

struct Case {
  const char* name;
  LinearCase linear;
  int32_t token_step = 1;
};

void PrintTo(const Case& test, std::ostream* out) { *out << test.name; }

LinearShape one(WeightFormat format, int32_t in, int32_t out) {
  return {.format = format, .in = in, .slice_out = {out}};
}
LinearShape qkv(WeightFormat format, int32_t in, int32_t q, int32_t kv) {
  return {.format = format, .in = in, .num_slices = 3, .slice_out = {q, kv, kv}};
}

class Linear : public testing::TestWithParam<Case> {};

TEST_P(Linear, MatchesReferenceWithEveryPlan) {
  BRAID_NEEDS_CUDA();
  LinearProblem problem(GetParam().linear, /*seed=*/1);
  const std::vector<float> want =
      problem.run(plan_linear(problem.test.shape, problem.test.num_tokens));
  EXPECT_EQ(problem.why_wrong(want, true, GetParam().token_step), "");
  for (const LinearPlan& plan : problem.plans())
    EXPECT_EQ(problem.run(plan), want) << to_string(problem.test.shape, plan);
}

TEST_P(Linear, GivesTheSameBitsTwiceAndWithoutAdaptersInTheBatch) {
  BRAID_NEEDS_CUDA();
  LinearProblem problem(GetParam().linear, /*seed=*/2);
  const LinearPlan plan = plan_linear(problem.test.shape, problem.test.num_tokens);
  const std::vector<float> first = problem.run(plan), base = problem.run(plan, false);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(problem.run(plan), first);
  const auto out = static_cast<size_t>(problem.test.shape.out());
  for (size_t t = 0; t < problem.slots.size(); ++t) {
    if (problem.slots[t] != kNoAdapter) continue;
    EXPECT_TRUE(std::equal(&first[t * out], &first[(t + 1) * out], &base[t * out])) << t;
  }
}

TEST_P(Linear, GivesATokenTheSameBitsAlone) {
  BRAID_NEEDS_CUDA();
  LinearProblem batch(GetParam().linear, /*seed=*/3);
  const std::vector<float> y = batch.run(plan_linear(batch.test.shape, batch.test.num_tokens));
  const auto out = static_cast<size_t>(batch.test.shape.out());
  for (const int32_t t : {0, batch.test.num_tokens / 2, batch.test.num_tokens - 1}) {
    LinearProblem alone(GetParam().linear, /*seed=*/3);
    alone.keep_token(t);
    alone.upload();
    const std::vector<float> want = alone.run(plan_linear(alone.test.shape, 1));
    EXPECT_TRUE(std::equal(want.begin(), want.end(), &y[static_cast<size_t>(t) * out])) << t;
  }
}

const Case kCases[] = {
    {"smallest_fp8", {.shape = one(kFp8Block128, 16, 8)}},
    {"smallest_bf16", {.shape = one(kBf16, 16, 8)}},
    {"ragged_fp8", {.shape = one(kFp8Block128, 576, 200), .num_tokens = 5}},
    {"ragged_bf16", {.shape = one(kBf16, 592, 136), .num_tokens = 21, .float_out = true}},
    {"float_fp8", {.shape = one(kFp8Block128, 384, 136), .num_tokens = 9, .float_out = true}},
    {"small_qkv_fp8",
     {.shape = qkv(kFp8Block128, 576, 576, 192),
      .num_tokens = 11,
      .ranks = {{8, 8, 8}, {16, 0, 16}, {3, 20, 64}}}},
    {"small_qkv_bf16",
     {.shape = qkv(kBf16, 576, 576, 192),
      .num_tokens = 70,
      .ranks = {{8, 8, 8}, {16, 0, 16}, {3, 20, 64}}}},
    {"deep_fp8",
     {.shape = one(kFp8Block128, 4096, 256), .num_tokens = 33, .ranks = {{16}, {256}, {1}}}},
    {"deep_bf16",
     {.shape = one(kBf16, 4096, 128), .num_tokens = 40, .float_out = true, .ranks = {{16}, {64}}}},
    {"one_adapter",
     {.shape = one(kFp8Block128, 1024, 384),
      .num_tokens = 130,
      .ranks = {{32}},
      .base_share = 0.0f}},
    {"an_adapter_each",
     {.shape = qkv(kFp8Block128, 512, 256, 64),
      .num_tokens = 16,
      .ranks = std::vector<std::vector<int32_t>>(40, {16, 8, 24})}},
    {"nothing_adapted", {.shape = one(kBf16, 256, 256), .num_tokens = 6, .ranks = {{0}, {0}}}},
    {"all_base",
     {.shape = one(kFp8Block128, 256, 256),
      .num_tokens = 6,
      .ranks = {{8}, {8}},
      .base_share = 1.0f}},
    {"many_tokens_fp8",
     {.shape = qkv(kFp8Block128, 640, 320, 64),
      .num_tokens = 700,
      .ranks = {{16, 16, 16}, {8, 0, 40}, {64, 64, 64}}},
     7},
    {"many_tokens_bf16",
     {.shape = one(kBf16, 320, 520), .num_tokens = 515, .ranks = {{16}, {8}, {72}}},
     5},
    {"decode_qkv",
     {.shape = qkv(kFp8Block128, 2048, 4096, 512),
      .num_tokens = 16,
      .ranks = std::vector<std::vector<int32_t>>(8, {16, 16, 16})},
     5},
    {"decode_o", {.shape = one(kFp8Block128, 4096, 2048), .num_tokens = 3, .ranks = {{16}}}},
    {"decode_router", {.shape = one(kBf16, 2048, 128), .num_tokens = 64, .float_out = true}},
    {"narrow_bf16",
     {.shape = one(kBf16, 4096, 8), .num_tokens = 20, .float_out = true, .ranks = {{16}, {8}}}},
    {"wide_bf16", {.shape = one(kBf16, 1024, 20000), .num_tokens = 3, .float_out = true}},
};
INSTANTIATE_TEST_SUITE_P(Cases, Linear, testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(LinearLora, DeltaAloneIsWithinItsRounding) {
  BRAID_NEEDS_CUDA();
  for (const WeightFormat format : {kFp8Block128, kBf16}) {
    LinearProblem problem({.shape = qkv(format, 1024, 512, 128),
                           .num_tokens = 37,
                           .float_out = true,
                           .ranks = {{16, 16, 16}, {64, 8, 32}, {256, 0, 8}},
                           .weight_size = 0.0f},
                          /*seed=*/4);
    const std::vector<float> y = problem.run(plan_linear(problem.test.shape, 37));
    EXPECT_EQ(problem.why_wrong(y), "");
    EXPECT_LT(problem.error(y), 0x1p-9);
  }
}

TEST(LinearExtremes, LargeTinyAndZeroRows) {
  BRAID_NEEDS_CUDA();
  for (const WeightFormat format : {kFp8Block128, kBf16}) {
    LinearProblem problem({.shape = one(format, 256, 128), .num_tokens = 8, .ranks = {{8}}}, 5);
    for (size_t i = 0; i < 256; ++i) {
      problem.x[i] = Bf16{};
      problem.x[256 + i] = to_bf16(to_float(problem.x[256 + i]) * 1e15f);
      problem.x[512 + i] = to_bf16(to_float(problem.x[512 + i]) * 1e-15f);
      if (i != 77) problem.x[768 + i] = Bf16{};
    }
    problem.upload();
    for (const LinearPlan& plan : problem.plans())
      EXPECT_EQ(problem.why_wrong(problem.run(plan)), "");
  }
}

// As in a model: layers one behind the other share a workspace and overlap, in a graph whose
// adapters change between replays.
TEST(LinearGraph, RunsAgainWithOtherAdapters) {
  BRAID_NEEDS_CUDA();
  LinearProblem problem({.shape = qkv(kFp8Block128, 1024, 512, 128),
                         .num_tokens = 24,
                         .ranks = {{16, 16, 16}, {64, 8, 32}, {8, 0, 8}}},
                        6);
  const LinearPlan plan = plan_linear(problem.test.shape, 24);
  problem.poison();
  const Stream stream;
  const Graph graph = Graph::capture(stream, [&] {
    for (int i = 0; i < 8; ++i) launch_linear(problem.params(), plan, stream.get());
  });
  for (int step = 0; step < 4; ++step) {
    for (size_t t = 0; t < problem.slots.size(); ++t)
      problem.slots[t] = static_cast<int32_t>((t * static_cast<size_t>(step)) % 4) - 1;
    problem.write_order();
    graph.launch(stream);
    stream.wait();
    EXPECT_EQ(problem.why_wrong(problem.download_y()), "") << step;
  }
}

TEST(LinearLaunch, NoTokensLaunchNothing) {
  BRAID_NEEDS_CUDA();
  const Stream stream;
  kernels::launch_linear({.x_stride = 128, .shape = one(kBf16, 128, 128), .y_stride = 128},
                         {.tile_tokens = 8}, stream.get());
  stream.wait();
}

TEST(LinearLaunch, SaysWhatItCannotRun) {
  alignas(128) static uint8_t some[128];
  const LinearBf16Params good = {.x = reinterpret_cast<Bf16*>(some),
                                 .x_stride = 576,
                                 .shape = qkv(kFp8Block128, 576, 576, 192),
                                 .weights = some,
                                 .y = reinterpret_cast<Bf16*>(some),
                                 .y_stride = 960,
                                 .num_tokens = 4};
  const auto why = [&](auto change) {
    LinearBf16Params p = good;
    change(p);
    return why_unsupported(p);
  };
  EXPECT_EQ(why([](auto&) {}), "");
  EXPECT_EQ(why([](auto& p) { p.shape.in = 570; }), "shape.in = 570, need a multiple of 16");
  EXPECT_EQ(why([](auto& p) { p.shape.slice_out[1] = 100; }),
            "shape.slice_out[1] = 100, need a multiple of 64");
  EXPECT_EQ(why([](auto& p) { p.shape.num_slices = 2; }),
            "shape.slice_out[2] = 192, need 0 behind the last slice");
  EXPECT_EQ(why([](auto& p) { p.x_stride = 568; }),
            "x_stride = 568, need a multiple of 8 from shape.in = 576 on");
  EXPECT_EQ(why([](auto& p) { p.y_stride = 964; }),
            "y_stride = 964, need a multiple of 8 from shape.out() = 960 on");
  EXPECT_EQ(why([](auto& p) { p.weights = some + 1; }), "weights is null or not 128-byte aligned");
  EXPECT_EQ(why([](auto& p) { p.y = nullptr; }), "need one of y and y_float");
  EXPECT_EQ(
      why([](auto& p) { p.adapters = reinterpret_cast<const kernels::LinearAdapterSlot*>(some); }),
      "order has no token_of_row, run_of_row, runs or num_runs");
  EXPECT_EQ(why_unsupported(good, {.tile_tokens = 24}), "tile_tokens = 24, need 8, 16, 32 or 64");
  EXPECT_EQ(why_unsupported(good, {.tile_tokens = 64}),
            "num_tokens = 4 and shape.in = 576, need at most workspace's 0 and 0");
  EXPECT_THROW(launch_linear(good, {.tile_tokens = 24}, nullptr), InternalError);
}

}  // namespace
}  // namespace braid::test
