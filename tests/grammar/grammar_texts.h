#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/compile.h"
#include "grammar/grammar.h"

namespace braid::test {

// Every byte is a token, then these; the last token stands for no text.
std::shared_ptr<const grammar::Vocabulary> byte_vocabulary(
    const std::vector<std::string>& longer_tokens = {});

// Bytes, and a few hundred tokens as they occur in vocabularies: words with a blank, brackets and
// quotes together, digits, blanks, pieces of characters.
std::shared_ptr<const grammar::Vocabulary> small_vocabulary();

// The message of what was refused, empty when it was accepted.
template <class T>
std::string refusal(const Result<T>& result) {
  return result ? "" : result.error().message;
}

// Whether the grammar allows exactly this text. The text is read byte by byte.
bool accepts(const grammar::CompiledGrammar& grammar, std::string_view text);

struct RandomText {
  std::string text;
  bool is_whole = false;  // false: cut at max_tokens
  std::vector<int32_t> tokens;
};

// Draws tokens that the masks allow, all alike, until the text is over, or with probability
// `end_share` wherever it may end. Throws where no token is allowed.
RandomText random_text(const std::shared_ptr<grammar::Grammar>& grammar, uint64_t seed,
                       int32_t max_tokens, double end_share = 0.3);

// Empty when the mask allows those tokens that leave a text which can be finished, by bytes.
std::string why_mask_is_wrong(const std::shared_ptr<grammar::Grammar>& grammar,
                              const std::vector<int32_t>& tokens);

}  // namespace braid::test
