#include "text/regex_syntax.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <cctype>
#include <vector>

#include "base/result.h"

namespace braid::text {
namespace {

// Insides of character classes. White space is Unicode's White_Space property.
constexpr std::string_view kSpace =
    R"(\t-\r\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{E}-\x{1F}\x{21}-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027})"
    R"(\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";
// Alphabetic, marks, decimal digits, connectors. The ranges are the alphabetic symbols (So).
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";

constexpr int kMaxDepth = 32;  // of nested classes

bool is_script(std::string_view name) {
  const std::string pattern = fmt::format("\\p{{sc:{}}}", name);
  int error = 0;
  PCRE2_SIZE error_at = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF, &error, &error_at, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

class Rewriter {
 public:
  Rewriter(std::string_view pattern, RegexFlavour flavour) : pattern_(pattern), flavour_(flavour) {}

  Result<std::string> run() {
    while (at_ < pattern_.size()) {
      if (Status status = rewrite_one(); !status) return pass_on(status);
    }
    return std::move(out_);
  }

 private:
  // A class as one PCRE2 expression that matches exactly one character.
  struct Class {
    std::string expression;
  };

  char peek(size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  bool starts_with(std::string_view what) const { return pattern_.substr(at_).starts_with(what); }

  tl::unexpected<Error> refuse(std::string_view what, size_t at) const {
    return fail(ErrorCode::kUnsupported, "regex \"{}\" has {} at byte {}, which is not supported",
                pattern_.substr(0, 200), what, at);
  }
  tl::unexpected<Error> broken(std::string_view what) const {
    return fail(ErrorCode::kCorrupt, "regex \"{}\" {}", pattern_.substr(0, 200), what);
  }

  Status rewrite_one() {
    switch (peek()) {
      case '\\':
        return rewrite_escape();
      case '[': {
        Result<Class> parsed = parse_class(0);
        if (!parsed) return pass_on(parsed);
        out_ += parsed->expression;
        return {};
      }
      case '(':
        return rewrite_group();
      case '{':
        return rewrite_interval();
      case '$':
        ++at_;
        out_ += flavour_ == RegexFlavour::kRust ? R"(\z)" : R"((?m:$))";
        return {};
      case '^':
        ++at_;
        out_ += flavour_ == RegexFlavour::kRust ? R"(\A)" : R"((?m:^))";
        return {};
      default:
        out_ += pattern_[at_++];
        return {};
    }
  }

  Status rewrite_group() {
    static constexpr std::string_view kOpenings[] = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?i:", "(?-i:", "(?i)"};
    for (const std::string_view opening : kOpenings) {
      if (!starts_with(opening)) continue;
      out_ += opening;
      at_ += opening.size();
      return {};
    }
    if (starts_with("(?>") && flavour_ == RegexFlavour::kOniguruma) {
      out_ += "(?>";
      at_ += 3;
      return {};
    }
    if (peek(1) == '?' || peek(1) == '*') {
      return refuse(fmt::format("the group \"{}\"", pattern_.substr(at_, 4)), at_);
    }
    out_ += "(?:";  // nothing reads what it captures
    ++at_;
    return {};
  }

  // {n} {n,} {n,m} {,m}; anything else in braces is text.
  Status rewrite_interval() {
    size_t i = at_ + 1;
    const auto digits = [&] {
      const size_t from = i;
      while (i < pattern_.size() && std::isdigit(static_cast<unsigned char>(pattern_[i]))) ++i;
      return pattern_.substr(from, i - from);
    };
    const std::string_view low = digits();
    const bool comma = i < pattern_.size() && pattern_[i] == ',';
    if (comma) ++i;
    const std::string_view high = comma ? digits() : low;
    const bool closed = i < pattern_.size() && pattern_[i] == '}';
    if (!closed || (low.empty() && high.empty())) {
      out_ += R"(\{)";
      ++at_;
      return {};
    }
    if (low.size() > 4 || high.size() > 4) return refuse("a repeat count over 9999", at_);
    if (low.empty() && flavour_ == RegexFlavour::kRust) return refuse("{,n}", at_);
    ++i;
    if (i < pattern_.size() && pattern_[i] == '+') {
      return refuse("\"+\" after a counted repeat (engines disagree on its meaning)", i);
    }
    out_ += fmt::format("{{{}{}}}", low.empty() ? "0" : low,
                        comma ? "," + std::string(high) : std::string());
    at_ = i;
    return {};
  }

  // An escape that means one fixed character, appended in PCRE2's spelling. False: another kind.
  Result<bool> rewrite_char_escape(std::string& out) {
    const char c = peek(1);
    switch (c) {
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        out += '\\';
        out += c;
        at_ += 2;
        return true;
      case 'v':
        out += R"(\x0B)";  // a class of line ends in PCRE2
        at_ += 2;
        return true;
      case 'x':
      case 'u':
        return rewrite_hex_escape(out);
      default:
        break;
    }
    const auto byte = static_cast<unsigned char>(c);
    if (c != '\0' && byte < 0x80 && !std::isalnum(byte)) {
      out += '\\';
      out += c;
      at_ += 2;
      return true;
    }
    return false;
  }

  // \xHH, \x{H...}, \uHHHH
  Result<bool> rewrite_hex_escape(std::string& out) {
    const size_t from = at_;
    const bool braces = peek(2) == '{';
    size_t i = at_ + (braces ? 3 : 2);
    const size_t most = braces ? 8 : pattern_[at_ + 1] == 'u' ? 4 : 2;
    std::string hex;
    while (i < pattern_.size() && hex.size() < most &&
           std::isxdigit(static_cast<unsigned char>(pattern_[i]))) {
      hex += pattern_[i++];
    }
    const bool complete =
        braces ? !hex.empty() && i < pattern_.size() && pattern_[i] == '}' : hex.size() == most;
    if (!complete) return refuse("an unfinished hexadecimal escape", from);
    at_ = braces ? i + 1 : i;
    const unsigned long value = std::stoul(hex, nullptr, 16);
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      return refuse("an escape of no character", from);
    }
    out += fmt::format("\\x{{{:X}}}", value);
    return true;
  }

  // \p{..} and \P{..}. PCRE2 checks the name, and takes that of a script for the characters that
  // are used in it, not only those that belong to it, unless told so.
  Result<bool> rewrite_property(std::string& out) {
    if (peek(1) != 'p' && peek(1) != 'P') return false;
    const size_t close = peek(2) == '{' ? pattern_.find('}', at_) : std::string_view::npos;
    if (peek(2) != '{') {
      if (!std::isalpha(static_cast<unsigned char>(peek(2)))) {
        return refuse("an unfinished property", at_);
      }
      out += pattern_.substr(at_, 3);
      at_ += 3;
      return true;
    }
    if (close == std::string_view::npos || close - at_ > 64) {
      return refuse("an unfinished property", at_);
    }
    const std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    for (const char c : name) {
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '^') {
        return refuse(fmt::format("the property \"{}\"", name), at_);
      }
    }
    const std::string_view script = name.starts_with('^') ? name.substr(1) : name;
    if (is_script(script)) {
      const bool negated = (pattern_[at_ + 1] == 'P') != name.starts_with('^');
      out += fmt::format("\\{}{{sc:{}}}", negated ? 'P' : 'p', script);
    } else {
      out += pattern_.substr(at_, close + 1 - at_);
    }
    at_ = close + 1;
    return true;
  }

  Status rewrite_escape() {
    if (at_ + 1 >= pattern_.size()) return broken("ends in a backslash");
    const char c = peek(1);
    switch (c) {
      case 's':
        out_ += fmt::format("[{}]", kSpace);
        break;
      case 'S':
        out_ += fmt::format("[^{}]", kSpace);
        break;
      case 'w':
        out_ += fmt::format("[{}]", kWord);
        break;
      case 'W':
        out_ += fmt::format("[^{}]", kWord);
        break;
      case 'd':
        out_ += R"(\p{Nd})";
        break;
      case 'D':
        out_ += R"(\P{Nd})";
        break;
      case 'b':
        out_ += fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", kWord);
        break;
      case 'A':
      case 'z':
        out_ += pattern_.substr(at_, 2);
        break;
      default: {
        Result<bool> done = rewrite_property(out_);
        if (done && !*done) done = rewrite_char_escape(out_);
        if (!done) return pass_on(done);
        if (!*done) return refuse(fmt::format("the escape \"\\{}\"", c), at_);
        return {};
      }
    }
    at_ += 2;
    return {};
  }

  // One operand of && : a plain class, and the nested classes it is a union with.
  struct Operand {
    std::string items;
    std::vector<std::string> nested;

    std::string expression() const {
      if (nested.empty()) return fmt::format("[{}]", items);
      std::string all = "(?:";
      if (!items.empty()) all += fmt::format("[{}]|", items);
      for (const std::string& one : nested) all += one + "|";
      all.back() = ')';
      return all;
    }
    bool empty() const { return items.empty() && nested.empty(); }
  };

  Result<Class> parse_class(int depth) {
    if (depth > kMaxDepth) return refuse("classes nested this deep", at_);
    const size_t from = at_++;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    std::vector<Operand> operands(1);
    for (bool first = true;; first = false) {
      if (at_ >= pattern_.size()) return broken("has a character class that is not closed");
      const char c = peek();
      if (c == ']' && !first) break;
      if (starts_with("[:")) return refuse("a POSIX class", at_);
      if (c == '[') {
        Result<Class> nested = parse_class(depth + 1);
        if (!nested) return pass_on(nested);
        operands.back().nested.push_back(std::move(nested->expression));
      } else if (starts_with("&&")) {
        at_ += 2;
        operands.emplace_back();
      } else if (starts_with("--") || starts_with("~~")) {
        if (flavour_ == RegexFlavour::kRust) return refuse("a class difference", at_);
        operands.back().items += R"(\)";
        operands.back().items += pattern_[at_++];
      } else if (Status status = class_item(operands.back().items); !status) {
        return pass_on(status);
      }
    }
    ++at_;
    return join(operands, negated, from);
  }

  Status class_item(std::string& items) {
    if (peek() != '\\') {
      items += pattern_[at_++];
      return {};
    }
    if (at_ + 1 >= pattern_.size()) return broken("ends in a backslash");
    const char c = peek(1);
    std::string_view set;
    switch (c) {
      case 's':
        set = kSpace;
        break;
      case 'S':
        set = kNotSpace;
        break;
      case 'w':
        set = kWord;
        break;
      case 'd':
        set = R"(\p{Nd})";
        break;
      case 'D':
        set = R"(\P{Nd})";
        break;
      default:
        break;
    }
    if (!set.empty()) {
      items += set;
      at_ += 2;
      return {};
    }
    Result<bool> done = rewrite_property(items);
    if (done && !*done) done = rewrite_char_escape(items);
    if (!done) return pass_on(done);
    if (!*done) return refuse(fmt::format("the escape \"\\{}\" in a class", c), at_);
    return {};
  }

  Result<Class> join(const std::vector<Operand>& operands, bool negated, size_t from) const {
    for (const Operand& operand : operands) {
      if (operand.empty()) return refuse("an empty character class", from);
    }
    if (operands.size() == 1 && operands[0].nested.empty()) {
      return Class{fmt::format("[{}{}]", negated ? "^" : "", operands[0].items)};
    }
    // All operands look at the same character; the last one takes it.
    std::string all = "(?:";
    for (size_t i = 0; i + 1 < operands.size(); ++i) {
      all += fmt::format("(?={})", operands[i].expression());
    }
    all += operands.back().expression() + ")";
    if (negated) all = fmt::format(R"((?:(?!{})[\x{{0}}-\x{{10FFFF}}]))", all);
    return Class{std::move(all)};
  }

  std::string_view pattern_;
  RegexFlavour flavour_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

Result<std::string> to_pcre2(std::string_view pattern, RegexFlavour flavour) {
  return Rewriter(pattern, flavour).run();
}

}  // namespace braid::text
