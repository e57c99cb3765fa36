#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace braid::text {

// Whose rules a pattern was written for.
enum class RegexFlavour {
  kOniguruma,  // tokenizer.json: ^ and $ match at lines, nested classes are unions
  kRust,       // tiktoken: ^ and $ match at the ends of the text
};

// Rewrites a pattern into one that means the same to PCRE2 10.42 in UTF and UCP mode:
//   \s \w \b   hold other characters there (U+180E; marks and connectors)
//   [a&&[^b]]  class intersections and nested classes become lookaheads
//   \p{Han}    includes characters that other scripts share with it there
//   {,n} \v    are read differently there
// Whatever is not known to mean the same is refused, so a pattern never splits text in its own way.
//
// Errors  kUnsupported (the construct and its byte offset)  kCorrupt (unbalanced brackets)
Result<std::string> to_pcre2(std::string_view pattern, RegexFlavour flavour);

}  // namespace braid::text
