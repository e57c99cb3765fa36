#include "grammar/regex_syntax.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "text/utf8.h"

namespace braid::grammar {
namespace {

constexpr char32_t kNoCharacter = 0xFFFFFFFF;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// \d \w \s and their complements; empty for another letter.
std::optional<CodePointSet> shorthand(char letter) {
  switch (letter) {
    case 'd':
      return CodePointSet({{'0', '9'}});
    case 'w':
      return CodePointSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
    case 's':
      return CodePointSet({{'\t', '\r'}, {' ', ' '}});  // \t \n \v \f \r and the blank
    case 'D':
      return shorthand('d')->complement();
    case 'W':
      return shorthand('w')->complement();
    case 'S':
      return shorthand('s')->complement();
    default:
      return std::nullopt;
  }
}

// What a letter or digit behind a backslash means elsewhere and cannot mean here.
std::string_view foreign_escape(char c) {
  if (is_digit(c)) return "a backreference";
  switch (c) {
    case 'b':
    case 'B':
      return "a word boundary";
    case 'A':
    case 'z':
    case 'Z':
    case 'G':
      return "an anchor; the whole text is matched anyway";
    case 'p':
    case 'P':
      return "a Unicode property";
    case 'k':
    case 'g':
      return "a reference to a group";
    case 'Q':
    case 'E':
      return "a quotation";
    default:
      return "not an escape known here";
  }
}

class Parser {
 public:
  Parser(std::string_view text, const RegexLimits& limits) : text_(text), limits_(limits) {}

  Result<Regex> parse() {
    Regex regex;
    do {
      Regex::Branch branch;
      branch.has_begin_anchor = take('^');
      auto node = concat(0);
      if (!node) return pass_on(node);
      branch.node = std::move(*node);
      branch.has_end_anchor = take('$');
      if (!is_at_end() && peek() != '|') return unexpected(0);
      regex.branches.push_back(std::move(branch));
    } while (take('|'));
    return regex;
  }

 private:
  bool is_at_end() const { return at_ >= text_.size(); }
  char peek() const { return text_[at_]; }
  bool starts_with(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(char c) {
    if (is_at_end() || peek() != c) return false;
    ++at_;
    return true;
  }

  template <class... Args>
  tl::unexpected<Error> wrong(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kInvalidArgument, "{} at byte {}",
                fmt::format(format, std::forward<Args>(args)...), at_);
  }
  template <class... Args>
  tl::unexpected<Error> unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kUnsupported, "{} at byte {} is not supported",
                fmt::format(format, std::forward<Args>(args)...), at_);
  }

  // Why concat() stopped where the caller wants something else.
  tl::unexpected<Error> unexpected(int depth) const {
    if (is_at_end()) return wrong("a group is not closed");
    if (peek() == ')' && depth == 0) return wrong("\")\" without \"(\"");
    return unsupported("the anchor \"{}\" inside of an expression", peek());
  }

  Result<RegexNode> alternatives(int depth) {
    if (depth > limits_.max_depth)
      return wrong("groups are nested deeper than {} levels", limits_.max_depth);
    RegexNode node = {.kind = RegexNode::Kind::kAlternate};
    do {
      auto part = concat(depth);
      if (!part) return pass_on(part);
      node.parts.push_back(std::move(*part));
    } while (take('|'));
    if (node.parts.size() == 1) {
      RegexNode only = std::move(node.parts.front());
      return only;
    }
    return node;
  }

  // Up to an alternative's end, or an anchor.
  Result<RegexNode> concat(int depth) {
    RegexNode node = {.kind = RegexNode::Kind::kConcat};
    while (!is_at_end() && peek() != '|' && peek() != ')' && peek() != '^' && peek() != '$') {
      auto part = atom(depth);
      if (!part) return pass_on(part);
      if (auto status = quantifiers(*part); !status) return pass_on(status);
      node.parts.push_back(std::move(*part));
    }
    return node;
  }

