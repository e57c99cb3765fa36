#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "text/jinja/lexer.h"

namespace braid::text::jinja {
namespace {

using Kind = Token::Kind;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Body run() { return parse_body({}, ""); }

 private:
  // --- tokens ---

  const Token& now() const { return tokens_[at_]; }
  const Token& after() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is_op(std::string_view op) const {
    return now().kind == Kind::kOperator && now().text == op;
  }
  bool is_name(std::string_view name) const {
    return now().kind == Kind::kName && now().text == name;
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

  [[noreturn]] void fail_here(std::string_view message) const {
    throw Failure{fmt::format("line {}: {}", now().line, message)};
  }

  std::string describe(const Token& token) const {
    switch (token.kind) {
      case Kind::kText:
        return "template data";
      case Kind::kPrintBegin:
        return "begin of print statement";
      case Kind::kPrintEnd:
        return "end of print statement";
      case Kind::kBlockBegin:
        return "begin of statement block";
      case Kind::kBlockEnd:
        return "end of statement block";
      case Kind::kEnd:
        return "end of template";
      default:
        return token.text;
    }
  }

  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail_here(fmt::format("expected token '{}', got '{}'", op, describe(now())));
  }
  void expect_end(Kind kind) {
    if (now().kind != kind) {
      fail_here(fmt::format("expected token 'end of {}', got '{}'",
                            kind == Kind::kPrintEnd ? "print statement" : "statement block",
                            describe(now())));
    }
    take();
  }
  std::string expect_name() {
    if (now().kind != Kind::kName) {
      fail_here(fmt::format("expected a name, got '{}'", describe(now())));
    }
    return take().text;
  }

  // Counts how deep the parser is in itself.
  class Deeper {
   public:
    explicit Deeper(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxSyntaxDepth) parser_.fail_here("the template is nested too deep");
    }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ~Deeper() { --parser_.depth_; }

   private:
    Parser& parser_;
  };

  // --- nodes ---

  ExprPtr node(Expr::Kind kind, int line) const {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->line = line;
    return e;
  }
  template <class... Children>
  ExprPtr node_of(Expr::Kind kind, int line, Children... children) {
    ExprPtr e = node(kind, line);
    (add_child(*e, std::move(children)), ...);
    return e;
  }
  // Chains like a + b + c grow to the left: the tree is deep where the parser is not.
  void add_child(Expr& parent, ExprPtr child) const {
    if (child) set_depth(parent, child->depth + 1);
    parent.children.push_back(std::move(child));
  }
  void set_depth(Expr& e, int depth) const {
    e.depth = std::max(e.depth, depth);
    if (e.depth > kMaxSyntaxDepth) fail_here("the expression is nested too deep");
  }
  void add_args(Expr& e, std::vector<Arg> args) const {
    for (const Arg& arg : args) set_depth(e, arg.value->depth + 1);
    e.args = std::move(args);
  }

  // --- statements ---

  // Statements up to a tag whose name is in `ends`, which is left unread (behind its "{%").
  Body parse_body(std::initializer_list<std::string_view> ends, std::string_view opened) {
    const Deeper deeper(*this);
    Body body;
    while (true) {
      const int line = now().line;
      switch (now().kind) {
        case Kind::kText: {
          body.push_back({.kind = Stmt::Kind::kText, .line = line, .text = take().text});
          break;
        }
        case Kind::kPrintBegin: {
          take();
          Stmt print{.kind = Stmt::Kind::kPrint, .line = line};
          print.expr = parse_tuple();
          expect_end(Kind::kPrintEnd);
          body.push_back(std::move(print));
          break;
        }
        case Kind::kBlockBegin: {
          take();
          if (now().kind == Kind::kName &&
              std::find(ends.begin(), ends.end(), now().text) != ends.end()) {
            return body;
          }
          body.push_back(parse_statement(ends, opened));
          break;
        }
        default:
          if (ends.size() == 0) return body;
          fail_here(
              fmt::format("Unexpected end of template. Jinja was looking for the following "
                          "tags: {}. The innermost block that needs to be closed is '{}'.",
                          join_ends(ends), opened));
      }
    }
  }

  static std::string join_ends(std::initializer_list<std::string_view> ends) {
    std::string all;
    for (const std::string_view end : ends) {
      if (!all.empty()) all += " or ";
      all += fmt::format("'{}'", end);
    }
    return all;
  }

