// The whole engine on a GPU under mixed load. A few hundred steps, or BRAID_SOAK_STEPS of each
// model:
//
//     BRAID_SOAK_STEPS=15000 braid_gpu_tests --gtest_filter='*EngineSoak*'

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

#include "tests/engine/soak.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

constexpr int kRounds = 2;

// Nothing where none were asked for, 0 for what is no number.
std::optional<int64_t> asked_steps() {
  const char* const asked = std::getenv("BRAID_SOAK_STEPS");
  if (asked == nullptr) return std::nullopt;
  return std::atoll(asked);
}

// Memory of this process that is not swapped out, pinned memory among it.
int64_t resident_bytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmRSS:")) return std::atoll(line.c_str() + 6) << 10;
  }
  return 0;
}

class GpuEngineSoak : public testing::TestWithParam<Architecture> {};

TEST_P(GpuEngineSoak, GivesEveryAnswerThatARequestGivesAloneAndKeepsNothing) {
  BRAID_NEEDS_CUDA();
  const std::optional<int64_t> asked = asked_steps();
  ASSERT_GT(asked.value_or(1), 0) << "BRAID_SOAK_STEPS is a number of steps";
  const int64_t num_steps = asked.value_or(300) / kRounds;
  int64_t free_bytes = 0, resident = 0;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    const SoakReport report = soak({.device = Device::kCuda,
                                    .architecture = GetParam(),
                                    .num_steps = num_steps,
                                    .num_cases = num_steps < 1000 ? 16 : 160,
                                    .seed = static_cast<uint64_t>(round)});
    EXPECT_THAT(report.faults, testing::IsEmpty());
    EXPECT_GT(report.num_cancelled, 0);
    EXPECT_GT(report.stats.adapter_copied_bytes, 0);
    const auto free_now = static_cast<int64_t>(device_facts().free_bytes);
    const int64_t resident_now = resident_bytes();
    // The first round has loaded kernels, and threads have their arenas.
    if (round > 0) {
      if (asked) {
        EXPECT_GE(free_now, free_bytes - (int64_t{2} << 20));
      }
      EXPECT_LE(resident_now, resident + (int64_t{64} << 20));
    }
    free_bytes = free_now, resident = resident_now;
    const std::string load = fmt::format("{}; {} MB resident, {} MB free on the GPU",
                                         report.to_string(), resident_now >> 20, free_now >> 20);
    RecordProperty(fmt::format("round_{}", round), load);
    if (asked) fmt::print("{}\n", load);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GpuEngineSoak,
                         testing::Values(Architecture::kMixtral, Architecture::kQwen3Moe),
                         [](const auto& test) {
                           return test.param == Architecture::kMixtral ? "mixtral" : "qwen3_moe";
                         });

}  // namespace
}  // namespace braid::test
