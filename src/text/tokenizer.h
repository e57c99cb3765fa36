#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "text/added_tokens.h"
#include "text/marked_text.h"

namespace braid::text {

struct TokenizerData;

struct EncodeOptions {
  // The tokens that the model wants around every text (a beginning-of-text token, as a rule).
  bool add_special_tokens = true;
  // Whether special tokens that are spelt out in the text become themselves. False: they are
  // encoded as the characters they are written with.
  bool allow_special = true;
};

// Text to token ids and back, for byte-level BPE vocabularies. Gives the ids that HF tokenizers and
// tiktoken give for the same files. Const members may be called from any thread.
//
//     auto tokenizer = Tokenizer::open("model");
//     auto ids = (*tokenizer)->encode("Hello");
class Tokenizer {
 public:
  static constexpr size_t kMaxTextBytes = size_t{256} << 20;
  static constexpr int32_t kMaxTokenId = (1 << 21) - 1;

  // Reads tokenizer.json, else tiktoken.model or the one *.tiktoken file; with them
  // tokenizer_config.json where there is one.
  //
  // Errors  kNotFound     no such file in the folder
  //         kUnsupported  a part of the tokenizer that this build would have to ignore
  //         kCorrupt      not JSON; an id twice or out of range; a merge of unknown tokens
  //         kIo  kInvalidArgument (file too large)
  static Result<std::shared_ptr<const Tokenizer>> open(const std::filesystem::path& folder);

  // From the contents of tokenizer.json and tokenizer_config.json (null: none).
  static Result<std::shared_ptr<const Tokenizer>> from_json(const Json& json, const Json& config);

  // From the lines of a tiktoken file, its splitting pattern (Rust's syntax) and its special
  // tokens by content. `config` as above.
  static Result<std::shared_ptr<const Tokenizer>> from_tiktoken(
      std::string_view lines, std::string_view pattern,
      const std::map<std::string, int32_t>& special_tokens, const Json& config);

  explicit Tokenizer(std::unique_ptr<const TokenizerData> data);
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  ~Tokenizer();

  // Errors  kInvalidArgument (not well-formed UTF-8; over kMaxTextBytes)  kResourceExhausted (the
  //         splitting pattern gave up)
  Result<std::vector<int32_t>> encode(std::string_view text, EncodeOptions options = {}) const;

  // The same, where special tokens are only made of bytes that did not come from outside; all else
  // is as if the text were not marked. No tokens are added around it: chat templates write their
  // own.
  Result<std::vector<int32_t>> encode(const MarkedText& text) const;

  // Text of a whole sequence: bytes of the pieces, broken UTF-8 as U+FFFD. Ids without a piece
  // give nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;

  // One past the largest id; the ids below it need not all be in use.
  int32_t vocab_size() const;

  // Bytes that a token stands for; empty for ids that are not in use. Valid while the tokenizer
  // lives.
  std::string_view piece(int32_t id) const;
  bool is_special(int32_t id) const;

  // The id of a token by its written form: an added token's content, or else a piece's bytes.
  std::optional<int32_t> find(std::string_view token) const;

  // Named in tokenizer_config.json; empty where it names none, or a token that does not exist.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  // Their written forms, empty where there is none. Chat templates read them.
  const std::string& bos_token() const;
  const std::string& eos_token() const;

 private:
  Result<std::vector<int32_t>> encode_marked(std::string_view text,
                                             const AddedTokenFinder::MayBeSpecial& may_be) const;

  std::unique_ptr<const TokenizerData> data_;
};

}  // namespace braid::text
