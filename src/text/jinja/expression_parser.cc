#include "text/jinja/expression_parser.h"

#include <fmt/format.h>

#include <algorithm>

namespace braid::text::jinja {

using Kind = Token::Kind;

ExprPtr ExpressionParser::node(Expr::Kind kind, int line) const {
  auto e = std::make_unique<Expr>();
  e->kind = kind;
  e->line = line;
  return e;
}

void ExpressionParser::add_child(Expr& parent, ExprPtr child) const {
  if (child) set_depth(parent, child->depth + 1);
  parent.children.push_back(std::move(child));
}

void ExpressionParser::set_depth(Expr& e, int depth) const {
  e.depth = std::max(e.depth, depth);
  if (e.depth > kMaxSyntaxDepth) fail_here("the expression is nested too deep");
}

void ExpressionParser::add_args(Expr& e, std::vector<Arg> args) const {
  for (const Arg& arg : args) set_depth(e, arg.value->depth + 1);
  e.args = std::move(args);
}

bool ExpressionParser::ends_tuple() const {
  return now().kind == Kind::kPrintEnd || now().kind == Kind::kBlockEnd ||
         now().kind == Kind::kEnd || is_op(")") || is_name("if") || is_name("recursive");
}

ExprPtr ExpressionParser::parse_tuple(bool with_condition) {
  const int line = now().line;
  const auto one = [&] { return with_condition ? parse_expression() : parse_or(); };
  ExprPtr first = one();
  if (!is_op(",")) return first;
  ExprPtr tuple = node_of(Expr::Kind::kTuple, line, std::move(first));
  while (skip_op(",") && !ends_tuple()) add_child(*tuple, one());
  return tuple;
}

ExprPtr ExpressionParser::parse_expression() {
  const Deeper deeper(*this);
  ExprPtr e = parse_or();
  while (is_name("if")) {
    const int line = take().line;
    ExprPtr condition = parse_or();
    ExprPtr orelse = skip_name("else") ? parse_expression() : nullptr;
    e = node_of(Expr::Kind::kCond, line, std::move(condition), std::move(e), std::move(orelse));
  }
  return e;
}

ExprPtr ExpressionParser::parse_or() {
  ExprPtr e = parse_and();
  while (is_name("or")) {
    const int line = take().line;
    e = node_of(Expr::Kind::kOr, line, std::move(e), parse_and());
  }
  return e;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr e = parse_not();
  while (is_name("and")) {
    const int line = take().line;
    e = node_of(Expr::Kind::kAnd, line, std::move(e), parse_not());
  }
  return e;
}

ExprPtr ExpressionParser::parse_not() {
  if (!is_name("not")) return parse_compare();
  const Deeper deeper(*this);
  const int line = take().line;
  return node_of(Expr::Kind::kNot, line, parse_not());
}

ExprPtr ExpressionParser::parse_compare() {
  const int line = now().line;
  ExprPtr e = parse_sum();
  ExprPtr compare;
  while (true) {
    std::string op;
    for (const std::string_view one : {"==", "!=", ">", ">=", "<", "<="}) {
      if (is_op(one)) op = one;
    }
    if (!op.empty()) {
      take();
    } else if (skip_name("in")) {
      op = "in";
    } else if (is_name("not") && after().kind == Kind::kName && after().text == "in") {
      take();
      take();
      op = "not in";
    } else {
      return compare ? std::move(compare) : std::move(e);
    }
    if (!compare) compare = node_of(Expr::Kind::kCompare, line, std::move(e));
    add_child(*compare, parse_sum());
    compare->ops.push_back(op);
  }
}

template <class Next>
ExprPtr ExpressionParser::parse_binary(std::initializer_list<std::string_view> ops,
                                       const Next& next) {
  ExprPtr e = next();
  while (now().kind == Kind::kOperator &&
         std::find(ops.begin(), ops.end(), now().text) != ops.end()) {
    const Token op = take();
    e = node_of(Expr::Kind::kBinary, op.line, std::move(e), next());
    e->text = op.text;
  }
  return e;
}

ExprPtr ExpressionParser::parse_sum() {
  return parse_binary({"+", "-"}, [&] { return parse_concat(); });
}

ExprPtr ExpressionParser::parse_concat() {
  const int line = now().line;
  ExprPtr e = parse_product();
  if (!is_op("~")) return e;
  ExprPtr concat = node_of(Expr::Kind::kConcat, line, std::move(e));
  while (skip_op("~")) add_child(*concat, parse_product());
  return concat;
}

ExprPtr ExpressionParser::parse_product() {
  return parse_binary({"*", "/", "//", "%"}, [&] { return parse_power(); });
}

ExprPtr ExpressionParser::parse_power() {
  return parse_binary({"**"}, [&] { return parse_unary(); });
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  const int line = now().line;
  ExprPtr e;
  if (is_op("-") || is_op("+")) {
    const Deeper deeper(*this);
    const bool minus = take().text == "-";
    e = node_of(minus ? Expr::Kind::kNeg : Expr::Kind::kPos, line, parse_unary(false));
  } else {
    e = parse_primary();
  }
  e = parse_postfix(std::move(e));
  return with_filters ? parse_postfix_filters(std::move(e)) : std::move(e);
}

ExprPtr ExpressionParser::parse_primary() {
  const Token& token = now();
  switch (token.kind) {
    case Kind::kName:
      return parse_name();
    case Kind::kString: {
      ExprPtr e = node(Expr::Kind::kConst, token.line);
      std::string all;
      while (now().kind == Kind::kString) all += take().text;
      e->value = Value(all);
      return e;
    }
    case Kind::kInt:
    case Kind::kFloat: {
      ExprPtr e = node(Expr::Kind::kConst, token.line);
      e->value = take().number;
      return e;
    }
    case Kind::kOperator:
      if (token.text == "(") return parse_parentheses();
      if (token.text == "[") return parse_list();
      if (token.text == "{") return parse_dict();
      fail_here(fmt::format("unexpected '{}'", token.text));
    default:
      fail_here(fmt::format("Expected an expression, got '{}'", describe(token)));
  }
}

ExprPtr ExpressionParser::parse_name() {
  const Token token = take();
  const std::string& name = token.text;
  ExprPtr e = node(Expr::Kind::kConst, token.line);
  if (name == "true" || name == "True") {
    e->value = Value(true);
  } else if (name == "false" || name == "False") {
    e->value = Value(false);
  } else if (name == "none" || name == "None") {
    e->value = Value();
  } else {
    e->kind = Expr::Kind::kName;
    e->text = name;
    names_read_.loop += name == "loop";
    names_read_.varargs |= name == "varargs";
    names_read_.kwargs |= name == "kwargs";
    names_read_.caller |= name == "caller";
  }
  return e;
}

ExprPtr ExpressionParser::parse_parentheses() {
  const Deeper deeper(*this);
  const int line = take().line;
  if (skip_op(")")) return node(Expr::Kind::kTuple, line);
  ExprPtr e = parse_tuple();
  expect_op(")");
  return e;
}

ExprPtr ExpressionParser::parse_list() {
  const Deeper deeper(*this);
  ExprPtr list = node(Expr::Kind::kList, take().line);
  while (!is_op("]")) {
    if (!list->children.empty()) expect_op(",");
    if (is_op("]")) break;
    add_child(*list, parse_expression());
  }
  take();
  return list;
}

ExprPtr ExpressionParser::parse_dict() {
  const Deeper deeper(*this);
  ExprPtr dict = node(Expr::Kind::kDict, take().line);
  while (!is_op("}")) {
    if (!dict->children.empty()) expect_op(",");
    if (is_op("}")) break;
    add_child(*dict, parse_expression());
    expect_op(":");
    add_child(*dict, parse_expression());
  }
  take();
  return dict;
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr e) {
  while (true) {
    const int line = now().line;
    if (skip_op(".")) {
      if (now().kind == Kind::kName) {
        e = node_of(Expr::Kind::kAttr, line, std::move(e));
        e->text = take().text;
      } else if (now().kind == Kind::kInt) {
        ExprPtr index = node(Expr::Kind::kConst, line);
        index->value = take().number;
        e = node_of(Expr::Kind::kItem, line, std::move(e), std::move(index));
      } else {
        fail_here("expected name or number");
      }
    } else if (is_op("[")) {
      e = parse_subscript(std::move(e));
    } else if (is_op("(")) {
      e = parse_call(std::move(e));
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr e) {
  const Deeper deeper(*this);
  const int line = take().line;
  ExprPtr parts[3];  // start, stop, step
  bool is_slice = false;
  if (!is_op(":")) parts[0] = parse_expression();
  for (int i = 1; i < 3 && skip_op(":"); ++i) {
    is_slice = true;
    if (!is_op(":") && !is_op("]")) parts[i] = parse_expression();
  }
  if (is_op(",")) fail_here("subscripts with commas are not supported");
  expect_op("]");
  if (!is_slice) return node_of(Expr::Kind::kItem, line, std::move(e), std::move(parts[0]));
  return node_of(Expr::Kind::kSlice, line, std::move(e), std::move(parts[0]), std::move(parts[1]),
                 std::move(parts[2]));
}

ExprPtr ExpressionParser::parse_call(ExprPtr callee) {
  const Deeper deeper(*this);
  ExprPtr call = node_of(Expr::Kind::kCall, now().line, std::move(callee));
  add_args(*call, parse_args());
  return call;
}

std::vector<Arg> ExpressionParser::parse_args() {
  expect_op("(");
  std::vector<Arg> args;
  while (!is_op(")")) {
    if (!args.empty()) expect_op(",");
    if (is_op(")")) break;
    Arg arg{.kind = Arg::Kind::kPositional, .name = {}, .value = {}};
    if (skip_op("**")) {
      arg.kind = Arg::Kind::kUnpackDict;
    } else if (skip_op("*")) {
      arg.kind = Arg::Kind::kUnpackList;
    } else if (now().kind == Kind::kName && after().kind == Kind::kOperator &&
               after().text == "=") {
      arg.kind = Arg::Kind::kKeyword;
      arg.name = take().text;
      take();
    } else if (!args.empty() && args.back().kind == Arg::Kind::kKeyword) {
      fail_here("positional argument follows keyword argument");
    }
    arg.value = parse_expression();
    args.push_back(std::move(arg));
  }
  take();
  return args;
}

ExprPtr ExpressionParser::parse_postfix_filters(ExprPtr e) {
  while (true) {
    if (skip_op("|")) {
      e = parse_filter(std::move(e));
    } else if (e && is_name("is")) {
      e = parse_test(std::move(e));
    } else if (e && is_op("(")) {
      e = parse_call(std::move(e));
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::parse_filter(ExprPtr input) {
  const int line = now().line;
  ExprPtr filter = node_of(Expr::Kind::kFilter, line, std::move(input));
  filter->text = expect_name();
  if (is_op("(")) {
    const Deeper deeper(*this);
    add_args(*filter, parse_args());
  }
  return filter;
}

ExprPtr ExpressionParser::parse_test(ExprPtr input) {
  const int line = take().line;
  const bool negated = skip_name("not");
  ExprPtr test = node_of(Expr::Kind::kTest, line, std::move(input));
  test->text = expect_name();
  const auto starts_argument = [&] {
    switch (now().kind) {
      case Kind::kString:
      case Kind::kInt:
      case Kind::kFloat:
        return true;
      case Kind::kOperator:
        return is_op("[") || is_op("{");
      case Kind::kName:
        for (const std::string_view word : {"else", "or", "and", "if", "in", "not", "recursive"}) {
          if (is_name(word)) return false;
        }
        return true;
      default:
        return false;
    }
  };
  if (is_op("(")) {
    const Deeper deeper(*this);
    add_args(*test, parse_args());
  } else if (starts_argument()) {
    if (is_name("is")) fail_here("You cannot chain multiple tests with is");
    std::vector<Arg> args;
    args.push_back(
        {.kind = Arg::Kind::kPositional, .name = {}, .value = parse_postfix(parse_primary())});
    add_args(*test, std::move(args));
  }
  return negated ? node_of(Expr::Kind::kNot, line, std::move(test)) : std::move(test);
}

}  // namespace braid::text::jinja
