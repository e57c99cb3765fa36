#include "apps/sampling_json.h"

#include <limits>
#include <utility>

#include "base/json.h"
#include "engine/sampler.h"
#include "server/json_fields.h"

namespace braid::apps {
namespace {

constexpr int32_t kMaxInt32 = std::numeric_limits<int32_t>::max();

using server::read_value;

bool read_stop(const Json& value, std::vector<std::string>& to) {
  return value.is_string() ? read_value(Json::array({value}), to) : read_value(value, to);
}

struct Field {
  std::string_view key;
  std::string_view accepted;
  bool (*set)(const Json& value, SamplingParams& p);
};

constexpr std::string_view kNumber = "a number";
constexpr std::string_view kInteger = "an integer up to 2147483647";

// The types; ranges are those of why_invalid().
constexpr Field kFields[] = {
    {"temperature", kNumber, [](auto& v, auto& p) { return read_value(v, p.temperature); }},
    {"top_k", kInteger, [](auto& v, auto& p) { return read_value(v, p.top_k); }},
    {"top_p", kNumber, [](auto& v, auto& p) { return read_value(v, p.top_p); }},
    {"min_p", kNumber, [](auto& v, auto& p) { return read_value(v, p.min_p); }},
    {"repetition_penalty", kNumber,
     [](auto& v, auto& p) { return read_value(v, p.repetition_penalty); }},
    {"presence_penalty", kNumber,
     [](auto& v, auto& p) { return read_value(v, p.presence_penalty); }},
    {"frequency_penalty", kNumber,
     [](auto& v, auto& p) { return read_value(v, p.frequency_penalty); }},
    {"max_tokens", kInteger, [](auto& v, auto& p) { return read_value(v, p.max_tokens); }},
    {"min_tokens", kInteger, [](auto& v, auto& p) { return read_value(v, p.min_tokens); }},
    {"seed", "an integer from 0 to 18446744073709551615",
     [](auto& v, auto& p) { return read_value(v, p.seed); }},
    {"ignore_eos", "true or false", [](auto& v, auto& p) { return read_value(v, p.ignore_eos); }},
    {"stop_token_ids", "an array of token ids",
     [](auto& v, auto& p) { return read_value(v, p.stop_token_ids); }},
    {"stop", "a string or an array of strings",
     [](auto& v, auto& p) { return read_stop(v, p.stop); }},
    {"logit_bias", "an object from token id to bias, as {\"42\": -100}",
     [](auto& v, auto& p) { return read_value(v, p.logit_bias); }},
    {"logprobs", "an integer from 0 to 20",
     [](auto& v, auto& p) { return read_value(v, p.logprobs); }},
    {"prompt_logprobs", "an integer from 0 to 20",
     [](auto& v, auto& p) { return read_value(v, p.prompt_logprobs); }},
};

}  // namespace

std::vector<std::string_view> sampling_keys() {
  std::vector<std::string_view> keys;
  for (const Field& field : kFields) keys.push_back(field.key);
  return keys;
}

Result<SamplingParams> sampling_from_json(const Json& fields, SamplingParams defaults) {
  SamplingParams params = std::move(defaults);
  for (const auto& [key, value] : fields.items()) {
    const Field* field = nullptr;
    for (const Field& candidate : kFields) {
      if (candidate.key == key) field = &candidate;
    }
    if (field == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "unknown key \"{}\"; known are {}", key,
                  fmt::join(sampling_keys(), ", "));
    }
    if (!value.is_null() && !field->set(value, params)) {
      return fail(ErrorCode::kInvalidArgument, "{} is {}, accepted is {}", key,
                  value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 200),
                  field->accepted);
    }
  }
  if (const std::string why = why_invalid(params, kMaxInt32); !why.empty())
    return fail(ErrorCode::kInvalidArgument, "{}", why);
  return params;
}

}  // namespace braid::apps
