// The 8-expert restructure of SmolLM2-135M-Instruct against the dense original.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "base/json.h"
#include "tests/model/step_runner.h"

namespace braid::test {
namespace {

namespace fs = std::filesystem;

fs::path demo_model() {
  const char* named = std::getenv("BRAID_DEMO_MODEL");
  return named != nullptr ? fs::path(named) : fs::path(BRAID_SOURCE_DIR) / "build/demo/smollm2-moe";
}

TEST(DemoModel, PicksTheTokensOfTheDenseOriginal) {
  const fs::path folder = demo_model();
  const fs::path oracle = fs::path(BRAID_TEST_DATA_DIR) / "demo/dense_argmax.json";
  if (!fs::exists(folder / "config.json")) {
    GTEST_SKIP() << folder.string() << " is not there; tools/demo/make_model.py makes it";
  }
  const Json sequences = read_json_file(oracle).value()["sequences"];
  const ModelConfig config = read_model_config(folder).value();
  const auto source = open_checkpoint(folder, config).value();
  const auto model = Model::load(config, *source).value();
  StepRunner runner(*model, std::max(1, static_cast<int32_t>(std::thread::hardware_concurrency())),
                    ops::Backend::kCpu, 16);

  const auto vocab = static_cast<int64_t>(config.vocab_size);
  int64_t equal = 0, total = 0;
  for (const Json& line : sequences) {
    const std::vector<Sequence> sequence = {{line["ids"].get<std::vector<int32_t>>()}};
    const auto want = line["argmax"].get<std::vector<int32_t>>();
    const std::vector<float> logits = runner.run(sequence, chunked(sequence, 128), nullptr).front();
    ASSERT_EQ(logits.size(), want.size() * static_cast<size_t>(vocab));
    for (size_t t = 0; t < want.size(); ++t) {
      const auto row = logits.begin() + static_cast<int64_t>(t) * vocab;
      equal += std::max_element(row, row + vocab) - row == want[t];
      ++total;
    }
  }
  ASSERT_GE(total, 3000);
  std::printf("%lld of %lld positions\n", static_cast<long long>(equal),
              static_cast<long long>(total));
  EXPECT_GE(static_cast<double>(equal), 0.995 * static_cast<double>(total));
}

}  // namespace
}  // namespace braid::test
