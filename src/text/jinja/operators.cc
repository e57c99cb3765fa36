// The operators of template expressions, with the meaning they have in Python.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/objects.h"
#include "text/jinja/runtime.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

[[noreturn]] void unsupported(std::string_view op, const Value& a, const Value& b) {
  require_defined(a);
  require_defined(b);
  if (op == "+" && a.text()) {
    throw Failure{
        fmt::format("TypeError: can only concatenate str (not \"{}\") to str", b.type_name())};
  }
  throw Failure{fmt::format("TypeError: unsupported operand type(s) for {}: '{}' and '{}'", op,
                            a.type_name(), b.type_name())};
}

[[noreturn]] void overflow() { fail_with("OverflowError: an integer needs more than 127 bits"); }

Int floor_divide(Int a, Int b) {
  const Int quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Int power(Int base, Int exponent) {
  Int result = 1;
  while (exponent > 0) {
    if (exponent & 1) {
      if (__builtin_mul_overflow(result, base, &result)) overflow();
    }
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return result;
}

Value on_ints(std::string_view op, Int a, Int b) {
  Int result = 0;
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &result)) overflow();
    return Value(result);
  }
  if (op == "-") {
    if (__builtin_sub_overflow(a, b, &result)) overflow();
    return Value(result);
  }
  if (op == "*") {
    if (__builtin_mul_overflow(a, b, &result)) overflow();
    return Value(result);
  }
  if (op == "**") {
    if (b >= 0) return Value(power(a, b));
    if (a == 0) fail_with("ZeroDivisionError: 0.0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
  if (b == 0) {
    fail_with("ZeroDivisionError: ",
              op == "/" ? "division by zero" : "integer division or modulo by zero");
  }
  if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {  // the one quotient that may not fit
    if (op == "%") return Value(0);
    if (__builtin_sub_overflow(Int{0}, a, &result)) overflow();
    return Value(result);
  }
  return Value(op == "//" ? floor_divide(a, b) : a - floor_divide(a, b) * b);
}

Value on_floats(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") {
    if (a == 0 && b < 0) fail_with("ZeroDivisionError: 0.0 cannot be raised to a negative power");
    const double result = std::pow(a, b);
    if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) {
      fail_with("ValueError: a negative number cannot be raised to a fractional power");
    }
    return Value(result);
  }
  if (b == 0) fail_with("ZeroDivisionError: float division by zero");
  if (op == "/") return Value(a / b);
  double modulo = std::fmod(a, b);
  if (modulo != 0 && (modulo < 0) != (b < 0)) modulo += b;
  if (op == "%") return Value(modulo);
  return Value(std::floor((a - modulo) / b + 0.5));
}

// Text, list or tuple, `count` times.
Value repeat(Runtime& run, const Value& value, Int count) {
  if (count < 0) count = 0;
  const uint64_t size =
      value.text() ? value.text()->size() / 16 + 1 : value.sequence()->items.size() * 2 + 1;
  if (count > static_cast<Int>(Runtime::kMaxWork / size)) run.charge(Runtime::kMaxWork);
  run.charge(size * static_cast<uint64_t>(count));
  if (const MarkedText* text = value.text()) {
    MarkedText out;
    for (Int i = 0; i < count; ++i) out.append(*text);
    return Value(std::move(out));
  }
  List items;
  for (Int i = 0; i < count; ++i) {
    items.insert(items.end(), value.sequence()->items.begin(), value.sequence()->items.end());
  }
  return Value::sequence(std::move(items), value.sequence()->is_tuple);
}

}  // namespace

