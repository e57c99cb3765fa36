#include "text/detokenizer.h"

#include <utility>

#include "base/check.h"
#include "text/utf8.h"

namespace braid::text {

Detokenizer::Detokenizer(std::shared_ptr<const Tokenizer> tokenizer, DetokenizerOptions options)
    : tokenizer_(std::move(tokenizer)), options_(options) {
  BRAID_CHECK(tokenizer_ != nullptr);
}

std::string Detokenizer::push(int32_t token) {
  if (options_.skip_special_tokens && tokenizer_->is_special(token)) return {};
  pending_ += tokenizer_->piece(token);
  std::string text;
  size_t at = 0;
  while (at < pending_.size()) {
    const Utf8Unit unit = read_utf8(pending_, at);
    if (unit.kind == Utf8Unit::Kind::kPartial) break;
    if (unit.kind == Utf8Unit::Kind::kChar) {
      text.append(pending_, at, unit.size);
    } else {
      text += kReplacementChar;
    }
    at += unit.size;
  }
  pending_.erase(0, at);
  return text;
}

std::string Detokenizer::flush() {
  const std::string rest = std::exchange(pending_, {});
  return to_valid_utf8(rest);
}

}  // namespace braid::text
