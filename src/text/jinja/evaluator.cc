#include "text/jinja/evaluator.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "text/jinja/objects.h"
#include "text/jinja/strings.h"

namespace braid::text::jinja {

Value Evaluator::look_up(std::string_view name, const Scope& scope) {
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

void Evaluator::assign(const Expr& target, Value value, Scope& scope) {
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

Value Evaluator::eval(const Expr& e, Scope& scope) {
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

List Evaluator::eval_all(const std::vector<ExprPtr>& expressions, Scope& scope) {
  charge_items(expressions.size());
  List values;
  values.reserve(expressions.size());
  for (const ExprPtr& e : expressions) values.push_back(eval(*e, scope));
  return values;
}

Value Evaluator::eval_dict(const Expr& e, Scope& scope) {
  charge_items(e.children.size());
  Dict dict;
  for (size_t i = 0; i < e.children.size(); i += 2) {
    const Value key = eval(*e.children[i], scope);
    dict.set(key, eval(*e.children[i + 1], scope));
  }
  return Value::dict(std::move(dict));
}

Value Evaluator::eval_item(const Expr& e, Scope& scope) {
  const Value value = eval(*e.children[0], scope);
  return get_item(*this, value, eval(*e.children[1], scope));
}

Value Evaluator::eval_slice(const Expr& e, Scope& scope) {
  const auto part = [&](size_t i) { return e.children[i] ? eval(*e.children[i], scope) : Value(); };
  const Value value = part(0), start = part(1), stop = part(2);
  return slice(*this, value, start, stop, part(3));
}

Value Evaluator::eval_call(const Expr& e, Scope& scope) {
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

CallArgs Evaluator::eval_args(const std::vector<Arg>& args, Scope& scope) {
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

Value Evaluator::eval_filter(const Expr& e, Scope& scope) {
  // An unknown filter is an error before its input is, as in Jinja.
  if (!has_filter(e.text)) fail_with("No filter named '", e.text, "'.");
  const Value input = eval(*e.children[0], scope);
  const CallArgs args = eval_args(e.args, scope);
  line_ = e.line;
  return apply_filter(*this, e.text, input, args);
}

Value Evaluator::eval_test(const Expr& e, Scope& scope) {
  if (!has_test(e.text)) fail_with("No test named '", e.text, "'.");
  const Value input = eval(*e.children[0], scope);
  const CallArgs args = eval_args(e.args, scope);
  line_ = e.line;
  return Value(apply_test(*this, e.text, input, args));
}

Value Evaluator::eval_plus(const Expr& e, Scope& scope) {
  const Value value = eval(*e.children[0], scope);
  if (!value.is_number()) negate(value);  // fails with the reason
  return value.is_bool() ? Value(value.to_int()) : value;
}

Value Evaluator::eval_and_or(const Expr& e, Scope& scope, bool is_or) {
  Value left = eval(*e.children[0], scope);
  return left.truth() == is_or ? left : eval(*e.children[1], scope);
}

Value Evaluator::eval_binary(const Expr& e, Scope& scope) {
  const Value left = eval(*e.children[0], scope);
  const Value right = eval(*e.children[1], scope);
  line_ = e.line;
  return apply_operator(*this, e.text, left, right);
}

Value Evaluator::eval_concat(const Expr& e, Scope& scope) {
  MarkedText out;
  for (const ExprPtr& child : e.children) {
    const size_t before = out.size();
    append_str(out, eval(*child, scope));
    charge_bytes(out.size() - before);
  }
  return Value(std::move(out));
}

Value Evaluator::eval_compare(const Expr& e, Scope& scope) {
  Value left = eval(*e.children[0], scope);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = eval(*e.children[i + 1], scope);
    line_ = e.line;
    if (!holds(e.ops[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

bool Evaluator::holds(const std::string& op, const Value& a, const Value& b) {
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

Value Evaluator::eval_cond(const Expr& e, Scope& scope) {
  if (eval(*e.children[0], scope).truth()) return eval(*e.children[1], scope);
  if (e.children[2]) return eval(*e.children[2], scope);
  return Value::undefined(
      "the inline if-expression evaluated to false and no else section was "
      "defined.");
}

}  // namespace braid::text::jinja
