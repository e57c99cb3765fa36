// Grammars in the engine: masks in the sampler, ends, limits. The grammars themselves are tested in
// tests/grammar.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <regex>

#include "base/check.h"
#include "base/json.h"
#include "engine/grammar_cache.h"
#include "grammar/compile.h"
#include "tests/engine/toy_engine.h"

namespace braid::test {
namespace {

constexpr int32_t kEos = 89;

ToyOptions with_eos() {
  ToyOptions options;
  options.eos_tokens = {kEos};
  return options;
}

ToyRequest request(const std::string& regex, uint64_t seed, SamplingParams sampling = {}) {
  sampling.seed = seed;
  if (sampling.max_tokens == SamplingParams().max_tokens) sampling.max_tokens = 200;
  sampling.grammar = {GrammarKind::kRegex, regex};
  return {.request = {.prompt = {1, 2, static_cast<int32_t>(3 + seed % 50)}, .sampling = sampling},
          .adapter = nullptr};
}

std::string refused(const OutputGrammar& grammar, const ToyOptions& options = with_eos()) {
  const auto engine = make_toy_engine(options);
  const auto id = engine->submit({.prompt = {1}, .sampling = {.grammar = grammar}}, {},
                                 [](const TokenEvent&) {});
  return id ? "" : id.error().message;
}

TEST(GrammarReply, MatchesAndEndsByItself) {
  std::vector<ToyRequest> requests;
  for (uint64_t seed = 0; seed < 40; ++seed)
    requests.push_back(request("(ab|c\xC3\xA9+d){2,4}e", seed, {.logprobs = 2}));
  const auto replies = run_all(*make_toy_engine(with_eos()), requests);
  const std::regex want("(ab|c(\xC3\xA9)+d){2,4}e");
  for (const Reply& reply : replies) {
    EXPECT_EQ(reply.reason, FinishReason::kStop);
    EXPECT_TRUE(std::regex_match(reply.text, want)) << reply.text;
    EXPECT_NE(reply.tokens.back(), kEos);
    EXPECT_EQ(reply.logprobs.size(), reply.tokens.size());
  }
}

TEST(GrammarReply, EndTokenComesWhereTheGrammarMayEndOnly) {
  const std::regex want("a(bc)*");
  int num_ends = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const Reply reply = run_alone(request("a(bc)*", seed), with_eos());
    EXPECT_TRUE(reply.reason == FinishReason::kStop || reply.tokens.size() == 200);
    if (reply.reason == FinishReason::kStop) {
      ++num_ends;
      EXPECT_EQ(reply.tokens.back(), kEos);
      EXPECT_TRUE(std::regex_match(reply.text, want)) << reply.text;
    }
  }
  EXPECT_GT(num_ends, 30);
}

TEST(GrammarReply, IgnoreEosGoesOnWhileItCan) {
  const Reply open =
      run_alone(request("a(bc)*", 1, {.max_tokens = 50, .ignore_eos = true}), with_eos());
  EXPECT_EQ(open.reason, FinishReason::kLength);
  EXPECT_EQ(open.tokens.size(), 50u);
  EXPECT_EQ(std::ranges::count(open.tokens, kEos), 0);
  const Reply closed = run_alone(request("a(bc){0,3}", 1, {.ignore_eos = true}), with_eos());
  EXPECT_EQ(closed.reason, FinishReason::kStop);
  EXPECT_EQ(closed.text, "abcbcbc");
}

TEST(GrammarReply, MinTokensDelaysTheEndButNotBeyondTheGrammar) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Reply reply = run_alone(request("a*", seed, {.min_tokens = 9}), with_eos());
    EXPECT_GE(reply.tokens.size(), 9u);
    const Reply small = run_alone(request("a{0,5}", seed, {.min_tokens = 9}), with_eos());
    EXPECT_EQ(small.text, "aaaaa");
    EXPECT_EQ(small.reason, FinishReason::kStop);
  }
}

