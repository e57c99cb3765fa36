// The filters behind `|`.
//
// Source: jinja2/filters.py 3.1; tojson as transformers sets it. Filters that give a generator
// there give a list here.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "text/jinja/json_value.h"
#include "text/jinja/objects.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

// Most filters of strings take anything and see its str().
MarkedText soft_str(Runtime& run, const Value& value) {
  MarkedText text = to_str(value);
  run.charge_bytes(text.size());
  return text;
}

template <MarkedText (*kChange)(const MarkedText&)>
Value change_case(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("filter", args, {});
  return Value(kChange(soft_str(run, input)));
}

// Words are what stands between white space and -({[<.
Value title(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("title", args, {});
  const MarkedText text = soft_str(run, input);
  MarkedText out;
  bool at_word_start = true;
  for (size_t at = 0; at < text.size();) {
    const size_t from = at;
    const char32_t c = next_char(text.text(), at);
    const bool separates =
        is_python_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    std::string changed;
    append_utf8(changed, at_word_start && !separates ? title_of(c) : lower_of(c));
    out.append(changed, text.has_input(from, at));
    at_word_start = separates;
  }
  return Value(std::move(out));
}

Value trim(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("trim", args, {"chars"});
  return Value(strip(soft_str(run, input), bound.get_text("chars"), true, true));
}

Value replace_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("replace", args, {"old", "new", "count"});
  return Value(replace(run, soft_str(run, input), to_str(bound.need("old")),
                       to_str(bound.need("new")), bound.get_int("count", -1)));
}

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

Value default_filter(Runtime&, const Value& input, const CallArgs& args) {
  const BoundArgs bound("default", args, {"default_value", "boolean"});
  const bool replaces =
      input.is_undefined() || (bound.get_bool("boolean", false) && !input.truth());
  return replaces ? bound.get("default_value", "") : input;
}

Value list_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("list", args, {});
  return Value::list(to_list(run, input));
}

Value string_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("string", args, {});
  return input.text() ? input : Value(soft_str(run, input));
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

// --- map, select and their kind ---

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

// --- strings ---

Value indent(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("indent", args, {"width", "first", "blank"});
  const Value width = bound.get("width", Value(4));
  MarkedText by;
  if (width.text()) {
    by = *width.text();
  } else {
    by = pad(run, MarkedText(), bound.get_int("width", 4), " ", Align::kLeft);
  }
  const bool blank = bound.get_bool("blank", false);
  MarkedText text = soft_str(run, input);
  text.append("\n", false);  // so that a line end at the end counts, as in Jinja
  const List lines = split_lines(run, text, false);
  MarkedText out;
  for (size_t i = 0; i < lines.size(); ++i) {
    const MarkedText& line = *lines[i].text();
    if (i > 0) out.append("\n", false);
    const bool indented = i == 0 ? bound.get_bool("first", false) : blank || !line.empty();
    run.charge_bytes(by.size() + line.size());
    if (indented) out.append(by);
    out.append(line);
  }
  return Value(std::move(out));
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

Value safe(Runtime&, const Value& input, const CallArgs& args) {
  const BoundArgs bound("safe", args, {});
  return input;  // nothing is escaped unless asked for
}

Value escape(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("escape", args, {});
  const MarkedText text = soft_str(run, input);
  MarkedText out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text.text()[i];
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '"'  ? "&#34;"
                                    : c == '\'' ? "&#39;"
                                                : "";
    if (entity.empty()) {
      out.append(text, i, i + 1);
    } else {
      out.append(entity, text.has_input(i, i + 1));
    }
  }
  return Value(std::move(out));
}

Value center(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("center", args, {"width"});
  return Value(pad(run, soft_str(run, input), bound.get_int("width", 80), " ", Align::kCenter));
}

Value format_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const MarkedText text = soft_str(run, input);
  if (!args.positional.empty() && !args.keyword.empty()) {
    fail_with(
        "FilterArgumentError: can't handle positional and keyword arguments at the same "
        "time");
  }
  if (args.keyword.empty()) return format_percent(run, text, Value::tuple(args.positional));
  Dict named;
  for (const auto& [key, value] : args.keyword) named.set(Value(key), value);
  return format_percent(run, text, Value::dict(std::move(named)));
}

Value wordcount(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("wordcount", args, {});
  const MarkedText text = soft_str(run, input);
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const bool word = is_word_char(next_char(text.text(), at));
    count += word && !in_word;
    in_word = word;
  }
  return Value(count);
}

Value truncate_filter(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("truncate", args, {"length", "killwords", "end", "leeway"});
  const MarkedText text = soft_str(run, input);
  const MarkedText end = to_str(bound.get("end", "..."));
  const Int length_wanted = bound.get_int("length", 255);
  const auto end_size = static_cast<Int>(length_in_chars(end));
  if (length_wanted < end_size)
    fail_with("AssertionError: expected length >= ", int_to_string(end_size));
  const Int leeway =
      bound.find("leeway") && !bound.need("leeway").is_none() ? bound.get_int("leeway", 0) : 5;
  const auto size = static_cast<Int>(length_in_chars(text));
  if (size <= length_wanted || size - length_wanted <= leeway) return Value(text);
  Range kept = bytes_of_chars(text, 0, static_cast<size_t>(length_wanted - end_size));
  if (!bound.get_bool("killwords", false)) {
    const size_t space = kept.end == 0 ? std::string::npos : text.text().rfind(' ', kept.end - 1);
    if (space != std::string::npos) kept.end = space;
  }
  MarkedText out = substring(text, 0, kept.end);
  out.append(end);
  return Value(std::move(out));
}

