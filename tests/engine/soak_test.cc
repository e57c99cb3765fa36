// The engine under mixed load on the CPU; tests/gpu/engine_soak_test.cc does it on a GPU, for long.

#include "tests/engine/soak.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace braid::test {
namespace {

class EngineSoak : public testing::TestWithParam<Architecture> {};

TEST_P(EngineSoak, GivesEveryAnswerThatARequestGivesAlone) {
  const SoakReport report =
      soak({.architecture = GetParam(), .num_steps = 200, .num_cases = 16, .seed = 1});
  RecordProperty("load", report.to_string());
  EXPECT_THAT(report.faults, testing::IsEmpty());
  EXPECT_GT(report.num_cancelled, 0);
}

TEST_P(EngineSoak, GivesThemInBfloat16Too) {
  const SoakReport report = soak({.activation_dtype = ActivationDtype::kBfloat16,
                                  .architecture = GetParam(),
                                  .num_steps = 100,
                                  .num_cases = 16,
                                  .seed = 2});
  EXPECT_THAT(report.faults, testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Models, EngineSoak,
                         testing::Values(Architecture::kMixtral, Architecture::kQwen3Moe),
                         [](const auto& test) {
                           return test.param == Architecture::kMixtral ? "mixtral" : "qwen3_moe";
                         });

}  // namespace
}  // namespace braid::test
