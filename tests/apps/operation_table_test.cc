#include "apps/operation_table.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace braid::apps {
namespace {

const OperationTimes kBefore = {.steps = 1, .operations = {{"norm", 0.5}, {"qkv", 0.25}}};
const OperationTimes kNow = {.steps = 5,
                             .operations = {{"norm", 0.512}, {"qkv", 0.278}, {"lm_head", 0.04}}};

TEST(OperationTable, SetsTheArmsSideBySide) {
  const OperationTimes with_router = {.steps = 1, .operations = {{"router", 0.002}}};
  EXPECT_EQ(operation_table({{.heading = "base", .times = since(kNow, kBefore), .step_ms = 15.5},
                             {.heading = "1 adapter", .times = with_router, .step_ms = 1.75}}),
            "operation    base   share  1 adapter    share\n"
            "---------------------------------------------\n"
            "norm        3.000  15.0 %      0.000    0.0 %\n"
            "qkv         7.000  35.0 %      0.000    0.0 %\n"
            "lm_head    10.000  50.0 %      0.000    0.0 %\n"
            "router      0.000   0.0 %      2.000  100.0 %\n"
            "sum        20.000              2.000\n"
            "the step   15.500              1.750\n");
}

TEST(OperationTable, HasNothingOfNoSteps) {
  EXPECT_EQ(operation_table({{.heading = "base", .times = {}, .step_ms = 1}}),
            "operation   base  share\n"
            "-----------------------\n"
            "sum        0.000\n"
            "the step   1.000\n");
}

TEST(OperationTable, HasTheOrderOfAStepInItsJson) {
  const Json json = operations_json(since(kNow, kBefore));
  ASSERT_EQ(json.size(), 3u);
  EXPECT_EQ(json[2]["operation"], "lm_head");
  EXPECT_NEAR(json[0]["ms"].get<double>(), 3.0, 1e-9);
}

}  // namespace
}  // namespace braid::apps
