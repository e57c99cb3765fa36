#pragma once

#include <span>
#include <string_view>

#include "text/jinja/runtime.h"

namespace braid::text::jinja {

// A filter of Jinja: `input | name(args)`.
struct Filter {
  std::string_view name;
  Value (*apply)(Runtime&, const Value& input, const CallArgs&);
};

// Each in the file of its kind; apply_filter() looks through them and has those of single values.
std::span<const Filter> string_filters();
std::span<const Filter> sequence_filters();

}  // namespace braid::text::jinja
