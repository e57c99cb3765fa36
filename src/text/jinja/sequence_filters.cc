// Filters that see their input as a sequence or a mapping.
//
// Source: jinja2/filters.py 3.1. Those that give a generator there give a list here.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "text/jinja/filters.h"
#include "text/jinja/objects.h"
#include "text/jinja/strings.h"

namespace braid::text::jinja {
namespace {

Value length(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("length", args, {});
  if (input.is_undefined()) return Value(0);
  if (const MarkedText* text = input.text()) {
    run.charge_bytes(text->size());
    return Value(length_in_chars(*text));
  }
  if (const Sequence* sequence = input.sequence()) return Value(sequence->items.size());
  if (const Dict* dict = input.dict()) return Value(dict->size());
  if (const auto* range = input.as<RangeObject>()) return Value(static_cast<Int>(range->size()));
  fail_with("TypeError: object of type '", input.type_name(), "' has no len()");
}

Value first(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("first", args, {});
  if (input.text() || input.sequence()) {
    const Value one = get_item(run, input, Value(0));
    return one.is_undefined() ? Value::undefined("No first item, sequence was empty.") : one;
  }
  const List items = to_list(run, input);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("last", args, {});
  if (input.text() || input.sequence()) {
    const Value one = get_item(run, input, Value(-1));
    return one.is_undefined() ? Value::undefined("No last item, sequence was empty.") : one;
  }
  const List items = to_list(run, input);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value join_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("join", args, {"d", "attribute"});
  List items = to_list(run, input);
  if (const Value* path = bound.find("attribute"); path && !path->is_none()) {
    for (Value& item : items) item = get_path(run, item, *path);
  }
  return Value(join(run, to_str(bound.get("d", "")), items, false));
}

Value list_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("list", args, {});
  return Value::list(to_list(run, input));
}

Value reverse(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("reverse", args, {});
  List items = to_list(run, input);
  std::reverse(items.begin(), items.end());
  if (!input.text()) return Value::list(std::move(items));
  return Value(join(run, MarkedText(), items, true));
}

Value items_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("items", args, {});
  if (input.is_undefined()) return Value::list({});
  if (!input.dict()) fail_with("TypeError: Can only get item pairs from a mapping.");
  return call_method(run, input, "items", {});
}

// What strings compare as: themselves, or without case.
Value sort_key(const Value& value, bool case_sensitive) {
  return !case_sensitive && value.text() ? Value(to_lower(*value.text())) : value;
}

// Sorts stably by the keys; throws Failure where two have no order.
void sort_by_key(Runtime& run, std::vector<std::pair<Value, Value>>& keyed, bool reversed) {
  run.charge(keyed.size() * (1 + static_cast<uint64_t>(std::log2(1.0 + keyed.size()))));
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reversed ? less(b.first, a.first) : less(a.first, b.first);
  });
}

Value sort_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("sort", args, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = bound.get_bool("case_sensitive", false);
  const Value* path = bound.find("attribute");
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : to_list(run, input)) {
    if (!path || path->is_none()) {
      keyed.emplace_back(sort_key(item, case_sensitive), item);
      continue;
    }
    // "a,b" sorts by a, then by b.
    List keys;
    const MarkedText comma(",", false);
    const List paths = path->text() ? split(run, *path->text(), &comma, -1, false) : List{*path};
    for (const Value& one : paths) {
      keys.push_back(sort_key(get_path(run, item, one), case_sensitive));
    }
    keyed.emplace_back(Value::list(std::move(keys)), item);
  }
  sort_by_key(run, keyed, bound.get_bool("reverse", false));
  List sorted;
  for (auto& [key, item] : keyed) sorted.push_back(std::move(item));
  return Value::list(std::move(sorted));
}

