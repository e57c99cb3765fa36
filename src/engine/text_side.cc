#include "engine/text_side.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "text/detokenizer.h"
#include "text/generation_config.h"

namespace braid {
namespace {

class DetokenizedText : public TokenText {
 public:
  DetokenizedText(std::shared_ptr<const text::Tokenizer> tokenizer, bool skips_special_tokens)
      : detokenizer_(std::move(tokenizer), {.skip_special_tokens = skips_special_tokens}) {}
  std::string push(int32_t token) override { return detokenizer_.push(token); }
  std::string flush() override { return detokenizer_.flush(); }

 private:
  text::Detokenizer detokenizer_;
};

std::string_view strip(std::string_view text) {
  constexpr const char* kSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// A rendered conversation up to the end of its last message's content, so that the reply goes on
// with it. As in transformers: white space behind the content stays if the template kept it.
Result<text::MarkedText> cut_behind_last_content(const text::MarkedText& marked,
                                                 std::string_view messages_json) {
  auto messages = parse_json(messages_json);
  if (!messages) return pass_on(messages);
  const Json last = messages->is_array() && !messages->empty() ? messages->back() : Json();
  const std::string content =
      last.is_object() && last.contains("content") && last["content"].is_string()
          ? last["content"].get<std::string>()
          : "";
  const std::string_view stripped = strip(content);
  const size_t at = stripped.empty() ? std::string::npos : marked.text().rfind(stripped);
  if (at == std::string::npos) {
    return fail(ErrorCode::kInvalidArgument,
                "continue_final_message: the last message has no content in the rendered prompt");
  }
  std::string_view wanted = content;
  wanted.remove_prefix(static_cast<size_t>(stripped.data() - content.data()));
  if (marked.text().compare(at, wanted.size(), wanted) != 0) wanted = stripped;
  text::MarkedText cut;
  cut.append(marked, 0, at + wanted.size());
  return cut;
}

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
  return [tokenizer = tokenizer_](bool skips_special_tokens) {
    return std::make_unique<DetokenizedText>(tokenizer, skips_special_tokens);
  };
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

std::string_view TextSide::token_bytes(int32_t token) const {
  const bool is_known = tokenizer_ && token >= 0 && token < tokenizer_->vocab_size();
  return is_known ? tokenizer_->piece(token) : std::string_view();
}

Result<std::vector<int32_t>> TextSide::apply_chat_template(std::string_view messages_json,
                                                           std::string_view options_json) const {
  if (!tokenizer_)
    return fail(ErrorCode::kUnsupported, "{}: no tokenizer in this folder, pass token ids",
                folder_.string());
  if (!templates_) return tl::unexpected<Error>(chat_error_);
  auto marked = templates_->render({.messages = messages_json, .options = options_json});
  if (!marked) return pass_on(marked);
  const auto options = parse_json(options_json);
  if (options && options->is_object() && options->value("continue_final_message", Json()) == true) {
    marked = cut_behind_last_content(*marked, messages_json);
    if (!marked) return pass_on(marked);
  }
  return tokenizer_->encode(*marked);
}

}  // namespace braid
