#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "base/check.h"
#include "text/jinja/objects.h"
#include "text/jinja/strings.h"

namespace braid::text::jinja {
namespace {

// Variables of a template, a macro, a loop round or a with block.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> variables;
  bool is_captured = false;  // a macro made here may still read it later

  const Value* find(std::string_view name) const {
    for (const auto& [key, value] : variables) {
      if (key == name) return &value;
    }
    return nullptr;
  }
  void set(std::string_view name, Value value) {
    for (auto& [key, old] : variables) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }
};

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

// The variable `loop`. Items are looked at as late as they are needed, since the condition of a
// loop can depend on what its body did.
class Loop : public Object {
 public:
  Loop(List items, std::function<bool(const Value&)> accepts, int depth)
      : items_(std::move(items)), accepts_(std::move(accepts)), depth_(depth) {}
  std::string_view type_name() const override { return "LoopContext"; }
  bool is_callable() const override { return recurse_ != nullptr; }
  Value get(Runtime& run, std::string_view name) override;
  Value call(Runtime&, const CallArgs& args) override {
    if (!recurse_) fail_with("TypeError: The loop must have the 'recursive' marker to be called.");
    return recurse_(args);
  }

  // Goes to the next accepted item; null at the end.
  const Value* next() {
    if (!peek()) return nullptr;
    previous_ = std::exchange(current_, ahead_);
    ahead_.reset();
    ++index_;
    return &*current_;
  }
  // Nothing can be asked of the items behind the end: the body's scope is gone.
  void finish() {
    items_.clear();
    at_ = 0;
    accepts_ = nullptr;
  }
  void set_recursion(std::function<Value(const CallArgs&)> recurse) {
    recurse_ = std::move(recurse);
  }
  int depth() const { return depth_; }

 private:
  const Value* peek() {
    while (!ahead_ && at_ < items_.size()) {
      const Value& item = items_[at_++];
      if (!accepts_ || accepts_(item)) ahead_ = item;
    }
    return ahead_ ? &*ahead_ : nullptr;
  }
  Int length() {
    // Decides about all that is left, once.
    if (accepts_) {
      List rest;
      for (; at_ < items_.size(); ++at_) {
        if (accepts_(items_[at_])) rest.push_back(items_[at_]);
      }
      items_ = std::move(rest);
      at_ = 0;
      accepts_ = nullptr;
    }
    return index_ + (ahead_ ? 1 : 0) + static_cast<Int>(items_.size() - at_);
  }

  List items_;
  size_t at_ = 0;
  std::function<bool(const Value&)> accepts_;
  std::function<Value(const CallArgs&)> recurse_;
  std::optional<Value> previous_, current_, ahead_;
  std::optional<List> last_changed_;
  Int index_ = 0;  // from 1
  int depth_;
};

class Interpreter final : public Runtime {
 public:
  Interpreter(const std::vector<std::pair<std::string, Value>>& variables, const std::tm& now)
      : Runtime(now) {
    globals_.is_captured = true;
    for (const auto& [name, value] : variables) globals_.set(name, value);
  }