TEST(GrammarReply, MaxTokensCuts) {
  const Reply reply = run_alone(request("a{100}", 1, {.max_tokens = 7}), with_eos());
  EXPECT_EQ(reply.text, "aaaaaaa");
  EXPECT_EQ(reply.reason, FinishReason::kLength);
  // Whole with the last token that was allowed.
  const Reply whole = run_alone(request("a{7}", 1, {.max_tokens = 7}), with_eos());
  EXPECT_EQ(whole.reason, FinishReason::kStop);
}

TEST(GrammarReply, StopStringsCut) {
  const Reply reply = run_alone(request("aaabbbccc", 1, {.stop = {"bb"}}), with_eos());
  EXPECT_EQ(reply.text, "aaa");
  EXPECT_EQ(reply.matched_stop, "bb");
}

TEST(GrammarReply, StopTokensOfTheRequestCutAndAreTextBeforeMinTokens) {
  // All tokens that read as b.
  const std::vector<int32_t> all_b = {1, 27, 53, 79};
  const Reply cut = run_alone(request("aaab+", 1, {.stop_token_ids = all_b}), with_eos());
  EXPECT_EQ(cut.text, "aaa");
  EXPECT_EQ(cut.reason, FinishReason::kStop);
  const Reply text =
      run_alone(request("aaabbbbc", 1, {.min_tokens = 6, .stop_token_ids = all_b}), with_eos());
  EXPECT_EQ(text.text, "aaabb");
}

TEST(GrammarReply, WorksWithoutEndTokens) {
  const Reply reply = run_alone(request("abc", 1), {});
  EXPECT_EQ(reply.text, "abc");
  EXPECT_EQ(reply.reason, FinishReason::kStop);
}

TEST(GrammarReply, WorksWithPenaltiesBiasAndGreedy) {
  for (const float temperature : {0.0f, 0.7f}) {
    const Reply reply = run_alone(request("[ab]{20}", 1,
                                          {.temperature = temperature,
                                           .top_k = 3,
                                           .top_p = 0.5f,
                                           .min_p = 0.1f,
                                           .repetition_penalty = 1.5f,
                                           .presence_penalty = 1.0f,
                                           .frequency_penalty = 1.0f,
                                           .logit_bias = {{2, 100.0f}, {0, -100.0f}}}),
                                  with_eos());
    EXPECT_TRUE(std::regex_match(reply.text, std::regex("[ab]{20}"))) << reply.text;
    EXPECT_EQ(std::ranges::count(reply.tokens, 0), 0);  // other tokens read as a
  }
}

TEST(GrammarReply, LogprobsAreOfTheModelAlone) {
  const ToyRequest with = request("[a-z]{3}", 4, {.temperature = 0, .logprobs = 20});
  const Reply reply = run_alone(with, with_eos());
  ToyRequest without = with;
  without.request.sampling.grammar.reset();
  const Reply plain = run_alone(without, with_eos());
  ASSERT_FALSE(reply.logprobs.empty());
  EXPECT_EQ(reply.logprobs[0].top, plain.logprobs[0].top);
  EXPECT_EQ(reply.logprobs[0].token, reply.tokens[0]);
}

TEST(GrammarReply, DoesNotDependOnTheBatch) {
  const std::string regexes[] = {"(ab|cd)*e", "[a-m]{3,30}", "(a|b|c\xC3\xA9)*d{5}"};
  std::vector<ToyRequest> requests;
  for (uint64_t i = 0; i < 24; ++i)
    requests.push_back(
        request(regexes[i % 3], i, {.temperature = 1.3f, .max_tokens = 60, .logprobs = 1}));
  ToyOptions options = with_eos();
  options.max_batch_tokens = 16;
  options.num_blocks = 60;  // preempts
  const auto together = run_all(*make_toy_engine(options), requests);
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(why_different(together[i], run_alone(requests[i], with_eos())), "") << i;
}

