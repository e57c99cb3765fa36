// Broken and tricky adapters: each is refused with one sentence that names the thing, its value and
// what helps. DIR stands for the adapter's folder.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <ostream>

#include "adapter/peft_reader.h"
#include "base/file.h"
#include "base/json.h"
#include "tests/adapter/adapter_builder.h"

namespace braid::test {
namespace {

using Floats = std::vector<float>;
const std::string kPrefix = "base_model.model.model.layers.0.";
const std::string kKey = kPrefix + "self_attn.k_proj";

struct BrokenCase {
  std::string name;
  std::function<void(AdapterBuilder&)> change;  // of an adapter with one good pair on k_proj
  ErrorCode code;
  std::string message;
  // After the folder was written.
  std::function<void(const std::filesystem::path&)> spoil = {};

  friend void PrintTo(const BrokenCase& broken, std::ostream* out) { *out << broken.name; }
};

std::function<void(AdapterBuilder&)> set_key(const std::string& key, const Json& value) {
  return [=](AdapterBuilder& b) { b.config[key] = value; };
}

void nothing(AdapterBuilder&) {}

void write_text(const std::filesystem::path& path, const std::string& text) {
  ASSERT_TRUE(write_file(path, text));
}

// 3-D factors of rank 2 per expert.
void add_3d(AdapterBuilder& b, bool swapped) {
  b.tensors.clear();
  b.config["target_parameters"] = {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"};
  b.add_pair(kPrefix + "mlp.experts.base_layer", swapped ? 12 : 8, swapped ? 8 : 12, 8);
  b.add_pair(kPrefix + "mlp.experts", swapped ? 8 : 6, swapped ? 6 : 8, 8);
}

constexpr auto kArgument = ErrorCode::kInvalidArgument;
constexpr auto kCorrupt = ErrorCode::kCorrupt;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

std::vector<BrokenCase> config_cases() {
  const std::string file = "DIR/adapter_config.json: ";
  const auto not_supported = [&](const std::string& key, const Json& value,
                                 const std::string& remedy) {
    return BrokenCase{key, set_key(key, value), kUnsupported,
                      file + key + " = " + value.dump() + " is not supported; " + remedy};
  };
  return {
      not_supported("use_dora", true,
                    "train with use_dora=false, or merge the adapter into its base model"),
      not_supported("use_qalora", true, "train with use_qalora=false"),
      not_supported("use_bdlora", {{"target_modules_bd_a", {"q_proj"}}},
                    "train with use_bdlora unset"),
      not_supported("lora_bias", true, "train with lora_bias=false"),
      not_supported("fan_in_fan_out", true,
                    "only Conv1D models store weights that way; set it to false"),
      not_supported("modules_to_save", {"lm_head"},
                    "train with modules_to_save=null and put LoRA on these modules instead, or "
                    "merge the adapter"),
      not_supported("trainable_token_indices", {5},
                    "train with trainable_token_indices=null, or put LoRA on embed_tokens"),
      not_supported("layer_replication", {{0, 2}},
                    "merge the adapter into a base model with the replicated layers"),
      not_supported("alora_invocation_tokens", {1, 2},
                    "train an ordinary LoRA: activated LoRA is not applied"),
      not_supported("arrow_config", {{"top_k", 3}},
                    "serve the adapters one by one: arrow routing is not applied"),
      {"bias", set_key("bias", "lora_only"), kUnsupported,
       file + "bias = \"lora_only\" is not supported; train with bias=\"none\", trained biases "
              "cannot be applied"},
      {"pissa", set_key("init_lora_weights", "pissa_niter_4"), kUnsupported,
       file + "init_lora_weights = \"pissa_niter_4\" changes the base model and this adapter was "
              "not converted; save it with "
              "save_pretrained(path_initial_model_for_weight_conversion=...)"},
      {"peft_type", set_key("peft_type", "IA3"), kUnsupported,
       file + "peft_type is \"IA3\", only \"LORA\" adapters are accepted"},
      {"no_peft_type", [](AdapterBuilder& b) { b.config.erase("peft_type"); }, kUnsupported,
       file + "peft_type is absent, only \"LORA\" adapters are accepted"},
      {"no_r", [](AdapterBuilder& b) { b.config.erase("r"); }, kCorrupt,
       file + "r is missing, need a whole number from 1 up"},
      {"r_zero", set_key("r", 0), kCorrupt, file + "r is 0, need a whole number from 1 up"},
      {"r_float", set_key("r", 2.5), kCorrupt, file + "r is 2.5, need a whole number from 1 up"},
      {"r_text", set_key("r", "2"), kCorrupt, file + "r is \"2\", need a whole number from 1 up"},
      {"no_alpha", [](AdapterBuilder& b) { b.config.erase("lora_alpha"); }, kCorrupt,
       file + "lora_alpha is missing, need a number"},
      {"alpha_null", set_key("lora_alpha", nullptr), kCorrupt,
       file + "lora_alpha is null, need a finite number"},
      {"alpha_huge", set_key("lora_alpha", 1e300), kCorrupt,
       "DIR: module model.layers.0.self_attn.k_proj has lora_alpha = 1e+300, need one within float "
       "range"},
      {"rslora_text", set_key("use_rslora", "yes"), kCorrupt,
       file + "use_rslora is \"yes\", need true or false"},
      {"rank_pattern_list", set_key("rank_pattern", {1, 2}), kCorrupt,
       file + "rank_pattern is [1,2], need an object of module pattern to number"},
      {"rank_pattern_value", set_key("rank_pattern", {{"k_proj", -1}}), kCorrupt,
       file + "rank_pattern[\"k_proj\"] is -1, need a whole number from 1 up"},
      {"alpha_pattern_value", set_key("alpha_pattern", {{"k_proj", "8"}}), kCorrupt,
       file + "alpha_pattern[\"k_proj\"] is \"8\", need a finite number"},
      {"pattern_regex", set_key("rank_pattern", {{"(k_proj", 2}}), kCorrupt,
       "DIR: rank_pattern[\"(k_proj\"] is not a regular expression: missing closing parenthesis"},
      {"pattern_bomb", set_key("rank_pattern", {{"(.|..)*[0-9]", 2}}), kUnsupported,
       "DIR: rank_pattern[\"(.|..)*[0-9]\"] needs too many steps to match "
       "\"model.layers.0.self_attn.k_proj\"; write a simpler key"},
      {"target_modules", set_key("target_modules", {1}), kCorrupt,
       file + "target_modules is [1], need a list of names"},
      {"exclude_modules", set_key("exclude_modules", {{"q_proj", 1}}), kCorrupt,
       file + "exclude_modules is {\"q_proj\":1}, need a list of names"},
      {"target_parameters", set_key("target_parameters", "mlp.experts.down_proj"), kCorrupt,
       file + "target_parameters is \"mlp.experts.down_proj\", need a list of names"},
      {"layers_pattern", set_key("layers_pattern", 3), kCorrupt,
       file + "layers_pattern is 3, need a list of names"},
      {"layers_to_transform", set_key("layers_to_transform", {0, "1"}), kCorrupt,
       file + "layers_to_transform is [0,\"1\"], need a layer's number or a list of them"},
      {"layers_to_transform_negative", set_key("layers_to_transform", -1), kCorrupt,
       file + "layers_to_transform is -1, need a layer's number or a list of them"},
      {"unknown_switch", set_key("use_something", true), kUnsupported,
       file +
           "\"use_something\" = true is not known to this build and may change the result; remove "
           "the key if it has no effect on inference"},
      {"not_json", nothing, kCorrupt,
       file + "not valid JSON at byte 2: parse error at line 1, column 2: syntax error while "
              "parsing object key - invalid literal; "
              "last read: '{r'; expected string literal",
       [](const auto& dir) { write_text(dir / "adapter_config.json", "{r: 2}"); }},
      {"twice", nothing, kCorrupt, file + "key \"r\" stands twice in one object",
       [](const auto& dir) { write_text(dir / "adapter_config.json", "{\"r\": 2, \"r\": 3}"); }},
      {"array", nothing, kCorrupt, file + "the file holds [], need an object",
       [](const auto& dir) { write_text(dir / "adapter_config.json", "[]"); }},
  };
}

std::vector<BrokenCase> tensor_cases() {
  const auto rename = [](const std::string& from, const std::string& to) {
    return [=](AdapterBuilder& b) {
      auto node = b.tensors.extract(from);
      node.key() = to;
      b.tensors.insert(std::move(node));
    };
  };
  const auto add = [](const std::string& name, Shape shape, Dtype dtype = Dtype::kBf16) {
    return [=](AdapterBuilder& b) { b.add(name, shape, dtype); };
  };
  const auto put = [](float value, Dtype dtype) {
    return [=](AdapterBuilder& b) {
      Floats values(16, 1);
      values[11] = value;
      b.add(kKey + ".lora_A.weight", {2, 8}, values, dtype);
    };
  };
  const std::string a = "DIR: tensor " + kKey + ".lora_A.weight ";
  const std::string other = "; was the adapter trained on another model?";
  const std::string only =
      " belongs to a module that this build cannot adapt; it knows self_attn.{q,k,v,o}_proj, the "
      "router, dense and expert gate/up/down projections, lm_head and embed_tokens";
  const float infinity = std::numeric_limits<float>::infinity();
  return {
      {"no_b", [](AdapterBuilder& b) { b.tensors.erase(kKey + ".lora_B.weight"); }, kCorrupt,
       a + "has no partner: the lora_B of model.layers.0.self_attn.k_proj is missing from the "
           "file"},
      {"no_a", [](AdapterBuilder& b) { b.tensors.erase(kKey + ".lora_A.weight"); }, kCorrupt,
       "DIR: tensor " + kKey +
           ".lora_B.weight has no partner: the lora_A of "
           "model.layers.0.self_attn.k_proj is missing from the file"},
      {"empty", [](AdapterBuilder& b) { b.tensors.clear(); }, kCorrupt,
       "DIR: the adapter holds no LoRA factors, need at least one pair"},
      {"wide_a", add(kKey + ".lora_A.weight", {2, 9}), kArgument,
       a + "has shape [2, 9], this base model needs [rank, 8]" + other},
      {"transposed_a", add(kKey + ".lora_A.weight", {8, 2}), kArgument,
       a + "has shape [8, 2], this base model needs [rank, 8]" + other},
      {"tall_b", add(kKey + ".lora_B.weight", {5, 2}), kArgument,
       "DIR: tensor " + kKey + ".lora_B.weight has shape [5, 2], this base model needs [4, rank]" +
           other},
      {"flat_a", add(kKey + ".lora_A.weight", {16}), kArgument,
       a + "has shape [16], this base model needs [rank, 8]" + other},
      {"rank_of_b", add(kKey + ".lora_B.weight", {4, 3}), kCorrupt,
       a + "has rank 2, but tensor " + kKey + ".lora_B.weight has rank 3"},
      {"rank_of_config", set_key("r", 4), kCorrupt,
       a + "has rank 2, but adapter_config.json gives r = 4; the scaling would be unclear, correct "
           "r "
           "or add the module to rank_pattern"},
      {"rank_of_pattern", set_key("rank_pattern", {{"k_proj", 1}}), kCorrupt,
       a + "has rank 2, but adapter_config.json gives a rank_pattern = 1; the scaling would be "
           "unclear, correct r or add the module to rank_pattern"},
      {"rank_limit", [](AdapterBuilder& b) { b.add_pair(kKey, 8, 4, 65); }, kArgument,
       a + "has rank 65, ranks up to max_lora_rank = 64 are accepted"},
      {"rank_zero", add(kKey + ".lora_A.weight", {0, 8}), kCorrupt,
       a + "has shape [0, 8], need sizes of at least 1"},
      {"nan", put(NAN, Dtype::kBf16), kCorrupt,
       a + "holds nan at [1, 3], need finite values; the training run diverged or the file is "
           "damaged"},
      {"inf", put(-infinity, Dtype::kF16), kCorrupt,
       a + "holds -inf at [1, 3], need finite values; the training run diverged or the file is "
           "damaged"},
      {"too_large", put(3.4e38f, Dtype::kF32), kCorrupt,
       a + "holds 3.4e+38 at [1, 3], which is beyond the range of BF16"},
      {"dtype", add(kKey + ".lora_A.weight", {2, 8}, Dtype::kI8), kUnsupported,
       a + "has dtype I8, LoRA factors are accepted in F32, F16 and BF16"},
      {"dora", add(kKey + ".lora_magnitude_vector", {4}), kUnsupported,
       "DIR: tensor " + kKey +
           ".lora_magnitude_vector is a DoRA magnitude, which is not supported; "
           "train with use_dora=false"},
      {"bias_tensor", add(kKey + ".bias", {4}), kUnsupported,
       "DIR: tensor " + kKey +
           ".bias is a trained bias, which is not supported; train with "
           "bias=\"none\""},
      {"saved_module", add("base_model.model.lm_head.weight", {16, 8}), kUnsupported,
       "DIR: tensor base_model.model.lm_head.weight is a whole saved module, not a LoRA factor; "
       "train "
       "without modules_to_save and save with save_embedding_layers=False"},
      {"odd_name", add("something", {4}), kUnsupported,
       "DIR: tensor something is not of a known kind, need names that end in lora_A.weight, "
       "lora_B.weight, lora_embedding_A or lora_embedding_B"},
      {"unknown_module",
       rename(kKey + ".lora_A.weight", kPrefix + "self_attn.kv_b_proj.lora_A.weight"), kUnsupported,
       "DIR: tensor " + kPrefix + "self_attn.kv_b_proj.lora_A.weight" + only},
      {"shared_expert", add(kPrefix + "mlp.shared_expert.up_proj.lora_A.weight", {2, 8}),
       kUnsupported, "DIR: tensor " + kPrefix + "mlp.shared_expert.up_proj.lora_A.weight" + only},
      {"vision", add("base_model.model.visual.blocks.0.attn.qkv.lora_A.weight", {2, 8}),
       kUnsupported, "DIR: tensor base_model.model.visual.blocks.0.attn.qkv.lora_A.weight" + only},
      {"leading_zero", add("model.layers.00.self_attn.q_proj.lora_A.weight", {2, 8}), kUnsupported,
       "DIR: tensor model.layers.00.self_attn.q_proj.lora_A.weight" + only},
      {"layer", add("model.layers.2.self_attn.q_proj.lora_A.weight", {2, 8}), kArgument,
       "DIR: tensor model.layers.2.self_attn.q_proj.lora_A.weight is of layer 2, this base model "
       "has "
       "layers 0 to 1"},
      {"layer_overflow", add("model.layers.4294967296.self_attn.q_proj.lora_A.weight", {2, 8}),
       kUnsupported, "DIR: tensor model.layers.4294967296.self_attn.q_proj.lora_A.weight" + only},
      {"expert", add(kPrefix + "mlp.experts.4.w1.lora_A.weight", {2, 8}), kArgument,
       "DIR: tensor " + kPrefix +
           "mlp.experts.4.w1.lora_A.weight is of expert 4, this base model has "
           "experts 0 to 3"},
      {"experts_of_dense", add("model.layers.1.mlp.experts.0.w1.lora_A.weight", {2, 8}), kArgument,
       "DIR: tensor model.layers.1.mlp.experts.0.w1.lora_A.weight adapts experts or a router, but "
       "layer 1 of this base model is dense"},
      {"dense_of_experts", add(kPrefix + "mlp.up_proj.lora_A.weight", {2, 8}), kArgument,
       "DIR: tensor " + kPrefix +
           "mlp.up_proj.lora_A.weight adapts a dense MLP, but layer 0 of this "
           "base model has 4 experts"},
      {"two_names", add("model.layers.0.self_attn.k_proj.lora_A.weight", {2, 8}), kCorrupt,
       "DIR: tensors " + kKey +
           ".lora_A.weight and model.layers.0.self_attn.k_proj.lora_A.weight are "
           "the same factor under two names, need one of them"},
      {"linear_on_embedding", add("model.embed_tokens.lora_A.weight", {2, 16}), kUnsupported,
       "DIR: tensor model.embed_tokens.lora_A.weight has the wrong kind of factor, need "
       "lora_embedding_A and lora_embedding_B on embed_tokens"},
      {"resized", add("base_model.model.model.embed_tokens.base_layer.weight", {17, 8}),
       kUnsupported,
       "DIR: tensor base_model.model.model.embed_tokens.base_layer.weight has shape [17, 8], this "
       "base model's table is [16, 8]: an adapter with a resized vocabulary is not supported"},
  };
}

std::vector<BrokenCase> expert_cases() {
  const std::string conflict = "DIR: 3-D expert factors: the evidence conflicts: ";
  const std::string pass = "; pass --lora-expert-layout peft or --lora-expert-layout grouped";
  const std::string unsloth =
      "DIR: 3-D expert factors: the config, its base model or the model card names Unsloth, whose "
      "column order changed in September 2026" +
      pass;
  const std::string current = "A is as wide as the input, as PEFT writes since 0.19.1";
  const std::string swapped =
      "in and out are swapped (A is as wide as the output, as PEFT before 0.19.1 wrote)";
  const auto version = [](bool is_swapped, const std::string& peft) {
    return [=](AdapterBuilder& b) {
      add_3d(b, is_swapped);
      b.config["peft_version"] = peft;
    };
  };
  const std::string experts = "DIR: tensor " + kPrefix + "mlp.experts.lora_A.weight ";
  return {
      {"new_peft_swapped", version(true, "0.19.1"), kArgument,
       conflict + "peft_version is \"0.19.1\", but " + swapped + pass},
      {"old_peft_current", version(false, "0.18.0"), kArgument,
       conflict + "peft_version is \"0.18.0\", but " + current + pass},
      {"megatron_current", [](AdapterBuilder& b) { add_3d(b, false); }, kArgument,
       conflict +
           "target_parameters with a short key set (4 keys) and no peft_version: "
           "Megatron-Bridge, but " +
           current + pass},
      {"peft_017_current",
       [](AdapterBuilder& b) {
         add_3d(b, false);
         b.config["layers_to_transform"] = nullptr;
       },
       kArgument,
       conflict +
           "target_parameters with PEFT's full key set but no peft_version: PEFT 0.17, but " +
           current + pass},
      {"unsloth",
       [](AdapterBuilder& b) {
         add_3d(b, false);
         b.config["peft_version"] = "0.19.1";
         b.config["auto_mapping"] = {{"unsloth_fixed", true}};
       },
       kArgument, unsloth},
      {"unsloth_card", version(false, "0.19.1"), kArgument, unsloth,
       [](const auto& dir) { write_text(dir / "README.md", "---\ntags: [Unsloth]\n---\n"); }},
      // Nothing but the base model tells: what Unsloth saves through PEFT, without its card.
      {"unsloth_base",
       [](AdapterBuilder& b) {
         add_3d(b, false);
         b.config["peft_version"] = "0.19.1";
         b.config["base_model_name_or_path"] = "Unsloth/Qwen3-30B-A3B-Instruct-2507";
       },
       kArgument, unsloth},
      {"unsloth_base_path",
       [](AdapterBuilder& b) {
         add_3d(b, true);
         b.config["base_model_name_or_path"] = "/models/models--unsloth--Qwen3-30B-A3B/snapshots/1";
       },
       kArgument, unsloth},
      {"no_evidence",
       [](AdapterBuilder& b) {
         add_3d(b, false);
         b.config.erase("target_parameters");
       },
       kArgument,
       "DIR: 3-D expert factors: nothing in adapter_config.json tells the column order of B" +
           pass},
      {"mixed_orientation",
       [](AdapterBuilder& b) {
         add_3d(b, false);
         b.add_pair(kPrefix + "mlp.experts", 8, 6, 8);
       },
       kArgument,
       "DIR: tensor " + kPrefix +
           "mlp.experts.base_layer.lora_A.weight has in and out in place, but "
           "other 3-D expert factors of the file do not; the evidence conflicts, save the adapter "
           "anew "
           "with one version of PEFT"},
      {"rows_of_experts", [](AdapterBuilder& b) { b.add_pair(kPrefix + "mlp.experts", 6, 8, 10); },
       kArgument, experts + "has 10 rows, need a multiple of the base model's 4 experts"},
      {"rows_and_columns",
       [](AdapterBuilder& b) {
         b.add_pair(kPrefix + "mlp.experts", 6, 8, 8);
         b.add(kPrefix + "mlp.experts.lora_B.weight", {8, 4});
       },
       kCorrupt,
       experts + "has 8 rows, but tensor " + kPrefix + "mlp.experts.lora_B.weight has 4 columns"},
      {"width_of_experts", [](AdapterBuilder& b) { b.add_pair(kPrefix + "mlp.experts", 7, 8, 8); },
       kArgument,
       experts + "has shape [8, 7], this base model needs [4 rank, in] with lora_B [out, 4 rank], "
                 "(in, out) = (8, 12) for gate_up_proj or (6, 8) for down_proj, or swapped (lora_B "
                 "is [8, 8]); was the adapter trained on another model?"},
      {"rank_per_expert",
       [](AdapterBuilder& b) {
         b.config["r"] = 8;
         b.tensors.clear();
         b.add_pair(kPrefix + "mlp.experts", 6, 8, 4);
       },
       kCorrupt,
       experts + "has rank 1 per expert, but adapter_config.json gives r = 8; the scaling would be "
                 "unclear, correct r or add the module to rank_pattern"},
      {"lead",
       [](AdapterBuilder& b) {
         b.add(kPrefix + "mlp.experts.w1.lora_A.weight", {3, 2, 8});
         b.add(kPrefix + "mlp.experts.w1.lora_B.weight", {4, 6, 2});
       },
       kArgument,
       "DIR: tensor " + kPrefix +
           "mlp.experts.w1.lora_A.weight has shape [3, 2, 8], this base model "
           "needs [1 or 4, rank, 8]; was the adapter trained on another model?"},
      {"two_layouts",
       [](AdapterBuilder& b) {
         b.add_pair(kPrefix + "mlp.experts.1.w2", 6, 8, 2);
         b.add(kPrefix + "mlp.experts.w2.lora_A.weight", {4, 2, 6});
         b.add(kPrefix + "mlp.experts.w2.lora_B.weight", {4, 8, 2});
       },
       kCorrupt,
       "DIR: tensors " + kPrefix + "mlp.experts.w2.lora_A.weight and " + kPrefix +
           "mlp.experts.1.w2.lora_A.weight adapt the same matrix of the base model, need one pair "
           "for "
           "each"},
      {"two_spellings",
       [](AdapterBuilder& b) {
         b.add_pair(kPrefix + "mlp.experts.1.w1", 8, 6, 2);
         b.add_pair(kPrefix + "mlp.experts.1.gate_up_proj", 8, 12, 2);
       },
       kCorrupt,
       "DIR: tensors " + kPrefix + "mlp.experts.1.w1.lora_A.weight and " + kPrefix +
           "mlp.experts.1.gate_up_proj.lora_A.weight adapt the same matrix of the base model, need "
           "one pair for each"},
  };
}

class BrokenAdapter : public testing::TestWithParam<BrokenCase> {};

TEST_P(BrokenAdapter, IsRefusedInOneSentence) {
  const BrokenCase& broken = GetParam();
  AdapterBuilder builder;
  builder.add_pair(kKey, 8, 4);
  broken.change(builder);
  const TempFolder folder;
  builder.write(folder.path());
  if (broken.spoil) broken.spoil(folder.path());
  const auto got = read_adapter(folder.path(), tiny_model(), {.max_lora_rank = 64});
  ASSERT_FALSE(got);
  std::string message = got.error().message;
  const std::string dir = folder.path().string();
  for (size_t at; (at = message.find(dir)) != message.npos;) message.replace(at, dir.size(), "DIR");
  EXPECT_EQ(message, broken.message);
  EXPECT_EQ(got.error().code, broken.code);
}

const auto kName = [](const auto& broken) { return broken.param.name; };
INSTANTIATE_TEST_SUITE_P(Config, BrokenAdapter, testing::ValuesIn(config_cases()), kName);
INSTANTIATE_TEST_SUITE_P(Tensors, BrokenAdapter, testing::ValuesIn(tensor_cases()), kName);
INSTANTIATE_TEST_SUITE_P(Experts, BrokenAdapter, testing::ValuesIn(expert_cases()), kName);

TEST(BrokenAdapterFolder, WithoutConfigOrTensorsIsNotFound) {
  AdapterBuilder builder;
  builder.add_pair(kKey, 8, 4);
  const TempFolder folder;
  EXPECT_EQ(read_adapter(folder.path(), tiny_model(), {}).error().code, ErrorCode::kNotFound);
  builder.write(folder.path());
  ASSERT_TRUE(read_adapter(folder.path(), tiny_model(), {}));
  std::filesystem::remove(folder.path() / "adapter_model.safetensors");
  EXPECT_EQ(read_adapter(folder.path(), tiny_model(), {}).error().code, ErrorCode::kNotFound);
  write_text(folder.path() / "adapter_model.bin", "pickle");
  const auto pickle = read_adapter(folder.path(), tiny_model(), {.name = "sql"});
  EXPECT_EQ(pickle.error().message,
            "adapter \"sql\": " + (folder.path() / "adapter_model.bin").string() +
                " is a pickle, which can run code when it is opened; save the adapter with "
                "safe_serialization=True to get adapter_model.safetensors");
}

TEST(BrokenAdapterFolder, WithTruncatedTensorsIsCorrupt) {
  AdapterBuilder builder;
  builder.add_pair(kKey, 8, 4);
  const TempFolder folder;
  builder.write(folder.path());
  const auto file = folder.path() / "adapter_model.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  const auto got = read_adapter(folder.path(), tiny_model(), {});
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(got.error().message.find(file.string()), std::string::npos) << got.error().message;
}

}  // namespace
}  // namespace braid::test
