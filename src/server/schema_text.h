#pragma once

#include <span>
#include <string_view>

#include "base/json_fwd.h"

namespace braid::server {

// The bytes of the value at a path of keys in a well-formed JSON text; empty where there is none.
// Keys must be written without escapes.
std::string_view json_text_at(std::string_view json, std::span<const std::string_view> path);

// Puts the JSON Schemas of a request back as strings of their own text: a reply's members come in
// the order of the schema's, which parsing forgets. `body` is what `request` was parsed from.
void keep_schema_text(Json& request, std::string_view body);

}  // namespace braid::server
