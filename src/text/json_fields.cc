#include "text/json_fields.h"

#include <cstdint>
#include <limits>

#include "base/json.h"

namespace braid::text {
namespace {

tl::unexpected<Error> wrong_type(std::string_view key, const Json& value, std::string_view want) {
  return fail(ErrorCode::kCorrupt, "\"{}\" is of type {}, need {}", key, value.type_name(), want);
}

tl::unexpected<Error> missing(std::string_view key) {
  return fail(ErrorCode::kCorrupt, "\"{}\" is missing", key);
}

}  // namespace

const Json* find_field(const Json& json, std::string_view key) {
  if (!json.is_object()) return nullptr;
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

Result<std::string> get_string(const Json& json, std::string_view key,
                               std::optional<std::string> otherwise) {
  const Json* field = find_field(json, key);
  if (!field) {
    if (otherwise) return *otherwise;
    return missing(key);
  }
  if (!field->is_string()) return wrong_type(key, *field, "a string");
  return field->get<std::string>();
}

Result<bool> get_bool(const Json& json, std::string_view key, std::optional<bool> otherwise) {
  const Json* field = find_field(json, key);
  if (!field) {
    if (otherwise) return *otherwise;
    return missing(key);
  }
  if (!field->is_boolean()) return wrong_type(key, *field, "true or false");
  return field->get<bool>();
}

Result<int32_t> get_id(const Json& json, std::string_view key) {
  const Json* field = find_field(json, key);
  if (!field) return missing(key);
  if (!field->is_number_integer()) return wrong_type(key, *field, "a token id");
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  const bool fits = field->is_number_unsigned() ? field->get<uint64_t>() <= uint64_t{kMax} : false;
  if (!fits) {
    return fail(ErrorCode::kCorrupt, "\"{}\" is {}, a token id is in [0, {}]", key, field->dump(),
                kMax);
  }
  return field->get<int32_t>();
}

Result<const Json*> get_array(const Json& json, std::string_view key, bool optional) {
  const Json* field = find_field(json, key);
  if (!field && !optional) return missing(key);
  if (field && !field->is_array()) return wrong_type(key, *field, "an array");
  return field;
}

Result<const Json*> get_object(const Json& json, std::string_view key, bool optional) {
  const Json* field = find_field(json, key);
  if (!field && !optional) return missing(key);
  if (field && !field->is_object()) return wrong_type(key, *field, "an object");
  return field;
}

}  // namespace braid::text
