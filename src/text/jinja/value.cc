#include "text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/check.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

// Equal for keys that are equal in Python: 1, 1.0 and True are one key.
std::string hash_key(const Value& key) {
  if (const MarkedText* text = key.text()) return "s" + text->text();
  if (key.is_bool() || key.is_int()) return "n" + int_to_string(key.to_int());
  if (key.is_float()) {
    const double d = key.to_double();
    if (d == std::floor(d) && std::abs(d) < 1e30) return "n" + int_to_string(static_cast<Int>(d));
    return "f" + float_to_string(d);
  }
  if (key.is_none()) return "0";
  if (const Sequence* tuple = key.sequence(); tuple && tuple->is_tuple) {
    std::string all = "t";
    for (const Value& item : tuple->items) {
      const std::string one = hash_key(item);
      all += fmt::format("{}:{}", one.size(), one);
    }
    return all;
  }
  fail_with("TypeError: unhashable type: '", key.type_name(), "'");
}

bool equal_items(const List& a, const List& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), equal);
}

void append_quoted(MarkedText& out, const MarkedText& text) {
  const std::string& all = text.text();
  const bool single = all.find('\'') == std::string::npos || all.find('"') != std::string::npos;
  const char quote = single ? '\'' : '"';
  out.append(std::string_view(&quote, 1), false);
  for (size_t at = 0; at < all.size();) {
    const size_t from = at;
    const char32_t c = next_char(all, at);
    std::string escaped;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      escaped = {'\\', static_cast<char>(c)};
    } else if (c == '\n') {
      escaped = "\\n";
    } else if (c == '\r') {
      escaped = "\\r";
    } else if (c == '\t') {
      escaped = "\\t";
    } else if (!is_printable(c)) {
      escaped = c < 0x100     ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
                : c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                              : fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
    if (escaped.empty()) {
      out.append(text, from, at);
    } else {
      out.append(escaped, text.has_input(from, at));
    }
  }
  out.append(std::string_view(&quote, 1), false);
}

}  // namespace

Value Object::call(Runtime&, const CallArgs&) {
  fail_with("TypeError: '", type_name(), "' object is not callable");
}

// No address as in Python: two renderings of one conversation are to be equal.
std::string Object::repr() const { return fmt::format("<{}>", type_name()); }

Value Value::undefined(std::string message) {
  return Value(Storage(Undefined{std::make_shared<const std::string>(std::move(message))}));
}

Value Value::sequence(List items, bool is_tuple) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  if (depth >= kMaxDepth) fail_with("values are nested too deep");
  return Value(
      Storage(std::make_shared<const Sequence>(Sequence{std::move(items), is_tuple, depth + 1})));
}

Value Value::dict(Dict dict) {
  Value value(Storage(std::make_shared<const Dict>(std::move(dict))));
  if (value.depth() > kMaxDepth) fail_with("values are nested too deep");
  return value;
}

const MarkedText* Value::text() const {
  const Text* p = std::get_if<Text>(&storage_);
  return p ? p->get() : nullptr;
}
const Sequence* Value::sequence() const {
  const auto* p = std::get_if<std::shared_ptr<const Sequence>>(&storage_);
  return p ? p->get() : nullptr;
}
const Dict* Value::dict() const {
  const auto* p = std::get_if<std::shared_ptr<const Dict>>(&storage_);
  return p ? p->get() : nullptr;
}
const BoundMethod* Value::method() const {
  const auto* p = std::get_if<std::shared_ptr<const BoundMethod>>(&storage_);
  return p ? p->get() : nullptr;
}
Object* Value::object() const {
  Object* const* p = std::get_if<Object*>(&storage_);
  return p ? *p : nullptr;
}

Int Value::to_int() const {
  if (const bool* b = std::get_if<bool>(&storage_)) return *b;
  const Int* i = std::get_if<Int>(&storage_);
  BRAID_CHECK(i != nullptr);
  return *i;
}

double Value::to_double() const {
  if (const double* d = std::get_if<double>(&storage_)) return *d;
  return static_cast<double>(to_int());
}

bool Value::truth() const {
  if (is_bool() || is_int()) return to_int() != 0;
  if (is_float()) return to_double() != 0;
  if (const MarkedText* t = text()) return !t->empty();
  if (const Sequence* s = sequence()) return !s->items.empty();
  if (const Dict* d = dict()) return d->size() != 0;
  return !is_undefined() && !is_none();
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_text()) return "str";
  if (const Sequence* s = sequence()) return s->is_tuple ? "tuple" : "list";
  if (dict()) return "dict";
  if (method()) return "method";
  return object()->type_name();
}

int Value::depth() const {
  if (const Sequence* s = sequence()) return s->depth;
  if (const BoundMethod* m = method()) return m->self.depth() + 1;
  if (const Dict* d = dict()) return d->depth();
  return 0;
}

const std::string& Value::undefined_message() const {
  const Undefined* u = std::get_if<Undefined>(&storage_);
  BRAID_CHECK(u != nullptr);
  return *u->message;
}

void Dict::set(const Value& key, Value value) {
  depth_ = std::max({depth_, key.depth() + 1, value.depth() + 1});
  const auto [place, is_new] = index_of_key_.try_emplace(hash_key(key), entries_.size());
  if (is_new) {
    entries_.emplace_back(key, std::move(value));
  } else {
    entries_[place->second].second = std::move(value);
  }
}

