#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "text/jinja/expression_parser.h"

namespace braid::text::jinja {
namespace {

using Kind = Token::Kind;

// Statements; what stands in them is ExpressionParser's.
class Parser : public ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  Body run() { return parse_body({}, ""); }

 private:
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
    const size_t names_before = names_read_.loop;
    if (skip_name("if")) s.condition = parse_expression();
    s.is_recursive = skip_name("recursive");
    expect_end(Kind::kBlockEnd);
    ++loops_;
    s.body = parse_body({"else", "endfor"}, "for");
    --loops_;
    s.uses_loop = names_read_.loop != names_before || s.is_recursive;
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
    const NamesRead outer = names_read_;
    const int outer_loops = std::exchange(loops_, 0);
    names_read_ = {.loop = outer.loop};
    macro.body = parse_body_to(end, opened);
    macro.uses_varargs = names_read_.varargs;
    macro.uses_kwargs = names_read_.kwargs;
    macro.uses_caller = names_read_.caller;
    names_read_ = {.loop = names_read_.loop,
                   .varargs = outer.varargs,
                   .kwargs = outer.kwargs,
                   .caller = outer.caller};
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

  int loops_ = 0;  // for statements around this place
};

}  // namespace

Body parse(std::string_view source) { return Parser(tokenize(source)).run(); }

}  // namespace braid::text::jinja
