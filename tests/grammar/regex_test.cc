// Regular expressions from text to the texts they allow.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <regex>

#include "tests/grammar/grammar_texts.h"

namespace braid::test {
namespace {

using grammar::compile_regex;

std::string refused(std::string_view regex) {
  return refusal(compile_regex(regex, byte_vocabulary()));
}

struct Case {
  std::string regex;
  std::vector<std::string> yes;
  std::vector<std::string> no;
};

class RegexTexts : public testing::TestWithParam<Case> {};

TEST_P(RegexTexts, AllowsTheseAndNotThose) {
  const auto compiled = compile_regex(GetParam().regex, byte_vocabulary());
  ASSERT_TRUE(compiled.has_value()) << compiled.error().message;
  for (const auto& text : GetParam().yes) EXPECT_TRUE(accepts(compiled, text)) << text;
  for (const auto& text : GetParam().no) EXPECT_FALSE(accepts(compiled, text)) << text;
}

const Case kCases[] = {
    {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
    {"^abc$", {"abc"}, {"ab", "abcd"}},
    {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
    {"^a$|^b$", {"a", "b"}, {"ab"}},
    {"a*b+c?", {"b", "aabbc", "bc"}, {"a", "ac", "bcc"}},
    {"a{3}", {"aaa"}, {"aa", "aaaa"}},
    {"a{2,}", {"aa", "aaaaaa"}, {"a"}},
    {"a{0,2}b", {"b", "ab", "aab"}, {"aaab"}},
    {"(ab?){2,3}", {"aa", "aab", "ababab", "abaab"}, {"a", "aaaa", "b"}},
    {"(a?){3}b", {"b", "ab", "aaab"}, {"aaaab"}},
    {"(a*)*b", {"b", "aaab"}, {"a"}},
    {"a*?b", {"b", "aab"}, {"a"}},
    {"(?:ab)+(c|d)", {"abc", "ababd"}, {"ab", "c"}},
    {R"(\d+\.\w\s\S\D\W)", {"12.a xy-"}, {"12xa xy-", ".a xy-", "1.a x--x"}},
    {"[a-cx]", {"a", "b", "x"}, {"d", "-", ""}},
    {"[^a-c\\d]", {"d", "\xC3\xA9", "\n", "\xF0\x9F\x98\x80"}, {"a", "5", "\xC3", "\xE9"}},
    {R"([\]\-\\^])", {"]", "-", "\\", "^"}, {"a"}},
    {"[a-]", {"a", "-"}, {"b"}},
    {".", {"a", "\r", "\xE4\xB8\xAD"}, {"\n", "", "ab", "\xED\xA0\x80", "\xC0\x80", "\x80"}},
    {"\xC3\xA9+", {"\xC3\xA9", "\xC3\xA9\xC3\xA9"}, {"\xC3", "e", "\xC3\xA9\xA9"}},
    {"[\xC3\xA0-\xC3\xBF]", {"\xC3\xA9"}, {"\xC3\x9F", "e"}},
    {R"([\u0400-\u04ff]+)", {"\xD0\x96\xD1\x83"}, {"a", "\xCF\xBF"}},
    {R"(\x41\u00e9\u{1F600})", {"A\xC3\xA9\xF0\x9F\x98\x80"}, {"A"}},
    {R"(\t\n\r\f\v\/\.\{\}\(\)\[\]\*\+\?\|\^\$)", {"\t\n\r\f\v/.{}()[]*+?|^$"}, {""}},
    {R"([\b\t])", {"\b", "\t"}, {"b"}},
    {"}]", {"}]"}, {}},
};

INSTANTIATE_TEST_SUITE_P(Cases, RegexTexts, testing::ValuesIn(kCases));

TEST(Regex, RefusesByName) {
  const std::pair<std::string, std::string> cases[] = {
      {"a(?=b)", "lookahead at byte 1 is not supported"},
      {"a(?!b)", "lookahead"},
      {"(?<=a)b", "lookbehind"},
      {"(?<!a)b", "lookbehind"},
      {"(?<n>a)", "a named group"},
      {"(?P<n>a)", "a named group"},
      {"(?>a)", "an atomic group"},
      {"(?i)a", "the group \"(?i\""},
      {R"((a)\1)", "a backreference"},
      {R"(\bword)", "a word boundary"},
      {R"(\p{L})", "a Unicode property"},
      {R"(\Aa)", "an anchor"},
      {R"(\k<n>)", "a reference to a group"},
      {R"(\q)", "not an escape known here"},
      {"a++", "a possessive quantifier"},
      {"a^b", "the anchor \"^\" inside of an expression at byte 1"},
      {"(a$)", "the anchor \"$\""},
      {"[[:alpha:]]", "a POSIX class"},
  };
  for (const auto& [regex, why] : cases)
    EXPECT_NE(refused(regex).find(why), std::string::npos) << regex << ": " << refused(regex);
}

TEST(Regex, RefusesWhatIsBroken) {
  const std::pair<std::string, std::string> cases[] = {
      {"(a", "a group is not closed at byte 2"},
      {"a)", "\")\" without \"(\" at byte 1"},
      {"[a", "a class is not closed at byte 0"},
      {"[]", "a class is empty"},
      {"[z-a]", "does not rise"},
      {"*a", "quantifier \"*\" without anything before it at byte 0"},
      {"a**", "a second quantifier"},
      {"a{2}{3}", "a second quantifier"},
      {"a{3,2}", "{3,2} has its bounds the wrong way round"},
      {"a{x}", "begins no {m}, {m,} or {m,n}"},
      {"a{,3}", "begins no {m}"},
      {"a{99999999999}", "a repetition count is above 10000"},
      {"{2}", "without anything to repeat"},
      {"\\", "a backslash without anything behind it"},
      {"\\x4", "needs 2 hexadecimal digits"},
      {"\\ud800", "U+D800 is no Unicode character"},
      {"\\u{110000}", "U+110000 is no Unicode character"},
      {"\xFF", "not well-formed UTF-8 at byte 0"},
      {"", "only the empty text fits"},
      {"a{0}", "only the empty text fits"},
      {"[^\\s\\S]", "no finite text fits"},
  };
  for (const auto& [regex, why] : cases)
    EXPECT_NE(refused(regex).find(why), std::string::npos) << regex << ": " << refused(regex);
  EXPECT_NE(refused(std::string(20000, 'a')).find("20000 bytes"), std::string::npos);
  EXPECT_NE(refused(std::string(200, '(') + "a" + std::string(200, ')')).find("nested deeper"),
            std::string::npos);
}

TEST(Regex, HugeRepetitionsAreRefusedAtOnce) {
  EXPECT_NE(refused("((((a{1000}){1000}){1000}){1000}){1000}").find("200000 states"),
            std::string::npos);
  EXPECT_NE(refused("(((a?){10000}){10000}){10000}").find("200000 states"), std::string::npos);
}

TEST(Regex, OnlyBytesThatAreTokensAreUsed) {
  const std::vector<std::string> pieces = {"a", "b", "xb"};
  const auto vocabulary = std::make_shared<const grammar::Vocabulary>(
      3, [&](int32_t id) { return std::string_view(pieces[id]); });
  EXPECT_EQ(refusal(compile_regex("[ax]b", vocabulary)), "");
  EXPECT_NE(refusal(compile_regex("xb", vocabulary)).find("tokens cannot write"),
            std::string::npos);
  grammar::Matcher matcher(*compile_regex("[ax]b", vocabulary));
  const auto mask = *matcher.mask();
  EXPECT_TRUE(mask->allows(0));
  EXPECT_FALSE(mask->allows(1));
  EXPECT_FALSE(mask->allows(2));
}

// Expressions over a and b, against the standard library's.
std::string draw_regex(int depth) {
  const auto choice = *rc::gen::inRange(0, depth > 0 ? 9 : 3);
  switch (choice) {
    case 0:
      return "a";
    case 1:
      return "b";
    case 2:
      return "[ab]";
    case 3:
      return draw_regex(depth - 1) + draw_regex(depth - 1);
    case 4:
      return "(" + draw_regex(depth - 1) + "|" + draw_regex(depth - 1) + ")";
    case 5:
      return "(" + draw_regex(depth - 1) + ")*";
    case 6:
      return "(" + draw_regex(depth - 1) + ")?";
    case 7: {
      const int min = *rc::gen::inRange(0, 3), more = *rc::gen::inRange(0, 3);
      return "(" + draw_regex(depth - 1) + "){" + std::to_string(min) + "," +
             std::to_string(min + more) + "}";
    }
    default:
      return "(" + draw_regex(depth - 1) + "){2,}";
  }
}

TEST(RegexProperty, AgreesWithTheStandardLibrary) {
  const auto vocabulary = small_vocabulary();
  EXPECT_TRUE(rc::check([&] {
    const std::string regex = draw_regex(4);
    const auto compiled = compile_regex(regex, vocabulary);
    if (!compiled) RC_DISCARD("only the empty text fits");
    // Breadth first: backtracking would take exponential time on nested repetitions.
    const std::regex standard(regex, std::regex::ECMAScript | std::regex_constants::__polynomial);
    for (int bits = 1; bits < 256; ++bits) {
      std::string text;
      for (int b = bits; b > 1; b /= 2) text += b % 2 ? 'a' : 'b';
      RC_ASSERT(accepts(compiled, text) == std::regex_match(text, standard));
    }
  }));
}

TEST(RegexProperty, MasksAreThoseOfTheBytes) {
  const auto vocabulary = small_vocabulary();
  EXPECT_TRUE(rc::check([&] {
    const auto compiled = compile_regex(draw_regex(4), vocabulary);
    if (!compiled) RC_DISCARD("only the empty text fits");
    auto drawn = random_text(*compiled, *rc::gen::arbitrary<uint64_t>(), 12, 0.1);
    for (size_t n = 0; n <= drawn.tokens.size(); ++n)
      RC_ASSERT(why_mask_is_wrong(*compiled, {drawn.tokens.begin(),
                                              drawn.tokens.begin() + static_cast<long>(n)}) == "");
  }));
}

TEST(Regex, LongCountedRepetitionsHaveExactMasks) {
  for (const char* regex :
       {"(a|bb){3,300}c", "a{250}b{0,250}", "((ab?){100}c){0,3}", "(a{2,90}b){50,90}"}) {
    const auto compiled = compile_regex(regex, small_vocabulary());
    ASSERT_TRUE(compiled.has_value());
    for (uint64_t seed = 0; seed < 3; ++seed) {
      const auto drawn = random_text(*compiled, seed, 250, 0.01);
      for (size_t n = 0; n <= drawn.tokens.size(); n += 7)
        EXPECT_EQ(why_mask_is_wrong(*compiled, {drawn.tokens.begin(),
                                                drawn.tokens.begin() + static_cast<long>(n)}),
                  "")
            << regex << " after " << n;
    }
  }
}

}  // namespace
}  // namespace braid::test
