#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "text/jinja/evaluator.h"
#include "text/jinja/loop.h"
#include "text/jinja/strings.h"

namespace braid::text::jinja {
namespace {

// What a statement asks of the loop around it.
enum class Flow { kNext, kBreak, kContinue };

class Interpreter;

// A macro, or the body of a call block.
class Macro : public Object {
 public:
  Macro(Interpreter& interpreter, const MacroDef& def, Scope& scope)
      : interpreter_(interpreter), def_(def), scope_(scope) {}
  std::string_view type_name() const override { return "Macro"; }
  bool is_callable() const override { return true; }
  Value get(Runtime&, std::string_view name) override {
    if (name == "name") return Value(def_.name);
    return Value::undefined(fmt::format("'Macro object' has no attribute '{}'", name));
  }
  Value call(Runtime& run, const CallArgs& args) override;

 private:
  Interpreter& interpreter_;
  const MacroDef& def_;
  Scope& scope_;  // captured: it lives as long as the rendering
};

// Statements and macros.
class Interpreter final : public Evaluator {
 public:
  Interpreter(const std::vector<std::pair<std::string, Value>>& variables, const std::tm& now)
      : Evaluator(now) {
    for (const auto& [name, value] : variables) globals_.set(name, value);
  }

  MarkedText render(const Body& body) {
    MarkedText out;
    try {
      // Top-level names live in their own scope, so that {% set %} does not change the caller's.
      Scope& top = scopes_.push(globals_);
      run(body, top, out);
    } catch (Failure& failure) {
      if (!failure.raised) failure.message = fmt::format("line {}: {}", line_, failure.message);
      throw;
    }
    return out;
  }

  Value call(const Value& callee, const CallArgs& args) override {
    charge(8);
    if (const BoundMethod* method = callee.method()) {
      return call_method(*this, method->self, method->name, args);
    }
    require_defined(callee);
    if (Object* object = callee.object()) return object->call(*this, args);
    fail_with("TypeError: '", callee.type_name(), "' object is not callable");
  }

  Value call_macro(const MacroDef& def, Scope& parent, const CallArgs& args) {
    const Depth depth(*this);
    Scope& scope = scopes_.push(parent);
    bind_parameters(def, scope, args);
    MarkedText out;
    run(def.body, scope, out);
    scopes_.pop(scope);
    charge_bytes(out.size());
    return Value(std::move(out));
  }

 private:
  // Counts calls and loops inside each other.
  class Depth {
   public:
    explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
      if (++interpreter_.depth_ > kMaxCallDepth) {
        fail_with("RecursionError: macros or loops are nested more than ",
                  std::to_string(kMaxCallDepth), " deep");
      }
    }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    ~Depth() { --interpreter_.depth_; }

   private:
    Interpreter& interpreter_;
  };

  void bind_parameters(const MacroDef& def, Scope& scope, const CallArgs& args) {
    const size_t num_params = def.params.size();
    const size_t num_positional = std::min(args.positional.size(), num_params);
    std::vector<bool> is_bound(num_params, false);
    for (size_t i = 0; i < num_positional; ++i) {
      scope.set(def.params[i], args.positional[i]);
      is_bound[i] = true;
    }
    Dict extra;
    Value caller = Value::undefined("No caller defined");
    for (const auto& [name, value] : args.keyword) {
      const auto param = std::find(def.params.begin(), def.params.end(), name);
      if (param != def.params.end()) {
        const auto i = static_cast<size_t>(param - def.params.begin());
        if (is_bound[i]) {
          throw Failure{fmt::format("TypeError: macro '{}' got multiple values for argument '{}'",
                                    def.name, name)};
        }
        scope.set(*param, value);
        is_bound[i] = true;
      } else if (name == "caller") {
        if (!def.uses_caller) {
          throw Failure{fmt::format(
              "TypeError: macro '{}' was invoked with two values for the special caller argument",
              def.name)};
        }
        caller = value;
      } else if (def.uses_kwargs) {
        extra.set(Value(name), value);
      } else {
        throw Failure{
            fmt::format("TypeError: macro '{}' takes no keyword argument '{}'", def.name, name)};
      }
    }
    if (args.positional.size() > num_params && !def.uses_varargs) {
      throw Failure{fmt::format("TypeError: macro '{}' takes not more than {} argument(s)",
                                def.name, num_params)};
    }
    if (def.uses_varargs) {
      scope.set("varargs",
                Value::tuple(List(args.positional.begin() + static_cast<ptrdiff_t>(num_positional),
                                  args.positional.end())));
    }
    if (def.uses_kwargs) scope.set("kwargs", Value::dict(std::move(extra)));
    if (def.uses_caller) scope.set("caller", caller);
    const size_t first_default = num_params - def.defaults.size();
    for (size_t i = 0; i < num_params; ++i) {
      if (is_bound[i]) continue;
      Value value =
          i >= first_default
              ? eval(*def.defaults[i - first_default], scope)
              : Value::undefined(fmt::format("parameter '{}' was not provided", def.params[i]));
      scope.set(def.params[i], std::move(value));
    }
  }

  Value make_macro(const MacroDef& def, Scope& scope) {
    Scopes::capture(scope);
    return Value(make<Macro>(*this, def, scope));
  }

