// launch_linear against sums in double, and every plan against every other.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

#include "base/check.h"
#include "base/ids.h"
#include "kernels/linear/pack.h"
#include "tests/gpu/device_bytes.h"
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

// Empty where all bits are equal, otherwise how many outputs differ, of how many tokens and
// columns, and which is the first and the last.
std::string difference(const std::vector<float>& y, const std::vector<float>& want, int32_t out) {
  if (y.size() != want.size()) return fmt::format("{} outputs, not {}", y.size(), want.size());
  size_t count = 0, first = 0, last = 0;
  std::set<size_t> tokens, columns;
  for (size_t i = 0; i < y.size(); ++i) {
    if (std::bit_cast<uint32_t>(y[i]) == std::bit_cast<uint32_t>(want[i])) continue;
    if (count++ == 0) first = i;
    last = i;
    tokens.insert(i / static_cast<size_t>(out)), columns.insert(i % static_cast<size_t>(out));
  }
  if (count == 0) return "";
  const auto at = [&](size_t i) {
    return fmt::format("token {}, output {}: {}, not {}", i / static_cast<size_t>(out),
                       i % static_cast<size_t>(out), y[i], want[i]);
  };
  return fmt::format("{} outputs of {} tokens and {} columns differ, from {} to {}", count,
                     tokens.size(), columns.size(), at(first), at(last));
}

template <class T>
void write_file(const std::string& path, const std::vector<T>& values) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(T)));
}

// What a wrong result of a run that has just ended came from, for failures that are too rare to be
// looked at when they come: whether the copy to the host was wrong or what it copied, and, where
// BRAID_KEEP_WRONG names a directory, y, want and the workspace from the image of x on in files.
std::string keep_wrong(const LinearProblem& problem, const std::vector<float>& y,
                       const std::vector<float>& want) {
  const std::string again = difference(problem.download_y(), y, problem.test.shape.out());
  const char* const directory = std::getenv("BRAID_KEEP_WRONG");
  if (directory != nullptr) {
    const std::string path = fmt::format("{}/linear_{}", directory, getpid());
    write_file(path + ".y", y);
    write_file(path + ".want", want);
    const kernels::LinearWorkspace w = problem.params().workspace;
    const auto* const end =
        reinterpret_cast<const uint8_t*>(w.u_octets + int64_t{w.max_tokens} * w.max_total_rank);
    write_file(path + ".workspace", device_bytes(w.x_image, static_cast<size_t>(end - w.x_image)));
  }
  return again.empty() ? ", and copied once more the same" : ", and copied once more: " + again;
}

class Linear : public testing::TestWithParam<Case> {};

TEST_P(Linear, MatchesReferenceWithEveryPlan) {
  BRAID_NEEDS_CUDA();
  LinearProblem problem(GetParam().linear, /*seed=*/1);
  const std::vector<float> want =
      problem.run(plan_linear(problem.test.shape, problem.test.num_tokens));
  EXPECT_EQ(problem.why_wrong(want, true, GetParam().token_step), "");
  for (const LinearPlan& plan : problem.plans()) {
    const std::vector<float> y = problem.run(plan);
    const std::string why = difference(y, want, problem.test.shape.out());
    if (!why.empty()) {
      ADD_FAILURE() << to_string(problem.test.shape, plan) << ": " << why
                    << keep_wrong(problem, y, want);
    }
  }
}

