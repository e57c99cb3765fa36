#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace braid {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t sample(const SamplingParams& params, std::vector<float> logits, int64_t position = 0,
               const std::vector<int32_t>& prompt = {}, const std::vector<int32_t>& reply = {},
               const std::vector<int32_t>& end_tokens = {}) {
  Sampler sampler(params, prompt, end_tokens);
  for (const int32_t token : reply) sampler.count(token);
  const auto before = logits;
  const auto got = sampler.sample(logits, position, static_cast<int32_t>(reply.size()));
  EXPECT_TRUE(got.has_value());
  EXPECT_EQ(logits, before);
  return got->token;
}

// Every token that many draws give, with its share.
std::map<int32_t, double> shares(const SamplingParams& params, const std::vector<float>& logits) {
  constexpr int kDraws = 20000;
  std::map<int32_t, double> result;
  for (int i = 0; i < kDraws; ++i) result[sample(params, logits, i)] += 1.0 / kDraws;
  return result;
}

std::set<int32_t> kept(const SamplingParams& params, const std::vector<float>& logits) {
  std::set<int32_t> result;
  for (const auto& [token, share] : shares(params, logits)) result.insert(token);
  return result;
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  EXPECT_EQ(sample({.temperature = 0}, {1, 5, 5, 2}), 1);
}

TEST(Sampler, DrawsFromTheSoftmax) {
  const auto got = shares({}, {std::log(1.0f), std::log(2.0f), std::log(5.0f)});
  // Five standard deviations of a share: 5 * sqrt(0.25 / 20000).
  EXPECT_NEAR(got.at(0), 1.0 / 8, 0.018);
  EXPECT_NEAR(got.at(1), 2.0 / 8, 0.018);
  EXPECT_NEAR(got.at(2), 5.0 / 8, 0.018);
}

TEST(Sampler, TemperatureSharpens) {
  const auto got = shares({.temperature = 0.5f}, {std::log(1.0f), std::log(3.0f)});
  EXPECT_NEAR(got.at(0), 1.0 / 10, 0.018);  // 1 : 9
}

TEST(Sampler, TinyTemperatureIsGreedy) {
  EXPECT_EQ(kept({.temperature = 1e-30f}, {1, 2, 3}), (std::set<int32_t>{2}));
}

TEST(Sampler, TopKKeepsTheLargestAndTheirEquals) {
  EXPECT_EQ(kept({.top_k = 2}, {0, 1, 2, 1.5f}), (std::set<int32_t>{2, 3}));
  EXPECT_EQ(kept({.top_k = 2}, {0, 1, 2, 1}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(kept({.top_k = 9}, {0, 1}), (std::set<int32_t>{0, 1}));
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.3f),
                                     std::log(0.1f)};
  EXPECT_EQ(kept({.top_p = 0.45f}, logits), (std::set<int32_t>{1}));
  EXPECT_EQ(kept({.top_p = 0.75f}, logits), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(kept({.top_p = 0.85f}, logits), (std::set<int32_t>{0, 1, 2}));  // equals by rising id
  EXPECT_EQ(kept({.top_p = 1e-30f}, {1, 1, 1}), (std::set<int32_t>{0}));
}

TEST(Sampler, MinPIsRelativeToTheLargest) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.3f),
                                     std::log(0.1f)};
  EXPECT_EQ(kept({.min_p = 0.5f}, logits), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(kept({.min_p = 1.0f}, logits), (std::set<int32_t>{1}));
}

TEST(Sampler, TopPWorksOnWhatTopKLeft) {
  // After top_k = 2 the shares are 5/8 and 3/8, so 0.6 is reached by the first alone.
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  EXPECT_EQ(kept({.top_k = 2, .top_p = 0.6f}, logits), (std::set<int32_t>{1}));
  EXPECT_EQ(kept({.top_p = 0.6f}, logits), (std::set<int32_t>{1, 2}));
}

TEST(Sampler, BiasMovesATokenInAndOut) {
  EXPECT_EQ(sample({.temperature = 0, .logit_bias = {{0, 100.0f}}}, {1, 5, 5}), 0);
  EXPECT_EQ(sample({.temperature = 0, .logit_bias = {{1, -100.0f}}}, {1, 5, 4}), 2);
  EXPECT_EQ(sample({.temperature = 0, .logit_bias = {{0, 2.0f}, {0, 3.0f}}}, {1, 5, 4}), 0);
}

TEST(Sampler, RepetitionPenaltyCoversPromptAndReply) {
  const SamplingParams params = {.temperature = 0, .repetition_penalty = 2.0f};
  EXPECT_EQ(sample(params, {4, 3, 1}, 0, {0}), 1);        // 4 / 2 < 3
  EXPECT_EQ(sample(params, {4, 3, 1}, 0, {0}, {1}), 0);   // both halved
  EXPECT_EQ(sample(params, {-1, -1.5f, -9}, 0, {0}), 1);  // -1 * 2 < -1.5
  EXPECT_EQ(sample(params, {4, 3, 1}, 0, {0, 0, 0}), 1);  // once, however often
}

