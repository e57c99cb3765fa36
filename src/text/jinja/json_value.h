#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/runtime.h"

namespace braid::text::jinja {

// JSON to a value whose strings all came from outside. Keys keep their order, which the project's
// Json type does not: templates write tools out as they came.
//
// Errors  kInvalidArgument (not JSON, nested deeper than 100, an integer over 127 bits, a key
// twice)
Result<Value> parse_json_value(std::string_view text);

// As json.dumps of Python writes it.
struct JsonStyle {
  std::optional<std::string> indent;  // nothing: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ensure_ascii = false;
  bool sort_keys = false;
};

// Throws Failure for values that JSON has no form of.
MarkedText to_json(Runtime& run, const Value& value, const JsonStyle& style);

}  // namespace braid::text::jinja
