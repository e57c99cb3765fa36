#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace braid::text {

// A text that remembers which of its bytes came from outside (a message of a request) and which
// were written by the model's chat template. Only the latter may become control tokens: a user who
// types "<|im_end|>" has written ten characters.
class MarkedText {
 public:
  MarkedText() = default;

  MarkedText(std::string_view text, bool from_input) { append(text, from_input); }

  void append(std::string_view text, bool from_input);
  void append(const MarkedText& other);
  // Bytes [begin, end) of another text, which need not be whole characters.
  void append(const MarkedText& other, size_t begin, size_t end);

  const std::string& text() const { return text_; }
  size_t size() const { return text_.size(); }

  bool empty() const { return text_.empty(); }
  bool has_input() const { return !input_.empty(); }

  // Whether any byte of [begin, end) came from outside.
  bool has_input(size_t begin, size_t end) const;

  // The bytes that came from outside: sorted, not empty, not touching.
  const std::vector<Range>& input() const { return input_; }

 private:
  // The first range of input that ends behind a byte.
  std::vector<Range>::const_iterator first_behind(size_t at) const;

  std::string text_;
  std::vector<Range> input_;
};

}  // namespace braid::text
