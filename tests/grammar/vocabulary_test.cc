#include "grammar/vocabulary.h"

#include <gtest/gtest.h>

#include <map>

namespace braid::test {
namespace {

TEST(Vocabulary, IsATreeInPreorder) {
  const std::vector<std::string> pieces = {"b",   "ab", "",    "a",
                                           "abc", "ab", "xyz", std::string(2000, 'a')};
  const grammar::Vocabulary vocabulary(8, [&](int32_t id) { return std::string_view(pieces[id]); });
  EXPECT_EQ(vocabulary.size(), 8);
  EXPECT_EQ(vocabulary.max_token_bytes(), 3);
  EXPECT_EQ(vocabulary.num_nodes(), 7);  // a ab abc b x xy xyz
  std::map<std::string, std::vector<int32_t>> tokens;
  std::string path;
  for (int32_t i = 0; i < vocabulary.num_nodes(); ++i) {
    const auto& node = vocabulary.node(i);
    path.resize(node.depth - 1);
    path += static_cast<char>(node.byte);
    const auto here = vocabulary.tokens_at(i);
    if (!here.empty()) tokens[path] = {here.begin(), here.end()};
    EXPECT_GT(node.end, i);
    EXPECT_LE(node.end, vocabulary.num_nodes());
    // The subtree is what is deeper.
    for (int32_t j = i + 1; j < node.end; ++j) EXPECT_GT(vocabulary.node(j).depth, node.depth);
    if (node.end < vocabulary.num_nodes()) {
      EXPECT_LE(vocabulary.node(node.end).depth, node.depth);
    }
  }
  EXPECT_EQ(tokens, (std::map<std::string, std::vector<int32_t>>{
                        {"a", {3}}, {"ab", {1, 5}}, {"abc", {4}}, {"b", {0}}, {"xyz", {6}}}));
  EXPECT_TRUE(vocabulary.single_bytes()['a']);
  EXPECT_FALSE(vocabulary.single_bytes()['x']);
  EXPECT_EQ(vocabulary.piece(4), "abc");
  EXPECT_EQ(vocabulary.piece(2), "");
}

TEST(Vocabulary, MayBeEmpty) {
  const grammar::Vocabulary vocabulary(3, [](int32_t) { return std::string_view(); });
  EXPECT_EQ(vocabulary.num_nodes(), 0);
}

}  // namespace
}  // namespace braid::test
