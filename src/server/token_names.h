#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "server/backend.h"

namespace braid::server {

// Tokens as clients see them in log probabilities. Remembers what it looked up.
class TokenNames {
 public:
  explicit TokenNames(const TextModel& model) : model_(model) {}

  struct Name {
    std::string text;   // UTF-8: a token that is part of a character reads as U+FFFD
    std::string bytes;  // as they are
  };
  const Name& of(int32_t token);

 private:
  const TextModel& model_;
  std::unordered_map<int32_t, Name> names_;
};

// Code points of a UTF-8 text, which is what Python counts.
int64_t count_characters(std::string_view utf8);

}  // namespace braid::server
