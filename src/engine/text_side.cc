#include "engine/text_side.h"

#include <algorithm>
#include <utility>

#include "text/detokenizer.h"
#include "text/generation_config.h"

namespace braid {
namespace {

class DetokenizedText : public TokenText {
 public:
  explicit DetokenizedText(std::shared_ptr<const text::Tokenizer> tokenizer)
      : detokenizer_(std::move(tokenizer)) {}
  std::string push(int32_t token) override { return detokenizer_.push(token); }
  std::string flush() override { return detokenizer_.flush(); }

 private:
  text::Detokenizer detokenizer_;
};

}  // namespace

Result<TextSide> TextSide::open(const std::filesystem::path& folder) {
  TextSide side;
  side.folder_ = folder;
  auto tokenizer = text::Tokenizer::open(folder);
  if (tokenizer) {
    side.tokenizer_ = std::move(*tokenizer);
  } else if (tokenizer.error().code != ErrorCode::kNotFound) {
    return pass_on(tokenizer);
  }

  auto templates = text::ChatTemplates::open(folder);
  if (templates) {
    side.templates_ = std::make_shared<const text::ChatTemplates>(std::move(*templates));
  } else {
    side.chat_error_ = std::move(templates.error());
    // Whoever asks for the template named the model rightly: the model cannot do it.
    if (side.chat_error_.code == ErrorCode::kNotFound)
      side.chat_error_.code = ErrorCode::kUnsupported;
  }

  auto generation = text::GenerationConfig::open(folder);
  if (!generation) return pass_on(generation);
  side.eos_tokens_ = generation->eos_token_ids;
  if (side.eos_tokens_.empty() && side.tokenizer_) {
    if (const auto eos = side.tokenizer_->eos_id()) side.eos_tokens_.push_back(*eos);
  }
  SamplingParams& sampling = side.default_sampling_;
  sampling.temperature = generation->temperature.value_or(sampling.temperature);
  sampling.top_k = generation->top_k.value_or(sampling.top_k);
  sampling.top_p = generation->top_p.value_or(sampling.top_p);
  sampling.min_p = generation->min_p.value_or(sampling.min_p);
  sampling.repetition_penalty =
      generation->repetition_penalty.value_or(sampling.repetition_penalty);
  return side;
}

TokenTextFactory TextSide::token_text() const {
  if (!tokenizer_) return {};
  return [tokenizer = tokenizer_] { return std::make_unique<DetokenizedText>(tokenizer); };
}

std::shared_ptr<const grammar::Vocabulary> TextSide::vocabulary(int32_t vocab_size) const {
  if (!tokenizer_) return nullptr;
  return std::make_shared<const grammar::Vocabulary>(vocab_size, [&](int32_t id) {
    const bool is_text = !tokenizer_->is_special(id) && std::ranges::count(eos_tokens_, id) == 0;
    return is_text ? tokenizer_->piece(id) : std::string_view();
  });
}

Result<std::vector<int32_t>> TextSide::tokenize(std::string_view text,
                                                bool add_special_tokens) const {
  if (!tokenizer_)
    return fail(ErrorCode::kUnsupported, "{}: no tokenizer in this folder, pass token ids",
                folder_.string());
  return tokenizer_->encode(text, {.add_special_tokens = add_special_tokens});
}

Result<std::string> TextSide::detokenize(std::span<const int32_t> tokens,
                                         bool skip_special_tokens) const {
  if (!tokenizer_)
    return fail(ErrorCode::kUnsupported, "{}: no tokenizer in this folder, use token ids",
                folder_.string());
  return tokenizer_->decode(tokens, skip_special_tokens);
}

Result<std::vector<int32_t>> TextSide::apply_chat_template(std::string_view messages_json,
                                                           std::string_view options_json) const {
  if (!tokenizer_)
    return fail(ErrorCode::kUnsupported, "{}: no tokenizer in this folder, pass token ids",
                folder_.string());
  if (!templates_) return tl::unexpected<Error>(chat_error_);
  auto marked = templates_->render({.messages = messages_json, .options = options_json});
  if (!marked) return pass_on(marked);
  return tokenizer_->encode(*marked);
}

}  // namespace braid
