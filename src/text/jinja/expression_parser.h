#pragma once

#include <initializer_list>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/token_cursor.h"

namespace braid::text::jinja {

// Parses what stands between the signs of a tag, one method for each level of precedence.
class ExpressionParser : public TokenCursor {
 protected:
  using TokenCursor::TokenCursor;

  // One expression, or several with commas: a tuple.
  ExprPtr parse_tuple(bool with_condition = true);
  ExprPtr parse_expression();
  ExprPtr parse_or();

  // Filters, tests and calls behind an expression (null: in front of a filter block's body).
  ExprPtr parse_postfix_filters(ExprPtr e);
  ExprPtr parse_filter(ExprPtr input);

  ExprPtr node(Expr::Kind kind, int line) const;

  template <class... Children>
  ExprPtr node_of(Expr::Kind kind, int line, Children... children) {
    ExprPtr e = node(kind, line);
    (add_child(*e, std::move(children)), ...);
    return e;
  }

  // Chains like a + b + c grow to the left: the tree is deep where the parser is not.
  void add_child(Expr& parent, ExprPtr child) const;
  void set_depth(Expr& e, int depth) const;
  void add_args(Expr& e, std::vector<Arg> args) const;

  // Names that were read and mean something to the statement around.
  struct NamesRead {
    size_t loop = 0;  // how often "loop"
    bool varargs = false, kwargs = false, caller = false;
  };
  NamesRead names_read_;

 private:
  bool ends_tuple() const;
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();

  // A chain of operators of one precedence, grouped to the left.
  template <class Next>
  ExprPtr parse_binary(std::initializer_list<std::string_view> ops, const Next& next);
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters = true);
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_parentheses();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr e);
  ExprPtr parse_subscript(ExprPtr e);
  ExprPtr parse_call(ExprPtr callee);
  std::vector<Arg> parse_args();
  ExprPtr parse_test(ExprPtr input);
};

}  // namespace braid::text::jinja