  Flow run(const Body& body, Scope& scope, MarkedText& out) {
    for (const Stmt& stmt : body) {
      const Flow flow = run(stmt, scope, out);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  void check_output(const MarkedText& out) const {
    if (out.size() > kMaxOutputBytes) {
      fail_with("the text grows over ", std::to_string(kMaxOutputBytes), " bytes");
    }
  }

  Flow run(const Stmt& stmt, Scope& scope, MarkedText& out) {
    const Deeper deeper(eval_depth_);
    charge(1);
    line_ = stmt.line;
    switch (stmt.kind) {
      case Stmt::Kind::kText:
        charge_bytes(stmt.text.size());
        out.append(stmt.text, false);
        check_output(out);
        return Flow::kNext;
      case Stmt::Kind::kPrint: {
        const size_t before = out.size();
        append_str(out, eval(*stmt.expr, scope));
        charge_bytes(out.size() - before);
        check_output(out);
        return Flow::kNext;
      }
      case Stmt::Kind::kFor:
        return run_for(stmt, eval(*stmt.expr, scope), scope, out, 1);
      case Stmt::Kind::kIf:
        return run_if(stmt, scope, out);
      case Stmt::Kind::kSet:
        assign(*stmt.target, eval(*stmt.expr, scope), scope);
        break;
      case Stmt::Kind::kSetBlock:
        assign(*stmt.target, render_block(stmt, scope), scope);
        break;
      case Stmt::Kind::kMacro:
        scope.set(stmt.macro->name, make_macro(*stmt.macro, scope));
        break;
      case Stmt::Kind::kCall:
        run_call_block(stmt, scope, out);
        break;
      case Stmt::Kind::kFilter:
        append_str(out, render_block(stmt, scope));
        break;
      case Stmt::Kind::kWith:
        return run_with(stmt, scope, out);
      case Stmt::Kind::kBlock:
        return run(stmt.body, scope, out);
      case Stmt::Kind::kBreak:
        return Flow::kBreak;
      case Stmt::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  Flow run_if(const Stmt& stmt, Scope& scope, MarkedText& out) {
    for (const auto& [condition, body] : stmt.branches) {
      if (eval(*condition, scope).truth()) return run(body, scope, out);
    }
    return run(stmt.orelse, scope, out);
  }

  Flow run_with(const Stmt& stmt, Scope& scope, MarkedText& out) {
    Scope& inner = scopes_.push(scope);
    for (const auto& [target, value] : stmt.assignments) {
      assign(*target, eval(*value, scope), inner);
    }
    const Flow flow = run(stmt.body, inner, out);
    scopes_.pop(inner);
    return flow;
  }

  // The text of a block, through its filters.
  Value render_block(const Stmt& stmt, Scope& scope) {
    Scope& inner = scopes_.push(scope);
    MarkedText text;
    run(stmt.body, inner, text);
    scopes_.pop(inner);
    charge_bytes(text.size());
    Value value(std::move(text));
    return stmt.expr ? filter_chain(*stmt.expr, value, scope) : value;
  }

  // Filters whose innermost input is `value`.
  Value filter_chain(const Expr& e, const Value& value, Scope& scope) {
    const Value input = e.children[0] ? filter_chain(*e.children[0], value, scope) : value;
    return apply_filter(*this, e.text, input, eval_args(e.args, scope));
  }

  void run_call_block(const Stmt& stmt, Scope& scope, MarkedText& out) {
    const Expr& call_expr = *stmt.expr;
    const Value callee = eval(*call_expr.children[0], scope);
    CallArgs args = eval_args(call_expr.args, scope);
    args.keyword.emplace_back("caller", make_macro(*stmt.macro, scope));
    append_str(out, call(callee, args));
    check_output(out);
  }

  Flow run_for(const Stmt& stmt, const Value& iterated, Scope& scope, MarkedText& out, int depth) {
    const Depth counted(*this);
    std::function<bool(const Value&)> accepts;
    if (stmt.condition) {
      accepts = [this, &stmt, &scope](const Value& item) {
        Scope& inner = scopes_.push(scope);
        assign(*stmt.target, item, inner);
        const bool accepted = eval(*stmt.condition, inner).truth();
        scopes_.pop(inner);
        return accepted;
      };
    }
    Loop& loop = loop_of(stmt, to_list(*this, iterated), std::move(accepts), scope, depth);
    bool any = false;
    while (const Value* item = loop.next()) {
      any = true;
      charge(2);
      Scope& inner = scopes_.push(scope);
      if (stmt.uses_loop) inner.set("loop", Value(&loop));
      assign(*stmt.target, *item, inner);
      const Flow flow = run(stmt.body, inner, out);
      scopes_.pop(inner);
      if (flow == Flow::kBreak) break;
    }
    loop.finish();
    if (any || stmt.orelse.empty()) return Flow::kNext;
    Scope& inner = scopes_.push(scope);
    const Flow flow = run(stmt.orelse, inner, out);
    scopes_.pop(inner);
    return flow;
  }

  Loop& loop_of(const Stmt& stmt, List items, std::function<bool(const Value&)> accepts,
                Scope& scope, int depth) {
    Loop* loop = make<Loop>(std::move(items), std::move(accepts), depth);
    if (stmt.is_recursive) {
      Scopes::capture(scope);
      loop->set_recursion([this, &stmt, &scope, depth](const CallArgs& args) {
        const BoundArgs bound("loop", args, {"iterable"});
        MarkedText out;
        run_for(stmt, bound.need("iterable"), scope, out, depth + 1);
        charge_bytes(out.size());
        return Value(std::move(out));
      });
    }
    return *loop;
  }

  int depth_ = 0;
};

Value Macro::call(Runtime&, const CallArgs& args) {
  return interpreter_.call_macro(def_, scope_, args);
}

}  // namespace

MarkedText render(const Body& body, const std::vector<std::pair<std::string, Value>>& variables,
                  const std::tm& now) {
  return Interpreter(variables, now).render(body);
}

}  // namespace braid::text::jinja
