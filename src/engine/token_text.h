#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace braid {

// The text side of one reply: tokens in, whole UTF-8 characters out.
class TokenText {
 public:
  virtual ~TokenText() = default;

  // Text that the token completes; may be empty.
  virtual std::string push(int32_t token) = 0;

  // What an unfinished character at the end turns into.
  virtual std::string flush() = 0;
};

// Makes the text side of a new reply, with or without its control tokens, from any thread. Empty
// where the model has no tokenizer.
using TokenTextFactory = std::function<std::unique_ptr<TokenText>(bool skips_special_tokens)>;

}  // namespace braid
