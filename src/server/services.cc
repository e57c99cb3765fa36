#include "server/services.h"

#include <fmt/format.h>

namespace braid::server {

std::string Services::new_id(std::string_view prefix) {
  const uint64_t high = random(), low = random();
  return fmt::format("{}{:016x}{:016x}", prefix, high, low);
}

}  // namespace braid::server
