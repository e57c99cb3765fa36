#include "base/check.h"

#include <string_view>

namespace braid::internal {

void check_failed(const char* file, int line, const std::string& what) {
  // The path below src/ says enough and is the same on every machine.
  std::string_view path = file;
  if (const auto at = path.rfind("/src/"); at != path.npos) path.remove_prefix(at + 1);
  throw InternalError(fmt::format("internal error at {}:{}: {}", path, line, what));
}

}  // namespace braid::internal
