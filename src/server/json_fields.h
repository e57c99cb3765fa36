#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "server/api_error.h"

namespace braid::server {

// Each reads a value of one type and says whether it is one; nothing is rounded or cut.
bool read_value(const Json& value, float& to);
bool read_value(const Json& value, int32_t& to);
bool read_value(const Json& value, uint64_t& to);
bool read_value(const Json& value, bool& to);
bool read_value(const Json& value, std::string& to);
bool read_value(const Json& value, std::vector<std::pair<int32_t, float>>& to);  // {"id": bias}

template <class T>
bool read_value(const Json& value, std::vector<T>& to) {
  if (!value.is_array()) return false;
  to.clear();
  for (const Json& entry : value) {
    if (!read_value(entry, to.emplace_back())) return false;
  }
  return true;
}

template <class T>
bool read_value(const Json& value, std::optional<T>& to) {
  return read_value(value, to.emplace());
}

// What a message shows of a value: its JSON, cut short.
std::string shown(const Json& value);

// Reads the fields of a JSON object one after the other and keeps the first complaint: a field of
// the wrong type, named with its value and what is accepted. A field that is absent or null leaves
// its target alone.
class JsonFields {
 public:
  // `object` must outlive this. Anything but an object is the first complaint. `place` stands in
  // front of the names of fields in messages: "sampling_params.".
  explicit JsonFields(const Json& object, std::string place = "");

  // Null where it is absent, null, or there is no object.
  const Json* find(std::string_view key) const;

  template <class T>
  void read(std::string_view key, T& to, std::string_view accepted) {
    const Json* value = find(key);
    if (value != nullptr && !read_value(*value, to)) complain_of(key, *value, accepted);
  }

  void read_number(std::string_view key, float& to) { read(key, to, "a number"); }
  void read_integer(std::string_view key, int32_t& to) { read(key, to, "an integer"); }
  void read_bool(std::string_view key, bool& to) { read(key, to, "true or false"); }
  void read_string(std::string_view key, std::string& to) { read(key, to, "a string"); }

  // The first complaint stays.
  void complain(std::string_view key, std::string message);
  void complain_of(std::string_view key, const Json& value, std::string_view accepted);

  const std::optional<ApiError>& error() const { return error_; }

 private:
  const Json* object_;
  std::string place_;
  std::optional<ApiError> error_;
};

}  // namespace braid::server
