#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/weight_source.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

// What the folder's quantised and other matrices are stored in.
struct Golden {
  const char* folder;
  WeightFormat expert_format;
  WeightFormat attention_format;
};

class GoldenCheckpoints : public testing::TestWithParam<Golden> {};

TEST_P(GoldenCheckpoints, OpenWithEveryWeightInItsFormat) {
  const fs::path folder = fs::path(BRAID_TEST_DATA_DIR) / "goldens" / GetParam().folder;
  const auto config = read_model_config(folder);
  ASSERT_TRUE(config) << config.error().message;
  const auto source = open_checkpoint(folder, *config);
  ASSERT_TRUE(source) << source.error().message;
  for (const WeightSpec& spec : weight_table(*config)) {
    SCOPED_TRACE(spec.module);
    if (spec.cols == 0) {
      const auto values = (*source)->vector(spec);
      ASSERT_TRUE(values) << values.error().message;
      EXPECT_EQ(values->size(), static_cast<size_t>(spec.rows));
      continue;
    }
    const auto weight = (*source)->matrix(spec);
    ASSERT_TRUE(weight) << weight.error().message;
    const WeightFormat expected = spec.expert >= 0                  ? GetParam().expert_format
                                  : is_usually_quantised(spec.role) ? GetParam().attention_format
                                                                    : WeightFormat::kBf16;
    EXPECT_EQ(name(weight->matrix.format), name(expected));
    std::vector<float> row(static_cast<size_t>(spec.cols), NAN);
    for (int32_t i = 0; i < spec.rows; ++i) {
      dequantize_row(weight->matrix, i, row.data());
      for (const float x : row) ASSERT_TRUE(std::isfinite(x)) << "row " << i;
    }
  }
}

using enum WeightFormat;
INSTANTIATE_TEST_SUITE_P(All, GoldenCheckpoints,
                         testing::Values(Golden{"mixtral_bf16", kBf16, kBf16},
                                         Golden{"mixtral_fp8", kFp8Block128, kFp8Block128},
                                         Golden{"mixtral_nvfp4_compressed", kNvfp4, kNvfp4},
                                         Golden{"mixtral_nvfp4_modelopt", kNvfp4, kBf16},
                                         Golden{"qwen3_bf16", kBf16, kBf16},
                                         Golden{"qwen3_dense_layers", kBf16, kBf16},
                                         Golden{"qwen3_fp8", kFp8Block128, kFp8Block128},
                                         Golden{"qwen3_nvfp4_compressed", kNvfp4, kNvfp4},
                                         Golden{"qwen3_nvfp4_modelopt", kNvfp4, kNvfp4}),
                         [](const auto& param_info) {
                           return std::string(param_info.param.folder);
                         });

TEST(GoldenCheckpointFolders, AreAllInTheList) {
  size_t folders = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(BRAID_TEST_DATA_DIR) / "goldens")) {
    folders += fs::exists(entry.path() / "config.json") ? 1 : 0;
  }
  EXPECT_EQ(folders, 9u);
}

}  // namespace
}  // namespace braid
