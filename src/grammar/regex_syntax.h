#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/code_points.h"

namespace braid::grammar {

struct RegexNode {
  enum class Kind { kEmpty, kCharacters, kConcat, kAlternate, kRepeat };
  Kind kind = Kind::kEmpty;
  CodePointSet set;              // of kCharacters: one of these
  std::vector<RegexNode> parts;  // of kConcat, kAlternate; of kRepeat one
  int32_t min = 0;               // of kRepeat
  int32_t max = -1;              // of kRepeat; -1: without end
};

// An expression by its outermost alternatives, which alone may have anchors.
struct Regex {
  struct Branch {
    RegexNode node;
    bool has_begin_anchor = false;  // ^
    bool has_end_anchor = false;    // $
  };
  std::vector<Branch> branches;
};

struct RegexLimits {
  size_t max_bytes = 16 << 10;
  int32_t max_depth = 100;      // groups inside each other
  int32_t max_repeats = 10000;  // of {m,n}
};

// Reads the part of the usual syntax that says which texts are meant: characters and escapes, ".",
// classes, groups, alternatives, quantifiers. docs/structured-output.md has the list.
//
// Errors  kUnsupported      another construct of regular expressions, by name and place
//         kInvalidArgument  not well-formed; a limit is exceeded
Result<Regex> parse_regex(std::string_view text, const RegexLimits& limits = {});

}  // namespace braid::grammar
