#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace braid {

// Looks for stop strings in text that arrives in pieces, and holds back what may become one. The
// string whose last byte comes first wins, the longest of those that end together. So the result
// does not depend on how the text was cut into pieces.
class StopMatcher {
 public:
  // Strings are not empty, start at a character and outlive the matcher.
  explicit StopMatcher(std::span<const std::string> stops);

  struct Found {
    std::string text;                  // to hand out now
    std::optional<size_t> stop_index;  // the stop string found: nothing comes after `text`
  };

  // Takes the next piece. A stop string that ends inside a piece with may_stop = false is text like
  // any other.
  Found push(std::string_view piece, bool may_stop);

  // What is still held back, at the end of a reply that no stop string ended.
  std::string flush();

 private:
  struct Pattern {
    std::string_view text;
    std::vector<int32_t> failure;  // [text.size()], Knuth-Morris-Pratt
    int32_t num_matched = 0;       // bytes of text that the input ends with
  };

  std::vector<Pattern> patterns_;
  std::string held_;
};

}  // namespace braid
