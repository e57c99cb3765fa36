#include "server/json_fields.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>

#include "base/json.h"
#include "server/json_text.h"

namespace braid::server {

bool read_value(const Json& value, float& to) {
  if (!value.is_number()) return false;
  const double number = value.get<double>();
  if (std::abs(number) > static_cast<double>(std::numeric_limits<float>::max())) return false;
  to = static_cast<float>(number);
  return true;
}

bool read_value(const Json& value, int32_t& to) {
  if (!value.is_number_integer()) return false;
  const bool fits = value.is_number_unsigned()
                        ? value.get<uint64_t>() <= uint64_t{std::numeric_limits<int32_t>::max()}
                        : value.get<int64_t>() >= int64_t{std::numeric_limits<int32_t>::min()} &&
                              value.get<int64_t>() <= int64_t{std::numeric_limits<int32_t>::max()};
  if (fits) to = value.get<int32_t>();
  return fits;
}

bool read_value(const Json& value, uint64_t& to) {
  if (!value.is_number_integer()) return false;
  // Numbers made in C++ may be signed though they are not negative.
  if (!value.is_number_unsigned() && value.get<int64_t>() < 0) return false;
  to = value.get<uint64_t>();
  return true;
}

bool read_value(const Json& value, bool& to) {
  if (value.is_boolean()) to = value.get<bool>();
  return value.is_boolean();
}

bool read_value(const Json& value, std::string& to) {
  if (value.is_string()) to = value.get_ref<const std::string&>();
  return value.is_string();
}

bool read_value(const Json& value, std::vector<std::pair<int32_t, float>>& to) {
  if (!value.is_object()) return false;
  to.clear();
  for (const auto& [key, bias] : value.items()) {
    auto& [token, amount] = to.emplace_back();
    const char* end = key.data() + key.size();
    const auto [rest, error] = std::from_chars(key.data(), end, token);
    if (error != std::errc() || rest != end || !read_value(bias, amount)) return false;
  }
  return true;
}

std::string shown(const Json& value) {
  constexpr size_t kMaxBytes = 100;
  // A huge value is not written out only to be cut.
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  if (value.is_object()) return fmt::format("an object of {} fields", value.size());
  if (value.is_string() && value.get_ref<const std::string&>().size() > kMaxBytes)
    return fmt::format("a string of {} bytes", value.get_ref<const std::string&>().size());
  return json_text(value);
}

JsonFields::JsonFields(const Json& object, std::string place)
    : object_(&object), place_(std::move(place)) {
  if (object.is_object()) return;
  object_ = nullptr;
  error_ = ApiError{.message = fmt::format("{} is {}, it must be a JSON object",
                                           place_.empty() ? "the body" : place_, shown(object)),
                    .param = place_};
}

const Json* JsonFields::find(std::string_view key) const {
  if (object_ == nullptr) return nullptr;
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::complain(std::string_view key, std::string message) {
  if (!error_) error_ = ApiError{.message = std::move(message), .param = place_ + std::string(key)};
}

void JsonFields::complain_of(std::string_view key, const Json& value, std::string_view accepted) {
  complain(key, fmt::format("{}{} is {}, it must be {}", place_, key, shown(value), accepted));
}

}  // namespace braid::server
