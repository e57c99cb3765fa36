#include "text/generation_config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/json.h"
#include "text/json_fields.h"

namespace braid::text {
namespace {

namespace fs = std::filesystem;

// An id, a list of ids, or null.
Status read_ids(const Json& json, std::string_view key, std::vector<int32_t>& ids) {
  const Json* field = find_field(json, key);
  if (!field) return {};
  const auto add = [&](const Json& id) -> Status {
    constexpr uint64_t kMax = std::numeric_limits<int32_t>::max();
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kMax) {
      return fail(ErrorCode::kCorrupt, "\"{}\" is {}, need a token id or an array of them", key,
                  field->dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 200));
    }
    ids.push_back(id.get<int32_t>());
    return {};
  };
  if (!field->is_array()) return add(*field);
  for (const Json& id : *field) {
    if (Status status = add(id); !status) return status;
  }
  return {};
}

Result<std::optional<float>> read_number(const Json& json, std::string_view key, float low,
                                         bool low_included, float high) {
  const Json* field = find_field(json, key);
  if (!field) return std::nullopt;
  const double value = field->is_number() ? field->get<double>() : std::nan("");
  const bool fits = (low_included ? value >= low : value > low) && value <= high;
  if (!fits) {
    return fail(ErrorCode::kCorrupt, "\"{}\" is {}, need a number in {}{}, {}]", key,
                field->dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 200),
                low_included ? "[" : "(", low, high);
  }
  return static_cast<float>(value);
}

Status read_sampling(const Json& json, GenerationConfig& config) {
  constexpr float kMost = 1e6f;
  const auto read = [&](std::string_view key, float low, bool low_included, float high,
                        std::optional<float>& to) -> Status {
    auto value = read_number(json, key, low, low_included, high);
    if (!value) return pass_on(value);
    to = *value;
    return {};
  };
  if (Status s = read("temperature", 0, true, kMost, config.temperature); !s) return s;
  if (Status s = read("top_p", 0, false, 1, config.top_p); !s) return s;
  if (Status s = read("min_p", 0, true, 1, config.min_p); !s) return s;
  if (Status s = read("repetition_penalty", 0, false, kMost, config.repetition_penalty); !s) {
    return s;
  }
  if (find_field(json, "top_k")) {
    Result<int32_t> top_k = get_id(json, "top_k");
    if (!top_k) {
      return fail(ErrorCode::kCorrupt, "\"top_k\" is {}, need an integer of at least 0",
                  find_field(json, "top_k")
                      ->dump(-1, ' ', true, Json::error_handler_t::replace)
                      .substr(0, 200));
    }
    config.top_k = *top_k;
  }
  Result<bool> do_sample = get_bool(json, "do_sample", true);
  if (!do_sample) return pass_on(do_sample);
  if (!*do_sample) config.temperature = 0.0f;
  return {};
}

Result<Json> read_optional(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return Json(nullptr);
  Result<Json> json = read_json_file(path);
  if (json && !json->is_object()) {
    return fail(ErrorCode::kCorrupt, "{}: not a JSON object", path.string());
  }
  return json;
}

}  // namespace

Result<GenerationConfig> GenerationConfig::from_json(const Json& generation, const Json& model) {
  GenerationConfig config;
  if (!generation.is_null()) {
    Status status = read_ids(generation, "eos_token_id", config.eos_token_ids);
    if (status) status = read_sampling(generation, config);
    if (!status) return pass_on(status, "generation_config.json");
  }
  std::vector<int32_t> bos;
  const Json* text_config = find_field(model, "text_config");
  for (const Json* json : {&generation, &model, text_config}) {
    if (!json) continue;
    Status status;
    if (config.eos_token_ids.empty()) {
      status = read_ids(*json, "eos_token_id", config.eos_token_ids);
    }
    if (status && bos.empty()) status = read_ids(*json, "bos_token_id", bos);
    if (!status) {
      return pass_on(status, json == &generation ? "generation_config.json" : "config.json");
    }
  }
  if (!bos.empty()) config.bos_token_id = bos.front();
  std::sort(config.eos_token_ids.begin(), config.eos_token_ids.end());
  config.eos_token_ids.erase(std::unique(config.eos_token_ids.begin(), config.eos_token_ids.end()),
                             config.eos_token_ids.end());
  return config;
}

Result<GenerationConfig> GenerationConfig::open(const fs::path& folder) {
  Result<Json> generation = read_optional(folder / "generation_config.json");
  if (!generation) return pass_on(generation);
  Result<Json> model = read_optional(folder / "config.json");
  if (!model) return pass_on(model);
  auto config = from_json(*generation, *model);
  if (!config) return pass_on(config, folder.string());
  return config;
}

}  // namespace braid::text