Value dictsort(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("dictsort", args, {"case_sensitive", "by", "reverse"});
  const bool case_sensitive = bound.get_bool("case_sensitive", false);
  const Value by = bound.get("by", "key");
  const std::string what = by.text() ? by.text()->text() : "";
  if (what != "key" && what != "value") {
    fail_with("FilterArgumentError: You can only sort by either \"key\" or \"value\"");
  }
  if (!input.dict()) {
    require_defined(input);
    fail_with("TypeError: dictsort takes a mapping, not '", input.type_name(), "'");
  }
  run.charge_items(input.dict()->size());
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : input.dict()->entries()) {
    keyed.emplace_back(sort_key(what == "key" ? key : value, case_sensitive),
                       Value::tuple({key, value}));
  }
  sort_by_key(run, keyed, bound.get_bool("reverse", false));
  List sorted;
  for (auto& [key, item] : keyed) sorted.push_back(std::move(item));
  return Value::list(std::move(sorted));
}

Value unique(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("unique", args, {"case_sensitive", "attribute"});
  const Value* path = bound.find("attribute");
  const bool case_sensitive = bound.get_bool("case_sensitive", false);
  Dict seen;
  List items;
  for (const Value& item : to_list(run, input)) {
    const Value key =
        sort_key(path && !path->is_none() ? get_path(run, item, *path) : item, case_sensitive);
    if (seen.find(key)) continue;
    seen.set(key, Value());
    items.push_back(item);
  }
  return Value::list(std::move(items));
}

template <bool kMax>
Value extreme(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("min", args, {"case_sensitive", "attribute"});
  const bool case_sensitive = bound.get_bool("case_sensitive", false);
  const Value* path = bound.find("attribute");
  const List items = to_list(run, input);
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : items) {
    const Value key =
        sort_key(path && !path->is_none() ? get_path(run, item, *path) : item, case_sensitive);
    if (!best || (kMax ? less(best_key, key) : less(key, best_key))) best = &item, best_key = key;
  }
  return best ? *best : Value::undefined("No aggregated item, sequence was empty.");
}

Value sum(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("sum", args, {"attribute", "start"});
  const Value* path = bound.find("attribute");
  Value total = bound.get("start", Value(0));
  for (const Value& item : to_list(run, input)) {
    total = apply_operator(run, "+", total,
                           path && !path->is_none() ? get_path(run, item, *path) : item);
  }
  return total;
}

Value groupby(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("groupby", args, {"attribute", "default", "case_sensitive"});
  const bool case_sensitive = bound.get_bool("case_sensitive", false);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : to_list(run, input)) {
    Value key = get_path(run, item, bound.need("attribute"));
    if (key.is_undefined() && bound.find("default")) key = bound.need("default");
    keyed.emplace_back(sort_key(key, case_sensitive), Value::tuple({key, item}));
  }
  sort_by_key(run, keyed, false);
  List groups;
  for (size_t i = 0; i < keyed.size();) {
    const Value grouper = keyed[i].second.sequence()->items[0];
    List members;
    size_t j = i;
    for (; j < keyed.size() && equal(keyed[j].first, keyed[i].first); ++j) {
      members.push_back(keyed[j].second.sequence()->items[1]);
    }
    groups.emplace_back(run.make<Group>(grouper, Value::list(std::move(members))));
    i = j;
  }
  return Value::list(std::move(groups));
}

Value batch(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("batch", args, {"linecount", "fill_with"});
  bound.need("linecount");
  const Int size = bound.get_int("linecount", 1);
  if (size < 1) fail_with("ValueError: batch() takes a size of at least 1");
  List batches, now;
  for (const Value& item : to_list(run, input)) {
    now.push_back(item);
    if (static_cast<Int>(now.size()) == size)
      batches.push_back(Value::list(std::exchange(now, {})));
  }
  if (!now.empty()) {
    const Value* fill = bound.find("fill_with");
    while (fill && !fill->is_none() && static_cast<Int>(now.size()) < size) {
      run.charge_items(1);
      now.push_back(*fill);
    }
    batches.push_back(Value::list(std::move(now)));
  }
  return Value::list(std::move(batches));
}

