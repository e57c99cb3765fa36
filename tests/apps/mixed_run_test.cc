#include "apps/mixed_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace braid::apps {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TokenTime at_ms(int ms) { return TokenTime(std::chrono::milliseconds(ms)); }

TEST(GapsMs, BeginWithinTheTimeAndEndWheneverTheyEnd) {
  const std::vector<TokenTime> times = {at_ms(0), at_ms(10), at_ms(30), at_ms(60)};
  EXPECT_THAT(gaps_ms(times, at_ms(0), at_ms(100)), ElementsAre(10, 20, 30));
  EXPECT_THAT(gaps_ms(times, at_ms(1), at_ms(31)), ElementsAre(20, 30));
  EXPECT_THAT(gaps_ms(times, at_ms(10), at_ms(30)), ElementsAre(20));
  EXPECT_THAT(gaps_ms(times, at_ms(60), at_ms(100)), IsEmpty());
}

TEST(GapsMs, AreZeroBetweenTokensThatCameTogether) {
  const std::vector<TokenTime> times = {at_ms(0), at_ms(10), at_ms(10), at_ms(10), at_ms(15)};
  EXPECT_THAT(gaps_ms(times, at_ms(0), at_ms(20)), ElementsAre(10, 0, 0, 5));
}

TEST(GapsMs, NeedTwoTokens) {
  EXPECT_THAT(gaps_ms({}, at_ms(0), at_ms(20)), IsEmpty());
  EXPECT_THAT(gaps_ms(std::vector{at_ms(1)}, at_ms(0), at_ms(20)), IsEmpty());
}

TEST(QueueGrows, WherePromptsWaitLongerAndLonger) {
  // A prompt every 100 ms that takes 150.
  EXPECT_TRUE(queue_grows(std::vector<double>{150, 200, 250, 300, 350, 400}, 10));
  EXPECT_TRUE(queue_grows(std::vector<double>{500}, 10));
  EXPECT_TRUE(queue_grows({}, 1));
}

TEST(QueueGrows, NotWhereTheLastOnesAreOnTheirWay) {
  EXPECT_FALSE(queue_grows(std::vector<double>{150, 148, 151, 150}, 5));
  // All are done: that some waited longer does not last.
  EXPECT_FALSE(queue_grows(std::vector<double>{20, 30, 40, 50}, 4));
}

TEST(MixedLoad, SendsAPromptAtTheBeginOfEveryInterval) {
  EXPECT_EQ(num_prompts({.interval = 0.1, .loaded = 3}), 30);
  EXPECT_EQ(num_prompts({.interval = 0.1, .loaded = 3.05}), 31);
  EXPECT_EQ(num_prompts({.interval = 2, .loaded = 1}), 1);
}

TEST(MixedLoad, HasPlacesForThePromptsOfAStep) {
  EXPECT_EQ(prompts_at_a_time({.prompt_tokens = 8192}, 512), 2);  // one ends, the next begins
  EXPECT_EQ(prompts_at_a_time({.prompt_tokens = 100}, 512), 7);
}

}  // namespace
}  // namespace braid::apps
