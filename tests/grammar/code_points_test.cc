#include "grammar/code_points.h"

#include <gtest/gtest.h>

#include <random>

#include "text/utf8.h"

namespace braid::test {
namespace {

using grammar::ByteRange;
using grammar::CodePointRange;
using grammar::CodePointSet;

TEST(CodePointSet, JoinsSortsAndLeavesSurrogatesOut) {
  const CodePointSet set({{'d', 'f'}, {'a', 'c'}, {0xD000, 0xE001}, {0x10FFFF, 0x7FFFFFFF}});
  const auto ranges = set.ranges();
  ASSERT_EQ(ranges.size(), 4u);
  EXPECT_EQ(ranges[0].first, U'a');
  EXPECT_EQ(ranges[0].last, U'f');
  EXPECT_EQ(ranges[1].last, char32_t{0xD7FF});
  EXPECT_EQ(ranges[2].first, char32_t{0xE000});
  EXPECT_EQ(ranges[3].last, char32_t{0x10FFFF});
  EXPECT_FALSE(set.contains(0xD800));
  EXPECT_TRUE(set.contains('e'));
  EXPECT_TRUE(CodePointSet::all().complement().empty());
  EXPECT_FALSE(set.complement().contains('e'));
  EXPECT_TRUE(set.complement().contains('g'));
  EXPECT_FALSE(set.complement().contains(0xDFFF));
}

TEST(Utf8Sequences, HoldExactlyTheMembers) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const int bits = 4 + static_cast<int>(random() % 17);
    char32_t a = random() % (1u << bits), b = random() % (1u << bits);
    const CodePointSet set({{std::min(a, b), std::max(a, b)}});
    std::vector<std::vector<ByteRange>> sequences;
    for (const CodePointRange range : set.ranges()) append_utf8_sequences(range, sequences);
    const auto holds = [&](const std::string& text) {
      int count = 0;
      for (const auto& sequence : sequences) {
        bool fits = sequence.size() == text.size();
        for (size_t i = 0; fits && i < text.size(); ++i) {
          const auto byte = static_cast<uint8_t>(text[i]);
          fits = sequence[i].first <= byte && byte <= sequence[i].last;
        }
        count += fits;
      }
      return count;
    };
    const auto check = [&](char32_t c) {
      if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return;
      std::string text;
      text::append_utf8(text, c);
      ASSERT_EQ(holds(text), set.contains(c) ? 1 : 0) << static_cast<uint32_t>(c);
    };
    for (const char32_t edge : {a, b}) {
      for (char32_t c = edge < 70 ? 0 : edge - 70; c < edge + 70; ++c) check(c);
    }
    for (int i = 0; i < 300; ++i) check(random() % 0x110000);
  }
}

}  // namespace
}  // namespace braid::test