Value slice_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("slice", args, {"slices", "fill_with"});
  bound.need("slices");
  const Int slices = bound.get_int("slices", 1);
  if (slices < 1) fail_with("ValueError: slice() takes a number of at least 1");
  const List items = to_list(run, input);
  const auto size = static_cast<Int>(items.size());
  if (slices > static_cast<Int>(Runtime::kMaxWork)) run.charge(Runtime::kMaxWork);
  run.charge_items(static_cast<uint64_t>(slices));
  const Int each = size / slices, longer = size % slices;
  const Value* fill = bound.find("fill_with");
  List out;
  size_t at = 0;
  for (Int i = 0; i < slices; ++i) {
    List now;
    for (Int j = 0; j < each + (i < longer ? 1 : 0); ++j) now.push_back(items[at++]);
    if (fill && !fill->is_none() && longer > 0 && i >= longer) now.push_back(*fill);
    out.push_back(Value::list(std::move(now)));
  }
  return Value::list(std::move(out));
}

// The arguments behind the first `n`.
CallArgs rest_of(const CallArgs& args, size_t n) {
  CallArgs rest = args;
  rest.positional.erase(
      rest.positional.begin(),
      rest.positional.begin() + static_cast<ptrdiff_t>(std::min(n, rest.positional.size())));
  return rest;
}

const std::string& name_of(const Value& value, std::string_view what) {
  if (!value.text()) {
    require_defined(value);
    fail_with("FilterArgumentError: the name of a ", what, " has to be a string");
  }
  return value.text()->text();
}

Value map_filter(Runtime& run, const Value& input, const CallArgs& args) {
  List items = to_list(run, input);
  if (args.positional.empty()) {
    const BoundArgs bound("map", args, {"attribute", "default"});
    for (Value& item : items) {
      item = get_path(run, item, bound.need("attribute"));
      if (item.is_undefined() && bound.find("default")) item = bound.need("default");
    }
  } else {
    const std::string& filter = name_of(args.positional[0], "filter");
    const CallArgs rest = rest_of(args, 1);
    for (Value& item : items) item = apply_filter(run, filter, item, rest);
  }
  return Value::list(std::move(items));
}

// kAttribute: the first argument is a path and the test sees what lies there.
template <bool kAttribute, bool kKeep>
Value select_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const size_t test_at = kAttribute ? 1 : 0;
  if (kAttribute && args.positional.empty()) {
    fail_with("FilterArgumentError: Missing parameter for attribute name");
  }
  const bool has_name = args.positional.size() > test_at;
  const std::string test = has_name ? name_of(args.positional[test_at], "test") : "";
  const CallArgs rest = rest_of(args, test_at + 1);
  List kept;
  for (const Value& item : to_list(run, input)) {
    const Value seen = kAttribute ? get_path(run, item, args.positional[0]) : item;
    const bool fits = has_name ? apply_test(run, test, seen, rest) : seen.truth();
    if (fits == kKeep) kept.push_back(item);
  }
  return Value::list(std::move(kept));
}

Value attr(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("attr", args, {"name"});
  const std::string& name = name_of(bound.need("name"), "attribute");
  // Attributes only, not the entries of a dict.
  if (input.dict() && !has_method(input, name)) {
    return Value::undefined(fmt::format("'dict object' has no attribute '{}'", name));
  }
  return get_attribute(run, input, name);
}

constexpr auto kFilters = std::to_array<Filter>({
    {"attr", attr},
    {"batch", batch},
    {"count", length},
    {"dictsort", dictsort},
    {"first", first},
    {"groupby", groupby},
    {"items", items_filter},
    {"join", join_filter},
    {"last", last},
    {"length", length},
    {"list", list_filter},
    {"map", map_filter},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", select_filter<false, false>},
    {"rejectattr", select_filter<true, false>},
    {"reverse", reverse},
    {"select", select_filter<false, true>},
    {"selectattr", select_filter<true, true>},
    {"slice", slice_filter},
    {"sort", sort_filter},
    {"sum", sum},
    {"unique", unique},
});

}  // namespace

std::span<const Filter> sequence_filters() { return kFilters; }

}  // namespace braid::text::jinja
