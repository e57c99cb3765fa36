#include "text/jinja/objects.h"

#include <fmt/format.h>

namespace braid::text::jinja {
namespace {

Value no_attribute(const Object& object, std::string_view name) {
  return Value::undefined(
      fmt::format("'{} object' has no attribute '{}'", object.type_name(), name));
}

}  // namespace

RangeObject::RangeObject(Int start, Int stop, Int step) : start_(start), stop_(stop), step_(step) {
  constexpr Int kFar = Int{1} << 62;
  for (const Int bound : {start, stop, step}) {
    if (bound > kFar || bound < -kFar) fail_with("OverflowError: a bound of range() is too large");
  }
  const Int distance = step > 0 ? stop - start : start - stop;
  const Int stride = step > 0 ? step : -step;
  size_ = distance <= 0 ? 0 : static_cast<uint64_t>((distance + stride - 1) / stride);
}

Value RangeObject::get(Runtime&, std::string_view name) {
  if (name == "start") return Value(start_);
  if (name == "stop") return Value(stop_);
  if (name == "step") return Value(step_);
  return no_attribute(*this, name);
}

std::string RangeObject::repr() const {
  std::string text = fmt::format("range({}, {}", int_to_string(start_), int_to_string(stop_));
  if (step_ != 1) text += ", " + int_to_string(step_);
  return text + ")";
}

Value Namespace::get(Runtime&, std::string_view name) {
  const auto found = fields_.find(name);
  return found == fields_.end() ? no_attribute(*this, name) : found->second;
}

Value Group::get(Runtime&, std::string_view name) {
  if (name == "grouper") return grouper_;
  if (name == "list") return members_;
  return no_attribute(*this, name);
}

Value NativeFunction::get(Runtime&, std::string_view name) { return no_attribute(*this, name); }

Value Cycler::get(Runtime& run, std::string_view name) {
  if (name == "current") return items_[at_];
  if (name == "next") {
    return Value(run.make<NativeFunction>("next", [this](Runtime&, const CallArgs&) {
      const Value item = items_[at_];
      at_ = (at_ + 1) % items_.size();
      return item;
    }));
  }
  if (name == "reset") {
    return Value(run.make<NativeFunction>("reset", [this](Runtime&, const CallArgs&) {
      at_ = 0;
      return Value();
    }));
  }
  return no_attribute(*this, name);
}

}  // namespace braid::text::jinja
