#include "adapter/lora_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/file.h"
#include "base/json.h"

namespace braid {
namespace {

constexpr size_t kMaxConfigBytes = size_t{8} << 20;
constexpr size_t kMaxPatterns = 200'000;

// The keys of the objects rank_pattern and alpha_pattern in the order of the text, which the parsed
// tree does not keep and PEFT's "first match" depends on.
class KeyOrder : public nlohmann::json_sax<Json> {
 public:
  std::map<std::string, std::vector<std::string>> order;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return ++depth_, true; }
  bool end_object() override { return --depth_, true; }
  bool start_array(size_t) override { return ++depth_, true; }
  bool end_array() override { return --depth_, true; }
  bool key(string_t& value) override {
    if (depth_ == 1) outer_ = value;
    if (depth_ == 2 && (outer_ == "rank_pattern" || outer_ == "alpha_pattern")) {
      order[outer_].push_back(value);
    }
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  int depth_ = 0;
  std::string outer_;
};

// A value short enough for a message.
std::string show(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

// What every default of PEFT looks like: the feature is not used.
bool is_unset(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_array() || value.is_object()) return value.empty();
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return false;
}

struct Refusal {
  std::string_view key;
  std::string_view remedy;
};

// Features that change the result and that this build does not apply. Set means refused.
constexpr Refusal kRefusals[] = {
    {"use_dora", "train with use_dora=false, or merge the adapter into its base model"},
    {"use_qalora", "train with use_qalora=false"},
    {"use_bdlora", "train with use_bdlora unset"},
    {"lora_bias", "train with lora_bias=false"},
    {"fan_in_fan_out", "only Conv1D models store weights that way; set it to false"},
    {"modules_to_save",
     "train with modules_to_save=null and put LoRA on these modules instead, or merge the adapter"},
    {"trainable_token_indices",
     "train with trainable_token_indices=null, or put LoRA on embed_tokens"},
    {"layer_replication", "merge the adapter into a base model with the replicated layers"},
    {"alora_invocation_tokens", "train an ordinary LoRA: activated LoRA is not applied"},
    {"arrow_config", "serve the adapters one by one: arrow routing is not applied"},
    {"ensure_weight_tying", "train with ensure_weight_tying=false"},
};

// Keys without effect at inference, or read elsewhere.
constexpr std::string_view kKnownKeys[] = {
    "peft_type",
    "task_type",
    "auto_mapping",
    "peft_version",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "target_parameters",
    "bias",
    "lora_dropout",
    "revision",
    "inference_mode",
    "megatron_config",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "runtime_config",
    "qalora_group_size",
    "init_lora_weights",
    "base_model_name_or_path",
};

bool is_known(std::string_view key) {
  return std::ranges::find(kKnownKeys, key) != std::end(kKnownKeys) ||
         std::ranges::find(kRefusals, key, &Refusal::key) != std::end(kRefusals);
}

Status refuse_unsupported(const Json& json) {
  if (const auto it = json.find("peft_type"); it == json.end() || *it != "LORA") {
    return fail(ErrorCode::kUnsupported, "peft_type is {}, only \"LORA\" adapters are accepted",
                it == json.end() ? "absent" : show(*it));
  }
  for (const auto& [key, remedy] : kRefusals) {
    const auto it = json.find(key);
    if (it == json.end() || is_unset(*it)) continue;
    return fail(ErrorCode::kUnsupported, "{} = {} is not supported; {}", key, show(*it), remedy);
  }
  if (const auto it = json.find("bias"); it != json.end() && !it->is_null() && *it != "none") {
    return fail(ErrorCode::kUnsupported,
                "bias = {} is not supported; train with bias=\"none\", trained biases cannot be "
                "applied",
                show(*it));
  }
  // These start from a changed base model, so the saved factors do not fit the original one. A
  // conversion by PEFT sets the field back to true.
  if (const auto it = json.find("init_lora_weights"); it != json.end() && it->is_string()) {
    const std::string& init = it->get_ref<const std::string&>();
    for (const std::string_view bad : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
      if (!init.starts_with(bad)) continue;
      return fail(ErrorCode::kUnsupported,
                  "init_lora_weights = \"{}\" changes the base model and this adapter was not "
                  "converted; save it with save_pretrained(path_initial_model_for_weight_conversion"
                  "=...)",
                  init.substr(0, 60));
    }
  }
  return {};
}

Result<double> number(const Json& json, const char* key) {
  const auto it = json.find(key);
  if (it == json.end()) {
    return fail(ErrorCode::kCorrupt, "{} is missing, need a number", key);
  }
  if (!it->is_number() || !std::isfinite(it->get<double>())) {
    return fail(ErrorCode::kCorrupt, "{} is {}, need a finite number", key, show(*it));
  }
  return it->get<double>();
}

constexpr double kLargestRank = 1 << 20;  // far above what any limit lets through

Status check_rank(const std::string& key, const Json& value) {
  if (value.is_number_integer() && value >= 1 && value <= static_cast<int64_t>(kLargestRank)) {
    return {};
  }
  return fail(ErrorCode::kCorrupt, "{} is {}, need a whole number from 1 up", key, show(value));
}

Result<std::vector<PatternEntry>> patterns(const Json& json, const char* name, bool is_rank,
                                           const std::vector<std::string>& order) {
  std::vector<PatternEntry> entries;
  const auto it = json.find(name);
  if (it == json.end() || it->is_null()) return entries;
  if (!it->is_object()) {
    return fail(ErrorCode::kCorrupt, "{} is {}, need an object of module pattern to number", name,
                show(*it));
  }
  if (it->size() > kMaxPatterns) {
    return fail(ErrorCode::kUnsupported, "{} has {} entries, at most {} are accepted", name,
                it->size(), kMaxPatterns);
  }
  for (const std::string& key : order) {
    const Json& value = it->at(key);
    const std::string place = fmt::format("{}[{}]", name, show(key));
    if (is_rank) {
      if (auto ok = check_rank(place, value); !ok) return pass_on(ok);
    } else if (!value.is_number() || !std::isfinite(value.get<double>())) {
      return fail(ErrorCode::kCorrupt, "{} is {}, need a finite number", place, show(value));
    }
    entries.push_back({key, value.get<double>()});
  }
  return entries;
}

Result<std::vector<std::string>> strings(const Json& json, const char* key) {
  std::vector<std::string> out;
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return out;
  bool good = it->is_array();
  if (good) good = std::ranges::all_of(*it, [](const Json& item) { return item.is_string(); });
  if (!good) {
    return fail(ErrorCode::kCorrupt, "{} is {}, need a list of names", key, show(*it));
  }
  for (const Json& item : *it) out.push_back(item.get<std::string>());
  return out;
}

bool is_text(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string();
}

// A number stands for a list of one.
Result<std::vector<int64_t>> layer_numbers(const Json& json, const char* key) {
  std::vector<int64_t> out;
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return out;
  const Json list = it->is_array() ? *it : Json::array({*it});
  for (const Json& item : list) {
    if (!item.is_number_integer() || item < 0 || item > (1 << 30)) {
      return fail(ErrorCode::kCorrupt, "{} is {}, need a layer's number or a list of them", key,
                  show(*it));
    }
    out.push_back(item.get<int64_t>());
  }
  return out;
}

Result<std::string> text_or_empty(const Json& json, const char* key) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return std::string();
  if (!it->is_string()) {
    return fail(ErrorCode::kCorrupt, "{} is {}, need a text", key, show(*it));
  }
  return it->get<std::string>();
}

Status read_targets(const Json& json, LoraConfig& config) {
  struct Target {
    const char* key;
    std::vector<std::string>* list;
    std::string* text;  // null: a text is not allowed
  };
  std::string pattern;  // one layers_pattern
  for (const auto& [key, list, text] :
       {Target{"target_modules", &config.target_modules, &config.target_modules_regex},
        Target{"exclude_modules", &config.exclude_modules, &config.exclude_modules_regex},
        Target{"layers_pattern", &config.layers_pattern, &pattern},
        Target{"target_parameters", &config.target_parameters, nullptr}}) {
    if (text != nullptr && is_text(json, key)) {
      *text = json[key].get<std::string>();
      continue;
    }
    auto names = strings(json, key);
    if (!names) return pass_on(names);
    *list = std::move(*names);
  }
  if (!pattern.empty()) config.layers_pattern = {pattern};
  auto layers = layer_numbers(json, "layers_to_transform");
  if (!layers) return pass_on(layers);
  config.layers_to_transform = std::move(*layers);
  return {};
}

// A key no PEFT up to 0.21 writes. One that looks like a switch of the arithmetic is refused, the
// rest is bookkeeping of other tools and is reported.
Status check_unknown_key(const std::string& key, const Json& value,
                         std::vector<std::string>& warnings) {
  if (is_known(key) || is_unset(value)) return {};
  const std::string shown = show(Json(key));
  if (key.starts_with("use_") || key.ends_with("_config")) {
    return fail(
        ErrorCode::kUnsupported,
        "{} = {} is not known to this build and may change the result; remove the key if it "
        "has no effect on inference",
        shown, show(value));
  }
  warnings.push_back(fmt::format("key {} = {} of adapter_config.json is not known and was ignored",
                                 shown, show(value)));
  return {};
}

Status read_numbers(const Json& json, LoraConfig& config) {
  if (!json.contains("r")) {
    return fail(ErrorCode::kCorrupt, "r is missing, need a whole number from 1 up");
  }
  if (auto ok = check_rank("r", json["r"]); !ok) return ok;
  config.r = json["r"].get<int32_t>();
  auto alpha = number(json, "lora_alpha");
  if (!alpha) return pass_on(alpha);
  config.lora_alpha = *alpha;
  if (const auto it = json.find("use_rslora"); it != json.end() && !it->is_null()) {
    if (!it->is_boolean()) {
      return fail(ErrorCode::kCorrupt, "use_rslora is {}, need true or false", show(*it));
    }
    config.use_rslora = it->get<bool>();
  }
  return {};
}

bool names_unsloth(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  return text.find("unsloth") != text.npos;
}

// Unsloth saves through PEFT, so its configs look like PEFT's. Its own mirrors of base models
// ("unsloth/Qwen3-30B-A3B") are what its users train on, and seldom anybody else.
void read_evidence(const Json& json, LoraConfig& config) {
  config.says_unsloth |= names_unsloth(config.base_model_name_or_path);
  config.num_keys = static_cast<int>(json.size());
  for (const char* key : {"layers_to_transform", "layers_pattern", "megatron_config",
                          "megatron_core", "layer_replication", "loftq_config", "eva_config"}) {
    config.has_peft_keys |= json.contains(key);
  }
  for (const auto& [key, value] : json.items()) {
    config.says_unsloth |= names_unsloth(key);
    if (key == "auto_mapping" && value.is_object()) {
      const auto it = value.find("unsloth_fixed");
      config.says_unsloth |= it != value.end() && !is_unset(*it);
    }
  }
}

}  // namespace

