#include "engine/stop_matcher.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

namespace braid {
namespace {

TEST(StopMatcher, PassesTextOnWithoutStops) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("abc", true).text, "abc");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  const std::vector<std::string> stops = {"END"};
  StopMatcher matcher(stops);
  EXPECT_EQ(matcher.push("the E", true).text, "the ");
  EXPECT_EQ(matcher.push("N", true).text, "");
  EXPECT_EQ(matcher.push("E", true).text, "EN");
  const auto found = matcher.push("ND and more", true);
  EXPECT_EQ(found.text, "");
  EXPECT_EQ(found.stop_index, 0u);
}

TEST(StopMatcher, GivesTheHeldTextAtTheEnd) {
  const std::vector<std::string> stops = {"\n\nUser:"};
  StopMatcher matcher(stops);
  EXPECT_EQ(matcher.push("yes\n\nUse", true).text, "yes");
  EXPECT_EQ(matcher.flush(), "\n\nUse");
}

TEST(StopMatcher, FindsAStopThatOverlapsItself) {
  const std::vector<std::string> stops = {"aab"};
  StopMatcher matcher(stops);
  const auto found = matcher.push("aaaab", true);
  EXPECT_EQ(found.text, "aa");
  EXPECT_TRUE(found.stop_index);
}

TEST(StopMatcher, TakesTheLongerOfTwoThatEndTogether) {
  const std::vector<std::string> stops = {"lo", "hello"};
  StopMatcher matcher(stops);
  const auto found = matcher.push("oh hello", true);
  EXPECT_EQ(found.text, "oh ");
  EXPECT_EQ(found.stop_index, 1u);
}

TEST(StopMatcher, IgnoresAStopThatMayNotEndTheReplyYet) {
  const std::vector<std::string> stops = {"ab"};
  StopMatcher matcher(stops);
  EXPECT_EQ(matcher.push("ab", false).text, "ab");
  const auto found = matcher.push("xab", true);
  EXPECT_EQ(found.text, "x");
  EXPECT_TRUE(found.stop_index);
}

// Against a plain search over the whole text, for any way to cut the text into pieces.
TEST(StopMatcher, DoesNotDependOnThePieces) {
  EXPECT_TRUE(rc::check("stop matcher against a plain search", [] {
    const auto word = rc::gen::container<std::string>(rc::gen::element('a', 'b', 'c'));
    const auto stops = *rc::gen::container<std::vector<std::string>>(rc::gen::nonEmpty(word));
    const auto pieces = *rc::gen::container<std::vector<std::string>>(word);
    std::string whole;
    for (const auto& piece : pieces) whole += piece;

    std::string expected = whole;
    bool stopped = false;
    for (size_t end = 1; end <= whole.size() && !stopped; ++end) {
      size_t longest = 0;
      for (const auto& stop : stops) {
        if (whole.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
      }
      if (longest > 0) {
        expected = whole.substr(0, end - longest);
        stopped = true;
      }
    }

    StopMatcher matcher(stops);
    std::string got;
    bool got_stopped = false;
    for (const auto& piece : pieces) {
      const auto found = matcher.push(piece, true);
      got += found.text;
      if (found.stop_index) {
        got_stopped = true;
        break;
      }
    }
    if (!got_stopped) got += matcher.flush();
    RC_ASSERT(got == expected);
    RC_ASSERT(got_stopped == stopped);
  }));
}

}  // namespace
}  // namespace braid
