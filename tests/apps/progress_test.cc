// Progress into a pipe: plain lines. What a terminal sees is in braid_test.cc.

#include "apps/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace braid::apps {
namespace {

using testing::MatchesRegex;

// What stderr gets while `use` works.
template <class F>
std::string stderr_of(F&& use) {
  testing::internal::CaptureStderr();
  use();
  return testing::internal::GetCapturedStderr();
}

TEST(Progress, SaysNothingWhereNothingHappened) {
  EXPECT_EQ(stderr_of([] { Progress progress; }), "");
  EXPECT_EQ(stderr_of([] { Progress().finish(true); }), "");
}

TEST(Progress, PrintsStartAndEndOfWorkThatSucceeds) {
  const std::string text = stderr_of([] {
    Progress progress;
    for (int64_t done = 0; done <= 100; ++done) progress.update("load", done, 100);
    progress.finish(true);
  });
  EXPECT_THAT(text, MatchesRegex("load: 0 %\nload: done in [0-9.]+ s\n"));
}

TEST(Progress, NeverSaysDoneOfWorkThatFailed) {
  const std::string failed = stderr_of([] {
    Progress progress;
    progress.update("load", 0, 50);
    progress.update("load", 20, 50);
    progress.finish(false);
  });
  EXPECT_THAT(failed, MatchesRegex("load: 0 %\nload: failed at 40 % after [0-9.]+ s\n"));
  // Work that is left without a word has failed, and the last step too.
  const std::string left = stderr_of([] { Progress().update("load", 50, 50); });
  EXPECT_THAT(left, MatchesRegex("load: 100 %\nload: failed at 99 % after [0-9.]+ s\n"));
}

TEST(Progress, EndsAStageWhenTheNextBegins) {
  const std::string text = stderr_of([] {
    Progress progress;
    progress.update("read", 1, 2);
    progress.update("write", 0, 0);
    progress.finish(true);
    progress.finish(false);  // nothing is open any more
  });
  EXPECT_THAT(text, MatchesRegex("read: 50 %\nread: done in [0-9.]+ s\n"
                                 "write: 0 %\nwrite: done in [0-9.]+ s\n"));
}

}  // namespace
}  // namespace braid::apps
