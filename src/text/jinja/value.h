#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/marked_text.h"

// The values of chat templates: what Python values do in Jinja2, as far as templates use it.
namespace braid::text::jinja {

// Wide enough for every integer that JSON schemas hold (64 bits, signed or not).
__extension__ typedef __int128 Int;

class Value;
using List = std::vector<Value>;

// Why rendering cannot go on. Thrown and caught inside this folder only: an interpreter whose every
// step returns a Result is mostly error passing.
struct Failure {
  std::string message;
  bool raised = false;  // by the template's own raise_exception
};

template <class... Args>
[[noreturn]] void fail_with(Args&&... parts) {
  std::string message;
  (message.append(parts), ...);
  throw Failure{std::move(message)};
}

// A name or field that is not there. Prints as nothing; most uses of it fail with the message.
struct Undefined {
  std::shared_ptr<const std::string> message;
};
struct None {};

// A list, or a tuple. Never changes: templates run in an immutable sandbox.
struct Sequence {
  List items;
  bool is_tuple = false;
  int depth = 1;
};

class Dict;
struct BoundMethod;

class Runtime;
struct CallArgs;

// Something with identity that lives as long as the rendering: namespaces, macros, loops.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual bool is_callable() const { return false; }
  // Undefined when there is no such attribute.
  virtual Value get(Runtime& run, std::string_view name) = 0;
  // Throws Failure where is_callable() is false.
  virtual Value call(Runtime& run, const CallArgs& args);
  virtual std::string repr() const;
};

class Value {
 public:
  using Text = std::shared_ptr<const MarkedText>;
  using Storage =
      std::variant<Undefined, None, bool, Int, double, Text, std::shared_ptr<const Sequence>,
                   std::shared_ptr<const Dict>, std::shared_ptr<const BoundMethod>, Object*>;

  Value() : storage_(None()) {}
  Value(bool b) : storage_(b) {}
  Value(Int i) : storage_(i) {}
  Value(int i) : storage_(Int{i}) {}
  Value(int64_t i) : storage_(Int{i}) {}
  Value(size_t i) : storage_(static_cast<Int>(i)) {}
  Value(double d) : storage_(d) {}
  Value(MarkedText text) : storage_(std::make_shared<const MarkedText>(std::move(text))) {}
  Value(std::string_view text) : Value(MarkedText(text, false)) {}
  Value(const char* text) : Value(std::string_view(text)) {}
  Value(const std::string& text) : Value(std::string_view(text)) {}
  Value(Object* object) : storage_(object) {}
  explicit Value(Storage storage) : storage_(std::move(storage)) {}

  static Value undefined(std::string message);
  // Throws Failure when values are nested deeper than kMaxDepth.
  static Value list(List items) { return sequence(std::move(items), false); }
  static Value tuple(List items) { return sequence(std::move(items), true); }
  static Value sequence(List items, bool is_tuple);
  static Value dict(Dict dict);

  static constexpr int kMaxDepth = 120;

  bool is_undefined() const { return std::holds_alternative<Undefined>(storage_); }
  bool is_none() const { return std::holds_alternative<None>(storage_); }
  bool is_bool() const { return std::holds_alternative<bool>(storage_); }
  bool is_int() const { return std::holds_alternative<Int>(storage_); }
  bool is_float() const { return std::holds_alternative<double>(storage_); }
  bool is_text() const { return std::holds_alternative<Text>(storage_); }
  // True and False count as 1 and 0, as in Python.
  bool is_number() const { return is_bool() || is_int() || is_float(); }

  // Null when the value is something else.
  const MarkedText* text() const;
  const Sequence* sequence() const;
  const Dict* dict() const;
  const BoundMethod* method() const;
  Object* object() const;
  template <class T>
  T* as() const {
    return dynamic_cast<T*>(object());
  }

  // Of a number. to_int takes bool and int only.
  Int to_int() const;
  double to_double() const;

  // Python's truth.
  bool truth() const;
  // "str", "int", "list", ...
  std::string_view type_name() const;
  // How many containers are inside each other; 0 for the rest.
  int depth() const;
  // Of an undefined value.
  const std::string& undefined_message() const;

  const Storage& storage() const { return storage_; }

 private:
  Storage storage_;
};

// Keys in the order they came, as in Python. Keys are numbers, strings, None, or tuples of these.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;

  // Replaces the value of a key that is there. Throws Failure on a key that cannot be hashed.
  void set(const Value& key, Value value);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  const Value* find(const char* key) const { return find(std::string_view(key)); }
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }

 private:
  int depth_ = 1;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_of_key_;
};

// A method taken off its value: `{% set f = x.split %}`.
struct BoundMethod {
  Value self;
  std::string name;
};

// Python's == and the order of <; `less` throws Failure for types without an order.
bool equal(const Value& a, const Value& b);
bool less(const Value& a, const Value& b);

// str() and repr(), appended. Bytes of strings keep their marks.
void append_str(MarkedText& out, const Value& value);
void append_repr(MarkedText& out, const Value& value);
MarkedText to_str(const Value& value);

// int() of a number: without the fraction. Throws Failure for floats that no Int holds.
Int truncate(const Value& number);

std::string int_to_string(Int value);
// repr(float): shortest digits that read back.
std::string float_to_string(double value);
// Decimal digits with an optional sign and white space around; nothing when it is none or too big.
std::optional<Int> parse_int(std::string_view text);
// float() of a string: nothing when it is none.
std::optional<double> parse_float(std::string_view text);
// round(value, digits): halves to even, in exact decimal.
double round_to(double value, int digits);

}  // namespace braid::text::jinja
