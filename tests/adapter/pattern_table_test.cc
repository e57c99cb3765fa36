// PatternTable: PEFT's rule, re.match(r"(.*\.)?(key)$", name), first key in file order.

#include "adapter/pattern_table.h"

#include <gtest/gtest.h>

namespace braid {
namespace {

std::optional<double> find(const std::vector<PatternEntry>& entries, std::string_view module) {
  const auto table = PatternTable::make(entries, "rank_pattern");
  EXPECT_TRUE(table) << table.error().message;
  const auto found = table->find(module);
  EXPECT_TRUE(found) << found.error().message;
  return *found;
}

constexpr const char* kName = "model.layers.11.self_attn.q_proj";

TEST(PatternTable, MatchesWholeDottedEnds) {
  EXPECT_EQ(find({{"q_proj", 1}}, kName), 1);
  EXPECT_EQ(find({{"self_attn.q_proj", 1}}, kName), 1);
  EXPECT_EQ(find({{kName, 1}}, kName), 1);
  EXPECT_EQ(find({{"proj", 1}}, kName), std::nullopt);
  EXPECT_EQ(find({{"1.self_attn.q_proj", 1}}, kName), std::nullopt);
  EXPECT_EQ(find({{"q_proj.", 1}}, kName), std::nullopt);
  EXPECT_EQ(find({{"self_attn", 1}}, kName), std::nullopt);
  EXPECT_EQ(find({}, kName), std::nullopt);
}

TEST(PatternTable, AnchorsByCaret) {
  EXPECT_EQ(find({{"^q_proj", 1}}, kName), std::nullopt);
  EXPECT_EQ(find({{"^model.layers.11.self_attn.q_proj", 1}}, kName), 1);
  EXPECT_EQ(find({{"^model\\..*_proj", 1}}, kName), 1);
}

TEST(PatternTable, TreatsKeysAsRegularExpressions) {
  EXPECT_EQ(find({{"[qk]_proj", 1}}, kName), 1);
  EXPECT_EQ(find({{"layers\\.1\\d\\.self_attn\\.q_proj", 1}}, kName), 1);
  EXPECT_EQ(find({{"a|q_proj", 1}}, kName), 1);
  EXPECT_EQ(find({{"q_proj|q", 1}}, "model.q"), 1);
  EXPECT_EQ(find({{"", 1}}, "model."), 1);  // an odd key, but that is the rule
}

// A dot is any sign, also in a key that has no other sign of a regular expression.
TEST(PatternTable, LetsADotBeAnySign) {
  EXPECT_EQ(find({{"q.proj", 1}}, kName), 1);
  EXPECT_EQ(find({{"layers.11.self.attn.q_proj", 1}}, kName), 1);
  EXPECT_EQ(find({{"x.proj", 1}}, kName), std::nullopt);
}

TEST(PatternTable, TakesTheFirstKeyOfTheFile) {
  EXPECT_EQ(find({{"q_proj", 1}, {"[q]_proj", 2}}, kName), 1);
  EXPECT_EQ(find({{"[q]_proj", 2}, {"q_proj", 1}}, kName), 2);
  EXPECT_EQ(find({{"q.proj", 3}, {"q_proj", 1}}, kName), 3);
  EXPECT_EQ(find({{"self_attn.q_proj", 4}, {"q_proj", 1}}, kName), 4);
}

TEST(PatternTable, TakesTheFirstKeyOverAllSpellings) {
  const auto table = PatternTable::make({{"^layers.0.a", 1}, {"a", 2}}, "alpha_pattern");
  ASSERT_TRUE(table);
  EXPECT_EQ(*table->find_any({"model.layers.0.a", "layers.0.a"}), 1);
  EXPECT_EQ(*table->find_any({"model.layers.0.a"}), 2);
}

TEST(PatternTable, FindsAmongVeryManyPlainKeys) {
  std::vector<PatternEntry> entries;
  for (int i = 0; i < 50'000; ++i)
    entries.push_back({fmt::format("model.layers.{}.a", i), 1.0 * i});
  const auto table = PatternTable::make(entries, "rank_pattern");
  ASSERT_TRUE(table);
  for (int i = 0; i < 50'000; ++i) {
    ASSERT_EQ(*table->find(fmt::format("model.layers.{}.a", i)), 1.0 * i);
  }
}

TEST(PatternTable, RefusesTooManyRegularExpressions) {
  std::vector<PatternEntry> entries;
  for (int i = 0; i < 513; ++i) entries.push_back({fmt::format("a{}+", i), 1});
  const auto table = PatternTable::make(entries, "rank_pattern");
  ASSERT_FALSE(table);
  EXPECT_EQ(table.error().message,
            "rank_pattern[\"a512+\"]: at most 512 regular expressions of 2000 characters are "
            "accepted");
}

}  // namespace
}  // namespace braid
