// Every adapter of the model goldens is read, by the file's own evidence or the override that
// sequences.json gives for it.

#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "adapter/peft_reader.h"
#include "base/json.h"
#include "checkpoint/model_config.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> golden_models() {
  std::vector<fs::path> models;
  for (const auto& entry : fs::directory_iterator(fs::path(BRAID_TEST_DATA_DIR) / "goldens")) {
    if (fs::exists(entry.path() / "adapters")) models.push_back(entry.path());
  }
  return models;
}

TEST(GoldenAdapters, AllAreRead) {
  int num_adapters = 0;
  for (const fs::path& model : golden_models()) {
    const auto config = read_model_config(model);
    ASSERT_TRUE(config) << config.error().message;
    const auto sequences = read_json_file(model / "sequences.json");
    ASSERT_TRUE(sequences) << sequences.error().message;
    for (const auto& entry : fs::directory_iterator(model / "adapters")) {
      const std::string name = entry.path().filename();
      SCOPED_TRACE(entry.path().string());
      AdapterReadOptions options = {.name = name};
      const Json overrides = sequences->value("overrides", Json::object());
      if (overrides.contains(name) && overrides[name].contains("expert_layout")) {
        options.expert_layout = overrides[name]["expert_layout"] == "grouped"
                                    ? ExpertLayout::kGrouped
                                    : ExpertLayout::kPeft;
      }
      const auto read = read_adapter(entry.path(), *config, options);
      ASSERT_TRUE(read) << read.error().message;
      EXPECT_GT(read->report.num_factors, 0);
      EXPECT_LE(read->report.num_distinct_factors, read->report.num_factors);
      for (const std::string& warning : read->report.warnings) {
        const bool is_expected = warning.find("is the copy of the frozen") != warning.npos ||
                                 warning.starts_with("--lora-expert-layout overrides") ||
                                 (name == "patterns" && warning.starts_with("target_modules"));
        EXPECT_TRUE(is_expected) << warning;
      }
      ++num_adapters;
    }
  }
  EXPECT_GE(num_adapters, 77);
}

}  // namespace
}  // namespace braid
