// The whole engine on a GPU under mixed load. A few hundred steps, or BRAID_SOAK_STEPS of each
// model:
//
//     BRAID_SOAK_STEPS=15000 braid_gpu_tests --gtest_filter='*EngineSoak*'

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "tests/engine/soak.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

constexpr int kRounds = 2;

int64_t num_steps() {
  const char* const asked = std::getenv("BRAID_SOAK_STEPS");
  return (asked == nullptr ? 300 : std::atoll(asked)) / kRounds;
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
  size_t free_bytes = 0;
  int64_t resident = 0;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    const SoakReport report = soak({.device = Device::kCuda,
                                    .architecture = GetParam(),
                                    .num_steps = num_steps(),
                                    .num_cases = num_steps() < 1000 ? 16 : 160,
                                    .seed = static_cast<uint64_t>(round)});
    EXPECT_THAT(report.faults, testing::IsEmpty());
    EXPECT_GT(report.num_cancelled, 0);
    EXPECT_GT(report.stats.adapter_copied_bytes, 0);
    // The first round has loaded kernels, and threads have their arenas.
    if (round > 0) {
      EXPECT_NEAR(static_cast<double>(device_facts().free_bytes), static_cast<double>(free_bytes),
                  1 << 21);
      EXPECT_LE(resident_bytes(), resident + (int64_t{64} << 20));
    } else {
      free_bytes = device_facts().free_bytes;
      resident = resident_bytes();
    }
    const std::string load =
        fmt::format("{}; {} MB resident, {} MB free on the GPU", report.to_string(),
                    resident_bytes() >> 20, device_facts().free_bytes >> 20);
    RecordProperty(fmt::format("round_{}", round), load);
    if (std::getenv("BRAID_SOAK_STEPS") != nullptr) fmt::print("{}\n", load);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GpuEngineSoak,
                         testing::Values(Architecture::kMixtral, Architecture::kQwen3Moe),
                         [](const auto& test) {
                           return test.param == Architecture::kMixtral ? "mixtral" : "qwen3_moe";
                         });

}  // namespace
}  // namespace braid::test
