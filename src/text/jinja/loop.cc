#include "text/jinja/loop.h"

#include <fmt/format.h>

#include <algorithm>

namespace braid::text::jinja {

const Value* Loop::peek() {
  while (!ahead_ && at_ < items_.size()) {
    const Value& item = items_[at_++];
    if (!accepts_ || accepts_(item)) ahead_ = item;
  }
  return ahead_ ? &*ahead_ : nullptr;
}

Int Loop::length() {
  // Decides about all that is left, once.
  if (accepts_) {
    List rest;
    for (; at_ < items_.size(); ++at_) {
      if (accepts_(items_[at_])) rest.push_back(items_[at_]);
    }
    items_ = std::move(rest);
    at_ = 0;
    accepts_ = nullptr;
  }
  return index_ + (ahead_ ? 1 : 0) + static_cast<Int>(items_.size() - at_);
}

Value Loop::get(Runtime& run, std::string_view name) {
  if (name == "index") return Value(index_);
  if (name == "index0") return Value(index_ - 1);
  if (name == "first") return Value(index_ == 1);
  if (name == "last") return Value(peek() == nullptr);
  if (name == "length") return Value(length());
  if (name == "revindex") return Value(length() - index_ + 1);
  if (name == "revindex0") return Value(length() - index_);
  if (name == "depth") return Value(depth_);
  if (name == "depth0") return Value(depth_ - 1);
  if (name == "previtem") {
    return previous_ ? *previous_ : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    const Value* ahead = peek();
    return ahead ? *ahead : Value::undefined("there is no next item");
  }
  if (name == "cycle") {
    return Value(run.make<NativeFunction>("cycle", [this](Runtime&, const CallArgs& args) {
      if (args.positional.empty()) fail_with("TypeError: no items for cycling given");
      const auto size = static_cast<Int>(args.positional.size());
      return args.positional[static_cast<size_t>((index_ - 1) % size)];
    }));
  }
  if (name == "changed") {
    return Value(run.make<NativeFunction>("changed", [this](Runtime&, const CallArgs& args) {
      const bool same =
          last_changed_ && std::equal(last_changed_->begin(), last_changed_->end(),
                                      args.positional.begin(), args.positional.end(), equal);
      last_changed_ = args.positional;
      return Value(!same);
    }));
  }
  return Value::undefined(fmt::format("'LoopContext object' has no attribute '{}'", name));
}

}  // namespace braid::text::jinja
