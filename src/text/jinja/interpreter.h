#pragma once

#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace braid::text::jinja {

// Limits of one rendering beside Runtime::kMaxWork.
inline constexpr size_t kMaxOutputBytes = size_t{64} << 20;
inline constexpr int kMaxEvalDepth = 1200;  // statements and expressions inside each other
inline constexpr int kMaxCallDepth = 100;   // macros inside macros, loops inside loops

// Runs a template on variables by name. The body and the names stay with the caller during the
// call. Throws Failure, with the line in the message unless the template raised it.
MarkedText render(const Body& body, const std::vector<std::pair<std::string, Value>>& variables,
                  const std::tm& now);

}  // namespace braid::text::jinja