TEST_P(Linear, GivesTheSameBitsTwiceAndWithoutAdaptersInTheBatch) {
  BRAID_NEEDS_CUDA();
  LinearProblem problem(GetParam().linear, /*seed=*/2);
  const LinearPlan plan = plan_linear(problem.test.shape, problem.test.num_tokens);
  const std::vector<float> first = problem.run(plan), base = problem.run(plan, false);
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(difference(problem.run(plan), first, problem.test.shape.out()), "");
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

// More tiles than CTAs fit at once, whatever the plan.
const LinearCase kWaves = {.shape = qkv(kFp8Block128, 2048, 4096, 512),
                           .num_tokens = 1025,
                           .ranks = {{16, 16, 16}, {64, 64, 64}}};

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
    // Large batches: tiles of 128 tokens and pairs of 128 rows, neither filled.
    {"large_qkv",
     {.shape = qkv(kFp8Block128, 576, 576, 192),
      .num_tokens = 257,
      .ranks = {{8, 8, 8}, {16, 0, 16}, {3, 20, 64}}},
     7},
    {"large_base", {.shape = one(kFp8Block128, 2048, 456), .num_tokens = 300}, 11},
    {"large_one_adapter",
     {.shape = one(kFp8Block128, 4096, 328),
      .num_tokens = 511,
      .ranks = {{16}},
      .base_share = 0.0f},
     23},
    {"large_eight_adapters",
     {.shape = qkv(kFp8Block128, 1024, 448, 64),
      .num_tokens = 640,
      .ranks = {{8, 8, 8},
                {16, 16, 16},
                {24, 24, 24},
                {64, 64, 64},
                {0, 8, 0},
                {0, 0, 0},
                {256, 0, 8},
                {8, 64, 24}}},
     17},
    {"large_float",
     {.shape = one(kFp8Block128, 1040, 72),
      .num_tokens = 1025,
      .float_out = true,
      .ranks = {{24}, {64}, {8}}},
     13},
    {"large_an_adapter_each",
     {.shape = qkv(kFp8Block128, 512, 256, 64),
      .num_tokens = 300,
      .ranks = std::vector<std::vector<int32_t>>(290, {16, 8, 24}),
      .base_share = 0.1f},
     9},
    {"large_waves", kWaves, 101},
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

// On a busy SM reads of shared memory are under way for long. Before stages were given back behind
// a fence, half of the runs with tiles of 32 tokens had scales of a stage's next tile in some
// places, and one in 25 with tiles of 64.
TEST(LinearWaves, ReadAStageBeforeItIsFilledAgain) {
  BRAID_NEEDS_CUDA();
  LinearProblem problem(kWaves, /*seed=*/1);
  const std::vector<float> want = problem.run({.large_batch = true});
  for (const int32_t tile : {32, 64}) {
    for (int i = 0; i < 12; ++i) {
      EXPECT_EQ(difference(problem.run({.tile_tokens = tile}), want, problem.test.shape.out()), "")
          << "tile " << tile << ", run " << i;
    }
  }
}

TEST(LinearLora, DeltaAloneIsWithinItsRounding) {
  BRAID_NEEDS_CUDA();
  for (const WeightFormat format : {kFp8Block128, kBf16}) {
    LinearProblem problem({.shape = qkv(format, 1024, 512, 128),
                           .num_tokens = 37,
                           .float_out = true,
                           .ranks = {{16, 16, 16}, {64, 8, 32}, {256, 0, 8}},
                           .weight_size = 0.0f},
                          /*seed=*/4);
    for (const LinearPlan& plan : problem.plans()) {
      const std::vector<float> y = problem.run(plan);
      EXPECT_EQ(problem.why_wrong(y), "") << to_string(problem.test.shape, plan);
      EXPECT_LT(problem.error(y), 0x1p-9);
    }
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
  for (const int32_t num_tokens : {24, 300}) {
    LinearProblem problem({.shape = qkv(kFp8Block128, 1024, 512, 128),
                           .num_tokens = num_tokens,
                           .ranks = {{16, 16, 16}, {64, 8, 32}, {8, 0, 8}}},
                          6);
    const LinearPlan plan = plan_linear(problem.test.shape, num_tokens);
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
      EXPECT_EQ(problem.why_wrong(problem.download_y(), true, num_tokens / 24), "")
          << num_tokens << " tokens, step " << step;
    }
  }
}

// Large and small batches take turns on one workspace, in which the words of the one must not be
// taken for those of the other.
TEST(LinearGraph, PlansShareAWorkspace) {
  BRAID_NEEDS_CUDA();
  LinearProblem problem(
      {.shape = one(kFp8Block128, 1024, 200), .num_tokens = 300, .ranks = {{16}, {8}}}, 7);
  const std::vector<float> want = problem.run({.large_batch = true});
  problem.poison();
  const Stream stream;
  for (int i = 0; i < 3; ++i) {
    for (const LinearPlan& plan : problem.plans()) {
      launch_linear(problem.params(), plan, stream.get());
      stream.wait();
      EXPECT_EQ(problem.download_y(), want) << to_string(problem.test.shape, plan);
    }
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
  EXPECT_EQ(why_unsupported(good, {.large_batch = true}),
            "num_tokens = 4 and shape.in = 576, need at most workspace's 0 and 0");
  LinearBf16Params bf16 = good;
  bf16.shape.format = kBf16;
  EXPECT_EQ(why_unsupported(bf16, {.large_batch = true}),
            "large_batch is set, need FP8 weights, not bf16");
  EXPECT_THROW(launch_linear(good, {.tile_tokens = 24}, nullptr), InternalError);
}

TEST(LinearPlans, LargeBatchesAreOfFp8) {
  const LinearShape fp8 = one(kFp8Block128, 2048, 2048), bf16 = one(kBf16, 2048, 128);
  EXPECT_FALSE(plan_linear(fp8, 256).large_batch);
  EXPECT_TRUE(plan_linear(fp8, 257).large_batch);
  EXPECT_FALSE(plan_linear(bf16, 8192).large_batch);
  EXPECT_EQ(to_string(fp8, plan_linear(fp8, 257)), "large batch, 8 parts");
}

}  // namespace
}  // namespace braid::test
