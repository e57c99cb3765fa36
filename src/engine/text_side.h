#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "braid/engine.h"
#include "engine/token_text.h"
#include "grammar/vocabulary.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace braid {

// What a model folder says about text: tokenizer, chat template, generation defaults. Each may be
// missing; what needs it then says kUnsupported. A chat template that this build cannot use is no
// reason not to serve the model: its error comes when it is asked for. Const members may be called
// from any thread.
class TextSide {
 public:
  // Errors  those of Tokenizer::open, but for kNotFound, and of GenerationConfig::open
  static Result<TextSide> open(const std::filesystem::path& folder);

  // Empty without a tokenizer.
  TokenTextFactory token_text() const;

  // What grammars are held against, for a model of vocab_size tokens: special tokens and end tokens
  // write no text. Null without a tokenizer.
  std::shared_ptr<const grammar::Vocabulary> vocabulary(int32_t vocab_size) const;

  // End tokens of the model; may be empty, may be outside of the vocabulary.
  const std::vector<int32_t>& eos_tokens() const { return eos_tokens_; }
  const SamplingParams& default_sampling() const { return default_sampling_; }

  Result<std::vector<int32_t>> tokenize(std::string_view text, bool add_special_tokens) const;
  Result<std::string> detokenize(std::span<const int32_t> tokens, bool skip_special_tokens) const;
  std::string_view token_bytes(int32_t token) const;
  Result<std::vector<int32_t>> apply_chat_template(std::string_view messages_json,
                                                   std::string_view options_json) const;

 private:
  std::filesystem::path folder_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;      // null: none
  std::shared_ptr<const text::ChatTemplates> templates_;  // null: chat_error_ says why
  Error chat_error_ = {ErrorCode::kUnsupported, ""};
  std::vector<int32_t> eos_tokens_;
  SamplingParams default_sampling_;
};

}  // namespace braid
