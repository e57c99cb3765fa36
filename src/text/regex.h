#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/regex_syntax.h"

namespace braid::text {

// Bytes [begin, end) of a text.
struct Range {
  size_t begin;
  size_t end;
};

// A compiled regular expression, meaning what it means to the engine of its flavour. Const members
// may be called from any thread.
class Regex {
 public:
  static constexpr size_t kMaxPatternBytes = 64 << 10;

  // Errors  kUnsupported  kCorrupt  kInvalidArgument (longer than kMaxPatternBytes)
  static Result<Regex> compile(std::string_view pattern, RegexFlavour flavour);

  // A pattern that matches `text` and nothing else.
  static Result<Regex> literal(std::string_view text);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Appends all matches in well-formed UTF-8, left to right, without overlap; an empty match
  // directly behind another match does not count.
  //
  // Errors  kResourceExhausted (the pattern takes too many steps or too much memory on this text)
  Status find_all(std::string_view text, std::vector<Range>& matches) const;

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace braid::text
