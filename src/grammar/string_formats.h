#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace braid::grammar {

// The expression, in the syntax of parse_regex, of strings that have a format of JSON Schema.
// Empty for a format that is not known here. What it matches has the format; some strings that have
// it are left out (leap seconds, quoted local parts, ...).
std::optional<std::string_view> expression_of_format(std::string_view format);

std::vector<std::string_view> known_formats();

}  // namespace braid::grammar