Value wordwrap(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("wordwrap", args,
                        {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  for (const std::string_view other : {"break_long_words", "break_on_hyphens"}) {
    if (bound.find(other)) fail_with("wordwrap() with ", other, " is not supported");
  }
  const Int width = bound.get_int("width", 79);
  const MarkedText newline = to_str(bound.get("wrapstring", "\n"));
  MarkedText out;
  const List lines = split_lines(run, soft_str(run, input), false);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append(newline);
    Int used = 0;
    for (const Value& word : split(run, *lines[i].text(), nullptr, -1, false)) {
      const auto size = static_cast<Int>(length_in_chars(*word.text()));
      if (used > 0 && used + 1 + size > width) {
        out.append(newline);
        used = 0;
      } else if (used > 0) {
        out.append(" ", false);
        ++used;
      }
      out.append(*word.text());
      used += size;
    }
  }
  return Value(std::move(out));
}

Value urlencode(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("urlencode", args, {});
  if (input.dict() || input.sequence()) fail_with("urlencode of a mapping is not supported");
  const MarkedText text = soft_str(run, input);
  MarkedText out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text.text()[i]);
    const bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                       (byte >= '0' && byte <= '9') || byte == '_' || byte == '.' || byte == '-' ||
                       byte == '~' || byte == '/';
    static constexpr char kHex[] = "0123456789ABCDEF";
    const char escaped[3] = {'%', kHex[byte >> 4], kHex[byte & 15]};
    out.append(plain ? std::string_view(text.text()).substr(i, 1) : std::string_view(escaped, 3),
               text.has_input(i, i + 1));
  }
  return Value(std::move(out));
}

// Without tags and comments, white space as single spaces.
Value striptags(Runtime& run, const Value& input, const CallArgs& args) {
  const BoundArgs bound("striptags", args, {});
  const MarkedText text = soft_str(run, input);
  const std::string& all = text.text();
  MarkedText bare;
  for (size_t at = 0; at < all.size();) {
    const size_t open = std::min(all.find('<', at), all.size());
    bare.append(text, at, open);
    const bool comment = all.compare(open, 4, "<!--") == 0;
    const std::string_view close = comment ? "-->" : ">";
    const size_t end = all.find(close, open);
    if (end == std::string::npos) {
      bare.append(text, open, all.size());
      break;
    }
    at = end + close.size();
  }
  return Value(join(run, MarkedText(" ", false), split(run, bare, nullptr, -1, false), true));
}

using Filter = Value (*)(Runtime&, const Value&, const CallArgs&);
struct Entry {
  std::string_view name;
  Filter apply;
};

constexpr auto kFilters = std::to_array<Entry>({
    {"abs", abs_filter},
    {"attr", attr},
    {"batch", batch},
    {"capitalize", change_case<to_capitalized>},
    {"center", center},
    {"count", length},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dictsort},
    {"e", escape},
    {"escape", escape},
    {"first", first},
    {"float", float_filter},
    {"format", format_filter},
    {"groupby", groupby},
    {"indent", indent},
    {"int", int_filter},
    {"items", items_filter},
    {"join", join_filter},
    {"last", last},
    {"length", length},
    {"list", list_filter},
    {"lower", change_case<to_lower>},
    {"map", map_filter},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", select_filter<false, false>},
    {"rejectattr", select_filter<true, false>},
    {"replace", replace_filter},
    {"reverse", reverse},
    {"round", round_filter},
    {"safe", safe},
    {"select", select_filter<false, true>},
    {"selectattr", select_filter<true, true>},
    {"slice", slice_filter},
    {"sort", sort_filter},
    {"string", string_filter},
    {"striptags", striptags},
    {"sum", sum},
    {"title", title},
    {"tojson", tojson},
    {"trim", trim},
    {"truncate", truncate_filter},
    {"unique", unique},
    {"upper", change_case<to_upper>},
    {"urlencode", urlencode},
    {"wordcount", wordcount},
    {"wordwrap", wordwrap},
});

const Entry* find_filter(std::string_view name) {
  const auto found = std::find_if(kFilters.begin(), kFilters.end(),
                                  [&](const Entry& entry) { return entry.name == name; });
  return found == kFilters.end() ? nullptr : &*found;
}

}  // namespace

bool has_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value apply_filter(Runtime& run, std::string_view name, const Value& input, const CallArgs& args) {
  const Entry* entry = find_filter(name);
  if (!entry) fail_with("No filter named '", name, "'.");
  run.charge(2);
  return entry->apply(run, input, args);
}

}  // namespace braid::text::jinja
