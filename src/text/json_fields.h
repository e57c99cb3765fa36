#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json_fwd.h"
#include "base/result.h"

namespace braid::text {

// Fields of JSON objects whose type is not to be trusted. A field that is absent or null takes
// `otherwise`; without one it is an error.
//
// Errors  kCorrupt (not an object, field missing, another type), naming the field
Result<std::string> get_string(const Json& json, std::string_view key,
                               std::optional<std::string> otherwise = std::nullopt);
Result<bool> get_bool(const Json& json, std::string_view key,
                      std::optional<bool> otherwise = std::nullopt);
// In [0, 2^31 - 1].
Result<int32_t> get_id(const Json& json, std::string_view key);
// Null only when `optional` and absent.
Result<const Json*> get_array(const Json& json, std::string_view key, bool optional = false);
Result<const Json*> get_object(const Json& json, std::string_view key, bool optional = false);

// The value of a field, or null when it is absent, null or `json` is no object.
const Json* find_field(const Json& json, std::string_view key);

}  // namespace braid::text
