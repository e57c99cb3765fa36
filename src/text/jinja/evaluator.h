#pragma once

#include <ctime>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/runtime.h"
#include "text/jinja/scope.h"

namespace braid::text::jinja {

// Values of expressions, and names. What a call runs is left to the class that knows statements.
class Evaluator : public Runtime {
 protected:
  explicit Evaluator(const std::tm& now) : Runtime(now) { globals_.is_captured = true; }

  // Counts how deep the interpreter is in itself: its stack is the limit.
  class Deeper {
   public:
    explicit Deeper(int& level) : level_(level) {
      if (++level_ > kMaxEvalDepth) fail_with("RecursionError: the template is nested too deep");
    }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ~Deeper() { --level_; }

   private:
    int& level_;
  };

  // The innermost variable of that name, a built-in function, or undefined.
  Value look_up(std::string_view name, const Scope& scope);
  // To a name, a field of a namespace, or a tuple of targets.
  void assign(const Expr& target, Value value, Scope& scope);
  Value eval(const Expr& e, Scope& scope);
  CallArgs eval_args(const std::vector<Arg>& args, Scope& scope);

  Scope globals_;
  Scopes scopes_;
  int eval_depth_ = 0;
  int line_ = 0;  // of what is looked at, for messages

 private:
  List eval_all(const std::vector<ExprPtr>& expressions, Scope& scope);
  Value eval_dict(const Expr& e, Scope& scope);
  Value eval_item(const Expr& e, Scope& scope);
  Value eval_slice(const Expr& e, Scope& scope);
  Value eval_call(const Expr& e, Scope& scope);
  Value eval_filter(const Expr& e, Scope& scope);
  Value eval_test(const Expr& e, Scope& scope);
  Value eval_plus(const Expr& e, Scope& scope);
  Value eval_and_or(const Expr& e, Scope& scope, bool is_or);
  Value eval_binary(const Expr& e, Scope& scope);
  Value eval_concat(const Expr& e, Scope& scope);
  Value eval_compare(const Expr& e, Scope& scope);
  bool holds(const std::string& op, const Value& a, const Value& b);
  Value eval_cond(const Expr& e, Scope& scope);
};

}  // namespace braid::text::jinja
