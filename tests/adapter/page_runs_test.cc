// PageRuns: first fit, and free neighbours that become one run.

#include "adapter/page_runs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "base/check.h"

namespace braid {
namespace {

TEST(PageRuns, TakesTheFirstRunThatFits) {
  PageRuns runs(10);
  EXPECT_EQ(runs.take(3), 0);
  EXPECT_EQ(runs.take(2), 3);
  EXPECT_EQ(runs.take(5), 5);
  EXPECT_EQ(runs.take(1), std::nullopt);
  EXPECT_EQ(runs.num_free(), 0);
  runs.give_back(3, 2);
  runs.give_back(5, 5);
  EXPECT_EQ(runs.take(8), std::nullopt);
  EXPECT_EQ(runs.take(7), 3);
}

TEST(PageRuns, JoinsNeighboursOnBothSides) {
  PageRuns runs(9);
  for (int i = 0; i < 3; ++i) runs.take(3);
  runs.give_back(0, 3);
  runs.give_back(6, 3);
  EXPECT_EQ(runs.num_free(), 6);
  EXPECT_EQ(runs.take(4), std::nullopt);
  runs.give_back(3, 3);
  EXPECT_EQ(runs.take(9), 0);
}

TEST(PageRuns, HasNothingOfNothing) {
  PageRuns runs(0);
  EXPECT_EQ(runs.take(1), std::nullopt);
}

TEST(PageRuns, RefusesPagesThatWereNotTaken) {
  PageRuns runs(4);
  runs.take(2);
  EXPECT_THROW(runs.give_back(1, 2), InternalError);
  EXPECT_THROW(runs.give_back(3, 2), InternalError);
  EXPECT_THROW(runs.take(0), InternalError);
}

TEST(PageRuns, GivesNoPageTwiceAndAllBackWhole) {
  std::mt19937 random(1);
  constexpr int64_t kPages = 200;
  PageRuns runs(kPages);
  struct Run {
    int64_t first, pages;
  };
  std::vector<Run> taken;
  std::vector<bool> is_taken(kPages);
  const auto mark = [&](const Run& run, bool value) {
    for (int64_t page = run.first; page < run.first + run.pages; ++page) {
      ASSERT_NE(is_taken[static_cast<size_t>(page)], value);
      is_taken[static_cast<size_t>(page)] = value;
    }
  };
  for (int i = 0; i < 20000; ++i) {
    const int64_t pages = 1 + static_cast<int64_t>(random() % 40);
    if (const auto first = runs.take(pages)) {
      ASSERT_LE(*first + pages, kPages);
      taken.push_back({*first, pages});
      mark(taken.back(), true);
    } else {
      std::swap(taken[random() % taken.size()], taken.back());
      runs.give_back(taken.back().first, taken.back().pages);
      mark(taken.back(), false);
      taken.pop_back();
    }
    ASSERT_EQ(runs.num_free(), std::ranges::count(is_taken, false));
  }
  for (const Run& run : taken) runs.give_back(run.first, run.pages);
  EXPECT_EQ(runs.take(kPages), 0);
}

}  // namespace
}  // namespace braid
