#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "text/jinja/runtime.h"

namespace braid::text::jinja {

// range(start, stop, step), not written out.
class RangeObject : public Object {
 public:
  // step is not 0.
  RangeObject(Int start, Int stop, Int step);
  std::string_view type_name() const override { return "range"; }
  Value get(Runtime& run, std::string_view name) override;

  uint64_t size() const { return size_; }
  Value at(uint64_t i) const { return Value(start_ + static_cast<Int>(i) * step_); }
  std::string repr() const override;

 private:
  Int start_, stop_, step_;
  uint64_t size_;
};

// namespace(): the one thing that a template can change.
class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  Value get(Runtime& run, std::string_view name) override;
  void set(const std::string& name, Value value) { fields_[name] = std::move(value); }

 private:
  std::map<std::string, Value, std::less<>> fields_;
};

// A group of groupby: a tuple whose two items have names.
class Group : public Object {
 public:
  Group(Value grouper, Value members)
      : grouper_(std::move(grouper)), members_(std::move(members)) {}
  std::string_view type_name() const override { return "_GroupTuple"; }
  Value get(Runtime& run, std::string_view name) override;
  List items() const { return {grouper_, members_}; }

 private:
  Value grouper_, members_;
};

// A function written in C++.
class NativeFunction : public Object {
 public:
  using Body = std::function<Value(Runtime&, const CallArgs&)>;
  NativeFunction(std::string name, Body body) : name_(std::move(name)), body_(std::move(body)) {}
  std::string_view type_name() const override { return "function"; }
  bool is_callable() const override { return true; }
  Value get(Runtime& run, std::string_view name) override;
  Value call(Runtime& run, const CallArgs& args) override { return body_(run, args); }

 private:
  std::string name_;
  Body body_;
};

// cycler('a', 'b'): next(), reset(), current.
class Cycler : public Object {
 public:
  explicit Cycler(List items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  Value get(Runtime& run, std::string_view name) override;

 private:
  List items_;
  size_t at_ = 0;
};

}  // namespace braid::text::jinja
