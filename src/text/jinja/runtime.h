#pragma once

#include <cstdint>
#include <ctime>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace braid::text::jinja {

// Arguments of a call, evaluated.
struct CallArgs {
  List positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

// Arguments by parameter name. Throws Failure when there are too many, or one has no parameter.
class BoundArgs {
 public:
  BoundArgs(std::string_view callee, const CallArgs& args,
            std::initializer_list<std::string_view> params);

  // The argument, or null when it was not given.
  const Value* find(std::string_view param) const;
  // The argument. Throws Failure when it was not given.
  const Value& need(std::string_view param) const;
  Value get(std::string_view param, Value otherwise) const;
  // Throws Failure when the argument is no integer, or no string.
  Int get_int(std::string_view param, Int otherwise) const;
  bool get_bool(std::string_view param, bool otherwise) const;
  // Null when not given or None.
  const MarkedText* get_text(std::string_view param) const;

 private:
  std::string callee_;
  std::vector<std::pair<std::string_view, const Value*>> bound_;
};

// What built-in functions need of the interpreter that runs them.
class Runtime {
 public:
  // One unit is about one node of the syntax tree, or 16 bytes copied.
  static constexpr uint64_t kMaxWork = 24'000'000;

  explicit Runtime(std::tm now) : now_(now) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  virtual ~Runtime() = default;

  virtual Value call(const Value& callee, const CallArgs& args) = 0;

  // Throws Failure when the template has done more than any real one needs.
  void charge(uint64_t units) {
    if (units > kMaxWork - work_) fail_with("the template takes too many steps");
    work_ += units;
  }
  void charge_bytes(uint64_t bytes) { charge(bytes / 16 + 1); }
  void charge_items(uint64_t items) { charge(items * 2); }

  // An object that lives until the rendering ends.
  template <class T, class... Args>
  T* make(Args&&... args) {
    charge(16);
    auto owned = std::make_unique<T>(std::forward<Args>(args)...);
    T* raw = owned.get();
    objects_.push_back(std::move(owned));
    return raw;
  }

  // What strftime_now shows.
  const std::tm& now() const { return now_; }

 private:
  uint64_t work_ = 0;
  std::vector<std::unique_ptr<Object>> objects_;
  std::tm now_;
};

// The items that a for loop would see. Throws Failure for what cannot be iterated.
List to_list(Runtime& run, const Value& value);

// The characters of a string, one string each.
List characters(Runtime& run, const MarkedText& text);

// value.name and value[key] of Jinja: attributes first, or items first. Undefined when there is
// neither; throws Failure on an undefined value.
Value get_attribute(Runtime& run, const Value& value, std::string_view name);
Value get_item(Runtime& run, const Value& value, const Value& key);
// "a.b.0" as the filters take it.
Value get_path(Runtime& run, const Value& value, const Value& path);

// Throws Failure with the reason when the value is undefined.
void require_defined(const Value& value);

// --- built-in names, each in the file of its kind ---

// Methods of strings, lists, tuples and dicts. Those that change a value are there and refuse.
bool has_method(const Value& self, std::string_view name);
Value call_method(Runtime& run, const Value& self, std::string_view name, const CallArgs& args);

bool has_filter(std::string_view name);
Value apply_filter(Runtime& run, std::string_view name, const Value& input, const CallArgs& args);

bool has_test(std::string_view name);
bool apply_test(Runtime& run, std::string_view name, const Value& input, const CallArgs& args);

// range, dict, namespace, ...; nothing when there is no such function.
std::optional<Value> find_function(Runtime& run, std::string_view name);

// a op b for + - * / // % **.
Value apply_operator(Runtime& run, std::string_view op, const Value& a, const Value& b);
Value negate(const Value& value);
bool contains(Runtime& run, const Value& container, const Value& item);
// value[start:stop:step]; each may be None.
Value slice(Runtime& run, const Value& value, const Value& start, const Value& stop,
            const Value& step);

// '%s-%d' % args and '{}-{k}'.format(...).
Value format_percent(Runtime& run, const MarkedText& format, const Value& args);
Value format_braces(Runtime& run, const MarkedText& format, const CallArgs& args);

// Characters of a string: their number, and the bytes where character [begin, end) lies.
size_t length_in_chars(const MarkedText& text);
Range bytes_of_chars(const MarkedText& text, size_t begin, size_t end);

}  // namespace braid::text::jinja
