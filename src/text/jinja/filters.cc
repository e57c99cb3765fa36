// The filters behind `|`, by name, and those of single values.
//
// Source: jinja2/filters.py 3.1; tojson as transformers sets it.

#include "text/jinja/filters.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/json.h"
#include "text/jinja/json_value.h"
#include "text/jinja/strings.h"

namespace braid::text::jinja {
namespace {

Value default_filter(Runtime&, const Value& input, const CallArgs& args) {
  const BoundArgs bound("default", args, {"default_value", "boolean"});
  const bool replaces =
      input.is_undefined() || (bound.get_bool("boolean", false) && !input.truth());
  return replaces ? bound.get("default_value", "") : input;
}

Value int_filter(Runtime&, const Value& input, const CallArgs& args) {
  const BoundArgs bound("int", args, {"default", "base"});
  const Value otherwise = bound.get("default", Value(0));
  if (bound.get_int("base", 10) != 10) fail_with("int() of another base is not supported");
  if (input.is_number()) {
    const bool fits = !input.is_float() || std::abs(input.to_double()) < 1e38;
    return fits ? Value(truncate(input)) : otherwise;
  }
  if (const MarkedText* text = input.text()) {
    if (const auto value = parse_int(text->text())) return Value(*value);
    // "3.9" is 3.
    if (const auto value = parse_float(text->text()); value && std::abs(*value) < 1e38) {
      return Value(truncate(Value(*value)));
    }
  }
  return otherwise;
}

Value float_filter(Runtime&, const Value& input, const CallArgs& args) {
  const BoundArgs bound("float", args, {"default"});
  if (input.is_number()) return Value(input.to_double());
  if (const MarkedText* text = input.text()) {
    if (const auto value = parse_float(text->text())) return Value(*value);
  }
  return bound.get("default", Value(0.0));
}

Value abs_filter(Runtime&, const Value& input, const CallArgs& args) {
  const BoundArgs bound("abs", args, {});
  if (input.is_float()) return Value(std::abs(input.to_double()));
  return input.is_number() && input.to_int() >= 0 ? Value(input.to_int()) : negate(input);
}

Value round_filter(Runtime&, const Value& input, const CallArgs& args) {
  const BoundArgs bound("round", args, {"precision", "method"});
  const Int precision = bound.get_int("precision", 0);
  const Value method = bound.get("method", "common");
  const std::string how = method.text() ? method.text()->text() : "";
  if (how != "common" && how != "ceil" && how != "floor") {
    fail_with("FilterArgumentError: method must be common, ceil or floor");
  }
  if (!input.is_number()) {
    require_defined(input);
    fail_with("TypeError: type ", input.type_name(), " doesn't define __round__ method");
  }
  if (precision > 300 || precision < -300) fail_with("a precision of more than 300 digits");
  if (how == "common" && !input.is_float() && precision >= 0) return Value(input.to_int());
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.to_double() * scale;
  if (how == "ceil") return Value(std::ceil(scaled) / scale);
  if (how == "floor") return Value(std::floor(scaled) / scale);
  return Value(round_to(input.to_double(), static_cast<int>(precision)));
}

Value tojson(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.get_bool("ensure_ascii", false);
  style.sort_keys = bound.get_bool("sort_keys", false);
  const Value indent_by = bound.get("indent", Value());
  if (indent_by.text()) {
    style.indent = indent_by.text()->text();
  } else if (!indent_by.is_none()) {
    const Int width = std::clamp<Int>(bound.get_int("indent", 0), 0, 256);
    style.indent = std::string(static_cast<size_t>(width), ' ');
  }
  if (style.indent) style.item_separator.pop_back();  // lines do not end in a space
  if (const Value* separators = bound.find("separators"); separators && !separators->is_none()) {
    const List both = to_list(run, *separators);
    if (both.size() != 2 || !both[0].text() || !both[1].text()) {
      fail_with("TypeError: separators of tojson are two strings");
    }
    style.item_separator = both[0].text()->text();
    style.key_separator = both[1].text()->text();
  }
  return Value(to_json(run, input, style));
}

constexpr auto kValueFilters = std::to_array<Filter>({
    {"abs", abs_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"float", float_filter},
    {"int", int_filter},
    {"round", round_filter},
    {"tojson", tojson},
});

const Filter* find_filter(std::string_view name) {
  for (const std::span<const Filter> filters :
       {string_filters(), sequence_filters(), std::span<const Filter>(kValueFilters)}) {
    const auto found = std::ranges::find(filters, name, &Filter::name);
    if (found != filters.end()) return &*found;
  }
  return nullptr;
}

}  // namespace

bool has_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value apply_filter(Runtime& run, std::string_view name, const Value& input, const CallArgs& args) {
  const Filter* filter = find_filter(name);
  if (!filter) fail_with("No filter named '", name, "'.");
  run.charge(2);
  return filter->apply(run, input, args);
}

}  // namespace braid::text::jinja
