#include "apps/sampling_json.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/sampler.h"

namespace braid::apps {
namespace {

constexpr int32_t kMaxInt32 = std::numeric_limits<int32_t>::max();

// Each reads a value of one type and says whether it is one; nothing is rounded or cut.

bool read(const Json& value, float& to) {
  if (!value.is_number()) return false;
  const double number = value.get<double>();
  if (std::abs(number) > static_cast<double>(std::numeric_limits<float>::max())) return false;
  to = static_cast<float>(number);
  return true;
}

bool read(const Json& value, int32_t& to) {
  if (!value.is_number_integer()) return false;
  const bool fits = value.is_number_unsigned()
                        ? value.get<uint64_t>() <= uint64_t{kMaxInt32}
                        : value.get<int64_t>() >= int64_t{std::numeric_limits<int32_t>::min()};
  if (fits) to = value.get<int32_t>();
  return fits;
}

bool read(const Json& value, uint64_t& to) {
  if (!value.is_number_integer()) return false;
  // Numbers made in C++ may be signed though they are not negative.
  if (!value.is_number_unsigned() && value.get<int64_t>() < 0) return false;
  to = value.get<uint64_t>();
  return true;
}

bool read(const Json& value, bool& to) {
  if (value.is_boolean()) to = value.get<bool>();
  return value.is_boolean();
}

bool read(const Json& value, std::optional<int32_t>& to) { return read(value, to.emplace()); }

bool read(const Json& value, std::string& to) {
  if (value.is_string()) to = value.get<std::string>();
  return value.is_string();
}

template <class T>
bool read(const Json& value, std::vector<T>& to) {
  if (!value.is_array()) return false;
  to.clear();
  for (const Json& entry : value) {
    if (!read(entry, to.emplace_back())) return false;
  }
  return true;
}

bool read_stop(const Json& value, std::vector<std::string>& to) {
  return value.is_string() ? read(Json::array({value}), to) : read(value, to);
}

bool read_bias(const Json& value, std::vector<std::pair<int32_t, float>>& to) {
  if (!value.is_object()) return false;
  to.clear();
  for (const auto& [key, bias] : value.items()) {
    auto& [token, amount] = to.emplace_back();
    const char* end = key.data() + key.size();
    const auto [rest, error] = std::from_chars(key.data(), end, token);
    if (error != std::errc() || rest != end || !read(bias, amount)) return false;
  }
  return true;
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
    {"temperature", kNumber, [](auto& v, auto& p) { return read(v, p.temperature); }},
    {"top_k", kInteger, [](auto& v, auto& p) { return read(v, p.top_k); }},
    {"top_p", kNumber, [](auto& v, auto& p) { return read(v, p.top_p); }},
    {"min_p", kNumber, [](auto& v, auto& p) { return read(v, p.min_p); }},
    {"repetition_penalty", kNumber, [](auto& v, auto& p) { return read(v, p.repetition_penalty); }},
    {"presence_penalty", kNumber, [](auto& v, auto& p) { return read(v, p.presence_penalty); }},
    {"frequency_penalty", kNumber, [](auto& v, auto& p) { return read(v, p.frequency_penalty); }},
    {"max_tokens", kInteger, [](auto& v, auto& p) { return read(v, p.max_tokens); }},
    {"min_tokens", kInteger, [](auto& v, auto& p) { return read(v, p.min_tokens); }},
    {"seed", "an integer from 0 to 18446744073709551615",
     [](auto& v, auto& p) { return read(v, p.seed); }},
    {"ignore_eos", "true or false", [](auto& v, auto& p) { return read(v, p.ignore_eos); }},
    {"stop_token_ids", "an array of token ids",
     [](auto& v, auto& p) { return read(v, p.stop_token_ids); }},
    {"stop", "a string or an array of strings",
     [](auto& v, auto& p) { return read_stop(v, p.stop); }},
    {"logit_bias", "an object from token id to bias, as {\"42\": -100}",
     [](auto& v, auto& p) { return read_bias(v, p.logit_bias); }},
    {"logprobs", "an integer from 0 to 20", [](auto& v, auto& p) { return read(v, p.logprobs); }},
    {"prompt_logprobs", "an integer from 0 to 20",
     [](auto& v, auto& p) { return read(v, p.prompt_logprobs); }},
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
