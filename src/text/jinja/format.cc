// '%s' % x and '{}'.format(x), as far as templates go: strings, integers and floats with flags,
// width and precision.

#include <fmt/format.h>

#include <cmath>
#include <cstdio>

#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

constexpr Int kMaxWidth = 1 << 16;

// What stands between % and the letter, or behind the colon of a brace.
struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > ^ =
  bool plus = false, space = false, alternate = false, zero = false, comma = false;
  Int width = 0;
  Int precision = -1;
  char type = '\0';
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

Int read_number(std::string_view text, size_t& at) {
  Int value = 0;
  while (at < text.size() && is_digit(text[at])) {
    value = value * 10 + (text[at++] - '0');
    if (value > kMaxWidth) fail_with("a format width over 65536");
  }
  return value;
}

std::string radix(Int value, int base, bool upper) {
  std::string digits;
  const char* const letters = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  do {
    digits.insert(digits.begin(), letters[static_cast<int>(value % base)]);
    value /= base;
  } while (value != 0);
  return digits;
}

// The digits of |value| for a type letter.
std::string digits_of(const Value& value, const Spec& spec) {
  const char type = spec.type;
  const bool as_int = type == 'd' || type == 'i' || type == 'u' || type == 'x' || type == 'X' ||
                      type == 'o' || type == 'b';
  if (as_int) {
    Int n = truncate(value);
    if (n < 0 && __builtin_sub_overflow(Int{0}, n, &n)) {
      fail_with("OverflowError: an integer needs more than 127 bits");
    }
    if (type == 'x' || type == 'X') {
      return (spec.alternate ? (type == 'x' ? "0x" : "0X") : "") + radix(n, 16, type == 'X');
    }
    if (type == 'o') return (spec.alternate ? "0o" : "") + radix(n, 8, false);
    if (type == 'b') return (spec.alternate ? "0b" : "") + radix(n, 2, false);
    return int_to_string(n);
  }
  const double d = std::abs(value.to_double()) * (type == '%' ? 100 : 1);
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  if (precision > 400) fail_with("a format precision over 400");
  switch (type) {
    case 'f':
      return fmt::format("{:.{}f}", d, precision);
    case 'F':
      return fmt::format("{:.{}F}", d, precision);
    case 'e':
      return fmt::format("{:.{}e}", d, precision);
    case 'E':
      return fmt::format("{:.{}E}", d, precision);
    case 'g':
      return fmt::format("{:.{}g}", d, precision);
    case 'G':
      return fmt::format("{:.{}G}", d, precision);
    case '%':
      return fmt::format("{:.{}f}%", d, precision);
    default:
      break;
  }
  fail_with("ValueError: unsupported format character '", std::string(1, type), "'");
}

// Commas between thousands of the leading digits.
std::string with_commas(const std::string& digits) {
  size_t whole = 0;
  while (whole < digits.size() && is_digit(digits[whole])) ++whole;
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out + digits.substr(whole);
}

MarkedText put_number(Runtime& run, const Value& value, const Spec& spec) {
  if (!value.is_number()) {
    require_defined(value);
    fail_with("TypeError: %", std::string(1, spec.type), " format: a number is required, not ",
              value.type_name());
  }
  std::string digits = digits_of(value, spec);
  if (spec.comma) digits = with_commas(digits);
  const bool negative = value.is_float() ? std::signbit(value.to_double()) : value.to_int() < 0;
  const std::string sign = negative ? "-" : spec.plus ? "+" : spec.space ? " " : "";
  const auto width = static_cast<size_t>(spec.width);
  const size_t size = sign.size() + digits.size();
  if ((spec.zero && spec.align == '\0') || spec.align == '=') {
    const std::string fill = spec.zero ? "0" : spec.fill;
    std::string zeros;
    for (size_t i = size; i < width; ++i) zeros += fill;
    return MarkedText(sign + zeros + digits, false);
  }
  const Align align = spec.align == '<'   ? Align::kLeft
                      : spec.align == '^' ? Align::kCenter
                                          : Align::kRight;
  return pad(run, MarkedText(sign + digits, false), spec.width, spec.fill, align);
}

MarkedText put_text(Runtime& run, MarkedText text, const Spec& spec, Align otherwise) {
  if (spec.precision >= 0) {
    const Range bytes = bytes_of_chars(text, 0, static_cast<size_t>(spec.precision));
    text = substring(text, bytes.begin, bytes.end);
  }
  const Align align = spec.align == '<'   ? Align::kLeft
                      : spec.align == '>' ? Align::kRight
                      : spec.align == '^' ? Align::kCenter
                                          : otherwise;
  return pad(run, text, spec.width, spec.fill, align);
}

// [[fill]align][sign][#][0][width][,][.precision][type]
Spec read_brace_spec(std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!text.empty()) {
    size_t behind = 0;
    next_char(text, behind);
    if (behind < text.size() && is_align(text[behind])) {
      spec.fill = text.substr(0, behind);
      spec.align = text[behind];
      at = behind + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      at = 1;
    }
  }
  const auto skip = [&](char c) {
    if (at >= text.size() || text[at] != c) return false;
    ++at;
    return true;
  };
  spec.plus = skip('+');
  if (!spec.plus && !skip('-')) spec.space = skip(' ');
  spec.alternate = skip('#');
  spec.zero = skip('0');
  spec.width = read_number(text, at);
  spec.comma = skip(',');
  if (skip('.')) spec.precision = read_number(text, at);
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size()) fail_with("ValueError: Invalid format specifier '", text, "'");
  return spec;
}

