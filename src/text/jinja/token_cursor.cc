#include "text/jinja/token_cursor.h"

#include <fmt/format.h>

namespace braid::text::jinja {

void TokenCursor::fail_here(std::string_view message) const {
  throw Failure{fmt::format("line {}: {}", now().line, message)};
}

std::string TokenCursor::describe(const Token& token) const {
  switch (token.kind) {
    case Token::Kind::kText:
      return "template data";
    case Token::Kind::kPrintBegin:
      return "begin of print statement";
    case Token::Kind::kPrintEnd:
      return "end of print statement";
    case Token::Kind::kBlockBegin:
      return "begin of statement block";
    case Token::Kind::kBlockEnd:
      return "end of statement block";
    case Token::Kind::kEnd:
      return "end of template";
    default:
      return token.text;
  }
}

void TokenCursor::expect_op(std::string_view op) {
  if (!skip_op(op)) fail_here(fmt::format("expected token '{}', got '{}'", op, describe(now())));
}

void TokenCursor::expect_end(Token::Kind kind) {
  if (now().kind != kind) {
    fail_here(fmt::format("expected token 'end of {}', got '{}'",
                          kind == Token::Kind::kPrintEnd ? "print statement" : "statement block",
                          describe(now())));
  }
  take();
}

std::string TokenCursor::expect_name() {
  if (now().kind != Token::Kind::kName) {
    fail_here(fmt::format("expected a name, got '{}'", describe(now())));
  }
  return take().text;
}

}  // namespace braid::text::jinja
