// validate_adapter, inspect_adapter and how their results are shown.

#include "adapter/validate.h"

#include <gtest/gtest.h>

#include "adapter/inspect.h"
#include "base/json.h"
#include "tests/adapter/adapter_builder.h"

namespace braid::test {
namespace {

const std::string kModel = BRAID_TEST_DATA_DIR "/goldens/qwen3_bf16";

TEST(ValidateAdapter, ReadsAgainstAFolderWithAConfigOnly) {
  const TempFolder model;
  std::filesystem::copy(kModel + "/config.json", model.path() / "config.json");
  const auto got = validate_adapter(kModel + "/adapters/parameters_new_peft", model.path());
  ASSERT_TRUE(got) << got.error().message;
  const Json json = to_json(got->report);
  EXPECT_EQ(json["layout"], "3-D target_parameters, current orientation, PEFT columns");
  EXPECT_EQ(json["evidence"],
            Json({"peft_version is \"0.21.0\"",
                  "shapes: A is as wide as the input, as PEFT writes since 0.19.1"}));
  EXPECT_EQ(json["min_rank"], 2);
  EXPECT_EQ(to_string(got->adapter->hash).size(), 32u);
}

TEST(ValidateAdapter, PassesOnWhatIsWrong) {
  const auto no_model = validate_adapter(kModel + "/adapters/tinker", kModel + "/nowhere");
  ASSERT_FALSE(no_model);
  EXPECT_EQ(no_model.error().code, ErrorCode::kNotFound);
  const std::string other = BRAID_TEST_DATA_DIR "/goldens/mixtral_bf16";
  EXPECT_FALSE(validate_adapter(kModel + "/adapters/peft_attention", other));
}

TEST(BaseModelName, IsTheSameInEveryPlace) {
  EXPECT_EQ(base_model_name(""), "");
  EXPECT_EQ(base_model_name("Qwen3-30B-A3B"), "Qwen3-30B-A3B");
  EXPECT_EQ(base_model_name("Qwen/Qwen3-30B-A3B"), "Qwen3-30B-A3B");
  EXPECT_EQ(base_model_name("/models/Qwen3-30B-A3B//"), "Qwen3-30B-A3B");
  EXPECT_EQ(base_model_name("/hub/models--Qwen--Qwen3-30B-A3B/snapshots/ad44e7"), "Qwen3-30B-A3B");
  EXPECT_EQ(base_model_name("models--gpt2"), "gpt2");
  EXPECT_EQ(base_model_name("/my-models--old/Qwen3-30B-A3B"), "Qwen3-30B-A3B");
}

TEST(BaseModelName, IsOfOneModelInEveryWeightFormat) {
  EXPECT_TRUE(is_same_base_model("Qwen3-30B-A3B", "qwen3-30b-a3b"));
  EXPECT_TRUE(is_same_base_model("Qwen3-30B-A3B", "Qwen3-30B-A3B-FP8"));
  EXPECT_TRUE(is_same_base_model("Qwen3-30B-A3B-NVFP4", "Qwen3-30B-A3B-FP8"));
  EXPECT_FALSE(is_same_base_model("Qwen3-30B-A3B", "Qwen3-30B-A3B-Instruct-2507"));
  EXPECT_FALSE(is_same_base_model("Qwen3-30B-A3B", "Qwen3-30B-A3BFP8"));
  EXPECT_FALSE(is_same_base_model("a", "b"));
}

TEST(RenderAdapterReport, SaysWhatWasFoundAndWhy) {
  const AdapterReport report = {.layout = "per-expert 2-D",
                                .evidence = {"keys name each expert, so nothing is ambiguous"},
                                .warnings = {"one", "two"},
                                .targets = {"q_proj x2 (rank 4)", "router x2 (rank 1 to 8)"},
                                .num_tensors = 8,
                                .num_parameters = 1000,
                                .bytes_in_file = 2'000'000,
                                .bytes_resident = 1500,
                                .num_factors = 8,
                                .num_distinct_factors = 7,
                                .min_rank = 1,
                                .max_rank = 8};
  EXPECT_EQ(render(report),
            "layout     per-expert 2-D\n"
            "because    keys name each expert, so nothing is ambiguous\n"
            "targets    q_proj x2 (rank 4)\n"
            "           router x2 (rank 1 to 8)\n"
            "parameters 1000 in 8 tensors, ranks 1 to 8\n"
            "size       2.0 MB in the file, 1.5 kB in memory (7 of 8 factors are distinct)\n"
            "warning    one\n"
            "           two\n");
}

TEST(InspectAdapter, GroupsTensorsByName) {
  AdapterBuilder builder;
  builder.add_pair("base_model.model.model.layers.0.mlp.experts.0.w1", 8, 6);
  builder.add_pair("base_model.model.model.layers.0.mlp.experts.1.w1", 8, 6);
  builder.add_pair("base_model.model.model.layers.1.self_attn.q_proj", 8, 12);
  const TempFolder folder;
  builder.write(folder.path());
  const auto summary = inspect_adapter(folder.path());
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_EQ(to_json(*summary)["tensors"][0], Json({{"name", "layers.*.mlp.experts.*.w1.lora_A"},
                                                   {"dtype", "BF16"},
                                                   {"shape", "[2, 8]"},
                                                   {"count", 2}}));
  ASSERT_EQ(summary->groups.size(), 4u);
  EXPECT_EQ(summary->num_parameters, 2 * (16 + 12) + 16 + 24);
  EXPECT_NE(render(*summary).find("LoRA adapter, r 2, lora_alpha 4\n"), std::string::npos);
}

}  // namespace
}  // namespace braid::test