  Result<RegexNode> atom(int depth) {
    switch (peek()) {
      case '(':
        return group(depth);
      case '[':
        return in_characters(char_class());
      case '.':
        ++at_;
        return in_characters(CodePointSet({{'\n', '\n'}}).complement());
      case '*':
      case '+':
      case '?':
        return wrong("quantifier \"{}\" without anything before it", peek());
      case '{':
        return wrong("\"{{\" without anything to repeat before it; a literal one is written \\{{");
      case '\\': {
        CodePointSet set;
        const auto one = escape(set);
        if (!one) return tl::unexpected<Error>(one.error());
        return in_characters(*one == kNoCharacter ? set : CodePointSet({{*one, *one}}));
      }
      default: {
        const char32_t c = text::next_char(text_, at_);
        return in_characters(CodePointSet({{c, c}}));
      }
    }
  }

  static Result<RegexNode> in_characters(Result<CodePointSet> set) {
    if (!set) return pass_on(set);
    return RegexNode{.kind = RegexNode::Kind::kCharacters, .set = std::move(*set)};
  }

  Result<RegexNode> group(int depth) {
    if (starts_with("(?")) {
      if (starts_with("(?=") || starts_with("(?!")) return unsupported("lookahead");
      if (starts_with("(?<=") || starts_with("(?<!")) return unsupported("lookbehind");
      if (starts_with("(?>")) return unsupported("an atomic group");
      if (starts_with("(?P") || starts_with("(?<")) return unsupported("a named group");
      if (!starts_with("(?:")) return unsupported("the group \"{}\"", text_.substr(at_, 3));
      at_ += 3;
    } else {
      ++at_;
    }
    auto node = alternatives(depth + 1);
    if (!node) return pass_on(node);
    if (!take(')')) return unexpected(depth + 1);
    return node;
  }

  // "*", "+", "?", "{m}", "{m,}", "{m,n}" and a "?" behind them, which asks for the shorter of
  // several matches: which texts match at all does not change.
  Status quantifiers(RegexNode& node) {
    bool is_repeated = false;
    while (!is_at_end()) {
      int32_t min = 0, max = -1;
      if (peek() == '*' || peek() == '+' || peek() == '?') {
        min = peek() == '+' ? 1 : 0;
        max = peek() == '?' ? 1 : -1;
      } else if (peek() != '{') {
        return {};
      }
      if (is_repeated) return wrong("a second quantifier; put the first one into a group");
      if (peek() == '{') {
        if (auto status = counts(min, max); !status) return status;
      } else {
        ++at_;
      }
      take('?');
      if (!is_at_end() && peek() == '+') return unsupported("a possessive quantifier");
      RegexNode repeat = {.kind = RegexNode::Kind::kRepeat, .min = min, .max = max};
      repeat.parts.push_back(std::move(node));
      node = std::move(repeat);
      is_repeated = true;
    }
    return {};
  }

  Status counts(int32_t& min, int32_t& max) {
    const size_t begin = at_++;
    const auto number = [&]() -> std::optional<int32_t> {
      if (is_at_end() || !is_digit(peek())) return std::nullopt;
      int64_t value = 0;
      while (!is_at_end() && is_digit(peek()))
        value = std::min<int64_t>(value * 10 + (text_[at_++] - '0'), limits_.max_repeats + 1);
      return static_cast<int32_t>(value);
    };
    const auto low = number();
    std::optional<int32_t> high = low;
    const bool has_comma = take(',');
    if (has_comma) high = number();
    if (!low || !take('}')) {
      at_ = begin;
      return wrong("\"{{\" begins no {{m}}, {{m,}} or {{m,n}}; a literal one is written \\{{");
    }
    if (*low > limits_.max_repeats || (high && *high > limits_.max_repeats)) {
      at_ = begin;
      return wrong("a repetition count is above {}", limits_.max_repeats);
    }
    if (high && *high < *low) {
      at_ = begin;
      return wrong("{{{},{}}} has its bounds the wrong way round", *low, *high);
    }
    min = *low;
    max = high.value_or(-1);
    return {};
  }

