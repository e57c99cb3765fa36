#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pre_tokenizer.h"

namespace braid::text {

// What a tokenizer is made of; filled by the readers of the file formats, then never changed.
struct TokenizerData {
  TokenizerData(PreTokenizer pre, Bpe words)
      : pre_tokenizer(std::move(pre)), bpe(std::move(words)) {}

  bool nfc = false;  // normalise text to form C first
  PreTokenizer pre_tokenizer;
  Bpe bpe;

  std::vector<std::string> pieces;  // bytes by id; empty where the id is not in use
  std::vector<bool> is_special;     // by id, as long as pieces
  std::deque<AddedToken> added;     // a deque: the finders point into it
  std::map<std::string, int32_t, std::less<>> added_id_of_content;
  AddedTokenFinder raw_finder;         // looks at the text as it came
  AddedTokenFinder normalized_finder;  // looks at the normalised text

  std::vector<int32_t> prefix, suffix;  // around every text, when asked for

  std::string bos_token, eos_token;  // empty: none
  std::optional<int32_t> bos_id, eos_id, pad_id;

  // Takes a token into pieces, added and the finders.
  //
  // Errors  kCorrupt (the id is another token's)  kUnsupported (too long, id too large)
  Status add_token(AddedToken token);

  // Reads what concerns encoding from tokenizer_config.json: added_tokens_decoder, the names of
  // special tokens, add_bos_token.
  //
  // Errors  kCorrupt  kUnsupported
  Status apply_config(const Json& config);
};

// Reads "content" and the flags of an added token; its id is written elsewhere in each file.
//
// Errors  kCorrupt
Status read_added_token_flags(const Json& json, AddedToken& token);

// The pieces by id, from (bytes, id) pairs in any order.
//
// Errors  kCorrupt (an id twice, negative or over Tokenizer::kMaxTokenId)
Result<std::vector<std::string>> pieces_by_id(
    const std::vector<std::pair<std::string, int32_t>>& tokens);

}  // namespace braid::text
