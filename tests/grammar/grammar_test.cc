// Masks: what is kept between them, several threads, and their limits.

#include "grammar/grammar.h"

#include <gtest/gtest.h>

#include <thread>

#include "grammar/fragments.h"
#include "grammar/json_text.h"
#include "tests/grammar/grammar_texts.h"

namespace braid::test {
namespace {

using grammar::Grammar;
using grammar::GrammarLimits;
using grammar::Matcher;

// Any JSON value, or texts of an expression.
std::shared_ptr<Grammar> make(const GrammarLimits& limits, const std::string& regex = "") {
  const auto vocabulary = small_vocabulary();
  grammar::NetworkBuilder net;
  grammar::JsonText json(net);
  net.set_start(net.add_rule("root"), 0);
  const grammar::StateId start = net.add_state();
  net.set_final(regex.empty() ? json.add_value(start)
                              : grammar::add_regex(net, start, *grammar::parse_regex(regex),
                                                   grammar::Encoding::kUtf8));
  json.finish();
  auto network = net.build(vocabulary->single_bytes(), vocabulary->max_token_bytes());
  return std::make_shared<Grammar>(std::move(*network), vocabulary, limits);
}

TEST(Grammar, ForgettingChangesNothing) {
  const auto keeps = make({});
  const auto forgets = make({.max_cache_bytes = 0});  // before every mask
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const RandomText a = random_text(keeps, seed, 200, 0.05);
    const RandomText b = random_text(forgets, seed, 200, 0.05);
    EXPECT_EQ(a.tokens, b.tokens);
  }
}

TEST(Grammar, ServesSeveralThreads) {
  const auto shared = make({.max_cache_bytes = 200'000});
  std::vector<RandomText> together(8);
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < together.size(); ++seed)
    threads.emplace_back([&, seed] { together[seed] = random_text(shared, seed, 200, 0.05); });
  for (std::thread& thread : threads) thread.join();
  for (uint64_t seed = 0; seed < together.size(); ++seed)
    EXPECT_EQ(together[seed].tokens, random_text(make({}), seed, 200, 0.05).tokens);
}

TEST(Grammar, GivesUpOnTooMuchWork) {
  const auto grammar = make({.max_work = 100}, "(.|\\n)*a(.|\\n){300}x");
  Matcher matcher(grammar);
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(matcher.push('a'));
  const auto mask = matcher.mask();
  ASSERT_FALSE(mask.has_value());
  EXPECT_EQ(mask.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(mask.error().message.find("too many ways"), std::string::npos);
}

TEST(Matcher, KeepsItsPlaceWhenRefused) {
  Matcher matcher(make({}, "ab"));
  EXPECT_FALSE(matcher.push('b'));
  EXPECT_FALSE(matcher.push(-1));
  EXPECT_FALSE(matcher.push(100000));
  EXPECT_FALSE(matcher.push(small_vocabulary()->size() - 1));  // stands for no text
  EXPECT_TRUE(matcher.push('a'));
  EXPECT_FALSE(matcher.may_end());
  EXPECT_TRUE(matcher.push('b'));
  EXPECT_TRUE(matcher.is_over());
  EXPECT_FALSE(matcher.push('b'));
}

}  // namespace
}  // namespace braid::test