  // One escape. A set goes to `set`, and kNoCharacter is returned.
  Result<char32_t> escape(CodePointSet& set) {
    if (at_ + 1 >= text_.size()) return wrong("a backslash without anything behind it");
    const char c = text_[at_ + 1];
    if (auto named = shorthand(c)) {
      at_ += 2;
      set = std::move(*named);
      return kNoCharacter;
    }
    constexpr std::string_view kLetters = "tnrfv";
    constexpr std::string_view kMeanings = "\t\n\r\f\v";
    if (const size_t i = kLetters.find(c); i != kLetters.npos) {
      at_ += 2;
      return static_cast<char32_t>(kMeanings[i]);
    }
    if (c == 'x' || c == 'u') return hex_escape(c == 'x' ? 2 : 4);
    if (is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
      return unsupported("\"\\{}\", {},", c, foreign_escape(c));
    ++at_;
    return text::next_char(text_, at_);
  }

  // \xHH, \uHHHH, \u{H...}
  Result<char32_t> hex_escape(size_t num_digits) {
    size_t from = at_ + 2;
    size_t end = from + num_digits;
    const bool has_braces = from < text_.size() && text_[from] == '{';
    if (has_braces) {
      end = text_.find('}', ++from);
      if (end == text_.npos || end == from || end - from > 6)
        return wrong("\"\\{}{{\" needs 1 to 6 hexadecimal digits and \"}}\"", text_[at_ + 1]);
    }
    char32_t value = 0;
    for (size_t i = from; i < end; ++i) {
      const int digit = i < text_.size() ? hex_value(text_[i]) : -1;
      if (digit < 0)
        return wrong("\"\\{}\" needs {} hexadecimal digits", text_[at_ + 1], end - from);
      value = value * 16 + static_cast<char32_t>(digit);
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
      return wrong("U+{:04X} is no Unicode character", static_cast<uint32_t>(value));
    at_ = end + (has_braces ? 1 : 0);
    return value;
  }

  // [...]
  Result<CodePointSet> char_class() {
    const size_t begin = at_++;
    const bool is_negated = take('^');
    std::vector<CodePointRange> ranges;
    for (bool is_first = true;; is_first = false) {
      if (is_at_end()) {
        at_ = begin;
        return wrong("a class is not closed");
      }
      if (peek() == ']') {
        if (is_first) return wrong("a class is empty; a literal \"]\" is written \\]");
        ++at_;
        break;
      }
      if (starts_with("[:") || starts_with("[.") || starts_with("[="))
        return unsupported("a POSIX class");
      CodePointSet set;
      const auto first = class_member(set);
      if (!first) return tl::unexpected<Error>(first.error());
      if (*first == kNoCharacter) {
        ranges.insert(ranges.end(), set.ranges().begin(), set.ranges().end());
        continue;
      }
      char32_t last = *first;
      if (at_ + 1 < text_.size() && peek() == '-' && text_[at_ + 1] != ']') {
        ++at_;
        const auto other = class_member(set);
        if (!other) return tl::unexpected<Error>(other.error());
        if (*other == kNoCharacter || *other < last)
          return wrong("a range in a class does not rise from one character to another");
        last = *other;
      }
      ranges.push_back({*first, last});
    }
    CodePointSet set(std::move(ranges));
    return is_negated ? set.complement() : set;
  }

  Result<char32_t> class_member(CodePointSet& set) {
    if (is_at_end()) return wrong("a class is not closed");
    if (peek() != '\\') return text::next_char(text_, at_);
    // Inside a class \b is the backspace.
    if (starts_with("\\b")) {
      at_ += 2;
      return U'\b';
    }
    return escape(set);
  }

  std::string_view text_;
  const RegexLimits& limits_;
  size_t at_ = 0;
};

}  // namespace

Result<Regex> parse_regex(std::string_view text, const RegexLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return fail(ErrorCode::kInvalidArgument, "it has {} bytes, accepted are up to {}", text.size(),
                limits.max_bytes);
  }
  if (const size_t broken = text::find_broken_utf8(text); broken != text.npos)
    return fail(ErrorCode::kInvalidArgument, "it is not well-formed UTF-8 at byte {}", broken);
  return Parser(text, limits).parse();
}

}  // namespace braid::grammar
