#pragma once

#include <nlohmann/json_fwd.hpp>

namespace braid {

// For headers that only name it: base/json.h brings in a large template.
using Json = nlohmann::json;

}  // namespace braid
