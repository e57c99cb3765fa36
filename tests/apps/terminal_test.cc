// What a terminal is shown: sizes, counts, widths, wrapping, and text that may be hostile.

#include "apps/terminal.h"

#include <gtest/gtest.h>

namespace braid::apps {
namespace {

constexpr std::string_view kReplaced = "\xef\xbf\xbd";

TEST(HumanBytes, TakesThePowerOf1024ThatLeavesThreeDigits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(264 * 1024), "264 KiB");
  EXPECT_EQ(human_bytes(uint64_t{17} << 26), "1.06 GiB");
  EXPECT_EQ(human_bytes(UINT64_MAX), "16384 PiB");
}

TEST(HumanCount, TakesThePowerOf1000ThatLeavesThreeDigits) {
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(12'345), "12.3 k");
  EXPECT_EQ(human_count(30'532'122'624), "30.5 B");
}

TEST(DisplayWidth, CountsCharactersNotBytes) {
  EXPECT_EQ(display_width(""), 0);
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("\xc3\xa4\xe2\x82\xac"), 2);  // a umlaut, euro sign
}

TEST(Wrap, BreaksAtSpacesAndKeepsLineEnds) {
  EXPECT_EQ(wrap("one two three", 7), "one two\nthree");
  EXPECT_EQ(wrap("one\n\ntwo", 80), "one\n\ntwo");
  EXPECT_EQ(wrap("", 10), "");
}

TEST(Wrap, CutsWordsThatAreWiderThanTheTerminal) {
  EXPECT_EQ(wrap("abcdefgh", 3), "abc\ndef\ngh");
  EXPECT_EQ(wrap("\xc3\xa4\xc3\xa4\xc3\xa4", 2), "\xc3\xa4\xc3\xa4\n\xc3\xa4");
}

TEST(Printable, KeepsTextAndReplacesWhatSteersATerminal) {
  EXPECT_EQ(printable("a\tb\n\xe2\x82\xac"), "a\tb\n\xe2\x82\xac");
  EXPECT_EQ(printable("\x1b[2J"), std::string(kReplaced) + "[2J");
  EXPECT_EQ(printable("\x7f"), kReplaced);
  EXPECT_EQ(printable("\r"), kReplaced);
  EXPECT_EQ(printable("\xc2\x9b"), kReplaced);                  // CSI as a C1 control
  EXPECT_EQ(printable("a\x9b"), "a" + std::string(kReplaced));  // and as a lone byte
  EXPECT_EQ(printable("\xe2\x82"), kReplaced);                  // cut off
}

TEST(Colours, AreUsedOnlyWhereTheTerminalHasThem) {
  EXPECT_EQ(bold({.colour = false}, "x"), "x");
  EXPECT_EQ(bold({.colour = true}, "x"), "\x1b[1mx\x1b[0m");
  EXPECT_EQ(red({.colour = true}, "x"), "\x1b[31mx\x1b[0m");
}

}  // namespace
}  // namespace braid::apps