const Value* Dict::find(const Value& key) const {
  const auto found = index_of_key_.find(hash_key(key));
  return found == index_of_key_.end() ? nullptr : &entries_[found->second].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto found = index_of_key_.find("s" + std::string(key));
  return found == index_of_key_.end() ? nullptr : &entries_[found->second].second;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return a.to_double() == b.to_double();
    return a.to_int() == b.to_int();
  }
  if (a.text() && b.text()) return a.text()->text() == b.text()->text();
  if (const Sequence* x = a.sequence(), *y = b.sequence(); x && y) {
    return x->is_tuple == y->is_tuple && equal_items(x->items, y->items);
  }
  if (const Dict* x = a.dict(), *y = b.dict(); x && y) {
    return x->size() == y->size() &&
           std::all_of(x->entries().begin(), x->entries().end(), [&](const Dict::Entry& entry) {
             const Value* other = y->find(entry.first);
             return other && equal(entry.second, *other);
           });
  }
  if (a.object() || b.object()) return a.object() == b.object();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return a.to_double() < b.to_double();
    return a.to_int() < b.to_int();
  }
  // The order of code points is the order of UTF-8 bytes.
  if (a.text() && b.text()) return a.text()->text() < b.text()->text();
  if (const Sequence* x = a.sequence(), *y = b.sequence(); x && y && x->is_tuple == y->is_tuple) {
    const auto [i, j] =
        std::mismatch(x->items.begin(), x->items.end(), y->items.begin(), y->items.end(), equal);
    if (i == x->items.end() || j == y->items.end()) return x->items.size() < y->items.size();
    return less(*i, *j);
  }
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) fail_with(v->undefined_message());
  }
  fail_with("TypeError: '<' not supported between instances of '", a.type_name(), "' and '",
            b.type_name(), "'");
}

void append_str(MarkedText& out, const Value& value) {
  if (const MarkedText* text = value.text()) {
    out.append(*text);
  } else if (!value.is_undefined()) {
    append_repr(out, value);
  }
}

void append_repr(MarkedText& out, const Value& value) {
  const auto put = [&](std::string_view text) { out.append(text, false); };
  if (value.is_undefined()) return put("Undefined");
  if (value.is_none()) return put("None");
  if (value.is_bool()) return put(value.to_int() != 0 ? "True" : "False");
  if (value.is_int()) return put(int_to_string(value.to_int()));
  if (value.is_float()) return put(float_to_string(value.to_double()));
  if (const MarkedText* text = value.text()) return append_quoted(out, *text);
  if (const Sequence* sequence = value.sequence()) {
    put(sequence->is_tuple ? "(" : "[");
    for (size_t i = 0; i < sequence->items.size(); ++i) {
      if (i > 0) put(", ");
      append_repr(out, sequence->items[i]);
    }
    if (sequence->is_tuple && sequence->items.size() == 1) put(",");
    return put(sequence->is_tuple ? ")" : "]");
  }
  if (const Dict* dict = value.dict()) {
    put("{");
    bool first = true;
    for (const auto& [key, item] : dict->entries()) {
      if (!std::exchange(first, false)) put(", ");
      append_repr(out, key);
      put(": ");
      append_repr(out, item);
    }
    return put("}");
  }
  put(value.object() ? value.object()->repr() : "<method>");
}

MarkedText to_str(const Value& value) {
  MarkedText out;
  append_str(out, value);
  return out;
}

Int truncate(const Value& number) {
  if (!number.is_float()) return number.to_int();
  const double d = number.to_double();
  if (!(std::abs(d) < 1e38)) {
    fail_with("OverflowError: cannot convert float ", float_to_string(d), " to integer");
  }
  return static_cast<Int>(d);
}

std::string int_to_string(Int value) {
  std::string digits;
  const bool negative = value < 0;
  do {
    const int digit = static_cast<int>(value % 10);
    digits += static_cast<char>('0' + (digit < 0 ? -digit : digit));
    value /= 10;
  } while (value != 0);
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string float_to_string(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view all(buffer, static_cast<size_t>(end.ptr - buffer));
  const size_t e = all.find('e');
  int exponent = 0;
  const char* digits_of_exponent = all.data() + e + (all[e + 1] == '+' ? 2 : 1);
  std::from_chars(digits_of_exponent, all.data() + all.size(), exponent);
  // Python writes exponents from -4 to 15 out.
  if (exponent < -4 || exponent >= 16) return std::string(all);
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  std::string text(buffer, fixed.ptr);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::optional<Int> parse_int(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text.front() == '_' || text.back() == '_') return std::nullopt;
  Int value = 0;
  char before = '0';
  for (const char c : text) {
    if (c == '_' && before != '_') {
      before = c;
      continue;
    }
    if (c < '0' || c > '9') return std::nullopt;
    if (__builtin_mul_overflow(value, Int{10}, &value) ||
        __builtin_sub_overflow(value, Int{c - '0'}, &value)) {
      return std::nullopt;
    }
    before = c;
  }
  if (negative) return value;
  if (__builtin_sub_overflow(Int{0}, value, &value)) return std::nullopt;
  return value;
}

std::optional<double> parse_float(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return std::nullopt;
  }
  double value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

double round_to(double value, int digits) {
  if (!std::isfinite(value)) return value;
  // Printing with so many digits rounds the exact binary value, halves to even.
  if (digits >= 0) return parse_float(fmt::format("{:.{}f}", value, digits)).value_or(value);
  const double unit = std::pow(10.0, -digits);
  return std::nearbyint(value / unit) * unit;
}

}  // namespace braid::text::jinja