TEST(Sampler, PresenceAndFrequencyCoverTheReply) {
  const SamplingParams presence = {.temperature = 0, .presence_penalty = 1.5f};
  EXPECT_EQ(sample(presence, {4, 3, 1}, 0, {0}), 0);
  EXPECT_EQ(sample(presence, {4, 3, 1}, 0, {}, {0}), 1);
  EXPECT_EQ(sample(presence, {5, 3, 1}, 0, {}, {0, 0, 0}), 0);
  const SamplingParams frequency = {.temperature = 0, .frequency_penalty = 1.0f};
  EXPECT_EQ(sample(frequency, {5, 3, 1}, 0, {}, {0}), 0);
  EXPECT_EQ(sample(frequency, {5, 3, 1}, 0, {}, {0, 0, 0}), 1);
}

TEST(Sampler, MinTokensRulesOutTheEnd) {
  const SamplingParams params = {.temperature = 0, .max_tokens = 4, .min_tokens = 2};
  EXPECT_EQ(sample(params, {9, 1, 0}, 0, {}, {}, {0}), 1);
  EXPECT_EQ(sample(params, {9, 1, 0}, 0, {}, {1}, {0}), 1);
  EXPECT_EQ(sample(params, {9, 1, 0}, 0, {}, {1, 1}, {0}), 0);
}

TEST(Sampler, DependsOnSeedAndPositionAlone) {
  const std::vector<float> logits(50, 0.0f);
  std::set<int32_t> by_seed, by_position;
  for (uint64_t i = 0; i < 64; ++i) {
    by_seed.insert(sample({.seed = i}, logits, 3));
    by_position.insert(sample({.seed = 1}, logits, static_cast<int64_t>(i)));
    EXPECT_EQ(sample({.seed = i}, logits, 3), sample({.seed = i}, logits, 3));
  }
  EXPECT_GT(by_seed.size(), 20u);
  EXPECT_GT(by_position.size(), 20u);
}

TEST(Sampler, NeverDrawsAnImpossibleToken) {
  EXPECT_EQ(kept({}, {-kInfinity, 0, -kInfinity, 0}), (std::set<int32_t>{1, 3}));
}

TEST(Sampler, RefusesBrokenLogits) {
  const SamplingParams params;
  Sampler sampler(params, {}, {});
  for (std::vector<float> logits :
       {std::vector<float>{1, kNan, 2}, std::vector<float>{-kInfinity, -kInfinity},
        std::vector<float>{1, kInfinity}}) {
    const auto got = sampler.sample(logits, 17, 0);
    ASSERT_FALSE(got.has_value());
    EXPECT_EQ(got.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(got.error().message.find("position 17"), std::string::npos);
  }
}

TEST(Sampler, RefusesWhenNothingIsLeft) {
  const SamplingParams params = {.max_tokens = 2, .min_tokens = 1};
  const std::vector<int32_t> all = {0, 1};
  Sampler sampler(params, {}, all);
  std::vector<float> logits = {1, 2};
  EXPECT_FALSE(sampler.sample(logits, 0, 0).has_value());
  EXPECT_EQ(logits, (std::vector<float>{1, 2}));
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
  const SamplingParams params = {
      .temperature = 0, .repetition_penalty = 2.0f, .logit_bias = {{0, 50.0f}}, .logprobs = 1};
  const std::vector<int32_t> prompt = {1};
  Sampler sampler(params, prompt, {});
  std::vector<float> logits = {std::log(1.0f), std::log(7.0f)};
  const auto got = sampler.sample(logits, 0, 0);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->token, 0);
  EXPECT_NEAR(got->logprob->logprob, std::log(1.0 / 8), 1e-6);
  EXPECT_EQ(got->logprob->rank, 2);
  EXPECT_EQ(got->logprob->top.at(0).first, 1);
}

TEST(SamplingParams, NamesWhatIsWrong) {
  const auto expect_named = [](const SamplingParams& params, const std::string& field) {
    EXPECT_NE(why_invalid(params, 10).find(field), std::string::npos) << field;
  };
  EXPECT_EQ(why_invalid({}, 10), "");
  expect_named({.temperature = -1}, "temperature");
  expect_named({.temperature = kNan}, "temperature");
  expect_named({.temperature = kInfinity}, "temperature");
  expect_named({.top_k = -1}, "top_k");
  expect_named({.top_p = 0}, "top_p");
  expect_named({.top_p = kNan}, "top_p");
  expect_named({.min_p = 1.5f}, "min_p");
  expect_named({.repetition_penalty = 0}, "repetition_penalty");
  expect_named({.presence_penalty = 3}, "presence_penalty");
  expect_named({.frequency_penalty = -3}, "frequency_penalty");
  expect_named({.max_tokens = 0}, "max_tokens");
  expect_named({.max_tokens = 2, .min_tokens = 3}, "min_tokens");
  expect_named({.stop_token_ids = {10}}, "stop_token_ids");
  expect_named({.stop = {""}}, "stop string");
  expect_named({.stop = {"\xA9"}}, "UTF-8");
  expect_named({.stop = std::vector<std::string>(65, "a")}, "65");
  expect_named({.logit_bias = {{-1, 0.0f}}}, "logit_bias");
  expect_named({.logit_bias = {{1, 101.0f}}}, "logit_bias");
  expect_named({.logit_bias = {{1, kNan}}}, "logit_bias");
  expect_named({.logprobs = 21}, "logprobs");
  expect_named({.prompt_logprobs = -1}, "prompt_logprobs");
}

}  // namespace
}  // namespace braid