  MarkedText render(const Body& body) {
    MarkedText out;
    try {
      // Top-level names live in their own scope, so that {% set %} does not change the caller's.
      Scope& top = push_scope(globals_);
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
    Scope& scope = push_scope(parent);
    bind_parameters(def, scope, args);
    MarkedText out;
    run(def.body, scope, out);
    pop_scope(scope);
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

  // --- scopes ---

  Scope& push_scope(Scope& parent) {
    if (free_scopes_.empty()) free_scopes_.push_back(&scopes_.emplace_back());
    Scope& scope = *free_scopes_.back();
    free_scopes_.pop_back();
    scope.parent = &parent;
    return scope;
  }

  // After a Failure scopes are not popped: nothing runs any more.
  void pop_scope(Scope& scope) {
    if (scope.is_captured) return;
    scope.variables.clear();
    free_scopes_.push_back(&scope);
  }

  static void capture(Scope& scope) {
    for (Scope* s = &scope; s && !s->is_captured; s = s->parent) s->is_captured = true;
  }

  Value look_up(std::string_view name, const Scope& scope) {
    for (const Scope* s = &scope; s; s = s->parent) {
      charge(1 + s->variables.size() / 16);
      if (const Value* value = s->find(name)) return *value;
    }
    if (auto function = find_function(*this, name)) {
      globals_.set(name, *function);  // one object, so that it equals itself
      return *function;
    }
    return Value::undefined(fmt::format("'{}' is undefined", name));
  }

  void assign(const Expr& target, Value value, Scope& scope) {
    line_ = target.line;
    if (target.kind == Expr::Kind::kName) {
      charge(1 + scope.variables.size() / 16);
      return scope.set(target.text, std::move(value));
    }
    if (target.kind == Expr::Kind::kAttr) {
      auto* fields = look_up(target.children[0]->text, scope).as<Namespace>();
      if (!fields) fail_with("cannot assign attribute on non-namespace object");
      charge_items(1);
      return fields->set(target.text, std::move(value));
    }
    require_defined(value);
    const List items = to_list(*this, value);
    const size_t want = target.children.size();
    if (items.size() != want) {
      throw Failure{fmt::format("ValueError: {} values to unpack (expected {})",
                                items.size() < want ? "not enough" : "too many", want)};
    }
    for (size_t i = 0; i < want; ++i) assign(*target.children[i], items[i], scope);
  }

  // --- macros ---

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
    capture(scope);
    return Value(make<Macro>(*this, def, scope));
  }

  // --- statements ---

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
    Scope& inner = push_scope(scope);
    for (const auto& [target, value] : stmt.assignments) {
      assign(*target, eval(*value, scope), inner);
    }
    const Flow flow = run(stmt.body, inner, out);
    pop_scope(inner);
    return flow;
  }

