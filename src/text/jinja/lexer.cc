#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "text/unicode.h"
#include "text/utf8.h"

namespace braid::text::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}

// Longest first.
constexpr std::array<std::string_view, 28> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
    "(",  ")",  "{",  "}",  "|",  ",",  ":", ".", ">", "<", "=", ";", "@", "!"};

// Line ends as \n, without the last one.
std::string normalise_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalise_lines(source)), all_(source_) {}

  std::vector<Token> run() {
    while (at_ < all_.size()) lex_text();
    tokens_.push_back({Token::Kind::kEnd, line_, ""});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail_here(std::string_view message) const {
    throw Failure{fmt::format("line {}: {}", line_, message)};
  }

  bool next_is(std::string_view what) const { return all_.substr(at_).starts_with(what); }

  void advance(size_t n) {
    line_ += static_cast<int>(std::count(all_.begin() + static_cast<ptrdiff_t>(at_),
                                         all_.begin() + static_cast<ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
    if (n > 0) line_starting_ = all_[at_ - 1] == '\n';
  }

  void skip_space() {
    size_t n = 0;
    while (at_ + n < all_.size() && is_space(all_[at_ + n])) ++n;
    advance(n);
  }

  // The end of a tag that stands at at_, behind its sign: "-" takes all white space that follows, a
  // block or comment also takes a line end unless its sign is "+".
  void end_tag(char sign, std::string_view mark, bool trims_line) {
    advance((sign == '\0' ? 0 : 1) + mark.size());
    if (sign == '-') {
      skip_space();
    } else if (sign == '\0' && trims_line && next_is("\n")) {
      advance(1);
    }
  }

  // Text up to the next tag, and the tag's first mark.
  void lex_text() {
    size_t open = all_.find('{', at_);
    while (open != std::string_view::npos && open + 1 < all_.size() &&
           std::string_view("{%#").find(all_[open + 1]) == std::string_view::npos) {
      open = all_.find('{', open + 1);
    }
    if (open == std::string_view::npos || open + 1 >= all_.size()) {
      return put_text(all_.substr(at_), all_.size() - at_);
    }
    const char kind = all_[open + 1];
    const char next = open + 2 < all_.size() ? all_[open + 2] : '\0';
    const char sign = next == '-' || next == '+' ? next : '\0';
    std::string_view text = all_.substr(at_, open - at_);
    if (sign == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    } else if (sign != '+' && kind != '{') {
      text = without_indent(text);
    }
    put_text(text, open - at_);
    // "{{+" is an opening and a plus.
    const size_t mark = 2 + (sign == '-' || (sign == '+' && kind != '{') ? 1 : 0);
    if (kind == '#') return skip_comment(mark);
    if (kind == '%' && lex_raw(mark)) return;
    tokens_.push_back(
        {kind == '{' ? Token::Kind::kPrintBegin : Token::Kind::kBlockBegin, line_, ""});
    advance(mark);
    lex_tag(kind == '{');
  }

  // Without the white space between the line's start and its tag.
  std::string_view without_indent(std::string_view text) const {
    const size_t newline = text.rfind('\n');
    const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
    if (begin == 0 && !line_starting_) return text;
    const std::string_view indent = text.substr(begin);
    return std::all_of(indent.begin(), indent.end(), is_space) ? text.substr(0, begin) : text;
  }

  void put_text(std::string_view text, size_t taken) {
    if (!text.empty()) tokens_.push_back({Token::Kind::kText, line_, std::string(text)});
    advance(taken);
  }

  void skip_comment(size_t mark) {
    const size_t close = all_.find("#}", at_ + mark);
    if (close == std::string_view::npos) fail_here("Missing end of comment tag");
    const char before = close > at_ + mark ? all_[close - 1] : '\0';
    const char sign = before == '-' || before == '+' ? before : '\0';
    advance(close - (sign == '\0' ? 0 : 1) - at_);
    end_tag(sign, "#}", true);
  }

  // {% raw %} to {% endraw %}, where it stands at at_.
  bool lex_raw(size_t mark) {
    size_t i = at_ + mark;
    while (i < all_.size() && is_space(all_[i])) ++i;
    if (!all_.substr(i).starts_with("raw")) return false;
    i += 3;
    while (i < all_.size() && is_space(all_[i])) ++i;
    const char sign = i < all_.size() && all_[i] == '-' ? '-' : '\0';
    if (!all_.substr(i + (sign ? 1 : 0)).starts_with("%}")) return false;
    advance(i - at_);
    end_tag(sign, "%}", false);
    for (size_t open = all_.find("{%", at_); open != std::string_view::npos;
         open = all_.find("{%", open + 2)) {
      size_t j = open + 2;
      const char begin_sign =
          j < all_.size() && (all_[j] == '-' || all_[j] == '+') ? all_[j] : '\0';
      if (begin_sign) ++j;
      while (j < all_.size() && is_space(all_[j])) ++j;
      if (!all_.substr(j).starts_with("endraw")) continue;
      j += 6;
      while (j < all_.size() && is_space(all_[j])) ++j;
      const char end_sign = j < all_.size() && (all_[j] == '-' || all_[j] == '+') ? all_[j] : '\0';
      if (!all_.substr(j + (end_sign ? 1 : 0)).starts_with("%}")) continue;
      std::string_view text = all_.substr(at_, open - at_);
      if (begin_sign == '-') {
        while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
      } else if (begin_sign != '+') {
        text = without_indent(text);
      }
      put_text(text, j - at_);
      end_tag(end_sign, "%}", true);
      return true;
    }
    fail_here("Missing end of raw directive");
  }

  // Tokens inside {{ }} or {% %}, and its end.
  void lex_tag(bool is_print) {
    const std::string_view close = is_print ? "}}" : "%}";
    std::string open_brackets;  // what they wait for
    while (true) {
      skip_space();
      if (at_ >= all_.size()) return;  // the parser says what is missing
      if (open_brackets.empty()) {
        const char c = all_[at_];
        const char sign = c == '-' || (c == '+' && !is_print) ? c : '\0';
        if (all_.substr(at_ + (sign ? 1 : 0)).starts_with(close)) {
          tokens_.push_back(
              {is_print ? Token::Kind::kPrintEnd : Token::Kind::kBlockEnd, line_, ""});
          return end_tag(sign, close, !is_print);
        }
      }
      lex_one(open_brackets);
    }
  }

  void lex_one(std::string& open_brackets) {
    const char c = all_[at_];
    if (is_name_start(c)) return lex_name();
    if (is_digit(c)) return lex_number();
    if (c == '\'' || c == '"') return lex_string(c);
    for (const std::string_view op : kOperators) {
      if (!next_is(op)) continue;
      if (op == "(" || op == "[" || op == "{") {
        open_brackets += op == "(" ? ')' : op == "[" ? ']' : '}';
      } else if (op == ")" || op == "]" || op == "}") {
        if (open_brackets.empty()) fail_here(fmt::format("unexpected '{}'", op));
        if (open_brackets.back() != op[0]) {
          fail_here(fmt::format("unexpected '{}', expected '{}'", op, open_brackets.back()));
        }
        open_brackets.pop_back();
      } else if (op == ";" || op == "@" || op == "!") {
        break;
      }
      tokens_.push_back({Token::Kind::kOperator, line_, std::string(op)});
      return advance(op.size());
    }
    size_t end = at_;
    next_char(all_, end);
    fail_here(fmt::format("unexpected char '{}'", all_.substr(at_, end - at_)));
  }

  void lex_name() {
    size_t end = at_;
    while (end < all_.size() && (is_name_start(all_[end]) || is_digit(all_[end]))) ++end;
    tokens_.push_back({Token::Kind::kName, line_, std::string(all_.substr(at_, end - at_))});
    advance(end - at_);
  }

  // Digits of a base with single underscores between them.
  std::string take_digits(size_t& i, int base) const {
    std::string digits;
    const auto value_of = [&](char c) {
      if (is_digit(c)) return c - '0';
      const char low = static_cast<char>(c | 0x20);
      return low >= 'a' && low <= 'f' ? low - 'a' + 10 : 99;
    };
    while (i < all_.size()) {
      if (value_of(all_[i]) < base) {
        digits += all_[i++];
      } else if (all_[i] == '_' && !digits.empty() && i + 1 < all_.size() &&
                 value_of(all_[i + 1]) < base) {
        ++i;
      } else {
        break;
      }
    }
    return digits;
  }

  void lex_number() {
    size_t i = at_;
    const char kind = i + 1 < all_.size() ? static_cast<char>(all_[i + 1] | 0x20) : '\0';
    if (all_[i] == '0' && (kind == 'x' || kind == 'o' || kind == 'b')) {
      const int base = kind == 'x' ? 16 : kind == 'o' ? 8 : 2;
      i += 2;
      const std::string digits = take_digits(i, base);
      uint64_t value = 0;
      const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
      if (digits.empty() || read.ec != std::errc()) fail_here("a number that is not one");
      return put_number(Token::Kind::kInt, Value(static_cast<Int>(value)), i);
    }
    const std::string whole = take_digits(i, 10);
    std::string text = whole;
    bool is_float = false;
    if (i + 1 < all_.size() && all_[i] == '.' && is_digit(all_[i + 1])) {
      ++i;
      text += "." + take_digits(i, 10);
      is_float = true;
    }
    if (i < all_.size() && (all_[i] | 0x20) == 'e') {
      size_t j = i + 1;
      std::string sign;
      if (j < all_.size() && (all_[j] == '+' || all_[j] == '-')) sign = all_[j++];
      const std::string exponent = take_digits(j, 10);
      if (!exponent.empty()) {
        text += "e" + sign + exponent;
        i = j;
        is_float = true;
      }
    }
    if (!is_float) {
      const std::optional<Int> value = parse_int(whole);
      if (!value) fail_here("an integer over 127 bits");
      return put_number(Token::Kind::kInt, Value(*value), i);
    }
    double value = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
    if (read.ec != std::errc()) fail_here("a float out of range");
    put_number(Token::Kind::kFloat, Value(value), i);
  }

  void put_number(Token::Kind kind, Value value, size_t end) {
    tokens_.push_back({kind, line_, std::string(all_.substr(at_, end - at_)), std::move(value)});
    advance(end - at_);
  }

  void lex_string(char quote) {
    size_t end = at_ + 1;
    while (end < all_.size() && all_[end] != quote) end += all_[end] == '\\' ? 2 : 1;
    if (end >= all_.size()) fail_here(fmt::format("unexpected char \"{}\"", quote));
    const std::string_view inside = all_.substr(at_ + 1, end - at_ - 1);
    tokens_.push_back({Token::Kind::kString, line_, unescape(inside)});
    advance(end + 1 - at_);
  }

  // Python's escapes of string literals. Unknown ones stay as they are.
  std::string unescape(std::string_view in) const {
    std::string out;
    for (size_t i = 0; i < in.size(); ++i) {
      if (in[i] != '\\' || i + 1 >= in.size()) {
        out += in[i];
        continue;
      }
      const char c = in[++i];
      static constexpr std::string_view kFrom = "abfnrtv\\'\"";
      static constexpr std::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
      if (const size_t k = kFrom.find(c); k != std::string_view::npos) {
        out += kTo[k];
      } else if (c == '\n') {
        continue;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t size = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        append_code_point(out, in.substr(i + 1, size), size, 16);
        i += size;
      } else if (c >= '0' && c <= '7') {
        size_t size = 1;
        while (size < 3 && i + size < in.size() && in[i + size] >= '0' && in[i + size] <= '7') {
          ++size;
        }
        append_code_point(out, in.substr(i, size), size, 8);
        i += size - 1;
      } else if (c == 'N') {
        fail_here("the string escape \\N is not supported");
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  void append_code_point(std::string& out, std::string_view digits, size_t size, int base) const {
    uint32_t value = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (digits.size() != size || read.ec != std::errc() ||
        read.ptr != digits.data() + digits.size() || value > 0x10FFFF ||
        (value >= 0xD800 && value < 0xE000)) {
      fail_here("a string escape that is no character");
    }
    append_utf8(out, value);
  }

  std::string source_;
  std::string_view all_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace braid::text::jinja
