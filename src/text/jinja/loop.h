#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include "text/jinja/objects.h"
#include "text/jinja/runtime.h"

namespace braid::text::jinja {

// The variable `loop`. Items are looked at as late as they are needed, since the condition of a
// loop can depend on what its body did.
class Loop : public Object {
 public:
  Loop(List items, std::function<bool(const Value&)> accepts, int depth)
      : items_(std::move(items)), accepts_(std::move(accepts)), depth_(depth) {}
  std::string_view type_name() const override { return "LoopContext"; }
  bool is_callable() const override { return recurse_ != nullptr; }
  Value get(Runtime& run, std::string_view name) override;
  Value call(Runtime&, const CallArgs& args) override {
    if (!recurse_) fail_with("TypeError: The loop must have the 'recursive' marker to be called.");
    return recurse_(args);
  }

  // Goes to the next accepted item; null at the end.
  const Value* next() {
    if (!peek()) return nullptr;
    previous_ = std::exchange(current_, ahead_);
    ahead_.reset();
    ++index_;
    return &*current_;
  }
  // Nothing can be asked of the items behind the end: the body's scope is gone.
  void finish() {
    items_.clear();
    at_ = 0;
    accepts_ = nullptr;
  }
  void set_recursion(std::function<Value(const CallArgs&)> recurse) {
    recurse_ = std::move(recurse);
  }

 private:
  const Value* peek();  // the item behind the current one
  Int length();

  List items_;
  size_t at_ = 0;
  std::function<bool(const Value&)> accepts_;
  std::function<Value(const CallArgs&)> recurse_;
  std::optional<Value> previous_, current_, ahead_;
  std::optional<List> last_changed_;
  Int index_ = 0;  // from 1
  int depth_;
};

}  // namespace braid::text::jinja
