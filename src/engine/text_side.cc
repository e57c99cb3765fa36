#include "engine/text_side.h"

#include "text/detokenizer.h"

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
    if (const auto eos = side.tokenizer_->eos_id()) side.eos_tokens_.push_back(*eos);
  } else if (tokenizer.error().code != ErrorCode::kNotFound) {
    return pass_on(tokenizer);
  }
  return side;
}

TokenTextFactory TextSide::token_text() const {
  if (!tokenizer_) return {};
  return [tokenizer = tokenizer_] { return std::make_unique<DetokenizedText>(tokenizer); };
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

Result<std::vector<int32_t>> TextSide::apply_chat_template(std::string_view,
                                                           std::string_view) const {
  return fail(ErrorCode::kUnsupported, "{}: no chat template in this folder", folder_.string());
}

}  // namespace braid
