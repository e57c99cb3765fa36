#pragma once

#include <string>

#include "base/json.h"

namespace braid::server {

// One line of UTF-8, whatever bytes the strings hold.
inline std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace braid::server
