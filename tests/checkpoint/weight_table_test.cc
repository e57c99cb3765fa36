#include "checkpoint/weight_table.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include "base/json.h"
#include "tests/checkpoint/checkpoint_files.h"

namespace braid {
namespace {

ModelConfig config_of(const Json& json) { return *parse_model_config(json, Json()); }

std::string line(const WeightSpec& spec) {
  return spec.module + " " + std::to_string(spec.rows) + "x" + std::to_string(spec.cols);
}

TEST(WeightTable, OfMixtralHasItsNamesAndShapes) {
  std::vector<std::string> lines;
  for (const auto& spec : weight_table(config_of(test::tiny_mixtral().config))) {
    lines.push_back(line(spec));
  }
  const std::string layer = "model.layers.0.";
  const std::string experts = layer + "block_sparse_moe.experts.";
  EXPECT_EQ(lines,
            (std::vector<std::string>{
                "model.embed_tokens 8x32", layer + "input_layernorm 32x0",
                layer + "self_attn.q_proj 32x32", layer + "self_attn.k_proj 16x32",
                layer + "self_attn.v_proj 16x32", layer + "self_attn.o_proj 32x32",
                layer + "post_attention_layernorm 32x0", layer + "block_sparse_moe.gate 2x32",
                experts + "0.w1 16x32", experts + "0.w3 16x32", experts + "0.w2 32x16",
                experts + "1.w1 16x32", experts + "1.w3 16x32", experts + "1.w2 32x16",
                "model.norm 32x0", "lm_head 8x32"}));
}

TEST(WeightTable, OfQwen3HasDenseLayersAndNormsOfHeads) {
  std::set<std::string> lines;
  for (const auto& spec : weight_table(config_of(test::tiny_qwen3().config))) {
    lines.insert(line(spec));
  }
  for (const char* expected :
       {"model.layers.0.mlp.gate_proj 48x32", "model.layers.0.mlp.down_proj 32x48",
        "model.layers.0.self_attn.q_norm 16x0", "model.layers.1.mlp.gate 2x32",
        "model.layers.1.mlp.experts.1.down_proj 32x16"}) {
    EXPECT_TRUE(lines.contains(expected)) << expected;
  }
  EXPECT_FALSE(lines.contains("model.layers.0.mlp.gate 2x32"));
}

TEST(WeightTable, LeavesOutATiedHead) {
  Json json = test::tiny_mixtral().config;
  json["tie_word_embeddings"] = true;
  for (const auto& spec : weight_table(config_of(json))) {
    EXPECT_NE(spec.role, WeightRole::kLmHead);
  }
}

TEST(WeightTable, CountsTheParametersOfReleasedModels) {
  const auto count = [](const char* folder) {
    const auto config =
        read_model_config(std::filesystem::path(BRAID_SOURCE_DIR) / "configs" / folder);
    int64_t n = 0;
    for (const auto& spec : weight_table(*config)) {
      n += int64_t{spec.rows} * (spec.cols > 0 ? spec.cols : 1);
    }
    return n;
  };
  // As the model cards say: 46.7, 30.5 and 235 billion.
  EXPECT_EQ(count("Mixtral-8x7B"), 46'702'792'704);
  EXPECT_EQ(count("Qwen3-30B-A3B"), 30'532'122'624);
  EXPECT_EQ(count("Qwen3-235B-A22B"), 235'093'634'560);
}

}  // namespace
}  // namespace braid