Result<LoraConfig> parse_lora_config(std::string_view text) {
  auto parsed = parse_json(text, {.max_bytes = kMaxConfigBytes});
  if (!parsed) return pass_on(parsed);
  const Json& json = *parsed;
  if (!json.is_object()) {
    return fail(ErrorCode::kCorrupt, "the file holds {}, need an object", show(json));
  }
  if (auto ok = refuse_unsupported(json); !ok) return pass_on(ok);

  LoraConfig config;
  if (auto ok = read_numbers(json, config); !ok) return pass_on(ok);
  KeyOrder keys;
  Json::sax_parse(text, &keys);
  auto ranks = patterns(json, "rank_pattern", true, keys.order["rank_pattern"]);
  if (!ranks) return pass_on(ranks);
  auto alphas = patterns(json, "alpha_pattern", false, keys.order["alpha_pattern"]);
  if (!alphas) return pass_on(alphas);
  config.rank_pattern = std::move(*ranks);
  config.alpha_pattern = std::move(*alphas);
  if (auto ok = read_targets(json, config); !ok) return pass_on(ok);
  auto version = text_or_empty(json, "peft_version");
  if (!version) return pass_on(version);
  config.peft_version = std::move(*version);
  auto base = text_or_empty(json, "base_model_name_or_path");
  if (!base) return pass_on(base);
  config.base_model_name_or_path = std::move(*base);
  read_evidence(json, config);
  for (const auto& [key, value] : json.items()) {
    if (auto ok = check_unknown_key(key, value, config.warnings); !ok) return pass_on(ok);
  }
  return config;
}

Result<LoraConfig> read_lora_config(const std::filesystem::path& folder, const FileAccess& access) {
  const std::filesystem::path file = folder / "adapter_config.json";
  auto text = read_file(file, kMaxConfigBytes, access);
  if (!text) return pass_on(text);
  auto config = parse_lora_config(*text);
  if (!config) return pass_on(config, file.string());
  // A model card is optional, and one that cannot be read is no evidence.
  if (const auto card = read_file(folder / "README.md", size_t{1} << 20, access); card) {
    config->says_unsloth |= names_unsloth(*card);
  }
  return config;
}

}  // namespace braid