Value apply_operator(Runtime& run, std::string_view op, const Value& a, const Value& b) {
  if (op == "%" && a.text()) return format_percent(run, *a.text(), b);
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return on_floats(op, a.to_double(), b.to_double());
    return on_ints(op, a.to_int(), b.to_int());
  }
  if (op == "+") {
    if (a.text() && b.text()) {
      run.charge_bytes(a.text()->size() + b.text()->size());
      MarkedText out = *a.text();
      out.append(*b.text());
      return Value(std::move(out));
    }
    const Sequence *x = a.sequence(), *y = b.sequence();
    if (x && y && x->is_tuple == y->is_tuple) {
      run.charge_items(x->items.size() + y->items.size());
      List items = x->items;
      items.insert(items.end(), y->items.begin(), y->items.end());
      return Value::sequence(std::move(items), x->is_tuple);
    }
  }
  if (op == "*") {
    const auto repeats = [](const Value& what, const Value& count) {
      return (what.text() || what.sequence()) && (count.is_int() || count.is_bool());
    };
    if (repeats(a, b)) return repeat(run, a, b.to_int());
    if (repeats(b, a)) return repeat(run, b, a.to_int());
  }
  unsupported(op, a, b);
}

Value negate(const Value& value) {
  if (value.is_float()) return Value(-value.to_double());
  if (!value.is_number()) {
    require_defined(value);
    fail_with("TypeError: bad operand type for unary -: '", value.type_name(), "'");
  }
  Int result = 0;
  if (__builtin_sub_overflow(Int{0}, value.to_int(), &result)) overflow();
  return Value(result);
}

bool contains(Runtime& run, const Value& container, const Value& item) {
  if (const MarkedText* text = container.text()) {
    if (!item.text()) {
      require_defined(item);
      fail_with("TypeError: 'in <string>' requires string as left operand, not ", item.type_name());
    }
    run.charge_bytes(text->size());
    return text->text().find(item.text()->text()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(item) != nullptr;
  if (const Sequence* sequence = container.sequence()) {
    run.charge(sequence->items.size());
    return std::any_of(sequence->items.begin(), sequence->items.end(),
                       [&](const Value& one) { return equal(one, item); });
  }
  if (!container.is_undefined() && !container.as<RangeObject>()) {
    fail_with("TypeError: argument of type '", container.type_name(), "' is not iterable");
  }
  const List items = to_list(run, container);
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& one) { return equal(one, item); });
}

Value slice(Runtime& run, const Value& value, const Value& start, const Value& stop,
            const Value& step) {
  require_defined(value);
  const auto bound = [](const Value& v) -> std::optional<Int> {
    if (v.is_none()) return std::nullopt;
    if (!v.is_int() && !v.is_bool()) {
      fail_with("TypeError: slice indices must be integers or None, not '", v.type_name(), "'");
    }
    return v.to_int();
  };
  const Int stride = bound(step).value_or(1);
  if (stride == 0) fail_with("ValueError: slice step cannot be zero");
  List items;
  const MarkedText* text = value.text();
  if (text) run.charge_bytes(text->size());
  if (!text && !value.sequence() && !value.as<RangeObject>()) {
    // Jinja gives an undefined value for what cannot be sliced.
    return Value::undefined(fmt::format("'{} object' cannot be sliced", value.type_name()));
  }
  if (!text) items = to_list(run, value);
  const auto size = static_cast<Int>(text ? length_in_chars(*text) : items.size());

  const Int lowest = stride > 0 ? 0 : -1, highest = stride > 0 ? size : size - 1;
  const auto place = [&](std::optional<Int> at, Int otherwise) {
    if (!at) return otherwise;
    Int i = *at;
    if (i < 0) i = i < -size ? lowest : i + size;
    return std::clamp(i, lowest, std::max(lowest, highest));
  };
  const Int from = place(bound(start), stride > 0 ? lowest : highest);
  const Int to = place(bound(stop), stride > 0 ? highest : lowest);

  if (text && stride == 1) {
    MarkedText out;
    if (from < to) {
      const Range bytes = bytes_of_chars(*text, static_cast<size_t>(from), static_cast<size_t>(to));
      out.append(*text, bytes.begin, bytes.end);
    }
    return Value(std::move(out));
  }
  if (text) items = characters(run, *text);
  List picked;
  for (Int i = from; stride > 0 ? i < to : i > to;) {
    picked.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  if (!text)
    return Value::sequence(std::move(picked), value.sequence() && value.sequence()->is_tuple);
  MarkedText out;
  for (const Value& one : picked) out.append(*one.text());
  return Value(std::move(out));
}

}  // namespace braid::text::jinja
