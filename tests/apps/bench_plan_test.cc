#include "apps/bench_plan.h"

#include <gtest/gtest.h>

namespace braid::apps {
namespace {

using Arms = std::vector<ArmShape>;

TEST(PlanArms, MeasuresTheBaseFirstAtEveryBatch) {
  const auto plan = plan_arms({1, 8}, {0, 1, 8}, 0).value();
  EXPECT_EQ(plan.arms, (Arms{{1, 0}, {1, 1}, {8, 0}, {8, 1}, {8, 8}}));
  EXPECT_EQ(plan.max_batch, 8);
  EXPECT_EQ(plan.max_adapters, 8);
}

TEST(PlanArms, SaysWhatItLeavesOut) {
  const auto plan = plan_arms({2, 8}, {4, 8}, 0).value();
  ASSERT_EQ(plan.notes.size(), 1u);
  EXPECT_EQ(plan.notes[0].find("--adapters 4,8 left out at --batch 2"), 0u);
  EXPECT_TRUE(plan_arms({8}, {8}, 8)->notes.empty());
  EXPECT_EQ(plan_arms({8}, {1}, 3)->notes[0].find("2 of 3 --lora left out"), 0u);
}

TEST(PlanArms, RefusesWhereNothingIsLeft) {
  const auto plan = plan_arms({1, 2}, {8}, 0);
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().message.find("--adapters 8 with --batch 1,2 leaves nothing"), 0u);
  EXPECT_TRUE(plan_arms({1}, {0}, 0).has_value());  // the base alone was asked for
  EXPECT_FALSE(plan_arms({0}, {1}, 0).has_value());
  EXPECT_FALSE(plan_arms({1}, {-1}, 0).has_value());
}

TEST(PlanArms, NamesTheOptionThatSetsTheSizes) {
  EXPECT_EQ(plan_arms({0}, {1}, 0, "--streams").error().message,
            "--streams takes sizes of 1 or more");
  EXPECT_EQ(
      plan_arms({2, 8}, {8}, 0, "--streams")->notes[0].find("--adapters 8 left out at --streams 2"),
      0u);
}

TEST(PlanArms, MeasuresNoArmTwice) {
  EXPECT_EQ(plan_arms({4, 4}, {2, 2, 0}, 0)->arms, (Arms{{4, 0}, {4, 2}}));
}

}  // namespace
}  // namespace braid::apps
