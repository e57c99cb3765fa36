// Sampling on the device against the host's sampler, which picks by the same rules.

#include "kernels/sampling/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/sampling/logprobs.h"
#include "tests/gpu/sampling_problem.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

using kernels::SamplingStatus;

// The first row that is wrong, and how many are.
std::string why_wrong(const SamplingBatch& batch, const std::vector<SamplingResult>& results) {
  std::string first;
  int num_wrong = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string why = why_wrong(batch.rows()[i], results[i]);
    if (why.empty()) continue;
    if (num_wrong++ == 0) first = "row " + std::to_string(i) + ": " + why;
  }
  return num_wrong == 0 ? "" : std::to_string(num_wrong) + " rows are wrong, " + first;
}

std::vector<SamplingCase> random_cases(uint32_t seed, int32_t vocab_size, int32_t count) {
  std::mt19937 random(seed);
  std::vector<SamplingCase> rows;
  for (int32_t i = 0; i < count; ++i) rows.push_back(random_case(random, vocab_size));
  return rows;
}

struct Size {
  int32_t vocab_size, num_rows;
};
class Sampling : public testing::TestWithParam<Size> {};

TEST_P(Sampling, PicksWhatTheHostPicks) {
  BRAID_NEEDS_CUDA();
  const auto [vocab_size, num_rows] = GetParam();
  SamplingBatch batch(random_cases(static_cast<uint32_t>(vocab_size), vocab_size, num_rows));
  const auto results = batch.run();
  EXPECT_EQ(why_wrong(batch, results), "");
  const std::vector<int32_t> newest = batch.newest_tokens();
  for (size_t i = 0; i < results.size(); ++i)
    EXPECT_EQ(newest[i], batch.rows()[i].samples ? results[i].sampled.token : -1);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Sampling,
                         testing::Values(Size{1, 200}, Size{2, 500}, Size{3, 500}, Size{17, 1000},
                                         Size{127, 1000}, Size{128, 1000}, Size{129, 1000},
                                         Size{1000, 1000}, Size{4099, 1000}, Size{16384, 300},
                                         Size{32000, 200}, Size{151936, 60}, Size{201090, 20},
                                         Size{262143, 10}, Size{262144, 10}),
                         [](const auto& test) {
                           return "V" + std::to_string(test.param.vocab_size) + "_L" +
                                  std::to_string(test.param.num_rows);
                         });

TEST(Sampling, CountsWhatItPicks) {
  BRAID_NEEDS_CUDA();
  auto rows = random_cases(7, 300, 200);
  for (SamplingCase& row : rows) {
    row.params.frequency_penalty = 0.4f;
    row.params.repetition_penalty = 1.1f;
    row.params.min_tokens = 0;
    row.samples = true;
  }
  SamplingBatch batch(rows);
  for (int step = 0; step < 5; ++step) {
    const auto results = batch.run();
    for (size_t i = 0; i < rows.size(); ++i) {
      ASSERT_EQ(why_wrong(rows[i], results[i]), "") << "row " << i << " in step " << step;
      if (results[i].sampled.status == SamplingStatus::kOk)
        rows[i].reply.push_back(results[i].sampled.token);
    }
  }
}

TEST(Sampling, GivesARowTheSameBitsAloneAndAgain) {
  BRAID_NEEDS_CUDA();
  const auto rows = random_cases(11, 5003, 200);
  const auto together = SamplingBatch(rows).run();
  EXPECT_EQ(SamplingBatch(rows).run(), together);
  auto reversed = rows;
  std::ranges::reverse(reversed);
  auto results = SamplingBatch(reversed).run();
  std::ranges::reverse(results);
  EXPECT_EQ(results, together);
  for (size_t i = 0; i < rows.size(); i += 7)
    EXPECT_EQ(SamplingBatch({rows[i]}).run(), std::vector{together[i]}) << "row " << i;
}

TEST(Sampling, RunsInAGraph) {
  BRAID_NEEDS_CUDA();
  auto rows = random_cases(13, 1000, 50);
  for (SamplingCase& row : rows) {  // counts would differ from replay to replay
    row.params.repetition_penalty = 1;
    row.params.presence_penalty = row.params.frequency_penalty = 0;
  }
  const SamplingBatch batch(rows);
  const Stream stream;
  const Graph graph = Graph::capture(stream, [&] { batch.enqueue(stream); });
  for (int replay = 0; replay < 3; ++replay) {
    graph.launch(stream);
    stream.wait();
    EXPECT_EQ(why_wrong(batch, batch.download()), "");
  }
}

