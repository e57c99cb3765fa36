#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "text/regex.h"

namespace braid::text {

// What becomes of the matches of a Split, as HF tokenizers names it.
enum class SplitBehaviour {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

// Cuts a text into the words that byte-pair encoding works on: a chain of regular expressions,
// each applied to the words the one before it left.
//
// Source: pre_tokenizers of HF tokenizers 0.21.
class PreTokenizer {
 public:
  // From "pre_tokenizer" of a tokenizer.json: Split, Digits, Punctuation, Sequence, and at the
  // end ByteLevel.
  //
  // Errors  kUnsupported (another kind, or no ByteLevel at the end)  kCorrupt
  static Result<PreTokenizer> from_json(const Json& json);

  // What tiktoken does: the matches of one pattern are the words.
  static Result<PreTokenizer> from_tiktoken_pattern(std::string_view pattern);

  // Calls nothing but `words`: appends the words of well-formed `text`, views of it or of
  // `storage`. None is empty.
  //
  // Errors  kResourceExhausted
  Status split(std::string_view text, std::vector<std::string_view>& words,
               std::vector<std::string>& storage) const;

 private:
  struct Step {
    Regex regex;
    SplitBehaviour behaviour;
    bool invert;
  };

  PreTokenizer() = default;
  Status add(const Json& json, int depth);
  Status add_step(std::string_view pattern, RegexFlavour flavour, SplitBehaviour behaviour,
                  bool invert = false);
  Status add_split(const Json& json);
  Status add_byte_level(const Json& json);

  std::vector<Step> steps_;
  // Steps from here on see words that add_prefix_space has put a space in front of.
  std::optional<size_t> prefix_space_before_step_;
  bool has_byte_level_ = false;
};

}  // namespace braid::text
