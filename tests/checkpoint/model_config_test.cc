#include "checkpoint/model_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "base/json.h"
#include "tests/checkpoint/checkpoint_files.h"

namespace braid {
namespace {

struct Refused {
  const char* name;
  std::function<void(Json&)> change;
  ErrorCode code;
  const char* message;
};

constexpr auto kCorrupt = ErrorCode::kCorrupt;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

const Refused kMixtral[] = {
    {"NoArchitecture", [](Json& c) { c.erase("architectures"); }, kCorrupt,
     "neither architectures nor model_type is there"},
    {"OtherArchitecture", [](Json& c) { c["architectures"] = {"LlamaForCausalLM"}; }, kUnsupported,
     "architecture \"LlamaForCausalLM\" is not known to this build, it knows MixtralForCausalLM "
     "and "
     "Qwen3MoeForCausalLM"},
    {"OtherModelType",
     [](Json& c) {
       c.erase("architectures");
       c["model_type"] = "llama";
     },
     kUnsupported,
     "model_type \"llama\" is not known to this build, it knows mixtral and qwen3_moe"},
    {"FieldMissing", [](Json& c) { c.erase("hidden_size"); }, kCorrupt, "hidden_size is missing"},
    {"FieldOfAnotherType", [](Json& c) { c["hidden_size"] = "32"; }, kCorrupt,
     "hidden_size is \"32\", an integer from 1 to 1048576 is expected"},
    {"FieldIsAFloat", [](Json& c) { c["vocab_size"] = 8.5; }, kCorrupt,
     "vocab_size is 8.5, an integer from 1 to 16777216 is expected"},
    {"NegativeField", [](Json& c) { c["num_hidden_layers"] = -1; }, kCorrupt,
     "num_hidden_layers is -1, an integer from 1 to 1024 is expected"},
    {"HugeField", [](Json& c) { c["intermediate_size"] = 18446744073709551615u; }, kCorrupt,
     "intermediate_size is 18446744073709551615, an integer from 1 to 1048576 is expected"},
    {"MoreActiveThanExperts", [](Json& c) { c["num_experts_per_tok"] = 3; }, kCorrupt,
     "num_experts_per_tok is 3, an integer from 1 to 2 is expected"},
    {"TooManyExpertsInAll",
     [](Json& c) {
       c["num_local_experts"] = 100000;
       c["num_hidden_layers"] = 2;
     },
     kCorrupt, "2 layers of 100000 experts are 200000 experts, at most 131072 are accepted"},
    {"HeadsDoNotDivide", [](Json& c) { c["num_attention_heads"] = 3; }, kCorrupt,
     "head_dim is missing and hidden_size = 32 is not a multiple of num_attention_heads = 3"},
    {"KvHeadsDoNotDivide", [](Json& c) { c["num_key_value_heads"] = 3; }, kCorrupt,
     "num_attention_heads is 2, a multiple of num_key_value_heads = 3 is expected"},
    {"OddHeadDim", [](Json& c) { c["head_dim"] = 15; }, kCorrupt,
     "head_dim is 15, rotary embedding needs an even one"},
    {"Bias", [](Json& c) { c["attention_bias"] = true; }, kUnsupported,
     "attention_bias true is not known to this build, it knows false"},
    {"Activation", [](Json& c) { c["hidden_act"] = "gelu"; }, kUnsupported,
     "hidden_act \"gelu\" is not known to this build, it knows \"silu\""},
    {"SlidingWindow", [](Json& c) { c["sliding_window"] = 32; }, kUnsupported,
     "sliding_window 32 is not known to this build, it knows windows of at least "
     "max_position_embeddings = 64"},
    {"Yarn",
     [](Json& c) {
       c["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}};
     },
     kUnsupported, "rope_scaling.type \"yarn\" is not known to this build, it knows \"default\""},
    {"NewYarn",
     [](Json& c) {
       c["rope_parameters"] = {{"rope_type", "llama3"}, {"rope_theta", 1e4}};
     },
     kUnsupported,
     "rope_parameters.rope_type \"llama3\" is not known to this build, it knows \"default\""},
    {"RopeSetting",
     [](Json& c) {
       c["rope_parameters"] = {{"rope_type", "default"}, {"mrope_section", {1}}};
     },
     kUnsupported,
     "rope_parameters has a setting \"mrope_section\", which this build does not know"},
    {"TwoThetas",
     [](Json& c) {
       c["rope_theta"] = 10000.0;
       c["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5000.0}};
     },
     kCorrupt, "rope_theta is 10000 and rope_parameters.rope_theta is 5000, they must agree"},
    {"NegativeTheta", [](Json& c) { c["rope_theta"] = -1; }, kCorrupt,
     "rope_theta is -1, a positive number is expected"},
    {"EpsIsText", [](Json& c) { c["rms_norm_eps"] = "1e-5"; }, kCorrupt,
     "rms_norm_eps is \"1e-5\", a positive number is expected"},
    {"TiedIsText", [](Json& c) { c["tie_word_embeddings"] = "yes"; }, kCorrupt,
     "tie_word_embeddings is \"yes\", true or false is expected"},
    {"QuantMethod",
     [](Json& c) {
       c["quantization_config"] = {{"quant_method", "gptq"}};
     },
     kUnsupported,
     "quant_method \"gptq\" is not known to this build, it knows fp8, modelopt and "
     "compressed-tensors"},
    {"Fp8PerTensor",
     [](Json& c) {
       c["quantization_config"] = {{"quant_method", "fp8"}};
     },
     kUnsupported, "fp8 weight_block_size null is not known to this build, it knows [128,128]"},
    {"Fp8OtherFormat",
     [](Json& c) {
       c["quantization_config"] = {{"quant_method", "fp8"}, {"fmt", "e5m2"}};
     },
     kUnsupported, "fp8 fmt \"e5m2\" is not known to this build, it knows \"e4m3\""},
    {"Fp8Static",
     [](Json& c) {
       c["quantization_config"] = {{"quant_method", "fp8"}, {"activation_scheme", "static"}};
     },
     kUnsupported,
     "fp8 activation_scheme \"static\" is not known to this build, it knows \"dynamic\""},
    {"ModelOptFp8",
     [](Json& c) {
       c["quantization_config"] = {{"quant_method", "modelopt"}, {"quant_algo", "FP8"}};
     },
     kUnsupported,
     "ModelOpt quant_algo \"FP8\" is not known to this build, it knows NVFP4, W4A16_NVFP4 and "
     "MIXED_PRECISION"},
    {"Int4",
     [](Json& c) {
       c["quantization_config"] = {{"quant_method", "compressed-tensors"},
                                   {"format", "pack-quantized"}};
     },
     kUnsupported,
     "compressed-tensors format \"pack-quantized\" is not known to this build, it knows "
     "\"nvfp4-pack-quantized\""},
};

const Refused kQwen3[] = {
    {"DenseLayerOutOfRange", [](Json& c) { c["mlp_only_layers"] = {2}; }, kCorrupt,
     "mlp_only_layers holds 2, layers from 0 to 1 are expected"},
    {"DenseLayerNegative", [](Json& c) { c["mlp_only_layers"] = {-1}; }, kCorrupt,
     "mlp_only_layers holds -1, layers from 0 to 1 are expected"},
    {"StepZero", [](Json& c) { c["decoder_sparse_step"] = 0; }, kCorrupt,
     "decoder_sparse_step is 0, an integer from 1 to 1024 is expected"},
    {"WindowSwitchedOn",
     [](Json& c) {
       c["use_sliding_window"] = true;
       c["sliding_window"] = 32;
     },
     kUnsupported,
     "sliding_window 32 is not known to this build, it knows windows of at least "
     "max_position_embeddings = 64"},
    {"LayerTypes",
     [](Json& c) {
       c["layer_types"] = {"full_attention", "linear_attention"};
     },
     kUnsupported, "layer_types holds \"linear_attention\", this build knows \"full_attention\""},
    {"NoDenseWidth", [](Json& c) { c.erase("intermediate_size"); }, kCorrupt,
     "intermediate_size is missing"},
};

void expect_refused(Json config, const Refused& refused) {
  refused.change(config);
  const auto parsed = parse_model_config(config, Json());
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().message, refused.message);
  EXPECT_EQ(parsed.error().code, refused.code);
}

class RefusedMixtralConfig : public testing::TestWithParam<Refused> {};
TEST_P(RefusedMixtralConfig, NamesFieldValueAndRule) {
  expect_refused(test::tiny_mixtral().config, GetParam());
}
INSTANTIATE_TEST_SUITE_P(Configs, RefusedMixtralConfig, testing::ValuesIn(kMixtral),
                         [](const auto& p) { return std::string(p.param.name); });

class RefusedQwen3Config : public testing::TestWithParam<Refused> {};
TEST_P(RefusedQwen3Config, NamesFieldValueAndRule) {
  expect_refused(test::tiny_qwen3().config, GetParam());
}
INSTANTIATE_TEST_SUITE_P(Configs, RefusedQwen3Config, testing::ValuesIn(kQwen3),
                         [](const auto& p) { return std::string(p.param.name); });

TEST(ModelConfig, TakesRopeThetaFromEitherPlace) {
  Json config = test::tiny_mixtral().config;
  EXPECT_EQ(parse_model_config(config, Json())->rope_theta, 1e6);
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  EXPECT_EQ(parse_model_config(config, Json())->rope_theta, 5e5);
  config["rope_theta"] = 5e5;
  EXPECT_EQ(parse_model_config(config, Json())->rope_theta, 5e5);
  config.erase("rope_parameters");
  config["rope_theta"] = 1234.5;
  EXPECT_EQ(parse_model_config(config, Json())->rope_theta, 1234.5);
  config["rope_scaling"] = {{"rope_type", "default"}};
  EXPECT_EQ(parse_model_config(config, Json())->rope_theta, 1234.5);
}

TEST(ModelConfig, FindsTheSparseLayersOfQwen3) {
  Json config = test::tiny_qwen3().config;
  config["num_hidden_layers"] = 6;
  config["mlp_only_layers"] = {3};
  config["decoder_sparse_step"] = 2;
  const auto parsed = parse_model_config(config, Json());
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->is_moe_layer, (std::vector<bool>{false, true, false, false, false, true}));
  EXPECT_EQ(parsed->intermediate_size, 48);
  EXPECT_FALSE(parsed->norm_topk_prob) << "the default of the model class";
}

TEST(ModelConfig, IgnoresAWindowThatIsSwitchedOff) {
  Json config = test::tiny_qwen3().config;
  config["sliding_window"] = 8;
  EXPECT_TRUE(parse_model_config(config, Json()));
}

TEST(ModelConfig, ReadsModelOptFromEitherFile) {
  const Json hf = {{"quantization", {{"quant_algo", "NVFP4"}, {"group_size", 16}}}};
  Json config = test::tiny_mixtral().config;
  EXPECT_EQ(parse_model_config(config, hf)->quant_method, QuantMethod::kModelOptNvfp4);
  config["quantization_config"] = {{"quant_method", "modelopt"}, {"quant_algo", "W4A16_NVFP4"}};
  EXPECT_EQ(parse_model_config(config, hf)->quant_method, QuantMethod::kModelOptNvfp4);
  EXPECT_EQ(parse_model_config(config, Json())->quant_method, QuantMethod::kModelOptNvfp4);
}

TEST(ModelConfig, RefusesTwoMethods) {
  const Json hf = {{"quantization", {{"quant_algo", "NVFP4"}}}};
  Json config = test::tiny_mixtral().config;
  config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  const auto parsed = parse_model_config(config, hf);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().message,
            "quantization_config and hf_quant_config.json name different methods; remove one");
}

TEST(ModelConfig, PutsTheFileInFront) {
  const test::TemporaryFolder folder;
  const auto missing = read_model_config(folder.path());
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  folder.write("config.json", "[]");
  const auto array = read_model_config(folder.path());
  ASSERT_FALSE(array);
  EXPECT_EQ(folder.without_path(array.error().message), "DIR/config.json: not a JSON object");
}

std::filesystem::path shipped(const char* name) {
  return std::filesystem::path(BRAID_SOURCE_DIR) / "configs" / name;
}

TEST(ShippedConfigs, OfMixtralAndQwen3AreUnderstood) {
  const auto mixtral = read_model_config(shipped("Mixtral-8x7B"));
  ASSERT_TRUE(mixtral) << mixtral.error().message;
  EXPECT_EQ(mixtral->num_experts, 8);
  EXPECT_EQ(mixtral->moe_intermediate_size, 14336);
  EXPECT_EQ(mixtral->head_dim, 128);
  const auto small = read_model_config(shipped("Qwen3-30B-A3B"));
  ASSERT_TRUE(small) << small.error().message;
  EXPECT_EQ(small->q_size(), 4096);
  EXPECT_TRUE(small->norm_topk_prob);
  const auto large = read_model_config(shipped("Qwen3-235B-A22B"));
  ASSERT_TRUE(large) << large.error().message;
  EXPECT_EQ(large->num_hidden_layers, 94);
}

TEST(ShippedConfigs, OfOtherArchitecturesAreRefusedByName) {
  for (const auto& [folder, architecture] :
       {std::pair("Qwen3.5-35B-A3B", "Qwen3_5MoeForConditionalGeneration"),
        std::pair("DeepSeek-V3", "DeepseekV3ForCausalLM"),
        std::pair("DeepSeek-V2-Lite", "DeepseekV2ForCausalLM"),
        std::pair("Kimi-K2.5", "KimiK25ForConditionalGeneration")}) {
    const auto config = read_model_config(shipped(folder));
    ASSERT_FALSE(config) << folder;
    EXPECT_EQ(config.error().code, kUnsupported);
    EXPECT_EQ(config.error().message,
              (shipped(folder) / "config.json").string() + ": architecture \"" + architecture +
                  "\" is not known to this build, it knows MixtralForCausalLM and "
                  "Qwen3MoeForCausalLM");
  }
}

}  // namespace
}  // namespace braid
