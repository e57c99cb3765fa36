#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/lexer.h"
#include "text/jinja/parser.h"

namespace braid::text::jinja {

// A place in the tokens of a template, and what every part of the parser asks there. Throws Failure
// with the line in the message.
class TokenCursor {
 public:
  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  const Token& now() const { return tokens_[at_]; }
  const Token& after() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  // now(), and goes on behind it; the last token stays.
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }

  bool is_op(std::string_view op) const {
    return now().kind == Token::Kind::kOperator && now().text == op;
  }

  bool is_name(std::string_view name) const {
    return now().kind == Token::Kind::kName && now().text == name;
  }

  bool skip_op(std::string_view op) {
    if (!is_op(op)) return false;
    take();
    return true;
  }

  bool skip_name(std::string_view name) {
    if (!is_name(name)) return false;
    take();
    return true;
  }

  [[noreturn]] void fail_here(std::string_view message) const;
  std::string describe(const Token& token) const;
  void expect_op(std::string_view op);
  void expect_end(Token::Kind kind);
  std::string expect_name();

  // Counts how deep the parser is in itself, while it lives.
  class Deeper {
   public:
    explicit Deeper(TokenCursor& cursor) : cursor_(cursor) {
      if (++cursor_.depth_ > kMaxSyntaxDepth) cursor_.fail_here("the template is nested too deep");
    }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ~Deeper() { --cursor_.depth_; }

   private:
    TokenCursor& cursor_;
  };

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace braid::text::jinja