// Pearson's statistic of draws at many positions.
TEST(Sampling, DrawsFromTheDistribution) {
  BRAID_NEEDS_CUDA();
  constexpr int32_t kVocab = 40, kRows = 1000, kLaunches = 30;
  SamplingCase row;
  double total = 0;
  for (int32_t id = 0; id < kVocab; ++id)
    row.logits.push_back(0.05f * static_cast<float>(id % 13) - 0.02f * static_cast<float>(id));
  row.params.temperature = 0.7f;
  for (const float x : row.logits) total += std::exp(x / 0.7);
  std::vector<int> counts(kVocab, 0);
  for (int launch = 0; launch < kLaunches; ++launch) {
    std::vector<SamplingCase> rows(kRows, row);
    for (int32_t i = 0; i < kRows; ++i) {
      rows[static_cast<size_t>(i)].params.seed = static_cast<uint64_t>(launch % 3);
      rows[static_cast<size_t>(i)].position = launch * kRows + i;
    }
    for (const SamplingResult& result : SamplingBatch(rows).run())
      ++counts.at(static_cast<size_t>(result.sampled.token));
  }
  double chi_square = 0;
  for (size_t id = 0; id < counts.size(); ++id) {
    const double expected = kRows * kLaunches * std::exp(row.logits[id] / 0.7) / total;
    chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
  }
  // 39 degrees of freedom: mean 39, standard deviation 8.8; five of them.
  EXPECT_LT(chi_square, 39 + 5 * 8.8);
  EXPECT_GT(chi_square, 39 - 3.5 * 8.8);
}

TEST(Sampling, NamesWhatIsUnsupported) {
  alignas(16) float logits[8] = {};
  kernels::SamplingRow row;
  kernels::SampledToken token;
  const kernels::SampleParams good = {.logits = logits,
                                      .logits_stride = 8,
                                      .rows = &row,
                                      .sampled = &token,
                                      .scratch = logits,
                                      .num_rows = 1,
                                      .vocab_size = 7};
  EXPECT_EQ(why_unsupported(good), "");
  const auto expect_named = [&](const char* field, auto change) {
    kernels::SampleParams p = good;
    change(p);
    EXPECT_NE(why_unsupported(p).find(field), std::string::npos) << why_unsupported(p);
    EXPECT_THROW(kernels::launch_sample(p, nullptr), InternalError);
  };
  expect_named("num_rows", [](auto& p) { p.num_rows = -1; });
  expect_named("vocab_size", [](auto& p) { p.vocab_size = 0; });
  expect_named("vocab_size", [](auto& p) { p.vocab_size = kernels::kMaxSamplingVocab + 1; });
  expect_named("logits_stride", [](auto& p) { p.logits_stride = 4; });
  expect_named("logits_stride", [](auto& p) { p.logits_stride = 9; });
  expect_named("logits", [](auto& p) { p.logits = nullptr; });
  expect_named("logits is not aligned", [](auto& p) { ++p.logits; });
  expect_named("scratch is not aligned", [&](auto& p) { p.scratch = logits + 1; });
  expect_named("rows", [](auto& p) { p.rows = nullptr; });
  expect_named("scratch", [](auto& p) { p.scratch = nullptr; });
  expect_named("sampled", [](auto& p) { p.sampled = nullptr; });
  EXPECT_NE(
      why_unsupported(kernels::LogprobParams{
                          .logits = logits, .logits_stride = 8, .num_rows = 1, .vocab_size = 7})
          .find("rows"),
      std::string::npos);
  EXPECT_NE(
      why_unsupported(kernels::CountSeenParams{.num_prompt = 2, .num_tokens = 1, .vocab_size = 7})
          .find("num_prompt"),
      std::string::npos);
  EXPECT_THROW(kernels::launch_logprobs({.vocab_size = 0}, nullptr), InternalError);
  EXPECT_THROW(kernels::launch_count_seen({.vocab_size = 7}, nullptr), InternalError);
}

}  // namespace
}  // namespace braid::test