  // The text of a block, through its filters.
  Value render_block(const Stmt& stmt, Scope& scope) {
    Scope& inner = push_scope(scope);
    MarkedText text;
    run(stmt.body, inner, text);
    pop_scope(inner);
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
        Scope& inner = push_scope(scope);
        assign(*stmt.target, item, inner);
        const bool accepted = eval(*stmt.condition, inner).truth();
        pop_scope(inner);
        return accepted;
      };
    }
    Loop& loop = loop_of(stmt, to_list(*this, iterated), std::move(accepts), scope, depth);
    bool any = false;
    while (const Value* item = loop.next()) {
      any = true;
      charge(2);
      Scope& inner = push_scope(scope);
      if (stmt.uses_loop) inner.set("loop", Value(&loop));
      assign(*stmt.target, *item, inner);
      const Flow flow = run(stmt.body, inner, out);
      pop_scope(inner);
      if (flow == Flow::kBreak) break;
    }
    loop.finish();
    if (any || stmt.orelse.empty()) return Flow::kNext;
    Scope& inner = push_scope(scope);
    const Flow flow = run(stmt.orelse, inner, out);
    pop_scope(inner);
    return flow;
  }

  Loop& loop_of(const Stmt& stmt, List items, std::function<bool(const Value&)> accepts,
                Scope& scope, int depth) {
    Loop* loop = make<Loop>(std::move(items), std::move(accepts), depth);
    if (stmt.is_recursive) {
      capture(scope);
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

  // --- expressions ---

  Value eval(const Expr& e, Scope& scope) {
    const Deeper deeper(eval_depth_);
    charge(1);
    line_ = e.line;
    switch (e.kind) {
      case Expr::Kind::kConst:
        return e.value;
      case Expr::Kind::kName:
        return look_up(e.text, scope);
      case Expr::Kind::kList:
        return Value::list(eval_all(e.children, scope));
      case Expr::Kind::kTuple:
        return Value::tuple(eval_all(e.children, scope));
      case Expr::Kind::kDict:
        return eval_dict(e, scope);
      case Expr::Kind::kAttr:
        return get_attribute(*this, eval(*e.children[0], scope), e.text);
      case Expr::Kind::kItem:
        return eval_item(e, scope);
      case Expr::Kind::kSlice:
        return eval_slice(e, scope);
      case Expr::Kind::kCall:
        return eval_call(e, scope);
      case Expr::Kind::kFilter:
        return eval_filter(e, scope);
      case Expr::Kind::kTest:
        return eval_test(e, scope);
      case Expr::Kind::kNot:
        return Value(!eval(*e.children[0], scope).truth());
      case Expr::Kind::kNeg:
        return negate(eval(*e.children[0], scope));
      case Expr::Kind::kPos:
        return eval_plus(e, scope);
      case Expr::Kind::kAnd:
        return eval_and_or(e, scope, false);
      case Expr::Kind::kOr:
        return eval_and_or(e, scope, true);
      case Expr::Kind::kBinary:
        return eval_binary(e, scope);
      case Expr::Kind::kConcat:
        return eval_concat(e, scope);
      case Expr::Kind::kCompare:
        return eval_compare(e, scope);
      case Expr::Kind::kCond:
        return eval_cond(e, scope);
    }
    BRAID_UNREACHABLE(static_cast<int>(e.kind));
  }

  List eval_all(const std::vector<ExprPtr>& expressions, Scope& scope) {
    charge_items(expressions.size());
    List values;
    values.reserve(expressions.size());
    for (const ExprPtr& e : expressions) values.push_back(eval(*e, scope));
    return values;
  }

  Value eval_dict(const Expr& e, Scope& scope) {
    charge_items(e.children.size());
    Dict dict;
    for (size_t i = 0; i < e.children.size(); i += 2) {
      const Value key = eval(*e.children[i], scope);
      dict.set(key, eval(*e.children[i + 1], scope));
    }
    return Value::dict(std::move(dict));
  }

  Value eval_item(const Expr& e, Scope& scope) {
    const Value value = eval(*e.children[0], scope);
    return get_item(*this, value, eval(*e.children[1], scope));
  }

  Value eval_slice(const Expr& e, Scope& scope) {
    const auto part = [&](size_t i) {
      return e.children[i] ? eval(*e.children[i], scope) : Value();
    };
    const Value value = part(0), start = part(1), stop = part(2);
    return slice(*this, value, start, stop, part(3));
  }

  Value eval_call(const Expr& e, Scope& scope) {
    const Expr& callee = *e.children[0];
    if (callee.kind == Expr::Kind::kAttr) {
      const Value self = eval(*callee.children[0], scope);
      if (has_method(self, callee.text)) {
        const CallArgs args = eval_args(e.args, scope);
        line_ = e.line;
        return call_method(*this, self, callee.text, args);
      }
      const Value found = get_attribute(*this, self, callee.text);
      const CallArgs args = eval_args(e.args, scope);
      line_ = e.line;
      return call(found, args);
    }
    const Value found = eval(callee, scope);
    const CallArgs args = eval_args(e.args, scope);
    line_ = e.line;
    return call(found, args);
  }

  CallArgs eval_args(const std::vector<Arg>& args, Scope& scope) {
    CallArgs out;
    for (const Arg& arg : args) {
      Value value = eval(*arg.value, scope);
      switch (arg.kind) {
        case Arg::Kind::kPositional:
          out.positional.push_back(std::move(value));
          break;
        case Arg::Kind::kKeyword:
          out.keyword.emplace_back(arg.name, std::move(value));
          break;
        case Arg::Kind::kUnpackList:
          for (Value& item : to_list(*this, value)) out.positional.push_back(std::move(item));
          break;
        case Arg::Kind::kUnpackDict:
          if (!value.dict()) fail_with("TypeError: the argument after ** has to be a mapping");
          for (const auto& [key, item] : value.dict()->entries()) {
            if (!key.text()) fail_with("TypeError: keywords must be strings");
            charge_items(1);
            out.keyword.emplace_back(key.text()->text(), item);
          }
          break;
      }
    }
    return out;
  }

  Value eval_filter(const Expr& e, Scope& scope) {
    // An unknown filter is an error before its input is, as in Jinja.
    if (!has_filter(e.text)) fail_with("No filter named '", e.text, "'.");
    const Value input = eval(*e.children[0], scope);
    const CallArgs args = eval_args(e.args, scope);
    line_ = e.line;
    return apply_filter(*this, e.text, input, args);
  }

  Value eval_test(const Expr& e, Scope& scope) {
    if (!has_test(e.text)) fail_with("No test named '", e.text, "'.");
    const Value input = eval(*e.children[0], scope);
    const CallArgs args = eval_args(e.args, scope);
    line_ = e.line;
    return Value(apply_test(*this, e.text, input, args));
  }

  Value eval_plus(const Expr& e, Scope& scope) {
    const Value value = eval(*e.children[0], scope);
    if (!value.is_number()) negate(value);  // fails with the reason
    return value.is_bool() ? Value(value.to_int()) : value;
  }

  Value eval_and_or(const Expr& e, Scope& scope, bool is_or) {
    Value left = eval(*e.children[0], scope);
    return left.truth() == is_or ? left : eval(*e.children[1], scope);
  }

  Value eval_binary(const Expr& e, Scope& scope) {
    const Value left = eval(*e.children[0], scope);
    const Value right = eval(*e.children[1], scope);
    line_ = e.line;
    return apply_operator(*this, e.text, left, right);
  }

  Value eval_concat(const Expr& e, Scope& scope) {
    MarkedText out;
    for (const ExprPtr& child : e.children) {
      const size_t before = out.size();
      append_str(out, eval(*child, scope));
      charge_bytes(out.size() - before);
    }
    return Value(std::move(out));
  }

  Value eval_compare(const Expr& e, Scope& scope) {
    Value left = eval(*e.children[0], scope);
    for (size_t i = 0; i < e.ops.size(); ++i) {
      Value right = eval(*e.children[i + 1], scope);
      line_ = e.line;
      if (!holds(e.ops[i], left, right)) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

  bool holds(const std::string& op, const Value& a, const Value& b) {
    if (op == "==") return equal(a, b);
    if (op == "!=") return !equal(a, b);
    if (op == "in") return contains(*this, b, a);
    if (op == "not in") return !contains(*this, b, a);
    if (op == "<") return less(a, b);
    if (op == ">") return less(b, a);
    // Not "not greater": NaN is neither.
    if (op == "<=") return less(a, b) || equal(a, b);
    return less(b, a) || equal(a, b);
  }

  Value eval_cond(const Expr& e, Scope& scope) {
    if (eval(*e.children[0], scope).truth()) return eval(*e.children[1], scope);
    if (e.children[2]) return eval(*e.children[2], scope);
    return Value::undefined(
        "the inline if-expression evaluated to false and no else section was "
        "defined.");
  }

  Scope globals_;
  std::deque<Scope> scopes_;  // a deque: scopes stay in place
  std::vector<Scope*> free_scopes_;
  int depth_ = 0;
  int eval_depth_ = 0;
  int line_ = 0;
};

Value Macro::call(Runtime&, const CallArgs& args) {
  return interpreter_.call_macro(def_, scope_, args);
}

Value Loop::get(Runtime& run, std::string_view name) {
  if (name == "index") return Value(index_);
  if (name == "index0") return Value(index_ - 1);
  if (name == "first") return Value(index_ == 1);
  if (name == "last") return Value(peek() == nullptr);
  if (name == "length") return Value(length());
  if (name == "revindex") return Value(length() - index_ + 1);
  if (name == "revindex0") return Value(length() - index_);
  if (name == "depth") return Value(depth_);
  if (name == "depth0") return Value(depth_ - 1);
  if (name == "previtem") {
    return previous_ ? *previous_ : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    const Value* ahead = peek();
    return ahead ? *ahead : Value::undefined("there is no next item");
  }
  if (name == "cycle") {
    return Value(run.make<NativeFunction>("cycle", [this](Runtime&, const CallArgs& args) {
      if (args.positional.empty()) fail_with("TypeError: no items for cycling given");
      const auto size = static_cast<Int>(args.positional.size());
      return args.positional[static_cast<size_t>((index_ - 1) % size)];
    }));
  }
  if (name == "changed") {
    return Value(run.make<NativeFunction>("changed", [this](Runtime&, const CallArgs& args) {
      const bool same =
          last_changed_ && std::equal(last_changed_->begin(), last_changed_->end(),
                                      args.positional.begin(), args.positional.end(), equal);
      last_changed_ = args.positional;
      return Value(!same);
    }));
  }
  return Value::undefined(fmt::format("'LoopContext object' has no attribute '{}'", name));
}

}  // namespace

MarkedText render(const Body& body, const std::vector<std::pair<std::string, Value>>& variables,
                  const std::tm& now) {
  return Interpreter(variables, now).render(body);
}

}  // namespace braid::text::jinja
