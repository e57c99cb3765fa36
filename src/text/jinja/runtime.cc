#include "text/jinja/runtime.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "text/jinja/objects.h"
#include "text/utf8.h"

namespace braid::text::jinja {

BoundArgs::BoundArgs(std::string_view callee, const CallArgs& args,
                     std::initializer_list<std::string_view> params)
    : callee_(callee) {
  if (args.positional.size() > params.size()) {
    throw Failure{fmt::format("TypeError: {}() takes at most {} arguments ({} given)", callee,
                              params.size(), args.positional.size())};
  }
  for (size_t i = 0; i < args.positional.size(); ++i) {
    bound_.emplace_back(params.begin()[i], &args.positional[i]);
  }
  for (const auto& [name, value] : args.keyword) {
    const auto* param = std::find(params.begin(), params.end(), name);
    if (param == params.end()) {
      throw Failure{
          fmt::format("TypeError: {}() got an unexpected keyword argument '{}'", callee, name)};
    }
    if (find(*param)) {
      throw Failure{
          fmt::format("TypeError: {}() got multiple values for argument '{}'", callee, name)};
    }
    bound_.emplace_back(*param, &value);
  }
}

const Value* BoundArgs::find(std::string_view param) const {
  for (const auto& [name, value] : bound_) {
    if (name == param) return value;
  }
  return nullptr;
}

const Value& BoundArgs::need(std::string_view param) const {
  const Value* value = find(param);
  if (!value) {
    throw Failure{fmt::format("TypeError: {}() missing required argument '{}'", callee_, param)};
  }
  return *value;
}

Value BoundArgs::get(std::string_view param, Value otherwise) const {
  const Value* value = find(param);
  return value ? *value : std::move(otherwise);
}

Int BoundArgs::get_int(std::string_view param, Int otherwise) const {
  const Value* value = find(param);
  if (!value) return otherwise;
  if (!value->is_int() && !value->is_bool()) {
    require_defined(*value);
    throw Failure{fmt::format("TypeError: {}(): '{}' has to be an integer, not '{}'", callee_,
                              param, value->type_name())};
  }
  return value->to_int();
}

bool BoundArgs::get_bool(std::string_view param, bool otherwise) const {
  const Value* value = find(param);
  return value ? value->truth() : otherwise;
}

const MarkedText* BoundArgs::get_text(std::string_view param) const {
  const Value* value = find(param);
  if (!value || value->is_none()) return nullptr;
  if (!value->text()) {
    require_defined(*value);
    throw Failure{fmt::format("TypeError: {}(): '{}' has to be a string, not '{}'", callee_, param,
                              value->type_name())};
  }
  return value->text();
}

void require_defined(const Value& value) {
  if (value.is_undefined()) fail_with(value.undefined_message());
}

List characters(Runtime& run, const MarkedText& text) {
  run.charge_items(text.size());
  List items;
  for (size_t at = 0; at < text.size();) {
    const size_t from = at;
    next_char(text.text(), at);
    MarkedText one;
    one.append(text, from, at);
    items.emplace_back(std::move(one));
  }
  return items;
}

List to_list(Runtime& run, const Value& value) {
  if (value.is_undefined()) return {};
  if (const MarkedText* text = value.text()) return characters(run, *text);
  if (const Sequence* sequence = value.sequence()) {
    run.charge_items(sequence->items.size());
    return sequence->items;
  }
  if (const Dict* dict = value.dict()) {
    run.charge_items(dict->size());
    List keys;
    for (const auto& [key, item] : dict->entries()) keys.push_back(key);
    return keys;
  }
  if (const auto* range = value.as<RangeObject>()) {
    run.charge_items(range->size());
    List items;
    for (uint64_t i = 0; i < range->size(); ++i) items.push_back(range->at(i));
    return items;
  }
  if (const auto* group = value.as<Group>()) return group->items();
  fail_with("TypeError: '", value.type_name(), "' object is not iterable");
}

size_t length_in_chars(const MarkedText& text) { return count_chars(text.text()); }

Range bytes_of_chars(const MarkedText& text, size_t begin, size_t end) {
  const std::string& all = text.text();
  size_t at = 0;
  for (size_t i = 0; i < begin && at < all.size(); ++i) next_char(all, at);
  Range range = {at, at};
  for (size_t i = begin; i < end && range.end < all.size(); ++i) next_char(all, range.end);
  return range;
}

namespace {

std::string object_name(const Value& value) {
  return value.is_none() ? "None" : fmt::format("{} object", value.type_name());
}

Value method_of(const Value& self, std::string_view name) {
  if (self.depth() >= Value::kMaxDepth) fail_with("values are nested too deep");
  return Value(
      Value::Storage(std::make_shared<const BoundMethod>(BoundMethod{self, std::string(name)})));
}

// The element at a Python index, or undefined.
Value element(Runtime& run, const Value& value, Int index) {
  const auto missing = [&] {
    return Value::undefined(
        fmt::format("{} has no element {}", object_name(value), int_to_string(index)));
  };
  const auto place = [&](size_t size) -> std::optional<size_t> {
    const Int i = index < 0 ? index + static_cast<Int>(size) : index;
    if (i < 0 || i >= static_cast<Int>(size)) return std::nullopt;
    return static_cast<size_t>(i);
  };
  if (const Sequence* sequence = value.sequence()) {
    const auto i = place(sequence->items.size());
    return i ? sequence->items[*i] : missing();
  }
  if (const auto* range = value.as<RangeObject>()) {
    const auto i = place(range->size());
    return i ? range->at(*i) : missing();
  }
  if (const auto* group = value.as<Group>()) {
    const auto i = place(2);
    return i ? group->items()[*i] : missing();
  }
  if (const MarkedText* text = value.text()) {
    run.charge_bytes(text->size());
    const auto i = place(length_in_chars(*text));
    if (!i) return missing();
    const Range bytes = bytes_of_chars(*text, *i, *i + 1);
    MarkedText one;
    one.append(*text, bytes.begin, bytes.end);
    return Value(std::move(one));
  }
  return missing();
}

}  // namespace

Value get_attribute(Runtime& run, const Value& value, std::string_view name) {
  require_defined(value);
  if (Object* object = value.object()) return object->get(run, name);
  if (has_method(value, name)) return method_of(value, name);
  if (const Dict* dict = value.dict()) {
    run.charge_bytes(name.size());
    if (const Value* found = dict->find(name)) return *found;
  }
  if (name == "real" && value.is_number()) return value;
  return Value::undefined(fmt::format("'{}' has no attribute '{}'", object_name(value), name));
}

Value get_item(Runtime& run, const Value& value, const Value& key) {
  require_defined(value);
  if (const Dict* dict = value.dict()) {
    // What cannot be hashed cannot be a key: Jinja takes that for "not there".
    const bool hashable = !key.dict() && !(key.sequence() && !key.sequence()->is_tuple) &&
                          !key.is_undefined() && !key.object() && !key.method();
    if (const Value* found = hashable ? dict->find(key) : nullptr) return *found;
  } else if (key.is_int() || key.is_bool()) {
    return element(run, value, key.to_int());
  }
  if (const MarkedText* name = key.text()) {
    if (Object* object = value.object()) return object->get(run, name->text());
    if (has_method(value, name->text())) return method_of(value, name->text());
  }
  MarkedText shown;
  append_repr(shown, key);
  return Value::undefined(
      fmt::format("'{}' has no attribute {}", object_name(value), shown.text()));
}

Value get_path(Runtime& run, const Value& value, const Value& path) {
  const MarkedText* text = path.text();
  if (!text) return get_item(run, value, path);
  Value now = value;
  std::string_view rest = text->text();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool is_number = !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
      return c >= '0' && c <= '9';
    });
    const std::optional<Int> index = is_number ? parse_int(part) : std::nullopt;
    // Undefined on the way stays undefined, as in Jinja's attribute getters.
    now = get_item(run, now, index ? Value(*index) : Value(part));
    if (dot == std::string_view::npos) return now;
    rest.remove_prefix(dot + 1);
  }
}

}  // namespace braid::text::jinja
