#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace braid::text::jinja {

// Parses a template. Tags that load other templates (include, import, extends, block) are refused
// by name. Throws Failure, with the line in the message.
//
// Source: jinja2/parser.py 3.1, with the loop controls and the generation tag of transformers.
Body parse(std::string_view source);

// Expressions and statements nested deeper are refused.
inline constexpr int kMaxSyntaxDepth = 160;

}  // namespace braid::text::jinja