  // A body and its end tag, with nothing else in it.
  Body parse_body_to(std::string_view end, std::string_view opened) {
    expect_end(Kind::kBlockEnd);
    Body body = parse_body({end}, opened);
    take();
    expect_end(Kind::kBlockEnd);
    return body;
  }

  Stmt parse_statement(std::initializer_list<std::string_view> ends, std::string_view opened) {
    const int line = now().line;
    if (now().kind != Kind::kName) {
      fail_here(fmt::format("tag name expected, got '{}'", describe(now())));
    }
    const std::string tag = take().text;
    if (tag == "for") return parse_for(line);
    if (tag == "if") return parse_if(line);
    if (tag == "set") return parse_set(line);
    if (tag == "macro") return parse_macro(line);
    if (tag == "call") return parse_call_block(line);
    if (tag == "filter") return parse_filter_block(line);
    if (tag == "with") return parse_with(line);
    if (tag == "generation") {
      Stmt s{.kind = Stmt::Kind::kBlock, .line = line};
      s.body = parse_body_to("endgeneration", tag);
      return s;
    }
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail_here(fmt::format("'{}' outside of a loop", tag));
      expect_end(Kind::kBlockEnd);
      return {.kind = tag == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue, .line = line};
    }
    for (const std::string_view other :
         {"include", "import", "from", "extends", "block", "do", "autoescape", "trans"}) {
      if (tag == other) fail_here(fmt::format("the tag '{}' is not supported", tag));
    }
    std::string message = fmt::format("Encountered unknown tag '{}'.", tag);
    if (ends.size() > 0) {
      message += fmt::format(
          " Jinja was looking for the following tags: {}. The innermost block "
          "that needs to be closed is '{}'.",
          join_ends(ends), opened);
    }
    fail_here(message);
  }

  Stmt parse_for(int line) {
    Stmt s{.kind = Stmt::Kind::kFor, .line = line};
    s.target = parse_target();
    if (!skip_name("in")) fail_here(fmt::format("expected 'in', got '{}'", describe(now())));
    s.expr = parse_tuple(/*with_condition=*/false);
    const size_t names_before = loop_names_;
    if (skip_name("if")) s.condition = parse_expression();
    s.is_recursive = skip_name("recursive");
    expect_end(Kind::kBlockEnd);
    ++loops_;
    s.body = parse_body({"else", "endfor"}, "for");
    --loops_;
    s.uses_loop = loop_names_ != names_before || s.is_recursive;
    if (take().text == "else") {
      s.orelse = parse_body_to("endfor", "for");
    } else {
      expect_end(Kind::kBlockEnd);
    }
    return s;
  }

  Stmt parse_if(int line) {
    Stmt s{.kind = Stmt::Kind::kIf, .line = line};
    while (true) {
      ExprPtr condition = parse_tuple(/*with_condition=*/false);
      expect_end(Kind::kBlockEnd);
      Body body = parse_body({"elif", "else", "endif"}, "if");
      s.branches.emplace_back(std::move(condition), std::move(body));
      const std::string tag = take().text;
      if (tag == "elif") continue;
      if (tag == "else") {
        s.orelse = parse_body_to("endif", "if");
      } else {
        expect_end(Kind::kBlockEnd);
      }
      return s;
    }
  }

  Stmt parse_set(int line) {
    Stmt s{.kind = Stmt::Kind::kSet, .line = line};
    s.target = parse_target(/*with_attribute=*/true);
    if (skip_op("=")) {
      s.expr = parse_tuple();
      expect_end(Kind::kBlockEnd);
      return s;
    }
    s.kind = Stmt::Kind::kSetBlock;
    if (is_op("|")) s.expr = parse_postfix_filters(nullptr);
    // The loop around cannot be left from inside a text that is being collected.
    const int outer_loops = std::exchange(loops_, 0);
    s.body = parse_body_to("endset", "set");
    loops_ = outer_loops;
    return s;
  }

  Stmt parse_macro(int line) {
    Stmt s{.kind = Stmt::Kind::kMacro, .line = line};
    s.macro = std::make_unique<MacroDef>();
    s.macro->name = expect_name();
    parse_signature(*s.macro);
    parse_macro_body(*s.macro, "endmacro", "macro");
    return s;
  }

  Stmt parse_call_block(int line) {
    Stmt s{.kind = Stmt::Kind::kCall, .line = line};
    s.macro = std::make_unique<MacroDef>();
    s.macro->name = "caller";
    if (is_op("(")) parse_signature(*s.macro);
    s.expr = parse_expression();
    if (s.expr->kind != Expr::Kind::kCall) fail_here("expected call");
    parse_macro_body(*s.macro, "endcall", "call");
    return s;
  }

  void parse_signature(MacroDef& macro) {
    expect_op("(");
    while (!is_op(")")) {
      if (!macro.params.empty()) expect_op(",");
      if (is_op(")")) break;
      macro.params.push_back(expect_name());
      if (skip_op("=")) {
        macro.defaults.push_back(parse_expression());
      } else if (!macro.defaults.empty()) {
        fail_here("non-default argument follows default argument");
      }
    }
    expect_op(")");
  }

  void parse_macro_body(MacroDef& macro, std::string_view end, std::string_view opened) {
    const MacroDef outer_uses = std::exchange(macro_uses_, MacroDef());
    const int outer_loops = std::exchange(loops_, 0);
    macro.body = parse_body_to(end, opened);
    macro.uses_varargs = macro_uses_.uses_varargs;
    macro.uses_kwargs = macro_uses_.uses_kwargs;
    macro.uses_caller = macro_uses_.uses_caller;
    macro_uses_.uses_varargs = outer_uses.uses_varargs;
    macro_uses_.uses_kwargs = outer_uses.uses_kwargs;
    macro_uses_.uses_caller = outer_uses.uses_caller;
    loops_ = outer_loops;
  }

  Stmt parse_filter_block(int line) {
    Stmt s{.kind = Stmt::Kind::kFilter, .line = line};
    s.expr = parse_filter(nullptr);
    s.expr = parse_postfix_filters(std::move(s.expr));
    const int outer_loops = std::exchange(loops_, 0);
    s.body = parse_body_to("endfilter", "filter");
    loops_ = outer_loops;
    return s;
  }

  Stmt parse_with(int line) {
    Stmt s{.kind = Stmt::Kind::kWith, .line = line};
    while (now().kind != Kind::kBlockEnd) {
      if (!s.assignments.empty()) expect_op(",");
      ExprPtr target = parse_target();
      expect_op("=");
      ExprPtr value = parse_expression();
      s.assignments.emplace_back(std::move(target), std::move(value));
    }
    s.body = parse_body_to("endwith", "with");
    return s;
  }

  // A name, a.b where allowed, or a tuple of targets.
  ExprPtr parse_target(bool with_attribute = false) {
    const Deeper deeper(*this);
    ExprPtr first = parse_one_target(with_attribute);
    if (!is_op(",")) return first;
    ExprPtr tuple = node_of(Expr::Kind::kTuple, now().line, std::move(first));
    while (skip_op(",")) {
      if (now().kind != Kind::kName && !is_op("(")) break;
      if (is_name("in")) break;
      add_child(*tuple, parse_one_target(false));
    }
    return tuple;
  }

  ExprPtr parse_one_target(bool with_attribute) {
    const int line = now().line;
    if (skip_op("(")) {
      ExprPtr inner = parse_target();
      expect_op(")");
      return inner;
    }
    ExprPtr name = node(Expr::Kind::kName, line);
    if (now().kind != Kind::kName) {
      fail_here(now().kind == Kind::kBlockEnd
                    ? "Expected an expression, got 'end of statement block'"
                    : fmt::format("cannot assign to '{}'", describe(now())));
    }
    name->text = take().text;
    static constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False",
                                                     "None", "and",   "or",   "not",  "in",
                                                     "is",   "if",    "else"};
    if (std::find(std::begin(kReserved), std::end(kReserved), name->text) != std::end(kReserved)) {
      fail_here(fmt::format("cannot assign to '{}'", name->text));
    }
    if (with_attribute && skip_op(".")) {
      ExprPtr attribute = node_of(Expr::Kind::kAttr, line, std::move(name));
      attribute->text = expect_name();
      return attribute;
    }
    return name;
  }

  // --- expressions, loosest first ---

  bool ends_tuple() const {
    return now().kind == Kind::kPrintEnd || now().kind == Kind::kBlockEnd ||
           now().kind == Kind::kEnd || is_op(")") || is_name("if") || is_name("recursive");
  }

  // One expression, or several with commas: a tuple.
  ExprPtr parse_tuple(bool with_condition = true) {
    const int line = now().line;
    const auto one = [&] { return with_condition ? parse_expression() : parse_or(); };
    ExprPtr first = one();
    if (!is_op(",")) return first;
    ExprPtr tuple = node_of(Expr::Kind::kTuple, line, std::move(first));
    while (skip_op(",") && !ends_tuple()) add_child(*tuple, one());
    return tuple;
  }

  ExprPtr parse_expression() {
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

  ExprPtr parse_or() {
    ExprPtr e = parse_and();
    while (is_name("or")) {
      const int line = take().line;
      e = node_of(Expr::Kind::kOr, line, std::move(e), parse_and());
    }
    return e;
  }

  ExprPtr parse_and() {
    ExprPtr e = parse_not();
    while (is_name("and")) {
      const int line = take().line;
      e = node_of(Expr::Kind::kAnd, line, std::move(e), parse_not());
    }
    return e;
  }

  ExprPtr parse_not() {
    if (!is_name("not")) return parse_compare();
    const Deeper deeper(*this);
    const int line = take().line;
    return node_of(Expr::Kind::kNot, line, parse_not());
  }

  ExprPtr parse_compare() {
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

  // A chain of operators of one precedence, grouped to the left.
  template <class Next>
  ExprPtr parse_binary(std::initializer_list<std::string_view> ops, const Next& next) {
    ExprPtr e = next();
    while (now().kind == Kind::kOperator &&
           std::find(ops.begin(), ops.end(), now().text) != ops.end()) {
      const Token op = take();
      e = node_of(Expr::Kind::kBinary, op.line, std::move(e), next());
      e->text = op.text;
    }
    return e;
  }

  ExprPtr parse_sum() {
    return parse_binary({"+", "-"}, [&] { return parse_concat(); });
  }

  ExprPtr parse_concat() {
    const int line = now().line;
    ExprPtr e = parse_product();
    if (!is_op("~")) return e;
    ExprPtr concat = node_of(Expr::Kind::kConcat, line, std::move(e));
    while (skip_op("~")) add_child(*concat, parse_product());
    return concat;
  }

  ExprPtr parse_product() {
    return parse_binary({"*", "/", "//", "%"}, [&] { return parse_power(); });
  }

  ExprPtr parse_power() {
    return parse_binary({"**"}, [&] { return parse_unary(); });
  }

  ExprPtr parse_unary(bool with_filters = true) {
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

  ExprPtr parse_primary() {
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

  ExprPtr parse_name() {
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
      loop_names_ += name == "loop";
      macro_uses_.uses_varargs |= name == "varargs";
      macro_uses_.uses_kwargs |= name == "kwargs";
      macro_uses_.uses_caller |= name == "caller";
    }
    return e;
  }

  ExprPtr parse_parentheses() {
    const Deeper deeper(*this);
    const int line = take().line;
    if (skip_op(")")) return node(Expr::Kind::kTuple, line);
    ExprPtr e = parse_tuple();
    expect_op(")");
    return e;
  }

  ExprPtr parse_list() {
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

  ExprPtr parse_dict() {
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

  ExprPtr parse_postfix(ExprPtr e) {
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

  ExprPtr parse_subscript(ExprPtr e) {
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

  ExprPtr parse_call(ExprPtr callee) {
    const Deeper deeper(*this);
    ExprPtr call = node_of(Expr::Kind::kCall, now().line, std::move(callee));
    add_args(*call, parse_args());
    return call;
  }

  std::vector<Arg> parse_args() {
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

  // Filters, tests and calls behind an expression (null: in front of a filter block's body).
  ExprPtr parse_postfix_filters(ExprPtr e) {
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

  ExprPtr parse_filter(ExprPtr input) {
    const int line = now().line;
    ExprPtr filter = node_of(Expr::Kind::kFilter, line, std::move(input));
    filter->text = expect_name();
    if (is_op("(")) {
      const Deeper deeper(*this);
      add_args(*filter, parse_args());
    }
    return filter;
  }

  ExprPtr parse_test(ExprPtr input) {
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
          for (const std::string_view word :
               {"else", "or", "and", "if", "in", "not", "recursive"}) {
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

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;          // for statements around this place
  size_t loop_names_ = 0;  // how often "loop" was read
  MacroDef macro_uses_;    // names the macro around this place reads
};

}  // namespace

Body parse(std::string_view source) { return Parser(tokenize(source)).run(); }

}  // namespace braid::text::jinja
