#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace braid::text {

struct DetokenizerOptions {
  bool skip_special_tokens = true;
};

// Tokens of one sequence to text, as they come: whole characters only. All pieces joined are what
// Tokenizer::decode gives for the whole sequence, bytes that are no UTF-8 as U+FFFD included.
class Detokenizer {
 public:
  // Shares the tokenizer: a reply can outlive the model that wrote it.
  explicit Detokenizer(std::shared_ptr<const Tokenizer> tokenizer, DetokenizerOptions options = {});

  // The text that this token completes; may be empty.
  std::string push(int32_t token);

  // The end of the sequence: U+FFFD for a character that was begun. The next push starts anew.
  std::string flush();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  DetokenizerOptions options_;
  std::string pending_;  // at most 3 bytes: the begin of a character
};

}  // namespace braid::text
