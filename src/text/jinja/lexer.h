#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace braid::text::jinja {

// One token of a template.
struct Token {
  enum class Kind {
    kText,        // between tags
    kPrintBegin,  // {{
    kPrintEnd,    // }}
    kBlockBegin,  // {%
    kBlockEnd,    // %}
    kName,        // also keywords
    kString,      // escapes resolved
    kInt,
    kFloat,
    kOperator,  // its characters in `text`
    kEnd,
  };
  Kind kind;
  int line;  // from 1
  std::string text;
  Value number = {};  // of kInt and kFloat
};

// Cuts a template into tokens, with trim_blocks and lstrip_blocks on, as transformers sets them.
// Comments are left out and {% raw %} is text.
//
// Throws Failure, with the line in the message.
// Source: jinja2/lexer.py 3.1.
std::vector<Token> tokenize(std::string_view source);

}  // namespace braid::text::jinja
