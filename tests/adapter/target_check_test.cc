// cross_check_targets: what the config says was trained against what the file has factors for.

#include "adapter/target_check.h"

#include <gtest/gtest.h>

#include <ostream>

#include "base/json.h"

namespace braid::test {
namespace {

using Strings = std::vector<std::string>;

TrainedModule module(const std::string& plain, const std::string& parameter = "") {
  TrainedModule made = {.name = "model." + plain, .plain_name = plain, .parameter = parameter};
  if (plain.starts_with("layers.")) made.layer = plain[7] - '0';
  return made;
}

// q_proj and the router of layers 0 and 1, one expert, the head.
std::vector<TrainedModule> some_modules() {
  return {module("layers.0.self_attn.q_proj"),      module("layers.0.mlp.gate"),
          module("layers.1.self_attn.q_proj"),      module("layers.1.mlp.gate"),
          module("layers.1.mlp.experts.0.up_proj"), module("lm_head")};
}

std::vector<TrainedModule> parameters(const std::string& block = "mlp") {
  return {module("layers.0." + block + ".experts.base_layer", "gate_up_proj"),
          module("layers.0." + block + ".experts", "down_proj")};
}

struct TargetCase {
  std::string name;
  Json config;
  Strings warnings;
  std::vector<TrainedModule> modules = some_modules();

  friend void PrintTo(const TargetCase& one, std::ostream* out) { *out << one.name; }
};

std::vector<TargetCase> target_cases() {
  const Strings all = {"q_proj", "gate", "up_proj", "lm_head"};
  const Json both = {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"};
  const auto applied = [](const std::string& name, const std::string& key) {
    return "the file has factors for " + name + ", which " + key +
           " does not name; they are applied";
  };
  return {
      {"Nothing", Json::object(), {}},
      {"Nulls",
       {{"target_modules", nullptr},
        {"exclude_modules", nullptr},
        {"layers_to_transform", nullptr},
        {"layers_pattern", nullptr},
        {"target_parameters", nullptr}},
       {}},
      {"ModulesThatFit", {{"target_modules", all}}, {}},
      {"FullNamesThatFit",
       {{"target_modules",
         {"model.layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "mlp.gate", "up_proj",
          "lm_head"}}},
       {}},
      {"ModulesThatDoNot",
       {{"target_modules", {"q_proj", "roj", "k_proj", "up_proj"}}},
       {"target_modules names roj, but the file has no factors for it",
        "target_modules names k_proj, but the file has no factors for it",
        applied("gate", "target_modules"), applied("lm_head", "target_modules")}},
      {"ManyModules",
       {{"target_modules",
         {"q_proj", "gate", "up_proj", "lm_head", "a", "b", "c", "d", "e", "f", "g", "h", "i",
          "j"}}},
       {"target_modules names a, but the file has no factors for it",
        "target_modules names b, but the file has no factors for it",
        "target_modules names c, but the file has no factors for it",
        "target_modules names d, but the file has no factors for it",
        "target_modules names e, but the file has no factors for it",
        "target_modules names f, but the file has no factors for it",
        "target_modules names g, but the file has no factors for it",
        "target_modules names h, but the file has no factors for it",
        "target_modules names 2 more that the file has no factors for"}},
      {"RegexThatFits", {{"target_modules", R"(.*\.(q_proj|gate|up_proj)|.*lm_head)"}}, {}},
      {"RegexForTheWholeName",  // it would fit an end
       {{"target_modules", "q_proj|gate|up_proj"}},
       {applied("gate", "target_modules"), applied("lm_head", "target_modules"),
        applied("q_proj", "target_modules"), applied("up_proj", "target_modules")}},
      {"RegexThatFitsOneLayer",
       {{"target_modules", R"(.*layers\.1\..*|.*\.gate|lm_head|model\.lm_head)"}},
       {applied("q_proj", "target_modules")}},
      {"RegexThatIsNone",
       {{"target_modules", "(q_proj"}},
       {"target_modules is not compared with the tensors: target_modules[\"^(?:(q_proj)\"] is not "
        "a regular expression: missing closing parenthesis"}},
      {"AllLinear", {{"target_modules", "all-linear"}}, {}},
      {"ExcludedOthers", {{"exclude_modules", {"v_proj", "vision"}}}, {}},
      {"Excluded",
       {{"exclude_modules", {"gate", "v_proj", "experts.0.up_proj"}}},
       {"exclude_modules rules out gate, up_proj, but the file has factors for it; they are "
        "applied"}},
      {"ExcludedByRegex",
       {{"exclude_modules", R"(.*layers\.0\.self_attn.*)"}},
       {"exclude_modules rules out q_proj, but the file has factors for it; they are applied"}},
      {"ExcludedByARegexForEnds", {{"exclude_modules", "q_proj"}}, {}},
      {"Layers", {{"layers_to_transform", {0, 1}}}, {}},
      {"OneLayer",
       {{"layers_to_transform", 1}},
       {"layers_to_transform does not name layer 0, but the file has factors there; they are "
        "applied"}},
      {"OtherLayers",
       {{"layers_to_transform", {1, 2, 3}}, {"layers_pattern", "layers"}},
       {"layers_to_transform does not name layer 0, but the file has factors there; they are "
        "applied",
        "layers_to_transform names layer 2, 3, but the file has no factors there"}},
      {"PatternThatFits",
       {{"layers_to_transform", {0, 1}}, {"layers_pattern", {"h", "layer.?"}}},
       {}},
      {"PatternThatDoesNot",
       {{"layers_to_transform", {0, 1}}, {"layers_pattern", {"h", "blocks"}}},
       {"layers_pattern is h, blocks, but the file's layers are called layers; they are applied"}},
      {"PatternWithoutLayers", {{"layers_pattern", "h"}}, {}},
      {"Parameters", {{"target_parameters", both}}, {}, parameters()},
      {"ParametersOfMixtral", {{"target_parameters", both}}, {}, parameters("block_sparse_moe")},
      {"ParametersAsModules",
       {{"target_parameters", {"mlp.gate.weight", "mlp.experts.up_proj"}},
        {"target_modules", {"q_proj"}},
        {"layers_to_transform", {0, 1}}},
       {},
       {module("layers.0.self_attn.q_proj"), module("layers.1.self_attn.q_proj"),
        module("layers.3.mlp.gate"), module("layers.3.mlp.experts.up_proj")}},
      {"UnusedParameters",
       {{"target_parameters",
         {"mlp.experts.gate_up_proj", "mlp.gate.weight", "layers.7.mlp.experts.down_proj"}}},
       {"target_parameters names mlp.gate.weight, but the file has no factors for it",
        "target_parameters names layers.7.mlp.experts.down_proj, but the file has no factors for "
        "it",
        "the file has 3-D factors for down_proj, which target_parameters does not name; they are "
        "applied"},
       parameters()},
      {"ParametersInNoLayerOfModules",  // PEFT trains them in every layer
       {{"target_parameters", both}, {"layers_to_transform", 0}, {"exclude_modules", {"experts"}}},
       {},
       {module("layers.0.mlp.experts.base_layer", "gate_up_proj"),
        module("layers.1.mlp.experts", "down_proj")}},
  };
}

class TargetCheck : public testing::TestWithParam<TargetCase> {};

TEST_P(TargetCheck, SaysWhatTensorsContradict) {
  Json json = {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}};
  json.update(GetParam().config);
  const auto config = parse_lora_config(json.dump());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(cross_check_targets(*config, GetParam().modules), GetParam().warnings);
}

INSTANTIATE_TEST_SUITE_P(Cases, TargetCheck, testing::ValuesIn(target_cases()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace braid::test