MarkedText put_brace_value(Runtime& run, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return to_str(value);
  Spec spec = read_brace_spec(spec_text);
  if (value.is_number() && !value.is_bool()) {
    if (spec.type == '\0' && (value.is_int() || spec.precision >= 0)) {
      spec.type = value.is_int() ? 'd' : 'g';
    }
    if (spec.type != '\0') return put_number(run, value, spec);
    return put_text(run, to_str(value), spec, Align::kRight);
  }
  if (spec.type != '\0' && spec.type != 's') {
    fail_with("ValueError: Unknown format code '", std::string(1, spec.type),
              "' for object of type '", value.type_name(), "'");
  }
  return put_text(run, to_str(value), spec, Align::kLeft);
}

}  // namespace

Value format_percent(Runtime& run, const MarkedText& format, const Value& args) {
  const std::string_view all = format.text();
  run.charge_bytes(all.size());
  const Sequence* tuple = args.sequence();
  if (tuple && !tuple->is_tuple) tuple = nullptr;
  size_t next = 0;
  const size_t num_args = tuple ? tuple->items.size() : 1;
  const auto take = [&]() -> const Value& {
    if (next >= num_args) fail_with("TypeError: not enough arguments for format string");
    ++next;
    return tuple ? tuple->items[next - 1] : args;
  };
  MarkedText out;
  bool named = false;
  for (size_t at = 0; at < all.size();) {
    const size_t percent = std::min(all.find('%', at), all.size());
    out.append(format, at, percent);
    if (percent == all.size()) break;
    at = percent + 1;
    const Value* value = nullptr;
    if (at < all.size() && all[at] == '(') {
      const size_t close = all.find(')', at);
      if (close == std::string_view::npos) fail_with("ValueError: incomplete format key");
      if (!args.dict()) fail_with("TypeError: format requires a mapping");
      const std::string_view key = all.substr(at + 1, close - at - 1);
      value = args.dict()->find(key);
      if (!value) fail_with("KeyError: '", key, "'");
      named = true;
      at = close + 1;
    }
    Spec spec;
    for (bool more = true; more && at < all.size(); at += more) {
      switch (all[at]) {
        case '-':
          spec.align = '<';
          break;
        case '+':
          spec.plus = true;
          break;
        case ' ':
          spec.space = true;
          break;
        case '#':
          spec.alternate = true;
          break;
        case '0':
          spec.zero = true;
          break;
        default:
          more = false;
      }
    }
    spec.width = read_number(all, at);
    if (at < all.size() && all[at] == '.') {
      ++at;
      spec.precision = read_number(all, at);
    }
    if (at >= all.size()) fail_with("ValueError: incomplete format");
    spec.type = all[at++];
    if (spec.type == '%') {
      out.append("%", false);
      continue;
    }
    if (!value) value = &take();
    MarkedText piece;
    if (spec.type == 's') {
      piece = put_text(run, to_str(*value), spec, Align::kRight);
    } else if (spec.type == 'r') {
      MarkedText repr;
      append_repr(repr, *value);
      piece = put_text(run, std::move(repr), spec, Align::kRight);
    } else {
      piece = put_number(run, *value, spec);
    }
    run.charge_bytes(piece.size());
    out.append(piece);
  }
  if (!named && next < num_args && (tuple || !args.dict())) {
    fail_with("TypeError: not all arguments converted during string formatting");
  }
  return Value(std::move(out));
}

Value format_braces(Runtime& run, const MarkedText& format, const CallArgs& args) {
  const std::string_view all = format.text();
  run.charge_bytes(all.size());
  MarkedText out;
  size_t next = 0;
  for (size_t at = 0; at < all.size();) {
    const size_t brace = std::min(all.find_first_of("{}", at), all.size());
    out.append(format, at, brace);
    if (brace == all.size()) break;
    if (brace + 1 < all.size() && all[brace + 1] == all[brace]) {
      out.append(format, brace, brace + 1);
      at = brace + 2;
      continue;
    }
    if (all[brace] == '}') fail_with("ValueError: Single '}' encountered in format string");
    const size_t close = all.find('}', brace);
    if (close == std::string_view::npos) {
      fail_with("ValueError: Single '{' encountered in format string");
    }
    const std::string_view inside = all.substr(brace + 1, close - brace - 1);
    const size_t colon = std::min(inside.find(':'), inside.size());
    const std::string_view name = inside.substr(0, colon);
    if (name.find_first_of(".[!{") != std::string_view::npos ||
        inside.find('{') != std::string_view::npos) {
      fail_with("the format field \"", inside, "\" is not supported");
    }
    const Value* value = nullptr;
    const std::optional<Int> index = parse_int(name);
    if (name.empty() || index) {
      const Int i = name.empty() ? static_cast<Int>(next++) : *index;
      if (i < 0 || i >= static_cast<Int>(args.positional.size())) {
        fail_with("IndexError: Replacement index ", int_to_string(i),
                  " out of range for positional args tuple");
      }
      value = &args.positional[static_cast<size_t>(i)];
    } else {
      for (const auto& [key, one] : args.keyword) {
        if (key == name) value = &one;
      }
      if (!value) fail_with("KeyError: '", name, "'");
    }
    const MarkedText piece = put_brace_value(
        run, *value, colon < inside.size() ? inside.substr(colon + 1) : std::string_view());
    run.charge_bytes(piece.size());
    out.append(piece);
    at = close + 1;
  }
  return Value(std::move(out));
}

}  // namespace braid::text::jinja