TEST(GrammarSubmit, RefusesByName) {
  EXPECT_EQ(refused({GrammarKind::kRegex, "a(?=b)"}),
            "regex: lookahead at byte 1 is not supported");
  EXPECT_NE(refused({GrammarKind::kRegex, "A"}).find("regex: no finite text fits"),
            std::string::npos);
  EXPECT_NE(refused({GrammarKind::kJsonSchema, "{\"not\": {}}"})
                .find("json_schema: #: the keyword \"not\""),
            std::string::npos);
  EXPECT_NE(refused({GrammarKind::kJsonObject, ""}).find("json_object: no finite text fits"),
            std::string::npos);
  ToyOptions without_text;
  without_text.has_text = false;
  EXPECT_EQ(refused({GrammarKind::kRegex, "a"}, without_text),
            "a regex grammar needs a tokenizer, the model's folder has none");
}

TEST(GrammarCache, SharesAndForgetsTheOldest) {
  GrammarCache cache(toy_vocabulary({}));
  for (int i = 0; i < 100; ++i) {
    auto matcher = cache.matcher({GrammarKind::kRegex, fmt::format("a{{{}}}", 1 + i % 40)});
    ASSERT_TRUE(matcher.has_value());
    EXPECT_TRUE(matcher->push(0));
  }
}

TEST(GrammarCache, BoundsWhatRequestsHold) {
  GrammarCache cache(toy_vocabulary({}), 1'000'000);
  std::vector<grammar::Matcher> held;
  std::string why;
  for (int i = 0; i < 100 && why.empty(); ++i) {
    auto matcher = cache.matcher({GrammarKind::kRegex, fmt::format("a{{{}}}", 1000 + i)});
    if (matcher) {
      held.push_back(std::move(*matcher));
    } else {
      why = matcher.error().message;
      EXPECT_EQ(matcher.error().code, ErrorCode::kResourceExhausted);
    }
  }
  EXPECT_GT(held.size(), 3u);
  EXPECT_NE(why.find("try again later"), std::string::npos);
  held.clear();
  EXPECT_TRUE(cache.matcher({GrammarKind::kRegex, "a{5000}"}).has_value());
}

// JSON out of random logits over a vocabulary with longer tokens, through the sampler alone.
TEST(GrammarSampler, RandomLogitsGiveJson) {
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
  for (const char* piece : {"{\"", "\":", "\",\"", "\"}", "}}", "true", "12", "ab", "[]", "\n  "})
    pieces.emplace_back(piece);
  pieces.emplace_back();
  const auto vocab_size = static_cast<int32_t>(pieces.size());
  const int32_t eos = vocab_size - 1;
  const auto vocabulary = std::make_shared<const grammar::Vocabulary>(
      vocab_size, [&](int32_t id) { return std::string_view(pieces[id]); });
  const auto compiled = grammar::compile_json_schema(
      R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"$ref": "#"}},
          "required": ["a"]})",
      vocabulary);
  ASSERT_TRUE(compiled.has_value());
  for (uint64_t seed = 0; seed < 50; ++seed) {
    std::mt19937_64 random(seed);
    grammar::Matcher matcher(*compiled);
    const SamplingParams params = {.seed = seed};
    Sampler sampler(params, {}, std::vector<int32_t>{eos}, &matcher);
    std::string text;
    for (int position = 0; position < 400 && !matcher.is_over(); ++position) {
      std::vector<float> logits(vocab_size);
      for (float& logit : logits) logit = static_cast<float>(random() % 1000) / 100;
      const auto before = logits;
      const auto sample = sampler.sample(logits, position, position);
      ASSERT_TRUE(sample.has_value()) << sample.error().message;
      EXPECT_EQ(logits, before);
      ASSERT_NE(sample->token, eos);  // an object cannot go on once it is whole
      ASSERT_TRUE(matcher.push(sample->token));
      text += pieces[sample->token];
    }
    ASSERT_TRUE(matcher.is_over()) << text;
    EXPECT_TRUE(Json::accept(text)) << text;
  }
}

}  // namespace
}  // namespace braid::test
