// A request's tokens and log probabilities are the same bits alone and among others, whatever the
// scheduler does with it. The toy model turns any mix-up of KV blocks or adapters into other
// tokens.

#include <gtest/gtest.h>

#include <random>

#include "tests/engine/toy_engine.h"

namespace braid::test {
namespace {

// Prompts that share starts, so that the prefix cache hits; every sampling feature on some.
std::vector<ToyRequest> mixed_requests(int32_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<ToyRequest> requests;
  for (int32_t i = 0; i < count; ++i) {
    ToyRequest r;
    const auto length = 1 + static_cast<int32_t>(random() % 40);
    for (int32_t t = 0; t < length; ++t)
      r.request.prompt.push_back(t < 24 ? t * 3 % 89 : static_cast<int32_t>(random() % 97));
    if (i % 5 != 0) r.adapter = toy_adapter(i % 5);
    r.request.priority = i % 4 == 0 ? i % 3 - 1 : 0;
    auto& s = r.request.sampling;
    s.max_tokens = 1 + static_cast<int32_t>(random() % 24);
    s.temperature = i % 3 == 0 ? 0.0f : 1.0f;
    s.seed = random();
    s.top_k = i % 4 == 1 ? 20 : 0;
    s.top_p = i % 4 == 2 ? 0.8f : 1.0f;
    s.min_p = i % 4 == 3 ? 0.05f : 0.0f;
    s.repetition_penalty = i % 2 ? 1.3f : 1.0f;
    s.presence_penalty = i % 3 == 1 ? 0.5f : 0.0f;
    s.frequency_penalty = i % 7 == 1 ? 0.5f : 0.0f;
    s.min_tokens = std::min(i % 6, s.max_tokens);
    if (i % 2) s.stop_token_ids = {5, 50};
    if (i % 3 == 2) s.stop = {"ab", "xyz", "q"};
    s.logprobs = i % 4;
    if (i % 4 == 1) s.prompt_logprobs = 2;
    requests.push_back(r);
  }
  return requests;
}

void expect_same_as_alone(const ToyOptions& options, const std::vector<ToyRequest>& requests,
                          EngineStats* stats = nullptr, int rounds = 1) {
  const auto engine = make_toy_engine(options);
  for (int round = 0; round < rounds; ++round) {
    const auto replies = run_all(*engine, requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(why_different(replies[i], run_alone(requests[i], options)), "")
          << "request " << i << " in round " << round;
    }
  }
  const auto end = engine->stats();
  EXPECT_EQ(end.running + end.queued, 0);
  EXPECT_EQ(end.kv_blocks_used, 0);
  if (stats != nullptr) *stats = end;
}

TEST(BatchInvariance, SixteenRequestsOverBaseAndFourAdapters) {
  expect_same_as_alone({.prefix_caching = false}, mixed_requests(16, 1));
}

TEST(BatchInvariance, WithPrefixCacheHits) {
  EngineStats stats;
  expect_same_as_alone({}, mixed_requests(16, 2), &stats, 2);
  EXPECT_GT(stats.cached_tokens, 100);
}

TEST(BatchInvariance, WithChunksOfOddSizes) {
  for (const int32_t tokens : {16, 17, 19, 23, 31}) {
    SCOPED_TRACE(tokens);
    expect_same_as_alone({.max_batch_tokens = tokens}, mixed_requests(16, tokens));
  }
}

TEST(BatchInvariance, WithBlocksOfAnySize) {
  for (const int32_t size : {1, 3, 16}) {
    SCOPED_TRACE(size);
    expect_same_as_alone({.max_batch_tokens = 21, .block_size = size, .num_blocks = 1024 / size},
                         mixed_requests(16, size), nullptr, 2);
  }
}

TEST(BatchInvariance, UnderPreemption) {
  EngineStats stats;
  // 64 tokens at most a request: the cache holds hardly more than one of them.
  expect_same_as_alone({.max_batch_tokens = 20, .num_blocks = 20}, mixed_requests(24, 3), &stats);
  EXPECT_GT(stats.preemptions, 0);
  expect_same_as_alone({.max_batch_tokens = 20, .num_blocks = 20, .prefix_caching = false},
                       mixed_requests(24, 4), &stats);
  EXPECT_GT(stats.preemptions, 0);
}

TEST(BatchInvariance, WithFewerSlotsThanAdapters) {
  for (const int32_t slots : {1, 2, 3}) {
    SCOPED_TRACE(slots);
    expect_same_as_alone({.max_adapters = slots}, mixed_requests(24, slots), nullptr, 2);
  }
}

TEST(BatchInvariance, WhateverTheLimits) {
  std::mt19937 random(7);
  for (uint64_t seed = 100; seed < 140; ++seed) {
    SCOPED_TRACE(seed);
    ToyOptions options;
    options.max_running = 1 + static_cast<int32_t>(random() % 8);
    options.max_batch_tokens = options.max_running + static_cast<int32_t>(random() % 40);
    options.block_size = 1 + static_cast<int32_t>(random() % 8);
    options.num_blocks = 72 / options.block_size + 1 + static_cast<int32_t>(random() % 30);
    options.prefix_caching = random() % 4 != 0;
    options.max_adapters = 1 + static_cast<int32_t>(random() % 4);
    options.max_running_per_adapter = static_cast<int32_t>(random() % 3);
    expect_same_as_alone(options, mixed_requests(12, seed), nullptr, 2);
  }
}

}  // namespace
}  // namespace braid::test
