// The tests behind `is`, and in select() and its kind.

#include <algorithm>
#include <array>

#include "text/jinja/objects.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/unicode.h"

namespace braid::text::jinja {
namespace {

using Test = bool (*)(Runtime&, const Value&, const CallArgs&);
struct Entry {
  std::string_view name;
  Test test;
  size_t num_args = 0;
};

Int need_int(const Value& value) {
  if (!value.is_int() && !value.is_bool()) {
    require_defined(value);
    fail_with("TypeError: an integer is required, not '", value.type_name(), "'");
  }
  return value.to_int();
}

bool is_iterable(const Value& v) {
  return v.is_undefined() || v.text() || v.sequence() || v.dict() || v.as<RangeObject>();
}

// The letters of a string have one case; str.isupper and str.islower.
template <bool kUpper>
bool has_case(Runtime& run, const Value& v, const CallArgs&) {
  const MarkedText text = to_str(v);
  run.charge_bytes(text.size());
  bool any = false;
  const bool none_other = all_chars(text, [&](char32_t c) {
    any = any || is_cased(c);
    return kUpper ? upper_of(c) == c : lower_of(c) == c;
  });
  return any && none_other;
}

constexpr auto kTests = std::to_array<Entry>({
    {"defined", [](Runtime&, const Value& v, const CallArgs&) { return !v.is_undefined(); }},
    {"undefined", [](Runtime&, const Value& v, const CallArgs&) { return v.is_undefined(); }},
    {"none", [](Runtime&, const Value& v, const CallArgs&) { return v.is_none(); }},
    {"string", [](Runtime&, const Value& v, const CallArgs&) { return v.is_text(); }},
    {"number", [](Runtime&, const Value& v, const CallArgs&) { return v.is_number(); }},
    {"integer", [](Runtime&, const Value& v, const CallArgs&) { return v.is_int(); }},
    {"float", [](Runtime&, const Value& v, const CallArgs&) { return v.is_float(); }},
    {"boolean", [](Runtime&, const Value& v, const CallArgs&) { return v.is_bool(); }},
    {"true",
     [](Runtime&, const Value& v, const CallArgs&) { return v.is_bool() && v.to_int() == 1; }},
    {"false",
     [](Runtime&, const Value& v, const CallArgs&) { return v.is_bool() && v.to_int() == 0; }},
    {"mapping", [](Runtime&, const Value& v, const CallArgs&) { return v.dict() != nullptr; }},
    {"sequence",
     [](Runtime&, const Value& v, const CallArgs&) {
       return v.is_undefined() || v.text() || v.sequence() || v.dict() || v.as<RangeObject>();
     }},
    {"iterable", [](Runtime&, const Value& v, const CallArgs&) { return is_iterable(v); }},
    {"callable",
     [](Runtime&, const Value& v, const CallArgs&) {
       return v.method() || (v.object() && v.object()->is_callable());
     }},
    {"even",
     [](Runtime&, const Value& v, const CallArgs&) { return need_int(v) % 2 == 0; }},
    {"odd", [](Runtime&, const Value& v, const CallArgs&) { return need_int(v) % 2 != 0; }},
    {"divisibleby",
     [](Runtime&, const Value& v, const CallArgs& args) {
       const Int by = need_int(args.positional[0]);
       if (by == 0) fail_with("ZeroDivisionError: integer modulo by zero");
       return by == -1 || need_int(v) % by == 0;
     },
     1},
    {"lower", has_case<false>},
    {"upper", has_case<true>},
    {"escaped", [](Runtime&, const Value&, const CallArgs&) { return false; }},
    {"filter",
     [](Runtime&, const Value& v, const CallArgs&) {
       return v.text() && has_filter(v.text()->text());
     }},
    {"test",
     [](Runtime&, const Value& v, const CallArgs&) {
       return v.text() && has_test(v.text()->text());
     }},
    {"sameas",
     [](Runtime&, const Value& v, const CallArgs& args) {
       const Value& other = args.positional[0];
       return v.type_name() == other.type_name() && equal(v, other);
     },
     1},
    {"in",
     [](Runtime& run, const Value& v, const CallArgs& args) {
       return contains(run, args.positional[0], v);
     },
     1},
    {"eq",
     [](Runtime&, const Value& v, const CallArgs& args) { return equal(v, args.positional[0]); },
     1},
    {"ne",
     [](Runtime&, const Value& v, const CallArgs& args) { return !equal(v, args.positional[0]); },
     1},
    {"lt",
     [](Runtime&, const Value& v, const CallArgs& args) { return less(v, args.positional[0]); },
     1},
    {"gt",
     [](Runtime&, const Value& v, const CallArgs& args) { return less(args.positional[0], v); },
     1},
    {"le",
     [](Runtime&, const Value& v, const CallArgs& args) {
       return equal(v, args.positional[0]) || less(v, args.positional[0]);
     },
     1},
    {"ge",
     [](Runtime&, const Value& v, const CallArgs& args) {
       return equal(v, args.positional[0]) || less(args.positional[0], v);
     },
     1},
});

struct Alias {
  std::string_view name, means;
};
constexpr Alias kAliases[] = {{"==", "eq"},          {"equalto", "eq"},  {"!=", "ne"},
                              {"<", "lt"},           {"lessthan", "lt"}, {">", "gt"},
                              {"greaterthan", "gt"}, {"<=", "le"},       {">=", "ge"}};

const Entry* find_test(std::string_view name) {
  for (const Alias& alias : kAliases) {
    if (alias.name == name) name = alias.means;
  }
  const auto found = std::find_if(kTests.begin(), kTests.end(),
                                  [&](const Entry& entry) { return entry.name == name; });
  return found == kTests.end() ? nullptr : &*found;
}

}  // namespace

bool has_test(std::string_view name) { return find_test(name) != nullptr; }

bool apply_test(Runtime& run, std::string_view name, const Value& input, const CallArgs& args) {
  const Entry* entry = find_test(name);
  if (!entry) fail_with("No test named '", name, "'.");
  if (args.positional.size() != entry->num_args || !args.keyword.empty()) {
    fail_with("TypeError: the test '", name, "' takes ", std::to_string(entry->num_args),
              " arguments");
  }
  run.charge(1);
  return entry->test(run, input, args);
}

}  // namespace braid::text::jinja
